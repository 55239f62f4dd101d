//! What ends a run before it ends by itself, what runs beside what, and what is left on the disk.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::path::PathBuf;

use metadata_delivery::message::{DeploymentState, ResultStatus};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Home, MiniServer, document, is_alive, script, wait_until};

fn with_options(mut deployment: Value, options: Value) -> Value {
    deployment["options"] = options;
    deployment
}

fn pid_in(text: &str) -> u32 {
    text.trim().parse().unwrap()
}

#[track_caller]
fn wait_for_death(pid: u32) {
    wait_until("the death of what the run has started", || (!is_alive(pid)).then_some(()));
}

#[test]
fn a_run_that_takes_too_long_is_ended_with_all_it_started_and_its_output_is_kept() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let _agent = home.run(&[]);
    let child = home.path("child");
    let slow = format!("echo before; setsid sleep 600 & echo $! > {}; wait", child.display());
    server.push(
        1,
        &document(&[
            with_options(script("slow", &slow), json!({"timeout": "0.5"})),
            script("next", "echo next"),
        ]),
    );
    let result = server.wait_for_result("slow");
    assert_eq!(result.status, ResultStatus::Failed);
    let reason = result.reason.unwrap();
    assert!(reason.starts_with("timed out after 0.5 s"), "{reason}");
    assert_eq!((&*result.deploy_stdout, result.deploy_status_code), ("before\n", -15));
    assert!(result.deploy_stderr.contains("agent-client: timed out after 0.5 s"));
    assert_eq!(server.wait_for_result("next").deploy_stdout, "next\n");
    wait_for_death(pid_in(&home.read("child")));
}

#[test]
fn what_ignores_the_request_to_end_is_killed_after_the_grace() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let _agent = home.run(&["--kill-grace=300ms", "--hook-timeout=300ms"]);
    let stubborn = "trap '' TERM; echo before; while :; do sleep 0.02; done";
    server.push(1, &document(&[script("stubborn", stubborn)]));
    let result = server.wait_for_result("stubborn");
    assert_eq!((&*result.deploy_stdout, result.deploy_status_code), ("before\n", -9));
    assert!(result.reason.unwrap().starts_with("timed out after 0.3 s"));
}

#[test]
fn what_cleans_up_within_the_grace_may_finish_and_still_counts_as_failed() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let _agent = home.run(&["--kill-grace=60s"]);
    // The shell ends at once; what it waited for cleans up and prints.
    let tidy = "sh -c 'trap \"sleep 0.1; echo cleaned; exit 0\" TERM; echo ready; while :; do sleep 0.02; done'; true";
    server.push(1, &document(&[with_options(script("tidy", tidy), json!({"timeout": 0.4}))]));
    let result = server.wait_for_result("tidy");
    assert_eq!(result.deploy_stdout, "ready\ncleaned\n");
    assert_eq!(result.status, ResultStatus::Failed);
    assert_ne!(result.deploy_status_code, 0, "Heat looks at the code");
}

#[test]
fn a_timeout_of_zero_is_none_whatever_the_setting_says() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let _agent = home.run(&["--hook-timeout=200ms", "--lanes-max=2"]);
    let patient = "until [ -e ../../../timed-out ]; do sleep 0.02; done; echo done";
    server.push(
        1,
        &document(&[
            with_options(script("patient", patient), json!({"timeout": 0, "lane": "a"})),
            with_options(script("other", "sleep 600"), json!({"lane": "b"})),
        ]),
    );
    assert!(server.wait_for_result("other").reason.unwrap().starts_with("timed out after 0.2 s"));
    std::fs::write(home.path("timed-out"), "").unwrap();
    assert_eq!(server.wait_for_result("patient").status, ResultStatus::Complete);
}

#[test]
fn a_timeout_that_is_no_time_fails_the_deployment_and_says_so() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let _agent = home.run(&[]);
    server.push(1, &document(&[with_options(script("a", "true"), json!({"timeout": "soon"}))]));
    let reason = server.wait_for_result("a").reason.unwrap();
    assert!(reason.starts_with("bad entry: options.timeout is \"soon\", it must be"), "{reason}");
}

