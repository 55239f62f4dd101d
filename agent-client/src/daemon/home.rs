//! The state directory, and who we are.

use certs::file::FileError;
use certs::{Identity, IdentityError};

use super::files;
use crate::config::Settings;
use crate::exit::{Abort, Exit};
use crate::lock::Lock;

/// The state directory, ours alone until dropped, with who we are.
#[derive(Debug)]
pub struct Home {
    _lock: Lock,
    /// Our key.
    pub identity: Identity,
}

impl Home {
    /// Makes the directory if need be, takes its lock and loads (or makes) the identity.
    ///
    /// # Errors
    /// Held by another agent, not private, not writable, or an unusable key.
    pub fn open(settings: &Settings) -> Result<Self, Abort> {
        let directory = &settings.state_dir;
        certs::file::ensure_private_directory(directory).map_err(|e| {
            let hint = Some(remedy(&e));
            let error = anyhow::Error::from(e).context("preparing the state directory");
            Abort { exit: Exit::Config, error, hint }
        })?;
        let lock = Lock::take(directory).map_err(|e| {
            Abort::new(Exit::Failed, e).hint("stop it, or name another directory: --state-dir DIR")
        })?;
        let identity = Identity::load_or_create(&settings.state(files::IDENTITY)).map_err(|e| {
            let hint = match &e {
                IdentityError::File(e) => remedy(e),
                _ => format!(
                    "put it back from a backup; or move {} away, and enrol again: on the server metadata-server enroll ID",
                    settings.state(files::IDENTITY).display()
                ),
            };
            let error = anyhow::Error::from(e).context("loading this agent's identity");
            Abort::new(Exit::Config, error).hint(hint)
        })?;
        Ok(Self { _lock: lock, identity })
    }
}

/// What to try about a file of the state directory, or about the directory itself.
pub fn remedy(error: &FileError) -> String {
    match error {
        FileError::TooOpen { path, fix, .. } => format!("chmod {fix} {}", path.display()),
        FileError::WrongOwner { path, us, .. } => format!("chown {us} {}", path.display()),
        FileError::NotRegular(path) | FileError::NotDirectory(path) => {
            format!("look what {} is, and move it away", path.display())
        }
        _ => "run as root, or name another state directory: --state-dir DIR".into(),
    }
}
