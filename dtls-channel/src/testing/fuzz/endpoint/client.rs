use std::sync::Arc;
use std::time::Instant;

use super::server_address;
use crate::config::Config;
use crate::conn::Connection;
use crate::error::CloseReason;
use crate::event::{AssociationId, Established, Event, Phase};
use crate::outbox::Sink;
use crate::resumption::Session;

/// A client that keeps to the rules, wherever its datagrams seem to come from.
pub(super) struct Client {
    conn: Connection,
    sink: Sink,
    born: u32,
    sent: Vec<(u64, Vec<u8>)>,
    /// What it agreed on, once it is open, and whether by a session.
    pub(super) agreed: Option<[u8; 16]>,
    pub(super) resumed: bool,
    pub(super) session: Option<Session>,
    /// Messages from the server.
    pub(super) heard: usize,
}

/// What both sides can derive and nobody else.
pub(super) fn exported(established: &Established) -> [u8; 16] {
    let mut out = [0; 16];
    established.exporter.export("EXPORTER-fuzz", b"", &mut out);
    out
}

/// True if one of the first `born` clients would send this.
pub(super) fn is_marked(message: &[u8], born: u32) -> bool {
    let (marks, rest) = message.as_chunks::<4>();
    let first = marks.first().map_or(0, |mark| u32::from_be_bytes(*mark));
    (1..=born).contains(&first)
        && marks.iter().all(|m| *m == first.to_be_bytes())
        && rest.is_empty()
}

impl Client {
    pub(super) fn new(
        now: Instant,
        born: u32,
        config: Arc<Config>,
        session: Option<Session>,
    ) -> Self {
        let mut sink = Sink::default();
        let (id, path) = (AssociationId::STANDALONE, server_address().into());
        let conn = match session {
            None => Connection::client(now, id, path, config, &mut sink),
            Some(session) => Connection::resume(now, id, path, config, session, &mut sink),
        };
        let conn = conn.expect("randomness");
        Self {
            conn,
            sink,
            born,
            sent: Vec::new(),
            agreed: None,
            resumed: false,
            session: None,
            heard: 0,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.conn.phase()
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.conn.next_timeout().map(|(at, _)| at)
    }

    pub(super) fn handle_datagram(&mut self, now: Instant, mut datagram: Vec<u8>) {
        self.conn.handle_datagram(now, &mut datagram, &mut self.sink);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.next_timeout().is_some_and(|at| at <= now) {
            self.conn.handle_timeout(now, &mut self.sink);
            let next = self.next_timeout();
            assert!(next.is_none_or(|next| next > now), "a timer that does not move");
        }
    }

    /// Sends a message that bears its mark; `length` is rounded up to whole marks.
    pub(super) fn send(&mut self, length: usize) {
        let message = self.born.to_be_bytes().repeat(length.div_ceil(4).max(1));
        if let Ok(sequence) = self.conn.send(&message, &mut self.sink) {
            self.sent.push((sequence, message));
        }
    }

    pub(super) fn has_sent(&self, sequence: u64, message: &[u8]) -> bool {
        self.sent.iter().any(|(s, m)| *s == sequence && m == message)
    }

    pub(super) fn close(&mut self) {
        self.conn.close(CloseReason::Local, &mut self.sink);
    }

    pub(super) fn take_datagrams(&mut self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some((transmit, bytes)) = self.sink.outbox.front() {
            let size = transmit.segment_size.unwrap_or(bytes.len());
            all.extend(bytes.chunks(size).map(<[u8]>::to_vec));
            self.sink.outbox.pop();
        }
        all
    }

    pub(super) fn take_events(&mut self) {
        while let Some((_, event)) = self.sink.poll_event() {
            match event {
                Event::Established(established) => {
                    self.agreed = Some(exported(&established));
                    (self.resumed, self.session) = (established.resumed, established.session);
                }
                Event::Message { data, .. } => {
                    assert!(self.agreed.is_some(), "a message before the handshake is over");
                    assert!(data.iter().all(|b| *b == 0xee), "the server did not send this");
                    self.heard += 1;
                }
                Event::PathChanged { .. } => panic!("the server does not move"),
                Event::Closed(_) => {}
            }
        }
    }
}
