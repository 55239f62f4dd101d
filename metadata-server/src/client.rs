//! The command line's way to the admin API: HTTP/1.1 over one TCP connection per request.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::{Method, Request, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use crate::error::{Exit, Failure};
use crate::http::{ErrorBody, read_admin_token};

/// Longest wait for the connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// Largest answer: a document of the largest size, and some.
const ANSWER_BYTES_MAX: usize = 300 * 1024 * 1024;

/// Where the server is and what to show it.
#[derive(Debug, Clone)]
pub struct Client {
    address: SocketAddr,
    token_file: PathBuf,
}

/// An answer of the server, whatever its status.
struct Answer {
    status: StatusCode,
    body: Bytes,
}

impl Client {
    /// A client of the server at `address`, with the token from this file.
    pub fn new(address: SocketAddr, token_file: PathBuf) -> Self {
        Self { address, token_file }
    }

    /// Gets something.
    ///
    /// # Errors
    /// The server cannot be reached, or said no.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.json(Method::GET, path, Bytes::new()).await.map(|(_, answer)| answer)
    }

    /// Gets bytes.
    ///
    /// # Errors
    /// The server cannot be reached, or said no.
    pub async fn get_bytes(&self, path: &str) -> Result<Bytes, Failure> {
        Ok(self.call(Method::GET, path, Bytes::new()).await?.body)
    }

    /// Sends something and reads the answer.
    ///
    /// # Errors
    /// The server cannot be reached, or said no.
    pub async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, T), Failure> {
        let Answer { status, body } = self.call(method, path, body).await?;
        let answer = serde_json::from_slice(&body).map_err(|e| self.not_understood(&e))?;
        Ok((status, answer))
    }

    /// Deletes something.
    ///
    /// # Errors
    /// The server cannot be reached, or said no.
    pub async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.call(Method::DELETE, path, Bytes::new()).await.map(|_| ())
    }

    /// Listens to `path`, and calls `each` with every line until it says `false` or the server
    /// ends the stream.
    ///
    /// # Errors
    /// The server cannot be reached, or said no, or the connection broke.
    pub async fn lines(
        &self,
        path: &str,
        mut each: impl FnMut(&str) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        if !response.status().is_success() {
            let status = response.status();
            let body = self.collect(response.into_body()).await?;
            return Err(self.refusal(&Answer { status, body }));
        }
        let mut body = response.into_body();
        let mut buffer = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| self.broke(&e))?;
            let Ok(data) = frame.into_data() else { continue };
            buffer.extend_from_slice(&data);
            while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                let line = buffer.split_to(end + 1);
                let text = std::str::from_utf8(&line).unwrap_or_default().trim_end();
                if !text.is_empty() && !each(text)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, Failure> {
        let response = self.send(method, path, body).await?;
        let status = response.status();
        let body = self.collect(response.into_body()).await?;
        let answer = Answer { status, body };
        if status.is_success() { Ok(answer) } else { Err(self.refusal(&answer)) }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<axum::http::Response<Incoming>, Failure> {
        let token = read_admin_token(&self.token_file)?;
        let connected = tokio::time::timeout(CONNECT_TIME_MAX, TcpStream::connect(self.address));
        let stream = match connected.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.unreachable(&error.to_string())),
            Err(_) => return Err(self.unreachable("it does not answer")),
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| self.broke(&e))?;
        // Ends with the last use of the connection; its error comes out of the request, too.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string())
            .header(header::USER_AGENT, crate::SOFTWARE)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(Full::new(body))
            .map_err(|e| Failure::new(Exit::Failed, format!("the request cannot be made: {e}")))?;
        sender.send_request(request).await.map_err(|e| self.broke(&e))
    }

    async fn collect(&self, body: Incoming) -> Result<Bytes, Failure> {
        http_body_util::Limited::new(body, ANSWER_BYTES_MAX)
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .map_err(|e| self.broke(e.as_ref()))
    }

    fn refusal(&self, answer: &Answer) -> Failure {
        let exit = match answer.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Refused,
            StatusCode::SERVICE_UNAVAILABLE => Exit::Unreachable,
            _ => Exit::Failed,
        };
        match serde_json::from_slice::<ErrorBody>(&answer.body) {
            Ok(ErrorBody { error }) => Failure { exit, message: error.message, hint: error.hint },
            Err(_) => Failure::new(
                exit,
                format!("{} answered {} and no reason", self.address, answer.status),
            )
            .with_hint("is that the admin API of a metadata-server?"),
        }
    }

    fn unreachable(&self, why: &str) -> Failure {
        let message =
            format!("the server's admin API at {} cannot be reached: {why}", self.address);
        Failure::new(Exit::Unreachable, message)
            .with_hint("is it running (systemctl status metadata-server)? --admin ADDRESS:PORT names another place")
    }

    fn broke(&self, error: &(dyn std::error::Error + 'static)) -> Failure {
        let source = error.source().map(|s| format!(": {s}")).unwrap_or_default();
        let message = format!("the connection to {} broke: {error}{source}", self.address);
        Failure::new(Exit::Unreachable, message).with_hint("the server's log may say more")
    }

    fn not_understood(&self, error: &serde_json::Error) -> Failure {
        let message = format!("the answer of {} is not understood: {error}", self.address);
        Failure::new(Exit::Failed, message).with_hint(
            "\"metadata-server version\" shows the versions of both; they should be the same",
        )
    }
}
