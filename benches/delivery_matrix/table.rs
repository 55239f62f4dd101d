//! Cells and how they are written.

use std::time::Duration;

use crate::engine::{LIMIT, Times};

/// The measurements of a cell.
pub(crate) struct Cell {
    delivered: Vec<Option<Duration>>,
    confirmed: Vec<Option<Duration>>,
    sent_ratio: f64,
}

impl Cell {
    pub(crate) fn new(times: &[Times]) -> Self {
        let sorted = |time: fn(&Times) -> Option<Duration>| {
            let mut times: Vec<_> = times.iter().map(time).collect();
            times.sort_unstable_by_key(|time| time.unwrap_or(Duration::MAX));
            times
        };
        Self {
            delivered: sorted(|times| times.delivered),
            confirmed: sorted(|times| times.confirmed),
            sent_ratio: times.iter().map(|times| times.sent_ratio).sum::<f64>()
                / times.len() as f64,
        }
    }

    /// The time by which `share` of all documents had been delivered.
    pub(crate) fn delivered(&self, share: f64) -> Option<Duration> {
        quantile(&self.delivered, share)
    }

    /// The time by which the server knew of `share` of all documents.
    pub(crate) fn confirmed(&self, share: f64) -> Option<Duration> {
        quantile(&self.confirmed, share)
    }
}

fn quantile(times: &[Option<Duration>], share: f64) -> Option<Duration> {
    let rank = (share * times.len() as f64).ceil() as usize;
    times.get(rank.saturating_sub(1)).copied().flatten()
}

fn seconds(time: Option<Duration>) -> String {
    match time.map(|time| time.as_secs_f64()) {
        Some(s) if s < 1.0 => format!("{:.0} ms", s * 1e3),
        Some(s) => format!("{s:.2} s"),
        None => format!("> {} s", LIMIT.as_secs()),
    }
}

fn ratio(time: Option<Duration>, base: Option<Duration>) -> String {
    match (time, base) {
        (Some(time), Some(base)) => format!("{:.1}", time.as_secs_f64() / base.as_secs_f64()),
        _ => "–".to_owned(),
    }
}

pub(crate) fn head(title: &str) {
    println!("\n{title}:\n");
    println!(
        "| lost each way | engine | delivered p50 | p99 | p99 ÷ base | confirmed p50 | p99 | p99 ÷ base | sent ÷ size |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
}

/// `base`: our cell without loss. The loss is named in the first of its rows only.
pub(crate) fn row(loss_percent: Option<u32>, engine: &str, cell: &Cell, base: &Cell) {
    let loss = loss_percent.map(|percent| format!(" {percent} %")).unwrap_or_default();
    println!(
        "|{loss} | {engine} | {} | {} | {} | {} | {} | {} | {:.2} |",
        seconds(cell.delivered(0.5)),
        seconds(cell.delivered(0.99)),
        ratio(cell.delivered(0.99), base.delivered(0.5)),
        seconds(cell.confirmed(0.5)),
        seconds(cell.confirmed(0.99)),
        ratio(cell.confirmed(0.99), base.confirmed(0.5)),
        cell.sent_ratio,
    );
}

pub(crate) fn goodput_head(title: &str) {
    println!("\n{title}:\n");
    println!(
        "| lost each way | engine | median time | goodput ÷ (rate × (1 − loss)) | worst | sent ÷ size |"
    );
    println!("|---|---|---|---|---|---|");
}

/// `fastest`: how long it takes at the rate times the share that is not lost.
pub(crate) fn goodput_row(loss_percent: Option<u32>, engine: &str, cell: &Cell, fastest: Duration) {
    let loss = loss_percent.map(|percent| format!(" {percent} %")).unwrap_or_default();
    let share = |time: Option<Duration>| match time {
        Some(time) => format!("{:.2}", fastest.as_secs_f64() / time.as_secs_f64()),
        None => format!("< {:.2}", fastest.as_secs_f64() / LIMIT.as_secs_f64()),
    };
    println!(
        "|{loss} | {engine} | {} | {} | {} | {:.2} |",
        seconds(cell.delivered(0.5)),
        share(cell.delivered(0.5)),
        share(cell.delivered(1.0)),
        cell.sent_ratio,
    );
}
