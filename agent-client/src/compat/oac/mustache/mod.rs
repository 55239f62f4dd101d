//! Mustache as `os-apply-config` speaks it: no escaping, JSON for whatever is not a string, a missing
//! name is the empty string.
//!
//! Otherwise the public Mustache specification holds: sections, inverted sections, comments, partials,
//! delimiters, standalone lines. Sections know Python's truth: `0`, `""`, `[]`, `{}`, `false` and null
//! are false.

mod parse;
mod render;

pub use parse::{ParseError, SECTIONS_NESTED_MAX, Template};
pub use render::{PARTIALS_NESTED_MAX, Partials, RenderError, render};

#[cfg(test)]
mod tests;
