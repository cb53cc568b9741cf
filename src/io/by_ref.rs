//! Implements `AsyncRead` and `AsyncWrite` for a type through its references, which have them.

/// `AsyncRead` for a type, by an expression that has it: usually a reference to the type.
macro_rules! async_read_by_ref {
    ([$($generics:tt)*] $type:ty, $this:ident => $by_ref:expr $(, where $($bounds:tt)*)?) => {
        impl<$($generics)*> futures_io::AsyncRead for $type $(where $($bounds)*)? {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &mut [u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                let $this = &*self;
                std::pin::Pin::new(&mut $by_ref).poll_read(cx, buf)
            }

            fn poll_read_vectored(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                bufs: &mut [std::io::IoSliceMut<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                let $this = &*self;
                std::pin::Pin::new(&mut $by_ref).poll_read_vectored(cx, bufs)
            }
        }
    };
}

/// As `async_read_by_ref`, for `AsyncWrite`.
macro_rules! async_write_by_ref {
    ([$($generics:tt)*] $type:ty, $this:ident => $by_ref:expr $(, where $($bounds:tt)*)?) => {
        impl<$($generics)*> futures_io::AsyncWrite for $type $(where $($bounds)*)? {
            fn poll_write(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                let $this = &*self;
                std::pin::Pin::new(&mut $by_ref).poll_write(cx, buf)
            }

            fn poll_write_vectored(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                bufs: &[std::io::IoSlice<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                let $this = &*self;
                std::pin::Pin::new(&mut $by_ref).poll_write_vectored(cx, bufs)
            }

            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                let $this = &*self;
                std::pin::Pin::new(&mut $by_ref).poll_flush(cx)
            }

            fn poll_close(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                let $this = &*self;
                std::pin::Pin::new(&mut $by_ref).poll_close(cx)
            }
        }
    };
}

pub(crate) use async_read_by_ref;
pub(crate) use async_write_by_ref;
