//! One agent: how long from the document's acceptance to the hook's first instruction.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use system_tests::documents::{document, script};
use system_tests::{Agent, PATIENCE};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::figures::{Samples, ms};
use crate::hook::Hook;
use crate::occ::{Pace, Poller, Source};
use crate::peers::{Saves, Server};
use crate::{TOPIC, etcd, mqtt};

/// Pushes of what answers in milliseconds, unless told.
const PUSHES_DEFAULT: usize = 200;
/// Pushes to os-collect-config that polls each second or without pause.
const POLLED_PUSHES: usize = 20;
/// Processes of os-collect-config at its default, each of which gets one push.
const SLOW_POLLERS: usize = 20;
/// In how long they are started, so that they do not ask at the same time: the pause between two polls.
const SLOW_START: Duration = Duration::from_secs(30);
/// 1 + 2 + 4 + 8 + 16 seconds, after which the pauses are of 30, and some time for itself.
const SLOW_SETTLES: Duration = Duration::from_secs(36);
/// How long a poll may take.
const POLLED_TIME_MAX: Duration = Duration::from_secs(60);
/// Pages that the server's store writes for a document.
const PAGES: usize = 9;
const PAGE_BYTES: usize = 4_096;
const STRIDE_BYTES: usize = 16 * PAGE_BYTES;
const AGENT: &str = "vm";

/// What was measured of one way to push.
#[derive(Default)]
struct Row {
    /// From the request.
    sent: Samples,
    /// From the answer, which says that the server has the document.
    accepted: Samples,
}

/// Measures and prints.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let pushes = arguments.first().map_or(Ok(PUSHES_DEFAULT), |text| text.parse())?;
    ensure!(pushes > 0, "at least one push");
    let mut rows: Vec<(String, Row)> = Vec::new();
    let mut skipped = Vec::new();
    let source = Source::start()?;
    // They poll every 30 seconds, meanwhile the others are measured.
    let slow = slow_pollers(&source).map_err(|why| skipped.push(("os-collect-config".into(), why)));
    let mut ways: Vec<Box<dyn Way>> = vec![Box::new(Ours::start()?)];
    let peers: [(&str, StartWay); 3] = [
        ("mosquitto", || Ok(Box::new(Broker::start(Saves::Seldom)?))),
        ("mosquitto, saving at each change", || Ok(Box::new(Broker::start(Saves::Always)?))),
        ("etcd", || Ok(Box::new(Etcd::start()?))),
    ];
    for (name, start) in peers {
        match start() {
            Ok(way) => ways.push(way),
            Err(why) => skipped.push((name.to_owned(), why)),
        }
    }
    let disk = tempfile::tempdir()?;
    let (mut appended, mut overwritten) = (Samples::default(), Samples::default());
    rows.extend(ways.iter().map(|way| (way.name(), Row::default())));
    for push in 0..pushes {
        if push % 20 == 0 {
            eprintln!("push_peers: push {push} of {pushes}");
        }
        // In turn, so that the same neighbours disturb all of it, and nobody is always after the same other.
        overwritten.push(overwrite(disk.path())?);
        appended.push(append(disk.path())?);
        for turn in 0..ways.len() {
            let which = (push + turn) % ways.len();
            let (name, row) = &mut rows[which];
            let pushed = ways[which].push(push).with_context(|| format!("{name}, push {push}"))?;
            row.sent.push(pushed.started - pushed.sent);
            // The hook may overtake the answer.
            row.accepted.push(pushed.started.saturating_duration_since(pushed.accepted));
        }
    }
    drop(ways);
    if let Ok((pollers, since)) = slow {
        for (name, pause_s) in [("no pause, one core busy", 0), ("1 s", 1)] {
            eprintln!("push_peers: os-collect-config, {name}");
            let name = format!("os-collect-config, {name}");
            rows.push((name, polled(&source, pause_s)?));
        }
        std::thread::sleep(SLOW_SETTLES.saturating_sub(since.elapsed()));
        eprintln!("push_peers: os-collect-config at its default");
        rows.push(("os-collect-config, 30 s (default)".into(), settled(&source, pollers)?));
    }
    let disk = [
        ("server's write: 9 pages, fdatasync", &overwritten),
        ("agent's write: 256 bytes, fdatasync", &appended),
    ];
    show(&rows, &disk);
    if let Some((_, ours)) = rows.first() {
        let beyond = ours.sent.median().saturating_sub(overwritten.median() + appended.median());
        println!("\nours beyond the two writes: {} ms (to reach: 3)", ms(beyond));
    }
    for (name, why) in &skipped {
        println!("not measured: {name}: {why:#}");
    }
    println!("{} measured, {} not", rows.len(), skipped.len());
    Ok(())
}

