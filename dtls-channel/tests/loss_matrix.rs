//! How many handshakes come to an end on links that lose datagrams each way, and how soon. The links
//! are seeded and the clock is virtual, so every figure is the same in each run. Other engines on the
//! same links, and ten times as many handshakes: `benches/loss_matrix`.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::config;
use dtls_channel::testing::{LinkConfig, Net, Side};
use dtls_channel::{Config, Event, Session, TicketKeys};

/// Both ends must be open by then.
const LIMIT: Duration = Duration::from_secs(60);
/// There and back three times: the cookie, the server's flight, the client's.
const SHORTEST: Duration = Duration::from_millis(3 * 40);

/// The times until both ends are open, in ascending order, with the seeds of those that were not in
/// time.
struct Cell {
    times: Vec<Duration>,
    late: Vec<u64>,
}

impl Cell {
    fn new(handshakes: u64, link: &LinkConfig) -> Self {
        let parties = (Arc::new(config()), Arc::new(config()));
        Self::of(handshakes, link, &parties, None)
    }

    fn of(
        handshakes: u64,
        link: &LinkConfig,
        (client, server): &(Arc<Config>, Arc<Config>),
        session: Option<&Session>,
    ) -> Self {
        let (mut times, mut late) = (Vec::new(), Vec::new());
        for seed in 0..handshakes {
            let mut net = Net::new(seed, link, server.clone());
            match session.cloned() {
                None => net.connect(client.clone()),
                Some(session) => net.resume(client.clone(), session),
            };
            match net.run_until(LIMIT, |net| net.both_open()) {
                true => times.push(net.elapsed()),
                false => late.push(seed),
            }
        }
        times.sort_unstable();
        Self { times, late }
    }

    fn share_late(&self) -> f64 {
        self.late.len() as f64 / (self.late.len() + self.times.len()) as f64
    }

    /// The time by which `share` of those had opened that did.
    fn quantile(&self, share: f64) -> Duration {
        self.times[((self.times.len() - 1) as f64 * share) as usize]
    }
}

/// A round trip of 40 ms.
fn link(loss_percent: u32, loss_burst: Option<f64>) -> LinkConfig {
    LinkConfig { loss: f64::from(loss_percent) / 100.0, loss_burst, ..LinkConfig::default() }
}

#[test]
fn at_ten_percent_loss_and_less_every_handshake_opens() {
    for (loss, p99) in [(0, SHORTEST), (5, Duration::from_secs(2)), (10, Duration::from_secs(4))] {
        let cell = Cell::new(300, &link(loss, None));
        assert!(cell.late.is_empty(), "{loss} %: seeds {:?}", cell.late);
        assert_eq!(cell.quantile(0.5), SHORTEST, "{loss} %");
        assert!(cell.quantile(0.99) <= p99, "{loss} %: {:?}", cell.quantile(0.99));
    }
}

#[test]
fn at_twenty_and_thirty_percent_loss_999_of_1000_handshakes_open_within_a_minute() {
    for (loss, p50, p99) in [(20, 1, 10), (30, 2, 25)] {
        let cell = Cell::new(1_000, &link(loss, None));
        assert!(cell.late.len() <= 1, "{loss} %: seeds {:?}", cell.late);
        let (median, longest) = (cell.quantile(0.5), cell.quantile(0.99));
        assert!(median <= Duration::from_secs(p50), "{loss} %: {median:?}");
        assert!(longest <= Duration::from_secs(p99), "{loss} %: {longest:?}");
    }
}

/// A burst lasts for so many datagrams however long they are apart, so it outlasts several resends:
/// harder than most paths.
#[test]
fn losses_in_bursts_of_three_keep_few_handshakes_from_opening_within_a_minute() {
    for (loss, late_max) in [(5, 0.01), (10, 0.02), (20, 0.03), (30, 0.05)] {
        let cell = Cell::new(300, &link(loss, Some(3.0)));
        assert!(cell.share_late() <= late_max, "{loss} %: seeds {:?}", cell.late);
    }
}

#[test]
fn sessions_are_resumed_at_thirty_percent_loss_and_sooner_than_begun() {
    let keys = Arc::new(TicketKeys::random().unwrap());
    let server = Arc::new(config().with_ticket_keys(keys, LIMIT));
    let client = Arc::new(config().asking_for_tickets());
    let mut first = Net::new(0, &LinkConfig::default(), server.clone());
    first.connect(client.clone());
    assert!(first.run_until(LIMIT, |net| net.both_open()));
    let session = first.events.into_iter().find_map(|(_, side, _, event)| match event {
        Event::Established(established) if side == Side::Client => established.session,
        _ => None,
    });
    let parties = (client, server);
    let link = link(30, None);
    let resumed = Cell::of(300, &link, &parties, Some(&session.unwrap()));
    let begun = Cell::of(300, &link, &parties, None);
    assert!(resumed.late.is_empty() && begun.late.is_empty(), "{:?}", (resumed.late, begun.late));
    for share in [0.5, 0.9] {
        let (resumed, begun) = (resumed.quantile(share), begun.quantile(share));
        assert!(resumed <= begun, "{resumed:?}, {begun:?}");
    }
}
