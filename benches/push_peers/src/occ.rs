//! os-collect-config, and the HTTP server that it polls.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use crate::hook::Hook;
use crate::peers::{Daemon, repository};

/// How long os-collect-config may take to run its command for the first document.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// Documents by path, answered to whoever asks. A change is one assignment: the source costs no time.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    port: u16,
    documents: Arc<Mutex<HashMap<String, Vec<u8>>>>,
}

impl Source {
    /// Begins to serve.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let source = Self { port: listener.local_addr()?.port(), documents: Arc::default() };
        let serving = source.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                // One that breaks off asks again.
                std::thread::spawn(move || serving.serve(stream).ok());
            }
        });
        Ok(source)
    }

    /// Sets the document at a path.
    pub(crate) fn put(&self, path: &str, document: &[u8]) {
        self.lock().insert(path.to_owned(), document.to_owned());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<u8>>> {
        self.documents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers HEAD and GET until the client closes.
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut answers = stream.try_clone()?;
        let mut lines = BufReader::new(stream).lines();
        while let Some(request) = lines.next() {
            let request = request?;
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let mut words = request.split(' ');
            let (method, path) = (words.next(), words.next().unwrap_or_default());
            let document = self.lock().get(path.trim_start_matches('/')).cloned();
            let status = if document.is_some() { "200 OK" } else { "404 Not Found" };
            let body = document.unwrap_or_default();
            let mut answer =
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
            if method == Some("GET") {
                answer.extend_from_slice(&body);
            }
            answers.write_all(&answer)?;
        }
        Ok(())
    }
}

/// How often it polls, in seconds: its two settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// The first pause; each is twice the one before.
    pub(crate) pause_s_min: u32,
    /// The longest.
    pub(crate) pause_s_max: u32,
}

/// A process of it, whose command is a hook.
#[derive(Debug)]
pub(crate) struct Poller {
    /// Where its document is.
    pub(crate) name: String,
    /// What it starts.
    pub(crate) hook: Hook,
    _daemon: Daemon,
    _directory: TempDir,
}

impl Poller {
    /// Starts one and waits until it has run its command for a first document.
    pub(crate) fn start(source: &Source, name: &str, pace: Pace) -> anyhow::Result<Self> {
        let program = repository().join(".cache/originals/bin/os-collect-config");
        ensure!(program.is_file(), "not installed: tests/originals/setup");
        let directory = tempfile::tempdir()?;
        let mut hook = Hook::new(directory.path())?;
        let at = directory.path().display();
        let config = format!(
            "[DEFAULT]\ncommand = {}\ncachedir = {at}/cache\nbackup_cachedir = {at}/backup\n\
             collectors = request\nmin_polling_interval = {}\npolling_interval = {}\n\
             [request]\nmetadata_url = http://127.0.0.1:{}/{name}\n",
            hook.command(),
            pace.pause_s_min,
            pace.pause_s_max,
            source.port,
        );
        let config_file = directory.path().join("config");
        fs::write(&config_file, config)?;
        source.put(name, br#"{"deployments": []}"#);
        let log = directory.path().join("log");
        let child = Command::new(program)
            .arg("--config-file")
            .arg(&config_file)
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?)
            .spawn()?;
        let daemon = Daemon(child);
        hook.started(START_TIME_MAX).with_context(|| {
            format!("os-collect-config: {}", fs::read_to_string(&log).unwrap_or_default())
        })?;
        Ok(Self { name: name.to_owned(), hook, _daemon: daemon, _directory: directory })
    }
}
