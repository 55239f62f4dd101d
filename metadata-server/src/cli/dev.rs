//! `dev`: everything on loopback, for trying out.

use std::fmt::Write as _;
use std::path::Path;

use axum::http::Method;
use bytes::Bytes;
use certs::AgentId;
use certs::file::{PRIVATE_FILE_MODE, write_atomic};
use serde_json::json;

use super::output;
use super::run::serve;
use crate::boot::Server;
use crate::client::Client;
use crate::config::{ConfigFile, SettingsArgs};
use crate::error::{Exit, Failure};
use crate::http::EnrolmentAnswer;
use crate::log;

pub(super) fn dev(
    agents: &[AgentId],
    as_json: bool,
    mut settings: SettingsArgs,
) -> Result<(), Failure> {
    // What is configured for the real server is none of ours.
    if settings.file == ConfigFile::Default {
        settings.file = ConfigFile::None;
    }
    let is_kept = settings.overrides.iter().any(|o| o.key == "state_dir");
    // Removed when this function returns.
    let folder = tempfile::Builder::new()
        .prefix("metadata-server-dev-")
        .tempdir()
        .map_err(|e| Failure::new(Exit::Failed, format!("cannot make a temporary folder: {e}")))?;
    settings.or_set("state_dir", folder.path().display().to_string());
    settings.or_set("listen", "127.0.0.1:7843");
    settings.or_set("admin_listen", "127.0.0.1:7844");
    settings.or_set("log_filter", "warn");
    let config = settings.load()?;
    if !config.listen.ip().is_loopback() {
        let message = format!("dev is for loopback, and listen is {}", config.listen);
        return Err(Failure::new(Exit::Usage, message)
            .with_hint("\"metadata-server run\" serves other machines"));
    }
    log::start(&config);
    let state_dir = config.state_dir.clone();
    let token_file = config.admin_token_file();
    let agents = agents.to_vec();
    serve(config, move |server: &Server| {
        let (udp, admin) = (server.udp_address, server.admin_address);
        let fingerprint = server.fingerprint;
        async move {
            let client = Client::new(admin, token_file.clone());
            let mut files = Vec::new();
            for agent in &agents {
                files.push((agent.clone(), token(&client, &state_dir, agent).await?));
            }
            if as_json {
                let agents: Vec<_> = files
                    .iter()
                    .map(|(agent, file)| json!({"agent_id": agent, "token_file": file}))
                    .collect();
                return output::out(&format!(
                    "{}\n",
                    json!({
                        "udp": udp,
                        "admin": admin,
                        "fingerprint": fingerprint,
                        "state_dir": state_dir,
                        "admin_token_file": token_file,
                        "agents": agents,
                    })
                ));
            }
            let kept = if is_kept { "stays" } else { "is removed at the end" };
            let mut text = format!(
                "{}, for trying out: on loopback only, state in {} {kept}\n\
                 agents connect to udp {udp}; the admin API is at http://{admin}\n\
                 server key {fingerprint}\n",
                crate::SOFTWARE,
                state_dir.display(),
            );
            for (agent, file) in &files {
                let folder = state_dir.join(format!("agent-{agent}"));
                // Writing to a string cannot fail.
                let _ = write!(
                    text,
                    "\nagent {agent}, in a second terminal:\n  agent-client --state-dir {} run --token-file {}\n",
                    folder.display(),
                    file,
                );
            }
            if let Some((agent, _)) = files.first() {
                let _ = write!(
                    text,
                    "\nand in a third:\n  export METADATA_SERVER_ADMIN_LISTEN={admin} METADATA_SERVER_STATE_DIR={}\n  \
                     metadata-server put {agent} FILE.json\n  metadata-server watch\n",
                    state_dir.display(),
                );
            }
            output::out(&text)
        }
    })
}

/// Makes a token and puts it where the agent can take it from: not on a command line.
async fn token(client: &Client, state_dir: &Path, agent: &AgentId) -> Result<String, Failure> {
    let path = format!("/v1/agents/{agent}/enrolment");
    let (_, answer): (_, EnrolmentAnswer) = client.json(Method::POST, &path, Bytes::new()).await?;
    let file = state_dir.join(format!("agent-{agent}.token"));
    write_atomic(&file, format!("{}\n", answer.token).as_bytes(), PRIVATE_FILE_MODE)
        .map_err(|e| Failure::new(Exit::Failed, format!("{:#}", anyhow::Error::new(e))))?;
    Ok(file.display().to_string())
}
