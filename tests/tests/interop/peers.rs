//! The peers: what they can do, where their programs are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use dtls_channel::CipherSuite;
use dtls_channel::CipherSuite::{Aes128GcmSha256, Aes256GcmSha384, Chacha20Poly1305Sha256};

use system_tests::Role;

use crate::rust_peers;

/// A DTLS implementation.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// Where it comes from.
    pub(crate) source: &'static str,
    /// The suites that it has in common with us.
    pub(crate) suites: &'static [CipherSuite],
    /// Our roles in which it writes a key log.
    pub(crate) key_log: &'static [Role],
    /// Our roles in which it can leave out the extended master secret.
    pub(crate) without_ems: &'static [Role],
    /// True if its server can leave out `renegotiation_info`.
    pub(crate) without_renegotiation_info: bool,
    /// True if it resumes sessions by tickets.
    pub(crate) tickets: bool,
    /// True if its server never answers `renegotiation_info`, which a setting of ours has to admit.
    pub(crate) lacks_renegotiation_info: bool,
    /// True if it has connection ids.
    pub(crate) connection_ids: bool,
    /// True if it sends no alert when it does not want our certificate.
    pub(crate) refuses_in_silence: bool,
    /// True if it reads no certificate that is valid for ever.
    pub(crate) wants_an_end: bool,
    /// True if it is part of this program.
    in_this_program: bool,
}

const ALL_SUITES: &[CipherSuite] = &[Aes128GcmSha256, Aes256GcmSha384, Chacha20Poly1305Sha256];

const BOTH: &[Role] = &[Role::Client, Role::Server];

/// A library in a Debian package, with everything; the entries below say what one lacks.
const LIBRARY: Peer = Peer {
    name: "",
    source: "",
    suites: ALL_SUITES,
    key_log: BOTH,
    without_ems: BOTH,
    without_renegotiation_info: false,
    tickets: true,
    lacks_renegotiation_info: false,
    connection_ids: false,
    refuses_in_silence: false,
    wants_an_end: false,
    in_this_program: false,
};

pub(crate) const ALL: &[Peer] = &[
    Peer { name: "openssl", source: "Debian `libssl-dev`", ..LIBRARY },
    Peer {
        name: "gnutls",
        source: "Debian `libgnutls28-dev`",
        without_renegotiation_info: true,
        ..LIBRARY
    },
    Peer { name: "mbedtls", source: "Debian `libmbedtls-dev`", ..LIBRARY },
    Peer {
        name: "botan",
        // Its years end at 3100.
        wants_an_end: true,
        source: "Debian `libbotan-2-dev`",
        key_log: &[],
        without_ems: &[],
        ..LIBRARY
    },
    Peer {
        name: "wolfssl-5.5",
        source: "Debian `libwolfssl-dev`",
        key_log: &[],
        without_ems: &[Role::Server],
        ..LIBRARY
    },
    Peer {
        name: "wolfssl-5.9",
        source: "crate `wolfssl-sys`, its C source",
        // Its servers write none.
        key_log: &[Role::Server],
        connection_ids: true,
        ..LIBRARY
    },
    Peer {
        name: "pion",
        source: "Debian `golang-github-pion-dtls.v2-dev`",
        suites: &[Aes128GcmSha256, Aes256GcmSha384],
        // It resumes by session ids only.
        tickets: false,
        ..LIBRARY
    },
    Peer {
        name: "dimpl",
        source: "crate `dimpl`",
        refuses_in_silence: true,
        key_log: &[],
        without_ems: &[],
        tickets: false,
        in_this_program: true,
        ..LIBRARY
    },
    Peer {
        name: "webrtc-dtls",
        source: "crate `webrtc-dtls`",
        suites: &[Aes128GcmSha256],
        key_log: &[],
        tickets: false,
        in_this_program: true,
        ..LIBRARY
    },
    Peer {
        name: MATRIXSSL,
        suites: &[Aes128GcmSha256, Aes256GcmSha384],
        lacks_renegotiation_info: true,
        tickets: false,
        source: "no registry: a built tree in `MATRIXSSL_DIR`",
        key_log: &[],
        without_ems: &[],
        ..LIBRARY
    },
];

pub(crate) const MATRIXSSL: &str = "matrixssl";
const MATRIXSSL_DIR: &str = "MATRIXSSL_DIR";

impl Peer {
    /// Its program.
    pub(crate) fn command(&self) -> Command {
        if self.in_this_program {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args([rust_peers::ARGUMENT, self.name]);
            return command;
        }
        Command::new(work().join("bin").join(self.name))
    }

    /// What its library calls itself.
    pub(crate) fn version(&self) -> String {
        let output = self.command().arg("version").output();
        let output = output.unwrap_or_else(|error| panic!("{} does not run: {error}", self.name));
        assert!(output.status.success(), "{} has no version: {output:?}", self.name);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// Why a peer is not there.
#[derive(Debug)]
pub(crate) enum Missing {
    Failed(String),
    Skipped(&'static str),
}

pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder of the workspace")
}

fn work() -> PathBuf {
    repository().join(".cache/interop")
}

/// Builds what is not there yet; returns the peers that still are not.
pub(crate) fn build() -> BTreeMap<&'static str, Missing> {
    let mut script = Command::new(repository().join("tests/interop/build"));
    // What cargo tells this test about itself is of no use to other builds.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_") {
            script.env_remove(&name);
        }
    }
    if std::env::var_os(MATRIXSSL_DIR).is_some_and(|value| value.is_empty()) {
        script.env_remove(MATRIXSSL_DIR);
    }
    // Which of them failed is told by their files.
    let built = script.status().expect("tests/interop/build runs");
    let mut missing = BTreeMap::new();
    for peer in ALL.iter().filter(|peer| !peer.in_this_program) {
        if peer.name == MATRIXSSL && std::env::var_os(MATRIXSSL_DIR).is_none_or(|v| v.is_empty()) {
            let why = "it is in no registry, and MATRIXSSL_DIR names no built tree of it";
            missing.insert(peer.name, Missing::Skipped(why));
        } else if let Ok(why) =
            std::fs::read_to_string(work().join(format!("{}.failed", peer.name)))
        {
            missing.insert(peer.name, Missing::Failed(why));
        }
    }
    let failed = missing.values().any(|missing| matches!(missing, Missing::Failed(_)));
    assert!(built.success() || failed, "tests/interop/build failed before it built anything");
    missing
}
