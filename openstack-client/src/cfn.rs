//! A resource's metadata from Heat's CloudFormation API: the signed request, and what comes back.
//!
//! The request is `DescribeStackResource` with AWS signature version 2 in its query, as the Python
//! programs make it: without a timestamp, so that a wrong clock does not lock an instance out.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use ring::hmac;
use serde_json::Value;
use thiserror::Error;

use crate::percent_encoded;

mod xml;

const RESPONSE: &str = "DescribeStackResourceResponse";
const RESULT: &str = "DescribeStackResourceResult";
const DETAIL: &str = "StackResourceDetail";

/// Why a request cannot be made or an answer not be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CfnError {
    /// Not `http://HOST…` or `https://HOST…`.
    #[error("{0:?} is no URL of a CloudFormation API; it must begin with http:// or https://")]
    BadEndpoint(String),
    /// Neither the XML nor the JSON of an answer to `DescribeStackResource`.
    #[error("the answer is no description of a resource: {0}")]
    BadAnswer(String),
}

/// A key pair that Keystone knows as EC2 credentials.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// The public half.
    pub access_key: &'a str,
    /// The secret half; it only signs.
    pub secret_key: &'a str,
}

/// The secret is not shown.
impl std::fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

/// The URL to GET, signed, for a resource of a stack. `endpoint` is the API's URL with its path, such as
/// `http://heat.example:8000/v1/`. The answer is XML.
///
/// # Errors
/// [`CfnError::BadEndpoint`].
pub fn describe_resource(
    endpoint: &str,
    stack: &str,
    resource: &str,
    credentials: Credentials<'_>,
) -> Result<String, CfnError> {
    let bad = || CfnError::BadEndpoint(shown(endpoint));
    let (scheme, rest) = endpoint.split_once("://").ok_or_else(bad)?;
    if !matches!(scheme, "http" | "https") {
        return Err(bad());
    }
    let rest = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host.is_empty() {
        return Err(bad());
    }
    let path = if path.is_empty() { "/" } else { path };
    // In the order of names, which is the order they are signed in.
    let parameters = [
        ("AWSAccessKeyId", credentials.access_key),
        ("Action", "DescribeStackResource"),
        ("LogicalResourceId", resource),
        ("SignatureMethod", "HmacSHA256"),
        ("SignatureVersion", "2"),
        ("StackName", stack),
    ];
    let query: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", percent_encoded(value)))
        .collect();
    let query = query.join("&");
    let key = hmac::Key::new(hmac::HMAC_SHA256, credentials.secret_key.as_bytes());
    let signature = hmac::sign(&key, format!("GET\n{host}\n{path}\n{query}").as_bytes());
    let signature = percent_encoded(&BASE64.encode(signature.as_ref()));
    Ok(format!("{scheme}://{authority}{path}?{query}&Signature={signature}"))
}

/// What an answer says of the resource, by the names of its fields, such as `Metadata` (JSON text).
///
/// # Errors
/// [`CfnError::BadAnswer`].
pub fn resource_detail(body: &[u8]) -> Result<BTreeMap<String, String>, CfnError> {
    let bad = |reason: &str| CfnError::BadAnswer(reason.to_owned());
    let text = std::str::from_utf8(body).map_err(|_| bad("it is no UTF-8"))?;
    if !text.trim_start().starts_with('{') {
        return xml::children(text, &[RESPONSE, RESULT, DETAIL]).map_err(|reason| bad(&reason));
    }
    let answer: Value = serde_json::from_str(text).map_err(|error| bad(&error.to_string()))?;
    let detail = answer.pointer(&format!("/{RESPONSE}/{RESULT}/{DETAIL}"));
    let detail = detail.and_then(Value::as_object).ok_or_else(|| bad("it has no detail"))?;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Ok(detail.iter().map(|(name, value)| (name.clone(), text(value))).collect())
}

/// An endpoint for people: what could be a password before an `@` is left out.
fn shown(endpoint: &str) -> String {
    endpoint.rsplit_once('@').map_or(endpoint, |(_, rest)| rest).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: Credentials<'_> =
        Credentials { access_key: "AK+1", secret_key: "secret/key" };

    #[test]
    fn a_signed_url_equals_the_one_of_keystoneclient() {
        // Ec2Signer(b'secret/key').generate() of python-keystoneclient 5 for the same parameters.
        let url = describe_resource(
            "http://heat.example:8000/v1/",
            "a stack/ü~",
            "Server*1",
            CREDENTIALS,
        );
        assert_eq!(
            url.unwrap(),
            "http://heat.example:8000/v1/?AWSAccessKeyId=AK%2B1&Action=DescribeStackResource\
             &LogicalResourceId=Server%2A1&SignatureMethod=HmacSHA256&SignatureVersion=2\
             &StackName=a%20stack%2F%C3%BC~&Signature=kN73wIU%2FF2y1PNfa0Vq4sT%2Ffn76HjirLC2romy7B5pY%3D"
        );
    }

    #[test]
    fn an_endpoint_without_path_is_signed_with_a_slash_and_a_wrong_one_is_refused() {
        let url = describe_resource("https://h", "s", "r", CREDENTIALS).unwrap();
        assert!(url.starts_with("https://h/?AWSAccessKeyId="), "{url}");
        for bad in ["", "heat:8000/v1", "ftp://h/v1", "http:///v1"] {
            let error = describe_resource(bad, "s", "r", CREDENTIALS).unwrap_err();
            assert_eq!(error, CfnError::BadEndpoint(bad.into()));
        }
        let error = describe_resource("ftp://me:word@h/", "s", "r", CREDENTIALS).unwrap_err();
        assert!(!error.to_string().contains("word"), "{error}");
        assert!(!format!("{CREDENTIALS:?}").contains("secret/key"));
    }

    #[test]
    fn answers_in_xml_and_json_say_the_same() {
        let xml = "<?xml version=\"1.0\"?><DescribeStackResourceResponse>\
            <DescribeStackResourceResult><StackResourceDetail><StackName>s</StackName>\
            <Metadata>{\"a\": \"&lt;&amp;&#252;\"}</Metadata></StackResourceDetail>\
            </DescribeStackResourceResult></DescribeStackResourceResponse>";
        let json = r#"{"DescribeStackResourceResponse": {"DescribeStackResourceResult":
            {"StackResourceDetail": {"StackName": "s", "Metadata": "{\"a\": \"<&ü\"}"}}}}"#;
        let expected: BTreeMap<String, String> =
            [("Metadata", r#"{"a": "<&ü"}"#), ("StackName", "s")]
                .map(|(name, text)| (name.to_owned(), text.to_owned()))
                .into();
        assert_eq!(resource_detail(xml.as_bytes()).unwrap(), expected);
        assert_eq!(resource_detail(json.as_bytes()).unwrap(), expected);
        let object = json.replace(r#""{\"a\": \"<&ü\"}""#, r#"{"a": 1}"#);
        assert_eq!(resource_detail(object.as_bytes()).unwrap()["Metadata"], r#"{"a":1}"#);
    }

    #[test]
    fn what_is_no_description_is_refused() {
        for bad in [&b""[..], b"{}", b"{", b"\xff", b"<html><body>no</body></html>", b"text"] {
            let error = resource_detail(bad).unwrap_err();
            assert!(matches!(error, CfnError::BadAnswer(_)), "{error}");
        }
    }
}
