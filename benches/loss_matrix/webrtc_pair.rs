//! Two `webrtc-dtls` ends on tokio's clock, which stands still while anybody has work to do.

use std::any::Any;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use channel_benches::{identity, webrtc};
use dtls_channel::MTU_DEFAULT;
use dtls_channel::testing::{Link, LinkConfig};
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::time::Instant;
use webrtc_dtls::config::Config;
use webrtc_dtls::conn::DTLSConn;
use webrtc_util::{Conn, Error, Result};

use crate::engine::Pair;

pub(crate) struct WebrtcPair {
    client: Config,
    server: Config,
}

impl WebrtcPair {
    pub(crate) fn new() -> Self {
        let (client, server) = (identity(), identity());
        let config = |own, peer| Config { mtu: MTU_DEFAULT, ..webrtc::config(own, peer) };
        Self { client: config(&client, &server), server: config(&server, &client) }
    }
}

impl Pair for WebrtcPair {
    fn handshake(&mut self, seed: u64, link: &LinkConfig, limit: Duration) -> Option<Duration> {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let direction = |seed| Arc::new(Direction::new(Link::new(seed, link.clone())));
            let (up, down) = (direction(2 * seed), direction(2 * seed + 1));
            let at_client = Arc::new(End { out: up.clone(), into: down.clone() });
            let at_server = Arc::new(End { out: down, into: up });
            let start = Instant::now();
            let both = async {
                tokio::try_join!(
                    DTLSConn::new(at_client, self.client.clone(), true, None),
                    DTLSConn::new(at_server, self.server.clone(), false, None),
                )
            };
            tokio::time::timeout(limit, both).await.ok()?.ok().map(|_| start.elapsed())
        })
    }
}

/// One direction of the path.
struct Direction {
    link: Mutex<Link>,
    pushed: Notify,
}

impl Direction {
    fn new(link: Link) -> Self {
        Self { link: Mutex::new(link), pushed: Notify::new() }
    }

    fn push(&self, datagram: &[u8]) {
        let now = Instant::now().into_std();
        self.link.lock().expect("nobody panics with it").push(now, datagram.to_vec());
        self.pushed.notify_one();
    }

    async fn pop(&self) -> Vec<u8> {
        loop {
            let (datagram, due) = {
                let mut link = self.link.lock().expect("nobody panics with it");
                (link.pop(Instant::now().into_std()), link.next_due())
            };
            match (datagram, due) {
                (Some(datagram), _) => return datagram,
                (None, None) => self.pushed.notified().await,
                (None, Some(due)) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(due.into()) => {}
                        () = self.pushed.notified() => {}
                    }
                }
            }
        }
    }
}

/// What one end has for a socket.
struct End {
    out: Arc<Direction>,
    into: Arc<Direction>,
}

fn unsupported<T>() -> Result<T> {
    Err(Error::from(std::io::Error::from(ErrorKind::Unsupported)))
}

#[async_trait]
impl Conn for End {
    async fn connect(&self, _: SocketAddr) -> Result<()> {
        unsupported()
    }

    async fn recv(&self, buffer: &mut [u8]) -> Result<usize> {
        let datagram = self.into.pop().await;
        let length = datagram.len().min(buffer.len());
        buffer[..length].copy_from_slice(&datagram[..length]);
        Ok(length)
    }

    async fn recv_from(&self, _: &mut [u8]) -> Result<(usize, SocketAddr)> {
        unsupported()
    }

    async fn send(&self, datagram: &[u8]) -> Result<usize> {
        self.out.push(datagram);
        Ok(datagram.len())
    }

    async fn send_to(&self, _: &[u8], _: SocketAddr) -> Result<usize> {
        unsupported()
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        unsupported()
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        None
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }
}
