//! The configuration: where it is looked for, and what it comes to.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use certs::file::read_public;

use super::command_line::{self, Instead, Said};
use super::ini;
use super::layers::{Layers, Values};
use super::options::{COLLECTORS, DEFAULT};

/// Largest configuration file that is read.
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;
const FILE_NAME: &str = "os-collect-config.conf";
const DIRECTORY_NAME: &str = "os-collect-config.conf.d";
/// No pause and no timeout is longer, in seconds.
const SECONDS_MAX: f64 = 1e9;

/// All settings.
pub(crate) struct Config {
    /// Run by a shell when something changed.
    pub(crate) command: Option<String>,
    /// Where collected metadata is kept.
    pub(crate) cachedir: PathBuf,
    /// Where a copy of it goes.
    pub(crate) backup_cachedir: PathBuf,
    /// Names of collectors, not checked yet.
    pub(crate) collectors: Vec<String>,
    pub(super) one_time: bool,
    pub(super) force: bool,
    pub(super) print_only: bool,
    pub(super) print_cachedir: bool,
    /// First pause.
    pub(crate) pause_min: Duration,
    /// Longest pause.
    pub(crate) pause_max: Duration,
    /// Longest random pause before the first collection.
    pub(crate) splay: Duration,
    /// Keys of lists of deployments.
    pub(super) deployment_keys: Vec<String>,
    pub(super) log: LogSettings,
    pub(super) ec2: Ec2,
    pub(super) cfn: Cfn,
    pub(super) heat_local_paths: Vec<String>,
    pub(super) local_paths: Vec<String>,
    pub(super) heat: Heat,
    pub(super) request: Request,
    pub(super) token_cache: Option<TokenCache>,
    pub(super) zaqar: Zaqar,
    /// What was read.
    pub(crate) sources: Sources,
}

/// There are passwords in it.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("sources", &self.sources).finish_non_exhaustive()
    }
}

/// How much is logged, and where.
pub(super) struct LogSettings {
    pub(super) debug: bool,
    pub(super) file: Option<PathBuf>,
    /// The facility, if the system's log is used.
    pub(super) syslog: Option<String>,
}

pub(super) struct Ec2 {
    pub(super) metadata_url: String,
    pub(super) timeout: Duration,
}

pub(super) struct Cfn {
    pub(super) metadata_url: Option<String>,
    pub(super) hint: Option<String>,
    pub(super) ca_certificate: Option<PathBuf>,
    pub(super) stack_name: Option<String>,
    pub(super) paths: Vec<String>,
    pub(super) access_key_id: Option<String>,
    pub(super) secret_access_key: Option<String>,
    pub(super) deployment_keys: Vec<String>,
    pub(super) timeout: Duration,
}

/// Who signs in to Keystone, and where.
pub(super) struct User {
    pub(super) auth_url: Option<String>,
    pub(super) user_id: Option<String>,
    pub(super) password: Option<String>,
    pub(super) project_id: Option<String>,
    pub(super) region: Option<String>,
}

pub(super) struct Heat {
    pub(super) user: User,
    pub(super) stack_id: Option<String>,
    pub(super) resource_name: Option<String>,
}

pub(super) struct Request {
    pub(super) metadata_url: Option<String>,
    pub(super) timeout: Duration,
}

/// Where tokens are kept, and how long.
pub(super) struct TokenCache {
    pub(super) directory: PathBuf,
    pub(super) ttl: Duration,
}

pub(super) struct Zaqar {
    pub(super) user: User,
    pub(super) queue_id: Option<String>,
    pub(super) use_websockets: bool,
    pub(super) check_certificate: bool,
    pub(super) ca_file: Option<PathBuf>,
}

/// The files that were read, and the directories whose files were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sources {
    files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
}

impl Sources {
    /// The contents of all files that are there at the moment.
    pub(super) fn contents(&self) -> Vec<Vec<u8>> {
        let within = self.directories.iter().flat_map(|directory| configs_in(directory));
        let all = self.files.iter().cloned().chain(within);
        all.filter_map(|path| read_public(&path, CONFIG_BYTES_MAX).ok()).collect()
    }
}

