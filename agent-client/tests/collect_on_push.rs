//! Pushed documents in the cache of os-collect-config, and its command before their deployments.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use std::sync::{Arc, Mutex};

use metadata_delivery::message::ResultStatus;
use openstack_client::testing::{Answer, Asked, HttpServer};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Agent, Home, Memory, MiniServer, document, is_alive, script, wait_until};

/// An agent with a configuration of os-collect-config whose command is the script `refresh`.
struct Place {
    home: Home,
    server: MiniServer,
}

impl Place {
    fn new(refresh: &str) -> Self {
        let place = Self { home: Home::new(), server: MiniServer::start() };
        let here = place.home.path("").display().to_string();
        let here = here.trim_end_matches('/');
        place.write(
            "conf",
            &format!(
                "[DEFAULT]\ncachedir={here}/cache\nbackup_cachedir={here}/backup\n\
                 command={here}/refresh\ncollectors=local\ncollectors=cfn\ncollectors=heat_local\n\
                 [local]\npath={here}/local\n[heat_local]\npath={here}/init\n"
            ),
        );
        fs::create_dir(place.home.path("local")).unwrap();
        fs::write(place.home.path("local/l"), "1").unwrap();
        fs::write(place.home.path("init"), "{\"i\": 1}").unwrap();
        place.write("refresh", &format!("#!/bin/sh\ncd {here}\n{refresh}\n"));
        place
    }

    fn write(&self, name: &str, text: &str) {
        let beside = self.home.path(".new");
        fs::write(&beside, text).unwrap();
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(beside, self.home.path(name)).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.home.path(name)).unwrap_or_default()
    }

    fn run(&self) -> Agent {
        if !self.home.state().join("enrolment.json").exists() {
            self.home.enroll(&self.server);
        }
        let config = self.home.path("conf");
        let agent =
            self.home.run(&["--stop-wait", "0s", "--collect-config", config.to_str().unwrap()]);
        self.server.wait("the agent", |seen| seen.connected >= 1);
        agent
    }

    fn wait_for(&self, name: &str, text: &str) {
        let what = format!("{text:?} in {name}; log: {}", self.read("log"));
        wait_until(&what, || self.read(name).contains(text).then_some(()));
    }
}

/// A deployment whose script says that it ran, and data with an exploded deployment beside it.
fn pushed(place: &Place, id: &str, value: u64) -> Value {
    let ran = place.home.path("ran").display().to_string();
    let mut document = document(&[
        script(id, &format!("echo deployment {id} >> {ran}")),
        json!({"id": format!("data-{id}"), "name": "data", "group": "os-apply-config", "inputs": [],
            "config": {"value": value}}),
    ]);
    document["value"] = json!(value);
    document
}

#[test]
fn a_document_lands_in_the_cache_and_the_command_runs_before_its_deployments() {
    let place = Place::new(
        "echo \"$OS_CONFIG_FILES\" > files; cat cache/push.json > seen; ls cache > names\n\
         echo command >> ran",
    );
    let _agent = place.run();
    place.server.push(1, &pushed(&place, "one", 7));
    let result = place.server.wait_for_result("one");
    assert_eq!(result.status, ResultStatus::Complete);
    assert_eq!(place.read("ran"), "command\ndeployment one\n");
    let here = place.home.path("cache").display().to_string();
    let files: Vec<String> =
        ["l", "push", "data", "heat_local"].map(|key| format!("{here}/{key}.json")).into();
    assert_eq!(place.read("files").trim(), files.join(":"));
    let list: Vec<String> =
        serde_json::from_str(&place.read("cache/os_config_files.json")).unwrap();
    assert_eq!(list, files);
    let seen: Value = serde_json::from_str(&place.read("seen")).unwrap();
    assert_eq!(seen["value"], 7);
    assert_eq!(place.read("cache/data.json"), "{\n \"value\": 7\n}");
    assert!(!place.read("names").contains(".last"), "committed after the command only");
    for name in ["cache/push.json.last", "cache/push.json.orig", "backup/push.json"] {
        assert_eq!(place.read(name), place.read("cache/push.json"), "{name}");
    }
}

#[test]
fn data_for_templates_are_answered_once_the_command_has_applied_them() {
    let place = Place::new("test -e ready || { echo no >> tries; exit 1; }; echo applied >> ran");
    let _agent = place.run();
    place.server.push(1, &pushed(&place, "one", 7));
    place.wait_for("tries", "no");
    assert!(place.server.seen().results.is_empty(), "nothing is applied yet");
    place.write("ready", "");
    let result = place.server.wait_for_result("data-one");
    assert_eq!((result.status, result.deploy_status_code), (ResultStatus::Complete, 0));
    assert_eq!(result.deploy_stdout, "os-apply-config deployment data-one completed");
    place.server.wait_for_result("one");
    assert_eq!(place.read("ran"), "applied\ndeployment one\n");
    // The same data again, with another script: they were answered.
    let mut again = pushed(&place, "one", 7);
    again["deployments"][0]["id"] = json!("two");
    place.server.push(2, &again);
    place.server.wait_for_result("two");
    assert_eq!(place.server.seen().results.len(), 3);
}

