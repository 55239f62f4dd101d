//! The configuration: one table of settings from which the file's keys, the flags, the environment
//! variables, the defaults and the help come.
//!
//! Order, strongest first: flag, environment variable, `conf.d/*.toml` (sorted, later wins), the file,
//! the default. All errors are found before any is reported.

mod file;
mod settings;
mod value;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use openstack_client::http::UrlPrefix;

pub use self::settings::{SETTINGS, Setting, SettingsArgs};
pub use self::value::Value;
pub(crate) use self::value::parse_duration;

/// Where the configuration is looked for when no file is named.
pub const CONFIG_FILE: &str = "/etc/metadata-server/config.toml";

/// Which file to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ConfigFile {
    /// None at all.
    None,
    /// [`CONFIG_FILE`], if it exists.
    #[default]
    Default,
    /// This one, which must exist.
    Named(PathBuf),
}

impl From<Option<PathBuf>> for ConfigFile {
    fn from(path: Option<PathBuf>) -> Self {
        path.map_or(Self::Default, Self::Named)
    }
}

/// Every setting, with its value in force.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// UDP address for the agents.
    pub listen: SocketAddr,
    /// TCP address for the admin API.
    pub admin_listen: SocketAddr,
    /// Whether the admin API may listen beyond loopback, in plain HTTP.
    pub admin_remote: bool,
    /// TCP address of the messaging service; unset: it is not served.
    pub zaqar_listen: Option<SocketAddr>,
    /// Of these roles a caller of the messaging service must have one.
    pub zaqar_roles: Vec<String>,
    /// Of these roles a caller of the object store must have one; without any there is none.
    pub swift_roles: Vec<String>,
    /// Whether the messaging service takes any token, on loopback.
    pub zaqar_any_token: bool,
    /// Keystone's URL.
    pub keystone_url: Option<String>,
    /// PEM file of the authorities that sign Keystone's and Heat's certificates; unset: the machine's.
    pub keystone_ca_file: Option<PathBuf>,
    /// The user that validates tokens; unset: each token validates itself.
    pub keystone_user_id: Option<String>,
    /// The file with its password.
    pub keystone_password_file: Option<PathBuf>,
    /// A project in which it has a role.
    pub keystone_project_id: Option<String>,
    /// Time between two polls of Heat for one agent.
    pub heat_poll_interval: Duration,
    /// Where the admin API's bearer token lies; unset: `admin-token` in the state folder.
    admin_token_file: Option<PathBuf>,
    /// Folder of the store, the identity and the admin token.
    pub state_dir: PathBuf,
    /// The server's certificate (PEM); unset: made by the server, in the state folder.
    pub certificate_file: Option<PathBuf>,
    /// Its key (PEM, mode 0600).
    pub key_file: Option<PathBuf>,
    /// Addresses to put into enrolment tokens, `HOST:PORT`.
    pub advertise: Vec<String>,
    /// How long an enrolment token is good for, unless asked otherwise.
    pub token_ttl: Duration,
    /// Largest document accepted, in bytes.
    pub document_bytes_max: usize,
    /// Largest result accepted from an agent, in bytes.
    pub result_bytes_max: usize,
    /// Results kept per agent; the oldest make room.
    pub results_per_agent_max: u64,
    /// Agents connected at once.
    pub agents_max: usize,
    /// Largest datagram to try on a path, in bytes of UDP payload.
    pub datagram_bytes_max: usize,
    /// Whether documents are compressed, and sent as deltas, on their way to agents.
    pub compression: bool,
    /// Silence after which an agent is asked for a sign of life.
    pub keep_alive: Duration,
    /// Silence after which an agent counts as gone.
    pub peer_timeout: Duration,
    /// How long a stop waits for agents and requests.
    pub drain_timeout: Duration,
    /// Whether Heat is told of results.
    pub signal: bool,
    /// Where signals may go; empty: to what the agents' documents name.
    pub relay_signals_to: Vec<UrlPrefix>,
    /// Form of the log lines.
    pub log_format: LogFormat,
    /// What is logged, in the syntax of tracing's `EnvFilter`.
    pub log_filter: String,
}

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// One setting given outside the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The setting.
    pub key: &'static str,
    /// What it was set to.
    pub value: Value,
    /// By what.
    pub origin: Origin,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file, at a line (from 1).
    File(PathBuf, usize),
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
    /// Several settings together.
    Together,
}

impl Origin {
    /// Files in the order of their names and lines, then everything else.
    fn place(&self) -> (bool, &Path, usize) {
        match self {
            Self::File(path, line) => (false, path, *line),
            _ => (true, Path::new(""), 0),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, 0) => write!(f, "{}", path.display()),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Together => f.write_str("configuration"),
        }
    }
}

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}

/// Everything wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError(pub Vec<Problem>);

