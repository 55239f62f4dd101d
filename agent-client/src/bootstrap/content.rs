//! A token in a piece of metadata or user data.

use std::io::Read;
use std::str::FromStr;

use certs::EnrolmentToken;
use certs::token::{TOKEN_CHARS_MAX, TOKEN_PREFIX};
use flate2::read::MultiGzDecoder;
use serde_json::{Map, Value};

/// In Heat's metadata of a server: `{"agent-client": {"token": TOKEN}}`.
pub(super) const HEAT_KEY: [&str; 2] = ["agent-client", "token"];
/// In `meta` of Nova's metadata. A value there has at most 255 characters, so a token goes on under this key
/// with `-2`, `-3` and so on.
pub(super) const NOVA_KEY: &str = "agent-client-token";
/// Most pieces of a token.
const PIECES_MAX: usize = 32;
/// Most bytes that compressed user data is unpacked to.
const UNPACKED_BYTES_MAX: u64 = 16 << 20;
/// Most places in user data that look like a token and are none.
const CANDIDATES_MAX: usize = 64;

/// What a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// JSON of Heat's.
    HeatMetadata,
    /// JSON of Nova's.
    NovaMetadata,
    /// Any text, such as cloud-config or MIME, also compressed by gzip.
    UserData,
}

impl Content {
    /// The token in it, if there is one.
    ///
    /// # Errors
    /// What is there cannot be used; the text has no secret in it.
    pub(super) fn token(self, bytes: &[u8]) -> Result<Option<EnrolmentToken>, String> {
        match self {
            Self::HeatMetadata => of_heat(&object(bytes)?),
            Self::NovaMetadata => {
                let root = object(bytes)?;
                let Some(meta) = root.get("meta").and_then(Value::as_object) else {
                    return Ok(None);
                };
                let piece = |key: String| meta.get(&key).and_then(Value::as_str);
                let Some(first) = piece(NOVA_KEY.to_owned()) else { return Ok(None) };
                let more = (2..=PIECES_MAX).map_while(|n| piece(format!("{NOVA_KEY}-{n}")));
                let line: String = [first].into_iter().chain(more).map(str::trim).collect();
                parse(&line).map(Some)
            }
            Self::UserData => user_data(bytes),
        }
    }
}

/// The token in Heat's metadata of this server.
pub(super) fn of_heat(root: &Map<String, Value>) -> Result<Option<EnrolmentToken>, String> {
    let [outer, inner] = HEAT_KEY;
    match root.get(outer).and_then(|section| section.get(inner)) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(line)) => parse(line).map(Some),
        Some(_) => Err(format!("{outer}.{inner} is no text")),
    }
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    // What serde_json says of a syntax error repeats nothing of the text.
    serde_json::from_slice(bytes).map_err(|error| format!("is no JSON object: {error}"))
}

fn parse(line: &str) -> Result<EnrolmentToken, String> {
    EnrolmentToken::from_str(line.trim()).map_err(|error| error.to_string())
}

