//! Who is who: identities, fingerprints, pins and enrolment tokens.
//!
//! Both ends of an association make their own key and self-signed certificate. DTLS proves that
//! the peer holds the key of the certificate it shows; *this* crate answers the next question,
//! whether that certificate is one we want to talk to, by comparing fingerprints with pins. A
//! pin arrives in one of two ways: the agent reads the server's from an enrolment token, the
//! server learns the agent's when that token's secret is proven over the channel.
//!
//! # Goals
//!
//! - Pure decisions: the wall clock, the exporter and the files' contents come in as arguments.
//!   Only [`mod@file`] and [`Identity`]'s load and save touch the disk; only generation draws
//!   randomness.
//! - No secret leaves by accident: private keys, token secrets and proof keys are zeroised when
//!   dropped, hidden from `Debug`, and absent from every error message.
//! - Private files are written atomically, 0600, and refused when others could read them.
//!
//! # Non-goals
//!
//! - Certificate path building, names, revocation lists, expiry: a pin is the whole policy. See
//!   `docs/adr/0002-pins-instead-of-a-pki.md`.
//! - Trust on first use.
//! - Sockets, stores, and anything about Heat.
//!
//! # Code map
//!
//! | module | holds |
//! |---|---|
//! | [`fingerprint`] | SHA-256 over a certificate's DER, and how it is written and read |
//! | [`agent_id`] | the name of an agent, checked once |
//! | [`identity`] | key and self-signed certificate: made, loaded, saved |
//! | [`pins`] | which fingerprints a peer may show, with an overlap for rotation |
//! | [`token`] | the one-line enrolment token, and the record the server keeps of it |
//! | [`proof`] | the HMAC that proves a token's secret without sending it |
//! | `testing` | what a fuzzer runs (feature `testing`) |
//! | [`mod@file`] | atomic writes and checked reads of private files |

pub mod agent_id;
pub mod file;
pub mod fingerprint;
pub mod identity;
pub mod pins;
pub mod proof;
#[cfg(feature = "testing")]
pub mod testing;
pub mod token;

pub use agent_id::AgentId;
pub use fingerprint::Fingerprint;
pub use identity::{Identity, IdentityError};
pub use pins::{PinMismatch, PinSet};
pub use token::{EnrolmentToken, TokenId, TokenRecord};
