//! What the agent tells about itself: the status file, and what `agent-client status` makes of it.
//!
//! The daemon replaces `status.json` whenever something changes; the command only reads it, so it works
//! whatever the daemon is doing, and after it is gone. The file is a view, not state: it is not synced.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use certs::file::{FileError, read_public};
use metadata_delivery::message::DeploymentState;
use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::operator::words::line;

/// Version of the file's form; readers skip fields they do not know.
pub const SCHEMA: u32 = 1;
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The whole of it. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Name and version of the program.
    pub software: String,
    /// The daemon's process.
    pub pid: u32,
    /// When that process began; none in files of older releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_since_unix_ms: Option<u64>,
    /// When this was written.
    pub updated_unix_ms: u64,
    /// Who the agent is; empty before it is enrolled.
    pub agent_id: String,
    /// How it stands with the server.
    pub link: LinkStatus,
    /// What asking the collectors has come to; none while they are not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polling: Option<PollStatus>,
    /// The document in force.
    pub document: Option<DocumentStatus>,
    /// Its deployments, in order.
    pub deployments: Vec<DeploymentStatus>,
    /// Results that somebody has not taken yet.
    pub results_waiting: usize,
    /// Those of them that Heat has still to take from the agent itself.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub results_for_heat: usize,
    /// What keeps the agent from working, such as a full disk.
    pub fault: Option<String>,
}

/// How the agent stands with its server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The phase.
    pub state: LinkState,
    /// The server it talks to, or tried last.
    pub server: Option<String>,
    /// Since when.
    pub since_unix_ms: u64,
    /// When it tries again, while waiting.
    pub next_attempt_unix_ms: Option<u64>,
    /// Attempts that failed since it was last connected.
    pub failures: u32,
    /// Why the last one failed.
    pub error: Option<LinkError>,
}

/// Phases of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// Between attempts.
    Waiting,
    /// Shaking hands.
    Connecting,
    /// Introducing itself.
    Greeting,
    /// Known to the server.
    Connected,
    /// There is no server: never enrolled.
    Unenrolled,
    /// Not running.
    Stopped,
}

/// Why a connection ended or did not come about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkError {
    /// A stable word for it.
    pub code: String,
    /// What happened.
    pub text: String,
    /// What to try.
    pub hint: Option<String>,
    /// Whether one side does not want the other (rather than not reaching it).
    pub refused: bool,
}

/// What asking the collectors has come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollStatus {
    /// The collector that has the document; none if only this machine's own sources have something.
    pub source: Option<String>,
    /// What is wrong.
    pub error: Option<String>,
    /// Since when that is so.
    pub since_unix_ms: u64,
}

/// The document in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentStatus {
    /// Its version.
    pub version: u64,
    /// Its digest.
    pub sha256: String,
    /// When it came.
    pub received_unix_ms: u64,
    /// The newest version, if an operator has put this earlier one in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back_from: Option<u64>,
    /// It was polled: its version is that of the newest that was pushed, or 0.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_polled: bool,
}

/// One deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentStatus {
    /// Id of the derived config.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: String,
    /// Where it stands.
    pub state: DeploymentState,
    /// Since when.
    pub since_unix_ms: u64,
    /// Exit status of its hook, once ended.
    pub status_code: Option<i64>,
    /// Why the agent called it failed.
    pub reason: Option<String>,
    /// What it waits for before it is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// When it will have taken too long, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_unix_ms: Option<u64>,
    /// Its process, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its lane, if it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// Which run of the config, 2 or more; none for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun: Option<u64>,
    /// Whether all have its result to whom it is owed (also true where there is none to send).
    pub result_stored: bool,
    /// Whether Heat has still to take it from the agent itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub result_for_heat: bool,
    /// Why the server will never take its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_refused: Option<String>,
    /// Why Heat was never told of it by the agent itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heat_refused: Option<String>,
}

