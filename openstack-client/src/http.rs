//! A small blocking HTTP client: what the collectors, signals and CloudFormation tools speak.
//!
//! Whatever the status, a response is a response; what it means is the caller's business. Errors name the
//! URL without its query string, user and fragment: pre-signed URLs hold secrets there.

mod fence;
mod redirect;
mod tls;

use std::fmt;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ureq::http::{self, Uri};

pub use self::fence::{UrlPrefix, UrlPrefixError};

/// Longest time for a request with all its redirects, however steadily bytes trickle in.
pub const REQUEST_TIME_MAX_S: u64 = 300;
/// Longest time for a download, which may be a large archive.
pub const DOWNLOAD_TIME_MAX_S: u64 = 3_600;
/// Largest response body that is read: a document of the largest size, and its envelope.
pub const RESPONSE_BYTES_MAX: u64 = 20 * 1024 * 1024;
/// How often a request may be sent elsewhere.
pub const REDIRECTS_MAX: u32 = 10;
/// How long each step of a request may take if nothing else is said.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Whom to trust at the other end of TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Trust {
    /// What `REQUESTS_CA_BUNDLE` or `CURL_CA_BUNDLE` names, as the Python programs did; else the roots of
    /// this machine (`SSL_CERT_FILE` and `SSL_CERT_DIR` hold).
    #[default]
    Machine,
    /// The certificates in this PEM file, or in the files of this directory, and nothing else.
    File(PathBuf),
    /// Everybody. Anybody on the path can read and change what is sent.
    Everybody,
}

/// The method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Reads, without the body.
    Head,
    /// Stores the body at the URL.
    Put,
    /// Hands the body over.
    Post,
    /// Removes.
    Delete,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        })
    }
}

/// What to ask.
#[derive(Clone)]
pub struct Request {
    method: Method,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    timeout: Duration,
    response_bytes_max: u64,
    redirects_max: u32,
    redirects_keep_method: bool,
}

impl Request {
    /// A request without headers of its own and without body.
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self {
            method,
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout: TIMEOUT_DEFAULT,
            response_bytes_max: RESPONSE_BYTES_MAX,
            redirects_max: REDIRECTS_MAX,
            redirects_keep_method: false,
        }
    }

    /// Reads `url`.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new(Method::Get, url)
    }

    /// Adds a header. An empty value is sent as such.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body, which only PUT and POST send.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body and its type, `application/json`.
    #[must_use]
    pub fn json(self, body: &serde_json::Value) -> Self {
        self.header("Content-Type", "application/json").body(body.to_string())
    }

    /// How long each step may take: name resolution, connecting, each read and write. The request as a
    /// whole ends after [`REQUEST_TIME_MAX_S`].
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// A longer response body is an error; [`RESPONSE_BYTES_MAX`] unless said.
    #[must_use]
    pub fn response_bytes_max(mut self, bytes: u64) -> Self {
        self.response_bytes_max = bytes;
        self
    }

    /// How often to follow a redirect; 0 returns the first one as the response.
    #[must_use]
    pub fn redirects_max(mut self, redirects: u32) -> Self {
        self.redirects_max = redirects;
        self
    }

    /// 301 and 302 lead the same request elsewhere too, with its body, as Heat's client has it.
    #[must_use]
    pub fn redirects_keep_method(mut self) -> Self {
        self.redirects_keep_method = true;
        self
    }
}

/// Headers and bodies hold secrets, and so does a query string.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({} bytes)", self.method, without_secrets(&self.url), self.body.len())
    }
}

/// What came back.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code, whatever it is.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
    /// Where it came from: the URL asked for, or where redirects led.
    pub url: String,
    headers: http::HeaderMap,
}

impl Response {
    /// Whether the status is one of success, 2xx.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The first header of this name, in whatever case, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as text; bytes that are no UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Bodies hold secrets.
impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = without_secrets(&self.url);
        write!(f, "{} from {url} ({} bytes)", self.status, self.body.len())
    }
}

/// Why there is no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The URL or a header cannot be sent; asking again will not help.
    BadRequest,
    /// The client may not go there; see [`Client::only_to`].
    NotAllowed,
    /// The certificates to trust cannot be read.
    Trust,
    /// Nobody answered in time.
    Timeout,
    /// The connection could not be made or broke, or TLS failed.
    Connection,
    /// What came back is no HTTP, leads in circles or is too large.
    BadResponse,
    /// What came back could not be stored.
    Output,
}

/// A request without a response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{method} {url}: {reason}")]
pub struct HttpError {
    /// How it was asked.
    pub method: Method,
    /// What was asked, without query string, user and fragment.
    pub url: String,
    /// The kind of failure.
    pub failure: Failure,
    /// What failed.
    pub reason: String,
}

