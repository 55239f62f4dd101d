//! `heat-config-notify CONFIG.json < signal.json`: sends a result to Heat, by the transport that the
//! config's inputs name.

mod send;

use std::env;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Map, Value};

pub use self::send::deliver;
use super::settings::{NOTIFY_TIMEOUT, NOTIFY_TIMEOUT_DEFAULT, seconds};
use crate::compat::pylog::{Level, Log, Style};
use openstack_client::http::Client;
use openstack_client::signal::{Failed, Presigned, Transport, of_config};

/// Exit code: it could not be sent this time, and may be another time.
pub const EXIT_LATER: u8 = 69;
/// Exit code: it was refused, or its time is over; there is no sense in sending it again.
pub const EXIT_REFUSED: u8 = 77;

/// Largest signal data or config that is read.
const INPUT_BYTES_MAX: u64 = 64 << 20;
const USAGE: &str = "Usage:\n  heat-config-notify /path/to/config.json < /path/to/signal_data.json";

/// Runs the command; `arguments` begin with its name.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let mut log = Log::new(Style::Named("heat-config-notify"), Level::Debug);
    let Some(config) = arguments.get(1).map(Path::new) else {
        log.error(USAGE);
        return ExitCode::FAILURE;
    };
    let data = match read(io::stdin().lock()).map(|bytes| serde_json::from_slice(&bytes)) {
        Ok(Ok(data)) => data,
        Ok(Err(_)) => {
            log.warning("No valid json found on stdin");
            Value::Object(Map::new())
        }
        Err(error) => {
            log.error(format!("{:#}", error.context("could not read the signal data")));
            return ExitCode::FAILURE;
        }
    };
    if !config.exists() {
        log.error(format!("No config file {}", config.display()));
        log.error(USAGE);
        return ExitCode::FAILURE;
    }
    let transports = match transports(config) {
        Ok(transports) => transports,
        Err(error) => {
            log.error(format!("{}: {error:#}", config.display()));
            return ExitCode::FAILURE;
        }
    };
    let patience = seconds(NOTIFY_TIMEOUT, env::var_os(NOTIFY_TIMEOUT)).unwrap_or_else(|why| {
        log.error(why);
        None
    });
    let deadline = Instant::now().checked_add(patience.unwrap_or(NOTIFY_TIMEOUT_DEFAULT));
    send_all(&transports, &data, deadline, &mut log)
}

/// Whether this way says itself that it is closed by now, in seconds since 1970.
pub fn is_over(transport: &Transport, now_unix: u64) -> bool {
    let now_unix = i64::try_from(now_unix).unwrap_or(i64::MAX);
    matches!(transport, Transport::Presigned { url, .. } if Presigned::of_url(url).has_expired(now_unix))
}

fn send_all(
    transports: &[Transport],
    data: &Value,
    deadline: Option<Instant>,
    log: &mut Log,
) -> ExitCode {
    if transports.is_empty() {
        log.debug("Nobody wants a signal");
    }
    let client = Client::default();
    let mut exit = ExitCode::SUCCESS;
    for transport in transports {
        log.debug(format!("Signaling to {transport}"));
        match deliver(&client, transport, data, deadline, log) {
            Ok(status) => log.debug(format!("Response {status}")),
            Err(Failed::Later(why)) => {
                log.error(format!("The signal was not taken: {why}; try again later"));
                exit = ExitCode::from(EXIT_LATER);
            }
            Err(Failed::Refused(why)) => {
                log.error(format!("The signal was refused and is lost for Heat: {why}"));
                if exit == ExitCode::SUCCESS {
                    exit = ExitCode::from(EXIT_REFUSED);
                }
            }
        }
    }
    exit
}

fn transports(config: &Path) -> Result<Vec<Transport>> {
    let file = std::fs::File::open(config).context("could not be opened")?;
    let bytes = read(file).context("could not be read")?;
    // The text of such an error may quote the config.
    let config: Value = serde_json::from_slice(&bytes)
        .map_err(|error| anyhow!("is no JSON, see line {}", error.line()))?;
    of_config(&config).map_err(|why| anyhow!(why))
}

fn read(from: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        bail!("there are more than {INPUT_BYTES_MAX} bytes");
    }
    Ok(bytes)
}
