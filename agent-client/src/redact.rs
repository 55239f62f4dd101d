//! Keeps secrets out of logs, status and live output.
//!
//! A value is secret because of its name: that of an input, or of a key inside a structured input or
//! config, when it sounds like a secret ([`is_secret_name`]), and the credentials that Heat hands over for
//! the signal. A [`Redactor`] made from the inputs of one entry then hides these *values* wherever they
//! turn up in a text, as they are or escaped for JSON, percent-encoded or in base64.
//!
//! What a script prints goes to Heat as it is: the stack's owner chose to print it. Everything else that
//! may repeat an input (log lines, reasons, the live tail, the status file) goes through here.

use std::borrow::Cow;
use std::collections::BTreeSet;

use data_encoding::BASE64;
use serde_json::{Number, Value};

use crate::document::Config;
use crate::json_text::json_text;

/// What stands in place of a secret.
pub const HIDDEN: &str = "(hidden)";
/// Shorter values are not looked for: "1" would hide half of any text.
pub const SECRET_BYTES_MIN: usize = 4;
/// Values shorter than this are hidden only where they stand alone, not inside of words.
const ANYWHERE_BYTES_MIN: usize = 8;
/// Shortest line of a longer secret, such as a private key, that is looked for by itself.
const LINE_BYTES_MIN: usize = 16;
/// With more forms than this to look for, texts are hidden whole.
pub const FORMS_MAX: usize = 4_096;
/// Words that mean no secret even where one is expected.
const EMPTY_WORDS: [&str; 6] = ["true", "false", "null", "none", "unset", "default"];

/// Parts of a name that make its value secret, in lower case.
const SECRET_PARTS: [&str; 9] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "private",
    "pwd",
    "signature",
];
/// What Heat hands over for the signal: a signed URL, or a user's name and password.
const SIGNAL_CREDENTIALS: [&str; 5] =
    ["deploy_signal_id", "deploy_password", "deploy_user_id", "deploy_username", "deploy_queue_id"];

/// Whether the value under this name is to be hidden: `db_password`, `ApiToken`, `ssh_private_key`,
/// `AWS_ACCESS_KEY`, `deploy_signal_id` are, `keystone_url`, `public_key` are not.
pub fn is_secret_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    if SIGNAL_CREDENTIALS.contains(&lower.as_str()) {
        return true;
    }
    if SECRET_PARTS.iter().any(|part| lower.contains(part)) {
        return true;
    }
    let is_key = |word: &str| word.ends_with("key") || word.ends_with("keys");
    // In apiKeyId the word is not the last one.
    let camel = ["Key", "Keys"].iter().any(|part| {
        name.match_indices(part).any(|(at, _)| {
            let after = name[at + part.len()..].chars().next();
            after.is_none_or(|c| !c.is_ascii_lowercase())
        })
    });
    let any = lower.split(|c: char| !c.is_ascii_alphanumeric()).any(is_key);
    (any || camel) && !lower.contains("public")
}

/// The secrets of one entry, in all forms in which they are looked for.
#[derive(Default)]
pub struct Redactor {
    forms: Vec<String>,
    /// Too many to look for.
    hides_all: bool,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").field("forms", &self.forms.len()).finish_non_exhaustive()
    }
}

