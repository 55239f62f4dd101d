//! A peer that can do a whole handshake, and anything else in its place.

use std::collections::VecDeque;

use super::forge::{AnswerFields, DTLS_1_2, HelloFields, Piece, record, records};
use crate::crypto::{
    CipherSuite, Credentials, Group, KeyShare, MasterSecret, Randoms, TrafficKey, random,
};
use crate::handshake::messages::{
    Certificate, CertificateRequest, ClientHello, ClientKeyExchange, HelloVerifyRequest,
    ServerHello, ServerKeyExchange, Signed,
};
use crate::wire::HandshakeType;

/// A client or server that says exactly what a test makes it say, with the keys to seal it.
///
/// It hears whole messages only, never repeats itself, and checks nothing. A faultless handshake
/// is: as client, [`hello`](Self::hello), again with the cookie heard, then
/// [`certificate`](Self::certificate), [`key_exchange`](Self::key_exchange),
/// [`proof`](Self::proof), [`finished`](Self::finished); as server the
/// [`flight`](Self::flight) and [`finished`](Self::finished). Each is said with
/// [`say`](Self::say), which keeps the transcript, and may be bent before.
pub struct Rogue {
    credentials: Credentials,
    is_client: bool,
    /// What the server agrees to.
    pub suite: CipherSuite,
    /// The group of the server's share.
    pub group: Group,
    /// Our random, as client or server.
    pub random: [u8; 32],
    /// The cookie that was heard last.
    pub cookie: Vec<u8>,
    /// The number of the next message said.
    pub message_seq: u16,
    /// The number of the next unprotected record.
    pub record_sequence: u64,
    /// The number of the next sealed record.
    pub sealed_sequence: u64,
    /// Every message so far, as both sides should see it.
    pub transcript: Vec<u8>,
    peer_random: [u8; 32],
    share: Option<KeyShare>,
    public: Vec<u8>,
    peer_point: Vec<u8>,
    keys: Option<Keys>,
}

struct Keys {
    master: MasterSecret,
    ours: TrafficKey,
    theirs: TrafficKey,
}

/// What was in a record that a [`Rogue`] heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Content type of the record.
    pub content_type: u8,
    /// True if it was sealed.
    pub sealed: bool,
    /// For a handshake message its type, else 0.
    pub message: u8,
    /// The message's or record's content.
    pub body: Vec<u8>,
}

#[expect(clippy::expect_used, reason = "for tests, which fail by panicking")]
impl Rogue {
    /// One that connects.
    ///
    /// # Panics
    /// If the system has no randomness.
    #[must_use]
    pub fn client(credentials: Credentials) -> Self {
        Self::new(credentials, true)
    }

    /// One that is connected to.
    ///
    /// # Panics
    /// If the system has no randomness.
    #[must_use]
    pub fn server(credentials: Credentials) -> Self {
        Self::new(credentials, false)
    }

    fn new(credentials: Credentials, is_client: bool) -> Self {
        Self {
            credentials,
            is_client,
            suite: CipherSuite::Aes128GcmSha256,
            group: Group::P256,
            random: random().expect("randomness"),
            cookie: Vec::new(),
            message_seq: 0,
            record_sequence: 0,
            sealed_sequence: 0,
            transcript: Vec::new(),
            peer_random: [0; 32],
            share: None,
            public: Vec::new(),
            peer_point: Vec::new(),
            keys: None,
        }
    }

    /// The client's hello, with all that our profile offers and the cookie heard last.
    #[must_use]
    pub fn hello(&self) -> HelloFields {
        let list = |values: &[u16]| {
            let mut out = (2 * values.len() as u16).to_be_bytes().to_vec();
            out.extend(values.iter().flat_map(|v| v.to_be_bytes()));
            out
        };
        HelloFields {
            version: DTLS_1_2,
            random: self.random,
            session_id: Vec::new(),
            cookie: self.cookie.clone(),
            suites: CipherSuite::ALL.map(CipherSuite::iana).to_vec(),
            compressions: vec![0],
            extensions: vec![
                (23, vec![]),
                (0xff01, vec![0]),
                (10, list(&Group::ALL.map(|g| g.wire().0))),
                (11, vec![1, 0]),
                (13, list(&[0x0403, 0x0503, 0x0807])),
            ],
        }
    }