/// Why there is no configuration.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoConfig {
    /// The command line asks for something else, or is wrong.
    Instead(Instead),
    /// A file is missing or wrong, or a value is.
    Wrong(String),
}

impl From<String> for NoConfig {
    fn from(what: String) -> Self {
        Self::Wrong(what)
    }
}

/// Reads the arguments after the program's name, and the files and variables that count with them.
///
/// # Errors
/// [`NoConfig`].
pub(crate) fn load(
    arguments: &[OsString],
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Config, NoConfig> {
    let said = command_line::parse(arguments).map_err(NoConfig::Instead)?;
    let mut reader = Reader::default();
    if !said.iter().any(|piece| matches!(piece, Said::ConfigFile(_)))
        && let Some(path) = first_of(FILE_NAME)
    {
        reader.file(path)?;
    }
    if !said.iter().any(|piece| matches!(piece, Said::ConfigDir(_)))
        && let Some(path) = first_of(DIRECTORY_NAME)
    {
        reader.directory(path)?;
    }
    for piece in said {
        match piece {
            Said::Value(at, value) => reader.layers.say(at, value),
            Said::ConfigFile(path) => reader.file(expanded(&path))?,
            Said::ConfigDir(path) => reader.directory(expanded(&path))?,
            Said::Collectors(collectors) => reader.layers.say_collectors(collectors),
        }
    }
    if !reader.missing.is_empty() {
        let list = reader.missing.join(",");
        return Err(format!("Failed to find some config files: {list}").into());
    }
    let values = reader.layers.resolve(environment)?;
    Ok(Config::new(&values, reader.sources))
}

#[derive(Default)]
struct Reader {
    layers: Layers,
    sources: Sources,
    missing: Vec<String>,
}

impl Reader {
    fn file(&mut self, path: PathBuf) -> Result<(), NoConfig> {
        self.read(&path)?;
        self.sources.files.push(path);
        Ok(())
    }

    fn directory(&mut self, path: PathBuf) -> Result<(), NoConfig> {
        if !path.exists() {
            return Err(format!("Failed to read config file directory: {}", path.display()).into());
        }
        for file in configs_in(&path) {
            self.read(&file)?;
        }
        self.sources.directories.push(path);
        Ok(())
    }

    fn read(&mut self, path: &Path) -> Result<(), NoConfig> {
        let shown = path.display();
        let bytes = match fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.missing.push(shown.to_string());
                return Ok(());
            }
            Ok(metadata) if metadata.len() > CONFIG_BYTES_MAX => {
                let what =
                    format!("{shown} is larger than the {CONFIG_BYTES_MAX} bytes that are read");
                return Err(what.into());
            }
            // Pipes and /dev/null too: it is what the operator named.
            _ => fs::read(path).map_err(|error| format!("cannot read {shown}: {error}"))?,
        };
        let text = String::from_utf8(bytes).map_err(|_| format!("{shown} is no UTF-8"))?;
        let assignments =
            ini::parse(&text).map_err(|error| format!("Failed to parse {shown}: {error}"))?;
        self.layers.say_file(assignments);
        Ok(())
    }
}

impl Default for Layers {
    fn default() -> Self {
        Self::new()
    }
}

/// The `*.conf` of a directory, in order.
fn configs_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            name.ends_with(b".conf") && !name.starts_with(b".")
        })
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

/// Where the name is first found: at home, or in `/etc`.
fn first_of(name: &str) -> Option<PathBuf> {
    let at_home = home().map(|home| home.join(name));
    at_home.into_iter().chain([Path::new("/etc").join(name)]).find(|path| path.exists())
}

fn home() -> Option<PathBuf> {
    env::var_os("HOME").map(PathBuf::from).or_else(|| {
        let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok()??;
        Some(user.dir)
    })
}

