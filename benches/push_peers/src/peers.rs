//! The other servers: mosquitto and etcd as processes, with state and certificates of their own.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;

use crate::tls::Pki;

/// How long a server may take to listen.
const START_TIME_MAX: Duration = Duration::from_secs(30);
/// etcd refuses writes beyond this; its default of 2 GiB is less than a long run writes.
const ETCD_QUOTA_BYTES: u64 = 8 << 30;

/// A child process, killed when dropped.
#[derive(Debug)]
pub(crate) struct Daemon(pub(crate) Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that listens for TLS with client certificates.
#[derive(Debug)]
pub(crate) struct Server {
    /// What it calls itself.
    pub(crate) version: String,
    /// Where it listens on loopback.
    pub(crate) port: u16,
    /// Its certificates.
    pub(crate) pki: Pki,
    daemon: Daemon,
    /// Gone with the server.
    _directory: TempDir,
}

/// When mosquitto writes its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Saves {
    /// As it does by default: every half hour and at its end.
    Seldom,
    /// After each change.
    Always,
}

impl Server {
    /// Starts mosquitto with persistence, which keeps retained messages.
    pub(crate) fn mosquitto(saves: Saves) -> anyhow::Result<Self> {
        let program = root().join("usr/sbin/mosquitto");
        let version = version(&program, "-h")?;
        let (directory, pki, port) = prepare()?;
        let at = |name: &str| directory.path().join(name).display().to_string();
        let mut config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nrequire_certificate true\n\
             cafile {}\ncertfile {}\nkeyfile {}\nset_tcp_nodelay true\n\
             persistence true\npersistence_location {}/\nlog_type error\n",
            pki.file("ca.pem"),
            pki.file("server.pem"),
            pki.file("server.key"),
            directory.path().display(),
        );
        if rustix::process::geteuid().is_root() {
            // It would become a user that only its package makes.
            config.push_str("user root\n");
        }
        if saves == Saves::Always {
            config.push_str("autosave_on_changes true\nautosave_interval 1\n");
        }
        fs::write(at("mosquitto.conf"), config)?;
        let mut command = foreign(&program);
        command.arg("-c").arg(at("mosquitto.conf"));
        Self::start(version, command, directory, pki, port)
    }

    /// Starts etcd, a cluster of one.
    pub(crate) fn etcd() -> anyhow::Result<Self> {
        let program = root().join("usr/bin/etcd");
        let version = version(&program, "--version")?;
        let (directory, pki, port) = prepare()?;
        let (client, peer) =
            (format!("https://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", free_port()?));
        let mut command = foreign(&program);
        command
            .args(["--name", "peer", "--log-level", "error", "--client-cert-auth"])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("peer={peer}")])
            .args(["--quota-backend-bytes", &ETCD_QUOTA_BYTES.to_string()])
            .args(["--trusted-ca-file", &pki.file("ca.pem")])
            .args(["--cert-file", &pki.file("server.pem"), "--key-file", &pki.file("server.key")])
            .arg("--data-dir")
            .arg(directory.path().join("state"));
        Self::start(version, command, directory, pki, port)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.0.id()
    }

    fn start(
        version: String,
        mut command: Command,
        directory: TempDir,
        pki: Pki,
        port: u16,
    ) -> anyhow::Result<Self> {
        let log = directory.path().join("log");
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?)
            .spawn()
            .with_context(|| format!("starting {version}"))?;
        let mut daemon = Daemon(child);
        let deadline = Instant::now() + START_TIME_MAX;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let said = || fs::read_to_string(&log).unwrap_or_default();
            if let Some(status) = daemon.0.try_wait()? {
                bail!("{version} has ended with {status}: {}", said());
            }
            ensure!(Instant::now() < deadline, "{version} does not listen: {}", said());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { version, port, pki, daemon, _directory: directory })
    }
}

/// A directory with certificates, and a port.
fn prepare() -> anyhow::Result<(TempDir, Pki, u16)> {
    let directory = tempfile::tempdir()?;
    let pki = Pki::make(directory.path())?;
    Ok((directory, pki, free_port()?))
}

/// Where `setup` has unpacked the packages.
fn root() -> PathBuf {
    repository().join(".cache/push_peers/root")
}

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A command of an unpacked package, with the libraries that came with it.
fn foreign(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", root().join("usr/lib/x86_64-linux-gnu"));
    command
}

/// The first line of what it says about itself.
fn version(program: &Path, flag: &str) -> anyhow::Result<String> {
    ensure!(program.is_file(), "not installed: benches/push_peers/setup");
    let output = foreign(program).arg(flag).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let first = text.lines().next().unwrap_or_default();
    Ok(first.replace(" version", "").replace(" Version:", ""))
}

/// A port that was free a moment ago.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