#[test]
fn a_newer_document_ends_a_run_that_it_does_not_name_and_leaves_the_others_alone() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let _agent = home.run(&["--lanes-max=2"]);
    let (pid, go) = (home.path("pid"), home.path("go"));
    let gone = with_options(
        script(
            "gone",
            &format!("echo half; echo $$ > {}; sleep 600; echo not reached", pid.display()),
        ),
        json!({"lane": "a"}),
    );
    let stays = with_options(
        script("stays", &format!("until [ -e {} ]; do sleep 0.02; done; echo whole", go.display())),
        json!({"lane": "b"}),
    );
    server.push(1, &document(&[gone, stays.clone()]));
    let pid = pid_in(&home.wait_for_file("pid"));
    server.push(2, &document(&[stays, script("new", "echo new")]));
    let result = server.wait_for_result("gone");
    assert_eq!(
        result.reason.as_deref(),
        Some("cancelled: document 2 no longer asks for it, it was ended")
    );
    assert_eq!((result.status, &*result.deploy_stdout), (ResultStatus::Failed, "half\n"));
    assert_eq!(result.document_version, 1, "it answers for the document that asked for it");
    assert!(!is_alive(pid));
    assert_eq!(server.wait_for_result("new").status, ResultStatus::Complete);
    std::fs::write(go, "").unwrap();
    assert_eq!(server.wait_for_result("stays").deploy_stdout, "whole\n");
}

#[test]
fn a_drain_that_heat_withdraws_while_it_runs_goes_on_to_its_end() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let _agent = home.run(&[]);
    let (running, go) = (home.path("running"), home.path("go"));
    let drain = format!(
        "echo x > {}; until [ -e {} ]; do sleep 0.02; done; echo drained",
        running.display(),
        go.display()
    );
    let mut drain = script("drain", &drain);
    drain["inputs"] = json!([{"name": "deploy_action", "value": "DELETE"}]);
    server.push(1, &document(&[drain]));
    home.wait_for_file("running");
    server.push(2, &document(&[]));
    server.wait("the second document", |seen| seen.documents_stored.contains(&2));
    std::fs::write(go, "").unwrap();
    let result = server.wait_for_result("drain");
    assert_eq!((result.status, &*result.deploy_stdout), (ResultStatus::Complete, "drained\n"));
}

#[test]
fn a_run_that_was_being_cancelled_when_the_agent_died_is_interrupted_and_not_run_again() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let agent = home.run(&["--kill-grace=60s"]);
    let ran = home.path("ran").display().to_string();
    let stubborn = format!("trap '' TERM; echo $$ >> {ran}; while :; do sleep 0.02; done");
    server.push(1, &document(&[script("gone", &stubborn)]));
    let pid = pid_in(&home.wait_for_file("ran"));
    server.push(2, &document(&[script("new", "echo new")]));
    wait_until("the cancel", || home.read("log").contains("asking a hook to end").then_some(()));
    agent.kill_9();
    assert!(is_alive(pid), "the hook outlives the agent");

    let _agent = home.run(&[]);
    let reason = server.wait_for_result("gone").reason.unwrap();
    assert!(reason.starts_with("interrupted: the agent was stopped"), "{reason}");
    assert!(!is_alive(pid));
    server.wait_for_result("new");
    assert_eq!(home.read("ran").lines().count(), 1, "not run twice");
    let of_gone = |r: &&_| {
        let r: &metadata_delivery::message::DeploymentResult = r;
        r.config_id == "gone"
    };
    assert_eq!(server.seen().results.iter().filter(of_gone).count(), 1);
}

#[test]
fn a_run_past_its_timeout_when_the_agent_died_is_interrupted_and_not_run_again() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let agent = home.run(&["--kill-grace=60s", "--hook-timeout=100ms"]);
    let ran = home.path("ran").display().to_string();
    let stubborn = format!("trap '' TERM; echo $$ >> {ran}; while :; do sleep 0.02; done");
    let asked = document(&[script("slow", &stubborn)]);
    server.push(1, &asked);
    let pid = pid_in(&home.wait_for_file("ran"));
    wait_until("the timeout", || home.read("log").contains("asking a hook to end").then_some(()));
    agent.kill_9();

    let _agent = home.run(&[]);
    assert!(server.wait_for_result("slow").reason.unwrap().starts_with("interrupted"));
    assert!(!is_alive(pid));
    server.push(2, &asked);
    server.wait("document 2", |seen| seen.documents_stored.contains(&2));
    assert_eq!(home.read("ran").lines().count(), 1, "not run twice");
}