impl Redactor {
    /// Hides what is secret in these inputs, by name and value.
    pub fn new<'a>(inputs: impl IntoIterator<Item = (&'a str, &'a Value)>) -> Self {
        let mut secrets = BTreeSet::new();
        for (name, value) in inputs {
            collect(value, is_secret_name(name), &mut secrets);
        }
        Self::of_secrets(&secrets)
    }

    /// Hides what is secret in a config's inputs, and under secret names in a structured config.
    pub fn of_config(config: &Config) -> Self {
        let inputs = config.inputs.iter().map(|input| (input.name.as_str(), &input.value));
        let structure = Some(("config", &config.config)).filter(|(_, value)| !value.is_string());
        Self::new(inputs.chain(structure))
    }

    fn of_secrets(secrets: &BTreeSet<Cow<'_, str>>) -> Self {
        let mut forms = BTreeSet::new();
        for secret in secrets {
            add_forms(secret, &mut forms);
            if forms.len() > FORMS_MAX {
                return Self { forms: Vec::new(), hides_all: true };
            }
        }
        Self { forms: forms.into_iter().collect(), hides_all: false }
    }

    /// Whether there is nothing to hide.
    pub fn is_empty(&self) -> bool {
        self.forms.is_empty() && !self.hides_all
    }

    /// The text with [`HIDDEN`] in place of each secret.
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.replace(text, self.found_in(text))
    }

    /// As [`redact`](Self::redact), for a part of a longer text: a secret that either end cuts is hidden too.
    pub fn redact_part<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut found = self.found_in(text);
        for form in &self.forms {
            let longest = form.len().saturating_sub(1).min(text.len());
            let lengths = || (SECRET_BYTES_MIN..=longest).rev();
            let bytes = (form.as_bytes(), text.as_bytes());
            if let Some(n) = lengths().find(|&n| bytes.1.starts_with(&bytes.0[form.len() - n..])) {
                found.push((0, n));
            }
            if let Some(n) = lengths().find(|&n| bytes.1.ends_with(&bytes.0[..n])) {
                found.push((text.len() - n, text.len()));
            }
        }
        self.replace(text, found)
    }

    /// How many bytes of a text can be shown, as [`redact`](Self::redact) does it, whatever follows: up to what may be the
    /// beginning of a secret.
    pub fn closed(&self, text: &str) -> usize {
        let bytes = text.as_bytes();
        let begun = self.forms.iter().filter_map(|form| {
            let longest = form.len().saturating_sub(1).min(bytes.len());
            (1..=longest).rev().find(|&n| bytes.ends_with(&form.as_bytes()[..n]))
        });
        let mut end = bytes.len() - begun.max().unwrap_or(0);
        if end < bytes.len() {
            // What is shown must not end within a secret either.
            let found = self.found_in(text);
            while let Some((start, _)) = found.iter().find(|(from, to)| *from < end && end < *to) {
                end = *start;
            }
        }
        end
    }

    /// Where secrets are, in any order, maybe overlapping.
    fn found_in(&self, text: &str) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for form in &self.forms {
            let mut from = 0;
            while let Some(at) = text[from..].find(form.as_str()).map(|at| from + at) {
                let end = at + form.len();
                if form.len() >= ANYWHERE_BYTES_MIN || stands_alone(text, at, end) {
                    found.push((at, end));
                }
                // Overlapping finds count: the next may begin within this one.
                from = at + text[at..].chars().next().map_or(1, char::len_utf8);
            }
        }
        found
    }

    fn replace<'t>(&self, text: &'t str, mut found: Vec<(usize, usize)>) -> Cow<'t, str> {
        if self.hides_all && !text.is_empty() {
            return Cow::Borrowed(HIDDEN);
        }
        if found.is_empty() {
            return Cow::Borrowed(text);
        }
        found.sort_unstable();
        let mut redacted = String::with_capacity(text.len());
        let mut shown_to = 0;
        let mut hidden_to = 0;
        for (start, end) in found {
            if start >= hidden_to {
                redacted.push_str(&String::from_utf8_lossy(&text.as_bytes()[shown_to..start]));
                redacted.push_str(HIDDEN);
            }
            hidden_to = hidden_to.max(end);
            shown_to = hidden_to;
        }
        redacted.push_str(&String::from_utf8_lossy(&text.as_bytes()[shown_to..]));
        Cow::Owned(redacted)
    }
}

fn stands_alone(text: &str, start: usize, end: usize) -> bool {
    let joins = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    !joins(text[..start].chars().next_back()) && !joins(text[end..].chars().next())
}

/// The secret texts and numbers in `value`; all of them if its own name is secret.
fn collect<'v>(value: &'v Value, secret: bool, secrets: &mut BTreeSet<Cow<'v, str>>) {
    match value {
        Value::String(text) if secret => {
            secrets.insert(Cow::Borrowed(text));
        }
        Value::Number(number) if secret => {
            secrets.insert(Cow::Owned(Number::to_string(number)));
        }
        // A Json input may have come as text.
        Value::String(text) if text.starts_with(['{', '[']) => {
            if let Ok(value @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(text) {
                let mut inner = BTreeSet::new();
                collect(&value, false, &mut inner);
                secrets.extend(inner.into_iter().map(|secret| Cow::Owned(secret.into_owned())));
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, secret, secrets)),
        Value::Object(map) => {
            for (name, item) in map {
                collect(item, secret || is_secret_name(name), secrets);
            }
        }
        Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null => {}
    }
}

