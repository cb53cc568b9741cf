//! Sockets on the loop.
#![cfg(feature = "net")]

#[path = "../support/mod.rs"]
mod support;

/// Takes the urgent byte of a stream, and says that there is no more: then its readiness is gone.
macro_rules! take_urgent {
    ($stream:expr) => {{
        use evbase::io::Interest;
        use std::io::ErrorKind;

        assert!($stream.ready(Interest::PRIORITY).await.unwrap().is_priority());
        let mut urgent = [std::mem::MaybeUninit::uninit(); 1];
        let take = || socket2::SockRef::from(&$stream).recv_out_of_band(&mut urgent);
        assert_eq!($stream.try_io(Interest::PRIORITY, take).unwrap(), 1);
        let none = $stream.try_io(Interest::PRIORITY, || Err::<(), _>(ErrorKind::WouldBlock.into()));
        assert_eq!(none.unwrap_err().kind(), ErrorKind::WouldBlock);
    }};
}

mod names;
mod peers;
mod short_reads;
mod tcp;
mod udp;
mod unix;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    evbase::Runtime::new().unwrap().block_on(future).unwrap()
}