#[test]
fn deployments_wait_while_the_command_fails_and_what_it_writes_counts_for_the_next_time() {
    // Fails until the configuration names another command, as a template may make it do.
    let place = Place::new("echo try >> tries; exit 3");
    let _agent = place.run();
    place.server.push(1, &pushed(&place, "one", 1));
    place.wait_for("tries", "try");
    let status = wait_until("a deployment that waits", || {
        let status: Value = serde_json::from_str(&place.read("state/status.json")).ok()?;
        status["deployments"][0]["waits_for"].as_str().map(str::to_owned)
    });
    assert_eq!(status, "waits for the command of collect_config");
    place.wait_for("log", "its deployments wait");
    assert_eq!(place.read("ran"), "");
    let conf = place.read("conf").replace("/refresh", "/second");
    let here = place.home.path("").display().to_string();
    place.write("second", &format!("#!/bin/sh\necho second >> {here}/ran\n"));
    place.write("conf", &conf);
    place.server.wait_for_result("one");
    assert_eq!(place.read("ran"), "second\ndeployment one\n");
}

#[test]
fn a_newer_document_takes_the_place_of_one_whose_command_fails() {
    let place =
        Place::new("grep -q '\"value\": 2' cache/push.json || { echo no >> tries; exit 1; }");
    let _agent = place.run();
    place.server.push(1, &pushed(&place, "one", 1));
    place.wait_for("tries", "no");
    place.server.push(2, &pushed(&place, "two", 2));
    assert_eq!(place.server.wait_for_result("two").status, ResultStatus::Complete);
    let withdrawn = place.server.wait_for_result("one");
    assert_eq!(withdrawn.status, ResultStatus::Failed);
    assert_eq!(place.read("ran"), "deployment two\n");
}

#[test]
fn a_restart_runs_the_command_again_only_if_it_had_not_succeeded() {
    let place = Place::new("echo $$ >> pids; test -e go || sleep 30");
    let agent = place.run();
    place.server.push(1, &pushed(&place, "one", 1));
    place.wait_for("pids", "\n");
    let first: u32 = place.read("pids").trim().parse().unwrap();
    agent.signal(Signal::TERM);
    agent.wait();
    assert!(!is_alive(first), "the agent ends the command when it stops");
    fs::write(place.home.path("go"), "").unwrap();
    let agent = place.run();
    place.server.wait_for_result("one");
    assert_eq!(place.read("pids").lines().count(), 2);
    agent.signal(Signal::TERM);
    agent.wait();
    let _agent = place.run();
    place.server.push(2, &pushed(&place, "two", 2));
    place.server.wait_for_result("two");
    assert_eq!(place.read("pids").lines().count(), 3, "once more for the new document, not before");
    assert_eq!(place.read("ran"), "deployment one\ndeployment two\n");
}

#[test]
fn heat_config_below_the_command_leaves_the_deployments_to_the_agent() {
    let program = env!("CARGO_BIN_EXE_agent-client");
    let place = Place::new(&format!(
        "echo '[{{\"id\": \"one\", \"name\": \"n\", \"group\": \"script\", \"inputs\": [],\
         \"config\": \"echo twice >> ran\"}}]' > list\n\
         HEAT_SHELL_CONFIG=list HEAT_CONFIG_DEPLOYED=deployed {program} heat-config && echo left >> ran"
    ));
    let _agent = place.run();
    place.server.push(1, &pushed(&place, "one", 1));
    place.server.wait_for_result("one");
    assert_eq!(place.read("ran"), "left\ndeployment one\n");
    assert!(!place.home.path("deployed").exists());
}

/// A place that polls `request` when no server is reached, and what it gets there.
fn polling() -> (Place, HttpServer, Arc<Mutex<Value>>) {
    let metadata = Arc::new(Mutex::new(json!({})));
    let shared = Arc::clone(&metadata);
    let http = HttpServer::start(move |asked: &Asked| match asked.target.as_str() {
        "/metadata" => Answer::new(200, shared.lock().unwrap().to_string()),
        _ => Answer::new(200, ""),
    });
    let place = Place::new("echo \"command ${OS_CONFIG_FILES##*/cache/}\" >> ran");
    let conf = place.read("conf").replace(
        "collectors=cfn\ncollectors=heat_local",
        "collectors=request\npolling_interval=0.05",
    );
    let url = http.url("/metadata");
    place.write("conf", &format!("{conf}[request]\nmetadata_url={url}\n"));
    (place, http, metadata)
}

