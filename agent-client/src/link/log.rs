//! The log on the connection: asked for by the server, sent in the background, one at a time.

use std::time::Instant;

use metadata_delivery::message::{Log, LogRequest, Message};
use metadata_delivery::{Document, refusal};

use super::{Happened, Link};

/// Where the log of one connection stands.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The newest request, if that wants something.
    request: Option<u64>,
    /// Version of the log that was offered last.
    version: u64,
}

impl Link {
    /// Sends a log once, when there is nothing else to send. One that answers another request than the newest is
    /// dropped: the server has asked anew since, or this is another connection.
    pub fn send_log(&mut self, log: &Log) {
        let Some(channel) = &mut self.channel else { return };
        let Some(session) = &mut channel.session else { return };
        if channel.log.request != Some(log.request) {
            return;
        }
        channel.log.version += 1;
        let offered = log.to_document(channel.log.version).map_err(|error| error.to_string());
        let offered = offered.and_then(|document| {
            session.offer_background(Instant::now(), document).map_err(|error| error.to_string())
        });
        if let Err(error) = offered {
            tracing::warn!(error, "log not sent");
            self.cut_log_off();
        }
    }

    pub(super) fn log_requested(&mut self, now: Instant, document: &Document) {
        let Some(channel) = &mut self.channel else { return };
        let Some(session) = &mut channel.session else { return };
        match LogRequest::from_body(&document.body) {
            Ok(request) => {
                session.stored(now, &document.name, document.version);
                channel.log.request = request.wanted.then_some(request.request);
                tracing::debug!(wanted = request.wanted, "the server says whether it watches");
                self.happened.push_back(Happened::LogRequested(request));
            }
            Err(error) => {
                let (code, reason) = (refusal::APPLICATION_FIRST, error.to_string());
                tracing::warn!(reason, "a request for the log is not understood");
                session.refuse(now, &document.name, document.version, code, &reason);
            }
        }
    }

    /// The server has a log; if it is the newest, the next one may follow.
    pub(super) fn log_stored(&mut self, version: u64) {
        let Some(channel) = &self.channel else { return };
        if let Some(request) = channel.log.request.filter(|_| channel.log.version == version) {
            self.happened.push_back(Happened::LogTaken { request });
        }
    }

    pub(super) fn cut_log_off(&mut self) {
        let asked = self.channel.as_mut().and_then(|channel| channel.log.request.take());
        if asked.is_some() {
            self.happened.push_back(Happened::LogCutOff);
        }
    }
}
