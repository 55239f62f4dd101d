use arbitrary::Unstructured;
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

use super::identity::Identity;
use super::{byte, bytes, word};
use crate::crypto::{Credentials, verify};
use crate::wire::SignatureScheme;

/// What the seeds' signatures are over.
pub(super) const MESSAGE: &[u8] = b"a transcript";
const SCHEMES: [SignatureScheme; 4] = [
    SignatureScheme::ECDSA_SHA256,
    SignatureScheme::ECDSA_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme(0x0804),
];

/// Any certificate with any signature, and any certificate with any key. Nothing but a key of ours
/// verifies what a key of ours signed, and credentials are taken only if they belong together.
///
/// Layout: mode 1; length 2; signature or PKCS#8 key; certificate.
///
/// # Panics
/// When a rule is broken.
pub fn certificate(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let mode = usize::from(byte(&mut input)) % (SCHEMES.len() + 1);
    let length = usize::from(word(&mut input));
    let first = bytes(&mut input, length);
    let der = input.take_rest();
    match SCHEMES.get(mode) {
        Some(scheme) => signature(der, *scheme, first),
        None => credentials(der, first),
    }
}

fn signature(der: &[u8], scheme: SignatureScheme, signature: &[u8]) {
    let verified = verify(der, scheme, MESSAGE, signature);
    // Some Ed25519 keys, of small order, go with signatures that fit every message. Whoever
    // presents one harms only himself.
    if verified.is_err() || scheme == SignatureScheme::ED25519 {
        return;
    }
    let ours = Identity::ALL.iter().any(|i| contains(der, &public_key(i.certificate())));
    assert!(ours, "a forged signature: {scheme:?} {signature:02x?}, certificate {der:02x?}");
    assert!(verify(der, scheme, b"another", signature).is_err(), "{signature:02x?} fits all");
}

fn credentials(der: &[u8], pkcs8: &[u8]) {
    if let Ok(credentials) = Credentials::from_der(der.to_vec(), pkcs8) {
        assert_eq!(credentials.certificate(), der);
        let signer = credentials.signer();
        let Ok(signature) = signer.sign(MESSAGE) else { return };
        assert_eq!(verify(der, signer.scheme(), MESSAGE, &signature), Ok(()));
    }
}

/// The SubjectPublicKeyInfo of a certificate of ours.
fn public_key(certificate: &[u8]) -> Vec<u8> {
    let der = CertificateDer::from(certificate);
    let parsed = EndEntityCert::try_from(&der).expect("a good certificate");
    parsed.subject_public_key_info().as_ref().to_vec()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