#[test]
fn lanes_run_side_by_side_only_when_allowed_and_each_in_order() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let agent = home.run(&["--lanes-max=3"]);
    let at = |name: &str| home.path(name).display().to_string();
    // Each of the first two waits for the other: only side by side they end.
    let meet = |mine: &str, other: &str| {
        format!(
            "echo x > {}; until [ -e {} ]; do sleep 0.02; done; echo {mine} >> {}",
            at(mine),
            at(other),
            at("order")
        )
    };
    let lane =
        |id: &str, text: &str, lane: &str| with_options(script(id, text), json!({"lane": lane}));
    server.push(
        1,
        &document(&[
            lane("a1", &meet("one", "two"), "a"),
            lane("a2", &format!("echo a2 >> {}", at("order")), "a"),
            lane("b1", &meet("two", "one"), "b"),
            script("plain", &format!("until [ -e {} ]; do sleep 0.02; done", at("go"))),
            script("plain2", "true"),
        ]),
    );
    for id in ["a1", "a2", "b1"] {
        assert_eq!(server.wait_for_result(id).status, ResultStatus::Complete);
    }
    let order = home.read("order");
    assert!(order.find("one") < order.find("a2"), "{order}");
    let waits = wait_until("status", || {
        let status: Value =
            serde_json::from_slice(&home.output(&["status", "--json"]).stdout).unwrap();
        status["status"]["deployments"][4]["waits_for"].as_str().map(str::to_owned)
    });
    assert_eq!(waits, "waits for name-of-plain (plain) among those without a lane");
    let shown = home.output(&["status"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains(&waits));
    std::fs::write(home.path("go"), "").unwrap();
    server.wait_for_result("plain2");

    // By default a lane changes nothing.
    agent.kill_9();
    let _agent = home.run(&[]);
    let first =
        format!("until [ -e {} ]; do sleep 0.02; done; echo first >> {}", at("go2"), at("order2"));
    server.push(
        2,
        &document(&[
            lane("c", &first, "a"),
            lane("d", &format!("echo second >> {}", at("order2")), "b"),
        ]),
    );
    server.wait("c at work", |seen| {
        let newest = seen.progress.last().map(|progress| &progress.deployments[..]);
        matches!(newest, Some([c, d]) if c.state == DeploymentState::Running && d.state == DeploymentState::Received)
    });
    std::fs::write(home.path("go2"), "").unwrap();
    server.wait_for_result("d");
    assert_eq!(home.read("order2"), "first\nsecond\n");
}

#[test]
fn one_that_prints_without_end_does_not_silence_the_lane_beside_it() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let _agent = home.run(&["--lanes-max=2", "--kill-grace=100ms"]);
    let lane =
        |id: &str, text: &str, lane: &str| with_options(script(id, text), json!({"lane": lane}));
    server.push(1, &document(&[lane("loud", "yes", "a"), lane("quiet", "echo heard", "b")]));
    assert_eq!(server.wait_for_result("quiet").deploy_stdout, "heard\n");
    server.push(2, &document(&[]));
    assert!(server.wait_for_result("loud").deploy_stdout.starts_with("y\ny\n"));
}

#[test]
fn stopped_while_several_run_the_agent_ends_them_all() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let agent = home.run(&["--lanes-max=2", "--stop-wait=0s"]);
    let lane = |id: &str| {
        let text = format!("echo $$ > {}; sleep 600", home.path(id).display());
        with_options(script(id, &text), json!({"lane": id}))
    };
    server.push(1, &document(&[lane("a"), lane("b")]));
    let pids = ["a", "b"].map(|id| pid_in(&home.wait_for_file(id)));
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait().code(), Some(0));
    for (id, pid) in ["a", "b"].into_iter().zip(pids) {
        assert!(!is_alive(pid));
        assert!(server.wait_for_result(id).reason.unwrap().starts_with("interrupted"));
    }
}

