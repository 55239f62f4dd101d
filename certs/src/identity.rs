//! A key and its self-signed certificate: who we are on the wire.
//!
//! The certificate is a container for the public key, made so that every TLS library takes it:
//! ECDSA P-256, X.509 v3, its own certificate authority (some peers want `keyCertSign` in a
//! self-signed certificate that they are told to trust) that may also sign handshakes.
//!
//! What peers see of us is what is in the certificate, and DTLS 1.2 sends it in clear. So it says
//! nothing: one common name for everybody, no host name, no address, no date of birth.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::{Zeroize as _, Zeroizing};

use crate::Fingerprint;
use crate::file::{self, FileError, PRIVATE_FILE_BYTES_MAX, PRIVATE_FILE_MODE};

/// Name of the file that [`Identity::load_or_create`] keeps in its directory: private key and
/// certificate as two PEM blocks, so that both come into being in one atomic step. OpenSSL and
/// GnuTLS take the one file for both of their options.
pub const IDENTITY_FILE: &str = "identity.pem";

/// Common name of the certificates that [`Identity::load_or_create`] makes.
pub const COMMON_NAME: &str = "metadata";

/// Longest common name, in characters (`ub-common-name`, RFC 5280 appendix A.1).
pub const COMMON_NAME_CHARS_MAX: usize = 64;

/// Takes the last day of the year 9999 to `99991231235959Z`.
const LAST_SECOND_OF_DAY: Duration = Duration::from_secs(24 * 60 * 60 - 1);

/// A private key and its certificate. The key is zeroised when dropped and hidden from `Debug`.
#[derive(Clone)]
pub struct Identity {
    certificate_der: Vec<u8>,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl Identity {
    /// Makes a new key and a self-signed certificate for it.
    ///
    /// The certificate is valid from 1970-01-01 to 9999-12-31T23:59:59Z, which RFC 5280 §4.1.2.5
    /// defines as "no expiry": pins decide whom we trust and for how long, and an instance whose
    /// clock is not set yet, or was reset to its epoch, must be able to connect.
    ///
    /// # Errors
    ///
    /// [`IdentityError::CommonName`] if the name is empty, longer than [`COMMON_NAME_CHARS_MAX`]
    /// or has control characters; [`IdentityError::Generate`] if the random generator fails.
    pub fn generate(common_name: &str) -> Result<Self, IdentityError> {
        if !(1..=COMMON_NAME_CHARS_MAX).contains(&common_name.chars().count())
            || common_name.chars().any(char::is_control)
        {
            return Err(IdentityError::CommonName(common_name.to_owned()));
        }
        let mut key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|error| IdentityError::Generate(error.to_string()))?;
        let pkcs8 = Zeroizing::new(key.serialize_der());
        let certificate = self_signed(&key, common_name);
        key.zeroize();
        let certificate =
            certificate.map_err(|error| IdentityError::Generate(error.to_string()))?;
        Ok(Self { certificate_der: certificate.der().to_vec(), pkcs8 })
    }

    /// Loads [`IDENTITY_FILE`] from a directory, or makes both at the first start. When two
    /// processes start at once, one identity wins and both return it.
    ///
    /// # Errors
    ///
    /// [`IdentityError`]. A file that is there but cannot be used is never replaced: a new
    /// identity would be refused by every peer that has pinned the old one.
    pub fn load_or_create(directory: &Path) -> Result<Self, IdentityError> {
        file::ensure_private_directory(directory)?;
        let path = directory.join(IDENTITY_FILE);
        match Self::load(&path, &path) {
            Err(IdentityError::File(error)) if error.is_not_found() => {}
            found => return found,
        }
        let fresh = Self::generate(COMMON_NAME)?;
        if file::create_atomic(&path, fresh.to_pem().as_bytes(), PRIVATE_FILE_MODE)? {
            return Ok(fresh);
        }
        Self::load(&path, &path)
    }

    /// Loads the first certificate of one PEM file and the first private key of another, or of
    /// the same one. The key must be ECDSA P-256 in unencrypted PKCS#8, and no one but its owner
    /// may have access to its file.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] names the file, what is wrong with it and how to repair it.
    pub fn load(certificate_path: &Path, key_path: &Path) -> Result<Self, IdentityError> {
        let key_pem = file::read_private(key_path, PRIVATE_FILE_BYTES_MAX)?;
        let certificate_pem = file::read_public(certificate_path, PRIVATE_FILE_BYTES_MAX)?;
        let unusable = |path: &Path| {
            let path = path.to_owned();
            move |reason| IdentityError::Unusable { path, reason }
        };
        let (pkcs8, public_key) = read_key(&key_pem).map_err(unusable(key_path))?;
        let (certificate_der, certified_key) =
            read_certificate(&certificate_pem).map_err(unusable(certificate_path))?;
        // A P-256 SubjectPublicKeyInfo ends with the uncompressed point (RFC 5480 §2).
        if !certified_key.ends_with(&public_key) {
            return Err(IdentityError::NotAPair {
                certificate_path: certificate_path.to_owned(),
                key_path: key_path.to_owned(),
            });
        }
        Ok(Self { certificate_der, pkcs8 })
    }

