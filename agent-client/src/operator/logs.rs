//! `logs`: what a deployment has printed, from the files that the agent keeps, as they grow.
//!
//! The files are read without the agent's help: nothing that a reader does can hold up a hook. The bytes in
//! them are the hook's own; secrets are hidden here, by the inputs of the document that asked for the run,
//! as long as that is kept.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use metadata_delivery::message::DeploymentState;
use serde_json::{Value, json};

use super::cli::{known, print_value};
use super::offline::{Documents, unreadable};
use super::why::Why;
use super::words::{harmless, line};
use crate::config::Settings;
use crate::control::message::SCHEMA;
use crate::daemon::files;
use crate::document::{Config, ConfigId, Document, Work, plain_text};
use crate::exit::{Abort, Exit};
use crate::hooks::kept::{OutputStore, Stream};
use crate::redact::Redactor;
use crate::status::is_ended;

/// How often a growing file is looked at.
const FOLLOW_POLL_MS: u64 = 100;
/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// Bytes of a line that are held back until its end comes, so that no secret is missed at a seam.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Largest response of a hook that is taken apart.
const RESPONSE_BYTES_MAX: u64 = 32 << 20;

/// Shows the output of a deployment.
///
/// # Errors
/// Nobody knows it, or its files cannot be read.
pub(super) fn logs(
    settings: &Settings,
    name: &str,
    follow: bool,
    only: Option<Stream>,
    json: bool,
) -> Result<Exit, Abort> {
    let mut why = known(settings, name, json)?;
    let id = ConfigId::new(&why.id).map_err(anyhow::Error::msg)?;
    while follow && !has_begun(&why) {
        thread::sleep(Duration::from_millis(FOLLOW_POLL_MS));
        why = known(settings, id.as_str(), json)?;
    }
    let store = OutputStore::new(settings.state(files::OUTPUT));
    let (is_response, redactor) = about(settings, &why, &id)?;
    let files = Files { store: &store, id: &id };
    if json {
        let output = whole(&files, is_response, &redactor)?;
        print_value(&json!({
            "schema": SCHEMA, "id": why.id, "name": why.name, "state": why.state, "run": why.run,
            "status_code": why.status_code, "note": note(&why, written_unix_ms(&files)),
            "stdout": output.0, "stderr": output.1,
        }))?;
        return Ok(Exit::Ok);
    }
    let mut streams = [
        Following::new(Stream::Stdout, &redactor, only),
        Following::new(Stream::Stderr, &redactor, only),
    ];
    loop {
        // Looked at before the files: when it has ended they have all of it.
        let is_over = !follow || is_ended(why.state);
        for stream in &mut streams {
            // A response is one piece: it is shown at the end.
            if !(is_response && stream.stream == Stream::Stdout) {
                stream.advance(&files)?;
            }
        }
        if is_over {
            break;
        }
        thread::sleep(Duration::from_millis(FOLLOW_POLL_MS));
        why = known(settings, id.as_str(), json)?;
    }
    for stream in &mut streams {
        stream.finish()?;
    }
    if is_response && only != Some(Stream::Stderr) {
        let (stdout, _) = whole(&files, is_response, &redactor)?;
        show(&stdout, false)?;
    }
    epilogue(&why, follow, written_unix_ms(&files));
    Ok(Exit::Ok)
}

fn has_begun(why: &Why) -> bool {
    why.state != DeploymentState::Received
}

/// What must be known of the config to show its output: whether its standard output is a hook's response,
/// and what to hide. From the document in force, or a kept one.
fn about(settings: &Settings, why: &Why, id: &ConfigId) -> Result<(bool, Redactor), Abort> {
    let documents = Documents::read(settings)?;
    let of = |version: u64, body: &[u8]| -> Option<(bool, Redactor)> {
        let document = Document::parse(version, body).ok()?;
        let entry = document.entries.into_iter().find(|entry| entry.id == *id)?;
        match entry.work {
            Work::Run(config) => {
                Some((is_response(settings, &config), Redactor::of_config(&config)))
            }
            Work::Data | Work::Bad(_) => None,
        }
    };
    let mut here = documents.in_force().into_iter().chain(&documents.newest);
    if let Some(found) = here.find_map(|document| of(document.version, &document.body)) {
        return Ok(found);
    }
    for kept in documents.kept().into_iter().rev() {
        let document = documents.history.load(kept.version).map_err(unreadable)?;
        if let Some(found) = document.and_then(|document| of(document.version, &document.body)) {
            return Ok(found);
        }
    }
    Ok((why.group != "script", Redactor::default()))
}

fn is_response(settings: &Settings, config: &Config) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    let hooks = settings.hooks(|name| std::env::var(name).ok(), is_root);
    hooks.find(&config.hook) != Some(crate::hooks::Hook::Script)
}

