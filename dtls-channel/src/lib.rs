//! A sans-IO DTLS 1.2 engine on ring, with a tokio/UDP driver and a network simulator.
