//! `kill -9` of server and agent at random moments, two hundred times: nothing that was
//! acknowledged is lost, no config is run twice, and a run that was interrupted is reported so.
//!
//! Each seed decides when whom is killed; the rest is up to the machine. `CRASH_SEED=n` runs one
//! seed, also one that is not in the list.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use dtls_channel::testing::Rng;
use serde_json::Value;
use system_tests::documents::{document, script};
use system_tests::{Agent, Reply, Server, wait_until, wait_until_ok};

const SEEDS: [u64; 8] = [11, 12, 13, 14, 15, 16, 17, 18];
const KILLS_PER_SEED: u64 = 25;
/// Seeds at a time: a pair of daemons waits most of the time.
const PAIRS: usize = 4;
const AGENT: &str = "vm";

/// How many ended how, over all seeds.
#[derive(Debug, Default)]
struct Tally {
    complete: AtomicUsize,
    interrupted: AtomicUsize,
}

#[test]
fn two_hundred_kills_lose_nothing_and_run_nothing_twice() {
    let seeds = match std::env::var("CRASH_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => {
            assert_eq!(SEEDS.len() as u64 * KILLS_PER_SEED, 200);
            SEEDS.to_vec()
        }
    };
    let left = Mutex::new(seeds.clone());
    let failed = Mutex::new(Vec::new());
    let totals = Tally::default();
    let tally = &totals;
    thread::scope(|scope| {
        for _ in 0..PAIRS {
            scope.spawn(|| {
                loop {
                    let Some(seed) = left.lock().unwrap().pop() else { return };
                    let run = thread::Builder::new().name(format!("seed {seed}"));
                    let run = run.spawn_scoped(scope, move || torture(seed, tally)).unwrap();
                    if run.join().is_err() {
                        failed.lock().unwrap().push(seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "failed with CRASH_SEED={failed:?} of {seeds:?}");
    println!("{} kills, {tally:?}", seeds.len() as u64 * KILLS_PER_SEED);
    // Otherwise the kills came at moments that prove nothing.
    assert!(totals.complete.into_inner() > 0);
    assert!(totals.interrupted.into_inner() > 0 || seeds.len() == 1);
}

/// What was acknowledged to us.
#[derive(Debug, Default)]
struct Ledger {
    /// Config ids in documents that were accepted.
    accepted: BTreeSet<String>,
    /// Results that the server has shown.
    results: BTreeMap<String, Value>,
    /// Version of the newest accepted document.
    version: u64,
    /// Where the next page of results begins.
    after: u64,
}

fn torture(seed: u64, tally: &Tally) {
    let mut rng = Rng::new(seed);
    let mut server = Server::start();
    let mut agent = Agent::start(&server, AGENT);
    let log = agent.directory().join("log");
    let api = server.api();
    let done = AtomicBool::new(false);
    let ledger = thread::scope(|scope| {
        let pusher = thread::Builder::new().name(format!("pusher of seed {seed}"));
        let pusher_rng = Rng::new(seed ^ 0x70757368);
        let pusher = pusher.spawn_scoped(scope, || push_until(&done, &api, &log, pusher_rng));
        let pusher = pusher.unwrap();
        let stop = SetWhenDropped(&done);
        for _ in 0..KILLS_PER_SEED {
            thread::sleep(moment(&mut rng));
            let (kill_server, kill_agent) = match rng.below(10) {
                0 => (true, true),
                1..=4 => (true, false),
                _ => (false, true),
            };
            if kill_server {
                let process = server.process();
                assert!(process.is_running(), "the server ended by itself\n{process}");
                process.kill();
            }
            if kill_agent {
                let process = agent.process();
                assert!(process.is_running(), "the agent ended by itself\n{process}");
                process.kill();
            }
            thread::sleep(Duration::from_millis(rng.below(30)));
            if kill_server {
                server.launch();
            }
            if kill_agent {
                agent.launch();
            }
        }
        drop(stop);
        pusher.join().unwrap()
    });
    check(ledger, &server, &mut agent, &log, tally);
}

/// Ends the pusher also when an assertion fails.
struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Time until the next kill: often at once, sometimes long enough for all to settle.
fn moment(rng: &mut Rng) -> Duration {
    let (from_ms, to_ms) = match rng.below(20) {
        0..=9 => (0, 100),
        10..=16 => (100, 500),
        _ => (1_000, 2_500),
    };
    Duration::from_millis(from_ms + rng.below(to_ms - from_ms))
}

/// Puts one document after the other, each with new configs beside all that have no result yet,
/// and repeats every put until it is acknowledged.
fn push_until(done: &AtomicBool, api: &system_tests::Api, log: &Path, mut rng: Rng) -> Ledger {
    let mut ledger = Ledger::default();
    let mut waiting: BTreeMap<String, Value> = BTreeMap::new();
    let mut number = 0;
    while !done.load(Ordering::Relaxed) {
        for _ in 0..=rng.below(2) {
            number += 1;
            let id = format!("config-{number}");
            let deployment = script(&id, &noting_script(&id, log, rng.below(40)));
            waiting.insert(id, deployment);
        }
        let deployments: Vec<Value> = waiting.values().cloned().collect();
        let body = document(&deployments).to_string();
        let reply = until_answered("the put", || api.put(AGENT, body.as_bytes()).ok());
        assert!(reply.status == 201 || reply.status == 200, "{reply}");
        ledger.version = reply.json()["version"].as_u64().unwrap();
        ledger.accepted.extend(waiting.keys().cloned());
        take_results(api, &mut ledger);
        waiting.retain(|id, _| !ledger.results.contains_key(id));
        thread::sleep(Duration::from_millis(rng.below(120)));
        // What was accepted is in force, also at a server that was killed in between.
        let view = until_answered("the agent's entry", || {
            api.request("GET", &format!("/v1/agents/{AGENT}"), &[]).ok()
        });
        assert_eq!(view.json()["document"]["version"], ledger.version, "{view}");
    }
    ledger
}

/// A server that is just being killed or starting gives no answer, or says that it is not ready.
fn until_answered(what: &str, mut ask: impl FnMut() -> Option<Reply>) -> Reply {
    wait_until(what, || ask().filter(|reply| reply.status != 503))
}

/// Says when it starts and ends, and takes some time in between.
fn noting_script(id: &str, log: &Path, milliseconds: u64) -> String {
    let log = log.display();
    format!(
        "#!/bin/sh\necho start {id} >> {log}\nsleep 0.{milliseconds:03}\necho end {id} >> {log}\n"
    )
}

fn take_results(api: &system_tests::Api, ledger: &mut Ledger) {
    let path = format!("/v1/agents/{AGENT}/results?limit=1000&after={}", ledger.after);
    let page = until_answered("the results", || api.request("GET", &path, &[]).ok()).json();
    for saved in page["results"].as_array().unwrap() {
        ledger.after = ledger.after.max(saved["number"].as_u64().unwrap());
        let result = &saved["result"];
        let id = result["config_id"].as_str().unwrap().to_owned();
        let before = ledger.results.insert(id, result.clone());
        assert!(before.is_none(), "a second result: {before:?}, {result}");
    }
}

fn check(mut ledger: Ledger, server: &Server, agent: &mut Agent, log: &Path, tally: &Tally) {
    let api = server.api();
    wait_until_ok("a result for every accepted config", || {
        take_results(&api, &mut ledger);
        let has_none = |id: &&String| !ledger.results.contains_key(*id);
        let missing: Vec<&String> = ledger.accepted.iter().filter(has_none).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(format!("missing: {missing:?}\n{}", agent.process()))
    });
    assert!(agent.process().is_running(), "{}", agent.process());
    server.wait_until_applied(AGENT, ledger.version);

    // Every result that was ever shown is still there, unchanged.
    let mut stored: BTreeMap<String, Value> = BTreeMap::new();
    for saved in server.results(AGENT) {
        let id = saved["result"]["config_id"].as_str().unwrap().to_owned();
        assert!(stored.insert(id, saved["result"].clone()).is_none(), "twice: {saved}");
    }
    assert_eq!(stored, ledger.results);

    let log = fs::read_to_string(log).unwrap();
    let mut notes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in log.lines() {
        let (what, id) = line.split_once(' ').unwrap();
        notes.entry(id).or_default().push(what);
    }
    for (id, result) in &stored {
        let noted = notes.remove(id.as_str()).unwrap_or_default();
        assert!(noted.len() <= 2 && noted != ["start", "start"], "{id} was run twice: {noted:?}");
        let reason = result["reason"].as_str().unwrap_or_default();
        match result["status"].as_str() {
            Some("COMPLETE") => {
                assert_eq!(noted, ["start", "end"], "{result}");
                tally.complete.fetch_add(1, Ordering::Relaxed);
            }
            Some("FAILED") if reason.starts_with("interrupted") => {
                tally.interrupted.fetch_add(1, Ordering::Relaxed);
            }
            _ => panic!("neither complete nor interrupted: {result}"),
        }
    }
    assert!(notes.is_empty(), "run without a result: {notes:?}");
}
