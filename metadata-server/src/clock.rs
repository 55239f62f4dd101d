//! The only place where the clocks are read.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// For timers.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970; 0 before that.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
