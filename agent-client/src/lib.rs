//! The daemon in the instance: takes documents, runs hooks, sends results back.

pub mod document;
pub mod hooks;
pub mod journal;
mod json_text;
pub mod outcome;
pub mod plan;
pub mod store;
