//! One connection: the engine between the runner's frames, on the runner's clock.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtls_channel::{
    AlertDescription, CloseReason, Config, ConnectError, Drops, Established, Event, SendError,
    Session,
};

use crate::engine::Engine;
use crate::frames::{Frame, Wire};
use crate::options::{Options, Settings};

/// What a server sends first if told to.
const GREETING: &[u8] = b"hello";
/// Added to the clock for each datagram once the handshake is complete: the engine repeats its last flight at
/// a limited rate, the runner asks for it in no time.
const BETWEEN_DATAGRAMS: Duration = Duration::from_millis(50);

/// Why a connection failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The engine ended the association.
    #[error("{0}")]
    Closed(CloseReason),
    /// The runner hung up before the handshake was complete.
    #[error("the runner hung up during the handshake; dropped so far: {0:?}")]
    HungUp(Box<Drops>),
    /// What was negotiated is not what the test expects.
    #[error("unexpected: {0}")]
    Unexpected(String),
    /// The test is about what the peer makes of our alert.
    #[error("ended by an alert, as told")]
    AlertSent,
    #[error(transparent)]
    Send(#[from] SendError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the connection with the runner: {0}")]
    Io(#[from] io::Error),
}

struct Exchange<'a> {
    settings: &'a Settings,
    wire: Wire,
    engine: Engine,
    now: Instant,
    open: bool,
    /// Whether a session is to be resumed.
    resumes: bool,
    /// What the server gave us.
    session: Option<Session>,
}

/// Connects to the runner, shakes hands, and echoes until the runner has had enough. Returns the
/// session for the next connection, if there is a new one.
pub(crate) fn run(
    options: &Options,
    settings: &Settings,
    config: Arc<Config>,
    session: Option<Session>,
    resumes: bool,
) -> Result<Option<Session>, ExchangeError> {
    let wire = Wire::connect(options.port, options.ipv6, options.shim_id)?;
    let now = Instant::now();
    // Addresses mean nothing here: there is one peer, behind one stream.
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
    let begin = if options.endpoint { Engine::behind_endpoint } else { Engine::alone };
    let engine = begin(now, peer, settings.server, config, session)?;
    let session = None;
    let mut exchange = Exchange { settings, wire, engine, now, open: false, resumes, session };
    let outcome = exchange.run();
    let flushed = exchange.flush();
    exchange.wire.hang_up();
    outcome.and(flushed)?;
    Ok(exchange.session)
}

