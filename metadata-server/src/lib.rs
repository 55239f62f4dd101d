//! The daemon that pushes metadata documents to agents over DTLS and takes their results.
//!
//! # Goals
//!
//! - A document that was answered with success is durable, and reaches its agent's newest connection
//!   as soon as the network lets it. A result is confirmed to its agent once it is durable here.
//! - Who an agent is, its certificate's fingerprint says and nothing else. A fingerprint that is not
//!   pinned may present a proof of an enrolment token, within five seconds, and do nothing else.
//! - An agent reaches its own documents, and its results count for itself.
//! - Bad input, a full disk or a wrong key file gives an error that says what, with which value, why,
//!   and what to try; the last good state stays in force.
//!
//! # Non-goals
//!
//! - Running hooks, or knowing what they do: documents and results pass through as they are.
//! - Keystone, TLS and the public internet for the admin API: it is for loopback and its tunnels.
//! - TLS for the messaging service: a proxy in front of it, as the cloud's other services have.
//!
//! # Code map
//!
//! | module | what it knows |
//! |---|---|
//! | [`document`] | what a metadata document must look like |
//! | [`config`] | the settings: one table for file, flags, environment and help |
//! | [`store`] | what must not be forgotten, in one file; one thread writes |
//! | [`hub`] | agents: who may connect, what each is sent, when a result counts |
//! | [`relay`] | what became of deployments, told to Heat |
//! | [`notice`], [`metrics`], [`log`] | what happens, for watchers, Prometheus and the journal |
//! | [`zaqar`] | the cloud's messaging service, as far as Heat uses it: pushes come in here |
//! | [`heat`] | asking Heat what a server's metadata is |
//! | [`http`], [`client`] | the admin API and the command line's way to it |
//! | [`boot`] | putting it together, and taking it apart in order |
//! | [`cli`], [`error`] | commands, tables, errors, exit codes |
//!
//! Data goes one way: HTTP → store → hub → agent, and agent → hub → store → relay → Heat. The hub learns of a document
//! from the store's writer, after the fsync, and from nowhere else.

pub mod boot;
pub mod cli;
pub mod client;
mod clock;
pub mod config;
pub mod document;
pub mod error;
pub mod heat;
pub mod http;
pub mod hub;
pub mod log;
pub mod metrics;
pub mod notice;
pub mod relay;
pub mod store;
pub mod sweep;
pub mod tickets;
pub mod zaqar;

/// Name and version of this program, as agents and callers are told.
pub const SOFTWARE: &str = concat!("metadata-server/", env!("CARGO_PKG_VERSION"));
