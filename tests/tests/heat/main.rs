//! The real programs with a real Heat and Keystone, started by `tests/heat/up`; `./test --heat` does both.
//!
//! Heat is as its package has it. All that tells it of us is the `messaging` endpoint in Keystone's
//! catalogue, and `software_config_transport: ZAQAR_MESSAGE` in the templates. What it posts passes a
//! [`front::Front`], which notes when. One test at a time: they share Heat and that endpoint.
//!
//! `cargo test -p system-tests --test heat -- --ignored --nocapture` measures latencies.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod cloud;
mod failures;
mod front;
mod latency;
mod lifecycle;
mod order;
mod stack;
mod world;
