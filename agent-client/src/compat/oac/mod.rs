//! `os-apply-config`: files from templates and metadata.
//!
//! [`metadata`] reads, [`templates`] renders (with [`mustache`], or by running the template), [`mod@write`]
//! puts all files in their place or none; [`control`] says with which mode and owner.

pub mod cli;
pub mod control;
pub mod metadata;
pub mod mustache;
pub mod templates;
pub mod types;
pub mod write;