fn add_forms(secret: &str, forms: &mut BTreeSet<String>) {
    let secret = secret.trim();
    if secret.len() < SECRET_BYTES_MIN
        || EMPTY_WORDS.iter().any(|word| secret.eq_ignore_ascii_case(word))
    {
        return;
    }
    forms.insert(secret.to_owned());
    let inner = |json: String| json[1..json.len() - 1].to_owned();
    forms.insert(inner(json_text(&Value::from(secret))));
    forms.insert(inner(Value::from(secret).to_string()));
    for safe in ["", "/"] {
        forms.insert(percent_encoded(secret, safe));
    }
    forms.extend(base64_forms(secret.as_bytes()));
    if secret.contains('\n') {
        let lines = secret.lines().map(str::trim).filter(|line| line.len() >= LINE_BYTES_MIN);
        forms.extend(lines.map(str::to_owned));
    }
    if secret.contains("://") {
        forms.extend(signatures(secret));
    }
}

/// The long parameters of a signed URL: they are what opens it, whatever else is left out.
fn signatures(url: &str) -> impl Iterator<Item = String> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let values = query.split('&').filter_map(|pair| pair.split_once('='));
    let values = values.filter(|(name, _)| is_secret_name(name) || *name == "temp_url_sig");
    values
        .flat_map(|(_, value)| [value.to_owned(), percent_decoded(value)])
        .filter(|value| value.len() >= ANYWHERE_BYTES_MIN)
}

