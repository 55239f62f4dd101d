use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use super::*;

struct Bench {
    place: tempfile::TempDir,
    deployed: Deployed,
}

impl Bench {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let deployed = Deployed::open(place.path()).unwrap();
        Self { place, deployed }
    }

    fn claim(&self, id: &str) -> Found {
        self.deployed.claim(&ConfigId::new(id).unwrap(), &json!({"id": id})).unwrap()
    }

    fn new_claim(&self, id: &str) -> Claim {
        match self.claim(id) {
            Found::New(claim) => claim,
            other => panic!("{other:?}"),
        }
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.place.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// As if the process that wrote it had died, or the machine been restarted.
    fn edit(&self, name: &str, edit: impl Fn(&mut Value)) {
        let path = self.place.path().join(name);
        let mut marker = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut marker);
        fs::write(path, marker.to_string()).unwrap();
    }

    fn owner_dies(&self, name: &str) {
        self.edit(name, |marker| marker["owner"]["start_ticks"] = 1.into());
    }
}

fn sleeper(run_name: &str) -> Child {
    Command::new("/bin/sleep")
        .arg("60")
        .env(proc::RUN_VARIABLE, run_name)
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap()
}

#[test]
fn an_entry_goes_from_new_to_done_and_its_files_are_as_python_writes_them() {
    let bench = Bench::new();
    let claim = bench.new_claim("a");
    assert_eq!(bench.names(), ["a.json", "a.running"]);
    bench.deployed.finished(&claim, &json!({"deploy_stdout": "ü", "l": [1], "e": {}})).unwrap();
    assert_eq!(bench.names(), ["a.json", "a.notify.json", "a.unsent"]);
    bench.deployed.sent(&claim).unwrap();
    assert_eq!(bench.names(), ["a.json", "a.notify.json"]);
    assert!(matches!(bench.claim("a"), Found::Done));
    let read = |name: &str| fs::read_to_string(bench.place.path().join(name)).unwrap();
    assert_eq!(read("a.json"), "{\n  \"id\": \"a\"\n}");
    assert_eq!(
        read("a.notify.json"),
        "{\n  \"deploy_stdout\": \"\\u00fc\",\n  \"l\": [\n    1\n  ],\n  \"e\": {}\n}"
    );
    for name in ["a.json", "a.notify.json"] {
        let mode = fs::metadata(bench.place.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn what_the_python_version_left_is_done() {
    let bench = Bench::new();
    fs::write(bench.place.path().join("a.json"), "{}").unwrap();
    fs::write(bench.place.path().join("b.json"), "").unwrap();
    fs::write(bench.place.path().join("a.notify.json"), "{}").unwrap();
    assert!(matches!(bench.claim("a"), Found::Done));
    assert!(matches!(bench.claim("b"), Found::Done));
}

#[test]
fn removing_the_record_has_the_entry_done_again_from_any_state() {
    let bench = Bench::new();
    let mut child = sleeper(&bench.deployed.run_name(&ConfigId::new("running").unwrap()));
    drop(bench.new_claim("running"));
    for id in ["unsent", "done"] {
        let claim = bench.new_claim(id);
        bench.deployed.finished(&claim, &json!({})).unwrap();
        if id == "done" {
            bench.deployed.sent(&claim).unwrap();
        }
    }
    for id in ["running", "unsent", "done"] {
        fs::remove_file(bench.place.path().join(format!("{id}.json"))).unwrap();
        bench.new_claim(id);
        let of_id = |name: &&String| name.starts_with(id);
        let names = bench.names();
        assert_eq!(names.iter().filter(of_id).count(), 2, "record and running only: {names:?}");
    }
    assert!(!child.wait().unwrap().success(), "what was left of the first run is killed");
}

#[test]
fn a_live_process_keeps_an_entry_to_itself() {
    let bench = Bench::new();
    let mut child = sleeper("owner");
    let mark = ProcessMark { pid: child.id(), start_ticks: proc::start_ticks(child.id()).unwrap() };
    let owned = |marker: &mut Value| marker["owner"] = serde_json::to_value(mark).unwrap();
    bench.new_claim("running");
    bench.edit("running.running", owned);
    let claim = bench.new_claim("unsent");
    bench.deployed.finished(&claim, &json!({})).unwrap();
    bench.edit("unsent.unsent", owned);
    for id in ["running", "unsent"] {
        assert!(matches!(bench.claim(id), Found::Busy(pid) if pid == child.id()), "{id}");
    }
    fs::remove_file(bench.place.path().join("running.json")).unwrap();
    assert!(matches!(bench.claim("running"), Found::Busy(_)), "it is not run twice at a time");
    assert!(bench.deployed.forget_all_but([]).unwrap().is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(bench.claim("running"), Found::New(_)));
    assert!(matches!(bench.claim("unsent"), Found::Unsent(_)));
}

#[test]
fn a_hook_that_was_cut_off_is_reported_with_what_did_it() {
    let bench = Bench::new();
    bench.new_claim("a");
    bench.owner_dies("a.running");
    let Found::Interrupted(claim, cut) = bench.claim("a") else { panic!() };
    assert_eq!(cut, Cut::Crash { killed: false });
    bench.deployed.finished(&claim, &json!({})).unwrap();
    assert!(matches!(bench.claim("a"), Found::Unsent(_)));

    let mut claim = bench.new_claim("b");
    let mut child = sleeper("not by its name");
    let mark = ProcessMark { pid: child.id(), start_ticks: proc::start_ticks(child.id()).unwrap() };
    bench.deployed.started(&mut claim, mark);
    bench.owner_dies("b.running");
    assert!(matches!(bench.claim("b"), Found::Interrupted(_, Cut::Crash { killed: true })));
    assert!(!child.wait().unwrap().success());

    bench.new_claim("c");
    bench.edit("c.running", |marker| marker["boot_id"] = "another".into());
    assert!(matches!(bench.claim("c"), Found::Interrupted(_, Cut::Reboot)));
}

#[test]
fn a_result_that_was_kept_before_a_crash_is_sent_and_not_replaced() {
    let bench = Bench::new();
    let claim = bench.new_claim("a");
    bench.deployed.write(&claim.stem, "notify.json", &json!({"r": 1})).unwrap();
    bench.owner_dies("a.running");
    let Found::Unsent(claim) = bench.claim("a") else { panic!() };
    assert_eq!(bench.deployed.read_result(&claim).unwrap(), json!({"r": 1}));
    assert_eq!(bench.names(), ["a.json", "a.notify.json", "a.unsent"]);
}

#[test]
fn between_two_attempts_a_result_is_nobodys_and_keeps_its_age() {
    let bench = Bench::new();
    let claim = bench.new_claim("a");
    bench.deployed.finished(&claim, &json!({})).unwrap();
    bench.edit("a.unsent", |marker| marker["since_unix_ms"] = 1.into());
    let Found::Unsent(claim) = bench.claim("a") else { panic!() };
    bench.deployed.not_sent(&claim).unwrap();
    bench.edit("a.unsent", |marker| assert!(marker["owner"].is_null()));
    let Found::Unsent(claim) = bench.claim("a") else { panic!() };
    assert!(claim.age_ms() > 1_000_000);
}

#[test]
fn what_is_unfinished_of_entries_that_left_the_list_is_forgotten() {
    let bench = Bench::new();
    for id in ["left", "stays"] {
        let claim = bench.new_claim(id);
        bench.deployed.finished(&claim, &json!({})).unwrap();
    }
    bench.new_claim("cut");
    let mut child = sleeper(&bench.deployed.run_name(&ConfigId::new("cut").unwrap()));
    let stays = ConfigId::new("stays").unwrap();
    assert_eq!(bench.deployed.forget_all_but([&stays]).unwrap(), ["cut.running", "left.unsent"]);
    assert!(!child.wait().unwrap().success());
    assert!(matches!(bench.claim("left"), Found::Done));
    assert!(matches!(bench.claim("stays"), Found::Unsent(_)));
}

#[test]
fn a_marker_that_cannot_be_read_still_marks() {
    let bench = Bench::new();
    bench.new_claim("a");
    fs::write(bench.place.path().join("a.running"), "{\"boot").unwrap();
    assert!(matches!(bench.claim("a"), Found::Interrupted(..)));
}

#[test]
fn no_id_names_a_file_elsewhere_or_another_ones() {
    let bench = Bench::new();
    let long = "l".repeat(300);
    for id in ["../x", "a/b", ".hidden", "x.notify", &long, "a b", "~", "x"] {
        let claim = bench.new_claim(id);
        bench.deployed.finished(&claim, &json!({})).unwrap();
        bench.deployed.sent(&claim).unwrap();
    }
    assert_eq!(bench.names().len(), 16, "{:?}", bench.names());
    let parent = fs::read_dir(bench.place.path().parent().unwrap()).unwrap();
    assert!(parent.flatten().all(|entry| entry.file_name() != "x.json"));
}
