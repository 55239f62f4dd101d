use serde_json::json;

use super::super::Live;
use super::*;
use crate::document::Document;
use crate::hooks::{Hooks, script};
use crate::journal::tests_support::{
    finished, heat, heat_refused, id, polled, received, refused, rerun, signalled, spawned, started,
};
use crate::journal::{Ending, Record, States};
use crate::status::LinkStatus;

/// A machine on paper: document 5 asks for a, b, data, bad, no-hook, never-started and fails.
pub(crate) struct Bench {
    pub(crate) document: Document,
    pub(crate) states: States,
    hooks: Hooks,
    link: LinkStatus,
    running: Option<&'static str>,
    fault: Option<&'static str>,
    is_live: bool,
    stopping: bool,
}

const NOW: u64 = 1_700_000_000_000;

impl Bench {
    pub(crate) fn new() -> Self {
        let entry = |id: &str, group: &str| json!({"id": id, "name": format!("name-of-{id}"), "group": group, "inputs": []});
        let body = json!({"deployments": [
            entry("a", "script"), entry("b", "script"), entry("data", "os-apply-config"),
            json!({"id": "bad", "name": "name-of-bad", "group": "script"}),
            entry("no-hook", "chef"), entry("never-started", "script"), entry("fails", "script")]});
        let directories =
            script::Directories::new("/nonexistent/w".into(), "/nonexistent/o".into());
        Self {
            document: Document::parse(5, body.to_string().as_bytes()).unwrap(),
            states: States::default(),
            hooks: Hooks::new(vec!["/nonexistent".into()], None, directories, "t".into()),
            link: LinkStatus { state: LinkState::Connected, ..LinkStatus::new(NOW) },
            running: None,
            fault: None,
            is_live: false,
            stopping: false,
        }
    }

    pub(crate) fn record<const N: usize>(&mut self, records: [Record; N]) {
        for record in records {
            self.states.apply(&record).unwrap();
        }
    }

    fn live(mut self) -> Self {
        self.is_live = true;
        self
    }

    pub(crate) fn facts(&self) -> Facts<'_> {
        let entries = &self.document.entries;
        let entry = |id: &str| &entries.iter().find(|e| e.id.as_str() == id).unwrap().id;
        let now = RunningNow { pid: 7, timeout_unix_ms: Some(NOW + 65_000) };
        let live = Live {
            link: &self.link,
            fault: self.fault,
            stopping: self.stopping,
            running: self.running.map(|id| (entry(id), now.clone())).into_iter().collect(),
            waits_for: [(entry("b"), "waits for name-of-a (a)".to_owned())].into_iter().collect(),
        };
        Facts {
            now_unix_ms: NOW,
            states: &self.states,
            document: Some(&self.document),
            rolled_back_from: None,
            hooks: &self.hooks,
            live: self.is_live.then_some(live),
        }
    }

    fn why(&self, name: &str) -> Why {
        why(&self.facts(), &id(name))
    }
}

fn failed(text: &str, reason: Option<&str>) -> Record {
    let Record::Finished { id, mut result, .. } = finished(text) else { panic!() };
    result.deploy_status_code = if reason.is_some() { 1 } else { -15 };
    result.reason = reason.map(str::to_owned);
    (result.started_unix_ms, result.finished_unix_ms) = (NOW - 70_000, NOW - 60_000);
    Record::Finished { id, ending: Ending::Failed, result }
}

