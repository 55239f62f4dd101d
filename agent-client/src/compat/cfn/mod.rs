//! heat-cfntools: `cfn-init`, `cfn-signal`, `cfn-hup`, `cfn-get-metadata` and their links, from metadata
//! that was pushed, without asking Heat where that can be avoided.

mod accounts;
mod archive;
mod commands;
mod configsets;
mod files;
pub mod get_metadata;
pub mod hup;
mod ini;
pub mod init;
mod metadata;
pub mod on_push;
mod packages;
mod rpm_version;
mod services;
pub mod signal;
mod sources;
pub mod symlinks;
mod system;
mod work;

use std::ffi::OsString;
use std::process::ExitCode;

/// `cfn-push-stats`: there is no CloudWatch to push to, in Heat since 2017 and here.
pub fn push_stats(_: &[OsString]) -> ExitCode {
    eprintln!(
        "cfn-push-stats: Heat has no CloudWatch API any more, so nothing was sent\n  \
         try: remove the call (often a cron job); monitor the instance with Aodh or Prometheus"
    );
    ExitCode::FAILURE
}
