//! The runner's framing: one TCP connection carries datagrams, and the clock.

use std::io::{self, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpStream};
use std::time::Duration;

/// The longest datagram taken from the runner, in bytes; it has tests with records of more than
/// the 16 KiB that are allowed.
const DATAGRAM_BYTES_MAX: usize = 1 << 20;

/// What the runner sends.
#[derive(Debug)]
pub(crate) enum Frame {
    /// A datagram from the peer.
    Packet(Vec<u8>),
    /// So much time passes.
    Advance(Duration),
    /// Datagrams may have so many bytes from here on.
    Mtu(usize),
    /// The next timer must be due after so long; `None`: there must be no timer.
    ExpectTimeout(Option<Duration>),
    /// Flights are sent again after another time, from here on.
    FirstResend(Duration),
}

/// Our end of the connection with the runner.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: BufReader<TcpStream>,
}

impl Wire {
    /// Connects to the runner on loopback and says which of its shims we are.
    pub(crate) fn connect(port: u16, ipv6: bool, shim_id: u64) -> io::Result<Self> {
        let ip = if ipv6 { IpAddr::from(Ipv6Addr::LOCALHOST) } else { Ipv4Addr::LOCALHOST.into() };
        let mut stream = TcpStream::connect((ip, port))?;
        stream.set_nodelay(true)?;
        stream.write_all(&shim_id.to_le_bytes())?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The runner's end of such a connection, for tests.
    #[cfg(test)]
    pub(crate) fn accepted(mut stream: TcpStream) -> io::Result<Self> {
        stream.read_exact(&mut [0; 8])?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The next frame; `None` once the runner has hung up.
    pub(crate) fn read(&mut self) -> io::Result<Option<Frame>> {
        let mut opcode = [0];
        match self.stream.read_exact(&mut opcode) {
            Ok(()) => {}
            Err(error) if is_hang_up(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
        Ok(Some(match &opcode {
            b"P" => {
                let length = self.u32()? as usize;
                if length > DATAGRAM_BYTES_MAX {
                    return Err(invalid(format!("a datagram of {length} bytes")));
                }
                let mut datagram = vec![0; length];
                self.stream.read_exact(&mut datagram)?;
                Frame::Packet(datagram)
            }
            b"T" => Frame::Advance(Duration::from_nanos(self.u64()?)),
            b"M" => Frame::Mtu(self.u32()? as usize),
            b"E" => {
                let nanos = self.u64()?;
                Frame::ExpectTimeout((nanos != u64::MAX).then(|| Duration::from_nanos(nanos)))
            }
            b"U" => Frame::FirstResend(Duration::from_millis(self.u32()?.into())),
            [other] => return Err(invalid(format!("an unknown frame {other:#04x}"))),
        }))
    }

    /// Sends a datagram to the peer. A runner that has hung up is no error: it may have seen all
    /// that it wanted.
    pub(crate) fn packet(&mut self, datagram: &[u8]) -> io::Result<()> {
        let length = u32::try_from(datagram.len()).map_err(|e| invalid(e.to_string()))?;
        let frame = [b"P", &length.to_be_bytes()[..], datagram].concat();
        self.send(&frame)
    }

    /// Tells the runner that time is about to pass: what follows is caused by it.
    pub(crate) fn acknowledge_advance(&mut self) -> io::Result<()> {
        self.send(b"t")
    }

    /// Hangs up so that nothing sent is lost: waits until the runner has hung up too.
    pub(crate) fn hang_up(mut self) {
        if self.stream.get_ref().shutdown(Shutdown::Write).is_ok() {
            // Whatever comes is of no interest, and neither is how it ends.
            let _ = io::copy(&mut self.stream, &mut io::sink());
        }
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        match self.stream.get_mut().write_all(frame) {
            Err(error) if is_hang_up(&error) => Ok(()),
            result => result,
        }
    }

    fn u32(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.stream.read_exact(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn u64(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.stream.read_exact(&mut bytes)?;
        Ok(u64::from_be_bytes(bytes))
    }
}

fn is_hang_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};

    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the runner sent {what}"))
}
