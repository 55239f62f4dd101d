//! Paths that change or break between the real programs.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use system_tests::documents::{document, script};
use system_tests::{Agent, Disturbance, Relay, Server, wait_until};

const AGENT: &str = "paths";
const TOKEN_TTL: Duration = Duration::from_secs(600);
const COMPLETED: &str = "mds_handshakes_total{result=\"completed\"}";

/// An agent that reaches the server through something in between.
fn agent_behind(server: &Server, between: SocketAddr) -> Agent {
    let mut agent = Agent::prepare(&["--servers", &between.to_string()]);
    agent.save_token(&server.token(AGENT, TOKEN_TTL));
    agent.launch();
    agent
}

#[test]
fn an_agent_whose_path_moves_keeps_its_association_and_its_documents_come() {
    let server = Server::start();
    let relay = Relay::start(server.listen, 1, Disturbance::rebinding(25));
    let _agent = agent_behind(&server, relay.address());
    let first = server.wait_for_agent(AGENT, "connected")["remote"].clone();
    let mut number = 0;
    wait_until("two changes of the path", || {
        number += 1;
        let id = format!("config-{number}");
        let script = script(&id, &format!("#!/bin/sh\necho {number}\n"));
        let version = server.accept(AGENT, &document(&[script]));
        server.wait_until_applied(AGENT, version);
        let result = server.wait_for_result(AGENT, &id);
        assert_eq!(result["deploy_stdout"], format!("{number}\n"));
        (relay.stats().rebound >= 2).then_some(())
    });
    wait_until("the server to show where the agent is", || {
        (server.get(&format!("/v1/agents/{AGENT}"))["remote"] != first).then_some(())
    });
    assert_eq!(server.metric(COMPLETED), 1.0, "no handshake but the first");
}

/// Passes datagrams until the server's flight of certificates has reached the client, then none until
/// it is opened again.
struct Gate {
    address: SocketAddr,
    closed: Arc<AtomicBool>,
    open_again: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Gate {
    /// Longer than any message before flight 4, shorter than that.
    const CERTIFICATES_BYTES_MIN: usize = 400;

    fn start(server: SocketAddr) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = front.local_addr().unwrap();
        let [closed, open_again, stop] = std::array::from_fn(|_| Arc::new(AtomicBool::new(false)));
        let flags = [closed.clone(), open_again.clone(), stop.clone()];
        let thread = std::thread::spawn(move || Self::pass(&front, server, &flags));
        Self { address, closed, open_again, stop, thread: Some(thread) }
    }

    fn pass(
        front: &UdpSocket,
        server: SocketAddr,
        [closed, open_again, stop]: &[Arc<AtomicBool>; 3],
    ) {
        let mut buffer = vec![0; 65_535];
        front.set_nonblocking(true).unwrap();
        // Each client's port has one of its own here.
        let mut ports: Vec<(SocketAddr, UdpSocket)> = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let passes = || !closed.load(Ordering::Relaxed) || open_again.load(Ordering::Relaxed);
            while let Ok((length, client)) = front.recv_from(&mut buffer) {
                if !ports.iter().any(|(known, _)| *known == client) {
                    let port = UdpSocket::bind("127.0.0.1:0").unwrap();
                    port.set_nonblocking(true).unwrap();
                    ports.push((client, port));
                }
                for (_, port) in ports.iter().filter(|(known, _)| *known == client && passes()) {
                    // The server may be away.
                    let _ = port.send_to(&buffer[..length], server);
                }
            }
            for (client, port) in &ports {
                while let Ok((length, _)) = port.recv_from(&mut buffer) {
                    if passes() {
                        front.send_to(&buffer[..length], client).unwrap();
                    }
                    if length >= Self::CERTIFICATES_BYTES_MIN {
                        closed.store(true, Ordering::Relaxed);
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            assert!(
                thread.join().is_ok() || std::thread::panicking(),
                "the gate's thread panicked"
            );
        }
    }
}

/// Found by killing servers: the agent went on repeating its last flight to one that knew nothing of it,
/// for a minute.
#[test]
fn a_handshake_with_a_server_restarted_after_its_certificates_is_begun_anew() {
    let mut server = Server::start();
    let gate = Gate::start(server.listen);
    let _agent = agent_behind(&server, gate.address);
    wait_until("the server's certificates", || gate.closed.load(Ordering::Relaxed).then_some(()));
    server.kill();
    server.restart();
    gate.open_again.store(true, Ordering::Relaxed);
    server.wait_for_agent(AGENT, "connected");
    assert_eq!(server.metric(COMPLETED), 1.0);
}