impl Exchange<'_> {
    fn run(&mut self) -> Result<(), ExchangeError> {
        loop {
            if self.take_events()? {
                return Ok(());
            }
            self.flush()?;
            let Some(frame) = self.wire.read()? else {
                return if self.open { Ok(()) } else { self.hung_up() };
            };
            match frame {
                Frame::Packet(mut datagram) => {
                    if self.open {
                        self.now += BETWEEN_DATAGRAMS;
                    }
                    self.engine.handle_datagram(self.now, &mut datagram);
                    self.handle_timeouts();
                }
                Frame::Advance(time) => {
                    self.wire.acknowledge_advance()?;
                    self.now += time;
                    self.handle_timeouts();
                }
                Frame::ExpectTimeout(expected) => self.check_timeout(expected)?,
                Frame::Mtu(bytes) => self.engine.set_path_mtu(bytes),
                Frame::FirstResend(first) => self.engine.set_first_resend(first),
            }
        }
    }

    fn hung_up(&self) -> Result<(), ExchangeError> {
        Err(ExchangeError::HungUp(Box::new(self.engine.drops())))
    }

    fn handle_timeouts(&mut self) {
        while self.engine.next_timeout().is_some_and(|at| at <= self.now) {
            self.engine.handle_timeout(self.now);
        }
    }

    fn check_timeout(&self, expected: Option<Duration>) -> Result<(), ExchangeError> {
        let left = self.engine.next_timeout().map(|at| at.saturating_duration_since(self.now));
        if left == expected {
            return Ok(());
        }
        Err(ExchangeError::Unexpected(format!("next timer after {left:?}, not {expected:?}")))
    }

    /// Handles what the engine reports; true once the association has ended well.
    fn take_events(&mut self) -> Result<bool, ExchangeError> {
        while let Some(event) = self.engine.poll_event() {
            match event {
                Event::Established(established) => {
                    self.open = true;
                    self.check(&established)?;
                    self.send_first(&established)?;
                    if self.settings.sends_alert {
                        self.engine.close_with_alert(AlertDescription::DECOMPRESSION_FAILURE);
                        return Err(ExchangeError::AlertSent);
                    }
                    self.session = established.session;
                }
                Event::Message { data, .. } => {
                    let echo: Vec<u8> = data.iter().map(|byte| byte ^ 0xff).collect();
                    self.engine.send(&echo)?;
                }
                Event::Closed(CloseReason::CloseNotify) if self.open => return Ok(true),
                Event::Closed(reason) => return Err(ExchangeError::Closed(reason)),
                other => return Err(ExchangeError::Unexpected(format!("{other:?}"))),
            }
        }
        Ok(false)
    }

    fn check(&self, established: &Established) -> Result<(), ExchangeError> {
        let fail = |what: &str| Err(ExchangeError::Unexpected(what.into()));
        let has_certificate = established.peer_fingerprint.is_some();
        if self.settings.expect_no_peer_certificate && has_certificate {
            return fail("the peer presented a certificate");
        }
        if established.incoming != self.settings.server {
            return fail("the role");
        }
        if established.resumed != self.resumes {
            return fail(if self.resumes { "no session resumed" } else { "a session resumed" });
        }
        let renewed = established.session.is_some();
        if established.resumed && renewed != self.settings.expect_ticket_renewal {
            return fail(if renewed { "a new ticket" } else { "no new ticket" });
        }
        Ok(())
    }

    fn send_first(&mut self, established: &Established) -> Result<(), ExchangeError> {
        if let Some(export) = &self.settings.export {
            let mut key = vec![0; export.length];
            let exporter = &established.exporter;
            if export.use_context {
                exporter.export(&export.label, export.context.as_bytes(), &mut key);
            } else {
                exporter.export_without_context(&export.label, &mut key);
            }
            self.engine.send(&key)?;
        }
        if self.settings.writes_first {
            self.engine.send(GREETING)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ExchangeError> {
        let outbox = self.engine.outbox();
        while let Some((transmit, bytes)) = outbox.front() {
            let size = transmit.segment_size.unwrap_or(bytes.len());
            for datagram in bytes.chunks(size) {
                self.wire.packet(datagram)?;
            }
            outbox.pop();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity;
    use dtls_channel::TicketKeys;
    use std::net::TcpListener;

    fn options(line: &str) -> Options {
        Options::parse(line.split(' ').map(str::to_owned).collect()).unwrap()
    }

    /// Runs the shim as a client, with an engine in the runner's place that sends one message.
    fn against_a_server(flags: &str) -> (Vec<Vec<u8>>, Result<(), ExchangeError>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = options(&format!("-dtls -port {port} -shim-id 7 {flags}"));
        let shim = std::thread::spawn(move || {
            let settings = client.settings(0);
            let keys = Arc::new(TicketKeys::random().unwrap());
            let config = identity::config(settings, &keys, None).unwrap();
            run(&client, settings, config, None, false).map(drop)
        });
        let (stream, _) = listener.accept().unwrap();
        let mut wire = Wire::accepted(stream).unwrap();
        let server = options("-dtls -server");
        let keys = Arc::new(TicketKeys::random().unwrap());
        let config = identity::config(server.settings(0), &keys, None).unwrap();
        let (now, peer) = (Instant::now(), SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
        let mut engine = Engine::alone(now, peer, true, config, None).unwrap();
        let mut heard = Vec::new();
        'talk: loop {
            while let Some((_, datagram)) = engine.outbox().front() {
                wire.packet(datagram).unwrap();
                engine.outbox().pop();
            }
            match wire.read().unwrap() {
                Some(Frame::Packet(mut datagram)) => engine.handle_datagram(now, &mut datagram),
                None => break,
                Some(other) => panic!("{other:?}"),
            }
            while let Some(event) = engine.poll_event() {
                match event {
                    Event::Established(_) => drop(engine.send(&[0x0f, 0xff]).unwrap()),
                    Event::Message { data, .. } => {
                        heard.push(data.to_vec());
                        if *data == [0xf0, 0] {
                            break 'talk;
                        }
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        wire.hang_up();
        (heard, shim.join().unwrap())
    }

    #[test]
    fn the_shim_shakes_hands_and_echoes_until_the_runner_hangs_up() {
        let (heard, outcome) = against_a_server("-shim-writes-first");
        outcome.unwrap();
        assert_eq!(heard, [GREETING.to_vec(), vec![0xf0, 0]]);
    }

    #[test]
    fn a_peer_that_is_to_be_refused_ends_the_connection_with_the_reason() {
        let (heard, outcome) = against_a_server("-verify-peer -verify-fail");
        assert!(heard.is_empty());
        assert!(outcome.unwrap_err().to_string().contains("peer refused"));
    }
}