fn signalled(mut document: Value, http: &HttpServer) -> Value {
    let url = http.url("/signal?Signature=secret");
    document["deployments"][0]["inputs"] =
        json!([{"name": "deploy_signal_id", "type": "String", "value": url}]);
    document
}

#[test]
fn without_a_server_a_polled_document_is_applied_once_and_its_result_signalled() {
    let (place, http, metadata) = polling();
    place.home.enroll(&place.server);
    let polled = signalled(pushed(&place, "one", 1), &http);
    *metadata.lock().unwrap() = polled.clone();
    let Place { home, server } = place;
    let address = server.address;
    let memory = server.kill();
    let config = home.path("conf");
    let _agent = home.run(&["--poll-after", "100ms", "--collect-config", config.to_str().unwrap()]);
    let signals = || {
        let asked = http.asked().into_iter().filter(|asked| asked.target.starts_with("/signal"));
        asked.collect::<Vec<Asked>>()
    };
    let read = |name: &str| fs::read_to_string(home.path(name)).unwrap_or_default();
    wait_until("a signal", || (!signals().is_empty()).then_some(()));
    let data: Value = serde_json::from_slice(&signals()[0].body).unwrap();
    assert_eq!(data["deploy_status_code"], 0);
    let expected = "command data.json\ndeployment one\n";
    assert_eq!(read("ran"), expected);
    let kept: Value = serde_json::from_str(&read("cache/request.json")).unwrap();
    assert_eq!(kept, polled);
    // The server comes back with the same document: nothing runs twice, and polling ends.
    let server = MiniServer::restart(memory, address);
    let mut same = polled;
    same["more"] = json!(1);
    server.push(1, &same);
    wait_until("the push in effect", || {
        read("cache/push.json.last").contains("more").then_some(())
    });
    server.wait("the stored document", |seen| seen.documents_stored == [1]);
    assert_eq!(read("ran"), format!("{expected}command data.json\n"));
    assert!(!read("cache/os_config_files.json").contains("request.json"), "one or the other");
    assert_eq!(signals().len(), 1);
    assert!(!read("log").contains("secret"), "no signature in the log");
}

#[test]
fn a_document_that_is_polled_while_a_server_comes_back_does_not_replace_the_pushed_one() {
    let (place, http, metadata) = polling();
    place.home.enroll(&place.server);
    let (late, pushed_document) = (pushed(&place, "late", 1), pushed(&place, "pushed", 2));
    let Place { home, server } = place;
    let address = server.address;
    let memory = server.kill();
    let mut answer = metadata.lock().unwrap();
    let config = home.path("conf");
    let _agent = home.run(&["--poll-after", "50ms", "--collect-config", config.to_str().unwrap()]);
    wait_until("the question", || (!http.asked().is_empty()).then_some(()));
    let server = MiniServer::restart(memory, address);
    server.push(1, &pushed_document);
    server.wait("the stored document", |seen| seen.documents_stored == [1]);
    *answer = late;
    drop(answer);
    assert_eq!(server.wait_for_result("pushed").status, ResultStatus::Complete);
    let mut newer = pushed_document;
    newer["deployments"][0]["id"] = json!("next");
    server.push(2, &newer);
    server.wait_for_result("next");
    let ran = fs::read_to_string(home.path("ran")).unwrap();
    assert!(!ran.contains("late"), "{ran}");
    assert!(server.seen().results.iter().all(|result| !result.config_id.contains("late")));
}

impl Place {
    /// Runs an agent that polls as soon as its server is away.
    fn run_polling(&self) -> Agent {
        self.home.enroll(&self.server);
        let config = self.home.path("conf");
        let flags = ["--poll-after", "100ms", "--stop-wait", "0s", "--collect-config"];
        self.home.run(&[&flags[..], &[config.to_str().unwrap()]].concat())
    }
}

/// Stops, which its agents notice at once.
fn leave(server: MiniServer) -> Memory {
    server.hang_up();
    server.kill()
}

#[track_caller]
fn wait_for_status<T>(home: &Home, what: &str, wanted: impl Fn(&Value) -> Option<T>) -> T {
    wait_until(&format!("{what}; log: {}", home.read("log")), || {
        wanted(&serde_json::from_str(&home.read("state/status.json")).ok()?)
    })
}

fn is_polled(status: &Value, id: &str) -> bool {
    status["document"]["is_polled"] == true && status["deployments"][0]["id"] == id
}

