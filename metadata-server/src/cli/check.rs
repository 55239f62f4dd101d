//! `check-config`: everything that `run` would complain about, without running.

use std::path::PathBuf;

use certs::Identity;
use certs::file::{FileError, check_private};

use super::output;
use crate::config::{CONFIG_FILE, Config, ConfigFile, SettingsArgs};
use crate::error::{Exit, Failure};
use crate::{boot, http};

pub(super) fn check(path: Option<PathBuf>, mut settings: SettingsArgs) -> Result<(), Failure> {
    if let Some(path) = path {
        settings.file = ConfigFile::Named(path);
    }
    let name = match &settings.file {
        ConfigFile::Named(path) => path.display().to_string(),
        _ => format!("{CONFIG_FILE} (or the defaults, if it does not exist)"),
    };
    let config = settings.load()?;
    let problems = files(&config);
    if problems.is_empty() {
        return output::out(&format!("{name}: ok\n"));
    }
    let failure = Failure::new(Exit::Config, problems.join("\n"));
    Err(failure.with_hint("the messages above say what to change; nothing was changed"))
}

/// What is wrong with the files that the configuration names. What does not exist yet will be made
/// at the first start, except a certificate and key of the user's own.
fn files(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let mut problem = |failure: Failure| problems.push(failure.message);
    let own = config.identity_dir().join(certs::identity::IDENTITY_FILE);
    if config.key_file.is_some() {
        if let Err(failure) = boot::identity(config) {
            problem(failure);
        }
    } else if own.exists()
        && let Err(error) = Identity::load(&own, &own)
    {
        problem(boot::identity_failure("identity", error));
    }
    if let Some(file) = &config.keystone_password_file
        && let Err(failure) = boot::keystone_password(file)
    {
        problem(failure);
    }
    match http::read_admin_token(&config.admin_token_file()) {
        Err(error) if !error.is_not_found() => problem(error.into()),
        _ => {}
    }
    for (setting, path) in [("state_dir", config.state_dir.clone()), ("store", config.store_file())]
    {
        match check_private(&path) {
            Ok(()) | Err(FileError::NotRegular(_)) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                let message = format!("{setting}: {:#}", anyhow::Error::new(error));
                problem(Failure::new(Exit::Config, message));
            }
        }
    }
    problems
}
