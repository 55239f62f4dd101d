//! Signals of wait conditions that this machine cannot send itself: kept on disk until the server has them.
//!
//! Each is a file of its own in a directory that only the agent reads. Whoever handed it over hears that
//! the server has it, or why it does not want it, or after [`ANSWER_MS_MAX`] that it is kept.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use certs::file::{
    FileError, PRIVATE_FILE_MODE, ensure_private_directory, read_private, write_atomic,
};
use metadata_delivery::message::{Message, SIGNAL_BYTES_MAX, WaitSignal};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Pipeline, Report};
use crate::control::message::{Answer, Refusal, RefusalCode, Signalled};
use crate::document::hex;

/// Signals kept; one more is refused.
pub(super) const SIGNALS_MAX: usize = 256;
/// How long the server may take until whoever asks is told that the signal is kept.
const ANSWER_MS_MAX: u64 = 8_000;
const ID_BYTES: usize = 16;
const ENDING: &str = ".json";

/// See the module's text.
#[derive(Debug)]
pub(super) struct Outbox {
    directory: PathBuf,
    kept: BTreeMap<String, Option<Asker>>,
}

#[derive(Debug)]
struct Asker {
    answer: oneshot::Sender<Answer>,
    until: Instant,
}

impl Outbox {
    /// Reads what is kept.
    pub(super) fn open(directory: PathBuf) -> Result<(Self, Vec<WaitSignal>), FileError> {
        ensure_private_directory(&directory)?;
        let mut outbox = Self { directory, kept: BTreeMap::new() };
        let signals = outbox.read()?;
        outbox.kept = signals.iter().map(|signal| (signal.id.clone(), None)).collect();
        Ok((outbox, signals))
    }

    /// What is on disk. A file that holds no signal is left alone, and said.
    pub(super) fn read(&self) -> Result<Vec<WaitSignal>, FileError> {
        let failed =
            |source| FileError::Io { action: "read", path: self.directory.clone(), source };
        let mut signals = Vec::new();
        for entry in std::fs::read_dir(&self.directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(id) = name.strip_suffix(ENDING) else { continue };
            let signal = read_private(&path, SIGNAL_BYTES_MAX as u64)
                .map_err(|error| error.to_string())
                .and_then(|bytes| WaitSignal::from_body(&bytes).map_err(|e| e.to_string()));
            match signal {
                Ok(signal) if signal.id == id => signals.push(signal),
                Ok(_) => tracing::error!(file = %path.display(), "holds another signal"),
                Err(error) => tracing::error!(file = %path.display(), error, "is no signal"),
            }
        }
        Ok(signals)
    }

    fn file(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}{ENDING}"))
    }

    /// Makes a signal durable.
    fn keep(&mut self, url: String, body: String) -> Result<WaitSignal, Refusal> {
        let refuse = |code, text: String, hint: &str| Err(Refusal::new(code, text, hint));
        if self.kept.len() >= SIGNALS_MAX {
            let text = format!("{SIGNALS_MAX} signals wait for the server already");
            return refuse(RefusalCode::Busy, text, "agent-client status says why they wait");
        }
        let mut id = [0; ID_BYTES];
        if SystemRandom::new().fill(&mut id).is_err() {
            let text = "the system's random generator failed";
            return refuse(RefusalCode::Failed, text.into(), "again in a moment");
        }
        let signal = WaitSignal { id: hex(&id), url, body };
        let document = match signal.to_document(1) {
            Ok(document) => document,
            Err(error) => {
                return refuse(
                    RefusalCode::BadQuestion,
                    error.to_string(),
                    "another URL, less data",
                );
            }
        };
        if let Err(error) = write_atomic(&self.file(&signal.id), &document.body, PRIVATE_FILE_MODE)
        {
            let text = format!("the signal cannot be kept: {error}");
            return refuse(RefusalCode::Failed, text, "agent-client status");
        }
        Ok(signal)
    }

    /// The server has decided: the signal is kept no longer.
    fn over(&mut self, id: &str, answer: Answer) {
        let Some(asker) = self.kept.remove(id) else { return };
        if let Err(error) = std::fs::remove_file(self.file(id)) {
            // It goes out again after a restart, and the server knows it by its id.
            tracing::warn!(%error, id, "a signal that is over cannot be removed");
        }
        if let Some(asker) = asker {
            // Who has gone meanwhile needs no answer.
            let _ = asker.answer.send(answer);
        }
    }

    fn timer(&self) -> Option<Instant> {
        self.kept.values().flatten().map(|asker| asker.until).min()
    }

    /// Tells those who have waited long enough, or all, that their signals are kept.
    fn tell(&mut self, now: Option<Instant>) {
        for asker in self.kept.values_mut() {
            if let Some(asker) = asker.take_if(|asker| now.is_none_or(|now| asker.until <= now)) {
                let _ = asker.answer.send(Answer::Signal(Signalled::Kept));
            }
        }
    }
}