fn show(rows: &[(String, Row)], disk: &[(&str, &Samples)]) {
    println!(
        "| ms until the hook's first instruction | pushes | sent, p50 | p99 | accepted, p50 | p99 |"
    );
    println!("|---|---|---|---|---|---|");
    for (name, Row { sent, accepted }) in rows {
        let [a, b] = [50, 99].map(|percent| ms(sent.at(percent)));
        let [c, d] = [50, 99].map(|percent| ms(accepted.at(percent)));
        println!("| {name} | {} | {a} | {b} | {c} | {d} |", sent.len());
    }
    for (name, samples) in disk {
        let [a, b] = [50, 99].map(|percent| ms(samples.at(percent)));
        println!("| for comparison: {name} | {} | {a} | {b} | | |", samples.len());
    }
}

/// When a push was sent and accepted, and its hook started.
struct Pushed {
    sent: Instant,
    accepted: Instant,
    started: Instant,
}

/// A way to push to one agent.
trait Way {
    fn name(&self) -> String;
    /// Pushes a document that differs from all before, and waits until nothing is left to do.
    fn push(&mut self, number: usize) -> anyhow::Result<Pushed>;
}

/// Starts a server and what listens to it.
type StartWay = fn() -> anyhow::Result<Box<dyn Way>>;

/// The document of a push, with a script that starts the hook.
fn pushed_document(number: usize, hook: &Hook) -> Vec<u8> {
    let says = format!("#!/bin/sh\n{}\n", hook.command());
    document(&[script(&format!("push-{number}"), &says)]).to_string().into_bytes()
}

struct Ours {
    server: system_tests::Server,
    hook: Hook,
    _agent: Agent,
}

impl Ours {
    fn start() -> anyhow::Result<Self> {
        let server = system_tests::Server::start();
        let agent = Agent::start(&server, AGENT);
        let hook = Hook::new(agent.directory())?;
        Ok(Self { server, hook, _agent: agent })
    }
}

impl Way for Ours {
    fn name(&self) -> String {
        "**metadata-server, agent-client**".into()
    }

    fn push(&mut self, number: usize) -> anyhow::Result<Pushed> {
        let body = pushed_document(number, &self.hook);
        let sent = Instant::now();
        let reply = self.server.put(AGENT, &body)?;
        let accepted = Instant::now();
        ensure!(reply.status == 201, "{reply}");
        let started = self.hook.started(PATIENCE)?;
        let version = reply.json()["version"].as_u64().context("a version")?;
        self.server.wait_until_applied(AGENT, version);
        Ok(Pushed { sent, accepted, started })
    }
}

/// What the agent of a peer does with a document: as little as ours may do before its hook starts.
struct Subscriber {
    file: File,
    _directory: TempDir,
}

impl Subscriber {
    fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let file = File::create(directory.path().join("documents"))?;
        Ok(Self { file, _directory: directory })
    }

    /// Makes the document durable and runs its script.
    fn take(&mut self, document: &[u8]) -> anyhow::Result<()> {
        self.file.write_all(document)?;
        self.file.sync_data()?;
        let parsed: serde_json::Value = serde_json::from_slice(document)?;
        let script = parsed["deployments"][0]["config"].as_str().context("a script")?;
        let status = Command::new("/bin/sh").arg("-c").arg(script).status()?;
        ensure!(status.success(), "the script ends with {status}");
        Ok(())
    }
}

