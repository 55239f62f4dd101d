//! `cfn-get-metadata`: prints a resource's metadata, or a part of it.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use serde_json::Value;

use super::metadata::{Keys, Wanted, retrieve};
use crate::compat::arguments;
use crate::compat::pylog::{Level, Log};
use crate::json_text::json_text;
use crate::machine::System;

/// Prints a resource's metadata as JSON.
#[derive(Debug, Parser)]
#[command(name = "cfn-get-metadata", version, infer_long_args = true)]
struct Cli {
    /// A Heat stack name
    #[arg(short, long)]
    stack: String,
    /// A Heat logical resource ID
    #[arg(short, long)]
    resource: String,
    /// A Keystone access key
    #[arg(long)]
    access_key: Option<String>,
    /// A Keystone secret key
    #[arg(long)]
    secret_key: Option<String>,
    /// OpenStack region (not used)
    #[arg(long)]
    region: Option<String>,
    /// A file with both keys
    #[arg(long)]
    credential_file: Option<PathBuf>,
    /// Service URL (not used)
    #[arg(short, long)]
    url: Option<String>,
    /// Which part: names with dots between, a name with dots in it in single quotes
    #[arg(short, long)]
    key: Option<String>,
}

/// Runs the command; `arguments` begin with its name.
pub fn main(arguments: &[OsString]) -> ExitCode {
    run(arguments, &System::of_machine(), &mut io::stdout().lock())
}

/// Runs the command on `system`, printing to `out`.
pub fn run(arguments: &[OsString], system: &System, out: &mut dyn Write) -> ExitCode {
    let cli: Cli = match arguments::parse(arguments) {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    for (value, message) in [
        (&cli.stack, "The Stack name must not be empty."),
        (&cli.resource, "The Resource ID must not be empty"),
    ] {
        if value.is_empty() {
            // Nobody reading is no reason to go on.
            let _ = writeln!(out, "{message}");
            return ExitCode::FAILURE;
        }
    }
    let mut log = system.log("cfn-get-metadata", Level::Debug, Level::Debug);
    match display(cli, system, &mut log, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log.error(format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn display(cli: Cli, system: &System, log: &mut Log, out: &mut dyn Write) -> Result<()> {
    let keys = match &cli.credential_file {
        Some(path) => Keys::read(path)?,
        None => Keys::new(cli.access_key, cli.secret_key),
    };
    let wanted = Wanted {
        stack: Some(&cli.stack),
        resource: Some(&cli.resource),
        keys,
        ..Wanted::default()
    };
    let Some(found) = retrieve(system, log, &wanted)? else { return Ok(()) };
    let value = match &cli.key {
        Some(key) => part(&found.value, key).filter(|value| !value.is_null()),
        None => Some(&found.value),
    };
    match value {
        Some(value) => writeln!(out, "{}", json_text(value))?,
        None => log.warning(format!("the metadata has no {:?}", cli.key.unwrap_or_default())),
    }
    Ok(())
}

/// The part of `value` that a key such as `a.'b.c'.d` names.
fn part<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    let mut value = value;
    let mut rest = Some(key);
    while let Some(key) = rest {
        let quoted = key.strip_prefix('\'').and_then(|key| key.split_once('\''));
        let (name, after) = match quoted
            .filter(|(_, after)| after.is_empty() || after.starts_with('.'))
        {
            Some((name, after)) => (name, after.strip_prefix('.')),
            None => key.split_once('.').map_or((key, None), |(name, after)| (name, Some(after))),
        };
        value = value.as_object()?.get(name)?;
        // A dot at the end was never an error.
        rest = after.filter(|after| !after.is_empty());
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_lead_to_their_part() {
        let value = json!({"foo": {"bar": {"fred.1": "abcd"}, "foo": 5}, "list": [1], "it's": 1});
        for (key, expected) in [
            ("foo.bar", Some(json!({"fred.1": "abcd"}))),
            ("foo.bar.'fred.1'", Some(json!("abcd"))),
            ("'foo'.foo", Some(json!(5))),
            ("foo.foo", Some(json!(5))),
            ("foo.foo.", Some(json!(5))),
            ("it's", Some(json!(1))),
            ("foo.bar.fred.1", None),
            ("no_key", None),
            ("foo.fred", None),
            ("list.0", None),
            ("list.0.x", None),
            ("foo.bar.'fred.1'.x", None),
            ("", None),
            (".foo", None),
        ] {
            assert_eq!(part(&value, key), expected.as_ref(), "{key}");
        }
    }
}
