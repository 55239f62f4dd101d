use std::ffi::OsStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::control::Control;
use crate::control::message::{Answer as Answered, Refusal, RefusalCode};
use crate::pipeline::Command;
use openstack_client::testing::{Answer, HttpServer};

const QUICK: Patience = Patience {
    attempts_max: 3,
    pause_first: Duration::from_millis(1),
    pause_max: Duration::from_millis(2),
};

struct Machine {
    _root: tempfile::TempDir,
    system: System,
}

/// A machine whose metadata service is `nova`, with a fake `hostname`.
fn machine(nova: &str) -> Machine {
    let root = tempfile::tempdir().unwrap();
    let tools = root.path().join("bin");
    crate::machine::testing::tool(&tools, "hostname", "echo host.example.org");
    std::fs::create_dir_all(root.path().join("var/log")).unwrap();
    let system = System::below(root.path(), tools.as_os_str(), nova);
    Machine { _root: root, system }
}

fn signal(machine: &Machine, arguments: &[&str]) -> bool {
    exit(machine, arguments) == ExitCode::SUCCESS
}

fn exit(machine: &Machine, arguments: &[&str]) -> ExitCode {
    let arguments: Vec<OsString> = [OsStr::new("cfn-signal")]
        .into_iter()
        .chain(arguments.iter().map(OsStr::new))
        .map(OsStr::to_owned)
        .collect();
    run(&arguments, &machine.system, QUICK)
}

/// An agent that gives one answer to all, and the questions that it was asked.
fn agent(machine: &Machine, answer: Answered) -> (Control, Arc<Mutex<Vec<Question>>>) {
    let socket = machine.system.control_socket();
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let (commands, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let control = Control::start(&socket, commands).unwrap();
    let questions = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&questions);
    std::thread::spawn(move || {
        while let Some(Command::Ask(ask)) = asked.blocking_recv() {
            seen.lock().unwrap().push(ask.question);
            let _ = ask.answer.send(answer.clone());
        }
    });
    (control, questions)
}

/// Where nobody listens.
fn nowhere() -> String {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    format!("http://{nobody}/?Signature=abc")
}

