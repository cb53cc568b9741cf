//! [`ToSocketAddrs`]: addresses and names to bind or connect to.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::home::coop;
use crate::unblock::try_unblock;

/// Addresses, or names of some: a [`SocketAddr`], an IP address or host name with a port, a `"host:port"` text, or several
/// addresses to be tried one after the other.
///
/// Texts that are no addresses are names, looked up by the system's resolver on a pool of threads. The trait is sealed:
/// it can be required, but not implemented elsewhere.
///
/// # Examples
///
/// ```
/// use std::net::Ipv4Addr;
/// use evbase::net::TcpListener;
///
/// let runtime = evbase::Runtime::new()?;
/// runtime.block_on(async {
///     TcpListener::bind("127.0.0.1:0").await?;
///     TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
///     TcpListener::bind(("localhost", 0)).await?;
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait ToSocketAddrs: sealed::ToSocketAddrs {}

pub(super) mod sealed {
    use super::Resolve;

    /// Keeps the trait from being implemented elsewhere.
    pub trait ToSocketAddrs {
        fn resolve(&self) -> Resolve;
    }
}

/// Addresses, or what has to be looked up.
#[derive(Debug)]
pub enum Resolve {
    /// No look-up is needed.
    Known(Addresses),
    /// To be looked up.
    Name(String, u16),
    /// The text is neither an address nor a name with a port.
    Invalid(String),
}

/// Addresses, one after the other. A single one needs no memory.
#[derive(Debug)]
pub enum Addresses {
    One(Option<SocketAddr>),
    Several(std::vec::IntoIter<SocketAddr>),
}

impl Iterator for Addresses {
    type Item = SocketAddr;

    fn next(&mut self) -> Option<SocketAddr> {
        match self {
            Self::One(addr) => addr.take(),
            Self::Several(addrs) => addrs.next(),
        }
    }
}

/// Looks a name up: the addresses in the order in which the system's resolver gives them. Texts and pairs that are addresses
/// already are given as they are, without a look-up.
///
/// Cancel-safe: the look-up goes on if the future is dropped, and its result is dropped. Any executor may await it.
///
/// # Errors
///
/// `InvalidInput` if the text is neither an address nor a name with a port; what the resolver says, which isn't told apart
/// further; and an error in the child of a `fork`, if the parent has used the pool of [`unblock`](crate::unblock()) before.
///
/// # Examples
///
/// ```
/// let runtime = evbase::Runtime::new()?;
/// runtime.block_on(async {
///     for addr in evbase::net::lookup_host("localhost:80").await? {
///         assert!(addr.ip().is_loopback());
///     }
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn lookup_host(addrs: impl ToSocketAddrs) -> io::Result<impl Iterator<Item = SocketAddr>> {
    let resolve = addrs.resolve();
    coop::unit().await;
    resolve.addresses().await
}

/// The first address, to send to.
pub(super) async fn first(addrs: impl ToSocketAddrs) -> io::Result<SocketAddr> {
    let resolve = addrs.resolve();
    let addr = resolve.addresses().await?.next();
    if addr.is_none() {
        coop::unit().await;
    }
    addr.ok_or_else(no_address)
}

fn no_address() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "there is no address to bind, connect or send to",
    )
}

/// Tries the addresses one after the other, until one will do; gives the last error.
pub(super) async fn first_that_works<A, T, F>(addrs: A, mut attempt: impl FnMut(SocketAddr) -> F) -> io::Result<T>
where
    A: ToSocketAddrs,
    F: Future<Output = io::Result<T>>,
{
    let mut last = None;
    let resolve = addrs.resolve();
    coop::unit().await;
    for addr in resolve.addresses().await? {
        match attempt(addr).await {
            Ok(value) => return Ok(value),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(no_address))
}

impl Resolve {
    /// Addresses that are known spend nothing of the budget: what is done with them may.
    async fn addresses(self) -> io::Result<Addresses> {
        match self {
            Self::Known(addrs) => Ok(addrs),
            Self::Name(host, port) => {
                let name = host.clone();
                let looked_up =
                    match try_unblock(move || std::net::ToSocketAddrs::to_socket_addrs(&(name.as_str(), port))) {
                        Ok(looking_up) => looking_up.await,
                        Err(error) => Err(error),
                    };
                looked_up
                    .map(Addresses::Several)
                    .map_err(|error| io::Error::new(error.kind(), format!("{host:?} could not be looked up: {error}")))
            }
            Self::Invalid(text) => {
                coop::unit().await;
                Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("{text:?} is no address: it should be like 127.0.0.1:80, [::1]:80 or example.org:80"),
                ))
            }
        }
    }
}

macro_rules! known {
    ($($type:ty),*) => {$(
        impl ToSocketAddrs for $type {}

        impl sealed::ToSocketAddrs for $type {
            fn resolve(&self) -> Resolve {
                Resolve::Known(Addresses::One(Some(SocketAddr::from(*self))))
            }
        }
    )*};
}

known!(
    SocketAddr,
    SocketAddrV4,
    SocketAddrV6,
    (IpAddr, u16),
    (Ipv4Addr, u16),
    (Ipv6Addr, u16)
);

impl ToSocketAddrs for [SocketAddr] {}

impl sealed::ToSocketAddrs for [SocketAddr] {
    fn resolve(&self) -> Resolve {
        Resolve::Known(Addresses::Several(Vec::from(self).into_iter()))
    }
}

impl ToSocketAddrs for (&str, u16) {}

impl sealed::ToSocketAddrs for (&str, u16) {
    fn resolve(&self) -> Resolve {
        match self.0.parse::<IpAddr>() {
            Ok(ip) => Resolve::Known(Addresses::One(Some(SocketAddr::from((ip, self.1))))),
            Err(_) => Resolve::Name(self.0.to_owned(), self.1),
        }
    }
}

impl ToSocketAddrs for (String, u16) {}

impl sealed::ToSocketAddrs for (String, u16) {
    fn resolve(&self) -> Resolve {
        (self.0.as_str(), self.1).resolve()
    }
}

impl ToSocketAddrs for str {}

impl sealed::ToSocketAddrs for str {
    fn resolve(&self) -> Resolve {
        if let Ok(addr) = self.parse() {
            return Resolve::Known(Addresses::One(Some(addr)));
        }
        match self.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
            Some((host, Ok(port))) if !host.is_empty() => Resolve::Name(host.to_owned(), port),
            _ => Resolve::Invalid(self.to_owned()),
        }
    }
}

impl ToSocketAddrs for String {}

impl sealed::ToSocketAddrs for String {
    fn resolve(&self) -> Resolve {
        self.as_str().resolve()
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {}

impl<T: sealed::ToSocketAddrs + ?Sized> sealed::ToSocketAddrs for &T {
    fn resolve(&self) -> Resolve {
        (**self).resolve()
    }
}
