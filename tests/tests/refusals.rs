//! Who is not the one expected is refused within five seconds, is told which fingerprint was seen
//! and which was expected, and reaches no document.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use certs::{EnrolmentToken, Fingerprint, Identity};
use metadata_delivery::message::{DeploymentResult, Enrol, Hex32, Message, Progress, ResultStatus};
use metadata_delivery::{CloseCode, Document, Event, Name};
use system_tests::documents::{document, script};
use system_tests::{Agent, Puppet, Server, hello, wait_until};

const HOUR: Duration = Duration::from_secs(3_600);
/// The five seconds, and some room for a busy machine.
const REFUSED_WITHIN: Duration = Duration::from_secs(5 + 2);
/// What `sysexits.h` calls EX_NOPERM.
const EXIT_REFUSED: i32 = 77;

/// Text that must reach nobody but its agent.
const SECRET: &str = "the-secret-of-the-document";

/// A server with a document for agent "a".
fn server() -> Server {
    let server = Server::start();
    let marked = script("of-a", &format!("#!/bin/sh\necho {SECRET}\n"));
    server.accept("a", &document(&[marked]));
    server
}

fn fingerprint(server: &Server) -> Fingerprint {
    let answer = server.get("/v1/server");
    answer["fingerprint"].as_str().unwrap().parse().unwrap()
}

fn parse(token: &str) -> EnrolmentToken {
    token.parse().unwrap()
}

fn puppet(server: &Server) -> (Puppet, Identity) {
    let identity = Identity::generate("puppet").unwrap();
    (Puppet::connect(server.listen, &identity), identity)
}

/// Runs a command that must be refused in time, and returns what it says.
fn refused(command: &mut Command) -> String {
    let begin = Instant::now();
    let Output { status, stderr, .. } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(begin.elapsed() < REFUSED_WITHIN, "{:?}\n{stderr}", begin.elapsed());
    assert_eq!(status.code(), Some(EXIT_REFUSED), "{stderr}");
    assert!(stderr.contains("error: "), "{stderr}");
    assert!(stderr.contains("  try: "), "{stderr}");
    stderr
}

fn assert_names(text: &str, fingerprints: &[Fingerprint]) {
    for fingerprint in fingerprints {
        assert!(text.contains(&fingerprint.to_string()), "{fingerprint} is not named in: {text}");
    }
}

/// The one refusal that ends a puppet's session; nothing but a refusal may come before it.
fn close_of(puppet: &Puppet) -> (CloseCode, String) {
    let mut events = puppet.until_closed();
    let Some(Event::PeerClosed { code, reason }) = events.pop() else {
        panic!("not closed: {events:?}")
    };
    for event in events {
        assert!(matches!(event, Event::Stored { .. } | Event::Refused { .. }), "{event:?}");
    }
    (code, reason)
}

fn has_no_document(agent: &Agent) {
    assert!(!agent.state_dir().join("document").exists());
}

#[test]
fn a_server_with_another_key_than_the_token_says_is_refused_by_the_agent() {
    let server = server();
    let agent = Agent::prepare(&[]);
    let mut token = parse(&server.token("a", HOUR));
    let expected = Identity::generate("another").unwrap().fingerprint();
    token.server_fingerprint = expected;
    agent.save_token(&token.encode());
    let said = refused(&mut agent.enroll());
    assert_names(&said, &[fingerprint(&server), expected]);
    has_no_document(&agent);
}

#[test]
fn an_agent_whose_key_was_replaced_is_refused_by_the_server() {
    let server = server();
    let mut agent = Agent::start(&server, "a");
    server.wait_until_applied("a", 1);
    let expected: Fingerprint =
        server.get("/v1/agents/a")["fingerprints"][0].as_str().unwrap().parse().unwrap();
    agent.stop();
    fs::remove_file(agent.state_dir().join("document")).unwrap();
    fs::remove_dir_all(agent.state_dir().join("identity")).unwrap();
    let said = refused(&mut agent.cli(&["once", "--wait", "30s"]));
    let seen = Identity::load_or_create(&agent.state_dir().join("identity")).unwrap().fingerprint();
    assert_ne!(seen, expected);
    assert_names(&said, &[seen, expected]);
    has_no_document(&agent);
    assert_eq!(server.metric("mds_refusals_total{reason=\"pin_mismatch\"}"), 1.0);
}

#[test]
fn an_expired_token_is_refused_by_the_servers_record_whatever_the_token_says() {
    let server = server();
    let mut token = parse(&server.token("a", Duration::from_secs(10)));
    let expires = token.expires_unix;
    token.expires_unix += 3_600;
    let agent = Agent::prepare(&[]);
    agent.save_token(&token.encode());
    wait_until("the token to expire", || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        (now.as_secs() > expires).then_some(())
    });
    let said = refused(&mut agent.enroll());
    assert!(said.contains("expired"), "{said}");
    has_no_document(&agent);
}

