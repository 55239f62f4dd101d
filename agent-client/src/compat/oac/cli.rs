//! `os-apply-config`: the command.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::{ArgAction, Parser};
use serde_json::{Map, Value};

use super::write::{Action, action, write_all};
use super::{metadata, templates, types};
use crate::compat::arguments;
use crate::compat::pylog::{Level, Log, Style};
use crate::json_text::json_text;

/// Where templates are.
const TEMPLATES: &str = "/usr/libexec/os-apply-config/templates";
/// Where they were; used only where the new place does not exist.
const TEMPLATES_OLD: [&str; 2] =
    ["/opt/stack/os-apply-config/templates", "/opt/stack/os-config-applier/templates"];
/// Kept if we are root.
const LOG_FILE: &str = "/var/log/os-apply-config.log";
/// What `--boolean-key` says of a value that is neither true nor false.
const EXIT_NO_BOOLEAN: u8 = 255;

/// Makes files from templates and metadata: all of them, or none.
///
/// The metadata is the JSON files of --metadata, else of OS_CONFIG_FILES (with colons between), else of the
/// list that os-collect-config leaves, merged in order after the --fallback-metadata.
#[derive(Debug, Parser)]
#[command(name = "os-apply-config", version, infer_long_args = true)]
struct Cli {
    /// Root directory of the templates [default: OS_CONFIG_APPLIER_TEMPLATES, else /usr/libexec/os-apply-config/templates]
    #[arg(short, long, value_name = "TEMPLATE_ROOT")]
    templates: Option<PathBuf>,
    /// Root directory of the files
    #[arg(short, long, value_name = "OUT_DIR", default_value = "/")]
    output: PathBuf,
    /// Metadata files, instead of those in OS_CONFIG_FILES
    #[arg(short, long, value_name = "METADATA_FILE", num_args = 0.., action = ArgAction::Append)]
    metadata: Vec<PathBuf>,
    /// Metadata files that are read first, so that all others override them
    #[arg(long, value_name = "FALLBACK_METADATA", num_args = 0.., action = ArgAction::Append, default_values = metadata::FALLBACK)]
    fallback_metadata: Vec<PathBuf>,
    /// Render everything, write nothing
    #[arg(short, long)]
    validate: bool,
    /// Print what would change in which file, write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the root directory of the templates and exit
    #[arg(long)]
    print_templates: bool,
    /// Use the object at this key instead of all metadata
    #[arg(short, long)]
    subhash: Option<String>,
    /// Print the value at this key, such as a.b.0, and exit
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// With --key: fail unless the value is int, default, netaddress, netdevice, dsn, swiftdevices, username or raw
    #[arg(long = "type", value_name = "TYPE", default_value = "default")]
    kind: String,
    /// With --key: what to print if there is no such key, instead of failing
    #[arg(long)]
    key_default: Option<String>,
    /// Exit with 0 if the value at this key is true, with 1 if it is false, else with 255
    #[arg(long, value_name = "KEY")]
    boolean_key: Option<String>,
    /// List of metadata files that os-collect-config leaves [default: OS_CONFIG_FILES_PATH, else /var/lib/os-collect-config/os_config_files.json]
    #[arg(long, value_name = "FILE")]
    os_config_files: Option<PathBuf>,
    /// The word "diff" means --dry-run
    #[arg(hide = true, value_parser = ["diff"])]
    word: Option<String>,
}

