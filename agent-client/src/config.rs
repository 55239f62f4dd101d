//! Settings: one table from which file keys, flags and environment variables come.
//!
//! Order, strongest first: flag, environment variable (`AGENT_CLIENT_` and the key in capitals),
//! `conf.d/*.toml` beside the file (sorted, later wins), the file, the default. All errors are found
//! before any is reported.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use crate::hooks::containers::Containers;
use crate::hooks::{Hooks, built_in, cgroup, script};
use crate::pipeline::RunLimits;
use crate::sweep;

/// Where the configuration is looked for when no file is named.
pub const CONFIG_FILE: &str = "/etc/agent-client/config.toml";
/// Where state is kept unless said otherwise.
pub const STATE_DIR: &str = "/var/lib/agent-client";
/// What environment variables of settings begin with.
pub const ENVIRONMENT_PREFIX: &str = "AGENT_CLIENT_";
/// Where hooks of others are, after the ones in `HEAT_CONFIG_HOOKS` and those built in.
const HOOK_DIRS: [&str; 2] = ["/usr/libexec/heat-config/hooks", "/var/lib/heat-config/hooks"];
/// Where scripts are written and run.
pub const SCRIPT_WORKING: &str = "/var/lib/heat-config/heat-config-script";
/// Where scripts write their outputs.
pub const SCRIPT_OUTPUTS: &str = "/var/run/heat-config/heat-config-script";

/// Most lanes that may be at work at a time.
pub const LANES_MAX: usize = 64;

/// Every setting, with its value in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where everything that lasts is kept.
    pub state_dir: PathBuf,
    /// Where servers are, `HOST:PORT`; empty: as the token says.
    pub servers: Vec<String>,
    /// A token to enrol with.
    pub token_file: Option<PathBuf>,
    /// Silence after which a sign of life is sent.
    pub keep_alive: Duration,
    /// How long a sign of life may go unanswered until the server counts as lost. A server that was killed
    /// is noticed after `keep_alive` and this.
    pub peer_timeout: Duration,
    /// Longest pause between attempts to reach a server.
    pub reconnect_max: Duration,
    /// How long a running hook may go on when the agent is told to stop.
    pub stop_wait: Duration,
    /// How long a hook may run whose deployment does not say (`options.timeout`); zero: for ever.
    pub hook_timeout: Duration,
    /// How long a hook that was asked to end has until it is killed.
    pub kill_grace: Duration,
    /// How many lanes (`options.lane`) may be at work at a time.
    pub lanes_max: usize,
    /// Where runs get control groups of their own.
    pub cgroup: cgroup::Choice,
    /// A configuration of os-collect-config: pushed documents land in its cache, its command is run, and
    /// then their deployments; see [`crate::collect`].
    pub collect_config: Option<PathBuf>,
    /// How long no server may have been reached until the collectors of `collect_config` are asked; zero:
    /// never.
    pub poll_after: Duration,
    /// What is logged, in the syntax of tracing's `EnvFilter`.
    pub log_filter: String,
    /// Form of the log lines.
    pub log_format: LogFormat,
}

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl Default for Settings {
    fn default() -> Self {
        let limits = RunLimits::default();
        Self {
            state_dir: STATE_DIR.into(),
            servers: Vec::new(),
            token_file: None,
            // A killed server is noticed within 20 s. At 30 % loss each way and a round trip of 50 ms a
            // simulated month had no false alarm, and at 300 ms 16: some nine probes of two packets fit
            // into the 12 s. With 10 s and 10 s it were 4 and 38.
            keep_alive: Duration::from_secs(8),
            peer_timeout: Duration::from_secs(12),
            reconnect_max: Duration::from_secs(60),
            stop_wait: Duration::from_secs(20),
            hook_timeout: limits.timeout,
            kill_grace: limits.kill_grace,
            lanes_max: limits.lanes_max,
            cgroup: cgroup::Choice::default(),
            collect_config: None,
            // A restarted server is back long before; a stack waits for an hour.
            poll_after: Duration::from_secs(600),
            log_filter: "info".into(),
            log_format: LogFormat::Text,
        }
    }
}

/// One setting: its key, what it means, and how a text becomes its value.
#[derive(Debug)]
pub struct Key {
    /// In the file; the flag has dashes, the variable capitals.
    pub name: &'static str,
    set: fn(&mut Settings, &str) -> Result<(), String>,
    /// The value as it would be set.
    get: fn(&Settings) -> String,
}

