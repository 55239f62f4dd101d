//! `heat-config-rebuild-deployed`: marks every deployment of the metadata as done, so that none runs again
//! on a machine whose record of them was lost.

use std::env;
use std::ffi::OsString;
use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use certs::file::{PRIVATE_DIRECTORY_MODE, PRIVATE_FILE_MODE};
use serde_json::Value;

use super::deployed::stem;
use super::settings::{DEPLOYED, DEPLOYED_OLD};
use crate::compat::tool;
use crate::document::{ConfigId, DATA_GROUPS};

/// Runs the command; it takes no arguments.
pub fn main(_arguments: &[OsString]) -> ExitCode {
    match execute() {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("heat-config-rebuild-deployed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute() -> Result<ExitCode> {
    println!("Reading deployments via os-apply-config");
    let deployments = match metadata("deployments")? {
        None => Vec::new(),
        Some(Value::Array(deployments)) => deployments,
        Some(_) => bail!("deployments in the metadata are no list"),
    };
    println!("Found {} deployments.", deployments.len());
    let directory = directory();
    let shown = directory.display();
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIRECTORY_MODE)
        .create(&directory)
        .with_context(|| format!("could not make {shown}"))?;
    let mut exit = ExitCode::SUCCESS;
    for (index, deployment) in deployments.iter().enumerate() {
        let id = deployment.get("id").and_then(Value::as_str).unwrap_or_default();
        let group = deployment.get("group").and_then(Value::as_str).unwrap_or_default();
        let Ok(id) = ConfigId::new(id) else {
            eprintln!("heat-config-rebuild-deployed: deployment {index} has no usable id");
            exit = ExitCode::FAILURE;
            continue;
        };
        if DATA_GROUPS.contains(&group) {
            println!("Skipping creating deployed file for deployment {id} as it is group:{group}");
            continue;
        }
        let path = directory.join(format!("{}.json", stem(&id)));
        println!("Creating {} so that deployment will not be re-run", path.display());
        touch(&path).with_context(|| format!("could not create {}", path.display()))?;
    }
    Ok(exit)
}

/// As `touch` does it.
fn touch(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE_FILE_MODE)
        .open(path)?;
    file.set_modified(SystemTime::now())
}

fn directory() -> PathBuf {
    match env::var_os("HEAT_CONFIG_DEPLOYED").filter(|path| !path.is_empty()) {
        Some(directory) => directory.into(),
        None if Path::new(DEPLOYED).exists() => DEPLOYED.into(),
        None => DEPLOYED_OLD.into(),
    }
}

/// What `os-apply-config` says is at this key of the metadata: JSON, or a text as it is; `None` if there is
/// nothing.
pub(super) fn metadata(key: &str) -> Result<Option<Value>> {
    let (program, arguments) = tool::find("os-apply-config");
    let output = Command::new(program)
        .args(arguments)
        .args(["--key", key, "--type", "raw", "--key-default", ""])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("could not run os-apply-config")?;
    if !output.status.success() {
        bail!("os-apply-config --key {key} failed: {}", output.status);
    }
    let text = String::from_utf8(output.stdout)
        .with_context(|| format!("os-apply-config --key {key} printed no UTF-8"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    if text.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(text).unwrap_or_else(|_| text.into())))
}
