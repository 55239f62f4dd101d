//! As much of MQTT 3.1.1 as a push takes: one connection that subscribes or publishes with QoS 1.

use anyhow::{Context as _, bail, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tls;

/// Longer packets are not ours.
const PACKET_BYTES_MAX: usize = 64 << 20;

/// A connection to a broker.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    buffer: BytesMut,
    last_id: u16,
}

/// What a broker says, as far as we ask for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    Connected,
    Subscribed,
    Acknowledged(u16),
    Published { id: u16, payload: Bytes },
}

impl Connection {
    /// Connects with a clean session and without keep-alive.
    pub(crate) async fn open(tls: &TlsConnector, port: u16, name: &str) -> anyhow::Result<Self> {
        let stream = tls::connect(tls, port).await?;
        let mut connection = Self { stream, buffer: BytesMut::new(), last_id: 0 };
        let mut body = BytesMut::new();
        put_text(&mut body, "MQTT");
        body.put_slice(&[4, 0b10, 0, 0]);
        put_text(&mut body, name);
        connection.send(0x10, &body).await?;
        match connection.next().await? {
            Packet::Connected => Ok(connection),
            other => bail!("{other:?} in place of CONNACK"),
        }
    }

    /// Subscribes to a topic with QoS 1.
    pub(crate) async fn subscribe(&mut self, topic: &str) -> anyhow::Result<()> {
        let mut body = BytesMut::new();
        body.put_u16(self.next_id());
        put_text(&mut body, topic);
        body.put_u8(1);
        self.send(0x82, &body).await?;
        match self.next().await? {
            Packet::Subscribed => Ok(()),
            other => bail!("{other:?} in place of SUBACK"),
        }
    }

    /// Publishes with QoS 1, retained; its id comes back as [`Packet::Acknowledged`].
    pub(crate) async fn publish(&mut self, topic: &str, payload: &[u8]) -> anyhow::Result<u16> {
        let id = self.next_id();
        let mut body = BytesMut::with_capacity(payload.len() + topic.len() + 4);
        put_text(&mut body, topic);
        body.put_u16(id);
        body.put_slice(payload);
        self.send(0x33, &body).await?;
        Ok(id)
    }

    /// Tells the broker that a message is durable here.
    pub(crate) async fn acknowledge(&mut self, id: u16) -> anyhow::Result<()> {
        self.send(0x40, &id.to_be_bytes()).await
    }

    /// Waits for the next packet. May be dropped while waiting.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Packet> {
        loop {
            if let Some((first, body)) = take(&mut self.buffer)? {
                return parse(first, body);
            }
            let read = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(read > 0, "the broker has closed the connection");
        }
    }

    async fn send(&mut self, first: u8, body: &[u8]) -> anyhow::Result<()> {
        let mut packet = BytesMut::with_capacity(body.len() + 5);
        packet.put_u8(first);
        let mut left = body.len();
        loop {
            // Seven bits each, the lowest first.
            let low = u8::try_from(left % 128)?;
            left /= 128;
            packet.put_u8(if left > 0 { low | 0x80 } else { low });
            if left == 0 {
                break;
            }
        }
        packet.put_slice(body);
        self.stream.write_all(&packet).await?;
        self.stream.flush().await?;
        Ok(())
    }

    fn next_id(&mut self) -> u16 {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        self.last_id
    }
}

fn put_text(body: &mut BytesMut, text: &str) {
    // Ours are short.
    body.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    body.put_slice(text.as_bytes());
}

/// A whole packet, if one has come: its first byte, and what follows its length.
fn take(buffer: &mut BytesMut) -> anyhow::Result<Option<(u8, Bytes)>> {
    let (mut length, mut head) = (0_usize, 1);
    loop {
        let Some(&byte) = buffer.get(head) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << (7 * (head - 1));
        head += 1;
        if byte & 0x80 == 0 {
            break;
        }
        ensure!(head <= 4, "a length of more than four bytes");
    }
    ensure!(length <= PACKET_BYTES_MAX, "a packet of {length} bytes");
    if buffer.len() < head + length {
        buffer.reserve(head + length - buffer.len());
        return Ok(None);
    }
    let first = buffer[0];
    buffer.advance(head);
    Ok(Some((first, buffer.split_to(length).freeze())))
}

fn parse(first: u8, mut body: Bytes) -> anyhow::Result<Packet> {
    Ok(match first >> 4 {
        2 => {
            ensure!(
                body.as_ref().get(1) == Some(&0),
                "the broker refuses the connection: {body:?}"
            );
            Packet::Connected
        }
        3 => {
            ensure!(first & 0b110 == 0b010, "a message that is not of QoS 1");
            let topic = usize::from(body.try_get_u16().context("a message without topic")?);
            ensure!(body.len() >= topic + 2, "half a message");
            body.advance(topic);
            Packet::Published { id: body.get_u16(), payload: body }
        }
        4 => Packet::Acknowledged(body.try_get_u16().context("half an acknowledgement")?),
        9 => {
            ensure!(body.last() == Some(&1), "the broker grants no QoS 1");
            Packet::Subscribed
        }
        other => bail!("packet of type {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_taken_once_it_is_whole() {
        let whole = [&[0x32, 0x88, 0x01][..], b"\0\x01t\0\x07", &[9; 131]].concat();
        for end in 0..whole.len() {
            assert_eq!(take(&mut BytesMut::from(&whole[..end])).unwrap(), None);
        }
        let mut buffer = BytesMut::from(&[&whole[..], &[0x40]].concat()[..]);
        let (first, body) = take(&mut buffer).unwrap().unwrap();
        let payload = Bytes::from_static(&[9; 131]);
        assert_eq!(parse(first, body).unwrap(), Packet::Published { id: 7, payload });
        assert_eq!(&buffer[..], [0x40]);
    }

    #[test]
    fn a_length_without_end_is_refused() {
        assert!(take(&mut BytesMut::from(&[0x30, 0xff, 0xff, 0xff, 0xff, 1][..])).is_err());
    }
}
