//! A cell's figures, and how they are written.

use std::time::Duration;

/// The times of all handshakes of a cell.
pub(crate) struct Cell {
    /// Of those that opened in time, in ascending order.
    opened: Vec<Duration>,
    all: usize,
    limit: Duration,
}

impl Cell {
    /// `None` is a handshake that did not open within `limit`.
    pub(crate) fn new(outcomes: Vec<Option<Duration>>, limit: Duration) -> Self {
        let all = outcomes.len();
        let mut opened: Vec<Duration> = outcomes.into_iter().flatten().collect();
        opened.sort_unstable();
        Self { opened, all, limit }
    }

    /// The time by which `share` of *all* handshakes had opened; those that did not count as longer
    /// than any time.
    fn quantile(&self, share: f64) -> String {
        let rank = (share * self.all as f64).ceil() as usize;
        match self.opened.get(rank.saturating_sub(1)) {
            Some(time) => seconds(*time),
            None => format!("> {} s", self.limit.as_secs()),
        }
    }
}

fn seconds(time: Duration) -> String {
    let s = time.as_secs_f64();
    if s < 10.0 { format!("{s:.2} s") } else { format!("{s:.1} s") }
}

pub(crate) fn head(title: &str, limit: Duration) {
    let limit = limit.as_secs();
    println!("\n{title}:\n");
    println!(
        "| lost each way | engine | both ends open within {limit} s | not | p50 | p99 | slowest |"
    );
    println!("|---|---|---|---|---|---|---|");
}

/// The loss is named in the first of its rows only.
pub(crate) fn row(loss_percent: Option<u32>, engine: &str, cell: &Cell) {
    let loss = loss_percent.map(|percent| format!(" {percent} %")).unwrap_or_default();
    let percent = 100.0 * cell.opened.len() as f64 / cell.all as f64;
    println!(
        "|{loss} | {engine} | {percent:.2} % | {} | {} | {} | {} |",
        cell.all - cell.opened.len(),
        cell.quantile(0.5),
        cell.quantile(0.99),
        cell.quantile(1.0),
    );
}