struct Broker {
    name: String,
    runtime: Runtime,
    publisher: mqtt::Connection,
    hook: Hook,
    _server: Server,
    _directory: TempDir,
}

impl Broker {
    fn start(saves: Saves) -> anyhow::Result<Self> {
        let server = Server::mosquitto(saves)?;
        let name = match saves {
            Saves::Seldom => server.version.clone(),
            Saves::Always => format!("{}, saving at each change", server.version),
        };
        let (tls, port) = (server.pki.connector(None)?, server.port);
        let runtime = Runtime::new()?;
        let publisher = runtime.block_on(mqtt::Connection::open(&tls, port, "publisher"))?;
        on_thread(async move || {
            let mut subscriber = Subscriber::new()?;
            let mut connection = mqtt::Connection::open(&tls, port, AGENT).await?;
            connection.subscribe(TOPIC).await?;
            Ok(async move || match connection.next().await? {
                mqtt::Packet::Published { id, payload } => {
                    subscriber.take(&payload)?;
                    connection.acknowledge(id).await
                }
                _ => Ok(()),
            })
        })?;
        let directory = tempfile::tempdir()?;
        let hook = Hook::new(directory.path())?;
        Ok(Self { name, runtime, publisher, hook, _server: server, _directory: directory })
    }
}

impl Way for Broker {
    fn name(&self) -> String {
        format!("{}, MQTT over TLS, QoS 1, retained", self.name)
    }

    fn push(&mut self, number: usize) -> anyhow::Result<Pushed> {
        let body = pushed_document(number, &self.hook);
        let publisher = &mut self.publisher;
        let (sent, accepted) = self.runtime.block_on(async {
            let sent = Instant::now();
            let id = publisher.publish(TOPIC, &body).await?;
            let answer = publisher.next().await?;
            ensure!(answer == mqtt::Packet::Acknowledged(id), "{answer:?}");
            Ok((sent, Instant::now()))
        })?;
        Ok(Pushed { sent, accepted, started: self.hook.started(PATIENCE)? })
    }
}

struct Etcd {
    name: String,
    runtime: Runtime,
    client: etcd::Client,
    hook: Hook,
    _server: Server,
    _directory: TempDir,
}

impl Etcd {
    fn start() -> anyhow::Result<Self> {
        let server = Server::etcd()?;
        let (tls, port) = (server.pki.connector(Some("h2"))?, server.port);
        let runtime = Runtime::new()?;
        let client = runtime.block_on(etcd::Client::open(&tls, port))?;
        on_thread(async move || {
            let mut subscriber = Subscriber::new()?;
            let mut watch = etcd::Client::open(&tls, port).await?.watch(TOPIC).await?;
            Ok(async move || {
                watch.next().await?.iter().try_for_each(|document| subscriber.take(document))
            })
        })?;
        let directory = tempfile::tempdir()?;
        let hook = Hook::new(directory.path())?;
        let name = server.version.clone();
        Ok(Self { name, runtime, client, hook, _server: server, _directory: directory })
    }
}

impl Way for Etcd {
    fn name(&self) -> String {
        format!("{}, watch over TLS", self.name)
    }

    fn push(&mut self, number: usize) -> anyhow::Result<Pushed> {
        let body = Bytes::from(pushed_document(number, &self.hook));
        let sent = Instant::now();
        self.runtime.block_on(self.client.put(TOPIC, body))?;
        let accepted = Instant::now();
        Ok(Pushed { sent, accepted, started: self.hook.started(PATIENCE)? })
    }
}

