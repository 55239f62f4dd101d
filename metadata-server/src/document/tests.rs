use super::*;

fn check(text: &str) -> Result<ValidDocument, DocumentError> {
    ValidDocument::check(Bytes::copy_from_slice(text.as_bytes()), DOCUMENT_BYTES_MAX)
}

fn refusal(text: &str) -> String {
    check(text).unwrap_err().to_string()
}

#[test]
fn a_document_is_kept_byte_for_byte() {
    let text = "{ \"deployments\": [ {\"id\": \"a\", \"config\": {\"x\": [1, 2.5, null]}} ],\n \"x\": 1 }\n";
    let document = check(text).unwrap();
    assert_eq!(document.body().as_ref(), text.as_bytes());
    assert_eq!(document.deployments(), 1);
    assert_eq!(document.sha256(), sha256(text.as_bytes()));
}

#[test]
fn a_syntax_error_is_named_with_line_and_column() {
    assert_eq!(
        refusal("{\"deployments\": [\n  {\"id\": 1,}\n]}"),
        "not JSON: line 2, column 12: trailing comma"
    );
    assert_eq!(
        check("{\"deployments\": []} x").unwrap_err().code(),
        "document_not_json",
        "text after the document"
    );
    assert!(refusal("").starts_with("not JSON: line 1, column 0: EOF"));
}

#[test]
fn bytes_that_are_not_utf8_are_refused_anywhere() {
    let body = Bytes::from_static(b"{\"deployments\": [], \"x\": [\"\xff\"]}");
    let error = ValidDocument::check(body, DOCUMENT_BYTES_MAX).unwrap_err();
    assert_eq!(error.code(), "document_not_json");
}

#[test]
fn deep_nesting_is_refused_without_recursing_into_it() {
    let text = format!("{{\"deployments\": [], \"x\": {}", "[".repeat(1_000_000));
    assert!(refusal(&text).contains("recursion limit"), "{}", refusal(&text));
}

#[test]
fn values_are_counted_as_each_takes_memory_in_every_parser() {
    let text =
        |values: usize| format!("{{\"deployments\": [], \"x\": [{}0]}}", "0,".repeat(values));
    // The document, its two lists, and the last value.
    assert!(check(&text(VALUES_MAX - 4)).is_ok());
    let error = check(&text(VALUES_MAX - 3)).unwrap_err();
    assert_eq!(error, DocumentError::TooManyValues);
    assert!(error.to_string().contains("500000"), "{error}");
}

#[test]
fn every_wrong_shape_is_named_by_its_place() {
    let long = "x".repeat(256);
    let long = format!("{{\"deployments\": [{{\"id\": \"{long}\", \"name\": \"{long}\"}}]}}");
    let cases = [
        ("[]", "the document is a list, must be an object"),
        ("{}", "the document has no \"deployments\" list"),
        (r#"{"deployments": {}}"#, "/deployments: is an object, must be a list of objects"),
        (r#"{"deployments": null}"#, "/deployments: is null, must be a list of objects"),
        (r#"{"deployments": [{"id": "a"}, 7]}"#, "/deployments/1: is a number, must be an object"),
        (r#"{"deployments": [{"name": "a"}]}"#, "/deployments/0: has no \"id\""),
        (r#"{"deployments": [{"id": 7}]}"#, "/deployments/0/id: is a number, must be a string"),
        (r#"{"deployments": [{"id": ""}]}"#, "/deployments/0/id: is empty"),
        (
            r#"{"deployments": [{"id": "../x"}]}"#,
            "/deployments/0/id: \"../x\" starts with a dot or has a slash or control character",
        ),
        (
            r#"{"deployments": [{"id": "a"}, {"id": "b"}, {"id": "a"}]}"#,
            "/deployments/2/id: \"a\" is also the id of /deployments/0",
        ),
        (
            &long,
            "/deployments/0/id: has 256 characters, the limit is 255; \
             /deployments/0/name: has 256 characters, the limit is 255",
        ),
        (
            r#"{"deployments": [{"id": "a", "name": {}, "group": null, "inputs": {}}]}"#,
            "/deployments/0/name: is an object, must be a string; \
             /deployments/0/inputs: is an object, must be a list",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(refusal(text), expected, "{text}");
    }
}

#[test]
fn many_problems_are_listed_up_to_a_limit_and_then_counted() {
    let text = format!("{{\"deployments\": [{}]}}", vec!["1"; 20].join(","));
    assert!(refusal(&text).ends_with("must be an object; and 12 more"));
}

#[test]
fn more_deployments_than_an_agent_can_report_on_are_too_many() {
    let document = |count: usize| {
        let entries: Vec<String> = (0..count).map(|n| format!("{{\"id\": \"c{n}\"}}")).collect();
        format!("{{\"deployments\": [{}]}}", entries.join(","))
    };
    assert_eq!(check(&document(DEPLOYMENTS_MAX)).unwrap().deployments(), DEPLOYMENTS_MAX);
    assert_eq!(
        refusal(&document(DEPLOYMENTS_MAX + 1)),
        "/deployments: has 4097 entries, the limit is 4096"
    );
}

#[test]
fn one_byte_over_the_limit_is_too_large() {
    let body = Bytes::from_static(b"{\"deployments\": []}");
    assert!(ValidDocument::check(body.clone(), body.len()).is_ok());
    let error = ValidDocument::check(body.clone(), body.len() - 1).unwrap_err();
    assert_eq!(error, DocumentError::TooLarge { bytes: 19, bytes_max: 18 });
}

#[test]
fn the_debug_form_shows_no_content() {
    let document = check(r#"{"deployments": [], "password": "hunter2"}"#).unwrap();
    assert!(!format!("{document:?}").contains("hunter2"));
}

proptest::proptest! {
    /// The agent reads documents with the ordinary parser: what passes here must pass there.
    #[test]
    fn what_is_json_here_is_json_everywhere(tokens in proptest::collection::vec(
        proptest::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "null", "true", "1", "-0.5e3", "\"id\"", "\"a\"",
            "\"deployments\"", "\"\\ud800\"", " ", "\n", "x",
        ]),
        0..24,
    )) {
        let text = tokens.concat();
        let parsed = serde_json::from_str::<serde_json::Value>(&text);
        let is_json = !matches!(check(&text), Err(DocumentError::NotJson { .. }));
        proptest::prop_assert_eq!(is_json, parsed.is_ok(), "{}", text);
    }
}