#[test]
fn the_end_of_a_rerun_leaves_alone_what_an_earlier_run_has_left_running() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let _agent = home.run(&[]);
    let at = |name: &str| home.path(name).display().to_string();
    let text = format!(
        "[ -e {pid} ] && sleep 600; setsid sleep 600 >/dev/null 2>&1 & echo $! > {pid}",
        pid = at("pid")
    );
    server.push(1, &document(&[with_options(script("a", &text), json!({"timeout": 1}))]));
    assert_eq!(server.wait_for_result("a").status, ResultStatus::Complete);
    let service = pid_in(&home.read("pid"));
    let asked = home.output(&["rerun", "a"]);
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    let seen = server.wait("the rerun's result", |seen| seen.results.len() == 2);
    assert!(seen.results[1].reason.as_ref().unwrap().starts_with("timed out after 1 s"));
    assert!(is_alive(service), "it means to go on");
    let service = rustix::process::Pid::from_raw(service.cast_signed()).unwrap();
    rustix::process::kill_process(service, Signal::KILL).unwrap();
}

#[test]
fn delete_suspend_and_resume_are_ordinary_runs() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let _agent = home.run(&[]);
    for (version, action) in
        ["CREATE", "UPDATE", "SUSPEND", "RESUME", "DELETE"].into_iter().enumerate()
    {
        let mut deployment = script(&format!("config-{action}"), "echo $deploy_action");
        deployment["inputs"] =
            json!([{"name": "deploy_action", "type": "String", "value": action}]);
        server.push(version as u64 + 1, &document(&[deployment]));
        let result = server.wait_for_result(&format!("config-{action}"));
        assert_eq!((result.status, &*result.action), (ResultStatus::Complete, action));
        assert_eq!(result.deploy_stdout, format!("{action}\n"));
    }
}

#[test]
fn secrets_show_in_no_tail_and_no_reason_and_no_log() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    std::fs::create_dir_all(home.path("hooks")).unwrap();
    let hook = home.path("hooks/odd");
    std::fs::write(&hook, "#!/bin/sh\nprintf '{\"deploy_status_code\": \"hunter2-and-more\"}'\n")
        .unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let log = std::fs::File::create(home.path("log")).unwrap();
    let mut agent = home.command(&["run"]);
    agent.env("HEAT_CONFIG_HOOKS", home.path("hooks")).stderr(log);
    let _agent = support::Agent { child: agent.spawn().unwrap() };
    let secret = json!([{"name": "db_password", "type": "String", "value": "hunter2-and-more"}]);
    let go = home.path("go");
    let mut talks = script(
        "talks",
        &format!("echo \"with $db_password.\"; until [ -e {} ]; do sleep 0.02; done", go.display()),
    );
    talks["inputs"] = secret.clone();
    let odd = json!({"id": "odd", "name": "n", "group": "odd", "inputs": secret});
    server.push(1, &document(&[talks, odd]));
    let seen = server.wait("the tail", |seen| {
        seen.progress.iter().flat_map(|p| &p.deployments).any(|d| d.output_tail.is_some())
    });
    let tails: Vec<&String> = seen
        .progress
        .iter()
        .flat_map(|p| &p.deployments)
        .filter_map(|d| d.output_tail.as_ref())
        .collect();
    assert!(tails.iter().all(|tail| *tail == "with (hidden).\n"), "{tails:?}");
    std::fs::write(go, "").unwrap();
    let result = server.wait_for_result("talks");
    assert_eq!(
        result.deploy_stdout, "with hunter2-and-more.\n",
        "what Heat gets is the script's own"
    );
    let reason = server.wait_for_result("odd").reason.unwrap();
    assert_eq!(reason, "the hook's deploy_status_code is no number: \"(hidden)\"");
    for file in ["log", "state/status.json"] {
        assert!(!home.read(file).contains("hunter2"), "{file}: {}", home.read(file));
    }
}

