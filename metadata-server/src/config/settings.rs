//! The table of settings.

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::{Config, ConfigFile, LogFormat, Origin, Override, Value};

/// One setting: its key in the file, from which flag and environment variable follow.
pub struct Setting {
    /// `idle_timeout` in the file is `--idle-timeout` and `METADATA_SERVER_IDLE_TIMEOUT`.
    pub key: &'static str,
    /// What its value looks like, for the help.
    pub form: &'static str,
    /// What it is for, in one sentence.
    pub help: &'static str,
    /// Its value when nothing sets it; `None`: it is then unset.
    pub default: Option<&'static str>,
    /// Takes a value, or says what is wrong with it ("is …, must be …").
    pub(super) apply: fn(&mut Config, &Value) -> Result<(), String>,
}

impl Setting {
    /// The flag, without the dashes.
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("METADATA_SERVER_{}", self.key.to_uppercase())
    }
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Every setting, in the order of the help and the packaged file.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "listen",
        form: "ADDRESS:PORT",
        help: "UDP address on which agents connect",
        default: Some("0.0.0.0:7843"),
        apply: |c, v| v.address().map(|a| c.listen = a),
    },
    Setting {
        key: "admin_listen",
        form: "ADDRESS:PORT",
        help: "TCP address of the admin API, metrics and health",
        default: Some("127.0.0.1:7844"),
        apply: |c, v| v.address().map(|a| c.admin_listen = a),
    },
    Setting {
        key: "admin_remote",
        form: "true|false",
        help: "Allow an admin_listen beyond loopback, although it is plain HTTP",
        default: Some("false"),
        apply: |c, v| v.boolean().map(|b| c.admin_remote = b),
    },
    Setting {
        key: "admin_token_file",
        form: "FILE",
        help: "File with the admin API's bearer token, mode 0600; made if missing [default: admin-token in state_dir]",
        default: None,
        apply: |c, v| v.path().map(|p| c.admin_token_file = Some(p)),
    },
    Setting {
        key: "zaqar_listen",
        form: "ADDRESS:PORT",
        help: "TCP address of the messaging service to which Heat pushes, plain HTTP [default: none, it is not served]",
        default: None,
        apply: |c, v| v.address().map(|a| c.zaqar_listen = Some(a)),
    },
    Setting {
        key: "zaqar_roles",
        form: "ROLE,…",
        help: "Of these roles a caller of the messaging service must have one",
        default: Some("heat_stack_user"),
        apply: |c, v| v.names("a list of roles").map(|l| c.zaqar_roles = l),
    },
    Setting {
        key: "swift_roles",
        form: "ROLE,…",
        help: "Be an object store for Heat, too, at zaqar_listen, for callers with one of these roles [default: none]",
        default: None,
        apply: |c, v| v.names("a list of roles").map(|l| c.swift_roles = l),
    },
    Setting {
        key: "zaqar_any_token",
        form: "true|false",
        help: "Take any token at the messaging service, without Keystone: for trying out, on loopback",
        default: Some("false"),
        apply: |c, v| v.boolean().map(|b| c.zaqar_any_token = b),
    },
    Setting {
        key: "keystone_url",
        form: "URL",
        help: "Keystone, which validates tokens and knows where Heat is",
        default: None,
        apply: |c, v| v.url().map(|u| c.keystone_url = Some(u)),
    },
    Setting {
        key: "keystone_ca_file",
        form: "FILE",
        help: "Authorities that sign Keystone's and Heat's certificates, PEM [default: the machine's]",
        default: None,
        apply: |c, v| v.path().map(|p| c.keystone_ca_file = Some(p)),
    },
    Setting {
        key: "keystone_user_id",
        form: "ID",
        help: "User that validates tokens [default: none, each token validates itself, as Keystone allows unless its policy was changed]",
        default: None,
        apply: |c, v| v.keystone_id().map(|i| c.keystone_user_id = Some(i)),
    },
    Setting {
        key: "keystone_password_file",
        form: "FILE",
        help: "File with that user's password, mode 0600",
        default: None,
        apply: |c, v| v.path().map(|p| c.keystone_password_file = Some(p)),
    },
    Setting {
        key: "keystone_project_id",
        form: "ID",
        help: "Project in which that user has a role, in practice \"service\"",
        default: None,
        apply: |c, v| v.keystone_id().map(|i| c.keystone_project_id = Some(i)),
    },
    Setting {
        key: "heat_poll_interval",
        form: "TIME",
        help: "Time between two polls of Heat, for agents whose server has POLL_SERVER_HEAT",
        default: Some("30s"),
        apply: |c, v| v.duration("1s", "1d").map(|d| c.heat_poll_interval = d),
    },
    Setting {
        key: "state_dir",
        form: "DIR",
        help: "Folder of the store, the identity and the admin token, mode 0700",
        default: Some("/var/lib/metadata-server"),
        apply: |c, v| v.path().map(|p| c.state_dir = p),
    },
    Setting {
        key: "certificate_file",
        form: "FILE",
        help: "The server's certificate, PEM [default: made by the server, in state_dir]",
        default: None,
        apply: |c, v| v.path().map(|p| c.certificate_file = Some(p)),
    },
    Setting {
        key: "key_file",
        form: "FILE",
        help: "The key of certificate_file, PEM, mode 0600",
        default: None,
        apply: |c, v| v.path().map(|p| c.key_file = Some(p)),
    },
    Setting {
        key: "advertise",
        form: "HOST:PORT,…",
        help: "Addresses put into enrolment tokens [default: listen, if it names an address]",
        default: None,
        apply: |c, v| v.list().map(|l| c.advertise = l),
    },
    Setting {
        key: "token_ttl",
        form: "TIME",
        help: "How long an enrolment token is good for",
        default: Some("1h"),
        apply: |c, v| v.duration("10s", "30d").map(|d| c.token_ttl = d),
    },
    Setting {
        key: "document_bytes_max",
        form: "SIZE",
        help: "Largest document accepted; agents have a limit of their own, 16 MiB by default",
        default: Some("16MiB"),
        apply: |c, v| v.size(KIB, 256 * MIB).map(|s| c.document_bytes_max = s),
    },
    Setting {
        key: "result_bytes_max",
        form: "SIZE",
        help: "Largest result accepted from an agent",
        default: Some("1MiB"),
        apply: |c, v| v.size(4 * KIB, MIB).map(|s| c.result_bytes_max = s),
    },
    Setting {
        key: "results_per_agent_max",
        form: "COUNT",
        help: "Results kept per agent; the oldest make room, but not the newest of a config that the agent's document lists",
        default: Some("1000"),
        apply: |c, v| v.count(1, 1_000_000).map(|n| c.results_per_agent_max = n),
    },
    Setting {
        key: "agents_max",
        form: "COUNT",
        help: "Agents connected at once; more are refused",
        default: Some("100000"),
        apply: |c, v| v.count(1, 10_000_000).map(|n| c.agents_max = n as usize),
    },
    Setting {
        key: "datagram_bytes_max",
        form: "BYTES",
        help: "Largest datagram to try on a path; 8952 where all of it has jumbo frames",
        default: Some("1452"),
        apply: |c, v| v.count(1_200, 65_507).map(|n| c.datagram_bytes_max = n as usize),
    },
    Setting {
        key: "compression",
        form: "on|off",
        help: "Send documents compressed, and changes as deltas; their length then tells something of what is in them",
        default: Some("on"),
        apply: |c, v| {
            c.compression = match v.text()? {
                "on" => true,
                "off" => false,
                other => return Err(format!("is {other:?}, must be \"on\" or \"off\"")),
            };
            Ok(())
        },
    },
    Setting {
        key: "keep_alive",
        form: "TIME",
        help: "Silence after which an agent is asked for a sign of life",
        default: Some("20s"),
        apply: |c, v| v.duration("1s", "1h").map(|d| c.keep_alive = d),
    },
    Setting {
        key: "peer_timeout",
        form: "TIME",
        help: "Silence after which an agent counts as gone",
        default: Some("60s"),
        apply: |c, v| v.duration("2s", "1d").map(|d| c.peer_timeout = d),
    },
    Setting {
        key: "drain_timeout",
        form: "TIME",
        help: "How long a stop waits for agents and requests",
        default: Some("5s"),
        apply: |c, v| v.duration("0s", "10m").map(|d| c.drain_timeout = d),
    },
    Setting {
        key: "signal",
        form: "relay|off",
        help: "Whether the server tells Heat of results, as the agent's document says",
        default: Some("relay"),
        apply: |c, v| {
            c.signal = match v.text()? {
                "relay" => true,
                "off" => false,
                other => return Err(format!("is {other:?}, must be \"relay\" or \"off\"")),
            };
            Ok(())
        },
    },
    Setting {
        key: "relay_signals_to",
        form: "URL,…",
        help: "Beginnings of the only URLs that are asked for signals, Keystone's too; required with zaqar_listen [default: what agents' documents name]",
        default: None,
        apply: |c, v| v.url_prefixes().map(|l| c.relay_signals_to = l),
    },
    Setting {
        key: "log_format",
        form: "text|json",
        help: "Form of the log lines, on stderr",
        default: Some("text"),
        apply: |c, v| {
            c.log_format = match v.text()? {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                other => return Err(format!("is {other:?}, must be \"text\" or \"json\"")),
            };
            Ok(())
        },
    },
    Setting {
        key: "log_filter",
        form: "FILTER",
        help: "What is logged: error, warn, info, debug, trace, also per module (info,metadata_server::hub=debug)",
        default: Some("info"),
        apply: |c, v| {
            let text = v.text()?;
            tracing_subscriber::EnvFilter::try_new(text)
                .map_err(|e| format!("is {text:?}, which is no filter: {e}"))?;
            c.log_filter = text.to_owned();
            Ok(())
        },
    },
];