/// A setting's value in force, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The key.
    pub name: &'static str,
    /// The value as text; empty: none.
    pub value: String,
    /// `default`, a file with its line, an environment variable or a flag.
    pub from: String,
}

/// All settings.
pub const KEYS: [Key; 15] = [
    Key {
        name: "state_dir",
        set: |s, v| path(v).map(|v| s.state_dir = v),
        get: |s| s.state_dir.display().to_string(),
    },
    Key {
        name: "servers",
        set: |s, v| servers(v).map(|v| s.servers = v),
        get: |s| s.servers.join(","),
    },
    Key {
        name: "token_file",
        set: |s, v| path(v).map(|v| s.token_file = Some(v)),
        get: |s| shown(s.token_file.as_deref()),
    },
    Key {
        name: "keep_alive",
        set: |s, v| duration(v, "100ms", "1h").map(|v| s.keep_alive = v),
        get: |s| time(s.keep_alive),
    },
    Key {
        name: "peer_timeout",
        set: |s, v| duration(v, "300ms", "1d").map(|v| s.peer_timeout = v),
        get: |s| time(s.peer_timeout),
    },
    Key {
        name: "reconnect_max",
        set: |s, v| duration(v, "100ms", "1h").map(|v| s.reconnect_max = v),
        get: |s| time(s.reconnect_max),
    },
    Key {
        name: "stop_wait",
        set: |s, v| duration(v, "0s", "1h").map(|v| s.stop_wait = v),
        get: |s| time(s.stop_wait),
    },
    Key {
        name: "hook_timeout",
        set: |s, v| time_or_never(v).map(|v| s.hook_timeout = v),
        get: |s| time(s.hook_timeout),
    },
    Key {
        name: "kill_grace",
        set: |s, v| duration(v, "0s", "1h").map(|v| s.kill_grace = v),
        get: |s| time(s.kill_grace),
    },
    Key {
        name: "lanes_max",
        set: |s, v| number(v, 1, LANES_MAX).map(|v| s.lanes_max = v),
        get: |s| s.lanes_max.to_string(),
    },
    Key {
        name: "cgroup",
        set: |s, v| v.parse().map(|v| s.cgroup = v),
        get: |s| s.cgroup.to_string(),
    },
    Key {
        name: "collect_config",
        set: |s, v| path(v).map(|v| s.collect_config = Some(v)),
        get: |s| shown(s.collect_config.as_deref()),
    },
    Key {
        name: "poll_after",
        set: |s, v| time_or_never(v).map(|v| s.poll_after = v),
        get: |s| time(s.poll_after),
    },
    Key {
        name: "log_filter",
        set: |s, v| filter(v).map(|v| s.log_filter = v),
        get: |s| s.log_filter.clone(),
    },
    Key {
        name: "log_format",
        set: |s, v| log_format(v).map(|v| s.log_format = v),
        get: |s| s.log_format.to_string(),
    },
];

/// Everything that is wrong, each with its place.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n       "))
    }
}

/// A value before it is known to be good: key, text (none if it is no text), and where it came from.
type Given = (String, Option<String>, String);