impl DeploymentStatus {
    /// Whether somebody will never know of its result.
    fn is_refused(&self) -> bool {
        self.result_refused.is_some() || self.heat_refused.is_some()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl LinkStatus {
    /// Before the first attempt.
    pub fn new(now_unix_ms: u64) -> Self {
        Self {
            state: LinkState::Waiting,
            server: None,
            since_unix_ms: now_unix_ms,
            next_attempt_unix_ms: None,
            failures: 0,
            error: None,
        }
    }
}

/// Whether nothing more happens in this state.
pub fn is_ended(state: DeploymentState) -> bool {
    match state {
        DeploymentState::Received | DeploymentState::Running | DeploymentState::Unknown => false,
        DeploymentState::Complete
        | DeploymentState::Failed
        | DeploymentState::Interrupted
        | DeploymentState::Skipped => true,
    }
}

impl Status {
    /// Whether there is a document and all of its deployments have ended.
    pub fn is_applied(&self) -> bool {
        self.document.is_some() && self.deployments.iter().all(|d| is_ended(d.state))
    }

    /// Whether a deployment of the document did not end well, or somebody will never know how it did.
    pub fn has_failures(&self) -> bool {
        let bad = [DeploymentState::Failed, DeploymentState::Interrupted];
        self.deployments.iter().any(|d| bad.contains(&d.state) || d.is_refused())
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// I/O.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let directory = path.parent().unwrap_or_else(|| Path::new("."));
        let mut file = tempfile::Builder::new().prefix(".status.").tempfile_in(directory)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        file.persist(path).map(|_| ()).map_err(|error| error.error)
    }

    /// Reads the file; `None` if there is none.
    ///
    /// # Errors
    /// I/O, or a file of another form.
    pub fn read(path: &Path) -> Result<Option<Self>, FileError> {
        let bytes = match read_public(path, FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| FileError::Io {
            action: "understand",
            path: path.to_owned(),
            source: error.into(),
        })
    }
}

/// What a status amounts to. `running`: the daemon that wrote it is alive.
pub fn verdict(status: Option<&Status>, running: bool) -> Exit {
    let Some(status) = status else { return Exit::Degraded };
    let connected = matches!(status.link.state, LinkState::Connected | LinkState::Unenrolled);
    let error = status.link.error.as_ref().filter(|_| running && !connected);
    let nothing_polled = status.link.state == LinkState::Unenrolled
        && status.polling.as_ref().is_some_and(|polling| polling.error.is_some());
    if status.fault.is_some() || status.has_failures() {
        Exit::Failed
    } else if error.is_some_and(|error| error.refused) {
        Exit::Refused
    } else if error.is_some() || (running && nothing_polled) {
        Exit::Unreachable
    } else if running && connected && status.is_applied() && status.results_waiting == 0 {
        Exit::Ok
    } else {
        Exit::Degraded
    }
}

/// The status for people, with what needs attention first.
pub fn render(status: &Status, running: bool, now_unix_ms: u64) -> String {
    let ago = |at: u64| age(now_unix_ms.saturating_sub(at));
    let mut out = String::new();
    if !running {
        out.push_str("warning: agent-client is not running; this is what it last knew\n");
        out.push_str("  try: agent-client run\n");
    }
    if let Some(fault) = &status.fault {
        let _ = writeln!(out, "warning: {fault}");
    }
    let link = &status.link;
    if let Some(error) = link.error.as_ref().filter(|_| link.state != LinkState::Connected) {
        let _ = writeln!(out, "warning: {}", error.text);
        if let Some(hint) = &error.hint {
            let _ = writeln!(out, "  try: {hint}");
        }
    }
    let bad = |d: &&DeploymentStatus| {
        matches!(d.state, DeploymentState::Failed | DeploymentState::Interrupted)
    };
    if let Some(first) = status.deployments.iter().find(bad) {
        let (bad, all) = (status.deployments.iter().filter(bad).count(), status.deployments.len());
        let _ = writeln!(out, "warning: {bad} of {all} deployments failed");
        let _ = writeln!(out, "  try: agent-client why {}", line(&first.id));
    }
    let since = status.running_since_unix_ms.map(|at| format!(", for {}", ago(at)));
    let pid = match running {
        true => format!(" (pid {}{})", status.pid, since.unwrap_or_default()),
        false => String::new(),
    };
    let id = if status.agent_id.is_empty() { "(not enrolled)" } else { &status.agent_id };
    let _ = writeln!(out, "agent     {id}{pid}");
    let server = link.server.as_deref().unwrap_or("-");
    let state = match link.state {
        LinkState::Connected => format!("connected for {}", ago(link.since_unix_ms)),
        LinkState::Connecting | LinkState::Greeting => "connecting".into(),
        LinkState::Waiting => match link.next_attempt_unix_ms {
            Some(at) => format!(
                "not connected, {} failed attempts, next in {}",
                link.failures,
                age(at.saturating_sub(now_unix_ms))
            ),
            None => "not connected".into(),
        },
        LinkState::Unenrolled => "none until a token comes".into(),
        LinkState::Stopped => "stopped".into(),
    };
    let _ = writeln!(out, "server    {server}, {state}");
    if let Some(polling) = &status.polling {
        let source = polling.source.as_deref().unwrap_or("this machine's own sources");
        let since = ago(polling.since_unix_ms);
        let _ = match &polling.error {
            Some(error) => writeln!(out, "polling   failing for {since}: {}", line(error)),
            None => writeln!(out, "polling   {}, for {since}", line(source)),
        };
    }
    match &status.document {
        Some(document) if document.is_polled => {
            let applied = if status.is_applied() { "applied" } else { "being applied" };
            let _ =
                writeln!(out, "document  polled {} ago, {applied}", ago(document.received_unix_ms));
        }
        Some(document) => {
            let applied = if status.is_applied() { "applied" } else { "being applied" };
            let came = ago(document.received_unix_ms);
            let rolled_back = match document.rolled_back_from {
                Some(newest) => format!(" (rolled back from {newest})"),
                None => String::new(),
            };
            let _ = writeln!(
                out,
                "document  version {}{rolled_back}, received {came} ago, {applied}",
                document.version
            );
        }
        None => out.push_str("document  none yet\n"),
    }
    let waiting = match status.results_waiting {
        0 if status.link.state == LinkState::Unenrolled => "none waits".into(),
        0 => "all stored by the server".into(),
        n if status.link.state == LinkState::Unenrolled => format!("{n} not taken by Heat yet"),
        n if status.results_for_heat > 0 => {
            format!("{n} not taken yet, {} of them by Heat", status.results_for_heat)
        }
        n => format!("{n} not stored by the server yet"),
    };
    let _ = writeln!(out, "results   {waiting}");
    if !status.deployments.is_empty() {
        out.push('\n');
        out.push_str(&table(status, now_unix_ms));
    }
    out
}

fn table(status: &Status, now_unix_ms: u64) -> String {
    let mut rows =
        vec![["STATE", "SINCE", "CODE", "SENT", "GROUP", "NAME", "ID"].map(str::to_owned)];
    for deployment in &status.deployments {
        rows.push([
            deployment.state.to_string(),
            age(now_unix_ms.saturating_sub(deployment.since_unix_ms)),
            deployment.status_code.map_or_else(|| "-".into(), |code| code.to_string()),
            match (deployment.state, deployment.result_stored) {
                (DeploymentState::Skipped, _) => "-",
                _ if deployment.is_refused() => "refused",
                (_, true) => "yes",
                (_, false) => "no",
            }
            .into(),
            line(&deployment.group),
            line(&deployment.name),
            line(&deployment.id),
        ]);
    }
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    let mut out = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
        let deployment = index.checked_sub(1).map(|i| &status.deployments[i]);
        for remark in deployment.iter().flat_map(|d| remarks(d, now_unix_ms)) {
            let _ = writeln!(out, "    {}", line(&remark));
        }
    }
    out
}

/// What a row of the table has no column for.
fn remarks(deployment: &DeploymentStatus, now_unix_ms: u64) -> Vec<String> {
    let mut remarks: Vec<String> =
        deployment.reason.iter().chain(&deployment.waits_for).cloned().collect();
    if let Some(pid) = deployment.pid {
        let left = deployment.timeout_unix_ms.map(|at| age(at.saturating_sub(now_unix_ms)));
        let left = left.map(|left| format!(", times out in {left}")).unwrap_or_default();
        let lane = deployment.lane.as_ref().map(|lane| format!(", lane {lane:?}"));
        remarks.push(format!("pid {pid}{}{left}", lane.unwrap_or_default()));
    }
    let refused = deployment.result_refused.as_ref();
    remarks.extend(refused.map(|why| format!("the server refused its result: {why}")));
    let refused = deployment.heat_refused.as_ref();
    remarks.extend(refused.map(|why| format!("Heat was not told of its result: {why}")));
    if deployment.result_for_heat {
        remarks.push("Heat has not taken its result yet".into());
    }
    remarks.extend(deployment.rerun.map(|run| format!("run {run}, asked for by an operator")));
    remarks
}

/// A span of time in its largest unit.
fn age(ms: u64) -> String {
    match ms / 1_000 {
        s if s < 60 => format!("{s}s"),
        s if s < 3_600 => format!("{}m", s / 60),
        s if s < 86_400 => format!("{}h", s / 3_600),
        s => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn status(states: &[DeploymentState]) -> Status {
        let deployment = |(n, state): (usize, &DeploymentState)| DeploymentStatus {
            id: format!("id-{n}"),
            name: format!("name{n}"),
            group: "script".into(),
            state: *state,
            since_unix_ms: 1_000,
            status_code: None,
            reason: None,
            waits_for: None,
            timeout_unix_ms: None,
            pid: None,
            lane: None,
            rerun: None,
            result_stored: is_ended(*state),
            result_for_heat: false,
            result_refused: None,
            heat_refused: None,
        };
        Status {
            schema: SCHEMA,
            software: "agent-client 0.1.0".into(),
            pid: 42,
            running_since_unix_ms: Some(1_000),
            updated_unix_ms: 2_000,
            agent_id: "vm-1".into(),
            link: LinkStatus {
                state: LinkState::Connected,
                server: Some("127.0.0.1:4242".into()),
                since_unix_ms: 500,
                next_attempt_unix_ms: None,
                failures: 0,
                error: None,
            },
            polling: None,
            document: Some(DocumentStatus {
                version: 3,
                sha256: "ab".repeat(32),
                received_unix_ms: 900,
                rolled_back_from: None,
                is_polled: false,
            }),
            deployments: states.iter().enumerate().map(deployment).collect(),
            results_waiting: 0,
            results_for_heat: 0,
            fault: None,
        }
    }

    #[test]
    fn applied_means_a_document_and_every_deployment_ended() {
        use DeploymentState::{Complete, Failed, Received, Running, Skipped};
        assert!(status(&[]).is_applied());
        assert!(status(&[Complete, Failed, Skipped]).is_applied());
        assert!(!status(&[Complete, Running]).is_applied());
        assert!(!status(&[Received]).is_applied());
        assert!(!Status { document: None, ..status(&[]) }.is_applied());
        assert!(status(&[Complete, Failed]).has_failures());
        assert!(!status(&[Complete, Skipped]).has_failures());
    }

    #[test]
    fn the_file_is_read_back_and_a_reader_skips_what_it_does_not_know() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status.json");
        assert_eq!(Status::read(&path).unwrap(), None);
        let status = status(&[DeploymentState::Running]);
        status.write(&path).unwrap();
        assert_eq!(Status::read(&path).unwrap(), Some(status.clone()));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen('{', "{\"new_field\": 1,", 1)).unwrap();
        assert_eq!(Status::read(&path).unwrap(), Some(status));
        std::fs::write(&path, "{").unwrap();
        assert!(Status::read(&path).is_err());
    }