/// The settings as flags of a command, each also read from its environment variable.
#[derive(Debug, Clone, Default)]
pub struct SettingsArgs {
    /// `--config`.
    pub file: ConfigFile,
    /// What flags and environment variables set.
    pub overrides: Vec<Override>,
}

const CONFIG_ARG: &str = "config";

impl Args for SettingsArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new(CONFIG_ARG)
            .long("config")
            .value_name("FILE")
            .env("METADATA_SERVER_CONFIG")
            .hide_env_values(true)
            .value_parser(clap::value_parser!(PathBuf))
            .help(format!(
                "Configuration file, TOML; conf.d/*.toml beside it is read after it [default: {}]",
                super::CONFIG_FILE
            ));
        SETTINGS.iter().fold(command.arg(config), |command, setting| {
            let default = setting.default.map(|d| format!(" [default: {d}]")).unwrap_or_default();
            command.arg(
                Arg::new(setting.key)
                    .long(setting.flag())
                    .value_name(setting.form)
                    .env(setting.variable())
                    .hide_env_values(true)
                    .help_heading("Settings (flag > environment > conf.d > file > default)")
                    .help(format!("{}{default}", setting.help)),
            )
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingsArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut environment = Vec::new();
        let mut flags = Vec::new();
        for setting in SETTINGS {
            let Some(text) = matches.get_one::<String>(setting.key) else { continue };
            let value = Value::Text(text.clone());
            let key = setting.key;
            if matches.value_source(key) == Some(ValueSource::EnvVariable) {
                let origin = Origin::Environment(setting.variable());
                environment.push(Override { key, value, origin });
            } else {
                flags.push(Override { key, value, origin: Origin::Flag(setting.flag()) });
            }
        }
        environment.extend(flags);
        let file = matches.get_one::<PathBuf>(CONFIG_ARG).cloned().into();
        Ok(Self { file, overrides: environment })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl SettingsArgs {
    /// Sets a flag that was not given, so that a command can have defaults of its own.
    pub fn or_set(&mut self, key: &'static str, value: impl Into<String>) {
        if !self.overrides.iter().any(|o| o.key == key) {
            let origin = Origin::Flag(key.replace('_', "-"));
            self.overrides.push(Override { key, value: Value::Text(value.into()), origin });
        }
    }

    /// The configuration with these flags in force.
    ///
    /// # Errors
    /// All problems found.
    pub fn load(&self) -> Result<Config, super::ConfigError> {
        Config::load(&self.file, &self.overrides)
    }
}