fn expanded(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), home()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => path.into(),
    }
}

/// A time in seconds as people write it: whatever is no time is none.
fn seconds(number: f64) -> Duration {
    Duration::try_from_secs_f64(number.clamp(0.0, SECONDS_MAX)).unwrap_or_default()
}

impl Config {
    fn new(values: &Values, sources: Sources) -> Self {
        let text = |group: &str, key: &str| values.text(group, key);
        let named = |group: &str, key: &str| text(group, key).filter(|value| !value.is_empty());
        let path = |group: &str, key: &str| named(group, key).map(PathBuf::from);
        let time = |group: &str, key: &str| seconds(values.number(group, key));
        // Nobody answers in no time.
        let timeout = |group: &str| time(group, "timeout").max(Duration::from_millis(1));
        let user = |group: &str| User {
            auth_url: text(group, "auth_url"),
            user_id: text(group, "user_id"),
            password: text(group, "password"),
            project_id: text(group, "project_id"),
            region: named(group, "region_name"),
        };
        let flag = |key: &str| values.flag(DEFAULT, key);
        let log_file = match (path(DEFAULT, "log_dir"), path(DEFAULT, "log_file")) {
            (Some(directory), file) => {
                Some(directory.join(file.unwrap_or_else(|| "os-collect-config.log".into())))
            }
            (None, file) => file,
        };
        let facility = text(DEFAULT, "syslog_log_facility").unwrap_or_default();
        let force = flag("force");
        Self {
            command: named(DEFAULT, "command"),
            cachedir: text(DEFAULT, "cachedir").unwrap_or_default().into(),
            backup_cachedir: text(DEFAULT, "backup_cachedir").unwrap_or_default().into(),
            collectors: values.list(DEFAULT, "collectors"),
            one_time: flag("one_time") || force,
            force,
            print_only: flag("print_only"),
            print_cachedir: flag("print_cachedir"),
            pause_min: time(DEFAULT, "min_polling_interval"),
            pause_max: time(DEFAULT, "polling_interval"),
            splay: time(DEFAULT, "splay"),
            deployment_keys: values.list(DEFAULT, "deployment_key"),
            log: LogSettings {
                debug: flag("debug"),
                file: log_file,
                syslog: (flag("use_syslog") || flag("use_journal")).then_some(facility),
            },
            ec2: Ec2 {
                metadata_url: text("ec2", "metadata_url").unwrap_or_default(),
                timeout: timeout("ec2"),
            },
            cfn: Cfn {
                metadata_url: text("cfn", "metadata_url"),
                hint: named("cfn", "heat_metadata_hint"),
                ca_certificate: path("cfn", "ca_certificate"),
                stack_name: text("cfn", "stack_name"),
                paths: values.list("cfn", "path"),
                access_key_id: text("cfn", "access_key_id"),
                secret_access_key: text("cfn", "secret_access_key"),
                deployment_keys: values.list("cfn", "deployment_key"),
                timeout: timeout("cfn"),
            },
            heat_local_paths: values.list("heat_local", "path"),
            local_paths: values.list("local", "path"),
            heat: Heat {
                user: user("heat"),
                stack_id: text("heat", "stack_id"),
                resource_name: text("heat", "resource_name"),
            },
            request: Request {
                metadata_url: text("request", "metadata_url"),
                timeout: timeout("request"),
            },
            token_cache: path("keystone", "cache_dir")
                .map(|directory| TokenCache { directory, ttl: time("keystone", "cache_ttl") }),
            zaqar: Zaqar {
                user: user("zaqar"),
                queue_id: text("zaqar", "queue_id"),
                use_websockets: values.flag("zaqar", "use_websockets"),
                check_certificate: values.flag("zaqar", "ssl_certificate_validation"),
                ca_file: path("zaqar", "ca_file"),
            },
            sources,
        }
    }

