//! An agent that was never enrolled: it works as os-collect-config does, until a token comes.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use certs::EnrolmentToken;
use metadata_delivery::message::ResultStatus;
use openstack_client::testing::{Answer, Asked, HttpServer};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Agent, Home, MiniServer, document, script, wait_until};

/// What Heat has for this server; none: Heat is in trouble.
type Metadata = Arc<Mutex<Option<Value>>>;

/// A machine, and a Heat that it polls by `request`.
struct Place {
    home: Home,
    heat: HttpServer,
    metadata: Metadata,
    /// The status that signals are answered with.
    answer: Arc<Mutex<u16>>,
}

impl Place {
    fn new() -> Self {
        let metadata: Metadata = Arc::new(Mutex::new(None));
        let answer = Arc::new(Mutex::new(200));
        let (shared, signals) = (Arc::clone(&metadata), Arc::clone(&answer));
        let heat = HttpServer::start(move |asked: &Asked| match asked.target.as_str() {
            "/metadata" => match &*shared.lock().unwrap() {
                Some(metadata) => Answer::new(200, metadata.to_string()),
                None => Answer::new(503, "later"),
            },
            _ => Answer::new(*signals.lock().unwrap(), ""),
        });
        let place = Self { home: Home::new(), heat, metadata, answer };
        place.configure(true);
        fs::create_dir(place.home.path("local")).unwrap();
        place.program("refresh", "echo \"command ${OS_CONFIG_FILES##*/}\" >> ran");
        place
    }

    /// The configuration of os-collect-config, with or without a place to ask for metadata.
    fn configure(&self, with_request: bool) {
        let here = self.here();
        let url = self.heat.url("/metadata");
        let request =
            if with_request { format!("[request]\nmetadata_url={url}\n") } else { String::new() };
        let conf = format!(
            "[DEFAULT]\ncachedir={here}/cache\nbackup_cachedir={here}/backup\ncommand={here}/refresh\n\
             collectors=heat_local\ncollectors=request\ncollectors=local\n\
             min_polling_interval=0.05\npolling_interval=0.05\n\
             [local]\npath={here}/local\n[heat_local]\npath={here}/init\n{request}"
        );
        fs::write(self.home.path("conf.new"), conf).unwrap();
        fs::rename(self.home.path("conf.new"), self.home.path("conf")).unwrap();
    }

