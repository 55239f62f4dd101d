use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use proptest::prelude::*;

use super::*;

/// Made by `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500`.
const OPENSSL_PAIR: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgp7kfMfhdZ7nhEbLq
YHzAbLV0vRMc4ct+OMnbtbcszRahRANCAAS2NS1VMyitB+4xCxoPioqLRoOqrzNB
l+m+qsVf840BdDrE8Szuxo54RMGYKMtMmtckwED1gHgpiMZv/h5z1yDx
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBdTCCARugAwIBAgIUShJoLPNqHNSuitqj7RqYmAKv7o0wCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjIwNjIzMDRaGA8yMTI2MTAyOTA2MjMw
NFowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABLY1
LVUzKK0H7jELGg+KiotGg6qvM0GX6b6qxV/zjQF0OsTxLO7GjnhEwZgoy0ya1yTA
QPWAeCmIxm/+HnPXIPGjUzBRMB0GA1UdDgQWBBSQ/nw54ThaGZe20jOiSNQr1j2J
7zAfBgNVHSMEGDAWgBSQ/nw54ThaGZe20jOiSNQr1j2J7zAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0gAMEUCIQDkbwxojy9Sm1TBUxWeh0mDKD4BrRcG31Bj
zItug8wECgIgJJb4GyXhNLVMNvQLh57VvidRm8P9RJnK1KmAevexHsw=
-----END CERTIFICATE-----
";

/// The key of `OPENSSL_PAIR` after `openssl ec`.
const OPENSSL_SEC1_KEY: &str = "\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIKe5HzH4XWe54RGy6mB8wGy1dL0THOHLfjjJ27W3LM0WoAoGCCqGSM49
AwEHoUQDQgAEtjUtVTMorQfuMQsaD4qKi0aDqq8zQZfpvqrFX/ONAXQ6xPEs7saO
eETBmCjLTJrXJMBA9YB4KYjGb/4ec9cg8Q==
-----END EC PRIVATE KEY-----
";

/// Made by `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384`.
const OPENSSL_P384_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDAHzzAhtA3f58vyATHF
92DgoGGQWDYX0bLLJISx3GtSPj69RIvNs/u+Ex8aLnD8ktOhZANiAAQYdCUaL3pZ
hNDwvcqpKApxpjp64EzINrlWgzAp1AxNqRJpIhpdY6PfUvsu/o57LIwICxtiZ8sN
FiVNRqmsN5t3f0bIIy37UtAOBLRRQFEnE3DRy3Z4mzqml63ANmqhMIU=
-----END PRIVATE KEY-----
";

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn private_file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    file::write_atomic(&path, text.as_bytes(), PRIVATE_FILE_MODE).unwrap();
    path
}

fn load_error(text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = private_file(dir.path(), "x.pem", text);
    Identity::load(&path, &path).unwrap_err().to_string()
}

#[test]
fn the_certificate_says_what_peers_need_and_nothing_more() {
    let identity = Identity::generate(COMMON_NAME).unwrap();
    let der = identity.certificate_der();
    // keyUsage, critical, digitalSignature (bit 0) and keyCertSign (bit 5): RFC 5280 §4.2.1.3.
    let key_usage = [0x06, 3, 0x55, 0x1d, 0x0f, 0x01, 1, 0xff, 0x04, 4, 0x03, 2, 2, 0b1000_0100];
    // basicConstraints, critical, cA true: RFC 5280 §4.2.1.9.
    let ca = [0x06, 3, 0x55, 0x1d, 0x13, 0x01, 1, 0xff, 0x04, 5, 0x30, 3, 0x01, 1, 0xff];
    assert!(contains(der, &key_usage));
    assert!(contains(der, &ca));
    assert!(contains(der, b"700101000000Z"), "valid since clocks count");
    assert!(contains(der, b"99991231235959Z"), "no expiry, RFC 5280 §4.1.2.5");
    assert!(contains(der, b"metadata"));
    // A flight has to fit one datagram of about 1,200 bytes.
    assert!(der.len() < 512, "{} bytes", der.len());
}

