//! What a swarm counts and measures.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use metadata_delivery::message::Hex32;
use serde_json::{Value, json};

use super::fleet::Census;
use crate::link::failure::Failure;

/// Documents of which times are kept: the newest.
const DOCUMENTS_MAX: usize = 64;

/// Times, of which percentiles are asked for in the end.
#[derive(Debug, Default)]
struct Times(Vec<u32>);

/// Counts and times of a run.
#[derive(Debug, Default)]
pub(super) struct Tally {
    full: Times,
    resumed: Times,
    welcomed: Times,
    failures: BTreeMap<&'static str, (u64, String)>,
    documents: VecDeque<Delivery>,
    pub(super) results_stored: u64,
    pub(super) results_refused: u64,
}

/// One document on its way to all agents.
#[derive(Debug)]
struct Delivery {
    sha256: Hex32,
    bytes: usize,
    /// When the first agent had it in whole.
    first: Instant,
    /// Since then, when each agent had it durably.
    durable: Times,
}

impl Times {
    fn add(&mut self, time: Duration) {
        self.0.push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
    }

    /// In milliseconds; 0 of none.
    fn ms(sorted: &[u32], share: f64) -> f64 {
        let last = sorted.len().saturating_sub(1);
        let at = (sorted.len() as f64 * share) as usize;
        sorted.get(at.min(last)).map_or(0.0, |us| f64::from(*us) / 1e3)
    }

    fn json(&self) -> Value {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        json!({
            "count": sorted.len(),
            "p50_ms": Self::ms(&sorted, 0.5),
            "p99_ms": Self::ms(&sorted, 0.99),
            "last_ms": Self::ms(&sorted, 1.0),
        })
    }
}

impl Tally {
    /// A handshake has ended well.
    pub(super) fn handshake(&mut self, time: Duration, resumed: bool) {
        if resumed { &mut self.resumed } else { &mut self.full }.add(time);
    }

    /// An agent heard its welcome so long after it began to connect.
    pub(super) fn welcomed(&mut self, time: Duration) {
        self.welcomed.add(time);
    }

    /// An attempt failed, or a connection ended.
    pub(super) fn failed(&mut self, failure: &Failure) {
        let (count, last) = self.failures.entry(failure.code).or_default();
        *count += 1;
        last.clone_from(&failure.text);
    }

    /// An agent has a document in whole; returns its digest.
    pub(super) fn came(&mut self, now: Instant, body: &[u8]) -> Hex32 {
        let sha256 = Hex32::sha256_of(body);
        if !self.documents.iter().any(|delivery| delivery.sha256 == sha256) {
            if self.documents.len() >= DOCUMENTS_MAX {
                self.documents.pop_front();
            }
            let durable = Times::default();
            self.documents.push_back(Delivery { sha256, bytes: body.len(), first: now, durable });
        }
        sha256
    }

    /// An agent has a document durably.
    pub(super) fn kept(&mut self, now: Instant, sha256: Hex32) {
        let mut newest_first = self.documents.iter_mut().rev();
        if let Some(delivery) = newest_first.find(|delivery| delivery.sha256 == sha256) {
            delivery.durable.add(now.saturating_duration_since(delivery.first));
        }
    }

    /// How many agents have the newest document durably.
    pub(super) fn newest(&self) -> Value {
        match self.documents.back() {
            Some(Delivery { sha256, durable, .. }) => {
                json!({ "sha256": sha256.to_string(), "durable": durable.0.len() })
            }
            None => Value::Null,
        }
    }

    /// Everything, in the stable form of `--json`. `unix_ms` is the time of `now`.
    pub(super) fn json(&self, now: Instant, unix_ms: u64, agents: usize, census: Census) -> Value {
        let documents: Vec<Value> = self
            .documents
            .iter()
            .map(|delivery| {
                let age = now.saturating_duration_since(delivery.first).as_millis() as u64;
                json!({
                    "sha256": delivery.sha256.to_string(),
                    "bytes": delivery.bytes,
                    "first_unix_ms": unix_ms.saturating_sub(age),
                    "durable": delivery.durable.json(),
                })
            })
            .collect();
        let failures: BTreeMap<&str, Value> = self
            .failures
            .iter()
            .map(|(code, (count, last))| (*code, json!({ "count": count, "last": last })))
            .collect();
        json!({
            "agents": agents,
            "connected": census.connected,
            "in_sync": census.in_sync,
            "connecting": census.connecting,
            "handshakes": { "full": self.full.json(), "resumed": self.resumed.json() },
            "welcomed": self.welcomed.json(),
            "documents": documents,
            "results": {
                "stored": self.results_stored,
                "refused": self.results_refused,
                "owed": census.results_owed,
            },
            "failures": failures,
        })
    }
}