    fn here(&self) -> String {
        self.home.path("").display().to_string().trim_end_matches('/').to_owned()
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.home.path(name);
        fs::write(&path, format!("#!/bin/sh\ncd {}\n{text}\n", self.here())).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn flags(&self) -> [String; 4] {
        let conf = self.home.path("conf").display().to_string();
        ["--stop-wait".into(), "0s".into(), "--collect-config".into(), conf]
    }

    fn run(&self) -> Agent {
        self.home.run(&self.flags().each_ref().map(String::as_str))
    }

    fn ask(&self, arguments: &[&str]) -> Value {
        let mut command = self.home.command(arguments);
        command.env("AGENT_CLIENT_COLLECT_CONFIG", self.home.path("conf"));
        serde_json::from_slice(&command.output().unwrap().stdout).unwrap()
    }

    fn set(&self, metadata: Value) {
        *self.metadata.lock().unwrap() = Some(metadata);
    }

    fn signals(&self) -> Vec<(String, Value)> {
        let asked = self.heat.asked().into_iter().filter(|asked| asked.target != "/metadata");
        asked.map(|a| (a.target.clone(), serde_json::from_slice(&a.body).unwrap())).collect()
    }

    /// Waits until Heat has taken this many signals.
    #[track_caller]
    fn wait_for_signals(&self, many: usize) -> Vec<(String, Value)> {
        let what = format!("{many} signals; log: {}", self.home.read("log"));
        wait_until(&what, || (self.signals().len() >= many).then(|| self.signals()))
    }

    #[track_caller]
    fn wait_for_status<T>(&self, what: &str, wanted: impl Fn(&Value) -> Option<T>) -> T {
        let what = format!("{what}; log: {}", self.home.read("log"));
        wait_until(&what, || {
            let text = self.home.read("state/status.json");
            wanted(&serde_json::from_str(&text).ok()?)
        })
    }
}

/// A deployment that leaves a line, and whose result goes to Heat.
fn ran(place: &Place, id: &str) -> Value {
    let mut entry = script(id, &format!("echo deployment {id} >> {}/ran", place.here()));
    let url = place.heat.url(&format!("/{id}?Signature=secret"));
    entry["inputs"] = json!([{"name": "deploy_signal_id", "type": "String", "value": url}]);
    entry
}

#[test]
fn it_polls_from_the_start_runs_the_command_and_the_deployments_and_signals() {
    let place = Place::new();
    place.set(document(&[
        ran(&place, "one"),
        json!({"id": "data", "name": "d", "group": "os-apply-config", "config": {"k": 1},
            "inputs": [{"name": "deploy_signal_id", "value": place.heat.url("/data")}]}),
    ]));
    let agent = place.run();
    let mut signals = place.wait_for_signals(2);
    signals.sort_by_key(|(target, _)| target.clone());
    assert_eq!(signals[0].0, "/data");
    assert_eq!(signals[0].1["deploy_stdout"], "os-apply-config deployment data completed");
    assert_eq!(signals[1].0, "/one?Signature=secret");
    assert_eq!(signals[1].1["deploy_status_code"], 0);
    assert_eq!(place.home.read("ran"), "command d.json\ndeployment one\n");
    // The file is not written at every change: the first one knows of nothing.
    let status = place.wait_for_status("results that were taken", |status| {
        let taken = |at: usize| status["deployments"][at]["result_stored"] == true;
        (status["results_waiting"] == 0 && taken(0) && taken(1)).then(|| status.clone())
    });
    assert_eq!((&status["link"]["state"], &status["agent_id"]), (&json!("unenrolled"), &json!("")));
    assert_eq!(status["polling"]["source"], "request");
    assert_eq!(status["document"]["is_polled"], true);
    let shown = place.home.output(&["status", "--wait=10s"]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(shown.status.code(), Some(0), "{text}");
    assert!(
        text.contains("agent     (not enrolled)") && text.contains("polling   request"),
        "{text}"
    );
    let why = place.ask(&["why", "one", "--json"]);
    assert!(why.to_string().contains("nothing: its result was taken"), "{why}");
    let doctor = place.ask(&["doctor", "--json"]);
    let failed = |check: &&Value| check["verdict"] == "failed";
    assert!(!doctor["checks"].as_array().unwrap().iter().any(|c| failed(&c)), "{doctor:#}");
    assert!(place.home.output(&["rerun", "one"]).status.success());
    place.wait_for_signals(3);
    assert!(place.home.read("ran").ends_with("deployment one\ndeployment one\n"));
    let rollback = place.home.output(&["rollback"]);
    assert!(String::from_utf8_lossy(&rollback.stderr).contains("was polled"), "{rollback:?}");
    agent.signal(Signal::TERM);
    assert!(agent.wait().success());
    assert!(!place.home.read("log").contains("secret"), "no signature in the log");
}

#[test]
fn what_heat_left_at_boot_tells_where_to_poll() {
    let place = Place::new();
    place.configure(false);
    let boot = json!({"os-collect-config": {"request": {"metadata_url": place.heat.url("/metadata")}},
        "deployments": [ran(&place, "at-boot")]});
    fs::write(place.home.path("init"), boot.to_string()).unwrap();
    place.set(document(&[ran(&place, "at-boot"), ran(&place, "later")]));
    // As the template of the configuration does it.
    let url = place.heat.url("/metadata");
    place.program(
        "refresh",
        &format!(
            "echo command >> ran; cat $(echo $OS_CONFIG_FILES | tr : ' ') | grep -q metadata_url || exit 0\n\
             grep -q request. conf || printf '[request]\\nmetadata_url={url}\\n' >> conf"
        ),
    );
    let _agent = place.run();
    place.wait_for_signals(2);
    let text = place.home.read("ran");
    assert_eq!(text.matches("deployment at-boot\n").count(), 1, "{text}");
    assert!(text.starts_with("command\ndeployment at-boot\n"), "{text}");
    assert!(text.ends_with("command\ndeployment later\n"), "{text}");
}

#[test]
fn whatever_changes_on_the_machine_has_the_command_run_again() {
    let place = Place::new();
    place.set(document(&[ran(&place, "one")]));
    let _agent = place.run();
    place.wait_for_signals(1);
    fs::write(place.home.path("local/more"), "{\"a\": 1}").unwrap();
    let twice = "command request.json\ndeployment one\ncommand more.json\n";
    wait_until("the command", || (place.home.read("ran") == twice).then_some(()));
    // Also while Heat is away.
    *place.metadata.lock().unwrap() = None;
    fs::write(place.home.path("local/more"), "{\"a\": 2}").unwrap();
    let thrice = format!("{twice}command more.json\n");
    wait_until("the command", || (place.home.read("ran") == thrice).then_some(()));
    place.wait_for_status("what is wrong", |status| {
        status["polling"]["error"].as_str()?.contains("503").then_some(())
    });
    assert_eq!(place.home.output(&["status"]).status.code(), Some(69));
}

#[test]
fn after_a_restart_without_heat_it_goes_on_with_what_it_had() {
    let place = Place::new();
    *place.answer.lock().unwrap() = 503;
    let blocked = script("slow", &format!("echo slow >> {}/ran; sleep 30", place.here()));
    place.set(document(&[ran(&place, "one"), blocked, ran(&place, "two")]));
    let agent = place.run();
    wait_until("the second", || place.home.read("ran").contains("slow").then_some(()));
    agent.kill_9();
    // Heat gives no metadata any more, and takes signals again.
    *place.metadata.lock().unwrap() = None;
    let before = place.signals().len();
    *place.answer.lock().unwrap() = 200;
    let _agent = place.run();
    let signals = place.wait_for_signals(before + 2);
    let mut targets: Vec<&str> =
        signals[before..].iter().map(|(target, _)| target.as_str()).collect();
    targets.sort_unstable();
    assert_eq!(targets, ["/one?Signature=secret", "/two?Signature=secret"]);
    let text = place.home.read("ran");
    assert_eq!(text.matches("deployment one").count(), 1, "{text}");
    assert_eq!(text.matches("slow").count(), 1, "interrupted, not run again: {text}");
    assert_eq!(text.matches("deployment two").count(), 1, "{text}");
}

#[test]
fn a_result_that_nobody_asks_for_any_more_is_given_up() {
    let place = Place::new();
    *place.answer.lock().unwrap() = 503;
    place.set(document(&[ran(&place, "one")]));
    let _agent = place.run();
    place.wait_for_signals(1);
    place.set(document(&[ran(&place, "two")]));
    place.wait_for_status("the first result is out of the way", |status| {
        let is_second = status["deployments"][0]["id"] == "two";
        let has_ended = status["deployments"][0]["state"] == "complete";
        (is_second && has_ended && status["results_waiting"] == 1).then_some(())
    });
    let why = place.ask(&["why", "one", "--json"]);
    assert!(why.to_string().contains("nobody asks for it any more"), "{why}");
}

#[test]
fn without_polling_there_must_be_an_enrolment_as_before() {
    let place = Place::new();
    let conf = place.home.path("conf").display().to_string();
    let runs: [&[&str]; 3] = [
        &["run"],
        &["once", "--collect-config", &conf],
        &["run", "--collect-config", &conf, "--poll-after", "0"],
    ];
    for arguments in runs {
        let output = place.home.output(arguments);
        assert_eq!(output.status.code(), Some(78), "{arguments:?}: {output:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("this agent is not enrolled"), "{text}");
    }
}

fn with_token(mut document: Value, token: &EnrolmentToken) -> Value {
    document["agent-client"] = json!({"token": *token.encode()});
    document
}

#[test]
fn a_token_in_the_metadata_enrols_it_without_a_restart() {
    let place = Place::new();
    place.set(document(&[ran(&place, "one")]));
    let agent = place.run();
    place.wait_for_signals(1);
    let server = MiniServer::start();
    // One that the server refuses, since it was never its own.
    let (address, fingerprint) = (server.address.to_string(), server.fingerprint);
    let (refused, _) =
        EnrolmentToken::issue(vec![address], fingerprint, "vm-1".parse().unwrap(), 4_000_000_000)
            .unwrap();
    place.set(with_token(document(&[ran(&place, "one"), ran(&place, "two")]), &refused));
    place.wait_for_status("a refusal", |status| {
        status["link"]["error"]["refused"].as_bool().filter(|refused| *refused)
    });
    place.set(with_token(document(&[ran(&place, "one"), ran(&place, "three")]), &server.token));
    server.wait("the agent", |seen| seen.connected == 1);
    wait_until("the third, which was polled", || {
        place.home.read("ran").contains("deployment three").then_some(())
    });
    server.push(1, &document(&[ran(&place, "one"), ran(&place, "pushed")]));
    assert_eq!(server.wait_for_result("pushed").status, ResultStatus::Complete);
    let status = place.wait_for_status("the end of polling", |status| {
        let is_pushed =
            status["document"]["version"] == 1 && status["document"].get("is_polled").is_none();
        (is_pushed && status.get("polling").is_none()).then(|| status.clone())
    });
    assert_eq!(status["agent_id"], "vm-1");
    let text = place.home.read("ran");
    for id in ["one", "two", "three", "pushed"] {
        assert_eq!(text.matches(&format!("deployment {id}\n")).count(), 1, "{text}");
    }
    let enrolment = place.home.read("state/enrolment.json");
    assert!(enrolment.contains(&server.address.to_string()), "{enrolment}");
    let hellos = server.seen().hellos.len();
    agent.signal(Signal::TERM);
    assert!(agent.wait().success());
    let log = place.home.read("log");
    assert!(log.contains("a token has come") && log.contains("the metadata of request"), "{log}");
    for token in [&refused, &server.token] {
        assert!(!log.contains(&token.encode()[5..40]), "no token in the log");
    }
    // Enrolled for good: the next start needs no metadata.
    *place.metadata.lock().unwrap() = None;
    let _agent = place.run();
    server.wait("the agent", |seen| seen.hellos.len() > hellos && seen.connected == 1);
}

/// A token that no server has issued.
fn refused_by(server: &MiniServer) -> EnrolmentToken {
    let servers = vec![server.address.to_string()];
    EnrolmentToken::issue(servers, server.fingerprint, "vm-1".parse().unwrap(), 4_000_000_000)
        .unwrap()
        .0
}

/// Has metadata polled with this token, and waits until it was looked at.
fn poll_token(place: &Place, token: &EnrolmentToken, id: &str) {
    place.set(with_token(document(&[ran(place, id)]), token));
    wait_until("what comes with the token", || {
        place.home.read("ran").contains(&format!("deployment {id}\n")).then_some(())
    });
}

#[test]
fn a_token_that_may_still_be_taken_is_not_given_up_for_a_stale_one() {
    let place = Place::new();
    let server = MiniServer::start();
    let (address, good, stale) = (server.address, server.token.clone(), refused_by(&server));
    let memory = server.kill();
    let _agent = place.run();
    poll_token(&place, &good, "good");
    wait_until("the token", || place.home.read("log").contains("a token has come").then_some(()));
    poll_token(&place, &stale, "stale");
    let server = MiniServer::restart(memory, address);
    server.wait("the agent", |seen| seen.connected == 1);
    assert_eq!(place.home.read("log").matches("a token has come").count(), 1);
}

#[test]
fn a_token_that_was_refused_is_not_taken_again() {
    let place = Place::new();
    let server = MiniServer::start();
    let tokens = [refused_by(&server), refused_by(&server)];
    let _agent = place.run();
    for (n, token) in tokens.iter().enumerate() {
        poll_token(&place, token, &format!("refused-{n}"));
        server.wait("an attempt", |seen| {
            let proofs = seen.hellos.iter().filter_map(|hello| hello.enrol.as_ref());
            proofs.into_iter().any(|proof| proof.token_id == token.token_id.as_str())
        });
        place.wait_for_status("a refusal", |status| {
            status["link"]["error"]["refused"].as_bool().filter(|refused| *refused)
        });
    }
    poll_token(&place, &tokens[0], "again");
    poll_token(&place, &server.token, "good");
    server.wait("the agent", |seen| seen.connected == 1);
    assert_eq!(place.home.read("log").matches("a token has come").count(), 3);
}

/// `heat-config` with this list, by itself or below os-refresh-config.
fn heat_config(place: &Place, list: &Value) -> Vec<(&'static str, String)> {
    fs::write(place.home.path("list"), list["deployments"].to_string()).unwrap();
    let path = |name: &str| place.home.path(name).display().to_string();
    vec![
        ("HEAT_SHELL_CONFIG", path("list")),
        ("HEAT_CONFIG_DEPLOYED", path("deployed")),
        ("HEAT_CONFIG_DEPLOYED_OLD", path("deployed-old")),
        ("HEAT_SCRIPT_WORKING", path("work")),
        ("HEAT_SCRIPT_OUTPUTS", path("outputs")),
        ("HEAT_CONFIG_NOTIFY_TIMEOUT", "0".into()),
    ]
}

#[test]
fn os_refresh_config_by_hand_leaves_deployments_to_an_agent_at_work() {
    let place = Place::new();
    place.set(document(&[ran(&place, "one")]));
    let agent = place.run();
    place.wait_for_signals(1);
    // On its way to the agent, and in the list already.
    let list = document(&[ran(&place, "one"), ran(&place, "on-its-way")]);
    let program = env!("CARGO_BIN_EXE_agent-client");
    fs::create_dir_all(place.home.path("orc/configure.d")).unwrap();
    place.program("orc/configure.d/55-heat-config", &format!("exec {program} heat-config"));
    let by_hand = || {
        let mut command = std::process::Command::new(program);
        command.arg("os-refresh-config").arg("--lockfile").arg(place.home.path("orc.lock"));
        command.env("OS_REFRESH_CONFIG_BASE_DIR", place.home.path("orc"));
        command.env("AGENT_CLIENT_STATE_DIR", place.home.state());
        command.env("AGENT_CLIENT_COLLECT_CONFIG", place.home.path("conf"));
        let output = command.envs(heat_config(&place, &list)).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let said = by_hand();
    let pid = agent.child.id();
    assert!(said.contains(&format!("agent-client (pid {pid}) runs the deployments")), "{said}");
    assert_eq!(place.home.read("ran").matches("deployment").count(), 1);
    assert!(!place.home.path("deployed").exists(), "nothing is marked");
    agent.signal(Signal::TERM);
    agent.wait();
    // Nobody is at work: what the journal does not have is nobody's.
    let said = by_hand();
    assert!(said.contains("Skipping config one, agent-client has run it"), "{said}");
    let text = place.home.read("ran");
    assert_eq!(text.matches("deployment one").count(), 1, "{text}");
    assert_eq!(text.matches("deployment on-its-way").count(), 1, "{text}");
}

/// The agent in this environment.
fn run_with(place: &Place, environment: Vec<(&'static str, String)>) -> Agent {
    let flags = place.flags();
    let arguments: Vec<&str> =
        ["run"].into_iter().chain(flags.iter().map(String::as_str)).collect();
    let mut command = place.home.command(&arguments);
    let log = fs::File::create(place.home.path("log")).unwrap();
    Agent { child: command.envs(environment).stderr(log).spawn().unwrap() }
}

#[test]
fn the_agent_sends_what_heat_config_could_not_send() {
    let place = Place::new();
    *place.answer.lock().unwrap() = 503;
    let environment = heat_config(&place, &document(&[ran(&place, "old")]));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_agent-client"));
    let output = command.arg("heat-config").envs(environment.clone()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(place.home.path("deployed/old.unsent").exists());
    let before = place.signals().len();
    *place.answer.lock().unwrap() = 200;
    let _agent = run_with(&place, environment);
    let signals = place.wait_for_signals(before + 1);
    assert_eq!(signals[before].0, "/old?Signature=secret");
    wait_until("nothing is left", || {
        (!place.home.path("deployed/old.unsent").exists()).then_some(())
    });
}

#[test]
fn heat_config_leaves_what_an_agent_has_run_that_started_for_the_first_time_meanwhile() {
    let place = Place::new();
    let list = document(&[ran(&place, "one"), ran(&place, "two")]);
    let environment = heat_config(&place, &list);
    place.program("notify", "echo >> notifying; while ! test -e go; do sleep 0.05; done");
    let mut by_hand = std::process::Command::new(env!("CARGO_BIN_EXE_agent-client"));
    by_hand.arg("heat-config").envs(environment.clone());
    by_hand.env("AGENT_CLIENT_STATE_DIR", place.home.state());
    by_hand.env("HEAT_CONFIG_NOTIFY", place.home.path("notify"));
    by_hand.stderr(fs::File::create(place.home.path("said")).unwrap());
    let mut at_it = by_hand.spawn().unwrap();
    place.home.wait_for_file("notifying");
    // The first has run, and its result is on its way for as long as we like.
    place.set(list);
    let agent = run_with(&place, environment);
    wait_until("the second", || place.home.read("ran").contains("two").then_some(()));
    place.program("go", "");
    assert!(at_it.wait().unwrap().success());
    let said = place.home.read("said");
    assert!(said.contains("Skipping config two, agent-client "), "{said}");
    assert_eq!(place.home.read("ran").matches("two").count(), 1);
    agent.signal(Signal::TERM);
    assert!(agent.wait().success());
}

#[test]
fn results_of_heat_config_that_hang_hold_up_neither_documents_nor_the_end() {
    let place = Place::new();
    *place.answer.lock().unwrap() = 503;
    let mut environment = heat_config(&place, &document(&[ran(&place, "old")]));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_agent-client"));
    assert!(
        command.arg("heat-config").envs(environment.clone()).output().unwrap().status.success()
    );
    place.program("notify", "echo $$ > new; mv new notifying; exec sleep 600");
    environment.push(("HEAT_CONFIG_NOTIFY", place.home.path("notify").display().to_string()));
    let agent = run_with(&place, environment);
    let pid = place.home.wait_for_file("notifying");
    *place.answer.lock().unwrap() = 200;
    place.set(document(&[ran(&place, "new")]));
    wait_until("the document", || place.home.read("ran").contains("deployment new").then_some(()));
    let hangs = std::path::Path::new("/proc").join(pid.trim());
    assert!(hangs.exists(), "it is still being sent");
    agent.signal(Signal::TERM);
    assert!(agent.wait().success());
    assert!(!hangs.exists(), "it was ended");
    assert!(place.home.path("deployed/old.unsent").exists(), "the next run sends it");
}

/// Keystone and Zaqar, whose queue gives each message once.
fn zaqar(queue: &Arc<Mutex<Vec<Value>>>) -> HttpServer {
    let queue = Arc::clone(queue);
    HttpServer::start(move |asked: &Asked| {
        let here = format!("http://{}/zaqar", asked.header("host").unwrap());
        let endpoints = json!([{"interface": "public", "region_id": "one", "url": here}]);
        match (asked.method.as_str(), asked.target.as_str()) {
            ("POST", "/v3/auth/tokens") => {
                let catalog = json!([{"type": "messaging", "endpoints": endpoints}]);
                Answer::new(201, json!({"token": {"catalog": catalog}}).to_string())
                    .header("X-Subject-Token", "token")
            }
            ("DELETE", "/zaqar/v2/queues/q/messages?pop=1") => {
                let message = queue.lock().unwrap().pop();
                let messages: Vec<Value> =
                    message.map(|body| json!({"body": body})).into_iter().collect();
                Answer::new(200, json!({ "messages": messages }).to_string())
            }
            _ => Answer::new(404, ""),
        }
    })
}

#[test]
fn a_message_of_a_queue_outlives_a_crash_and_an_empty_queue_is_no_trouble() {
    let place = Place::new();
    let queue = Arc::new(Mutex::new(vec![document(&[ran(&place, "one")])]));
    let server = zaqar(&queue);
    let conf = place.home.read("conf").replace("collectors=request", "collectors=zaqar");
    let user = format!("auth_url={}\nuser_id=u\npassword=p\nproject_id=p", server.url("/v3"));
    fs::write(place.home.path("conf"), format!("{conf}[zaqar]\n{user}\nqueue_id=q\n")).unwrap();
    place.program("refresh", "echo try >> tries; test -e ready");
    let agent = place.run();
    place.home.wait_for_file("tries");
    agent.kill_9();
    assert!(queue.lock().unwrap().is_empty(), "the message is gone");
    place.program("ready", "");
    let _agent = place.run();
    assert_eq!(place.wait_for_signals(1)[0].1["deploy_status_code"], 0);
    place.wait_for_status("that all is well", |status| {
        let polling = &status["polling"];
        let is_well = polling["source"] == "zaqar" && polling["error"].is_null();
        (is_well && status["results_waiting"] == 0).then_some(())
    });
    assert_eq!(place.home.output(&["status", "--wait=10s"]).status.code(), Some(0));
    queue.lock().unwrap().push(document(&[ran(&place, "one"), ran(&place, "two")]));
    assert_eq!(place.wait_for_signals(2)[1].0, "/two?Signature=secret");
    assert_eq!(place.home.read("ran"), "deployment one\ndeployment two\n");
}

#[test]
fn what_heat_config_has_run_the_agent_does_not_run_again() {
    let place = Place::new();
    let entry = |id: &str, script: &str| {
        let mut entry = ran(&place, id);
        entry["config"] =
            json!(format!("#!/bin/sh\necho {id} >> {}/ran\n{script}\n", place.here()));
        entry
    };
    let fails = entry("fails", "echo why >&2; exit 3");
    let environment = heat_config(&place, &document(&[ran(&place, "done"), fails.clone()]));
    let program = env!("CARGO_BIN_EXE_agent-client");
    let by_hand = || {
        let mut command = std::process::Command::new(program);
        command.arg("heat-config").envs(environment.clone());
        command
    };
    assert!(by_hand().output().unwrap().status.success());
    assert_eq!(place.signals().len(), 2);
    // One that heat-config is at, and one of which nothing but the record is left.
    let slow = entry("slow", &format!("while ! test -e {}/go; do sleep 0.05; done", place.here()));
    heat_config(&place, &document(std::slice::from_ref(&slow)));
    let mut at_it = by_hand().spawn().unwrap();
    wait_until("the slow one", || place.home.read("ran").contains("slow").then_some(()));
    fs::write(place.home.path("deployed/lost.json"), "").unwrap();
    let all = [ran(&place, "done"), fails, slow, ran(&place, "lost"), ran(&place, "new")];
    place.set(document(&all));
    let _agent = run_with(&place, environment);
    place.wait_for_status("the second", |status| {
        (status["deployments"][1]["state"] == "failed").then_some(())
    });
    assert!(!place.home.read("ran").contains("new"), "in order, behind the one that runs");
    fs::write(place.home.path("go"), "").unwrap();
    let status = place.wait_for_status("the end", |status| {
        let is_done =
            status["deployments"][4]["state"] == "complete" && status["results_waiting"] == 0;
        is_done.then(|| status.clone())
    });
    assert!(at_it.wait().unwrap().success());
    let shown: Vec<(&str, i64)> = status["deployments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| (d["state"].as_str().unwrap(), d["status_code"].as_i64().unwrap()))
        .collect();
    let expected =
        [("complete", 0), ("failed", 3), ("complete", 0), ("failed", 1), ("complete", 0)];
    assert_eq!(shown, expected);
    assert!(status["deployments"][3]["reason"].as_str().unwrap().contains("left no result"));
    let text = place.home.read("ran");
    for id in ["done", "fails", "slow", "new"] {
        assert_eq!(text.matches(id).count(), 1, "{text}");
    }
    assert!(!text.contains("lost"), "{text}");
    assert!(place.home.output(&["rerun", "lost"]).status.success());
    wait_until("the rerun", || place.home.read("ran").contains("lost").then_some(()));
}

#[test]
fn a_result_goes_to_heat_although_its_document_has_enrolled_the_agent_meanwhile() {
    let place = Place::new();
    let server = MiniServer::start();
    let mut slow = ran(&place, "slow");
    let go = place.home.path("go").display().to_string();
    slow["config"] =
        json!(format!("#!/bin/sh\nuntil [ -e {go} ]; do sleep 0.02; done\necho out\n"));
    place.set(with_token(document(&[slow]), &server.token));
    let _agent = place.run();
    server.wait("the agent", |seen| seen.connected == 1);
    place.wait_for_status("the run, and the end of polling", |status| {
        let runs = status["deployments"][0]["state"] == "running";
        (runs && status.get("polling").is_none()).then_some(())
    });
    fs::write(place.home.path("go"), "").unwrap();
    // The server has no document, and nobody to tell.
    assert_eq!(server.wait_for_result("slow").deploy_stdout, "out\n");
    let signals = place.wait_for_signals(1);
    assert_eq!(signals[0].0, "/slow?Signature=secret");
    assert_eq!(signals[0].1["deploy_stdout"], "out\n");
}

/// An agent that a token in polled metadata has enrolled, whose server has the result of "one", which Heat
/// answers with this status.
fn enrolled_while_heat_answers(status: u16) -> (Place, MiniServer, Agent) {
    let (place, server) = (Place::new(), MiniServer::start());
    *place.answer.lock().unwrap() = status;
    place.set(with_token(document(&[ran(&place, "one")]), &server.token));
    let agent = place.run();
    server.wait_for_result("one");
    place.wait_for_signals(1);
    (place, server, agent)
}

#[test]
fn what_the_server_took_and_heat_did_not_is_sent_to_heat_after_a_restart() {
    let (place, server, agent) = enrolled_while_heat_answers(503);
    let status = place.wait_for_status("a result that only Heat does not have", |status| {
        let is_off = status.get("polling").is_none();
        (is_off && status["results_for_heat"] == 1).then(|| status.clone())
    });
    assert_eq!(status["results_waiting"], 1);
    assert_eq!(status["deployments"][0]["result_stored"], false);
    let why = place.ask(&["why", "one", "--json"]);
    assert_eq!(why["result_for_heat"], true, "{why}");
    agent.kill_9();
    // No metadata is polled any more: the journal knows the way.
    *place.metadata.lock().unwrap() = None;
    *place.answer.lock().unwrap() = 200;
    let before = place.signals().len();
    let hellos = server.seen().hellos.len();
    let agent = place.run();
    assert_eq!(place.wait_for_signals(before + 1)[before].0, "/one?Signature=secret");
    place.wait_for_status("that all is over", |status| {
        (status["results_waiting"] == 0 && status["link"]["state"] == "connected").then_some(())
    });
    assert_eq!(server.seen().results.len(), 1, "the server had it");
    server.wait("the agent", |seen| seen.hellos.len() > hellos);
    agent.signal(Signal::TERM);
    assert!(agent.wait().success());
    let sent = place.signals().len();
    let _agent = place.run();
    place.wait_for_status("the next life", |status| {
        (status["link"]["state"] == "connected").then_some(())
    });
    assert_eq!((sent, place.signals().len()), (before + 1, before + 1), "once");
}

#[test]
fn what_heat_refuses_is_said_and_not_sent_again() {
    let (place, _server, agent) = enrolled_while_heat_answers(403);
    let refused = |why: &Value| why["heat_refused"].as_str().unwrap_or_default().contains("403");
    wait_until("the refusal", || refused(&place.ask(&["why", "one", "--json"])).then_some(()));
    assert!(place.home.read("log").contains("ERROR"), "{}", place.home.read("log"));
    agent.kill_9();
    *place.answer.lock().unwrap() = 200;
    let _agent = place.run();
    place.wait_for_status("the next life", |status| {
        (status["link"]["state"] == "connected" && status["results_waiting"] == 0).then_some(())
    });
    assert_eq!(place.signals().len(), 1);
    assert!(refused(&place.ask(&["why", "one", "--json"])));
}
