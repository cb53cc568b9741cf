//! One loop a core: each accepts on a socket of its own, all of them on one port, and the kernel deals out the connections.
//!
//! ```text
//! cargo run --release --example thread_per_core -- 7000
//! ```
//!
//! Nothing is shared between the loops but the signal that ends them: talk to them with `nc 127.0.0.1 7000`, end them by Ctrl-C.

use std::cell::Cell;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use std::{env, io, thread};

use evbase::net::{TcpListener, TcpStream};
use evbase::{Builder, Shutdown};
use futures::future::{Either, select};
use socket2::{Domain, Socket, Type};

fn main() -> Result<(), Box<dyn Error>> {
    let port = match env::args().nth(1) {
        Some(port) => port.parse().map_err(|_| format!("{port:?} is no port"))?,
        None => 7000,
    };
    let mut addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let builder = Builder::new().grace(Duration::from_secs(5));
    let (mut runtimes, mut signals) = (Vec::new(), Vec::new());
    for core in 0..thread::available_parallelism()?.get() {
        let listener = listen(addr)?;
        // Port 0 was any; the others take the same one.
        addr = listener.local_addr()?;
        let runtime = builder.clone().start(format!("core {core}"))?;
        signals.push(runtime.shutdown_handle().on_signals(&[libc::SIGINT, libc::SIGTERM])?);
        // Made at home, by a closure that goes there: the future holds what is not Send.
        drop(runtime.spawner().spawn_with(move || serve(listener)));
        runtimes.push(runtime);
    }
    println!("listening on {addr}, {} times; Ctrl-C ends it", runtimes.len());

    // After the signal, and some time for who is still talking, each loop says how it ended.
    for (core, runtime) in runtimes.iter().enumerate() {
        println!("core {core}: {}", runtime.shutdown_handle().terminated().wait()?);
    }
    Ok(())
}

/// A socket for a port that others listen on as well. Linux and the BSDs deal the connections out (FreeBSD asks for
/// `SO_REUSEPORT_LB`); macOS gives them all to the last one.
fn listen(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&addr.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// Accepts until the stop; the connections have the grace period to finish.
async fn serve(listener: std::net::TcpListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let bytes = Rc::new(Cell::new(0));
    let mut requested = Shutdown::current().requested();
    loop {
        match select(pin!(listener.accept()), &mut requested).await {
            Either::Left((Ok((stream, _)), _)) => drop(evbase::spawn_local(echo(stream, bytes.clone()))),
            // Out of descriptors, perhaps: the listener stays usable, but not at once.
            Either::Left((Err(_), _)) => evbase::time::sleep(Duration::from_millis(100)).await,
            Either::Right(((), _)) => break,
        }
    }
    println!(
        "{}: {} bytes so far",
        thread::current().name().unwrap_or_default(),
        bytes.get()
    );
    Ok(())
}

/// Sends back what comes; its counter is shared with the other connections of this core, and with nobody else's.
async fn echo(stream: TcpStream, bytes: Rc<Cell<u64>>) {
    // An error is the peer's end.
    if let Ok(n) = futures::io::copy(&stream, &mut &stream).await {
        bytes.set(bytes.get() + n);
    }
}
