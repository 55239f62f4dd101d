//! The server's side of a token: what it keeps, and how it decides.

use serde::{Deserialize, Serialize};

use super::{EnrolmentToken, TokenId};
use crate::proof::{self, EXPORTER_BYTES, ProofKey};
use crate::{AgentId, Fingerprint};

/// What the server keeps of a token. It can check proofs, but not print the token again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The token's public name, the key to look it up by.
    pub token_id: TokenId,
    /// Who the bearer may become.
    pub agent_id: AgentId,
    /// First second (Unix time) at which the token is refused.
    pub expires_unix: u64,
    /// The agent key that has used it up, once one has.
    #[serde(default)]
    pub used_by: Option<Fingerprint>,
    proof_key: ProofKey,
}

/// What an unknown peer claims when it asks to be enrolled.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The channel's export under [`EXPORTER_LABEL`](proof::EXPORTER_LABEL).
    pub exporter: &'a [u8; EXPORTER_BYTES],
    /// The certificate that this server showed on the channel.
    pub server: &'a Fingerprint,
    /// The certificate that the peer showed on the channel.
    pub agent: &'a Fingerprint,
    /// Who it says it is.
    pub agent_id: &'a str,
    /// Its proof of the token's secret.
    pub proof: &'a [u8],
}

/// Why a token does not admit its bearer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenRefused {
    /// The proof is not one of this token's secret, this channel and this agent.
    #[error(
        "the proof for enrolment token {token_id} does not fit key {seen} and agent id {claimed:?}"
    )]
    Forged {
        /// The token named.
        token_id: TokenId,
        /// The peer's key.
        seen: Fingerprint,
        /// The agent id it claimed.
        claimed: String,
    },
    /// A token is for one use.
    #[error(
        "enrolment token {token_id} was used already, by key {used_by}; this agent has key {seen}"
    )]
    Used {
        /// The token named.
        token_id: TokenId,
        /// The key that used it.
        used_by: Fingerprint,
        /// The peer's key.
        seen: Fingerprint,
    },
    /// Too late.
    #[error("enrolment token {token_id} expired {late_s} s ago (key {seen})")]
    Expired {
        /// The token named.
        token_id: TokenId,
        /// The peer's key.
        seen: Fingerprint,
        /// Seconds since it expired.
        late_s: u64,
    },
}

impl TokenRecord {
    pub(super) fn new(token: &EnrolmentToken, proof_key: ProofKey) -> Self {
        Self {
            token_id: token.token_id.clone(),
            agent_id: token.agent_id.clone(),
            expires_unix: token.expires_unix,
            used_by: None,
            proof_key,
        }
    }

    /// Decides whether the token admits the claimant at `now_unix` (Unix time, seconds). The
    /// caller then pins `claim.agent` and stores [`Self::used_by`] in one durable step.
    ///
    /// The proof is looked at first: only one who holds the secret learns that the token exists,
    /// was used or has expired.
    ///
    /// # Errors
    ///
    /// [`TokenRefused`], which names the key seen.
    pub fn check(&self, now_unix: u64, claim: &Claim<'_>) -> Result<(), TokenRefused> {
        let token_id = self.token_id.clone();
        let seen = *claim.agent;
        let (agent_id, id) = (self.agent_id.as_str(), self.token_id.as_str());
        let Claim { exporter, server, agent, proof, .. } = *claim;
        let proven = proof::verify(&self.proof_key, exporter, server, agent, agent_id, id, proof);
        if !proven || claim.agent_id != agent_id {
            let claimed = claim.agent_id.to_owned();
            return Err(TokenRefused::Forged { token_id, seen, claimed });
        }
        if let Some(used_by) = self.used_by {
            return Err(TokenRefused::Used { token_id, used_by, seen });
        }
        if now_unix >= self.expires_unix {
            let late_s = now_unix - self.expires_unix;
            return Err(TokenRefused::Expired { token_id, seen, late_s });
        }
        Ok(())
    }
}
