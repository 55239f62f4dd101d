//! What an answer waits for.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};

use axum::response::IntoResponse;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::boot::Server;
use crate::config::{Config, ConfigFile, Origin, Override, Value};
use crate::document::{DOCUMENT_BYTES_MAX, ValidDocument};
use crate::store::backend::{Backend, ReadJob, WriteJob};
use crate::store::queues::QueueKey;
use crate::store::{MemoryBackend, Store};

const PATIENCE: Duration = Duration::from_secs(30);
/// Time enough for an answer that does not wait.
const A_WHILE: Duration = Duration::from_millis(300);

/// A store whose disk can be made to take its time.
#[derive(Default)]
struct SlowDisk {
    memory: MemoryBackend,
    /// Told that a commit is about to be synced; it then waits until the other end is gone.
    held: Mutex<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>>,
}

impl Backend for SlowDisk {
    fn read(&self, job: &mut ReadJob<'_>) -> Result<(), StoreError> {
        self.memory.read(job)
    }

    fn write(&self, bytes: usize, job: &mut WriteJob<'_>) -> Result<(), StoreError> {
        self.memory.write(bytes, job)?;
        if let Some((told, go)) = self.held.lock().unwrap_or_else(PoisonError::into_inner).take() {
            told.send(()).unwrap();
            go.recv().unwrap_err();
        }
        Ok(())
    }
}

#[tokio::test]
async fn no_201_is_sent_before_the_commit_is_synced() {
    let disk = Arc::new(SlowDisk::default());
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state").display().to_string();
    let settings = [
        ("listen", "127.0.0.1:0"),
        ("admin_listen", "127.0.0.1:0"),
        ("zaqar_listen", "127.0.0.1:0"),
        ("zaqar_any_token", "true"),
        ("state_dir", &*state),
    ];
    let overrides = settings.map(|(key, text)| Override {
        key,
        value: Value::Text(text.into()),
        origin: Origin::Together,
    });
    let config = Config::load(&ConfigFile::None, &overrides).unwrap();
    let server = Server::start_with(config, disk.clone()).await.unwrap();
    let (told, syncs) = mpsc::channel();
    let (go, wait) = mpsc::channel();
    *disk.held.lock().unwrap() = Some((told, wait));

    let mut stream = TcpStream::connect(server.zaqar_address.unwrap()).await.unwrap();
    let body = r#"{"messages": [{"body": {"deployments": []}}]}"#;
    let request = format!(
        "POST /v2/queues/q/messages HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-project-id: p\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let synced = tokio::task::spawn_blocking(move || syncs.recv_timeout(PATIENCE));
    synced.await.unwrap().unwrap();
    let mut answer = Vec::new();
    let early = tokio::time::timeout(A_WHILE, stream.read_buf(&mut answer)).await;
    assert!(early.is_err(), "answered before: {}", String::from_utf8_lossy(&answer));
    drop(go);
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 201 "), "{}", String::from_utf8_lossy(&answer));
    server.stop().await;
}

#[tokio::test]
async fn a_write_waits_a_moment_for_room_in_the_store() {
    let store = Store::new(Arc::new(MemoryBackend::default())).unwrap();
    let held = Arc::new(AtomicBool::new(false));
    let hold = held.clone();
    let observer = move |_: &Write, _: &Outcome| {
        while hold.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let (writer, thread) = Writer::start(store.clone(), Box::new(observer)).unwrap();
    let (settle, _settling) =
        settle::Settler::start(store.clone(), writer.clone(), Arc::default(), None).unwrap();
    let parts = Parts {
        store,
        writer: writer.clone(),
        metrics: Arc::default(),
        admission: Admission::Anybody,
        roles: Vec::new(),
        object_roles: Vec::new(),
        settle,
        document_bytes_max: DOCUMENT_BYTES_MAX,
    };
    let zaqar = Zaqar::new(parts).await.unwrap();
    held.store(true, Ordering::Release);
    // Large ones first, then smaller ones, until there is no room for the smallest.
    for kib in [15 * 1024, 512, 8, 0] {
        let body = format!("{{\"deployments\": []{}}}", " ".repeat(kib * 1024));
        let document = ValidDocument::check(body.into(), DOCUMENT_BYTES_MAX).unwrap();
        let (full, is_full) = mpsc::channel();
        while is_full.try_recv().is_err() {
            let full = full.clone();
            let agent = "a".parse().unwrap();
            let document = document.clone();
            let write = Write::PutDocument { agent, document, accepted_unix_ms: 1 };
            writer.submit(write, move |outcome| {
                if matches!(outcome, Err(StoreError::Busy { .. })) {
                    full.send(()).unwrap();
                }
            });
        }
    }
    let queue = QueueKey::new("p", "q").unwrap();
    let write = zaqar.write(QueueWrite::Make { queue, user: None, now_unix_ms: 1 });
    tokio::pin!(write);
    assert!(tokio::time::timeout(A_WHILE, &mut write).await.is_err(), "it is tried again");
    held.store(false, Ordering::Release);
    let made = tokio::time::timeout(PATIENCE, write).await.unwrap();
    assert_eq!(made, Ok(QueueOutcome::Made { is_new: true }));
    thread.stop();

    let busy = StoreError::Busy { queued_bytes: 2, bytes_max: 1 };
    let answer = ZaqarError::from(busy).into_response();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers().get("retry-after").unwrap(), "1");
}
