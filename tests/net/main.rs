//! Sockets on the loop.
#![cfg(feature = "net")]

#[path = "../support/mod.rs"]
mod support;

mod names;
mod peers;
mod short_reads;
mod tcp;
mod udp;
mod unix;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    evbase::Runtime::new().unwrap().block_on(future).unwrap()
}
