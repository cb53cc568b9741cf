use std::net::Shutdown;
use std::sync::Arc;

use futures::io::copy;
use futures::{AsyncReadExt, AsyncWriteExt, join};
use futures_rustls::pki_types::{PrivateKeyDer, ServerName};
use futures_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use futures_rustls::{TlsAcceptor, TlsConnector};

use crate::{Result, on_a_loop, tcp_pair};

/// A server for `localhost`, and a client that trusts it.
fn ends() -> Result<(TlsAcceptor, TlsConnector)> {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
    let chain = vec![certified.cert.der().clone()];
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone())?;
    let client = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((Arc::new(server).into(), Arc::new(client).into()))
}

#[test]
fn a_rustls_server_and_its_clients_share_a_loop() {
    on_a_loop(async || {
        let (acceptor, connector) = ends()?;
        let mut clients = Vec::new();
        for n in 0..16u8 {
            let (ours, theirs) = tcp_pair().await?;
            let acceptor = acceptor.clone();
            evbase::spawn_local(async move {
                let (mut reader, mut writer) = acceptor.accept(theirs).await?.split();
                copy(&mut reader, &mut writer).await?;
                writer.close().await
            });
            let connector = connector.clone();
            clients.push(evbase::spawn_local(async move {
                let sent: Vec<u8> = (0..300_000).map(|at| at as u8 ^ n).collect();
                let name = ServerName::try_from("localhost").unwrap();
                let (mut reader, mut writer) = connector.connect(name, ours).await?.split();
                let sending = async {
                    writer.write_all(&sent).await?;
                    writer.close().await
                };
                let mut echo = Vec::new();
                let (sending, reading) = join!(sending, reader.read_to_end(&mut echo));
                (sending?, reading?);
                assert!(echo == sent);
                Ok::<_, std::io::Error>(())
            }));
        }
        for client in clients {
            client.await??;
        }
        Ok(())
    });
}

#[test]
fn a_certificate_that_nobody_trusts_is_an_error_at_both_ends() {
    on_a_loop(async || {
        let ((acceptor, _), (_, connector)) = (ends()?, ends()?);
        let (ours, theirs) = tcp_pair().await?;
        let name = ServerName::try_from("localhost")?;
        let (client, server) = join!(connector.connect(name, ours), acceptor.accept(theirs));
        assert!(client.unwrap_err().to_string().contains("certificate"));
        server.unwrap_err();
        Ok(())
    });
}

#[test]
fn a_connection_that_is_cut_off_is_no_end_of_stream() {
    on_a_loop(async || {
        let (acceptor, connector) = ends()?;
        let (ours, theirs) = tcp_pair().await?;
        let name = ServerName::try_from("localhost")?;
        let (client, server) = join!(connector.connect(name, ours), acceptor.accept(theirs));
        let mut server = server?;
        let mut client = client?;
        client.write_all(b"half a mess").await?;
        client.flush().await?;
        let (ours, _) = client.into_inner();
        ours.shutdown(Shutdown::Write)?; // without a close_notify
        let error = server.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
        Ok(())
    });
}
