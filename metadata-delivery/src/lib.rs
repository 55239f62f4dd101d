//! Versioned documents and results, delivered over an unreliable datagram channel: sans-IO.
