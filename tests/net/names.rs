//! Names: looked up away from the loop, and an error where there is nobody to do it.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use evbase::net::{TcpStream, UdpSocket, lookup_host};

use crate::block_on;
use crate::support::{alone, fork, watchdog};

#[test]
fn a_look_up_gives_all_addresses_and_what_is_an_address_already() {
    let _watchdog = watchdog();
    block_on(async {
        let found: Vec<SocketAddr> = lookup_host("localhost:80").await.unwrap().collect();
        assert!(!found.is_empty() && found.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 80));
        let pair: Vec<SocketAddr> = lookup_host(("localhost", 80)).await.unwrap().collect();
        assert_eq!(pair, found);
        let several = [
            SocketAddr::from(([127, 0, 0, 1], 1)),
            SocketAddr::from(([127, 0, 0, 2], 2)),
        ];
        assert!(lookup_host(&several[..]).await.unwrap().eq(several));
        assert!(lookup_host("127.0.0.1:1").await.unwrap().eq([several[0]]));
        for text in ["localhost", "localhost:x", ":1", ""] {
            let error = lookup_host(text).await.map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text:?}");
        }
        // RFC 2606: there is no such name.
        let error = lookup_host("nobody.invalid:80").await.map(drop).unwrap_err();
        assert!(error.to_string().contains("nobody.invalid"), "{error}");
    });
    // Any executor will do.
    assert!(futures::executor::block_on(lookup_host("localhost:1")).is_ok());
}

#[test]
fn the_child_of_a_fork_whose_parent_used_the_pool_gets_an_error() {
    alone(|| {
        // Not yet used: the child's own pool does it.
        let code = fork(|| {
            block_on(async { assert!(lookup_host("localhost:1").await.unwrap().next().is_some()) });
        });
        assert_eq!(code, 0);
        block_on(async { drop(lookup_host("localhost:1").await.unwrap()) });
        let code = fork(|| {
            block_on(async {
                for error in [
                    lookup_host("localhost:1").await.map(drop).unwrap_err(),
                    TcpStream::connect("localhost:1").await.map(drop).unwrap_err(),
                    UdpSocket::bind(("localhost", 0)).await.map(drop).unwrap_err(),
                ] {
                    let text = error.to_string();
                    assert!(text.contains("fork") && text.contains("localhost"), "{text}");
                }
                // Addresses need no pool.
                UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                UdpSocket::bind("127.0.0.1:0").await.unwrap();
            });
        });
        assert_eq!(code, 0);
        block_on(async { drop(lookup_host("localhost:1").await.unwrap()) });
    });
}
