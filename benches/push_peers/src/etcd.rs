//! As much of etcd's gRPC interface as a push takes: put a key, watch a key.

use anyhow::{Context as _, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::Request;
use prost::Message;
use tokio_rustls::TlsConnector;

use crate::tls;

/// What may be on its way to us unread, more than any document of a run.
const WINDOW_BYTES: u32 = 8 << 20;
/// Longer messages are not ours.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A connection to the server.
#[derive(Clone)]
pub(crate) struct Client {
    requests: SendRequest<Bytes>,
}

/// The changes of one key.
pub(crate) struct Watch {
    /// Closing it would end the watch.
    _asks: SendStream<Bytes>,
    answers: Messages,
}

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct PutResponse {}

/// A `WatchRequest` whose one variant is to begin a watch.
#[derive(Clone, PartialEq, Message)]
struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    create: Option<WatchCreate>,
}

#[derive(Clone, PartialEq, Message)]
struct WatchCreate {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct WatchResponse {
    #[prost(bool, tag = "3")]
    created: bool,
    #[prost(bool, tag = "4")]
    cancelled: bool,
    #[prost(message, repeated, tag = "11")]
    events: Vec<WatchEvent>,
}

#[derive(Clone, PartialEq, Message)]
struct WatchEvent {
    #[prost(message, optional, tag = "2")]
    pair: Option<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
}

impl Client {
    /// Connects; the connection lives as long as this and what it has begun.
    pub(crate) async fn open(tls: &TlsConnector, port: u16) -> anyhow::Result<Self> {
        let stream = tls::connect(tls, port).await?;
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(stream)
            .await
            .context("HTTP/2")?;
        tokio::spawn(async move {
            // Whoever uses it notices.
            let _ = connection.await;
        });
        Ok(Self { requests })
    }

    /// Puts a key; returns when the server has it durably.
    pub(crate) async fn put(&self, key: &str, value: Bytes) -> anyhow::Result<()> {
        let put = PutRequest { key: Bytes::copy_from_slice(key.as_bytes()), value };
        let (mut asks, answer) = self.call("KV/Put").await?;
        send(&mut asks, &put, true).await?;
        let mut answers = Messages::of(answer).await?;
        answers.next::<PutResponse>().await.map(drop)
    }

    /// Begins to watch a key; returns when the server has agreed.
    pub(crate) async fn watch(&self, key: &str) -> anyhow::Result<Watch> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let (mut asks, answer) = self.call("Watch/Watch").await?;
        send(&mut asks, &WatchRequest { create: Some(WatchCreate { key }) }, false).await?;
        let mut answers = Messages::of(answer).await?;
        let first: WatchResponse = answers.next().await?;
        ensure!(first.created && !first.cancelled, "the server does not watch: {first:?}");
        Ok(Watch { _asks: asks, answers })
    }

    async fn call(
        &self,
        method: &str,
    ) -> anyhow::Result<(SendStream<Bytes>, h2::client::ResponseFuture)> {
        let request = Request::post(format!("https://127.0.0.1/etcdserverpb.{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let mut requests = self.requests.clone().ready().await?;
        let (answer, asks) = requests.send_request(request, false)?;
        Ok((asks, answer))
    }
}

impl Watch {
    /// Waits for the next change.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Vec<Bytes>> {
        let response: WatchResponse = self.answers.next().await?;
        ensure!(!response.cancelled, "the server has ended the watch");
        Ok(response.events.into_iter().filter_map(|event| Some(event.pair?.value)).collect())
    }
}

/// gRPC's frame around a message: not compressed, its length.
async fn send(
    stream: &mut SendStream<Bytes>,
    message: &impl Message,
    is_last: bool,
) -> anyhow::Result<()> {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length)?);
    message.encode(&mut frame)?;
    // h2 keeps what the window does not allow yet.
    stream.send_data(frame.freeze(), is_last)?;
    Ok(())
}

/// The messages of an answer.
struct Messages {
    body: RecvStream,
    buffer: BytesMut,
}

impl Messages {
    async fn of(answer: h2::client::ResponseFuture) -> anyhow::Result<Self> {
        let answer = answer.await?;
        let failed = answer.headers().get("grpc-status").filter(|code| *code != "0");
        ensure!(failed.is_none(), "the server refuses: {:?}", answer.headers());
        Ok(Self { body: answer.into_body(), buffer: BytesMut::new() })
    }

    async fn next<M: Message + Default>(&mut self) -> anyhow::Result<M> {
        loop {
            if let Some(message) = take(&mut self.buffer)? {
                return Ok(M::decode(message)?);
            }
            let data = self.body.data().await.context("the server has ended the stream")??;
            self.body.flow_control().release_capacity(data.len())?;
            self.buffer.extend_from_slice(&data);
        }
    }
}

/// A whole message, if one has come.
fn take(buffer: &mut BytesMut) -> anyhow::Result<Option<Bytes>> {
    let Some(head) = buffer.first_chunk::<5>() else { return Ok(None) };
    ensure!(head[0] == 0, "a compressed message");
    let length = usize::try_from(u32::from_be_bytes([head[1], head[2], head[3], head[4]]))?;
    ensure!(length <= MESSAGE_BYTES_MAX, "a message of {length} bytes");
    if buffer.len() < 5 + length {
        return Ok(None);
    }
    buffer.advance(5);
    Ok(Some(buffer.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_once_it_is_whole() {
        let whole = [0, 0, 0, 0, 3, 1, 2, 3];
        for end in 0..whole.len() {
            assert_eq!(take(&mut BytesMut::from(&whole[..end])).unwrap(), None);
        }
        let mut buffer = BytesMut::from(&[&whole[..], &[0]].concat()[..]);
        assert_eq!(take(&mut buffer).unwrap().unwrap(), &whole[5..]);
        assert_eq!(&buffer[..], [0]);
    }
}