impl Settings {
    /// Puts the settings together. `file` is one that was asked for, and must then exist; `flags` are keys
    /// and values; `environment` looks a variable up.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn load(
        file: Option<&Path>,
        environment: impl Fn(&str) -> Option<String>,
        flags: &[(&'static str, String)],
    ) -> Result<Self, ConfigErrors> {
        Self::load_with_origins(file, environment, flags).map(|(settings, _)| settings)
    }

    /// As [`load`](Self::load), and where each value comes from, in the order of [`KEYS`].
    ///
    /// # Errors
    /// All that is wrong.
    pub fn load_with_origins(
        file: Option<&Path>,
        environment: impl Fn(&str) -> Option<String>,
        flags: &[(&'static str, String)],
    ) -> Result<(Self, Vec<Origin>), ConfigErrors> {
        let mut errors = Vec::new();
        let mut given = read_files(file, &mut errors);
        for key in &KEYS {
            let variable = format!("{ENVIRONMENT_PREFIX}{}", key.name.to_uppercase());
            if let Some(value) = environment(&variable) {
                given.push((
                    key.name.into(),
                    Some(value),
                    format!("environment variable {variable}"),
                ));
            }
        }
        for (name, value) in flags {
            let origin = format!("--{}", name.replace('_', "-"));
            given.push(((*name).into(), Some(value.clone()), origin));
        }
        let mut settings = Self::default();
        let mut froms = BTreeMap::new();
        for (name, value, origin) in given {
            let set = match (KEYS.iter().find(|key| key.name == name), value) {
                (Some(key), Some(value)) => {
                    (key.set)(&mut settings, &value).map_err(|problem| format!("{name} {problem}"))
                }
                (Some(_), None) => Err(format!("{name} must be a string or a list of strings")),
                (None, _) => Err(unknown(&name)),
            };
            errors.extend(set.err().map(|problem| format!("{origin}: {problem}")));
            froms.insert(name, origin);
        }
        let origins = KEYS.iter().map(|key| Origin {
            name: key.name,
            value: (key.get)(&settings),
            from: froms.remove(key.name).unwrap_or_else(|| "default".into()),
        });
        let origins = origins.collect();
        if errors.is_empty() { Ok((settings, origins)) } else { Err(ConfigErrors(errors)) }
    }

    /// A path in the state directory.
    pub fn state(&self, name: &str) -> PathBuf {
        self.state_dir.join(name)
    }

    /// Whether the collectors of a configuration of os-collect-config are asked where there is no server.
    pub fn polls(&self) -> bool {
        self.collect_config.is_some() && !self.poll_after.is_zero()
    }

    /// Whether this is the agent of the whole machine: run by root, with the usual state directory. Any other
    /// one keeps to its own directory.
    pub fn is_of_system(&self, is_root: bool) -> bool {
        is_root && self.state_dir == Path::new(STATE_DIR)
    }

    /// The hooks of this machine. The contract's directories are used by root with the usual state
    /// directory; anybody else works within the state directory, and still finds the system's hooks.
    pub fn hooks(&self, environment: impl Fn(&str) -> Option<String>, is_root: bool) -> Hooks {
        let of_system = self.is_of_system(is_root);
        let place = |variable: &str, of_the_system: &str, own: &str| match environment(variable) {
            Some(path) if !path.is_empty() => PathBuf::from(path),
            _ if of_system => of_the_system.into(),
            _ => self.state(own),
        };
        let working = place("HEAT_SCRIPT_WORKING", SCRIPT_WORKING, "heat-config-script/work");
        let outputs = place("HEAT_SCRIPT_OUTPUTS", SCRIPT_OUTPUTS, "heat-config-script/outputs");
        let own = (!of_system).then(|| self.state("hooks"));
        let directories = own.into_iter().chain(HOOK_DIRS.map(PathBuf::from)).collect();
        let preferred = environment("HEAT_CONFIG_HOOKS").filter(|path| !path.is_empty());
        let is_set = |name: &str| environment(name).is_some_and(|path| !path.is_empty());
        let places = (!of_system).then(|| built_in::places(&self.state_dir, is_set));
        let places = places.into_iter().flatten().collect();
        // Two agents on one machine have two state directories.
        let instance =
            std::fs::canonicalize(&self.state_dir).unwrap_or_else(|_| self.state_dir.clone());
        Hooks::new(
            directories,
            preferred.map(PathBuf::from),
            script::Directories::new(working, outputs),
            instance.to_string_lossy().into_owned(),
        )
        .with_environment(places)
        .with_containers(Containers::of_groups(&self.state_dir))
        .with_leftovers(sweep::directories(&self.state_dir, of_system, &environment))
    }
}

fn read_files(file: Option<&Path>, errors: &mut Vec<String>) -> Vec<Given> {
    let main = file.unwrap_or_else(|| Path::new(CONFIG_FILE));
    let mut given = Vec::new();
    let mut paths = vec![main.to_owned()];
    paths.extend(fragments(&main.with_file_name("conf.d"), errors));
    for path in paths {
        match std::fs::read_to_string(&path) {
            Ok(text) => parse(&path, &text, &mut given, errors),
            Err(e) if e.kind() == ErrorKind::NotFound && file.is_none() && path == main => {}
            Err(e) => errors.push(format!("{}: cannot be read: {e}", path.display())),
        }
    }
    given
}

fn fragments(folder: &Path, errors: &mut Vec<String>) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Vec::new();
        }
        Err(e) => {
            errors.push(format!("{}: cannot be read: {e}", folder.display()));
            return Vec::new();
        }
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    paths
}

fn parse(path: &Path, text: &str, given: &mut Vec<Given>, errors: &mut Vec<String>) {
    let place = |at: usize| {
        let line = text.bytes().take(at).filter(|&b| b == b'\n').count() + 1;
        format!("{}:{line}", path.display())
    };
    let (table, faults) = DeTable::parse_recoverable(text);
    for fault in faults {
        let at = fault.span().map_or(0, |span| span.start);
        errors.push(format!("{}: not TOML: {}", place(at), fault.message()));
    }
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let name = key.get_ref().clone().into_owned();
        given.push((name, plain(value.get_ref()), place(key.span().start)));
    }
}