impl Pipeline {
    /// Takes a signal; it is answered later.
    pub(super) fn signal(&mut self, url: String, body: String, answer: oneshot::Sender<Answer>) {
        match self.outbox.keep(url, body) {
            Ok(signal) => {
                tracing::info!(id = signal.id, "a wait condition's signal is kept for the server");
                let until = Instant::now() + Duration::from_millis(ANSWER_MS_MAX);
                self.outbox.kept.insert(signal.id.clone(), Some(Asker { answer, until }));
                self.report(Report::Signal(signal));
            }
            Err(refusal) => drop(answer.send(Answer::Refused(refusal))),
        }
    }

    /// The server has made a signal durable.
    pub(super) fn signal_stored(&mut self, id: &str) {
        self.outbox.over(id, Answer::Signal(Signalled::Stored));
    }

    /// The server will never take a signal.
    pub(super) fn signal_refused(&mut self, id: &str, reason: &str) {
        tracing::error!(id, reason, "the server does not relay a wait condition's signal");
        let refusal = Refusal {
            code: RefusalCode::Failed,
            text: format!("the server does not relay the signal: {reason}"),
            hint: None,
            candidates: Vec::new(),
        };
        self.outbox.over(id, Answer::Refused(refusal));
    }

    /// There is a server from now on: it gets what is kept.
    pub(super) fn send_signals(&self) {
        match self.outbox.read() {
            Ok(signals) => {
                signals.into_iter().for_each(|signal| self.report(Report::Signal(signal)));
            }
            Err(error) => tracing::error!(%error, "the kept signals go out after a restart"),
        }
    }

    pub(super) fn signal_timer(&self) -> Option<Instant> {
        self.outbox.timer()
    }

    pub(super) fn tell_of_signals(&mut self, now: Instant) {
        self.outbox.tell(Some(now));
    }

    /// The agent ends: what is kept goes out after the next start.
    pub(super) fn leave_signals(&mut self) {
        self.outbox.tell(None);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const URL: &str = "http://h/?Signature=s";

    fn open(directory: &tempfile::TempDir) -> (Outbox, Vec<WaitSignal>) {
        Outbox::open(directory.path().join("signals")).unwrap()
    }

    #[test]
    fn a_signal_is_kept_until_the_server_has_decided_and_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let (mut outbox, none) = open(&directory);
        assert!(none.is_empty());
        let signal = outbox.keep(URL.into(), "{}".into()).unwrap();
        let file = outbox.file(&signal.id);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let (mut outbox, kept) = open(&directory);
        assert_eq!(kept, std::slice::from_ref(&signal));
        outbox.over(&signal.id, Answer::Signal(Signalled::Stored));
        assert!(!file.exists() && open(&directory).1.is_empty());
    }

    #[test]
    fn whoever_asks_hears_of_the_decision_or_that_it_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (mut outbox, _) = open(&directory);
        let now = Instant::now();
        let ask = |outbox: &mut Outbox, wait_ms| {
            let signal = outbox.keep(URL.into(), "{}".into()).unwrap();
            let (answer, answered) = oneshot::channel();
            let until = now + Duration::from_millis(wait_ms);
            outbox.kept.insert(signal.id.clone(), Some(Asker { answer, until }));
            (signal.id, answered)
        };
        let (first, mut stored) = ask(&mut outbox, 5);
        let (_, mut kept) = ask(&mut outbox, 7);
        let (_, mut later) = ask(&mut outbox, 9);
        assert_eq!(outbox.timer(), Some(now + Duration::from_millis(5)));
        outbox.over(&first, Answer::Signal(Signalled::Stored));
        outbox.tell(Some(now + Duration::from_millis(7)));
        assert_eq!(stored.try_recv(), Ok(Answer::Signal(Signalled::Stored)));
        assert_eq!(kept.try_recv(), Ok(Answer::Signal(Signalled::Kept)));
        assert!(later.try_recv().is_err());
        outbox.tell(None);
        assert_eq!(later.try_recv(), Ok(Answer::Signal(Signalled::Kept)));
        assert_eq!(outbox.timer(), None);
        assert_eq!(open(&directory).1.len(), 2, "both are still to be sent");
    }

    #[test]
    fn what_is_no_signal_is_refused_and_what_is_no_file_of_ours_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (mut outbox, _) = open(&directory);
        for (url, body) in [("file:///x", String::new()), (URL, "x".repeat(SIGNAL_BYTES_MAX))] {
            let refusal = outbox.keep(url.into(), body).unwrap_err();
            assert_eq!(refusal.code, RefusalCode::BadQuestion, "{}", refusal.text);
        }
        write_atomic(&outbox.file("damaged"), b"{", PRIVATE_FILE_MODE).unwrap();
        write_atomic(&outbox.directory.join("note"), b"", PRIVATE_FILE_MODE).unwrap();
        assert!(open(&directory).1.is_empty());
        assert!(outbox.file("damaged").exists());
    }

    #[test]
    fn as_many_are_kept_as_allowed() {
        let directory = tempfile::tempdir().unwrap();
        let (mut outbox, _) = open(&directory);
        for n in 0..SIGNALS_MAX {
            outbox.kept.insert(n.to_string(), None);
        }
        assert_eq!(outbox.keep(URL.into(), "{}".into()).unwrap_err().code, RefusalCode::Busy);
    }
}