    /// The certificate, DER-encoded.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    /// The private key as PKCS#8 (RFC 5958), DER-encoded.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// What the other end pins.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_der(&self.certificate_der)
    }

    /// The certificate as PEM, public.
    pub fn certificate_pem(&self) -> String {
        let mut text = String::new();
        push_pem(&mut text, "CERTIFICATE", &self.certificate_der);
        text
    }

    /// Private key and certificate as PEM, as they stand in [`IDENTITY_FILE`].
    pub fn to_pem(&self) -> Zeroizing<String> {
        // Base64 adds a third, line ends and markers a little: enough that no copy is left behind
        // by a growing string.
        let capacity = 2 * (self.pkcs8.len() + self.certificate_der.len()) + 256;
        let mut text = Zeroizing::new(String::with_capacity(capacity));
        push_pem(&mut text, "PRIVATE KEY", &self.pkcs8);
        push_pem(&mut text, "CERTIFICATE", &self.certificate_der);
        text
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A file cannot be read or written, or is open to others.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file holds no usable key or certificate.
    #[error("{} {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: UnusableReason,
    },
    /// Certificate and key are each fine, but not of each other.
    #[error(
        "the certificate in {} is not for the private key in {}",
        certificate_path.display(), key_path.display()
    )]
    NotAPair {
        /// The certificate's file.
        certificate_path: PathBuf,
        /// The key's file.
        key_path: PathBuf,
    },
    /// A name that cannot stand in a certificate.
    #[error(
        "common name {0:?} must have 1 to {COMMON_NAME_CHARS_MAX} characters, none of them a control character"
    )]
    CommonName(String),
    /// Key or certificate could not be made.
    #[error("cannot make a key and certificate: {0}")]
    Generate(String),
}

/// What is wrong with a PEM file. Reads on from the file's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnusableReason {
    /// No certificate in it.
    #[error("has no CERTIFICATE block; expected a PEM file with an X.509 certificate")]
    NoCertificate,
    /// No private key in it, or an encrypted one.
    #[error(
        "has no PRIVATE KEY block; expected an unencrypted PKCS#8 key, convert with: \
         openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW"
    )]
    NoKey,
    /// A private key in the older form of its algorithm.
    #[error(
        "holds the key as {0}; expected PKCS#8, convert with: \
         openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW"
    )]
    OtherKeyFormat(&'static str),
    /// A PKCS#8 key of another algorithm, or a damaged one.
    #[error("does not hold an ECDSA P-256 key ({0})")]
    KeyRefused(String),
    /// The PEM text is damaged.
    #[error("is not well-formed PEM: {0}")]
    Malformed(&'static str),
    /// The certificate's DER is damaged or not X.509 v3.
    #[error("does not hold an X.509 v3 certificate ({0})")]
    CertificateRefused(String),
}

fn self_signed(
    key: &rcgen::KeyPair,
    common_name: &str,
) -> Result<rcgen::Certificate, rcgen::Error> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
    params.not_before = rcgen::date_time_ymd(1970, 1, 1);
    params.not_after = rcgen::date_time_ymd(9999, 12, 31) + LAST_SECOND_OF_DAY;
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages =
        vec![rcgen::KeyUsagePurpose::DigitalSignature, rcgen::KeyUsagePurpose::KeyCertSign];
    params.self_signed(key)
}

/// The key as PKCS#8, and its public half as an uncompressed point.
fn read_key(pem: &[u8]) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), UnusableReason> {
    let mut key =
        PrivateKeyDer::from_pem_slice(pem).map_err(|e| pem_fault(&e, UnusableReason::NoKey))?;
    let pkcs8 = match &key {
        PrivateKeyDer::Pkcs8(der) => Ok(Zeroizing::new(der.secret_pkcs8_der().to_vec())),
        PrivateKeyDer::Sec1(_) => Err(UnusableReason::OtherKeyFormat("EC PRIVATE KEY (SEC 1)")),
        _ => Err(UnusableReason::OtherKeyFormat("RSA PRIVATE KEY (PKCS#1)")),
    };
    key.zeroize();
    let pkcs8 = pkcs8?;
    let random = SystemRandom::new();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8, &random)
        .map_err(|rejected| UnusableReason::KeyRefused(rejected.to_string()))?;
    let public_key = pair.public_key().as_ref().to_vec();
    Ok((pkcs8, public_key))
}

/// The certificate, and the SubjectPublicKeyInfo in it.
fn read_certificate(pem: &[u8]) -> Result<(Vec<u8>, Vec<u8>), UnusableReason> {
    let der = CertificateDer::from_pem_slice(pem)
        .map_err(|e| pem_fault(&e, UnusableReason::NoCertificate))?;
    let parsed = webpki::EndEntityCert::try_from(&der)
        .map_err(|error| UnusableReason::CertificateRefused(error.to_string()))?;
    let public_key = parsed.subject_public_key_info().to_vec();
    Ok((der.to_vec(), public_key))
}

/// In our words: the parser's own would quote the line, which may be key material.
fn pem_fault(error: &pem::Error, nothing_found: UnusableReason) -> UnusableReason {
    match error {
        pem::Error::NoItemsFound => nothing_found,
        pem::Error::MissingSectionEnd { .. } => {
            UnusableReason::Malformed("a block has no END line")
        }
        pem::Error::IllegalSectionStart { .. } => {
            UnusableReason::Malformed("a BEGIN line is incomplete")
        }
        pem::Error::Base64Decode(_) => UnusableReason::Malformed("a block is not base64"),
        _ => UnusableReason::Malformed("it cannot be read"),
    }
}

/// One PEM block (RFC 7468), lines of 64 characters.
fn push_pem(text: &mut String, label: &str, der: &[u8]) {
    let body = Zeroizing::new(BASE64.encode(der));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
}

#[cfg(test)]
mod tests;
