//! Cases that may fail through no fault of ours, each with its reason. They run all the same, with a
//! few seeds, and are counted and printed, whether they fail with all of them or pass with one.

use system_tests::Role;

use crate::cases::{Case, What};

/// Why this case may fail, if it may.
pub(crate) fn reason(case: &Case) -> Option<&'static str> {
    let lossy = matches!(case.what, What::Echo { lossy: true, .. });
    match (case.peer.name, case.our_role) {
        ("botan", Role::Client) if lossy => {
            Some("Botan 2.19's server resends no last flight, and ends at a repeated ClientHello")
        }
        ("webrtc-dtls", _) if lossy => Some("webrtc-dtls never resends its last flight"),
        ("wolfssl-5.5", Role::Client) if lossy => {
            Some("wolfSSL 5.5.4's server does not survive every loss")
        }
        ("matrixssl", Role::Server) if lossy => {
            Some("MatrixSSL's client raises its epoch with each resend of its last flight")
        }
        ("matrixssl", Role::Client) if lossy => {
            Some("MatrixSSL's server, as our program drives it, does not survive every repetition")
        }
        _ => None,
    }
}