#[test]
fn the_certificate_is_signed_with_its_own_key() {
    let identity = Identity::generate("anyone").unwrap();
    let der = CertificateDer::from(identity.certificate_der());
    let anchor = webpki::anchor_from_trusted_cert(&der).unwrap();
    let certificate = webpki::EndEntityCert::try_from(&der).unwrap();
    assert!(certificate.subject_public_key_info().ends_with(&public_key(&identity)));
    assert!(anchor.subject_public_key_info.ends_with(&public_key(&identity)));
    // Certificate ::= SEQUENCE { tbs, algorithm, BIT STRING }: the signature is over tbs.
    let body = &der[4..];
    let tbs_length = 4 + usize::from(u16::from_be_bytes([body[2], body[3]]));
    let signature_at = tbs_length + 12 + 3;
    certificate
        .verify_signature(
            webpki::ring::ECDSA_P256_SHA256,
            &body[..tbs_length],
            &body[signature_at..],
        )
        .unwrap();
}

fn public_key(identity: &Identity) -> Vec<u8> {
    let random = SystemRandom::new();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, identity.pkcs8(), &random)
        .unwrap()
        .public_key()
        .as_ref()
        .to_vec()
}

#[test]
fn every_identity_is_another() {
    let (one, two) = (Identity::generate("x").unwrap(), Identity::generate("x").unwrap());
    assert_ne!(one.fingerprint(), two.fingerprint());
    assert_ne!(one.pkcs8(), two.pkcs8());
}

#[test]
fn the_first_start_makes_an_identity_and_later_starts_find_it() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let made = Identity::load_or_create(&state).unwrap();
    let path = state.join(IDENTITY_FILE);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(&state).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
    for found in [Identity::load_or_create(&state).unwrap(), Identity::load(&path, &path).unwrap()]
    {
        assert_eq!(found.certificate_der(), made.certificate_der());
        assert_eq!(found.pkcs8(), made.pkcs8());
        assert_eq!(found.fingerprint(), made.fingerprint());
    }
}

#[test]
fn processes_that_start_at_once_agree_on_one_identity() {
    let dir = tempfile::tempdir().unwrap();
    let fingerprints: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| Identity::load_or_create(dir.path()).unwrap().fingerprint()))
            .collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    let stored = Identity::load_or_create(dir.path()).unwrap().fingerprint();
    assert_eq!(fingerprints, vec![stored; 8]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_key_that_others_can_read_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let made = Identity::load_or_create(dir.path()).unwrap();
    let path = dir.path().join(IDENTITY_FILE);
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let error = Identity::load_or_create(dir.path()).unwrap_err().to_string();
    assert!(error.contains("has mode 0640"), "{error}");
    assert!(error.contains(&format!("run: chmod 600 {}", path.display())), "{error}");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(Identity::load_or_create(dir.path()).unwrap().fingerprint(), made.fingerprint());
}

#[test]
fn a_damaged_identity_is_never_replaced_by_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = private_file(dir.path(), IDENTITY_FILE, "damaged");
    assert!(Identity::load_or_create(dir.path()).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"damaged");
}

#[test]
fn a_pair_made_by_openssl_is_loaded_from_one_file_or_two() {
    let dir = tempfile::tempdir().unwrap();
    let split = OPENSSL_PAIR.find("-----BEGIN CERTIFICATE").unwrap();
    let key = private_file(dir.path(), "key", &OPENSSL_PAIR[..split]);
    let certificate = dir.path().join("crt");
    fs::write(&certificate, format!("Some text.\r\n{}", &OPENSSL_PAIR[split..])).unwrap();
    fs::set_permissions(&certificate, Permissions::from_mode(0o644)).unwrap();
    let both = private_file(dir.path(), "both", OPENSSL_PAIR);
    let identity = Identity::load(&certificate, &key).unwrap();
    assert_eq!(
        identity.fingerprint().to_string(),
        // openssl x509 -noout -fingerprint -sha256
        "sha-256 1D:5B:0A:9D:44:27:43:E5:C4:2C:11:2E:01:9E:01:A8:EE:F4:CA:44:37:9C:39:B9:C5:78:59:49:CC:D0:28:CB"
    );
    assert_eq!(Identity::load(&both, &both).unwrap().fingerprint(), identity.fingerprint());
}

#[test]
fn our_pem_is_the_pem_that_others_write() {
    let dir = tempfile::tempdir().unwrap();
    let both = private_file(dir.path(), "both", OPENSSL_PAIR);
    let identity = Identity::load(&both, &both).unwrap();
    assert_eq!(*identity.to_pem(), OPENSSL_PAIR);
    assert!(OPENSSL_PAIR.ends_with(&identity.certificate_pem()));
    assert!(!identity.certificate_pem().contains("PRIVATE"));
}

