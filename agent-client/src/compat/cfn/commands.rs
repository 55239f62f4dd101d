//! Commands, in the order of their names.

use std::path::PathBuf;

use anyhow::{Result, bail};
use nix::unistd::{Uid, User};
use serde_json::{Map, Value};

use super::work::{Work, is_true, text_of, words_of};
use crate::machine::run::Call;

/// Runs the commands. One whose test says no is passed over.
///
/// # Errors
/// A command has failed; those after it are not run.
pub(super) fn apply(work: &mut Work<'_>, commands: Option<&Value>) -> Result<()> {
    let Some(commands) = work.map("commands", commands) else { return Ok(()) };
    let mut names: Vec<&String> = commands.keys().collect();
    names.sort();
    for name in names {
        work.log.debug(format!("{name} is being processed"));
        match work.map(&format!("command {name}"), commands.get(name)) {
            Some(properties) => one(work, name, properties)?,
            None => work.fail(format!("command {name} says nothing to run")),
        }
    }
    Ok(())
}

fn one(work: &mut Work<'_>, name: &str, properties: &Map<String, Value>) -> Result<()> {
    let environment = match properties.get("env") {
        None | Some(Value::Null) => None,
        Some(Value::Object(all)) => {
            Some(all.iter().map(|(name, value)| (name.clone(), text_of(value))).collect::<Vec<_>>())
        }
        Some(_) => {
            work.fail(format!("command {name}: env must be a map of variables"));
            return Ok(());
        }
    };
    let directory = properties.get("cwd").map(text_of).map(|cwd| home_expanded(&cwd));
    if let Some(missing) = directory.as_ref().filter(|directory| !directory.is_dir()) {
        work.fail(format!("command {name}: its cwd {} is no directory", missing.display()));
        return Ok(());
    }
    let call = |value: &Value| {
        let call = match value {
            Value::Array(_) => Call::new(words_of(value)),
            line => Call::shell(&text_of(line)),
        };
        call.directory(directory.clone()).environment(environment.clone())
    };
    if let Some(test) = properties.get("test") {
        if !work.run(&call(test)).is_success() {
            work.log.info(format!("{name} test returns false, skipping command"));
            return Ok(());
        }
        work.log.debug(format!("{name} test returns true, proceeding"));
    }
    let command = properties.get("command").filter(|command| !words_of(command).is_empty());
    let Some(command) = command else {
        work.fail(format!("command {name}: it has no \"command\""));
        return Ok(());
    };
    let ran = work.run(&call(command));
    if ran.is_success() {
        work.log.info(format!("{name} has been successfully executed"));
    } else if properties.get("ignoreErrors").is_some_and(is_true) {
        work.log.info(format!("{name} has failed (status={}). Explicit ignoring", ran.status));
    } else {
        bail!("command {name} has failed, so nothing after it was done: {}", ran.why());
    }
    Ok(())
}

/// A path whose `~` or `~NAME` at the front is replaced by a home directory, if there is one.
fn home_expanded(path: &str) -> PathBuf {
    let Some(rest) = path.strip_prefix('~') else { return path.into() };
    let (name, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let home = match name {
        "" => std::env::var_os("HOME")
            .map(PathBuf::from)
            .or_else(|| Some(User::from_uid(Uid::current()).ok()??.dir)),
        name => User::from_name(name).ok().flatten().map(|user| user.dir),
    };
    home.map_or_else(|| path.into(), |home| home.join(rest.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tilde_leads_home() {
        assert_eq!(home_expanded("~root/x"), PathBuf::from("/root/x"));
        assert_eq!(home_expanded("/a/~"), PathBuf::from("/a/~"));
        assert_eq!(home_expanded("~no-such-user/x"), PathBuf::from("~no-such-user/x"));
        assert!(home_expanded("~/x").ends_with("x") && home_expanded("~").is_absolute());
    }
}