struct Files<'a> {
    store: &'a OutputStore,
    id: &'a ConfigId,
}

impl Files<'_> {
    fn open(&self, stream: Stream) -> Result<Option<File>, Abort> {
        self.store.open(self.id, stream).map_err(unreadable)
    }
}

/// When the files were last written to, in milliseconds since 1970; 0: there are none.
fn written_unix_ms(files: &Files<'_>) -> u64 {
    let written = |stream| {
        let modified = files.open(stream).ok()??.metadata().ok()?.modified().ok()?;
        u64::try_from(modified.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
    };
    [Stream::Stdout, Stream::Stderr].into_iter().filter_map(written).max().unwrap_or(0)
}

/// Both streams at once, a response taken apart.
fn whole(
    files: &Files<'_>,
    is_response: bool,
    redactor: &Redactor,
) -> Result<(String, String), Abort> {
    let read = |stream| -> Result<String, Abort> {
        let mut bytes = Vec::new();
        if let Some(file) = files.open(stream)? {
            file.take(RESPONSE_BYTES_MAX).read_to_end(&mut bytes).context("reading kept output")?;
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let (mut stdout, mut stderr) = (read(Stream::Stdout)?, read(Stream::Stderr)?);
    if is_response && let Ok(Value::Object(response)) = serde_json::from_str::<Value>(&stdout) {
        let text = |key: &str| response.get(key).map(plain_text).unwrap_or_default();
        let reported = text("deploy_stderr");
        // What the hook logged is on its own standard error, and most report that, too.
        if reported.trim_end() != stderr.trim_end() {
            stderr.push_str(&reported);
        }
        stdout = text("deploy_stdout");
    }
    let hide = |text: &str| redactor.redact(text).into_owned();
    Ok((hide(&stdout), hide(&stderr)))
}

/// One stream on its way from file to terminal.
struct Following<'a> {
    stream: Stream,
    /// Where it goes; `None`: it is not wanted.
    to_stderr: Option<bool>,
    file: Option<File>,
    seam: Seam<'a>,
}

impl<'a> Following<'a> {
    fn new(stream: Stream, redactor: &'a Redactor, only: Option<Stream>) -> Self {
        let to_stderr = match only {
            None => Some(stream == Stream::Stderr),
            Some(only) => (only == stream).then_some(false),
        };
        Self { stream, to_stderr, file: None, seam: Seam { redactor, pending: Vec::new() } }
    }

    /// Shows what has come since the last time.
    fn advance(&mut self, files: &Files<'_>) -> Result<(), Abort> {
        let Some(to_stderr) = self.to_stderr else { return Ok(()) };
        if self.file.is_none() {
            self.file = files.open(self.stream)?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match file.read(&mut buffer).context("reading kept output")? {
                0 => return Ok(()),
                n => show(&self.seam.push(&buffer[..n]), to_stderr)?,
            }
        }
    }

    fn finish(&mut self) -> Result<(), Abort> {
        let rest = self.seam.finish();
        self.to_stderr.map_or(Ok(()), |to_stderr| show(&rest, to_stderr))
    }
}

/// Makes text of bytes that come in pieces, with secrets hidden also where pieces meet.
struct Seam<'a> {
    redactor: &'a Redactor,
    pending: Vec<u8>,
}

impl Seam<'_> {
    /// What can be shown: without secrets to hide everything but a character that is cut; with them, whole
    /// lines.
    fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let end = if self.redactor.is_empty() {
            self.pending.len() - cut_character(&self.pending)
        } else {
            match self.pending.iter().rposition(|&byte| byte == b'\n') {
                Some(at) => at + 1,
                None if self.pending.len() > LINE_BYTES_MAX => self.pending.len(),
                None => 0,
            }
        };
        let rest = self.pending.split_off(end);
        let shown = std::mem::replace(&mut self.pending, rest);
        self.hide(&shown)
    }

    fn finish(&mut self) -> String {
        let rest = std::mem::take(&mut self.pending);
        self.hide(&rest)
    }

    fn hide(&self, bytes: &[u8]) -> String {
        self.redactor.redact_part(&String::from_utf8_lossy(bytes)).into_owned()
    }
}

/// Bytes at the end that are the beginning of a character.
fn cut_character(bytes: &[u8]) -> usize {
    let tail = &bytes[bytes.len().saturating_sub(3)..];
    match std::str::from_utf8(tail) {
        Err(error) if error.error_len().is_none() => tail.len() - error.valid_up_to(),
        // The three bytes may begin within a character: look at shorter ends.
        Err(_) => (1..tail.len())
            .rev()
            .find(|&n| {
                let end = &tail[tail.len() - n..];
                std::str::from_utf8(end)
                    .is_err_and(|e| e.error_len().is_none() && e.valid_up_to() == 0)
            })
            .unwrap_or(0),
        Ok(_) => 0,
    }
}

