//! `enroll`: a token for an agent.

use std::path::{Path, PathBuf};

use axum::http::Method;
use bytes::Bytes;
use certs::{AgentId, Fingerprint};
use serde_json::Value;

use super::{ClientArgs, output};
use crate::config::parse_duration;
use crate::error::{Exit, Failure};
use crate::http::{EnrolmentAnswer, EnrolmentRequest};

/// Where the agent's metadata comes from, if that was said.
pub(super) struct Source {
    /// A queue's name.
    pub(super) queue: Option<String>,
    /// A file.
    pub(super) os_collect_config: Option<PathBuf>,
}

pub(super) async fn enroll(
    args: &ClientArgs,
    agent: &AgentId,
    addresses: Vec<String>,
    ttl: Option<&str>,
    cloud_init: bool,
    source: Source,
) -> Result<(), Failure> {
    let ttl_s = ttl
        .map(|text| {
            parse_duration(text).map(|d| d.as_secs()).ok_or_else(|| {
                Failure::new(Exit::Usage, format!("--ttl is {text:?}, must be a time"))
                    .with_hint("for example --ttl 30m, --ttl 1h, --ttl 2d")
            })
        })
        .transpose()?;
    let os_collect_config = source.os_collect_config.map(|file| read_json(&file)).transpose()?;
    let request = EnrolmentRequest { ttl_s, addresses, queue: source.queue, os_collect_config };
    let request = serde_json::to_vec(&request)
        .map_err(|e| Failure::new(Exit::Failed, format!("cannot write JSON: {e}")))?;
    let path = format!("/v1/agents/{agent}/enrolment");
    let (_, answer): (_, EnrolmentAnswer) =
        args.client()?.json(Method::POST, &path, Bytes::from(request)).await?;
    if args.json {
        output::json(&answer)?;
    } else if cloud_init {
        output::out(&snippet(&answer.token))?;
    } else {
        output::out(&format!("{}\n", answer.token))?;
        output::note(&format!(
            "\nA password for one use by agent {agent} at {}, until {} UTC. As cloud-init user data:\n\n{}",
            answer.addresses.join(", "),
            output::time(answer.expires_unix * 1000),
            snippet(&answer.token),
        ));
    }
    if let Some(queue) = &answer.queue {
        let from = answer.queue_moved_from.as_ref();
        let from = from.map(|before| format!(" (it was agent {before}'s)")).unwrap_or_default();
        output::note(&format!("what Heat posts to queue {queue} goes to agent {agent}{from}"));
    }
    if !answer.replaces.is_empty() {
        let keys: Vec<String> = answer.replaces.iter().map(Fingerprint::to_string).collect();
        output::note(&format!(
            "warning: agent {agent} is enrolled already; using this token unpins {}",
            keys.join(", ")
        ));
    }
    output::next(
        "in the instance: agent-client run --token-file FILE  (with the token in FILE, mode 0600)",
    );
    Ok(())
}

fn read_json(file: &Path) -> Result<Value, Failure> {
    let bytes = super::query::read(file)?;
    // The text of such an error may quote the file, and that has a password in it.
    serde_json::from_slice(&bytes).map_err(|e| {
        let message =
            format!("{} is not JSON: line {}, column {}", file.display(), e.line(), e.column());
        Failure::new(Exit::Failed, message).with_hint(
            "openstack stack resource show STACK RESOURCE --with-attr os_collect_config -f json",
        )
    })
}

/// User data that enrols an instance at its first boot.
fn snippet(token: &str) -> String {
    format!(
        "#cloud-config\n\
         write_files:\n\
         \x20 - path: /etc/agent-client/token\n\
         \x20   permissions: \"0600\"\n\
         \x20   content: |\n\
         \x20     {token}\n\
         runcmd:\n\
         \x20 - [agent-client, enroll, --token-file, /etc/agent-client/token]\n\
         \x20 - [systemctl, enable, --now, agent-client.service]\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snippet_is_cloud_init_with_the_token_in_a_private_file() {
        insta::assert_snapshot!(snippet("mdt1.TOKEN"));
    }
}
