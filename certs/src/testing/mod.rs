//! For tests and fuzzers, behind the feature `testing`.

pub mod fuzz;