/// The text of a value; a list is joined by commas, as in flags and variables.
fn plain(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(number) => Some(number.as_str().to_owned()),
        DeValue::Array(entries) => {
            let texts: Option<Vec<&str>> = entries.iter().map(|e| e.get_ref().as_str()).collect();
            texts.map(|texts| texts.join(","))
        }
        _ => None,
    }
}

fn unknown(key: &str) -> String {
    let normal = key.replace('-', "_").to_lowercase();
    let nearest = KEYS.iter().map(|k| (distance(&normal, k.name), k.name)).min();
    match nearest {
        Some((distance, near)) if distance <= 1 + near.len() / 4 => {
            format!("unknown key {key:?}; did you mean {near:?}?")
        }
        _ => {
            let names: Vec<&str> = KEYS.iter().map(|k| k.name).collect();
            format!("unknown key {key:?}; the keys are {}", names.join(", "))
        }
    }
}

/// Letters to insert, delete or replace to get from one to the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("must not be empty".into()) } else { Ok(text.into()) }
}

fn servers(text: &str) -> Result<Vec<String>, String> {
    let list: Vec<String> = text.split(',').map(|entry| entry.trim().to_owned()).collect();
    let fits = |entry: &String| {
        let parts = entry.rsplit_once(':');
        parts.is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
        })
    };
    match list.iter().find(|entry| !fits(entry)) {
        Some(bad) => Err(format!("has {bad:?}, must be HOST:PORT (several with commas between)")),
        None => Ok(list),
    }
}

fn filter(text: &str) -> Result<String, String> {
    match text.parse::<tracing_subscriber::filter::EnvFilter>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("is {text:?}: {error}; try \"info\" or \"agent_client=debug\"")),
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("is {text:?}, must be \"text\" or \"json\"")),
    }
}

fn duration(text: &str, min: &str, max: &str) -> Result<Duration, String> {
    let fits = |d: &Duration| {
        parse_duration(min).is_none_or(|min| *d >= min)
            && parse_duration(max).is_none_or(|max| *d <= max)
    };
    parse_duration(text)
        .filter(fits)
        .ok_or_else(|| format!("is {text:?}, must be a time from {min} to {max}, like \"30s\""))
}

/// A time; 0 needs no unit.
fn time_or_never(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { duration(text, "0s", "366d") }
}

fn number(text: &str, min: usize, max: usize) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| format!("is {text:?}, must be a number from {min} to {max}"))
}