fn show(text: &str, to_stderr: bool) -> Result<(), Abort> {
    let is_terminal =
        if to_stderr { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
    let text = if is_terminal { harmless(text) } else { text.to_owned() };
    let written = if to_stderr {
        io::stderr().write_all(text.as_bytes())
    } else {
        io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush())
    };
    match written {
        // A reader that has seen enough, such as head.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other.context("writing the output")?),
    }
}

/// A word about what is not shown, or about what is shown.
fn note(why: &Why, written_unix_ms: u64) -> Option<String> {
    let of_earlier_run = why.run > 1
        && written_unix_ms != 0
        && why.started_unix_ms.is_none_or(|started| written_unix_ms < started);
    match why.state {
        DeploymentState::Skipped => Some("it is data for templates: nothing is run".into()),
        _ if of_earlier_run => Some(format!("this is of an earlier run than run {}", why.run)),
        _ if written_unix_ms != 0 => None,
        DeploymentState::Received => Some("it has not been started yet".into()),
        DeploymentState::Running => Some("it has printed nothing yet".into()),
        _ => match &why.reason {
            Some(reason) => Some(format!("it has printed nothing: {reason}")),
            None => Some("it has printed nothing, or that is no longer kept".into()),
        },
    }
}

/// Says on standard error what the output does not.
fn epilogue(why: &Why, follow: bool, written_unix_ms: u64) {
    let mut stderr = io::stderr().lock();
    if let Some(note) = note(why, written_unix_ms) {
        let _ = writeln!(stderr, "note: {}", line(&note));
    }
    let id = line(&why.id);
    let waits_or_runs = [DeploymentState::Received, DeploymentState::Running].contains(&why.state);
    let next = match (follow, waits_or_runs) {
        (false, true) => format!("agent-client logs {id} --follow"),
        (true, _) => format!("agent-client why {id}"),
        (false, false) => return,
    };
    let _ = writeln!(stderr, "next: {next}");
}

#[cfg(test)]
mod tests {
    use super::super::why::tests::Bench;
    use super::*;
    use crate::journal::tests_support::{finished, id, received, rerun, signalled, started};

    #[test]
    fn text_in_pieces_is_the_same_as_in_one() {
        let text = "ä€😀 and\nmore".repeat(20);
        let redactor = Redactor::default();
        for size in 1..9 {
            let mut seam = Seam { redactor: &redactor, pending: Vec::new() };
            let mut shown = String::new();
            for piece in text.as_bytes().chunks(size) {
                shown += &seam.push(piece);
            }
            shown += &seam.finish();
            assert_eq!(shown, text, "pieces of {size}");
        }
        let mut seam = Seam { redactor: &redactor, pending: Vec::new() };
        assert_eq!(seam.push(b"a\xff\xfe"), "a\u{fffd}\u{fffd}", "rubbish is not waited for");
    }

    #[test]
    fn a_secret_is_hidden_also_where_pieces_meet() {
        let secret = Value::from("correct horse");
        let redactor = Redactor::new([("password", &secret)]);
        let text = "it is correct horse\nreally correct horse";
        for size in 1..text.len() {
            let mut seam = Seam { redactor: &redactor, pending: Vec::new() };
            let mut shown = String::new();
            for piece in text.as_bytes().chunks(size) {
                shown += &seam.push(piece);
            }
            shown += &seam.finish();
            assert_eq!(shown, "it is (hidden)\nreally (hidden)", "pieces of {size}");
        }
        let mut seam = Seam { redactor: &redactor, pending: Vec::new() };
        let shown = seam.push(&vec![b'x'; LINE_BYTES_MAX + 1]);
        assert_eq!(shown.len(), LINE_BYTES_MAX + 1, "an endless line is not held back for ever");
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut bench = Bench::new();
        let note = |bench: &Bench, written| {
            note(&super::super::why::why(&bench.facts(), &id("a")), written).unwrap_or_default()
        };
        assert_eq!(note(&bench, 0), "it has not been started yet");
        bench.record([received("a"), started("a")]);
        assert_eq!(note(&bench, 0), "it has printed nothing yet");
        assert_eq!(note(&bench, 25), "");
        bench.record([finished("a"), signalled("a")]);
        assert!(note(&bench, 0).contains("no longer kept"));
        bench.record([rerun("a", 2)]);
        assert_eq!(note(&bench, 25), "this is of an earlier run than run 2");
        bench.record([started("a")]);
        assert_eq!(note(&bench, 25), "");
        assert_eq!(note(&bench, 15), "this is of an earlier run than run 2");
    }
}
