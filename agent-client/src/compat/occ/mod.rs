//! `os-collect-config`: collects metadata from all configured places, keeps it as files, and runs a
//! command when it changed.

pub(crate) mod cache;
pub(crate) mod collectors;
mod command_line;
pub(crate) mod config;
pub(crate) mod gather;
mod ini;
pub(crate) mod items;
mod layers;
mod log;
mod options;
pub(crate) mod pace;
pub(crate) mod run;

pub use run::main;