fn shown(path: Option<&Path>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

/// A time as [`parse_duration`] reads it, in the largest unit that says it exactly.
fn time(time: Duration) -> String {
    let ms = time.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    match units.into_iter().find(|(_, unit)| ms > 0 && ms.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", ms / unit),
        None if ms == 0 => "0s".into(),
        None => format!("{ms}ms"),
    }
}

/// Reads `500ms`, `30s`, `5m`, `1h`, `1d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(ms).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::Hook;

    fn none(_: &str) -> Option<String> {
        None
    }

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn flag_beats_variable_beats_fragment_beats_file_beats_default() {
        let (dir, path) = file(
            "keep_alive = \"1s\"\npeer_timeout = \"11s\"\nstop_wait = \"1s\"\nreconnect_max = \"1s\"\n",
        );
        std::fs::create_dir(dir.path().join("conf.d")).unwrap();
        std::fs::write(
            dir.path().join("conf.d/10.toml"),
            "keep_alive = \"2s\"\nstop_wait = \"2s\"\nreconnect_max = \"2s\"",
        )
        .unwrap();
        let environment = |name: &str| match name {
            "AGENT_CLIENT_KEEP_ALIVE" | "AGENT_CLIENT_STOP_WAIT" => Some("3s".into()),
            _ => None,
        };
        let settings =
            Settings::load(Some(&path), environment, &[("keep_alive", "4s".into())]).unwrap();
        assert_eq!(settings.keep_alive, Duration::from_secs(4));
        assert_eq!(settings.stop_wait, Duration::from_secs(3));
        assert_eq!(settings.reconnect_max, Duration::from_secs(2));
        assert_eq!(settings.peer_timeout, Duration::from_secs(11));
        assert_eq!(settings.log_format, LogFormat::Text);
    }

    #[test]
    fn each_value_in_force_is_shown_with_its_origin_and_can_be_set_again() {
        let (_dir, path) = file("keep_alive = \"90s\"\nservers = [\"a:1\", \"b:2\"]\n");
        let environment = |name: &str| (name == "AGENT_CLIENT_LOG_FORMAT").then(|| "json".into());
        let flags = [("stop_wait", "1500ms".to_owned())];
        let (settings, origins) =
            Settings::load_with_origins(Some(&path), environment, &flags).unwrap();
        let shown: Vec<String> = origins
            .iter()
            .map(|o| {
                format!("{}={} {}", o.name, o.value, o.from.replace(path.to_str().unwrap(), "FILE"))
            })
            .collect();
        insta::assert_snapshot!(shown.join("\n"));
        let again: Vec<(&str, String)> = origins
            .into_iter()
            .filter(|origin| !origin.value.is_empty())
            .map(|origin| (origin.name, origin.value))
            .collect();
        assert_eq!(Settings::load(None, none, &again).unwrap(), settings);
    }

    #[test]
    fn all_errors_are_reported_with_place_value_and_the_near_key() {
        let text = "sate_dir = \"/x\"\n[nonsense]\n";
        let (_dir, path) = file(&format!(
            "keep-alive = \"3s\"\nservers = [\"a:1\", \"b\"]\npeer_timeout = \"1y\"\nlog_format = 5\nstop_wait = true\n{text}"
        ));
        let flags = [("log_filter", "a=b=c".to_owned())];
        let errors = Settings::load(Some(&path), none, &flags).unwrap_err();
        let place = path.display().to_string();
        let shown: Vec<String> =
            errors.0.iter().map(|error| error.replace(&place, "config.toml")).collect();
        insta::assert_snapshot!(shown.join("\n"));
    }

    #[test]
    fn a_missing_file_is_an_error_only_if_it_was_named() {
        assert!(Settings::load(None, none, &[]).is_ok());
        let errors = Settings::load(Some(Path::new("/nonexistent/c.toml")), none, &[]).unwrap_err();
        assert!(errors.0[0].starts_with("/nonexistent/c.toml: cannot be read:"), "{errors}");
    }

    #[test]
    fn only_root_with_the_usual_state_directory_works_in_the_systems_directories() {
        let usual = Settings::default();
        let system = format!("{:?}", usual.hooks(none, true));
        assert!(system.contains(SCRIPT_WORKING) && system.contains(SCRIPT_OUTPUTS));
        for (settings, is_root) in
            [(usual.clone(), false), (Settings { state_dir: "/tmp/x".into(), ..usual }, true)]
        {
            let own = format!("{:?}", settings.hooks(none, is_root));
            let state = settings.state_dir.display().to_string();
            assert!(own.contains(&format!("{state}/heat-config-script/work")), "{own}");
            assert!(own.contains(&format!("{state}/hooks")), "{own}");
            assert!(own.contains(HOOK_DIRS[0]), "{own}");
        }
        let moved = |name: &str| (name == "HEAT_SCRIPT_WORKING").then(|| "/w".to_owned());
        assert!(format!("{:?}", Settings::default().hooks(moved, true)).contains("\"/w\""));
    }

    #[test]
    fn the_directory_in_heat_config_hooks_may_replace_even_the_script_hook() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("script"), "").unwrap();
        let variable = |name: &str| {
            (name == "HEAT_CONFIG_HOOKS").then(|| dir.path().to_str().unwrap().to_owned())
        };
        let settings = Settings { state_dir: dir.path().join("state"), ..Settings::default() };
        assert_eq!(settings.hooks(none, true).find("script"), Some(Hook::Script));
        let replaced = settings.hooks(variable, true).find("script");
        assert_eq!(replaced, Some(Hook::External(dir.path().join("script"))));
        assert_eq!(settings.hooks(none, true).find("no-such-hook"), None);
    }
}
