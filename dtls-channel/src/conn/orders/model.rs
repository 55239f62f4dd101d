//! What the engine must do with a record, said a second time and without any bytes: a state is the
//! number of messages that have come, a message its type and number.

use std::collections::BTreeMap;

use super::Symbol;
use crate::conn::open::FATAL;
use crate::stats::DropCause;
use crate::wire::{AlertDescription, HandshakeType};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Role {
    Client,
    Server,
}

#[derive(Debug, Clone)]
pub(super) struct Model {
    role: Role,
    /// What has to come, Finished last and alone protected.
    order: &'static [HandshakeType],
    /// How many of `order` have come.
    stage: usize,
    is_closed: bool,
    /// The number of the first message that has to come.
    first_number: u16,
    /// The number of the message that is due.
    next: u16,
    /// What has come is not what the genuine peer has said, so its Finished does not fit.
    has_diverged: bool,
    /// Messages that came ahead of their turn, by number.
    ahead: BTreeMap<u16, HandshakeType>,
    /// Protected records that came ahead of the keys.
    early: Vec<(Symbol, u16, bool)>,
    early_data: u32,
    delivered: u32,
    /// A client's hellos so far, and whether the last had a cookie.
    hellos: u16,
    has_cookie: bool,
}

impl Model {
    /// A client for which `stage` messages of the server have come, the first with `first_number`.
    pub(super) fn client(
        order: &'static [HandshakeType],
        stage: usize,
        first_number: u16,
        has_cookie: bool,
    ) -> Self {
        let hellos = 1 + u16::from(has_cookie);
        let this = Self::server(order, stage, first_number);
        Self { role: Role::Client, hellos, has_cookie, ..this }
    }

    /// A server for which `stage` messages of the client have come, the first with `first_number`.
    pub(super) fn server(order: &'static [HandshakeType], stage: usize, first_number: u16) -> Self {
        Self {
            role: Role::Server,
            order,
            stage,
            is_closed: false,
            first_number,
            next: first_number + stage as u16,
            has_diverged: false,
            ahead: BTreeMap::new(),
            early: Vec::new(),
            early_data: 0,
            delivered: 0,
            hellos: 0,
            has_cookie: false,
        }
    }

    pub(super) fn next(&self) -> u16 {
        self.next
    }

    pub(super) fn is_client(&self) -> bool {
        self.role == Role::Client
    }

    /// From here on the peer knows what has come.
    pub(super) fn set_converged(&mut self) {
        self.has_diverged = false;
    }

    pub(super) fn delivered(&self) -> u32 {
        self.delivered
    }

    pub(super) fn is_open(&self) -> bool {
        !self.is_closed && self.stage == self.order.len()
    }

