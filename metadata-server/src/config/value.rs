//! A value before it is known what it is for, and how it is read.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use openstack_client::http::{UrlPrefix, UrlPrefixError};

/// What a file, a flag or a variable can say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A string. From flags and variables everything is one.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// True or false.
    Boolean(bool),
    /// A list of strings.
    List(Vec<String>),
    /// Something that no setting takes: what it is called.
    Other(&'static str),
}

impl Value {
    fn shown(&self) -> String {
        match self {
            Self::Text(text) => format!("{text:?}"),
            Self::Integer(number) => number.to_string(),
            Self::Boolean(value) => value.to_string(),
            Self::List(_) => "a list".into(),
            Self::Other(kind) => (*kind).into(),
        }
    }

    fn must_be(&self, what: &str) -> String {
        format!("is {}, must be {what}", self.shown())
    }

    pub(super) fn text(&self) -> Result<&str, String> {
        match self {
            Self::Text(text) => Ok(text),
            _ => Err(self.must_be("a string")),
        }
    }

    pub(super) fn path(&self) -> Result<PathBuf, String> {
        match self {
            Self::Text(text) if !text.is_empty() => Ok(PathBuf::from(text)),
            _ => Err(self.must_be("a path")),
        }
    }

    pub(super) fn address(&self) -> Result<SocketAddr, String> {
        let must = "ADDRESS:PORT with a numeric address, like \"127.0.0.1:7843\" or \"[::]:7843\"";
        match self {
            Self::Text(text) => text.parse().map_err(|_| self.must_be(must)),
            _ => Err(self.must_be(must)),
        }
    }

    pub(super) fn boolean(&self) -> Result<bool, String> {
        match self {
            Self::Boolean(value) => Ok(*value),
            Self::Text(text) if text == "true" => Ok(true),
            Self::Text(text) if text == "false" => Ok(false),
            _ => Err(self.must_be("true or false")),
        }
    }

    pub(super) fn list(&self) -> Result<Vec<String>, String> {
        let list: Vec<String> = match self {
            Self::List(list) => list.clone(),
            Self::Text(text) => text.split(',').map(|part| part.trim().to_owned()).collect(),
            _ => return Err(self.must_be("a list of HOST:PORT")),
        };
        match list.iter().find(|entry| !is_host_and_port(entry)) {
            Some(bad) => Err(format!("holds {bad:?}, must be HOST:PORT")),
            None => Ok(list),
        }
    }

    pub(super) fn url_prefixes(&self) -> Result<Vec<UrlPrefix>, String> {
        let list: Vec<&str> = match self {
            Self::List(list) => list.iter().map(String::as_str).collect(),
            Self::Text(text) => text.split(',').map(str::trim).collect(),
            _ => return Err(self.must_be("a list of URLs")),
        };
        let parsed = list.into_iter().map(|text| {
            text.parse().map_err(|error: UrlPrefixError| format!("holds what is none: {error}"))
        });
        parsed.collect()
    }

    /// A list of names without spaces.
    pub(super) fn names(&self, what: &str) -> Result<Vec<String>, String> {
        let list: Vec<String> = match self {
            Self::List(list) => list.clone(),
            Self::Text(text) => text.split(',').map(|part| part.trim().to_owned()).collect(),
            _ => return Err(self.must_be(what)),
        };
        let is_name =
            |name: &String| !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic());
        if list.iter().all(is_name) { Ok(list) } else { Err(self.must_be(what)) }
    }

    pub(super) fn url(&self) -> Result<String, String> {
        match self {
            Self::Text(text)
                if text
                    .strip_prefix("https://")
                    .or_else(|| text.strip_prefix("http://"))
                    .is_some_and(|rest| {
                        !rest.is_empty() && !rest.contains(['?', '#', '@', ' '])
                    }) =>
            {
                Ok(text.clone())
            }
            _ => Err(self.must_be("a URL, like \"https://cloud.example:5000/v3\"")),
        }
    }

    pub(super) fn keystone_id(&self) -> Result<String, String> {
        match self {
            Self::Text(text) if crate::store::queues::is_keystone_id(text) => Ok(text.clone()),
            _ => Err(self.must_be("an id, not a name: \"openstack user show NAME\" prints it")),
        }
    }

    pub(super) fn count(&self, min: u64, max: u64) -> Result<u64, String> {
        let count = match self {
            Self::Integer(number) => u64::try_from(*number).ok(),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        };
        count
            .filter(|n| (min..=max).contains(n))
            .ok_or_else(|| self.must_be(&format!("a number from {min} to {max}")))
    }

    pub(super) fn size(&self, min: u64, max: u64) -> Result<usize, String> {
        let size = match self {
            Self::Integer(number) => u64::try_from(*number).ok(),
            Self::Text(text) => parse_size(text),
            _ => None,
        };
        size.filter(|n| (min..=max).contains(n)).and_then(|n| usize::try_from(n).ok()).ok_or_else(
            || self.must_be(&format!("a size from {min} to {max} bytes, like \"512KiB\" or 65536")),
        )
    }

    pub(super) fn duration(&self, min: &str, max: &str) -> Result<Duration, String> {
        let limits = (parse_duration(min), parse_duration(max));
        let parsed = match self {
            Self::Text(text) => parse_duration(text),
            _ => None,
        };
        parsed
            .filter(|d| limits.0.is_none_or(|min| *d >= min))
            .filter(|d| limits.1.is_none_or(|max| *d <= max))
            .ok_or_else(|| self.must_be(&format!("a time from {min} to {max}, like \"30s\"")))
    }
}

/// Reads `500ms`, `30s`, `5m`, `1h`, `7d`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(ms).map(Duration::from_millis)
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let bytes = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return None,
    };
    number.checked_mul(bytes)
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// Whether it has the form; the full check is made when a token is issued.
fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p != 0))
}