#[test]
fn a_certificate_for_another_key_is_refused_with_both_files_named() {
    let dir = tempfile::tempdir().unwrap();
    let key = private_file(dir.path(), "a.key", &Identity::generate("a").unwrap().to_pem());
    let certificate = private_file(dir.path(), "b.crt", OPENSSL_PAIR);
    let error = Identity::load(&certificate, &key).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "the certificate in {} is not for the private key in {}",
            certificate.display(),
            key.display()
        )
    );
}

#[test]
fn keys_in_other_forms_are_refused_with_the_command_that_converts_them() {
    for (text, says) in [
        (OPENSSL_SEC1_KEY, "holds the key as EC PRIVATE KEY (SEC 1)"),
        (OPENSSL_P384_KEY, "does not hold an ECDSA P-256 key"),
        ("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n", "RSA"),
        (
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "has no PRIVATE KEY block",
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "does not hold an ECDSA",
        ),
    ] {
        let error = load_error(text);
        assert!(error.contains(says) && error.contains("x.pem"), "{error}");
    }
    assert!(load_error(OPENSSL_SEC1_KEY).contains("openssl pkcs8 -topk8 -nocrypt"));
}

#[test]
fn pem_junk_is_refused_with_the_reason() {
    let whole = Identity::generate("x").unwrap().to_pem();
    let key_only = &whole[..whole.find("-----BEGIN CERTIFICATE").unwrap()];
    let certificate_only = &whole[key_only.len()..];
    let key_body = key_only.lines().nth(1).unwrap();
    for (text, says) in [
        (String::new(), "has no PRIVATE KEY block"),
        ("\0\u{1}garbage\n\n".into(), "has no PRIVATE KEY block"),
        (certificate_only.into(), "has no PRIVATE KEY block"),
        (key_only.into(), "has no CERTIFICATE block"),
        (key_only.replace("-----END PRIVATE KEY-----", ""), "a block has no END line"),
        (whole.replacen("-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE", 1), "not well-formed"),
        (whole.replacen(key_body, &format!("!{}", &key_body[1..]), 1), "not base64"),
        (whole.replacen(key_body, "", 1), "does not hold an ECDSA P-256 key"),
        (whole.replace(certificate_only.lines().nth(1).unwrap(), ""), "X.509 v3 certificate"),
    ] {
        let error = load_error(&text);
        assert!(error.contains(says), "{error}\n  expected: {says}");
        assert!(!error.contains(&key_body[1..20]), "quotes the key: {error}");
    }
}

#[test]
fn a_missing_or_huge_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none.pem");
    let error = Identity::load(&path, &path).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot open {}", path.display()));
    let huge = " ".repeat(PRIVATE_FILE_BYTES_MAX as usize + 1);
    assert!(load_error(&huge).contains("larger than the 65536 bytes"));
}

#[test]
fn a_common_name_must_fit_a_certificate() {
    for bad in ["", "a\nb", &"x".repeat(65)] {
        let error = Identity::generate(bad).unwrap_err();
        assert!(matches!(error, IdentityError::CommonName(_)), "{error}");
    }
    for good in ["x", "web-1 Ü", &"x".repeat(64)] {
        assert!(Identity::generate(good).is_ok(), "{good}");
    }
}

#[test]
fn debug_shows_the_fingerprint_and_no_key() {
    let identity = Identity::generate("x").unwrap();
    let shown = format!("{identity:?}");
    assert_eq!(shown, format!("Identity {{ fingerprint: {:?}, .. }}", identity.fingerprint()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_the_readers_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read_key(&bytes);
        let _ = read_certificate(&bytes);
    }

    #[test]
    fn no_certificate_der_makes_the_reader_panic_and_damage_never_panics(
        at in 0usize..2000, with: u8, cut in 0usize..2000,
    ) {
        let mut text = OPENSSL_PAIR.as_bytes().to_vec();
        let at = at % text.len();
        text[at] = with;
        let cut = cut % text.len();
        let _ = read_key(&text);
        let _ = read_certificate(&text);
        let _ = read_certificate(&text[..cut]);
        prop_assert!(read_key(&text[..cut.min(100)]).is_err());
    }
}
