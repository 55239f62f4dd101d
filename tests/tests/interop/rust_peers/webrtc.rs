//! The crate `webrtc-dtls`.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls_pki_types::CertificateDer;
use tokio::runtime::Runtime;
use webrtc_dtls::config::{ClientAuthType, Config, ExtendedMasterSecretType};
use webrtc_dtls::conn::DTLSConn;
use webrtc_dtls::crypto::{Certificate, CryptoPrivateKey, CryptoPrivateKeyKind};

use super::{Options, Read, Session, fail, report};

/// The only suite that it has in common with us.
const SUITE: &str = "ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";

pub(super) struct Webrtc {
    runtime: Runtime,
    conn: DTLSConn,
}

/// Handshakes.
pub(super) fn open(options: &Options, socket: UdpSocket) -> Webrtc {
    if options.suite.as_deref().is_some_and(|suite| suite != SUITE) {
        fail("SUITE is none that this library has");
    }
    let key = EcdsaKeyPair::from_pkcs8(
        &ECDSA_P256_SHA256_ASN1_SIGNING,
        &options.key,
        &SystemRandom::new(),
    );
    let pinned = options.pinned.clone();
    let ems = if options.ems {
        ExtendedMasterSecretType::Require
    } else {
        ExtendedMasterSecretType::Disable
    };
    let config = Config {
        certificates: vec![Certificate {
            certificate: vec![CertificateDer::from(options.certificate.clone())],
            private_key: CryptoPrivateKey {
                kind: CryptoPrivateKeyKind::Ecdsa256(key.unwrap()),
                serialized_der: options.key.clone(),
            },
        }],
        client_auth: ClientAuthType::RequireAnyClientCert,
        extended_master_secret: ems,
        // Otherwise it looks for a certification authority.
        insecure_skip_verify: true,
        verify_peer_certificate: Some(Arc::new(move |certificates, _| {
            match (&pinned, certificates) {
                (Some(pinned), [certificate]) if certificate == pinned => Ok(()),
                (None, _) => Ok(()),
                _ => Err(webrtc_dtls::Error::ErrInvalidCertificate),
            }
        })),
        server_name: certs::identity::COMMON_NAME.into(),
        mtu: options.mtu,
        ..Config::default()
    };
    let is_client = options.server.is_some();
    let runtime = Runtime::new().unwrap();
    let conn = runtime.block_on(async {
        socket.set_nonblocking(true).unwrap();
        let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
        DTLSConn::new(Arc::new(socket), config, is_client, None).await
    });
    let conn = conn.unwrap_or_else(|error| fail(error));
    report(SUITE);
    Webrtc { runtime, conn }
}

impl Session for Webrtc {
    fn write(&mut self, message: &[u8]) {
        let written = self.runtime.block_on(self.conn.write(message, None));
        written.unwrap_or_else(|error| fail(error));
    }

    fn read(&mut self, patience: Duration) -> Read {
        let mut buffer = vec![0; 16_384];
        match self.runtime.block_on(self.conn.read(&mut buffer, Some(patience))) {
            Ok(length) => {
                buffer.truncate(length);
                Read::Message(buffer)
            }
            Err(webrtc_dtls::Error::ErrDeadlineExceeded) => Read::Nothing,
            // So it reports a goodbye.
            Err(_) => Read::Closed,
        }
    }

    fn close(self) {
        let _ = self.runtime.block_on(self.conn.close());
    }
}
