//! Benchmarks and comparison programs.
