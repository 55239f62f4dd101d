use std::os::unix::net::UnixStream as Std;

use super::client::ask;
use super::*;

struct Bench {
    dir: tempfile::TempDir,
    control: Option<Control>,
    commands: mpsc::UnboundedReceiver<Command>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (commands_in, commands) = mpsc::unbounded_channel();
        let control = Control::start(&dir.path().join("control.sock"), commands_in).unwrap();
        Self { dir, control: Some(control), commands }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    /// Asks from a thread of its own.
    fn client(&self, name: &str) -> JoinHandle<io::Result<Answer>> {
        let (path, question) = (self.path(), why(name));
        thread::spawn(move || ask(&path, &question))
    }

    /// The next question that reaches the pipeline.
    fn asked(&mut self) -> Ask {
        match self.commands.blocking_recv() {
            Some(Command::Ask(ask)) => ask,
            other => panic!("{other:?}"),
        }
    }

    /// What a client gets that sends these bytes.
    fn refused(&self, bytes: &[u8]) -> Refusal {
        let mut stream = Std::connect(self.path()).unwrap();
        io::Write::write_all(&mut stream, bytes).unwrap();
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(stream), &mut line).unwrap();
        match serde_json::from_str::<Reply>(&line).unwrap().answer {
            Answer::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }
}

fn why(name: &str) -> Question {
    Question::Why { name: name.into() }
}

fn refusal(text: &str) -> Answer {
    Answer::Refused(Refusal::new(RefusalCode::NotNow, text, "later"))
}

fn code(answer: Answer) -> RefusalCode {
    match answer {
        Answer::Refused(refusal) => refusal.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_question_reaches_the_pipeline_with_who_asked_and_its_answer_comes_back() {
    let mut bench = Bench::new();
    let mode = std::fs::metadata(bench.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let client = bench.client("a");
    let asked = bench.asked();
    assert_eq!(asked.question, why("a"));
    assert_eq!(asked.asked_by, user(rustix::process::geteuid().as_raw()));
    asked.answer.send(refusal("because")).unwrap();
    assert_eq!(client.join().unwrap().unwrap(), refusal("because"));
}

#[test]
fn what_is_no_question_is_refused_and_does_not_reach_the_pipeline() {
    let mut bench = Bench::new();
    for (bytes, words) in [
        (&b"hello\n"[..], "not understood"),
        (b"{\"schema\":1}\n", "not understood"),
        (b"{\"schema\":1,\"ask\":\"dance\"}\n", "not understood"),
        (b"{\"schema\":2,\"ask\":\"why\",\"name\":\"a\"}\n", "speaks schema 1"),
        (&[b'x'; QUESTION_BYTES_MAX + 1], "more than 163840 bytes"),
    ] {
        let refusal = bench.refused(bytes);
        assert_eq!(refusal.code, RefusalCode::BadQuestion);
        assert!(refusal.text.contains(words), "{}", refusal.text);
        assert!(refusal.hint.is_some());
    }
    assert!(bench.commands.try_recv().is_err());
}

#[test]
fn stuck_clients_are_limited_in_number_and_hold_up_nobody() {
    let mut bench = Bench::new();
    let mut stuck: Vec<Std> = Vec::new();
    for _ in 0..CLIENTS_MAX {
        stuck.push(Std::connect(bench.path()).unwrap());
    }
    // They are accepted in order, so this one finds all places taken.
    assert_eq!(code(ask(&bench.path(), &why("a")).unwrap()), RefusalCode::Busy);
    stuck.pop();
    let path = bench.path();
    let client = thread::spawn(move || {
        // Until the place of the one that left is free.
        while code(ask(&path, &why("b")).unwrap()) == RefusalCode::Busy {}
    });
    let asked = bench.asked();
    assert_eq!(asked.question, why("b"));
    asked.answer.send(refusal("here")).unwrap();
    client.join().unwrap();
}

#[test]
fn a_socket_left_behind_is_replaced_and_none_is_left_by_a_stop() {
    let mut bench = Bench::new();
    std::mem::forget(bench.control.take());
    let (commands_in, commands) = mpsc::unbounded_channel();
    bench.control = Some(Control::start(&bench.path(), commands_in).unwrap());
    bench.commands = commands;
    let client = bench.client("new");
    bench.asked().answer.send(refusal("here")).unwrap();
    client.join().unwrap().unwrap();
    drop(bench.control.take());
    assert!(!bench.path().exists());
    assert!(ask(&bench.path(), &why("nobody")).is_err());
}

#[test]
fn an_agent_that_stops_leaves_no_client_waiting() {
    let mut bench = Bench::new();
    let client = bench.client("a");
    drop(bench.asked());
    match client.join().unwrap().unwrap() {
        Answer::Refused(refusal) => assert!(refusal.text.contains("stopping")),
        other => panic!("{other:?}"),
    }
    let cut_off = bench.client("b");
    let asked = bench.asked();
    drop(bench.control.take());
    assert!(cut_off.join().unwrap().is_err());
    drop(asked);
}

#[test]
fn only_root_and_the_agents_own_user_may_ask() {
    assert!(is_allowed(0, 1000) && is_allowed(1000, 1000) && is_allowed(0, 0));
    assert!(!is_allowed(1001, 1000) && !is_allowed(1000, 0));
    assert_eq!(user(0), "user root (uid 0)");
    assert_eq!(user(u32::MAX - 7), format!("uid {}", u32::MAX - 7));
}
