//! evbase
pub mod base;