#[test]
fn what_cannot_be_reached_goes_to_the_server_by_the_running_agent() {
    for (answer, code) in [
        (Answered::Signal(Signalled::Stored), ExitCode::SUCCESS),
        (Answered::Signal(Signalled::Kept), ExitCode::from(EXIT_KEPT)),
    ] {
        let machine = machine("");
        let (_control, questions) = agent(&machine, answer);
        let url = nowhere();
        assert_eq!(exit(&machine, &["-i", "x", &url]), code);
        let questions = questions.lock().unwrap();
        let [Question::Signal { url: asked, body }] = &questions[..] else { panic!() };
        assert_eq!(asked, &url);
        assert!(body.starts_with(r#"{"Status": "SUCCESS""#), "{body}");
        let log = std::fs::read_to_string(machine.system.at("/var/log/cfn-signal.log")).unwrap();
        assert!(!log.contains("Signature"), "{log}");
    }
}

/// Breaks the first connections off without an answer, and answers with this status from then on.
fn hiccup(broken: usize, status: u16) -> (String, std::thread::JoinHandle<()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let serve = move || {
        for _ in 0..broken {
            drop(listener.accept().unwrap());
        }
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut part = [0; 4096];
        // The body is an object, and ends the request.
        while !request.ends_with(b"}") {
            let length = std::io::Read::read(&mut stream, &mut part).unwrap();
            assert!(length > 0, "half a request");
            request.extend_from_slice(&part[..length]);
        }
        let answer =
            format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        std::io::Write::write_all(&mut stream, answer.as_bytes()).unwrap();
    };
    (url, std::thread::spawn(serve))
}

#[test]
fn after_a_hiccup_the_url_is_tried_on_also_if_the_agent_keeps_the_signal() {
    for (status, code) in
        [(200, ExitCode::SUCCESS), (403, ExitCode::FAILURE), (503, ExitCode::from(EXIT_KEPT))]
    {
        let machine = machine("");
        let (_control, questions) = agent(&machine, Answered::Signal(Signalled::Kept));
        let (url, server) = hiccup(2, status);
        assert_eq!(exit(&machine, &["-i", "x", &url]), code, "{status}");
        server.join().unwrap();
        assert_eq!(questions.lock().unwrap().len(), 1, "it has the signal");
    }
}

#[test]
fn a_server_that_does_not_relay_is_said_and_the_url_is_tried_on() {
    let machine = machine("");
    let refusal = Refusal::new(RefusalCode::Failed, "not in this agent's document", "x");
    let (_control, questions) = agent(&machine, Answered::Refused(refusal));
    assert_eq!(exit(&machine, &["-i", "x", &nowhere()]), ExitCode::FAILURE);
    assert_eq!(questions.lock().unwrap().len(), 1, "it would refuse again");
    let log = std::fs::read_to_string(machine.system.at("/var/log/cfn-signal.log")).unwrap();
    assert!(log.contains("not in this agent's document") && log.contains("attempt 2"), "{log}");
}

#[test]
fn an_answer_by_http_is_an_answer_and_the_agent_is_not_asked() {
    let machine = machine("");
    let (_control, questions) = agent(&machine, Answered::Signal(Signalled::Stored));
    for (statuses, is_taken) in [([503, 200], true), ([403, 403], false), ([500, 500], false)] {
        let count = AtomicU32::new(0);
        let server = HttpServer::start(move |_| {
            let index = count.fetch_add(1, Ordering::SeqCst) as usize;
            Answer::new(statuses[index.min(1)], "")
        });
        assert_eq!(signal(&machine, &["-i", "x", &server.url("/")]), is_taken);
    }
    assert!(questions.lock().unwrap().is_empty());
}

#[test]
fn the_body_is_what_the_original_sends() {
    let server = HttpServer::start(|_| Answer::new(200, ""));
    let machine = machine("http://127.0.0.1:1");
    let url = server.url("/wait?Signature=abc");
    for (arguments, status, reason, data, id) in [
        (
            &["-i", "x"][..],
            "SUCCESS",
            "Configuration Complete",
            "Application has completed configuration.",
            "x",
        ),
        (&["-s", "false", "-r", "no", "-d", "ü", "-i", "x"], "FAILURE", "no", "\\u00fc", "x"),
        (
            &["-e", "0", "-s", "false", "--id", "x"],
            "SUCCESS",
            "Configuration Complete",
            "Application has completed configuration.",
            "x",
        ),
        (
            &["--exit-code", "3", "--id=x"],
            "FAILURE",
            "Configuration Complete",
            "Application has completed configuration.",
            "x",
        ),
        (
            &["-e", "-1", "-i", "x"],
            "FAILURE",
            "Configuration Complete",
            "Application has completed configuration.",
            "x",
        ),
        (
            &["--exit", "0", "-i", "x", "-s", "false"],
            "SUCCESS",
            "Configuration Complete",
            "Application has completed configuration.",
            "x",
        ),
        (
            &["-e", "", "-i", "x"],
            "SUCCESS",
            "Configuration Complete",
            "Application has completed configuration.",
            "x",
        ),
        (
            &["-s", "True", "-i", "x"],
            "FAILURE",
            "Configuration Complete",
            "Application has completed configuration.",
            "x",
        ),
        (
            &["-k", "-d", "{\"a\": 1}"],
            "SUCCESS",
            "Configuration Complete",
            "{\\\"a\\\": 1}",
            "host.example.org",
        ),
    ] {
        let arguments: Vec<&str> = arguments.iter().copied().chain([url.as_str()]).collect();
        assert!(signal(&machine, &arguments), "{arguments:?}");
        let asked = server.asked().pop().unwrap();
        assert_eq!((asked.method.as_str(), asked.target.as_str()), ("PUT", "/wait?Signature=abc"));
        assert_eq!(asked.header("content-type"), None, "as curl does when told to leave it out");
        assert_eq!(
            asked.text(),
            format!(
                r#"{{"Status": "{status}", "Reason": "{reason}", "UniqueId": "{id}", "Data": "{data}"}}"#
            ),
            "{arguments:?}"
        );
    }
    let log = std::fs::read_to_string(machine.system.at("/var/log/cfn-signal.log")).unwrap();
    assert!(log.contains("DEBUG [") && log.contains("] id: x\n"), "{log}");
    assert!(!log.contains("Signature"), "the signature is a secret");
}

#[test]
fn a_refusal_is_final_and_a_server_in_trouble_is_tried_again() {
    for (statuses, is_taken, attempts) in [
        (&[403][..], false, 1),
        (&[302], false, 1),
        (&[404], false, 1),
        (&[503, 429, 200], true, 3),
        (&[500, 500, 500, 200], false, 3),
    ] {
        let count = AtomicU32::new(0);
        let answers = statuses.to_vec();
        let server = HttpServer::start(move |_| {
            let index = count.fetch_add(1, Ordering::SeqCst) as usize;
            Answer::new(answers[index.min(answers.len() - 1)], "").header("Location", "/other")
        });
        let taken = signal(&machine(""), &["-i", "x", &server.url("/")]);
        assert_eq!((taken, server.asked().len()), (is_taken, attempts), "{statuses:?}");
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(!signal(&machine(""), &["-i", "x", &format!("http://{nobody}/")]));
    assert!(!signal(&machine(""), &["-i", "x", "no url"]));
}

#[test]
fn the_id_is_novas_and_nova_is_asked_once() {
    let nova = HttpServer::start(|asked| match asked.target.as_str() {
        "/openstack/2012-08-10/meta_data.json" => Answer::new(200, r#"{"uuid": "u-1"}"#),
        _ => Answer::new(404, ""),
    });
    let server = HttpServer::start(|_| Answer::new(204, ""));
    let machine = machine(&nova.url(""));
    for _ in 0..2 {
        assert!(signal(&machine, &[&server.url("/")]));
        assert!(server.asked().pop().unwrap().text().contains(r#""UniqueId": "u-1""#));
    }
    assert_eq!(nova.asked().len(), 1);
    std::fs::write(machine.system.at(NOVA_META), "this { is not really json").unwrap();
    assert!(signal(&machine, &[&server.url("/")]));
    assert_eq!(nova.asked().len(), 2, "a broken copy is replaced");
    assert_eq!(
        std::fs::read_to_string(machine.system.at(NOVA_META)).unwrap(),
        r#"{"uuid": "u-1"}"#
    );
}