    /// The server's faultless flight: types and bodies from ServerHello to ServerHelloDone.
    ///
    /// # Panics
    /// If the system has no randomness.
    pub fn flight(&mut self) -> Vec<(u8, Vec<u8>)> {
        let exchange = self.server_key_exchange(None);
        let mut request = Vec::new();
        CertificateRequest::write(&mut request);
        vec![
            (2, self.answer().body()),
            (11, self.certificate()),
            (12, exchange),
            (13, request),
            (14, vec![]),
        ]
    }

    /// The server's hello.
    #[must_use]
    pub fn answer(&self) -> AnswerFields {
        AnswerFields {
            version: DTLS_1_2,
            random: self.random,
            session_id: Vec::new(),
            suite: self.suite.iana(),
            compression: 0,
            extensions: vec![(23, vec![]), (0xff01, vec![0]), (11, vec![1, 0])],
        }
    }

    /// The server's share, or another point, signed over both randoms.
    ///
    /// # Panics
    /// If the system has no randomness.
    pub fn server_key_exchange(&mut self, point: Option<&[u8]>) -> Vec<u8> {
        self.make_share();
        let point = point.unwrap_or(&self.public).to_vec();
        let mut body = Vec::new();
        ServerKeyExchange::write_parameters(self.group.wire(), &point, &mut body);
        let content = [&self.peer_random[..], &self.random, &body].concat();
        self.sign_into(&content, &mut body);
        body
    }

    /// Signs `content` and appends scheme and signature to `out`.
    ///
    /// # Panics
    /// If the system has no randomness.
    pub fn sign_into(&self, content: &[u8], out: &mut Vec<u8>) {
        let signer = self.credentials.signer();
        let signature = signer.sign(content).expect("randomness");
        Signed { scheme: signer.scheme(), signature: &signature }.write(out);
    }

    /// Our Certificate.
    #[must_use]
    pub fn certificate(&self) -> Vec<u8> {
        let mut out = Vec::new();
        Certificate { leaf: Some(self.credentials.certificate()) }.write(&mut out);
        out
    }

    /// The client's share, in the group that the server chose.
    ///
    /// # Panics
    /// If the system has no randomness.
    pub fn key_exchange(&mut self) -> Vec<u8> {
        self.make_share();
        let mut out = Vec::new();
        ClientKeyExchange { point: &self.public }.write(&mut out);
        out
    }

    /// The client's CertificateVerify over what was said and heard so far.
    ///
    /// # Panics
    /// If the system has no randomness.
    #[must_use]
    pub fn proof(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.sign_into(&self.transcript, &mut out);
        out
    }

    /// Our Finished over what was said and heard so far.
    ///
    /// # Panics
    /// Without keys, which the key exchange makes.
    #[must_use]
    pub fn finished(&self) -> Vec<u8> {
        let keys = self.keys.as_ref().expect("keys");
        keys.master.verify_data(self.is_client, &self.transcript).to_vec()
    }

    /// Says a message: gives it our next number and adds it to the transcript. A hello begins the
    /// transcript anew; a key exchange makes the keys.
    pub fn say(&mut self, kind: u8, body: &[u8]) -> Vec<u8> {
        if kind == HandshakeType::CLIENT_HELLO.0 {
            self.transcript.clear();
        }
        let message = Piece::whole(kind, self.message_seq, body).bytes();
        self.message_seq += 1;
        self.transcript.extend(&message);
        if kind == HandshakeType::CLIENT_KEY_EXCHANGE.0 {
            self.derive();
        }
        message
    }

    /// Says a message in an unprotected record of its own.
    pub fn say_plain(&mut self, kind: u8, body: &[u8]) -> Vec<u8> {
        let message = self.say(kind, body);
        self.plain(22, &message)
    }

    /// Says a message in a sealed record of its own.
    pub fn say_sealed(&mut self, kind: u8, body: &[u8]) -> Vec<u8> {
        let message = self.say(kind, body);
        self.seal(22, &message)
    }

    /// The next unprotected record.
    pub fn plain(&mut self, content_type: u8, body: &[u8]) -> Vec<u8> {
        self.record_sequence += 1;
        record(content_type, 0, self.record_sequence - 1, body)
    }

    /// The next sealed record.
    ///
    /// # Panics
    /// Without keys.
    pub fn seal(&mut self, content_type: u8, content: &[u8]) -> Vec<u8> {
        self.sealed_sequence += 1;
        self.seal_as(content_type, 1, self.sealed_sequence - 1, content)
    }