impl HttpError {
    /// Whether the same request may do better later: what is wrong may pass, or is put right on this machine
    /// ([`Self::is_ours`]).
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.failure, Failure::Timeout | Failure::Connection | Failure::Trust)
    }

    /// Whether this machine is at fault, and nobody was asked.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.failure == Failure::Trust
    }
}

/// The client. Connections are kept for a while and used again, by its clones too.
#[derive(Clone)]
pub struct Client {
    trust: Trust,
    only_to: Arc<[UrlPrefix]>,
    stays_at_host: bool,
    ends_at: Option<Instant>,
    agents: Arc<Agents>,
}

#[derive(Default)]
struct Agents {
    plain: OnceLock<ureq::Agent>,
    /// Apart, since reading the machine's roots takes longer than most requests.
    secure: OnceLock<ureq::Agent>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new(Trust::default())
    }
}

impl Client {
    /// A client with this trust. Files are read at the first request by HTTPS.
    #[must_use]
    pub fn new(trust: Trust) -> Self {
        Self {
            trust,
            only_to: Arc::new([]),
            stays_at_host: false,
            ends_at: None,
            agents: Arc::default(),
        }
    }

    /// Goes nowhere but below these, also where redirects lead; everywhere if there are none.
    #[must_use]
    pub fn only_to(mut self, prefixes: Vec<UrlPrefix>) -> Self {
        self.only_to = prefixes.into();
        self
    }

    /// The same client for requests that have to be over by then, all of them together: name, connection,
    /// TLS, redirects, answer. What is not ends in [`Failure::Timeout`].
    #[must_use]
    pub fn ending_at(&self, at: Instant) -> Self {
        Self { ends_at: Some(at), ..self.clone() }
    }

    /// Takes a redirect to another scheme, host or port as the response.
    #[must_use]
    pub fn staying_at_host(mut self) -> Self {
        self.stays_at_host = true;
        self
    }

    /// Sends a request and follows redirects as `requests` does: 301, 302 and 303 turn a POST into a GET,
    /// 307 and 308 send it again. Headers that may hold secrets do not go to another host.
    ///
    /// # Errors
    /// There is no response. A status of failure is a response.
    pub fn send(&self, request: &Request) -> Result<Response, HttpError> {
        self.send_until_there(request, None)
    }

    /// As [`Self::send`], but the body of a success is written to `out` piece by piece, and is empty in the
    /// response. The request may take [`DOWNLOAD_TIME_MAX_S`].
    ///
    /// # Errors
    /// There is no response, its body broke off or is too large, or `out` could not be written.
    pub fn download(&self, request: &Request, out: &mut dyn Write) -> Result<Response, HttpError> {
        self.send_until_there(request, Some(out))
    }

    fn send_until_there(
        &self,
        request: &Request,
        mut out: Option<&mut dyn Write>,
    ) -> Result<Response, HttpError> {
        let mut request = request.clone();
        let mut redirects = 0;
        loop {
            // Borrowed anew for each hop.
            let hop_out: Option<&mut dyn Write> = match &mut out {
                Some(out) => Some(&mut **out),
                None => None,
            };
            let response =
                self.send_once(&request, hop_out).map_err(|(failure, reason)| HttpError {
                    method: request.method,
                    url: without_secrets(&request.url),
                    failure,
                    reason,
                })?;
            let Some(location) = redirect::location(&response) else { return Ok(response) };
            if request.redirects_max == 0 {
                return Ok(response);
            }
            redirects += 1;
            let too_many = redirects > request.redirects_max;
            let next =
                if too_many { None } else { redirect::follow(&request, &response, location) };
            let leaves =
                next.as_ref().is_some_and(|next| !fence::is_same_origin(&request.url, &next.url));
            if self.stays_at_host && leaves {
                return Ok(response);
            }
            request = next.ok_or_else(|| HttpError {
                method: request.method,
                url: without_secrets(&request.url),
                failure: Failure::BadResponse,
                reason: if too_many {
                    format!("redirected more than {} times", request.redirects_max)
                } else {
                    format!("status {} leads to no URL", response.status)
                },
            })?;
        }
    }