    /// The collectors to ask, in order.
    ///
    /// # Errors
    /// Some names are those of none.
    pub(crate) fn known_collectors(&self) -> Result<Vec<&'static str>, String> {
        let known = |name: &String| COLLECTORS.into_iter().find(|collector| collector == name);
        let unknown: Vec<&String> =
            self.collectors.iter().filter(|name| known(name).is_none()).collect();
        if unknown.is_empty() {
            return Ok(self.collectors.iter().filter_map(known).collect());
        }
        Err(format!(
            "Unknown collectors {unknown:?}. Valid collectors are: {COLLECTORS:?}; write one in each \
             line: collectors = NAME"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(arguments: &[&str]) -> Result<Config, NoConfig> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        super::load(&arguments, |_| None)
    }

    fn wrong(arguments: &[&str]) -> String {
        match load(arguments) {
            Err(NoConfig::Wrong(what)) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn files_directories_and_options_count_in_the_order_given() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let write = |name: &str, text: &str| fs::write(path(name), text).unwrap();
        fs::create_dir(path("d")).unwrap();
        write("a", "[DEFAULT]\ncommand=a\npolling_interval=7\n[local]\npath=/a\n");
        write("d/2.conf", "[DEFAULT]\ncommand=two\n[local]\npath=/d2\n");
        write("d/1.conf", "[DEFAULT]\ncommand=one\n[local]\npath=/d1\n");
        write("d/.hidden.conf", "[DEFAULT]\ncommand=hidden\n");
        write("d/3.other", "nonsense");
        let config = load(&["--config-file", &path("a"), "--config-dir", &path("d")]).unwrap();
        assert_eq!(config.command.as_deref(), Some("two"));
        assert_eq!(config.pause_max, Duration::from_secs(7));
        assert_eq!(config.local_paths, ["/a", "/d1", "/d2"]);
        assert_eq!(config.sources.contents().len(), 3);
        let config = load(&["-c", "said", "--config-file", &path("a")]).unwrap();
        assert_eq!(config.command.as_deref(), Some("a"));
        let config = load(&["--config-file", &path("a"), "-c", "said", "ec2"]).unwrap();
        assert_eq!(config.command.as_deref(), Some("said"));
        assert_eq!(config.known_collectors().unwrap(), ["ec2"]);
        let config = load(&["--config-file", "/dev/null", "--force"]).unwrap();
        assert!(config.one_time && config.command.is_none());
        assert_eq!(config.known_collectors().unwrap(), COLLECTORS);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c").display().to_string();
        assert!(wrong(&["--config-file", "/no/such"]).ends_with("config files: /no/such"));
        assert!(wrong(&["--config-dir", "/no/such"]).ends_with("directory: /no/such"));
        fs::write(&path, "[DEFAULT]\nsecret").unwrap();
        assert_eq!(
            wrong(&["--config-file", &path]),
            format!("Failed to parse {path}: line 2: no ':' or '=' found")
        );
        fs::write(&path, b"\xff").unwrap();
        assert!(wrong(&["--config-file", &path]).ends_with("is no UTF-8"));
        let config = load(&["--config-file", "/dev/null", "[\"ec2\"]"]).unwrap();
        let error = config.known_collectors().unwrap_err();
        assert!(error.starts_with("Unknown collectors"), "{error}");
    }

    #[test]
    fn log_files_and_odd_times_come_out_sensible() {
        let log = |arguments: &[&str]| {
            let mut all = vec!["--config-file", "/dev/null"];
            all.extend(arguments);
            load(&all).unwrap().log.file
        };
        assert_eq!(log(&[]), None);
        assert_eq!(log(&["--log-file", "/l"]), Some("/l".into()));
        assert_eq!(log(&["--log-dir", "/d"]), Some("/d/os-collect-config.log".into()));
        assert_eq!(log(&["--logdir", "/d", "--logfile", "l"]), Some("/d/l".into()));
        for odd in ["-5", "nan", "inf", "1e300"] {
            let _ = load(&["--config-file", "/dev/null", "--splay", odd]).unwrap();
        }
    }
}