/// A token carries its own checksum, so it is known in any text.
fn user_data(bytes: &[u8]) -> Result<Option<EnrolmentToken>, String> {
    let mut unpacked = Vec::new();
    let bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut reader = MultiGzDecoder::new(bytes).take(UNPACKED_BYTES_MAX);
        reader.read_to_end(&mut unpacked).map_err(|error| format!("is damaged gzip: {error}"))?;
        &unpacked
    } else {
        bytes
    };
    let text = String::from_utf8_lossy(bytes);
    let mut problem = None;
    for (at, _) in text.match_indices(TOKEN_PREFIX).take(CANDIDATES_MAX) {
        let rest = &text[at..];
        let body = rest[TOKEN_PREFIX.len()..]
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
        let end = body.map_or(rest.len(), |body| TOKEN_PREFIX.len() + body);
        match parse(&rest[..end.min(TOKEN_CHARS_MAX + 1)]) {
            Ok(token) => return Ok(Some(token)),
            Err(error) => problem = problem.or(Some(error)),
        }
    }
    problem.map_or(Ok(None), Err)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn token() -> EnrolmentToken {
        let fingerprint = certs::Fingerprint::from_bytes([7; 32]);
        let servers = vec!["metadata.example.org:7843".to_owned()];
        EnrolmentToken::issue(servers, fingerprint, "vm-1".parse().unwrap(), 2_000_000_000)
            .unwrap()
            .0
    }

    fn found(content: Content, text: &str) -> Result<Option<String>, String> {
        content.token(text.as_bytes()).map(|token| token.map(|token| token.encode().to_string()))
    }

    #[test]
    fn a_token_is_found_under_its_key_of_heat_and_of_nova() {
        let line = token().encode().to_string();
        let heat = json!({"deployments": [], "agent-client": {"token": line}}).to_string();
        assert_eq!(found(Content::HeatMetadata, &heat).unwrap(), Some(line.clone()));
        let (a, b) = line.split_at(100);
        let (b, c) = b.split_at(100);
        for meta in [
            json!({"agent-client-token": line}),
            json!({"agent-client-token": a, "agent-client-token-2": b, "agent-client-token-3": c}),
        ] {
            let nova = json!({"uuid": "u", "meta": meta}).to_string();
            assert_eq!(found(Content::NovaMetadata, &nova).unwrap(), Some(line.clone()));
        }
        assert!(line.len() > 255, "it does not fit into one value of Nova's: {}", line.len());
        for (content, nothing) in [
            (Content::HeatMetadata, json!({"agent-client": {"other": 1}})),
            (Content::HeatMetadata, json!({"agent-client": 5})),
            (Content::NovaMetadata, json!({"meta": {}})),
            (Content::NovaMetadata, json!({"agent-client": {"token": line}})),
        ] {
            assert_eq!(found(content, &nothing.to_string()).unwrap(), None, "{nothing}");
        }
    }

    #[test]
    fn a_token_is_known_in_any_user_data() {
        let line = token().encode().to_string();
        for text in [
            line.clone(),
            format!("{line}\n"),
            format!("#cloud-config\nagent-client: {{token: {line}}}\n"),
            format!(
                "#cloud-config\nwrite_files:\n - path: /etc/agent-client/token\n   content: |\n     {line}\n"
            ),
            format!("#!/bin/sh\n# mdt1.old and broken\nTOKEN='{line}'\n"),
            format!(
                "MIME-Version: 1.0\n\n--==\nContent-Type: text/x-cfninitdata\n\n{{\"a\": \"{line}\"}}\n"
            ),
        ] {
            assert_eq!(found(Content::UserData, &text).unwrap(), Some(line.clone()), "{text}");
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(text.as_bytes()).unwrap();
            let token = Content::UserData.token(&encoder.finish().unwrap()).unwrap().unwrap();
            assert_eq!(token.encode().to_string(), line);
        }
        assert_eq!(found(Content::UserData, "#cloud-config\n").unwrap(), None);
    }

    #[test]
    fn what_cannot_be_used_is_said_without_the_secret() {
        let line = token().encode().to_string();
        let cut = &line[..line.len() - 9];
        let heat = |token: Value| json!({"agent-client": {"token": token}}).to_string();
        for (content, text) in [
            (Content::HeatMetadata, heat(json!(cut))),
            (Content::HeatMetadata, heat(json!([line]))),
            (Content::HeatMetadata, format!("{{\"agent-client\": {{\"token\": \"{line}")),
            (Content::NovaMetadata, json!({"meta": {"agent-client-token": cut}}).to_string()),
            (Content::UserData, format!("token={cut}\n")),
            (Content::UserData, "\u{1f}\u{8b}".into()),
            (Content::HeatMetadata, "[]".into()),
        ] {
            match found(content, &text) {
                Err(reason) => assert!(!reason.contains(&line[5..40]), "{reason}"),
                Ok(found) => assert!(found.is_none() && content == Content::UserData, "{text}"),
            }
        }
        assert!(Content::UserData.token(&[0x1f, 0x8b, 8, 0]).unwrap_err().contains("damaged gzip"));
    }

    proptest! {
        #[test]
        fn no_user_data_panics(text in "(mdt1\\.|[a-zü{\"\n]){0,60}") {
            for content in [Content::HeatMetadata, Content::NovaMetadata, Content::UserData] {
                prop_assert!(!matches!(content.token(text.as_bytes()), Ok(Some(_))));
            }
        }
    }
}