    fn send_once(
        &self,
        request: &Request,
        out: Option<&mut dyn Write>,
    ) -> Result<Response, (Failure, String)> {
        let uri: Uri = request
            .url
            .parse()
            .map_err(|error| (Failure::BadRequest, format!("is no URL: {error}")))?;
        if !self.only_to.is_empty() && !self.only_to.iter().any(|p| p.admits(&request.url)) {
            let why = "is below none of the URLs that may be asked";
            return Err((Failure::NotAllowed, why.into()));
        }
        let agent = match uri.scheme_str() {
            Some("http") => self.agents.plain.get_or_init(|| agent(None)),
            Some("https") => self.secure()?,
            _ => return Err((Failure::BadRequest, "must begin with http:// or https://".into())),
        };
        let seconds_max = if out.is_some() { DOWNLOAD_TIME_MAX_S } else { REQUEST_TIME_MAX_S };
        let mut time_max = Duration::from_secs(seconds_max);
        if let Some(ends_at) = self.ends_at {
            time_max = time_max.min(ends_at.saturating_duration_since(Instant::now()));
            if time_max.is_zero() {
                return Err((Failure::Timeout, "no time is left for it".into()));
            }
        }
        let mut builder = http::Request::builder().method(request.method.to_string().as_str());
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        let builder = builder.uri(uri);
        let bad = |error: http::Error| (Failure::BadRequest, format!("cannot be sent: {error}"));
        let sent = if matches!(request.method, Method::Put | Method::Post) {
            limited(agent, builder.body(&request.body[..]).map_err(bad)?, request.timeout, time_max)
        } else {
            limited(agent, builder.body(()).map_err(bad)?, request.timeout, time_max)
        };
        let (parts, mut body) = sent.map_err(|error| reason(&error))?.into_parts();
        // Theirs is an error when it is reached.
        let body = body.with_config().limit(request.response_bytes_max.saturating_add(1));
        let broken = |error: ureq::Error| match error {
            ureq::Error::BodyExceedsLimit(_) => {
                let bytes = request.response_bytes_max;
                (Failure::BadResponse, format!("the response is larger than {bytes} bytes"))
            }
            error => reason(&error),
        };
        let body = match out.filter(|_| parts.status.is_success()) {
            Some(out) => {
                copy(&mut body.reader(), out, broken)?;
                Vec::new()
            }
            None => body.read_to_vec().map_err(broken)?,
        };
        let url = request.url.clone();
        Ok(Response { status: parts.status.as_u16(), body, url, headers: parts.headers })
    }

    fn secure(&self) -> Result<&ureq::Agent, (Failure, String)> {
        if let Some(agent) = self.agents.secure.get() {
            return Ok(agent);
        }
        let tls = tls::config(&self.trust).map_err(|reason| (Failure::Trust, reason))?;
        Ok(self.agents.secure.get_or_init(|| agent(Some(tls))))
    }
}

fn agent(tls: Option<ureq::tls::TlsConfig>) -> ureq::Agent {
    let mut config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .user_agent(concat!("openstack-client/", env!("CARGO_PKG_VERSION")));
    if let Some(tls) = tls {
        config = config.tls_config(tls);
    }
    config.build().new_agent()
}

fn limited<B: ureq::AsSendBody>(
    agent: &ureq::Agent,
    request: http::Request<B>,
    timeout: Duration,
    time_max: Duration,
) -> Result<http::Response<ureq::Body>, ureq::Error> {
    let request = agent
        .configure_request(request)
        .timeout_global(Some(time_max))
        .timeout_resolve(Some(timeout))
        .timeout_connect(Some(timeout))
        .timeout_per_read(Some(timeout))
        .timeout_per_write(Some(timeout))
        .build();
    agent.run(request)
}

fn copy(
    body: &mut dyn Read,
    out: &mut dyn Write,
    broken: impl Fn(ureq::Error) -> (Failure, String),
) -> Result<(), (Failure, String)> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(broken(ureq::Error::from(error))),
        };
        let written = out.write_all(&buffer[..count]);
        written.map_err(|error| (Failure::Output, format!("cannot be stored: {error}")))?;
    }
}

/// What an error means, in words that do not repeat the URL.
fn reason(error: &ureq::Error) -> (Failure, String) {
    use ureq::Error;

    let failure = match error {
        Error::BadUri(_) => return (Failure::BadRequest, "is no URL with a host".into()),
        Error::Http(_) | Error::InvalidProxyUrl => Failure::BadRequest,
        Error::Timeout(_) => Failure::Timeout,
        Error::Protocol(_) | Error::LargeResponseHeader(..) => Failure::BadResponse,
        Error::Io(io) if io.kind() == std::io::ErrorKind::TimedOut => Failure::Timeout,
        _ => Failure::Connection,
    };
    let text = error.to_string();
    (failure, text.strip_prefix("io: ").unwrap_or(&text).to_owned())
}

/// A URL for people: scheme, host and path.
#[must_use]
pub fn without_secrets(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let url = &url[..end];
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests;