#[test]
fn each_state_says_what_happens_next_and_what_to_try() {
    let mut bench = Bench::new().live();
    bench.running = Some("a");
    bench.record([received("a"), started("a"), spawned("a"), received("b"), received("bad")]);
    bench.record([failed("bad", Some("bad entry: it has no inputs")), signalled("bad")]);
    bench.record([received("no-hook"), failed("no-hook", Some("no such hook: \"chef\""))]);
    bench.record([received("fails"), started("fails"), failed("fails", None), signalled("fails")]);
    bench.record([received("gone"), finished("gone"), signalled("gone"), rerun("gone", 2)]);
    bench.record([started("gone"), failed("gone", None)]);
    let mut shown = String::new();
    for name in ["a", "b", "data", "bad", "no-hook", "never-started", "fails", "gone"] {
        shown += &bench.why(name).render(NOW);
        shown.push('\n');
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn whether_the_server_has_the_result_and_why_not_is_said() {
    let mut bench = Bench::new();
    bench.record([received("a"), started("a"), finished("a")]);
    let next = |bench: &Bench| bench.why("a").next;
    assert!(next(&bench).contains("once the agent runs"), "{}", next(&bench));
    let mut bench = bench.live();
    assert!(next(&bench).contains("on its way"), "{}", next(&bench));
    bench.link.state = LinkState::Waiting;
    bench.link.error = Some(crate::status::LinkError {
        code: "c".into(),
        text: "server x was not reached".into(),
        hint: Some("look at its firewall".into()),
        refused: false,
    });
    let why = bench.why("a");
    assert!(why.next.contains("once the server is reached (server x was not reached)"));
    assert_eq!(why.hints, ["look at its firewall"]);
    assert_eq!(why.verdict(), Exit::Degraded);
    bench.fault = Some("disk full");
    assert!(next(&bench).contains("once this is over: disk full"));
    bench.record([signalled("a")]);
    let why = bench.why("a");
    assert!(why.next.starts_with("nothing: the server has its result"), "{}", why.next);
    assert_eq!(why.verdict(), Exit::Ok);
    assert_eq!(
        (why.received_unix_ms, why.started_unix_ms, why.finished_unix_ms, why.signalled_unix_ms),
        (Some(10), Some(20), Some(30), Some(35))
    );
}

#[test]
fn a_result_that_the_server_refused_is_said_with_its_reason_and_is_a_failure() {
    let mut bench = Bench::new().live();
    bench.record([received("a"), started("a"), finished("a"), refused("a")]);
    let why = bench.why("a");
    assert!(why.next.starts_with("nothing: the server refused its result"), "{}", why.next);
    assert!(why.render(NOW).contains("refused by the server: malformed"), "{}", why.render(NOW));
    assert_eq!(why.verdict(), Exit::Failed);
}

#[test]
fn what_heat_does_not_have_from_the_agent_itself_is_said() {
    let mut bench = Bench::new().live();
    bench.record([polled("a"), finished("a"), signalled("a"), polled("b"), finished("b")]);
    let why = bench.why("a");
    assert!(why.next.starts_with("its result is sent to Heat"), "{}", why.next);
    assert!(why.render(NOW).contains("not taken by Heat yet; stored by the server"));
    assert_eq!((why.result_stored, why.verdict()), (Some(false), Exit::Degraded));
    let why = bench.why("b");
    assert!(why.next.starts_with("its result is on its way to the server"), "{}", why.next);
    bench.record([heat("a"), heat_refused("b"), signalled("b")]);
    assert_eq!(bench.why("a").verdict(), Exit::Ok);
    let why = bench.why("b");
    assert!(why.next.starts_with("nothing: Heat was not told"), "{}", why.next);
    assert!(why.render(NOW).contains("Heat was not told: 403"), "{}", why.render(NOW));
    assert_eq!(why.verdict(), Exit::Failed);
}

#[test]
fn without_an_agent_what_waits_and_what_ran_says_so() {
    let mut bench = Bench::new();
    bench.record([received("a"), started("a"), received("b")]);
    assert!(bench.why("a").next.starts_with("the agent ended while it ran"));
    assert_eq!(bench.why("b").next, "it is run once the agent runs");
    assert!(bench.why("b").hints[0].contains("systemctl start"));
    let mut bench = bench.live();
    bench.stopping = true;
    assert!(bench.why("b").next.contains("after the next start"));
    assert_eq!(bench.why("b").verdict(), Exit::Degraded);
}

#[test]
fn the_json_has_a_stable_form() {
    let mut bench = Bench::new().live();
    bench.record([received("a"), started("a"), failed("a", Some("because")), signalled("a")]);
    let why = bench.why("a");
    assert_eq!(why.verdict(), Exit::Failed);
    insta::assert_snapshot!(serde_json::to_string_pretty(&why).unwrap());
}
