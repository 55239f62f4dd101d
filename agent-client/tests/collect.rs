//! `os-collect-config` as a process: what it runs, when it begins anew, and what it does better than the
//! original. What both do alike is in `originals/collect.rs`.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use openstack_client::testing::{Answer, HttpServer};
use rustix::process::{Pid, Signal, kill_process};

/// A test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with a configuration and local data.
struct Place(tempfile::TempDir);

impl Place {
    fn new(conf: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write(
            "conf",
            &format!(
                "[DEFAULT]\ncachedir=cache\nbackup_cachedir=backup\nmin_polling_interval=0.02\n\
                 polling_interval=0.02\ncollectors=local\n{conf}\n[local]\npath=local\n"
            ),
        );
        place.write("local/a", "1");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // In one step: a collector must not see half of it, and takes no file that begins with a dot.
        let beside = path.with_file_name(".new");
        fs::write(&beside, text).unwrap();
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(beside, path).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agent-client"));
        command.args(["os-collect-config", "--config-file", "conf"]).args(arguments);
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        command.current_dir(self.0.path()).env_clear().env("PATH", path);
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn start(&self) -> Running {
        let log = fs::File::create(self.path("log")).unwrap();
        Running(self.command(&[]).stderr(log).spawn().unwrap())
    }

    /// Waits until a file holds this text.
    fn wait_for(&self, name: &str, text: &str) {
        let start = Instant::now();
        while !self.read(name).contains(text) {
            assert!(
                start.elapsed() < PATIENCE,
                "no {text:?} in {name}; log:\n{}",
                self.read("log")
            );
            thread::sleep(Duration::from_millis(5));
        }
    }
}

struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_source_that_is_down_keeps_its_last_good_data_in_the_list() {
    let status = Arc::new(AtomicU16::new(200));
    let answer = Arc::clone(&status);
    let deployments = r#"{"deployments": [{"name": "d", "config": {"x": 1}}]}"#;
    let server =
        HttpServer::start(move |_| Answer::new(answer.load(Ordering::SeqCst), deployments));
    let place = Place::new(&format!(
        "collectors=request\ncommand=echo \"$$OS_CONFIG_FILES\" >> ran\n[request]\nmetadata_url={}",
        server.url("/")
    ));
    let once = || assert_eq!(place.run(&["--one-time"]).status.code(), Some(0));
    once();
    status.store(503, Ordering::SeqCst);
    place.write("local/a", "2");
    once();
    place.write("local/a", "broken");
    status.store(200, Ordering::SeqCst);
    once();
    place.write("local/a", "3");
    once();
    let all = "cache/a.json:cache/request.json:cache/d.json\n";
    assert_eq!(place.read("ran"), all.repeat(3), "nothing left, and the bad file changed nothing");
    assert_eq!(place.read("cache/a.json"), "3");
}

#[test]
fn a_transport_that_is_configured_no_longer_leaves_the_list() {
    let server = HttpServer::start(|_| Answer::new(200, "{}"));
    let place = Place::new(&format!(
        "collectors=request\ncommand=echo \"$$OS_CONFIG_FILES\" >> ran\n[request]\nmetadata_url={}",
        server.url("/")
    ));
    place.run(&["--one-time"]);
    let conf = place.read("conf");
    place.write("conf", &conf.replace("metadata_url", "unknown"));
    place.write("local/a", "2");
    place.run(&["--one-time"]);
    assert_eq!(place.read("ran"), "cache/a.json:cache/request.json\ncache/a.json\n");
}

#[test]
fn a_failing_command_is_tried_again_until_it_succeeds_and_only_then_committed() {
    let place = Place::new("command=echo x >> tries; test $(wc -l < tries) -ge 4");
    let _running = place.start();
    place.wait_for("cache/a.json.last", "1");
    assert_eq!(place.read("tries").lines().count(), 4);
    place.wait_for("log", "It has failed 3 times in a row");
    assert!(place.read("log").contains("returned non-zero exit status 1"));
}

#[test]
fn a_changed_configuration_takes_effect_after_the_run_that_changed_it() {
    let place = Place::new("command=sh ./first");
    let conf = place.read("conf");
    place.write("next", &conf.replace("./first", "./second"));
    place.write("first", "mv next conf; echo 2 > local/.b; mv local/.b local/b; echo first >> ran");
    place.write("second", "echo second \"$OS_CONFIG_FILES\" >> ran");
    let _running = place.start();
    place.wait_for("ran", "second cache/a.json:cache/b.json");
    assert_eq!(place.read("ran").lines().next(), Some("first"));
}

#[test]
fn sighup_loads_the_configuration_anew_before_and_after_the_first_command() {
    let place = Place::new("command=cat /proc/self/status > first");
    let running = place.start();
    // The file has its last line when the command has ended.
    place.wait_for("cache/a.json.last", "1");
    let ignored = place.read("first");
    let ignored = ignored.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    let ignored = u64::from_str_radix(ignored, 16).unwrap();
    let of = |signal: Signal| 1 << (signal.as_raw() - 1);
    assert_eq!(ignored & (of(Signal::HUP) | of(Signal::PIPE)), 0, "the command can be told");
    for name in ["second", "third"] {
        let conf = place.read("conf");
        let old = conf.lines().find(|line| line.starts_with("command=")).unwrap().to_owned();
        place.write("conf", &conf.replace(&old, &format!("command=echo ran > {name}")));
        place.write(&format!("local/{name}"), "1");
        running.signal(Signal::HUP);
        place.wait_for(name, "ran");
    }
    assert!(place.read("log").contains("Re-executing"));
}

#[test]
fn sighup_during_the_command_is_not_lost() {
    let place = Place::new("command=exec sh ./first");
    place.write("first", "kill -HUP $PPID; echo ran >> first-ran");
    let mut running = place.start();
    place.wait_for("log", "may have changed");
    place.wait_for("cache/a.json.last", "1");
    assert!(running.0.try_wait().unwrap().is_none(), "it goes on");
    assert_eq!(place.read("first-ran"), "ran\n", "what was committed does not run again");
    running.signal(Signal::TERM);
    assert_eq!(running.wait().signal(), Some(15));
}

#[test]
fn a_log_that_nobody_reads_ends_it_by_sigpipe() {
    let place = Place::new("command=true");
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let mut running = Running(place.command(&[]).stderr(writer).spawn().unwrap());
    assert_eq!(running.wait().signal(), Some(13));
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let mut running = Running(place.command(&["--print"]).stdout(writer).spawn().unwrap());
    assert_eq!(running.wait().signal(), Some(13));
}

#[test]
fn names_of_deployments_neither_leave_the_cache_nor_overwrite() {
    let place = Place::new(
        "collectors=heat_local\ncollectors=request\ncommand=echo $$OS_CONFIG_FILES > ran",
    );
    let metadata = r#"{"deployments": [{"name": "../../x", "config": 1}, {"name": "request", "config": 2},
        {"name": "same", "config": 3}, {"name": "same", "config": 4}]}"#;
    let server = HttpServer::start(move |_| Answer::new(200, metadata));
    let url = server.url("/");
    let output = place.run(&["--one-time", "--request-metadata-url", &url, "request"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        place.read("ran").trim(),
        "cache/request.json:cache/.._.._x.json:cache/request~2.json:cache/same.json:cache/same~2.json"
    );
    assert_eq!(place.read("cache/same~2.json"), "4");
    assert_eq!(place.read("cache/request~2.json"), "2");
}