#[test]
fn a_polled_document_is_over_once_the_server_says_that_ours_is_the_newest() {
    let (place, http, metadata) = polling();
    let mut polled = signalled(pushed(&place, "polled", 1), &http);
    let pid = place.home.path("pid").display().to_string();
    polled["deployments"][0]["config"] = json!(format!("#!/bin/sh\necho $$ > {pid}\nsleep 600\n"));
    *metadata.lock().unwrap() = polled;
    let _agent = place.run_polling();
    place.server.push(1, &pushed(&place, "one", 2));
    place.server.wait_for_result("data-one");
    let Place { home, server } = place;
    let address = server.address;
    let memory = leave(server);
    home.wait_for_file("pid");
    wait_for_status(&home, "the polled one", |status| is_polled(status, "polled").then_some(()));
    let server = MiniServer::restart(memory, address);
    wait_for_status(&home, "the pushed one", |status| {
        let document = &status["document"];
        let is_pushed = document["version"] == 1 && document.get("is_polled").is_none();
        (is_pushed && status["deployments"][0]["id"] == "one").then_some(())
    });
    server.wait("what is in force", |seen| {
        seen.progress.last().is_some_and(|newest| newest.deployments[0].id == "one")
    });
    wait_until("the push in effect", || {
        home.read("cache/os_config_files.json").contains("push.json").then_some(())
    });
    // What it had running has ended, and Heat knows.
    assert_eq!(server.wait_for_result("polled").status, ResultStatus::Failed);
    let signal = wait_until("the signal", || {
        http.asked().into_iter().find(|asked| asked.target.starts_with("/signal"))
    });
    let data: Value = serde_json::from_slice(&signal.body).unwrap();
    assert_ne!(data["deploy_status_code"], 0);
    assert_eq!(home.read("ran").matches("deployment one").count(), 1, "not run again");
}

#[test]
fn a_polled_document_that_was_left_out_counts_when_the_server_is_away_again() {
    let (place, _http, _) = polling();
    let (first, second) = (pushed(&place, "first", 1), pushed(&place, "second", 2));
    let metadata = Arc::new(Mutex::new(first));
    let (gate, is_asked) = (Arc::new(Mutex::new(())), Arc::new(Mutex::new(false)));
    let (shared, shut, asked) = (Arc::clone(&metadata), Arc::clone(&gate), Arc::clone(&is_asked));
    let http = HttpServer::start(move |_: &Asked| {
        if shut.try_lock().is_err() {
            *asked.lock().unwrap() = true;
            drop(shut.lock().unwrap());
        }
        Answer::new(200, shared.lock().unwrap().to_string())
    });
    let conf = place.read("conf");
    let (before, _) = conf.split_once("[request]").unwrap();
    let url = http.url("/metadata");
    place.write("conf", &format!("{before}[request]\nmetadata_url={url}\n"));
    let _agent = place.run_polling();
    place.server.push(1, &pushed(&place, "one", 3));
    place.server.wait_for_result("data-one");
    let Place { home, server } = place;
    let address = server.address;
    let memory = leave(server);
    wait_until("the first", || home.read("ran").contains("deployment first").then_some(()));
    // The second comes while the server is there, which does not say what is the newest.
    let shut = gate.lock().unwrap();
    wait_until("a question", || is_asked.lock().unwrap().then_some(()));
    *metadata.lock().unwrap() = second;
    let server = MiniServer::restart(memory, address);
    server.say_newest(false);
    wait_for_status(&home, "the link", |status| {
        (status["link"]["state"] == "connected").then_some(())
    });
    drop(shut);
    wait_until("a document that is left out", || {
        home.read("log").contains("left out").then_some(())
    });
    assert!(!home.read("ran").contains("second"));
    leave(server);
    wait_until("the second", || home.read("ran").contains("deployment second").then_some(()));
}

#[test]
fn files_of_a_pushed_document_stay_while_a_polled_one_is_in_force() {
    let (place, http, metadata) = polling();
    let (gone, stays) = (pushed(&place, "gone", 1), pushed(&place, "stays", 1));
    *metadata.lock().unwrap() = signalled(gone, &http);
    let _agent = place.run_polling();
    place.server.push(1, &pushed(&place, "one", 2));
    place.server.wait_for_result("data-one");
    let Place { home, server } = place;
    leave(server);
    let file = |id: &str| home.path(&format!("state/heat-config-script/work/{id}"));
    wait_until("the result of the first", || {
        http.asked().iter().any(|asked| asked.target.starts_with("/signal")).then_some(())
    });
    assert!(file("gone").exists());
    *metadata.lock().unwrap() = stays;
    wait_until("its files to go", || (!file("gone").exists()).then_some(()));
    assert!(file("one").exists() && file("stays").exists());
}