impl Config {
    /// Reads the configuration: the file, the `conf.d` beside it, then `overrides` in their order.
    ///
    /// # Errors
    /// All problems found.
    pub fn load(file: &ConfigFile, overrides: &[Override]) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let mut given = match file {
            ConfigFile::None => Vec::new(),
            ConfigFile::Default => file::read(Path::new(CONFIG_FILE), false, &mut problems),
            ConfigFile::Named(path) => file::read(path, true, &mut problems),
        };
        given.extend(overrides.iter().cloned());
        let config = Self::build(given, &mut problems);
        problems.sort_by(|a, b| a.origin.place().cmp(&b.origin.place()));
        if problems.is_empty() { Ok(config) } else { Err(ConfigError(problems)) }
    }

    fn build(given: Vec<Override>, problems: &mut Vec<Problem>) -> Self {
        let mut config = Self::default();
        for Override { key, value, origin } in given {
            if let Some(setting) = SETTINGS.iter().find(|s| s.key == key)
                && let Err(message) = (setting.apply)(&mut config, &value)
            {
                problems.push(Problem { origin, message: format!("{key} {message}") });
            }
        }
        config.check_together(problems);
        config
    }

    fn check_together(&self, problems: &mut Vec<Problem>) {
        let mut problem = |message: String| {
            problems.push(Problem { origin: Origin::Together, message });
        };
        if !self.admin_listen.ip().is_loopback() && !self.admin_remote {
            problem(format!(
                "admin_listen is {}, beyond loopback, where the admin token would travel in clear; \
                 use a loopback address and a tunnel, or accept it with admin_remote = true",
                self.admin_listen
            ));
        }
        if let Some(listen) = self.zaqar_listen {
            if self.keystone_url.is_none() && !self.zaqar_any_token {
                problem(
                    "zaqar_listen needs keystone_url, by which the tokens of its callers are validated \
                     (for trying out on loopback, zaqar_any_token = true takes any)"
                        .into(),
                );
            }
            if self.zaqar_any_token && !listen.ip().is_loopback() {
                problem(format!(
                    "zaqar_any_token lets everybody post metadata, and zaqar_listen is {listen}, beyond \
                     loopback; set keystone_url in its place"
                ));
            }
            if self.signal && !self.zaqar_any_token && self.relay_signals_to.is_empty() {
                problem(
                    "zaqar_listen needs relay_signals_to: an instance knows the password of its own queue, so \
                     its tenant can post a document with any URL in it, and this server would send signals \
                     there. Write where signals may go: Heat, its CFN API, Keystone, and this service's own URL, \
                     like relay_signals_to = [\"https://heat.example:8004/v1/\", \
                     \"https://heat.example:8000/v1/\", \"https://keystone.example:5000/v3\", \
                     \"https://metadata.example:8888/v2/\"]; or signal = \"off\""
                        .into(),
                );
            }
        }
        if !self.swift_roles.is_empty() && self.zaqar_listen.is_none() {
            problem(
                "swift_roles lets Heat use the server as an object store, which listens at zaqar_listen: \
                 set that too"
                    .into(),
            );
        }
        let own = [
            self.keystone_user_id.is_some(),
            self.keystone_password_file.is_some(),
            self.keystone_project_id.is_some(),
        ];
        if own.contains(&true) && own.contains(&false) {
            problem(
                "keystone_user_id, keystone_password_file and keystone_project_id belong together: \
                 set all or none"
                    .into(),
            );
        }
        if self.certificate_file.is_some() != self.key_file.is_some() {
            problem("certificate_file and key_file belong together: set both or none".into());
        }
        if self.peer_timeout < self.keep_alive * 2 {
            problem(format!(
                "peer_timeout ({} s) must be at least twice keep_alive ({} s), or one lost packet \
                 ends a connection",
                self.peer_timeout.as_secs(),
                self.keep_alive.as_secs()
            ));
        }
    }

    /// Where the admin API's bearer token lies.
    pub fn admin_token_file(&self) -> PathBuf {
        self.admin_token_file.clone().unwrap_or_else(|| self.state_dir.join("admin-token"))
    }

    /// Where the store lies.
    pub fn store_file(&self) -> PathBuf {
        self.state_dir.join("store.redb")
    }

    /// Where an identity of the server's own making lies.
    pub fn identity_dir(&self) -> PathBuf {
        self.state_dir.join("identity")
    }
}

impl Default for Config {
    fn default() -> Self {
        let mut config = Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 0)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin_remote: false,
            zaqar_listen: None,
            zaqar_roles: Vec::new(),
            swift_roles: Vec::new(),
            zaqar_any_token: false,
            keystone_url: None,
            keystone_ca_file: None,
            keystone_user_id: None,
            keystone_password_file: None,
            keystone_project_id: None,
            heat_poll_interval: Duration::ZERO,
            admin_token_file: None,
            state_dir: PathBuf::new(),
            certificate_file: None,
            key_file: None,
            advertise: Vec::new(),
            token_ttl: Duration::ZERO,
            document_bytes_max: 0,
            result_bytes_max: 0,
            results_per_agent_max: 0,
            agents_max: 0,
            datagram_bytes_max: 0,
            compression: false,
            keep_alive: Duration::ZERO,
            peer_timeout: Duration::ZERO,
            drain_timeout: Duration::ZERO,
            signal: true,
            relay_signals_to: Vec::new(),
            log_format: LogFormat::Text,
            log_filter: String::new(),
        };
        for setting in SETTINGS {
            if let Some(default) = setting.default {
                let applied = (setting.apply)(&mut config, &Value::Text(default.into()));
                debug_assert_eq!(applied, Ok(()), "default of {}", setting.key);
            }
        }
        config
    }
}

#[cfg(test)]
mod tests;