/// The summary for people, from what [`Tally::json`] and the shell have put together.
pub(super) fn text(summary: &Value) -> String {
    let number = |path: &str| summary.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let ms = |path: String| {
        let ms = summary.pointer(&path).and_then(Value::as_f64).unwrap_or(0.0);
        if ms < 1000.0 { format!("{ms:.1} ms") } else { format!("{:.2} s", ms / 1e3) }
    };
    let times = |path: &str| {
        let [p50, p99, last] = ["p50_ms", "p99_ms", "last_ms"].map(|at| ms(format!("{path}/{at}")));
        format!("p50 {p50}, p99 {p99}, last {last}")
    };
    let mut text = format!(
        "agents      {} of {} connected, {} in sync\n",
        number("/connected"),
        number("/agents"),
        number("/in_sync"),
    );
    for (name, path) in [("full", "/handshakes/full"), ("resumed", "/handshakes/resumed")] {
        let count = number(&format!("{path}/count"));
        if count > 0 {
            text.push_str(&format!("handshakes  {count} {name}: {}\n", times(path)));
        }
    }
    let documents = summary["documents"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (index, document) in documents.iter().enumerate() {
        let count = document.pointer("/durable/count").and_then(Value::as_u64).unwrap_or(0);
        let sha256: String =
            document["sha256"].as_str().unwrap_or_default().chars().take(8).collect();
        text.push_str(&format!(
            "document    {sha256}… of {} bytes durable at {count} agents, since the first had it: {}\n",
            document["bytes"],
            times(&format!("/documents/{index}/durable")),
        ));
    }
    if number("/results/stored") + number("/results/owed") + number("/results/refused") > 0 {
        text.push_str(&format!(
            "results     {} stored, {} refused, {} not yet stored\n",
            number("/results/stored"),
            number("/results/refused"),
            number("/results/owed"),
        ));
    }
    let failures = summary["failures"].as_object().into_iter().flatten();
    for (code, failure) in failures {
        let last = failure["last"].as_str().unwrap_or_default();
        text.push_str(&format!("failures    {} {code}, the last: {last}\n", failure["count"]));
    }
    let seconds = |path: &str| summary.pointer(path).and_then(Value::as_f64).unwrap_or(0.0);
    text.push_str(&format!(
        "this side   {:.2} s of CPU as user, {:.2} s as system\n",
        seconds("/cpu/user_s"),
        seconds("/cpu/system_s"),
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_document_is_the_slowest_agents_and_the_median_the_middle_ones() {
        let start = Instant::now();
        let mut tally = Tally::default();
        let sha256 = tally.came(start, b"{}");
        for ms in 1..=100 {
            tally.came(start + Duration::from_millis(ms), b"{}");
            tally.kept(start + Duration::from_millis(ms), sha256);
        }
        let now = start + Duration::from_secs(1);
        let json = tally.json(now, 5_000, 100, Census::default());
        assert_eq!(json["documents"][0]["first_unix_ms"], 4_000);
        let durable = &json["documents"][0]["durable"];
        assert_eq!((&durable["count"], &durable["last_ms"]), (&json!(100), &json!(100.0)));
        assert_eq!((&durable["p50_ms"], &durable["p99_ms"]), (&json!(51.0), &json!(100.0)));
        let text = text(&json);
        assert!(text.contains("durable at 100 agents") && text.contains("last 100.0 ms"), "{text}");
    }

    #[test]
    fn of_many_documents_the_newest_are_remembered() {
        let now = Instant::now();
        let mut tally = Tally::default();
        for n in 0..1_000u32 {
            tally.came(now, &n.to_be_bytes());
        }
        assert_eq!(tally.documents.len(), DOCUMENTS_MAX);
        tally.kept(now, Hex32::sha256_of(&0u32.to_be_bytes()));
        tally.kept(now, Hex32::sha256_of(&999u32.to_be_bytes()));
        assert_eq!(tally.documents.back().unwrap().durable.0.len(), 1);
    }
}
