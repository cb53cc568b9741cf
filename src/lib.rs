//! evbase
mod executor;
mod sync;