#[test]
fn a_config_drive_is_mounted_read_only_read_and_unmounted() {
    let place = Place::new("");
    place.write(
        "bin/blkid",
        "#!/bin/sh\necho \"blkid $*\" >> tools\n\
        printf 'DEVNAME=/dev/none9\\nLABEL=config-2\\nTYPE=vfat\\n'\n",
    );
    place.write(
        "bin/mount",
        "#!/bin/sh\necho \"mount $1 $3 $4\" >> tools; echo \"$2\" > at\n\
        mkdir -p \"$2/ec2/latest\"; echo '{\"a\": 1}' > \"$2/ec2/latest/meta-data.json\"\n",
    );
    place.write(
        "bin/umount",
        "#!/bin/sh\necho \"umount $1 $(test \"$2\" = \"$(cat at)\" && echo there)\" \
        >> tools; rm -r \"$2/ec2\"\n",
    );
    let output = place.run(&["--print", "ec2"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        text,
        "{\n \"ec2\": {\n  \"a\": 1\n }\n}\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(place.read("tools"), "blkid -o export\nmount /dev/none9 -o ro\numount -l there\n");
    assert!(!PathBuf::from(place.read("at").trim()).exists(), "the directory is gone");
}

#[test]
fn any_splay_works_and_no_secret_is_logged() {
    let place = Place::new(
        "splay=0.01\ncommand=true\n[heat]\nauth_url=http://127.0.0.1:9\n\
        user_id=u\npassword=swordfish\nproject_id=p\nstack_id=a/b\nresource_name=r",
    );
    let output = place.run(&["--print", "--debug", "local", "heat"]);
    assert_eq!(output.status.code(), Some(0));
    let said =
        String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("Waiting 0.0") && said.contains("Source [heat] Unavailable."), "{said}");
    assert!(!said.contains("swordfish"));
    io::stderr().flush().unwrap();
}

#[test]
fn a_cache_that_cannot_be_written_is_said_and_ends_a_single_run() {
    let place = Place::new("command=echo ran > ran");
    fs::write(place.path("cache"), "a file").unwrap();
    let output = place.run(&["--one-time"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("could not make cache"));
    assert_eq!(place.read("ran"), "");
}

#[test]
fn a_result_of_heat_config_that_nobody_answers_for_holds_up_no_collecting() {
    let place = Place::new("command=cat cache/a.json >> ran");
    place.write("notify", "#!/bin/sh\nexit 1\n");
    place.write(
        "list",
        r##"[{"id": "old", "name": "n", "group": "script", "config": "#!/bin/sh\n",
        "inputs": [{"name": "deploy_signal_id", "value": "http://127.0.0.1:9/"}]}]"##,
    );
    let with_heat_config = |mut command: Command| {
        for (name, path) in [
            ("HEAT_SHELL_CONFIG", "list"),
            ("HEAT_CONFIG_DEPLOYED", "deployed"),
            ("HEAT_CONFIG_DEPLOYED_OLD", "deployed-old"),
            ("HEAT_CONFIG_NOTIFY", "notify"),
            ("HEAT_SCRIPT_WORKING", "work"),
            ("HEAT_SCRIPT_OUTPUTS", "outputs"),
        ] {
            command.env(name, place.path(path));
        }
        command
    };
    let mut by_hand = Command::new(env!("CARGO_BIN_EXE_agent-client"));
    by_hand.arg("heat-config");
    assert!(with_heat_config(by_hand).output().unwrap().status.success());
    assert!(place.path("deployed/old.unsent").exists());
    // Until the test is over: the program begins anew, and then sends anew.
    let hangs = "echo $$ > new; mv new notifying; while [ -e conf ]; do sleep 0.1; done";
    place.write("notify", &format!("#!/bin/sh\n{hangs}\n"));
    let log = fs::File::create(place.path("log")).unwrap();
    let mut command = with_heat_config(place.command(&[]));
    let running = Running(command.stderr(log).spawn().unwrap());
    place.wait_for("notifying", "\n");
    let hangs = PathBuf::from("/proc").join(place.read("notifying").trim());
    place.write("local/a", "2");
    place.wait_for("cache/a.json.last", "2");
    assert!(hangs.exists(), "it is still being sent");
    running.signal(Signal::HUP);
    place.wait_for("log", "Re-executing");
    let start = Instant::now();
    while hangs.exists() {
        assert!(start.elapsed() < PATIENCE, "it was not ended");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(place.path("deployed/old.unsent").exists(), "it is sent later");
}