#[test]
fn output_beyond_what_the_server_gets_is_kept_whole_on_this_machine() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let _agent = home.run(&[]);
    let text = "head -c 1000000 /dev/zero | tr '\\0' x; echo oops >&2";
    server.push(1, &document(&[script("a/b", text)]));
    assert!(server.wait_for_result("a/b").deploy_stdout.contains("bytes left out"));
    let files: Vec<_> = std::fs::read_dir(home.path("state/output")).unwrap().flatten().collect();
    assert_eq!(files.len(), 2, "{files:?}");
    for file in files {
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
        assert_eq!(mode & 0o7777, 0o600);
        let name = file.file_name().into_string().unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        match name.rsplit_once('.').unwrap().1 {
            "stdout" => assert_eq!(bytes, vec![b'x'; 1_000_000]),
            "stderr" => assert_eq!(bytes, b"oops\n"),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn files_of_configs_that_left_the_list_go_once_their_results_are_stored() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let _agent = home.run(&[]);
    let text = "echo printed; echo out > $heat_outputs_path.result";
    let [gone, stays] = ["gone", "stays"].map(|id| {
        let mut deployment = script(id, text);
        deployment["outputs"] = json!([{"name": "result"}]);
        deployment
    });
    server.push(1, &document(&[gone.clone(), stays.clone()]));
    server.wait("both results", |seen| seen.results.len() == 2);
    let files = |id: &str| {
        let scripts = home.path("state/heat-config-script");
        [
            scripts.join(format!("work/{id}")),
            scripts.join(format!("outputs/{id}.result")),
            home.path(&format!("state/output/{id}.stdout")),
        ]
    };
    let foreign = home.path("state/heat-config-script/work/notes.gone");
    std::fs::write(&foreign, "mine").unwrap();
    // A result that is not stored yet is not over.
    server.take_results(false);
    server.push(2, &document(&[gone, stays.clone(), script("unsent", text)]));
    server.wait("the end of the unsent one", |seen| {
        let deployments = seen.progress.iter().flat_map(|progress| &progress.deployments);
        deployments.into_iter().any(|d| d.id == "unsent" && d.state == DeploymentState::Complete)
    });
    server.push(3, &document(&[stays]));
    wait_until("the files of what is gone", || {
        files("gone").iter().all(|path| !path.exists()).then_some(())
    });
    let [unsent, ..] = files("unsent");
    for path in files("stays").iter().chain([&foreign, &unsent]) {
        assert!(path.exists(), "{}", path.display());
    }
    // Only once they are stored do they go.
    server.take_results(true);
    server.hang_up();
    server.wait_for_result("unsent");
    wait_until("its files to go too", || (!unsent.exists()).then_some(()));
}

/// A control group that may be divided, removed when dropped.
struct Playground(PathBuf);

impl Playground {
    fn new() -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let path = mount.zip(own).map(|(mount, own)| {
            let point = mount.split(' ').nth(1).unwrap();
            PathBuf::from(point).join(own).join(format!("agent-test-{}", std::process::id()))
        });
        path.filter(|path| std::fs::create_dir(path).is_ok()).map(Self)
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir(entry.path());
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Where no control group can be made (in most containers) the last kind of escape is left out.
#[test]
fn nothing_of_a_run_escapes_its_end_and_empty_control_groups_go() {
    let playground = Playground::new();
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let group = playground.as_ref().map_or_else(|| "none".into(), |at| at.0.display().to_string());
    let _agent = home.run(&[&format!("--cgroup={group}"), "--kill-grace=100ms"]);
    let pid = home.path("pid").display().to_string();
    let wait_for_group = |pid: &str| match &playground {
        Some(_) => format!("until grep -q run- /proc/{pid}/cgroup; do :; done"),
        None => "true".into(),
    };
    // The first is there before the group; the second leaves its session and its parent; the third its
    // environment too, once the group is there.
    let clean = if playground.is_some() { "env -i" } else { "" };
    let escape = format!(
        "setsid sleep 600 & first=$!; {}; {}; \
         (setsid sh -c 'sleep 600 & echo $! > {pid}.2'); \
         ({clean} setsid sh -c 'sleep 600 & echo $! > {pid}'); echo $first; sleep 600",
        wait_for_group("$$"),
        wait_for_group("$first"),
    );
    server.push(1, &document(&[with_options(script("a", &escape), json!({"timeout": 4}))]));
    let escaped = ["pid", "pid.2"].map(|file| pid_in(&home.wait_for_file(file)));
    let result = server.wait_for_result("a");
    assert!(result.reason.unwrap().starts_with("timed out"));
    for pid in escaped.into_iter().chain([pid_in(&result.deploy_stdout)]) {
        wait_for_death(pid);
    }
    let Some(playground) = playground else { return };
    server.push(2, &document(&[script("b", "true")]));
    server.wait_for_result("b");
    wait_until("the removal of empty groups", || {
        let left = std::fs::read_dir(&playground.0).unwrap().flatten();
        (left.filter(|entry| entry.path().is_dir()).count() == 0).then_some(())
    });
}
