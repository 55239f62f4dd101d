//! Two `webrtc-dtls` connections on a pipe in memory.

use std::sync::Arc;

use certs::Identity;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls_pki_types::CertificateDer;
use tokio::runtime::{Builder, Runtime};
use webrtc_dtls::cipher_suite::CipherSuiteId;
use webrtc_dtls::config::{ClientAuthType, Config, ExtendedMasterSecretType};
use webrtc_dtls::conn::DTLSConn;
use webrtc_dtls::crypto::{Certificate, CryptoPrivateKey, CryptoPrivateKeyKind};
use webrtc_util::conn::conn_pipe::pipe;

use crate::{MTU, identity};

/// A client's and a server's configuration, and a runtime for both ends.
pub struct Pair {
    runtime: Runtime,
    client: Config,
    server: Config,
}

/// The two ends of an open connection.
pub struct Open {
    client: DTLSConn,
    server: DTLSConn,
}

/// The configuration of `own`'s end, AES-128-GCM only; it talks to `peer` alone.
///
/// # Panics
/// If an identity is not one of ours.
#[must_use]
pub fn config(own: &Identity, peer: &Identity) -> Config {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, own.pkcs8(), &random);
    let pinned = peer.certificate_der().to_vec();
    Config {
        certificates: vec![Certificate {
            certificate: vec![CertificateDer::from(own.certificate_der().to_vec())],
            private_key: CryptoPrivateKey {
                kind: CryptoPrivateKeyKind::Ecdsa256(key.expect("our own identity")),
                serialized_der: own.pkcs8().to_vec(),
            },
        }],
        cipher_suites: vec![CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256],
        client_auth: ClientAuthType::RequireAnyClientCert,
        extended_master_secret: ExtendedMasterSecretType::Require,
        insecure_skip_verify: true,
        verify_peer_certificate: Some(Arc::new(move |certificates, _| {
            if certificates == [pinned.clone()] {
                return Ok(());
            }
            Err(webrtc_dtls::Error::ErrInvalidCertificate)
        })),
        server_name: certs::identity::COMMON_NAME.into(),
        mtu: MTU,
        ..Config::default()
    }
}

impl Default for Pair {
    fn default() -> Self {
        Self::new()
    }
}

impl Pair {
    /// Fresh identities and a runtime on the calling thread.
    ///
    /// # Panics
    /// If the system has no room for a runtime.
    #[must_use]
    pub fn new() -> Self {
        let (client, server) = (identity(), identity());
        Self {
            runtime: Builder::new_current_thread().enable_all().build().expect("a runtime"),
            client: config(&client, &server),
            server: config(&server, &client),
        }
    }

    /// A whole handshake, cookie exchange and mutual authentication included.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn handshake(&self) -> Open {
        self.runtime.block_on(async {
            let (at_client, at_server) = pipe();
            let (client, server) = tokio::join!(
                DTLSConn::new(Arc::new(at_client), self.client.clone(), true, None),
                DTLSConn::new(Arc::new(at_server), self.server.clone(), false, None),
            );
            Open { client: client.expect("a client"), server: server.expect("a server") }
        })
    }

    /// Ends a connection on both sides.
    pub fn close(&self, open: Open) {
        self.runtime.block_on(async {
            // The second goodbye finds nobody.
            let _ = open.client.close().await;
            let _ = open.server.close().await;
        });
    }

    /// Sends `count` copies of a message from server to client, one at a time: more would block
    /// in its channels. Returns the bytes that arrived.
    ///
    /// # Panics
    /// If the connection is not open.
    pub fn push(&self, open: &Open, message: &[u8], count: usize) -> usize {
        self.runtime.block_on(async {
            let mut buffer = [0; 2 * MTU];
            let mut bytes = 0;
            for _ in 0..count {
                open.server.write(message, None).await.expect("open");
                bytes += open.client.read(&mut buffer, None).await.expect("open");
            }
            bytes
        })
    }
}