#[test]
fn a_token_is_good_for_one_agent_only() {
    let server = server();
    let token = server.token("a", HOUR);
    let first = Agent::prepare(&[]);
    first.save_token(&token);
    let enrolled = first.enroll().output().unwrap();
    assert!(enrolled.status.success(), "{enrolled:?}");

    let second = Agent::prepare(&[]);
    second.save_token(&token);
    let said = refused(&mut second.enroll());
    assert!(said.contains("used"), "{said}");
    has_no_document(&second);
    let pinned = &server.get("/v1/agents/a")["fingerprints"];
    assert_eq!(pinned.as_array().unwrap().len(), 1);
}

#[test]
fn forged_tokens_are_refused() {
    let server = server();
    let issued = parse(&server.token("a", HOUR));

    // The right name with a wrong secret.
    let elsewhere = Server::start();
    let mut forged = parse(&elsewhere.token("a", HOUR));
    forged.token_id = issued.token_id.clone();
    forged.servers = issued.servers.clone();
    forged.server_fingerprint = issued.server_fingerprint;
    let agent = Agent::prepare(&[]);
    agent.save_token(&forged.encode());
    let said = refused(&mut agent.enroll());
    assert!(said.contains("proof"), "{said}");
    has_no_document(&agent);

    // A secret of its own with a name that nobody has given.
    let mut unknown = parse(&elsewhere.token("a", HOUR));
    unknown.servers = issued.servers.clone();
    unknown.server_fingerprint = issued.server_fingerprint;
    let agent = Agent::prepare(&[]);
    agent.save_token(&unknown.encode());
    let said = refused(&mut agent.enroll());
    assert!(said.contains("unknown") || said.contains("not known"), "{said}");
    has_no_document(&agent);

    // A good one, for another agent than it was given for.
    let mut other = issued.clone();
    other.agent_id = "b".parse().unwrap();
    let agent = Agent::prepare(&[]);
    agent.save_token(&other.encode());
    refused(&mut agent.enroll());
    has_no_document(&agent);

    // None of it has used the token up.
    let agent = Agent::prepare(&[]);
    agent.save_token(&issued.encode());
    let enrolled = agent.enroll().output().unwrap();
    assert!(enrolled.status.success(), "{enrolled:?}");
}

#[test]
fn a_stranger_that_proves_nothing_is_shown_the_door_in_five_seconds() {
    let server = server();
    let (stranger, identity) = puppet(&server);
    let _established = stranger.established();
    let begin = Instant::now();
    let (code, reason) = close_of(&stranger);
    assert!(begin.elapsed() < REFUSED_WITHIN, "{:?}", begin.elapsed());
    assert_eq!(code, CloseCode::UnknownAgent);
    assert_names(&reason, &[identity.fingerprint()]);
}

#[test]
fn a_stranger_that_only_says_hello_is_refused_with_what_was_seen_and_expected() {
    let server = server();
    let agent = Agent::start(&server, "a");
    let expected =
        Identity::load_or_create(&agent.state_dir().join("identity")).unwrap().fingerprint();
    let (stranger, identity) = puppet(&server);
    stranger.offer(hello("a").to_document(1).unwrap());
    let (code, reason) = close_of(&stranger);
    assert_eq!(code, CloseCode::PinMismatch, "{reason}");
    assert_names(&reason, &[identity.fingerprint(), expected]);
}

#[test]
fn a_stranger_with_a_made_up_proof_is_refused() {
    let server = server();
    let token = parse(&server.token("a", HOUR));
    let (stranger, _) = puppet(&server);
    let mut hello = hello("a");
    hello.enrol = Some(Enrol { token_id: token.token_id.to_string(), proof: Hex32([7; 32]) });
    stranger.offer(hello.to_document(1).unwrap());
    let (code, _) = close_of(&stranger);
    assert_eq!(code, CloseCode::TokenForged);
}

#[test]
fn a_stranger_gets_nothing_else_through() {
    let server = server();
    let (stranger, identity) = puppet(&server);
    stranger.offer(result("of-a", "stranger").to_document(1).unwrap());
    stranger.offer(progress().to_document(1).unwrap());
    let big = Name::new("hello").unwrap();
    stranger.offer(Document { name: big, version: 1, body: vec![b' '; 100_000].into() });
    let events = stranger.until_closed();
    let refused = events.iter().filter(|event| matches!(event, Event::Refused { .. })).count();
    assert!(refused >= 1, "{events:?}");
    assert!(
        !events.iter().any(|event| matches!(event, Event::Received(_) | Event::Stored { .. })),
        "{events:?}"
    );
    assert!(matches!(events.last(), Some(Event::PeerClosed { .. })), "{events:?}");
    assert!(server.results("a").is_empty());
    assert!(!server.get("/v1/pins").to_string().contains(&identity.fingerprint().to_string()));
}

