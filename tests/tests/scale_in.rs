//! Scale-in with the real programs: before an instance goes, its DELETE deployment drains the service that
//! its CREATE deployment has started, and only then its result goes back.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use system_tests::documents::{document, script};
use system_tests::{Agent, PATIENCE, Server, wait_until};

const AGENT: &str = "vm";
const SERVICE: &str = env!("CARGO_BIN_EXE_drained-service");
/// Requests that are open while the instance is drained.
const OPEN: usize = 25;

/// The service that hooks of the test start and end; killed when a test fails before they do.
struct Service(PathBuf);

impl Service {
    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.0.join(name)).ok().filter(|text| !text.is_empty())
    }

    fn address(&self) -> SocketAddr {
        let port = wait_until("the service's port", || self.read("port"));
        ([127, 0, 0, 1], port.parse().unwrap()).into()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let pid = self.read("pid").and_then(|pid| pid.trim().parse().ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid
            && fs::read_link(format!("/proc/{}/exe", pid.as_raw_pid()))
                .is_ok_and(|exe| exe == Path::new(SERVICE))
        {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// A request of which the first half of the answer has come: it is open.
fn open_request(address: SocketAddr) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: service\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    while !answer.contains(&b'1') {
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "the service has hung up: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..read]);
    }
    (stream, answer)
}

fn lifecycle(id: &str, action: &str, text: &str) -> Value {
    let mut deployment = script(id, &format!("#!/bin/sh\nset -e\n{text}\n"));
    deployment["inputs"][0]["value"] = action.into();
    deployment
}

#[test]
fn an_instance_is_drained_before_the_result_of_its_delete_goes_back() {
    let server = Server::start();
    let agent = Agent::start(&server, AGENT);
    let service = Service(agent.directory().join("service"));
    fs::create_dir(&service.0).unwrap();
    let at = service.0.display();
    let create = format!(
        "{SERVICE} {at} >/dev/null 2>&1 &\necho $! > {at}/pid\n\
         until [ -s {at}/port ]; do sleep 0.02; done"
    );
    server.accept(AGENT, &document(&[lifecycle("create", "CREATE", &create)]));
    assert_eq!(server.wait_for_result(AGENT, "create")["status"], "COMPLETE");
    let address = service.address();
    let open: Vec<_> = (0..OPEN).map(|_| open_request(address)).collect();

    let delete = format!(
        "kill -TERM \"$(cat {at}/pid)\"\nuntil [ -s {at}/drained ]; do sleep 0.02; done\n\
         cat {at}/drained"
    );
    server.accept(AGENT, &document(&[lifecycle("delete", "DELETE", &delete)]));
    wait_until("the service to refuse new requests", || {
        TcpStream::connect(address).is_err().then_some(())
    });
    let ended = |id: &str| server.results(AGENT).iter().any(|r| r["result"]["config_id"] == id);
    assert!(!ended("delete"), "requests are open");
    let state = agent.wait_for_status("the DELETE deployment", |status| {
        let deployment = &status["status"]["deployments"][0];
        (deployment["id"] == "delete").then(|| deployment["state"].clone())
    });
    assert_eq!(state, "running");
    assert!(!ended("delete") && service.read("drained").is_none(), "requests are still open");

    fs::write(service.0.join("release"), "").unwrap();
    for (mut stream, mut answer) in open {
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        assert_eq!(body, format!("{}{}", "1".repeat(1_000), "2".repeat(1_000)));
    }
    let result = server.wait_for_result(AGENT, "delete");
    assert_eq!((&result["status"], &result["action"]), (&"COMPLETE".into(), &"DELETE".into()));
    assert_eq!(result["deploy_stdout"], OPEN.to_string(), "all were answered whole, none was lost");
}

#[test]
fn a_drain_that_never_ends_is_ended_by_its_timeout_and_says_so() {
    let server = Server::start();
    let agent = Agent::start(&server, AGENT);
    let service = Service(agent.directory().join("service"));
    fs::create_dir(&service.0).unwrap();
    let at = service.0.display();
    let create = format!("{SERVICE} {at} >/dev/null 2>&1 &\necho $! > {at}/pid");
    server.accept(AGENT, &document(&[lifecycle("create", "CREATE", &create)]));
    server.wait_for_result(AGENT, "create");
    let (mut stream, mut answer) = open_request(service.address());

    let mut delete = lifecycle(
        "delete",
        "DELETE",
        &format!("kill -TERM \"$(cat {at}/pid)\"\nwhile :; do sleep 0.02; done"),
    );
    delete["options"]["timeout"] = 1.into();
    server.accept(AGENT, &document(&[delete]));
    let result = server.wait_for_result(AGENT, "delete");
    assert_eq!(result["status"], "FAILED");
    assert!(result["reason"].as_str().unwrap().starts_with("timed out after 1 s"), "{result}");
    // What another run has started is none of this one's: its open request can still end well.
    fs::write(service.0.join("release"), "").unwrap();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(b"2"));
}