    /// A record that is sealed for any epoch and number.
    ///
    /// # Panics
    /// Without keys.
    #[must_use]
    pub fn seal_as(&self, content_type: u8, epoch: u16, sequence: u64, content: &[u8]) -> Vec<u8> {
        let keys = self.keys.as_ref().expect("keys");
        let number = u64::from(epoch) << 48 | sequence;
        let mut body = Vec::new();
        let aad = additional_data(number, content_type, content.len() as u16);
        keys.ours.seal(number, aad, content, &[], &mut body);
        record(content_type, epoch, sequence, &body)
    }

    /// Takes in a datagram of the peer's: learns what it needs, keeps the transcript, opens what is
    /// sealed. What does not open is reported as sealed, with its bytes as they came.
    pub fn hear(&mut self, datagram: &[u8]) -> Vec<Heard> {
        let mut heard = Vec::new();
        let mut waiting: VecDeque<_> = records(datagram).into();
        while let Some(mut seen) = waiting.pop_front() {
            let (content_type, sealed) = (seen.content_type, seen.epoch > 0);
            let mut body = seen.body.clone();
            if sealed && let Some(keys) = &self.keys {
                let number = u64::from(seen.epoch) << 48 | seen.sequence;
                let aad = |length| additional_data(number, content_type, length);
                if let Some(content) = keys.theirs.open(number, aad, &mut seen.body) {
                    body = content.to_vec();
                }
            }
            if content_type != 22 {
                heard.push(Heard { content_type, sealed, message: 0, body });
                continue;
            }
            let mut rest = &body[..];
            while rest.len() >= 12 {
                let length = usize::from(rest[2]) << 8 | usize::from(rest[3]);
                let (message, behind) = rest.split_at(rest.len().min(12 + length));
                rest = behind;
                self.learn(message);
                let body = message[12..].to_vec();
                heard.push(Heard { content_type, sealed, message: message[0], body });
            }
        }
        heard
    }

    fn learn(&mut self, message: &[u8]) {
        let body = &message[12..];
        match HandshakeType(message[0]) {
            HandshakeType::HELLO_VERIFY_REQUEST => {
                if let Ok(request) = HelloVerifyRequest::read(body) {
                    self.cookie = request.cookie.to_vec();
                }
                return;
            }
            HandshakeType::CLIENT_HELLO => {
                self.transcript.clear();
                if let Ok(hello) = ClientHello::read(body) {
                    self.peer_random = hello.random;
                }
            }
            HandshakeType::SERVER_HELLO => {
                if let Ok(hello) = ServerHello::read(body) {
                    self.peer_random = hello.random;
                    self.suite = CipherSuite::from_iana(hello.suite).unwrap_or(self.suite);
                }
            }
            HandshakeType::SERVER_KEY_EXCHANGE => {
                if let Ok(exchange) = ServerKeyExchange::read(body) {
                    self.group = Group::from_wire(exchange.group).unwrap_or(self.group);
                    self.peer_point = exchange.point.to_vec();
                }
            }
            HandshakeType::CLIENT_KEY_EXCHANGE => {
                if let Ok(exchange) = ClientKeyExchange::read(body) {
                    self.peer_point = exchange.point.to_vec();
                    self.transcript.extend(message);
                    self.derive();
                    return;
                }
            }
            _ => {}
        }
        self.transcript.extend(message);
    }

    fn make_share(&mut self) {
        let share = KeyShare::generate(self.group).expect("randomness");
        self.public = share.public().to_vec();
        self.share = Some(share);
    }

    /// Keys from the transcript so far, by the extended master secret.
    fn derive(&mut self) {
        let Some(premaster) = self.share.take().and_then(|share| share.agree(&self.peer_point))
        else {
            return;
        };
        let master = MasterSecret::extended(self.suite, &premaster, &self.transcript);
        let (client, server) = if self.is_client {
            (self.random, self.peer_random)
        } else {
            (self.peer_random, self.random)
        };
        let (client, server) = master.traffic_keys(&Randoms { client, server });
        let (ours, theirs) = if self.is_client { (client, server) } else { (server, client) };
        self.keys = Some(Keys { master, ours, theirs });
    }
}

fn additional_data(number: u64, content_type: u8, length: u16) -> [u8; 13] {
    let mut aad = [0; 13];
    aad[..8].copy_from_slice(&number.to_be_bytes());
    aad[8] = content_type;
    aad[9..11].copy_from_slice(&DTLS_1_2.to_be_bytes());
    aad[11..].copy_from_slice(&length.to_be_bytes());
    aad
}

impl std::fmt::Debug for Rogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rogue").field("is_client", &self.is_client).finish_non_exhaustive()
    }
}
