//! Our engine against the `webrtc-dtls` crate, in both roles, over UDP on loopback without loss:
//! it does not survive any.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;

use dtls_channel::{CipherSuite, CloseReason};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls_pki_types::CertificateDer;
use system_tests::{EXPORTER_LABEL, MTUS, Node, PATIENCE, PemIdentity, lines};
use tokio::net::UdpSocket;
use tokio::runtime::Runtime;
use webrtc_dtls::config::{ClientAuthType, Config, ExtendedMasterSecretType};
use webrtc_dtls::conn::DTLSConn;
use webrtc_dtls::crypto::{Certificate, CryptoPrivateKey, CryptoPrivateKeyKind};
use webrtc_util::KeyingMaterialExporter as _;

const EXPORTED_BYTES: usize = 32;

/// Its configuration with an identity of ours; it wants only `peer`.
fn config(own: &PemIdentity, peer: &PemIdentity, mtu: usize) -> Config {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, own.pkcs8(), &random);
    let pinned = peer.certificate().to_vec();
    Config {
        certificates: vec![Certificate {
            certificate: vec![CertificateDer::from(own.certificate().to_vec())],
            private_key: CryptoPrivateKey {
                kind: CryptoPrivateKeyKind::Ecdsa256(key.unwrap()),
                serialized_der: own.pkcs8().to_vec(),
            },
        }],
        client_auth: ClientAuthType::RequireAnyClientCert,
        extended_master_secret: ExtendedMasterSecretType::Require,
        // Otherwise it looks for a certification authority.
        insecure_skip_verify: true,
        verify_peer_certificate: Some(Arc::new(move |certificates, _| {
            if certificates == [pinned.clone()] {
                return Ok(());
            }
            Err(webrtc_dtls::Error::ErrInvalidCertificate)
        })),
        server_name: certs::identity::COMMON_NAME.into(),
        mtu,
        ..Config::default()
    }
}

async fn connect(
    server: SocketAddr,
    config: Config,
) -> Result<(DTLSConn, Vec<u8>), webrtc_dtls::Error> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    handshake(socket, config, true).await
}

/// Takes the first address that sends something as its only peer.
async fn serve(
    socket: UdpSocket,
    config: Config,
) -> Result<(DTLSConn, Vec<u8>), webrtc_dtls::Error> {
    let (_, client) = socket.peek_from(&mut [0; 16]).await.unwrap();
    socket.connect(client).await.unwrap();
    handshake(socket, config, false).await
}

async fn handshake(
    socket: UdpSocket,
    config: Config,
    is_client: bool,
) -> Result<(DTLSConn, Vec<u8>), webrtc_dtls::Error> {
    let conn = DTLSConn::new(Arc::new(socket), config, is_client, None);
    let conn = tokio::time::timeout(PATIENCE, conn).await.expect("in time")?;
    let state = conn.connection_state().await;
    let exported = state.export_keying_material(EXPORTER_LABEL, &[], EXPORTED_BYTES).await;
    Ok((conn, exported.unwrap()))
}

async fn receive(conn: &DTLSConn) -> Result<String, webrtc_dtls::Error> {
    let mut buffer = [0; 2_048];
    let length = conn.read(&mut buffer, Some(PATIENCE)).await?;
    Ok(String::from_utf8(buffer[..length].to_vec()).unwrap())
}

fn assert_same_keys(ours: &dtls_channel::Established, theirs: &[u8]) {
    let mut exported = [0; EXPORTED_BYTES];
    ours.exporter.export_without_context(EXPORTER_LABEL, &mut exported);
    assert_eq!(exported, theirs);
}

#[test]
fn webrtc_dtls_clients_are_echoed_with_every_datagram_size() {
    let runtime = Runtime::new().unwrap();
    let (ours, theirs) = (PemIdentity::new(), PemIdentity::new());
    for mtu in MTUS {
        eprintln!("MTU {mtu}");
        let node = Node::serve(ours.config(&theirs).with_mtu(mtu));
        let (address, config) = (node.address(), config(&theirs, &ours, mtu));
        let client = runtime.spawn(async move {
            let (conn, exported) = connect(address, config).await.unwrap();
            for line in lines(mtu) {
                conn.write(line.as_bytes(), None).await.unwrap();
                assert_eq!(receive(&conn).await.unwrap(), line);
            }
            conn.close().await.unwrap();
            exported
        });
        let established = node.established();
        assert_eq!(established.suite, CipherSuite::Aes128GcmSha256);
        assert_eq!(established.peer_certificate.as_deref(), Some(theirs.certificate()));
        assert!(established.extended_master_secret);
        assert_eq!(node.echo(), CloseReason::CloseNotify);
        assert_same_keys(&established, &runtime.block_on(client).unwrap());
    }
}

#[test]
fn webrtc_dtls_servers_echo_us_with_every_datagram_size() {
    let runtime = Runtime::new().unwrap();
    let (ours, theirs) = (PemIdentity::new(), PemIdentity::new());
    for mtu in MTUS {
        eprintln!("MTU {mtu}");
        let socket = runtime.block_on(UdpSocket::bind("127.0.0.1:0")).unwrap();
        let (address, config) = (socket.local_addr().unwrap(), config(&theirs, &ours, mtu));
        let server = runtime.spawn(async move {
            let (conn, exported) = serve(socket, config).await.unwrap();
            // It reports our goodbye as an error.
            while let Ok(line) = receive(&conn).await {
                conn.write(line.as_bytes(), None).await.unwrap();
            }
            exported
        });
        let node = Node::connect(address, ours.config(&theirs).with_mtu(mtu));
        let established = node.established();
        assert_eq!(established.suite, CipherSuite::Aes128GcmSha256);
        assert_eq!(established.peer_certificate.as_deref(), Some(theirs.certificate()));
        assert!(established.extended_master_secret);
        for line in lines(mtu) {
            node.send(line.as_bytes());
            assert_eq!(String::from_utf8(node.message()).unwrap(), line);
        }
        node.close();
        assert_eq!(node.closed(), CloseReason::Local);
        assert_same_keys(&established, &runtime.block_on(server).unwrap());
    }
}

#[test]
fn a_webrtc_dtls_peer_with_another_certificate_is_refused_in_either_role() {
    let runtime = Runtime::new().unwrap();
    let (ours, theirs, stranger) = (PemIdentity::new(), PemIdentity::new(), PemIdentity::new());

    let node = Node::serve(ours.config(&theirs));
    let client = runtime.spawn(connect(node.address(), config(&stranger, &ours, 1_200)));
    assert!(matches!(node.closed(), CloseReason::PeerRefused(_)));
    assert!(runtime.block_on(client).unwrap().is_err());

    let socket = runtime.block_on(UdpSocket::bind("127.0.0.1:0")).unwrap();
    let address = socket.local_addr().unwrap();
    let server = runtime.spawn(serve(socket, config(&stranger, &ours, 1_200)));
    let node = Node::connect(address, ours.config(&theirs));
    assert!(matches!(node.closed(), CloseReason::PeerRefused(_)));
    assert!(runtime.block_on(server).unwrap().is_err());
}