/// Runs the command; `arguments` begin with its name.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let cli: Cli = match arguments::parse(arguments) {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    if cli.print_templates {
        return print(&[cli.templates_root(None).as_os_str().as_bytes(), b"\n"].concat());
    }
    let mut log = Log::new(Style::OsApplyConfig, Level::Info);
    if rustix::process::geteuid().is_root() {
        log.also_to(Path::new(LOG_FILE));
    }
    match cli.execute(&mut log) {
        Ok(exit) => exit,
        Err(error) => {
            log.error(format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

impl Cli {
    fn templates_root(&self, log: Option<&mut Log>) -> PathBuf {
        if let Some(root) = &self.templates {
            return root.clone();
        }
        if let Some(root) = env::var_os("OS_CONFIG_APPLIER_TEMPLATES") {
            return root.into();
        }
        let old = TEMPLATES_OLD.map(Path::new).into_iter().find(|root| root.is_dir());
        match old {
            Some(old) if !Path::new(TEMPLATES).is_dir() => {
                if let Some(log) = log {
                    let old = old.display();
                    log.warning(format!("template directory {old} is deprecated; use {TEMPLATES}"));
                }
                old.into()
            }
            _ => TEMPLATES.into(),
        }
    }

    fn execute(&self, log: &mut Log) -> Result<ExitCode> {
        if self.key.as_deref() == Some("") {
            log.error("--key is empty; try a key such as a.b, or no --key to apply the templates");
            return Ok(ExitCode::from(arguments::EXIT_USAGE));
        }
        let files = self.metadata_files(log)?;
        let all = self.fallback_metadata.iter().chain(&files);
        let data = metadata::read(all.map(PathBuf::as_path))?;
        if self.key.is_some() && self.boolean_key.is_some() {
            log.warning("--key is not compatible with --boolean-key. --boolean-key ignored.");
        }
        match (&self.key, &self.boolean_key) {
            (Some(key), _) => self.print_key(&data, key, &files),
            (None, Some(key)) if !key.is_empty() => Ok(boolean(&data, key)),
            _ => self.apply(data, log),
        }
    }

    fn metadata_files(&self, log: &mut Log) -> Result<Vec<PathBuf>> {
        if !self.metadata.is_empty() {
            return Ok(self.metadata.clone());
        }
        if let Some(files) = env::var_os("OS_CONFIG_FILES") {
            return Ok(env::split_paths(&files).collect());
        }
        let usual = env::var_os("OS_CONFIG_FILES_PATH")
            .map_or_else(|| metadata::LIST.into(), PathBuf::from);
        let list = self.os_config_files.as_ref().unwrap_or(&usual);
        let files = metadata::read_list(list)?;
        if files.is_empty() && *list == usual {
            log.warning(format!("DEPRECATED: falling back to {}", metadata::LIST_OLD));
            return metadata::read_list(Path::new(metadata::LIST_OLD));
        }
        Ok(files)
    }

    fn print_key(
        &self,
        data: &Map<String, Value>,
        key: &str,
        files: &[PathBuf],
    ) -> Result<ExitCode> {
        let text = match (metadata::lookup(data, key), &self.key_default) {
            (Some(value), _) => {
                types::check(value, &self.kind).map_err(|why| anyhow!("key {key}: {why}"))?;
                value.as_str().map_or_else(|| json_text(value), ToOwned::to_owned)
            }
            (None, Some(default)) => default.clone(),
            (None, None) => {
                let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
                return Err(anyhow!("key {key} does not exist in {files:?}; try --key-default"));
            }
        };
        Ok(print(format!("{text}\n").as_bytes()))
    }

    fn apply(&self, mut data: Map<String, Value>, log: &mut Log) -> Result<ExitCode> {
        if let Some(path) = self.subhash.as_deref().filter(|path| !path.is_empty()) {
            data = metadata::subhash(data, path)?;
        }
        let root = self.templates_root(Some(log));
        let files = templates::render_all(&root, &data)?;
        if self.dry_run || self.word.is_some() {
            return Ok(print(differences(&files, &self.output).as_bytes()));
        }
        if !self.validate {
            write_all(&files, &self.output, &mut |line| log.info(line))?;
        }
        log.info("success");
        Ok(ExitCode::SUCCESS)
    }
}

fn boolean(data: &Map<String, Value>, key: &str) -> ExitCode {
    match metadata::lookup(data, key) {
        Some(Value::Bool(true)) => ExitCode::SUCCESS,
        Some(Value::Bool(false)) => ExitCode::FAILURE,
        _ => ExitCode::from(EXIT_NO_BOOLEAN),
    }
}

/// What would change, as `diff -u` shows it.
fn differences(files: &[templates::Rendered], output: &Path) -> String {
    let mut all = String::new();
    for file in files {
        let target = output.join(&file.path);
        let old = std::fs::read(&target).unwrap_or_default();
        let (old, new) = (String::from_utf8_lossy(&old), String::from_utf8_lossy(&file.body));
        let shown = target.display().to_string();
        let (from, to) = match action(file, &target) {
            Action::LeaveOut => continue,
            Action::Delete => (shown.as_str(), "/dev/null"),
            Action::Write if target.exists() => (shown.as_str(), shown.as_str()),
            Action::Write => ("/dev/null", shown.as_str()),
        };
        if from != to && old == new {
            all.push_str(&format!("--- {from}\n+++ {to}\n"));
        }
        let changes = similar::TextDiff::from_lines(&*old, &*new);
        all.push_str(&changes.unified_diff().header(from, to).to_string());
    }
    all
}

fn print(text: &[u8]) -> ExitCode {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}
