//! Whole-system tests: interoperation, lossy networks, crashes.
