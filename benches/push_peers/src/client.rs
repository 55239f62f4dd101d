//! The agents of a peer, all in one process of their own: each with a TLS connection, on which it has
//! subscribed to the one topic or watches the one key. `connected` on stdout says that all have; then a
//! line `durable N` says that all have the Nth document durably.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

use crate::durable::Durable;
use crate::tls::Pki;
use crate::{TOPIC, etcd, mqtt};

/// Connections that are being made at the same time.
const CONNECTING_MAX: usize = 64;

/// Which protocol they speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Mqtt,
    Etcd,
}

impl Kind {
    /// Its word on the command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Etcd => "etcd",
        }
    }
}

/// What an agent tells.
enum Told {
    Connected,
    Durable,
}

/// `client KIND PORT PKI AGENTS FILE`, until it is killed.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let [kind, port, pki, agents, file] = arguments else { bail!("client: five arguments") };
    let kinds = [Kind::Mqtt, Kind::Etcd];
    let kind = kinds.into_iter().find(|known| known.word() == kind).context("which protocol?")?;
    let (port, agents): (u16, usize) = (port.parse()?, agents.parse()?);
    let durable = Durable::open(Path::new(file))?;
    let tls = Pki::of(Path::new(pki)).connector((kind == Kind::Etcd).then_some("h2"))?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let (telling, mut told) = mpsc::unbounded_channel();
        let connecting = Arc::new(Semaphore::new(CONNECTING_MAX));
        for agent in 0..agents {
            let (tls, durable, telling) = (tls.clone(), durable.clone(), telling.clone());
            let connecting = connecting.clone();
            tokio::spawn(async move {
                let agent = Agent { number: agent, port, tls, durable, telling: telling.clone() };
                let ended = match kind {
                    Kind::Mqtt => agent.mqtt(&connecting).await,
                    Kind::Etcd => agent.etcd(&connecting).await,
                };
                drop(telling.send(Err(ended.err())));
            });
        }
        let (mut connected, mut durable) = (0, 0);
        while let Some(told) = told.recv().await {
            match told {
                Ok(Told::Connected) => {
                    connected += 1;
                    if connected == agents {
                        say("connected")?;
                    }
                }
                Ok(Told::Durable) => {
                    durable += 1;
                    if durable % agents == 0 {
                        say(&format!("durable {}", durable / agents))?;
                    }
                }
                Err(error) => bail!("an agent has ended: {error:?}"),
            }
        }
        Ok(())
    })
}

fn say(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

struct Agent {
    number: usize,
    port: u16,
    tls: tokio_rustls::TlsConnector,
    durable: Durable,
    telling: mpsc::UnboundedSender<Result<Told, Option<anyhow::Error>>>,
}

impl Agent {
    async fn mqtt(&self, connecting: &Semaphore) -> anyhow::Result<()> {
        let turn = connecting.acquire().await?;
        let name = format!("agent-{}", self.number);
        let mut connection = mqtt::Connection::open(&self.tls, self.port, &name).await?;
        connection.subscribe(TOPIC).await?;
        drop(turn);
        self.tell(Told::Connected);
        loop {
            if let mqtt::Packet::Published { id, payload } = connection.next().await? {
                self.keep(payload).await?;
                connection.acknowledge(id).await?;
            }
        }
    }

    async fn etcd(&self, connecting: &Semaphore) -> anyhow::Result<()> {
        let turn = connecting.acquire().await?;
        let client = etcd::Client::open(&self.tls, self.port).await?;
        let mut watch = client.watch(TOPIC).await?;
        drop(turn);
        self.tell(Told::Connected);
        loop {
            for document in watch.next().await? {
                self.keep(document).await?;
            }
        }
    }

    async fn keep(&self, document: Bytes) -> anyhow::Result<()> {
        self.durable.keep(self.number, document).await?;
        self.tell(Told::Durable);
        Ok(())
    }

    fn tell(&self, told: Told) {
        // Nobody listens when all of it is ending.
        drop(self.telling.send(Ok(told)));
    }
}
