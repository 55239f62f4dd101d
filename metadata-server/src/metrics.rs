//! Counters, and their text form for Prometheus. No label names an agent: the number of series
//! does not grow with the fleet.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::hub::HubStats;
use crate::notice::{Notice, RefusalReason};

/// Upper bounds of the push latency's buckets, in milliseconds.
const LATENCY_BUCKETS_MS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 250, 1000, 5000, 30_000, 120_000];

/// States of signals; of the first, how often an attempt failed.
const SIGNAL_STATES: [&str; 5] = ["waiting", "sent", "refused", "too_late", "none"];

/// What the server has done since it started.
#[derive(Debug, Default)]
pub struct Metrics {
    documents_accepted: AtomicU64,
    documents_refused: AtomicU64,
    documents_applied: AtomicU64,
    documents_stalled: AtomicU64,
    agents_connected: AtomicU64,
    agents_enrolled: AtomicU64,
    agents_disconnected: AtomicU64,
    results_stored: AtomicU64,
    results_dropped: AtomicU64,
    results_refused: AtomicU64,
    store_failures: AtomicU64,
    signals: [AtomicU64; SIGNAL_STATES.len()],
    signals_waiting: AtomicU64,
    messages_stored: AtomicU64,
    messaging_refused: AtomicU64,
    queues_settled: AtomicU64,
    queues_put_right: AtomicU64,
    polls_answered: AtomicU64,
    polls_failed: AtomicU64,
    refusals: [AtomicU64; RefusalReason::ALL.len()],
    latency_buckets: [AtomicU64; LATENCY_BUCKETS_MS.len()],
    latency_sum_us: AtomicU64,
    latency_count: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl Metrics {
    /// Counts what happened.
    pub fn count(&self, notice: &Notice) {
        match notice {
            Notice::DocumentAccepted { .. } => add(&self.documents_accepted, 1),
            Notice::AgentConnected { enrolled, .. } => {
                add(&self.agents_connected, 1);
                add(&self.agents_enrolled, u64::from(*enrolled));
            }
            Notice::AgentRefused(refusal) => {
                for (reason, counter) in RefusalReason::ALL.iter().zip(&self.refusals) {
                    add(counter, u64::from(*reason == refusal.reason));
                }
            }
            Notice::AgentDisconnected { .. } => add(&self.agents_disconnected, 1),
            Notice::DocumentDelivered { after_ms, .. } => {
                for (bound, counter) in LATENCY_BUCKETS_MS.iter().zip(&self.latency_buckets) {
                    add(counter, u64::from(*after_ms <= *bound as f64));
                }
                add(&self.latency_sum_us, (after_ms * 1000.0) as u64);
                add(&self.latency_count, 1);
            }
            Notice::DocumentRefused { .. } => add(&self.documents_refused, 1),
            Notice::Progress { .. } => {}
            Notice::DocumentApplied { .. } => add(&self.documents_applied, 1),
            Notice::ResultStored { .. } => add(&self.results_stored, 1),
            Notice::ResultDropped { .. } => add(&self.results_dropped, 1),
            Notice::Signal { signal, .. } => {
                for (state, counter) in SIGNAL_STATES.iter().zip(&self.signals) {
                    add(counter, u64::from(*state == signal.state.name()));
                }
            }
            Notice::ResultRefused { .. } => add(&self.results_refused, 1),
        }
    }

    /// Counts an agent that was hung up on because it did not store its document.
    pub fn count_stalled(&self) {
        add(&self.documents_stalled, 1);
    }

    /// Counts a write that the store did not take.
    pub fn count_store_failure(&self) {
        add(&self.store_failures, 1);
    }

    /// How many signals wait or are on their way.
    pub fn set_signals_waiting(&self, count: usize) {
        self.signals_waiting.store(count as u64, Ordering::Relaxed);
    }

    /// Counts messages made durable.
    pub fn count_messages(&self, count: u64) {
        add(&self.messages_stored, count);
    }

    /// Counts a request to the messaging service that was refused.
    pub fn count_messaging_refusal(&self) {
        add(&self.messaging_refused, 1);
    }

    /// Counts a queue about which Heat was asked, and whether that changed what is in force.
    pub fn count_settled(&self, is_changed: bool) {
        add(&self.queues_settled, 1);
        add(&self.queues_put_right, u64::from(is_changed));
    }

    /// Counts a poll of Heat, and whether it was answered.
    pub fn count_poll(&self, is_answered: bool) {
        add(if is_answered { &self.polls_answered } else { &self.polls_failed }, 1);
    }

    /// Everything in the text format of Prometheus 0.0.4.
    pub fn render(&self, hub: Option<&HubStats>, is_ready: bool) -> String {
        let mut page = Page::default();
        let version = env!("CARGO_PKG_VERSION");
        page.family("build_info", "gauge", "The program; always 1.");
        page.sample(
            "build_info",
            &format!("{{program=\"metadata-server\",version=\"{version}\"}}"),
            1,
        );
        page.single("mds_ready", "gauge", "Whether /readyz says yes.", u64::from(is_ready));
        let counters = [
            (
                "mds_documents_accepted_total",
                "New documents made durable.",
                &self.documents_accepted,
            ),
            (
                "mds_documents_refused_total",
                "Documents that their agent would not take.",
                &self.documents_refused,
            ),
            (
                "mds_documents_applied_total",
                "Documents of which every deployment has ended.",
                &self.documents_applied,
            ),
            (
                "mds_documents_stalled_total",
                "Documents without progress whose agents were hung up on to make room for others.",
                &self.documents_stalled,
            ),
            ("mds_agents_connected_total", "Agents accepted.", &self.agents_connected),
            ("mds_agents_enrolled_total", "Agents pinned by a token.", &self.agents_enrolled),
            (
                "mds_agents_disconnected_total",
                "Accepted agents that left.",
                &self.agents_disconnected,
            ),
            ("mds_results_stored_total", "Results made durable.", &self.results_stored),
            (
                "mds_results_dropped_total",
                "Results dropped for newer ones of their agent.",
                &self.results_dropped,
            ),
            ("mds_results_refused_total", "Results that could not be read.", &self.results_refused),
            (
                "mds_store_failures_total",
                "Writes that the store did not take.",
                &self.store_failures,
            ),
            ("mds_messages_stored_total", "Messages of Heat made durable.", &self.messages_stored),
            (
                "mds_messaging_refused_total",
                "Requests to the messaging service that were refused.",
                &self.messaging_refused,
            ),
            (
                "mds_queues_settled_total",
                "Bursts of pushes after which Heat was asked what is in force.",
                &self.queues_settled,
            ),
            (
                "mds_queues_put_right_total",
                "Of those, the ones where something else was in force.",
                &self.queues_put_right,
            ),
            ("mds_heat_polls_answered_total", "Polls that Heat answered.", &self.polls_answered),
            ("mds_heat_polls_failed_total", "Polls without an answer.", &self.polls_failed),
        ];
        for (name, help, counter) in counters {
            page.single(name, "counter", help, counter.load(Ordering::Relaxed));
        }
        page.family("mds_refusals_total", "counter", "Peers that were not accepted, by reason.");
        for (reason, counter) in RefusalReason::ALL.iter().zip(&self.refusals) {
            let labels = format!("{{reason=\"{}\"}}", reason.as_str());
            page.sample("mds_refusals_total", &labels, counter.load(Ordering::Relaxed));
        }
        page.family("mds_signals_total", "counter", "Ends of signals to Heat, by how they ended.");
        for (state, counter) in SIGNAL_STATES.iter().zip(&self.signals).skip(1) {
            let labels = format!("{{result=\"{state}\"}}");
            page.sample("mds_signals_total", &labels, counter.load(Ordering::Relaxed));
        }
        let retried = self.signals[0].load(Ordering::Relaxed);
        page.single(
            "mds_signals_retried_total",
            "counter",
            "Attempts at a signal that failed and are repeated.",
            retried,
        );
        let waiting = self.signals_waiting.load(Ordering::Relaxed);
        page.single(
            "mds_signals_waiting",
            "gauge",
            "Signals to Heat that are not taken yet.",
            waiting,
        );
        self.render_latency(&mut page);
        if let Some(hub) = hub {
            render_hub(&mut page, hub);
        }
        page.0
    }

    fn render_latency(&self, page: &mut Page) {
        let name = "mds_push_latency_seconds";
        page.family(name, "histogram", "From the start of a push to the agent's confirmation.");
        for (bound, counter) in LATENCY_BUCKETS_MS.iter().zip(&self.latency_buckets) {
            let labels = format!("{{le=\"{}\"}}", *bound as f64 / 1000.0);
            page.sample(&format!("{name}_bucket"), &labels, counter.load(Ordering::Relaxed));
        }
        let count = self.latency_count.load(Ordering::Relaxed);
        page.sample(&format!("{name}_bucket"), "{le=\"+Inf\"}", count);
        let sum_s = self.latency_sum_us.load(Ordering::Relaxed) as f64 / 1e6;
        page.sample(&format!("{name}_sum"), "", sum_s);
        page.sample(&format!("{name}_count"), "", count);
    }
}

fn render_hub(page: &mut Page, hub: &HubStats) {
    page.family("mds_peers", "gauge", "Peers by phase.");
    for (phase, count) in [
        ("handshake", hub.half_open),
        ("waiting", hub.census.waiting),
        ("accepted", hub.census.accepted),
        ("closing", hub.census.closing),
    ] {
        page.sample("mds_peers", &format!("{{phase=\"{phase}\"}}"), count);
    }
    let (name, help) =
        ("mds_paths_remembered", "Paths to agents that have gone, for their return.");
    page.single(name, "gauge", help, hub.paths as u64);
    let (name, help) =
        ("mds_logs_followed", "Agents of which somebody watches what their hooks print.");
    page.single(name, "gauge", help, hub.logs_followed as u64);
    page.family("mds_handshakes_total", "counter", "DTLS handshakes, by how they ended.");
    for (result, count) in
        [("completed", hub.dtls.handshakes_completed), ("failed", hub.dtls.handshakes_failed)]
    {
        page.sample("mds_handshakes_total", &format!("{{result=\"{result}\"}}"), count);
    }
    page.family("mds_resumptions_total", "counter", "Handshakes that offered a ticket.");
    for (result, count) in
        [("resumed", hub.dtls.handshakes_resumed), ("declined", hub.dtls.resumptions_declined)]
    {
        page.sample("mds_resumptions_total", &format!("{{result=\"{result}\"}}"), count);
    }
    page.family(
        "mds_dropped_datagrams_total",
        "counter",
        "Datagrams and records dropped, by cause.",
    );
    for (cause, count) in hub.dtls.drops.iter() {
        page.sample(
            "mds_dropped_datagrams_total",
            &format!("{{cause=\"{}\"}}", cause.name()),
            count,
        );
    }
    for (name, help, count) in [
        ("mds_datagrams_received_total", "Datagrams received.", hub.dtls.datagrams_in),
        ("mds_datagrams_sent_total", "Datagrams sent.", hub.dtls.datagrams_out),
        ("mds_received_bytes_total", "Bytes of UDP payload received.", hub.dtls.bytes_in),
        ("mds_sent_bytes_total", "Bytes of UDP payload sent.", hub.dtls.bytes_out),
        ("mds_flights_resent_total", "Handshake flights sent again.", hub.dtls.flights_resent),
        (
            "mds_half_open_evicted_total",
            "Handshakes given up for newer ones.",
            hub.dtls.half_open_evicted,
        ),
        ("mds_send_errors_total", "Datagrams the system refused to send.", hub.send_errors),
    ] {
        page.single(name, "counter", help, count);
    }
}

/// The page being written. Writing to a string cannot fail.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.family(name, kind, help);
        self.sample(name, "", value);
    }
}