    #[test]
    fn the_exit_code_names_the_worst_thing() {
        use DeploymentState::{Complete, Failed, Running};
        let good = || status(&[Complete]);
        assert_eq!(verdict(None, false), Exit::Degraded);
        assert_eq!(verdict(Some(&good()), true), Exit::Ok);
        assert_eq!(verdict(Some(&good()), false), Exit::Degraded);
        assert_eq!(verdict(Some(&status(&[Complete, Failed])), true), Exit::Failed);
        assert_eq!(verdict(Some(&status(&[Running])), true), Exit::Degraded);
        assert_eq!(verdict(Some(&Status { results_waiting: 1, ..good() }), true), Exit::Degraded);
        assert_eq!(
            verdict(Some(&Status { fault: Some("full".into()), ..good() }), true),
            Exit::Failed
        );
        let away = |refused| {
            let error = LinkError { code: "c".into(), text: "t".into(), hint: None, refused };
            let link = LinkStatus { state: LinkState::Waiting, error: Some(error), ..good().link };
            Status { link, ..good() }
        };
        assert_eq!(verdict(Some(&away(true)), true), Exit::Refused);
        assert_eq!(verdict(Some(&away(false)), true), Exit::Unreachable);
    }

    #[test]
    fn people_see_what_needs_attention_first() {
        use DeploymentState::{Complete, Failed, Running, Skipped};
        let mut status = status(&[Complete, Failed, Running, Skipped]);
        status.deployments[0].status_code = Some(0);
        status.deployments[1].status_code = Some(1);
        status.deployments[1].reason = Some("no such hook: \"chef\"".into());
        status.deployments[1].result_stored = false;
        status.deployments[1].name = "esc\u{1b}[2J".into();
        status.deployments[2].pid = Some(77);
        status.deployments[2].timeout_unix_ms = Some(375_000);
        status.deployments[2].lane = Some("db".into());
        status.deployments[2].rerun = Some(2);
        status.deployments[0].result_stored = false;
        status.deployments[0].result_refused = Some("unknown field \"x\"".into());
        status.deployments[2].result_for_heat = true;
        status.deployments[2].heat_refused = Some("403 \u{7}".into());
        status.results_waiting = 1;
        let mut shown = render(&status, true, 75_000);
        status.results_for_heat = 1;
        status.link.state = LinkState::Waiting;
        status.link.failures = 3;
        status.link.next_attempt_unix_ms = Some(80_000);
        status.link.error = Some(LinkError {
            code: "server_not_pinned".into(),
            text: "server 127.0.0.1:4242 refused: key A is not pinned; expected B".into(),
            hint: Some("compare the fingerprints".into()),
            refused: true,
        });
        status.deployments.clear();
        status.document = None;
        status.fault = Some("cannot write /var/lib/agent-client/journal: No space left".into());
        shown.push_str("--------\n");
        shown.push_str(&render(&status, false, 75_000));
        insta::assert_snapshot!(shown);
    }
}
