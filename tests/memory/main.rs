//! What is on the heap: what allocates nothing, and whose memory goes back while others stay.

#[path = "../support/mod.rs"]
mod support;

mod goes_back;
mod of_the_base;
mod requests;

#[global_allocator]
static ALLOCATOR: support::Counting = support::Counting;