/// A puppet whose key is pinned for an agent.
fn pinned(server: &Server, agent: &str) -> Puppet {
    let identity = Identity::generate("puppet").unwrap();
    let path = format!("/v1/agents/{agent}/pins/{}", hex(&identity.fingerprint()));
    let reply = server.request("PUT", &path, &[]).unwrap();
    assert!((200..300).contains(&reply.status), "{reply}");
    Puppet::connect(server.listen, &identity)
}

fn hex(fingerprint: &Fingerprint) -> String {
    let text = fingerprint.to_string();
    text.rsplit(' ').next().unwrap().replace(':', "").to_lowercase()
}

fn result(config_id: &str, output: &str) -> DeploymentResult {
    DeploymentResult {
        config_id: config_id.to_owned(),
        name: "made up".to_owned(),
        group: "script".to_owned(),
        action: "CREATE".to_owned(),
        document_version: 1,
        status: ResultStatus::Complete,
        deploy_stdout: output.to_owned(),
        deploy_stderr: String::new(),
        deploy_status_code: 0,
        outputs: serde_json::Map::new(),
        reason: None,
        started_unix_ms: 1,
        finished_unix_ms: 2,
        rerun: None,
    }
}

fn progress() -> Progress {
    Progress { document_version: 1, deployments: vec![] }
}

#[test]
fn an_agent_cannot_take_another_ones_name() {
    let server = server();
    let puppet = pinned(&server, "b");
    puppet.offer(hello("a").to_document(1).unwrap());
    let (code, reason) = close_of(&puppet);
    assert_eq!(code, CloseCode::PinMismatch);
    assert!(reason.contains("agent b"), "{reason}");
}

#[test]
fn an_agent_reads_only_its_own_document_and_answers_only_for_itself() {
    let server = server();
    server.accept("b", &document(&[script("of-b", "#!/bin/sh\necho b\n")]));
    let puppet = pinned(&server, "b");
    puppet.offer(hello("b").to_document(1).unwrap());
    // Answers for a config of agent "a", and tells of its progress.
    puppet.offer(result("of-a", "not by a").to_document(1).unwrap());
    puppet.offer(progress().to_document(1).unwrap());
    let (mut documents, mut answered) = (Vec::new(), false);
    while documents.len() < 2 || !answered {
        match puppet.next() {
            Some(system_tests::Seen::Delivery(Event::Received(document))) => {
                documents.push(document);
            }
            Some(system_tests::Seen::Delivery(Event::Stored { name, .. })) => {
                answered |= name.as_str() == "result/of-a";
            }
            Some(system_tests::Seen::Established(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    for document in documents {
        let text = String::from_utf8(document.body.to_vec()).unwrap();
        assert!(!text.contains(SECRET), "{text}");
    }
    // It counts for the one who sent it, and for nobody else.
    assert_eq!(server.results("b").len(), 1);
    assert!(server.results("a").is_empty());
    let view = server.get("/v1/agents/a");
    assert_eq!(view["applied_version"], serde_json::Value::Null);
    assert_eq!(view["delivered_version"], serde_json::Value::Null);

    // The real one's answer is not in the way of it, nor it in the other's.
    let _agent = Agent::start(&server, "a");
    let result = server.wait_for_result("a", "of-a");
    assert_eq!(result["deploy_stdout"], format!("{SECRET}\n"));
}

#[test]
fn the_admin_api_is_closed_to_callers_without_the_token() {
    let server = server();
    let paths = ["/v1/agents", "/v1/agents/a/metadata", "/v1/results", "/v1/pins", "/v1/watch"];
    for token in [None, Some("wrong")] {
        for path in paths {
            let reply = system_tests::request(server.admin, token, "GET", path, &[]).unwrap();
            assert_eq!(reply.status, 401, "{path}: {reply}");
        }
        let body = br#"{"deployments": []}"#;
        let put = system_tests::request(server.admin, token, "PUT", paths[1], body).unwrap();
        assert_eq!(put.status, 401, "{put}");
    }
    let document = server.request("GET", paths[1], &[]).unwrap();
    assert!(String::from_utf8(document.body).unwrap().contains(SECRET));
}
