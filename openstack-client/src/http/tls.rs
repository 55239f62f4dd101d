//! TLS by rustls on ring, and the certificates that are trusted.

use std::env;
use std::path::Path;
use std::sync::Arc;

use rustls_native_certs::CertificateResult;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::Trust;

/// Files of trusted certificates by the names that `requests` reads.
const BUNDLE_VARIABLES: [&str; 2] = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];

pub(super) fn config(trust: &Trust) -> Result<TlsConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
    let found = match trust {
        Trust::Everybody => return Ok(builder.disable_verification(true).build()),
        Trust::File(path) => load(path),
        Trust::Machine => match BUNDLE_VARIABLES.iter().find_map(env::var_os) {
            Some(path) if !path.is_empty() => load(Path::new(&path)),
            _ => rustls_native_certs::load_native_certs(),
        },
    };
    if found.certs.is_empty() {
        let whose = match trust {
            Trust::File(path) => format!("no certificate to trust in {}", path.display()),
            _ => "no trusted certificates on this machine; install ca-certificates or name a file \
                  of them"
                .into(),
        };
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        let why =
            if errors.is_empty() { String::new() } else { format!(": {}", errors.join("; ")) };
        return Err(whose + &why);
    }
    let roots = found.certs.iter().map(|der| Certificate::from_der(der).to_owned());
    Ok(builder.root_certs(RootCerts::Specific(Arc::new(roots.collect()))).build())
}

fn load(path: &Path) -> CertificateResult {
    if path.is_dir() {
        rustls_native_certs::load_certs_from_paths(None, Some(path))
    } else {
        rustls_native_certs::load_certs_from_paths(Some(path), None)
    }
}
