//! Where an instance may have the server send a wait condition's signal: to URLs that the agent's own
//! document holds.

use std::fmt;

use openstack_client::http::UrlPrefix;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Whether an agent with this document may have a signal sent to `url`.
///
/// # Errors
/// It may not: the reason, without the URL's secrets.
pub fn admit(url: &str, document: Option<&[u8]>, only_to: &[UrlPrefix]) -> Result<(), String> {
    let shown = openstack_client::http::without_secrets(url);
    if !only_to.is_empty() {
        return match only_to.iter().any(|prefix| prefix.admits(url)) {
            true => Ok(()),
            false => {
                Err(format!("{shown} is below none of the URLs in the server's relay_signals_to"))
            }
        };
    }
    match document {
        Some(document) if holds(document, url) => Ok(()),
        _ => Err(format!(
            "{shown}, as it was given, is not in this agent's document; the server relays to such URLs, \
             and to those that its operator lists in relay_signals_to"
        )),
    }
}

/// Whether a text in a JSON document is `url` or contains it as a whole.
fn holds(document: &[u8], url: &str) -> bool {
    let mut json = serde_json::Deserializer::from_slice(document);
    Find(url).deserialize(&mut json).unwrap_or(false)
}

#[derive(Clone, Copy)]
struct Find<'u>(&'u str);

impl Find<'_> {
    fn is_in(self, text: &str) -> bool {
        let ends = |c: Option<char>| {
            c.is_none_or(|c| c.is_whitespace() || c.is_control() || "\"'`<>|\\^{};)".contains(c))
        };
        text.match_indices(self.0).any(|(at, found)| {
            ends(text[..at].chars().next_back()) && ends(text[at + found.len()..].chars().next())
        })
    }
}

impl<'de> DeserializeSeed<'de> for Find<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(self.is_in(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        let mut found = false;
        while let Some(is_there) = seq.next_element_seed(self)? {
            found |= is_there;
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut found = false;
        while map.next_key::<serde::de::IgnoredAny>()?.is_some() {
            found |= map.next_value_seed(self)?;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const URL: &str = "http://heat:8000/v1/waitcondition/x?Signature=s%3D";

    fn admitted(document: &serde_json::Value) -> bool {
        admit(URL, Some(document.to_string().as_bytes()), &[]).is_ok()
    }

    #[test]
    fn a_url_is_admitted_where_the_document_holds_it_as_a_whole() {
        for (text, is_there) in [
            (URL.to_owned(), true),
            (format!("#!/bin/sh\ncfn-signal -e 0 '{URL}'\n"), true),
            (format!("curl \"{URL}\" | sh"), true),
            (format!("{URL}&more=1"), false),
            (format!("{URL}/more"), false),
            (format!("http://evil/?to={URL}"), false),
            (URL[..URL.len() - 1].to_owned(), false),
            (String::new(), false),
        ] {
            let inputs =
                json!({"deployments": [{"inputs": [1, null, true, 1.5, -1, {"value": text}]}]});
            assert_eq!(admitted(&inputs), is_there, "{text}");
        }
        assert!(!admitted(&json!({ URL: 1 })), "a key is no value");
        assert!(admit(URL, None, &[]).is_err() && admit(URL, Some(b"{"), &[]).is_err());
    }

    #[test]
    fn prefixes_admit_what_no_document_holds_and_nothing_beside() {
        let heat: UrlPrefix = "http://heat:8000/v1/waitcondition".parse().unwrap();
        let other: UrlPrefix = "http://other/".parse().unwrap();
        assert_eq!(admit(URL, None, &[other.clone(), heat]), Ok(()));
        let document = json!([URL]).to_string();
        let why = admit(URL, Some(document.as_bytes()), &[other]).unwrap_err();
        assert!(why.contains("relay_signals_to") && !why.contains("Signature"), "{why}");
    }
}