/// Runs `connect` on a thread with a runtime of its own, returns when it has, and repeats what that returns
/// until it fails, which the end of the server is.
fn on_thread<C, S>(connect: C) -> anyhow::Result<()>
where
    C: AsyncFnOnce() -> anyhow::Result<S> + Send + 'static,
    S: AsyncFnMut() -> anyhow::Result<()>,
{
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut step = match connect().await {
                Ok(step) => step,
                Err(error) => {
                    drop(ready.send(Err(error)));
                    return Ok(());
                }
            };
            drop(ready.send(Ok(())));
            while step().await.is_ok() {}
            anyhow::Ok(())
        })
    });
    is_ready.recv().context("no runtime")?
}

/// Starts those that poll every 30 seconds, spread over that time.
fn slow_pollers(source: &Source) -> anyhow::Result<(Vec<Poller>, Instant)> {
    let mut pollers = Vec::new();
    let begin = Instant::now();
    for number in 0..SLOW_POLLERS {
        let at = SLOW_START * u32::try_from(number)? / u32::try_from(SLOW_POLLERS)?;
        std::thread::sleep(at.saturating_sub(begin.elapsed()));
        eprintln!("push_peers: starting os-collect-config {} of {SLOW_POLLERS}", number + 1);
        let pace = Pace { pause_s_min: 1, pause_s_max: 30 };
        pollers.push(Poller::start(source, &format!("slow-{number}"), pace)?);
    }
    Ok((pollers, Instant::now()))
}

/// One push to each.
fn settled(source: &Source, mut pollers: Vec<Poller>) -> anyhow::Result<Row> {
    let mut row = Row::default();
    let sent = Instant::now();
    for poller in &pollers {
        source.put(&poller.name, &changed(0));
    }
    for poller in &mut pollers {
        let started = poller.hook.started(POLLED_TIME_MAX)?;
        row.sent.push(started - sent);
        row.accepted.push(started - sent);
    }
    Ok(row)
}

/// One after the other to one that polls often, at times that have nothing to do with its own.
fn polled(source: &Source, pause_s: u32) -> anyhow::Result<Row> {
    let pace = Pace { pause_s_min: pause_s, pause_s_max: pause_s };
    let mut poller = Poller::start(source, &format!("each-{pause_s}"), pace)?;
    let mut row = Row::default();
    for push in 0..POLLED_PUSHES {
        let spread = Duration::from_secs(1) * u32::try_from(push * 7 % POLLED_PUSHES)?;
        std::thread::sleep(spread / u32::try_from(POLLED_PUSHES)?);
        let sent = Instant::now();
        source.put(&poller.name, &changed(push));
        let started = poller.hook.started(POLLED_TIME_MAX)?;
        row.sent.push(started - sent);
        row.accepted.push(started - sent);
    }
    Ok(row)
}

/// A document that is not as before.
fn changed(push: usize) -> Vec<u8> {
    format!(r#"{{"deployments": [], "push": {push}}}"#).into_bytes()
}

/// What the agent's journal does: a short record behind the others.
fn append(directory: &Path) -> anyhow::Result<Duration> {
    let mut file = OpenOptions::new().create(true).append(true).open(directory.join("append"))?;
    let begin = Instant::now();
    file.write_all(&[7; 256])?;
    file.sync_data()?;
    Ok(begin.elapsed())
}

/// What the server's store does: pages that are scattered over a file which does not grow.
fn overwrite(directory: &Path) -> anyhow::Result<Duration> {
    let path = directory.join("overwrite");
    if !path.exists() {
        std::fs::write(&path, vec![0; PAGES * STRIDE_BYTES])?;
        File::open(&path)?.sync_all()?;
    }
    let file = OpenOptions::new().write(true).open(path)?;
    let begin = Instant::now();
    for page in 0..PAGES {
        file.write_all_at(&[7; PAGE_BYTES], (page * STRIDE_BYTES) as u64)?;
    }
    file.sync_data()?;
    Ok(begin.elapsed())
}
