//! Any descriptor on the loop: [`AsyncFd`].

mod async_fd;
pub(crate) mod by_ref;
mod error;
mod ready_guard;
mod registration;
#[cfg(any(feature = "hyper", feature = "tokio"))]
pub(crate) mod uninit;

pub use crate::base::{Event as Ready, Interest};
pub use async_fd::AsyncFd;
#[cfg(feature = "net")]
pub(crate) use async_fd::MOST_BUFFERS;
#[cfg(all(feature = "net", target_os = "linux"))]
pub(crate) use async_fd::MOST_BYTES;
pub(crate) use async_fd::set_nonblocking;
pub use error::{IntoInnerError, TryIoError, TryNewError};
pub use ready_guard::{ReadyGuard, ReadyMutGuard};
