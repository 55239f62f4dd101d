//! Errors for people: what failed, with which value, why, and what to try; and the exit code.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::config::ConfigError;
use crate::store::StoreError;

/// What the program returns to its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Not done.
    Failed = 1,
    /// Works, but not as it should.
    Degraded = 2,
    /// The command line is wrong (`EX_USAGE`).
    Usage = 64,
    /// The server cannot be reached (`EX_UNAVAILABLE`).
    Unreachable = 69,
    /// Refused: the key or the token is not the right one (`EX_NOPERM`).
    Refused = 77,
    /// The configuration is wrong, or a file it names (`EX_CONFIG`).
    Config = 78,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For the caller.
    pub exit: Exit,
    /// What failed, with which value, and why.
    pub message: String,
    /// What to try.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without advice.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// The same with advice.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A socket that cannot be bound: `protocol` is "UDP" or "TCP", `flag` the flag that sets it.
    pub fn listen(protocol: &str, flag: &str, address: SocketAddr, error: &io::Error) -> Self {
        let port = address.port();
        let options = if protocol == "UDP" { "-lunp" } else { "-ltnp" };
        let (why, hint) = match error.kind() {
            io::ErrorKind::AddrInUse => (
                format!("port {port} is in use by another program"),
                format!(
                    "\"ss {options} 'sport = :{port}'\" names it; or choose another port with --{flag}"
                ),
            ),
            io::ErrorKind::AddrNotAvailable => (
                format!("{} is no address of this machine", address.ip()),
                format!("\"ip address\" lists them; choose one with --{flag}, or 0.0.0.0 for all"),
            ),
            io::ErrorKind::PermissionDenied => (
                format!("port {port} is reserved for root"),
                format!("choose a port from 1024 up with --{flag}"),
            ),
            _ => (error.to_string(), format!("choose another address with --{flag}")),
        };
        Self::new(Exit::Failed, format!("cannot listen on {protocol} {address}: {why}"))
            .with_hint(hint)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Config, error.to_string())
            .with_hint("\"metadata-server run --help\" lists every key with its default")
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = match error {
            StoreError::Denied { .. } | StoreError::Format { .. } => Exit::Config,
            _ => Exit::Failed,
        };
        Self::new(exit, error.to_string()).with_hint(error.hint())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(failure) => failure,
            Err(error) => Self::new(Exit::Failed, format!("{error:#}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_with_the_way_to_find_its_owner() {
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = std::net::UdpSocket::bind(address).unwrap_err();
        let failure = Failure::listen("UDP", "listen", address, &error);
        let port = address.port();
        assert_eq!(
            failure.message,
            format!(
                "cannot listen on UDP 127.0.0.1:{port}: port {port} is in use by another program"
            )
        );
        assert_eq!(
            failure.hint.unwrap(),
            format!(
                "\"ss -lunp 'sport = :{port}'\" names it; or choose another port with --listen"
            )
        );
        assert_eq!(failure.exit, Exit::Failed);
    }

    #[test]
    fn a_failure_keeps_its_exit_code_through_context() {
        let failure = Failure::new(Exit::Config, "no");
        let error = anyhow::Error::new(failure.clone());
        assert_eq!(Failure::from(error), failure);
        assert_eq!(Failure::from(anyhow::anyhow!("x").context("y")).message, "y: x");
    }
}
