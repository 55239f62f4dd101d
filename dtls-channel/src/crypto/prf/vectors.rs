//! Published answers for everything that is derived. NIST's come from its validation program for
//! the TLS 1.2 key derivation (CAVP, and ACVP for RFC 7627). For the exporter nobody publishes any:
//! what holds it are the independent implementations it is compared with, in BoringSSL's tests and
//! in the differential ones.

use data_encoding::HEXLOWER_PERMISSIVE;
use ring::hmac;

use super::{MasterSecret, Randoms, prf};
use crate::crypto::{CipherSuite, TrafficKey};

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).unwrap()
}

/// From the same message to the IETF TLS list as the one for SHA-256.
#[test]
fn the_prf_matches_the_published_sha384_vector() {
    let mut out = [0; 148];
    prf(
        hmac::HMAC_SHA384,
        &hex("b80b733d6ceefcdc71566ea48e5567df"),
        b"test label",
        &[&hex("cd665cf6a8447dd6ff8b27555edb7465")],
        &mut out,
    );
    assert_eq!(
        out.to_vec(),
        hex(concat!(
            "7b0c18e9ced410ed1804f2cfa34a336a1c14dffb4900bb5fd7942107e81c83cd",
            "e9ca0faa60be9fe34f82b1233c9146a0e534cb400fed2700884f9dc236f80edd",
            "8bfa961144c9e8d792eca722a7b32fc3d416d473ebc2c5fd4abfdad05d918425",
            "9b5bf8cd4d90fa0d31e2dec479e4f1a26066f2eea9a69236a3e52655c9e9aee6",
            "91c8f3a26854308d5eaa3be85e0990703d73e56f"
        ))
    );
}

/// NIST CAVP, TLS 1.2 with SHA-256, the first of its file.
#[test]
fn the_classic_master_secret_matches_nists_vector() {
    let premaster = hex(concat!(
        "f8938ecc9edebc5030c0c6a441e213cd24e6f770a50dda07",
        "876f8d55da062bcadb386b411fd4fe4313a604fce6c17fbc"
    ));
    let client = hex("36c129d01a3200894b9179faac589d9835d58775f9b5ea3587cb8fd0364cae8c");
    let server = hex("f6c9575ed7ddd73e1f7d16eca115415812a43c2b747daaaae043abfb50053fce");
    let mut master = [0; 48];
    prf(hmac::HMAC_SHA256, &premaster, b"master secret", &[&client, &server], &mut master);
    assert_eq!(
        master.to_vec(),
        hex(concat!(
            "202c88c00f84a17a20027079604787461176455539e705be",
            "730890602c289a5001e34eeb3a043e5d52a65e66125188bf"
        ))
    );
}

struct Rfc7627 {
    suite: CipherSuite,
    premaster: &'static str,
    session_hash: &'static str,
    client_random: &'static str,
    server_random: &'static str,
    master: &'static str,
    /// As much of it as the largest suite takes.
    key_block: &'static str,
}

/// NIST ACVP, TLS-v1.2 KDF RFC7627, cases 1 and 22 of its sample.
const NIST_RFC7627: [Rfc7627; 2] = [
    Rfc7627 {
        suite: CipherSuite::Aes128GcmSha256,
        premaster: concat!(
            "8252b983a6459a6fb3b9debe8725247e276139ebf7c9adcc",
            "dd7d240f3ada7f5e3351b2769b6c8dc169a6d799c3c0ffeb"
        ),
        session_hash: "1359d7df74cb27c67f74c98d521d442b887eaf0decf6e382c62434d6c3dd7d0d",
        client_random: "abe7af69affc5e0944f4009b3e7abd1cc0a5cce8db055eff4a509e5b6de9475a",
        server_random: "50e0a1a1fd64a55259781a5c22580a81f99799c32f52d3f48d2c10c5c692e289",
        master: concat!(
            "43a5e821fcf5446c712207f7cd161ed213ee3b9d001d418c",
            "57231befd596b583ecd55ab2c4456b02738698f90bc59ac0"
        ),
        key_block: concat!(
            "4886e75be82dd4fb73c540729072d3e29b93c164e1cffe071f1212b1237b98dc",
            "0b0a5895f331f7180ceb30b17bb8c3e92a074b26325ff975237dbd22320c0b88"
        ),
    },
    Rfc7627 {
        suite: CipherSuite::Aes256GcmSha384,
        premaster: concat!(
            "32bdbc2f1adb591d2682b14dff7e26768e9c34a0d0aaae27",
            "fffef3d275a458a7f594c1689e61be432e9ce7904706c343"
        ),
        session_hash: concat!(
            "51e9a191453b2d82d6dbc789820c78f06ad0e31778577ed5",
            "f5a894434128d2220f8ecc3ce12007c450a39fb3d5aa1dc3"
        ),
        client_random: "3464635915bf52f75a850bbfc3f0b537e0382b4735ffb4742eef7b945cf8cccb",
        server_random: "11d5d9bc41659d47bf9125b0db0d5af5578ea6c8d40ddd8975d673eb4bad0694",
        master: concat!(
            "cb8f1036b1075cbe9e6d664264d27528a3eda3f2440e1108",
            "fdec85c947d649d30bb88d0f25d3f2f7902273348a661391"
        ),
        key_block: concat!(
            "e5e87b3ba661642f2e402160c41406fe9dd8b7ee1f546c967f8ab1724b5b1484",
            "6464cc26f0f5f324885f8b8f99211060b74a5fa959fa5d4716a74356c3b50a32",
            "0123c7ec77476e3a45bab9e6b130acf2"
        ),
    },
];

#[test]
fn extended_master_secret_and_traffic_keys_match_nists_vectors() {
    for vector in NIST_RFC7627 {
        let suite = vector.suite;
        let mut bytes = zeroize::Zeroizing::new([0; 48]);
        let session_hash = hex(vector.session_hash);
        prf(
            suite.hmac(),
            &hex(vector.premaster),
            b"extended master secret",
            &[&session_hash],
            &mut bytes[..],
        );
        assert_eq!(bytes.to_vec(), hex(vector.master), "{suite:?}");
        let randoms = Randoms {
            client: hex(vector.client_random).try_into().unwrap(),
            server: hex(vector.server_random).try_into().unwrap(),
        };
        let (client, server) = MasterSecret { suite, bytes }.traffic_keys(&randoms);
        let block = hex(vector.key_block);
        let (keys, ivs) = block.split_at(2 * suite.key_len());
        let (client_key, server_key) = keys.split_at(suite.key_len());
        let (client_iv, server_iv) = ivs.split_at(suite.fixed_iv_len());
        let server_iv = &server_iv[..suite.fixed_iv_len()];
        // Keys show themselves only in what they seal.
        let sealed = |key: &TrafficKey| {
            let mut out = Vec::new();
            key.seal(1, [0; 13], b"content", &[], &mut out);
            out
        };
        assert_eq!(sealed(&client), sealed(&TrafficKey::new(suite, client_key, client_iv)));
        assert_eq!(sealed(&server), sealed(&TrafficKey::new(suite, server_key, server_iv)));
        assert_ne!(sealed(&client), sealed(&server));
    }
}