/// Everything but letters, digits, `-_.~` and what is in `safe` as `%XX`, as Python's `quote` does it.
fn percent_encoded(text: &str, safe: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        if plain || safe.as_bytes().contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match hex.filter(|_| first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What base64 makes of `secret` wherever it begins in the encoded text: the characters that depend on
/// nothing else. `user:password` hides the password at any of three offsets.
fn base64_forms(secret: &[u8]) -> Vec<String> {
    let mut forms = Vec::new();
    for offset in 0..3 {
        let mut padded = vec![0; offset];
        padded.extend_from_slice(secret);
        let encoded = BASE64.encode(&padded);
        let (start, end) = ((offset * 8).div_ceil(6), padded.len() * 8 / 6);
        let form = &encoded[start..end];
        if form.len() >= ANYWHERE_BYTES_MIN {
            forms.push(form.to_owned());
            forms.push(form.replace('+', "-").replace('/', "_"));
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn redactor(name: &str, value: &Value) -> Redactor {
        Redactor::new([(name, value)])
    }

    #[test]
    fn names_that_sound_like_secrets_are_secret() {
        for name in [
            "password",
            "DB_PASSWORD",
            "root-passwd",
            "clientSecret",
            "auth_token",
            "credentials",
            "ssh_private_key",
            "api_key",
            "apikey",
            "AccessKeyId",
            "fernet_keys",
            "deploy_signal_id",
            "deploy_username",
            "deploy_password",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in
            ["keystone_url", "keyboard", "deploy_action", "deploy_server_id", "public_key", "name"]
        {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn a_secret_is_hidden_as_it_is_and_escaped_and_encoded() {
        let secret = "p\"ss wörd/1+2";
        let redactor = redactor("password", &json!(secret));
        for text in [
            format!("login with {secret} failed"),
            format!("body {}", json!({ "a": secret })),
            format!("body {}", json_text(&json!({ "a": secret }))),
            "url http://h/?p=p%22ss%20w%C3%B6rd%2F1%2B2&x".into(),
            "url http://h/?p=p%22ss%20w%C3%B6rd/1%2B2&x".into(),
            format!("Basic {}", BASE64.encode(format!("u:{secret}").as_bytes())),
            format!("Basic {}", BASE64.encode(format!("us:{secret}").as_bytes())),
            format!("Basic {}", BASE64.encode(format!("usr:{secret}\n").as_bytes())),
        ] {
            let shown = redactor.redact(&text);
            assert!(shown.contains(HIDDEN), "{text} -> {shown}");
            assert!(!shown.contains("wörd") && !shown.contains("cGFzcw"), "{shown}");
        }
    }

    #[test]
    fn short_values_do_not_hide_everything() {
        let text = "1 of 12 in abcd, abcde: true";
        assert_eq!(redactor("key", &json!("1")).redact(text), text);
        assert_eq!(redactor("key", &json!(true)).redact(text), text);
        assert_eq!(redactor("token", &json!("true")).redact(text), text);
        assert_eq!(redactor("key", &json!("")).redact(text), text);
        assert_eq!(
            redactor("key", &json!("abcd")).redact(text),
            "1 of 12 in (hidden), abcde: true"
        );
    }

    #[test]
    fn secrets_inside_of_structures_are_found_by_their_keys() {
        let value = json!({"db": {"password": "hunter22", "host": "db.example"}, "n": [1, 2]});
        let text = "db.example hunter22";
        assert_eq!(redactor("conf", &value).redact(text), "db.example (hidden)");
        assert_eq!(redactor("conf", &json!(value.to_string())).redact(text), "db.example (hidden)");
        assert_eq!(
            redactor("secrets", &json!(["one-value", 123_456])).redact("x123456 one-value 123456"),
            "x123456 (hidden) (hidden)"
        );
    }

    #[test]
    fn a_signed_url_is_hidden_and_its_signature_alone_too() {
        let url = "http://heat/v1/signal/a%3Ab?Timestamp=2026&Signature=abcdef%2Bghijk%3D&SignatureVersion=2";
        let redactor = redactor("deploy_signal_id", &json!(url));
        assert_eq!(redactor.redact(&format!("POST {url}: 403")), "POST (hidden): 403");
        assert_eq!(redactor.redact("sig abcdef+ghijk= bad"), "sig (hidden) bad");
    }

    #[test]
    fn each_line_of_a_private_key_is_hidden() {
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n-----END KEY-----\n";
        let redactor = redactor("ssl_key", &json!(key));
        assert_eq!(redactor.redact("line AQEFAASCBKcwggSjAgEAAoIB."), "line (hidden).");
    }

    #[test]
    fn of_a_part_of_a_text_a_secret_that_an_end_cuts_is_hidden_too() {
        let redactor = redactor("password", &json!("correct-horse"));
        assert_eq!(redactor.redact_part("t-horse ok, then correct-"), "(hidden) ok, then (hidden)");
        assert_eq!(redactor.redact_part("nothing here"), "nothing here");
    }

    #[test]
    fn what_may_be_the_beginning_of_a_secret_is_not_closed() {
        let password = redactor("password", &json!("correct-horse"));
        for (text, closed) in [
            ("done", "done"),
            ("it is corr", "it is "),
            ("it is correct-hors", "it is "),
            ("it is correct-horse", "it is correct-horse"),
            ("c", ""),
            ("correct-horsec", "correct-horse"),
        ] {
            assert_eq!(&text[..password.closed(text)], closed);
        }
        // The longer one may go on, and the shorter one must not be cut for that.
        let both = redactor("secrets", &json!(["abcdefgh", "ghost-of-a-chance"]));
        assert_eq!(both.closed("is abcdefgh"), "is ".len());
        assert_eq!(Redactor::default().closed("anything"), "anything".len());
    }

    #[test]
    fn more_secrets_than_can_be_looked_for_hide_the_whole_text() {
        let many: Vec<String> = (0..FORMS_MAX).map(|n| format!("secret-{n:05}")).collect();
        let redactor = redactor("tokens", &json!(many));
        assert_eq!(redactor.redact("anything"), HIDDEN);
        assert_eq!(redactor.redact_part("anything"), HIDDEN);
        assert!(!redactor.is_empty());
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", redactor("token", &json!("abc"))), "Redactor { forms: 0, .. }");
        assert!(!format!("{:?}", redactor("token", &json!("hunter22"))).contains("hunter"));
    }

    proptest! {
        #[test]
        fn no_secret_of_eight_bytes_or_more_survives(
            secret in "[ -~äß€😀]{8,40}", before in "\\PC{0,20}", after in "\\PC{0,20}",
        ) {
            let secret = secret.trim();
            prop_assume!(secret.len() >= ANYWHERE_BYTES_MIN && !HIDDEN.contains(secret));
            let redactor = redactor("secret", &json!(secret));
            let shown = redactor.redact(&format!("{before}{secret}{after}")).into_owned();
            // Only the marker itself, with what stands beside it, could spell it anew.
            prop_assert!(!shown.replace(HIDDEN, "\u{0}").contains(secret), "{}", shown);
            redactor.redact_part(&shown);
        }

        #[test]
        fn shown_piece_by_piece_no_secret_survives(
            secrets in prop::collection::vec("[a-c]{8,12}", 1..4),
            text in "[a-cä ]{0,120}", pieces in prop::collection::vec(1usize..9, 1..40),
        ) {
            let redactor = redactor("secrets", &json!(secrets));
            let (mut shown, mut from, mut to) = (String::new(), 0, 0);
            for piece in pieces {
                to = (to + piece..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
                let closed = redactor.closed(&text[from..to]);
                shown.push_str(&redactor.redact(&text[from..from + closed]));
                from += closed;
            }
            for secret in &secrets {
                prop_assert!(!shown.contains(secret), "{} of {}", shown, text);
            }
        }

        #[test]
        fn any_part_of_a_text_can_be_redacted(text in "\\PC{0,60}", secret in "\\PC{4,20}") {
            redactor("secret", &json!(secret)).redact_part(&text);
        }
    }
}
