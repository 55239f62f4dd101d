//! The way to the server: an enrolment, and the link that it opens.

use anyhow::anyhow;
use bytes::Bytes;
use certs::{EnrolmentToken, Identity};
use metadata_delivery::message::Holds;
use ring::rand::{SecureRandom, SystemRandom};

use super::{abort_of_enrolment, files};
use crate::config::Settings;
use crate::enrolment::Enrolment;
use crate::exit::{Abort, Exit};
use crate::hooks::proc::boot_id;
use crate::link::core::Patience;
use crate::link::{self, Happened, Link};

/// An enrolment and its link.
pub(super) struct Uplink {
    pub(super) enrolment: Enrolment,
    pub(super) link: Link,
}

impl Uplink {
    /// A link that connects once it is driven. `holds` is what the server need not send again,
    /// `body` the bytes of it.
    pub(super) fn new(
        settings: &Settings,
        enrolment: Enrolment,
        identity: Identity,
        holds: Option<Holds>,
        body: Option<Bytes>,
    ) -> Result<Self, Abort> {
        let setup = link_setup(settings, &enrolment, identity)?;
        let link = Link::new(setup, holds, body).map_err(|e| Abort::new(Exit::Config, e))?;
        Ok(Self { enrolment, link })
    }

    /// Whether a server has ever taken the token.
    pub(super) fn is_proven(&self) -> bool {
        self.enrolment.token().is_none()
    }

    /// The server has taken the token. Forgetting it waits for the disk, once in an agent's life.
    pub(super) fn redeem(&mut self, settings: &Settings) -> Result<(), Abort> {
        if !self.is_proven() {
            let path = settings.state(files::ENROLMENT);
            self.enrolment.redeemed(&path).map_err(abort_of_enrolment)?;
            self.link.forget_token();
            tracing::info!(agent_id = %self.enrolment.agent_id, "enrolled");
        }
        Ok(())
    }
}

/// Drives the link until something happens; for ever if there is none.
pub(super) async fn next(uplink: &mut Option<Uplink>) -> Happened {
    match uplink {
        Some(uplink) => uplink.link.next().await,
        None => std::future::pending().await,
    }
}

/// The enrolment there is, or the one that the token makes.
pub(super) fn enrolment(
    settings: &Settings,
    token: Option<&EnrolmentToken>,
) -> Result<Enrolment, crate::enrolment::EnrolmentError> {
    let path = settings.state(files::ENROLMENT);
    match token {
        Some(token) => Enrolment::take(&path, token, false).map(|(enrolment, _)| enrolment),
        None => Enrolment::load(&path),
    }
}

/// Where servers are: as a setting says, else as the token said.
pub(super) fn servers(settings: &Settings, enrolment: &Enrolment) -> Vec<String> {
    if settings.servers.is_empty() { enrolment.servers.clone() } else { settings.servers.clone() }
}

fn link_setup(
    settings: &Settings,
    enrolment: &Enrolment,
    identity: Identity,
) -> Result<link::Setup, Abort> {
    let mut seed = [0; 8];
    SystemRandom::new()
        .fill(&mut seed)
        .map_err(|_| anyhow!("the system's random generator failed"))?;
    let patience = Patience::default();
    Ok(link::Setup {
        agent_id: enrolment.agent_id.to_string(),
        identity,
        servers: servers(settings, enrolment),
        pins: enrolment.pins.clone(),
        token: enrolment.token(),
        boot_id: boot_id(),
        keep_alive: settings.keep_alive,
        peer_timeout: settings.peer_timeout,
        patience: Patience {
            pause_min: patience.pause_min.min(settings.reconnect_max),
            pause_max: settings.reconnect_max,
        },
        seed: u64::from_le_bytes(seed),
    })
}