    /// The messages that are still to come.
    pub(super) fn missing(&self) -> &'static [HandshakeType] {
        &self.order[self.stage..]
    }

    /// True while only protected messages count, and Finished is awaited.
    pub(super) fn has_fresh_keys(&self) -> bool {
        !self.is_closed && self.missing().len() == 1
    }

    pub(super) fn state(&self) -> &'static str {
        match self.order.get(self.stage) {
            _ if self.is_closed => "Closed",
            None => "Open",
            Some(&HandshakeType::CLIENT_HELLO) => "ClientHello",
            Some(&HandshakeType::SERVER_HELLO) => "ServerHello",
            Some(&HandshakeType::CERTIFICATE) => "Certificate",
            Some(&HandshakeType::SERVER_KEY_EXCHANGE) => "ServerKeyExchange",
            Some(&HandshakeType::CERTIFICATE_REQUEST) => "CertificateRequest",
            Some(&HandshakeType::SERVER_HELLO_DONE) => "ServerHelloDone",
            Some(&HandshakeType::CLIENT_KEY_EXCHANGE) => "ClientKeyExchange",
            Some(&HandshakeType::CERTIFICATE_VERIFY) => "CertificateVerify",
            Some(&HandshakeType::NEW_SESSION_TICKET) => "NewSessionTicket",
            Some(&HandshakeType::FINISHED) => "Finished",
            Some(other) => panic!("{other:?} has no state"),
        }
    }

    /// Takes a record; `authentic` if its sender has the keys. Says what must be counted.
    pub(super) fn feed(&mut self, symbol: Symbol, number: u16, authentic: bool) -> Vec<DropCause> {
        if self.is_closed {
            return vec![DropCause::Closed];
        }
        if symbol == Symbol::DataOfNextEpoch {
            return vec![DropCause::WrongEpoch];
        }
        if self.is_open() {
            return self.feed_open(symbol, authentic).into_iter().collect();
        }
        let keys = self.has_fresh_keys();
        match symbol {
            s if s.is_sealed() && !keys => {
                self.early.push((symbol, number, authentic));
                vec![]
            }
            s if s.is_sealed() => self.feed_sealed(symbol, number, authentic),
            Symbol::Handshake { .. } if keys && number >= self.next => vec![DropCause::Unprotected],
            Symbol::Handshake { kind, .. } => self.message(kind, number),
            // In a full handshake the client has changed its keys by now.
            Symbol::Alert { .. }
                if keys && self.order.contains(&HandshakeType::CERTIFICATE_VERIFY) =>
            {
                vec![DropCause::Unprotected]
            }
            // Anybody can say that.
            Symbol::Alert { .. } | Symbol::ChangeCipherSpec { .. } => vec![],
            _ => vec![DropCause::UnexpectedRecord],
        }
    }

    fn feed_open(&mut self, symbol: Symbol, authentic: bool) -> Option<DropCause> {
        match symbol {
            s if !s.is_sealed() => Some(DropCause::Unprotected),
            s if !authentic || s == Symbol::ForgedData => Some(DropCause::BadTag),
            Symbol::Data { .. } => {
                self.delivered += 1;
                None
            }
            Symbol::Alert { level, what, .. } => {
                self.is_closed = level == FATAL || what == AlertDescription::CLOSE_NOTIFY;
                None
            }
            // A repetition, and what asks for a renegotiation.
            Symbol::Handshake {
                kind:
                    HandshakeType::FINISHED | HandshakeType::CLIENT_HELLO | HandshakeType::HELLO_REQUEST,
                ..
            } => None,
            Symbol::Handshake { .. } => Some(DropCause::StaleMessage),
            _ => Some(DropCause::UnexpectedRecord),
        }
    }

    fn feed_sealed(&mut self, symbol: Symbol, number: u16, authentic: bool) -> Vec<DropCause> {
        match symbol {
            s if !authentic || s == Symbol::ForgedData => vec![DropCause::BadTag],
            Symbol::Handshake { kind, .. } => self.message(kind, number),
            Symbol::Data { .. } => {
                self.early_data += 1;
                vec![]
            }
            Symbol::Alert { level, what, .. } => {
                self.is_closed = level == FATAL || what == AlertDescription::CLOSE_NOTIFY;
                vec![]
            }
            _ => vec![DropCause::UnexpectedRecord],
        }
    }

    fn message(&mut self, kind: HandshakeType, number: u16) -> Vec<DropCause> {
        let begins =
            matches!(kind, HandshakeType::SERVER_HELLO | HandshakeType::HELLO_VERIFY_REQUEST);
        if self.role == Role::Client && self.stage == 0 && begins && number <= self.hellos {
            self.next = number;
            self.ahead.retain(|n, _| *n >= number);
        }
        if number < self.next {
            return vec![];
        }
        match self.ahead.get(&number) {
            Some(there) if *there != kind => {
                self.ahead.remove(&number);
                return vec![DropCause::BadFragment];
            }
            _ => self.ahead.insert(number, kind),
        };
        let mut drops = Vec::new();
        while let Some(kind) = self.ahead.remove(&self.next) {
            self.next += 1;
            self.step(kind, &mut drops);
            if self.is_closed || self.is_open() {
                break;
            }
        }
        drops
    }

    fn step(&mut self, kind: HandshakeType, drops: &mut Vec<DropCause>) {
        let due = self.order[self.stage];
        let is_client = self.role == Role::Client;
        match kind {
            HandshakeType::FINISHED if kind == due && self.has_diverged => self.is_closed = true,
            _ if kind == due => {
                self.has_diverged |= kind != HandshakeType::FINISHED
                    && self.next != self.first_number + self.stage as u16 + 1;
                self.stage += 1;
            }
            HandshakeType::HELLO_REQUEST if is_client && self.has_fresh_keys() => {}
            HandshakeType::HELLO_VERIFY_REQUEST if due == HandshakeType::SERVER_HELLO => {
                // Only what answers the newest hello, with something new.
                if !self.has_cookie && self.next >= self.hellos {
                    self.has_cookie = true;
                    self.hellos += 1;
                    // The server's messages answer the hello before.
                    self.has_diverged = true;
                }
            }
            // A server that does not ask for our certificate.
            HandshakeType::SERVER_HELLO_DONE if due == HandshakeType::CERTIFICATE_REQUEST => {
                self.is_closed = true;
            }
            _ if self.has_fresh_keys() => self.is_closed = true,
            _ => {
                drops.push(DropCause::UnexpectedMessage);
                self.next -= 1;
            }
        }
        if self.is_closed {
            return;
        }
        if self.is_open() {
            self.delivered += std::mem::take(&mut self.early_data);
        } else if self.has_fresh_keys() {
            if kind == due {
                // Nothing that anybody could have said counts from here on.
                self.ahead.clear();
            }
            for (symbol, number, authentic) in std::mem::take(&mut self.early) {
                drops.extend(self.feed_sealed(symbol, number, authentic));
                if self.is_closed || self.is_open() {
                    return;
                }
            }
        }
    }
}

impl Symbol {
    pub(super) fn is_sealed(self) -> bool {
        match self {
            Self::Handshake { sealed, .. }
            | Self::ChangeCipherSpec { sealed }
            | Self::Alert { sealed, .. }
            | Self::Data { sealed } => sealed,
            Self::DataOfNextEpoch | Self::ForgedData => true,
        }
    }
}
