//! `enroll`: a token for an agent.

use axum::http::Method;
use bytes::Bytes;
use certs::{AgentId, Fingerprint};

use super::{ClientArgs, output};
use crate::config::parse_duration;
use crate::error::{Exit, Failure};
use crate::http::{EnrolmentAnswer, EnrolmentRequest};

pub(super) async fn enroll(
    args: &ClientArgs,
    agent: &AgentId,
    addresses: Vec<String>,
    ttl: Option<&str>,
    cloud_init: bool,
) -> Result<(), Failure> {
    let ttl_s = ttl
        .map(|text| {
            parse_duration(text).map(|d| d.as_secs()).ok_or_else(|| {
                Failure::new(Exit::Usage, format!("--ttl is {text:?}, must be a time"))
                    .with_hint("for example --ttl 30m, --ttl 1h, --ttl 2d")
            })
        })
        .transpose()?;
    let request = serde_json::to_vec(&EnrolmentRequest { ttl_s, addresses })
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
