//! What is told of the results.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use system_tests::Role;

use crate::cases::What;
use crate::peers::{self, Peer};
use crate::{Outcome, Tried};

const DOCUMENT: &str = "docs/interop.md";
const BEGIN: &str = "<!-- measured: begin -->\n";
const END: &str = "<!-- measured: end -->\n";

/// The cases that took longest.
pub(crate) fn slowest(results: &[Tried]) -> String {
    let mut by_time: Vec<_> = results.iter().collect();
    by_time.sort_by_key(|result| std::cmp::Reverse(result.took));
    let mut text = "slowest:".to_owned();
    for result in by_time.iter().take(5) {
        let _ = write!(text, "\n    {:5.1} s  {}", result.took.as_secs_f64(), result.case.name());
    }
    text
}

/// Holds the table in the documentation to what was measured.
pub(crate) fn check(
    results: &[Tried],
    versions: &BTreeMap<&'static str, String>,
) -> Result<(), String> {
    let path = peers::repository().join(DOCUMENT);
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{DOCUMENT}: {error}"))?;
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| {
        let (table, after) = rest.split_once(END)?;
        Some((before, table, after))
    });
    let (before, written, after) = parts.ok_or_else(|| format!("{DOCUMENT} has no {BEGIN}"))?;
    let measured = table(results, versions);
    if written == measured {
        return Ok(());
    }
    if std::env::var("INTEROP_DOC").is_ok_and(|value| value == "write") {
        let text = format!("{before}{BEGIN}{measured}{END}{after}");
        return std::fs::write(&path, text).map_err(|error| format!("{DOCUMENT}: {error}"));
    }
    Err(format!(
        "{DOCUMENT} does not say what was measured:\n{measured}\
         write it: INTEROP_DOC=write cargo test -p system-tests --test interop"
    ))
}

/// All that does not change from run to run.
fn table(results: &[Tried], versions: &BTreeMap<&'static str, String>) -> String {
    let mut text = String::from(
        "| peer | from | suites | our client: direct, lossy | our server: direct, lossy | others |\n\
         |---|---|---|---|---|---|\n",
    );
    // A tree of MatrixSSL is not everywhere; the page must say the same with and without.
    for peer in peers::ALL.iter().filter(|peer| peer.name != peers::MATRIXSSL) {
        let of = |our_role, wanted: &dyn Fn(&What) -> bool| {
            count(results.iter().filter(|result| {
                result.case.peer.name == peer.name
                    && our_role == result.case.our_role
                    && wanted(&result.case.what)
            }))
        };
        let echo = |our_role| {
            let direct = of(our_role, &|what| matches!(what, What::Echo { lossy: false, .. }));
            let lossy = of(our_role, &|what| matches!(what, What::Echo { lossy: true, .. }));
            format!("{direct}, {lossy}")
        };
        let others = count(results.iter().filter(|result| {
            result.case.peer.name == peer.name && !matches!(result.case.what, What::Echo { .. })
        }));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {others} |",
            title(peer, versions),
            peer.source,
            peer.suites.len(),
            echo(Role::Client),
            echo(Role::Server),
        );
    }
    text
}

/// How many of them have to pass, and do.
fn count<'a>(results: impl Iterator<Item = &'a Tried>) -> String {
    let (mut must, mut may) = (0, 0);
    for result in results {
        match result.outcome {
            Outcome::Passed => must += 1,
            Outcome::PassedUnexpectedly(_) | Outcome::Excused(_) => may += 1,
            Outcome::Failed(_) => {}
        }
    }
    match (must, may) {
        (_, 0) => must.to_string(),
        (0, _) => format!("({may})"),
        _ => format!("{must} ({may})"),
    }
}

/// Name and version, of which security updates change no more than the third number.
fn title(peer: &Peer, versions: &BTreeMap<&'static str, String>) -> String {
    let version = versions.get(peer.name).map_or("", String::as_str);
    let number = version.split(' ').find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let number: Vec<_> = number.unwrap_or_default().split('.').take(2).collect();
    let name = peer.name.split("-5").next().unwrap_or_default();
    format!("{name} {}", number.join("."))
}
