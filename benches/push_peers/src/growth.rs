//! How the server's CPU time for a push grows with agents and with bytes, as tables and as plots.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context as _;

use crate::fanout::{Measured, measure};
use crate::figures::ms;
use crate::peers::repository;
use crate::plot::{Axis, Line, Plot};

/// Agents, and how many pushes of [`BYTES`] a round has, so that the kernel's ticks are fine enough.
const AGENTS: [(usize, usize); 3] = [(100, 50), (1_000, 10), (10_000, 1)];
const BYTES: usize = 4_096;
/// Bytes of a document for [`AGENTS_OF_BYTES`] agents, and pushes of a round.
const SIZES: [(usize, usize, &str); 3] =
    [(2 << 10, 50, "2 KiB"), (64 << 10, 20, "64 KiB"), (1 << 20, 4, "1 MiB")];
const AGENTS_OF_BYTES: usize = 100;
const ROUNDS: usize = 3;
/// Where the plots are, below the repository's root.
const PLOTS: &str = "docs/plots";

/// By way to push: at which place on the axis, server's milliseconds of CPU for a push.
type Lines = BTreeMap<String, Vec<(f64, f64)>>;

/// Measures, prints, and writes the plots.
pub(crate) fn run() -> anyhow::Result<()> {
    println!(
        "| agents | bytes | | server, ms CPU a push | agents, ms CPU a push | last one durable, ms |"
    );
    println!("|---|---|---|---|---|---|");
    let (mut by_agents, mut by_bytes) = (Lines::new(), Lines::new());
    let mut skipped = Vec::new();
    for (agents, pushes) in AGENTS {
        let measured = measure(agents, BYTES, pushes, ROUNDS)?;
        take(&mut by_agents, agents as f64, (agents, BYTES, pushes), measured, &mut skipped);
    }
    for (bytes, pushes, _) in SIZES {
        let measured = measure(AGENTS_OF_BYTES, bytes, pushes, ROUNDS)?;
        take(&mut by_bytes, bytes as f64, (AGENTS_OF_BYTES, bytes, pushes), measured, &mut skipped);
    }
    for line in &skipped {
        println!("not measured: {line}");
    }
    let agents = AGENTS.map(|(agents, _)| (agents as f64, agents.to_string())).to_vec();
    let sizes = SIZES.map(|(bytes, _, text)| (bytes as f64, text.to_owned())).to_vec();
    let plots = [
        ("push-agents.svg", "One document of 4 KiB", "agents", agents, by_agents),
        ("push-bytes.svg", "One document to 100 agents", "document", sizes, by_bytes),
    ];
    for (file, title, label, marks, lines) in plots {
        let plot = Plot {
            title: title.into(),
            x: Axis { label: label.into(), log: true, marks },
            y: Axis { label: "server, ms CPU".into(), log: true, marks: Vec::new() },
            lines: lines.into_iter().map(|(name, points)| Line { name, points }).collect(),
        };
        write(file, &plot)?;
    }
    Ok(())
}

/// Prints what was measured at one place, and keeps it for the plot.
fn take(
    lines: &mut Lines,
    at: f64,
    (agents, bytes, pushes): (usize, usize, usize),
    measured: Measured,
    skipped: &mut Vec<String>,
) {
    let each = u32::try_from(pushes).unwrap_or(u32::MAX);
    for (name, cost) in measured.costs {
        let [server, clients] = [&cost.server, &cost.agents].map(|samples| samples.median() / each);
        let wall = ms(cost.wall.median());
        println!("| {agents} | {bytes} | {name} | {} | {} | {wall} |", ms(server), ms(clients));
        let name = name.trim_matches('*').to_owned();
        lines.entry(name).or_default().push((at, server.as_secs_f64() * 1e3));
    }
    let place = format!("{bytes} bytes to {agents} agents");
    skipped.extend(measured.skipped.iter().map(|(name, why)| format!("{name}, {place}: {why:#}")));
}

/// Writes a plot to where the documents show it.
pub(crate) fn write(file: &str, plot: &Plot) -> anyhow::Result<()> {
    let directory = repository().join(PLOTS);
    fs::create_dir_all(&directory)?;
    let path = directory.join(file);
    fs::write(&path, plot.svg()).with_context(|| path.display().to_string())?;
    eprintln!("push_peers: {PLOTS}/{file}");
    Ok(())
}
