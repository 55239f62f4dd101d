use super::*;

fn hello() -> Hello {
    Hello {
        protocol: PROTOCOL,
        agent_id: "8a1c".into(),
        software: "agent-client 0.1.0".into(),
        boot_id: "b".into(),
        enrol: Some(Enrol { token_id: "t1".into(), proof: Hex32([0xab; 32]) }),
        holds: Some(Holds { version: 4, sha256: Hex32([1; 32]) }),
    }
}

fn result() -> DeploymentResult {
    DeploymentResult {
        config_id: "51d3a9f7".into(),
        name: "deploy".into(),
        group: "script".into(),
        action: "CREATE".into(),
        document_version: 4,
        status: ResultStatus::Failed,
        deploy_stdout: "out".into(),
        deploy_stderr: "secret".into(),
        deploy_status_code: -9,
        outputs: Map::from_iter([("answer".to_owned(), Value::from(42))]),
        reason: Some("interrupted".into()),
        started_unix_ms: 1,
        finished_unix_ms: 2,
        rerun: None,
    }
}

fn round_trip<M: Message + PartialEq + fmt::Debug>(message: &M, document_name: &str) -> String {
    let document = message.to_document(3).unwrap();
    assert_eq!(document.name.as_str(), document_name);
    assert_eq!(document.version, 3);
    assert_eq!(M::from_body(&document.body).unwrap(), *message);
    String::from_utf8(document.body.to_vec()).unwrap()
}

#[test]
fn every_message_is_the_json_of_the_protocol_document() {
    let welcome = Welcome {
        protocol: PROTOCOL,
        software: "metadata-server 0.1.0".into(),
        agent_id: "8a1c".into(),
        keep_alive_s: 20,
        newest: Some(Holds { version: 42, sha256: Hex32([0xab; 32]) }),
        return_within_ms: Some(5000),
    };
    let progress = Progress {
        document_version: 4,
        deployments: vec![DeploymentProgress {
            id: "51d3a9f7".into(),
            name: "deploy".into(),
            group: "script".into(),
            state: DeploymentState::Running,
            since_unix_ms: 1_700_000_000_000,
            output_tail: Some("hello\n".into()),
        }],
    };
    insta::assert_snapshot!(
        [
            round_trip(&hello(), "hello"),
            round_trip(&welcome, "welcome"),
            round_trip(&progress, "progress"),
            round_trip(&result(), "result/51d3a9f7"),
        ]
        .join("\n")
    );
}

#[test]
fn a_rerun_shows_in_its_result_and_a_first_run_does_not() {
    assert_eq!(result().run(), 1);
    assert!(!round_trip(&result(), "result/51d3a9f7").contains("rerun"));
    let rerun = Rerun { run: 3, asked_by: "user root (uid 0)".into(), asked_unix_ms: 5 };
    let again = DeploymentResult { rerun: Some(rerun.clone()), ..result() };
    assert_eq!(again.run(), 3);
    let json = round_trip(&again, "result/51d3a9f7");
    let shown = r#""rerun":{"run":3,"asked_by":"user root (uid 0)","asked_unix_ms":5}"#;
    assert!(json.contains(shown), "{json}");
    let asked_by = "u".repeat(FIELD_BYTES_MAX + 1);
    let long = DeploymentResult { rerun: Some(Rerun { asked_by, ..rerun }), ..result() };
    assert!(matches!(long.to_document(1), Err(MessageError::Field { .. })));
}

#[test]
fn unknown_fields_are_skipped_and_optional_ones_may_be_absent() {
    let hello = Hello::from_body(
        br#"{"protocol":2,"agent_id":"a","software":"","boot_id":"","colour":"blue"}"#,
    );
    let hello = hello.unwrap();
    assert_eq!((hello.protocol, hello.enrol, hello.holds), (2, None, None));
    let progress = br#"{"document_version":1,"deployments":
        [{"id":"a","name":"b","group":"c","state":"meditating","since_unix_ms":0}]}"#;
    let progress = Progress::from_body(progress).unwrap();
    assert_eq!(progress.deployments[0].state, DeploymentState::Unknown);
}

#[test]
fn what_is_wrong_is_said_without_repeating_the_content() {
    let error = |body: &[u8]| Hello::from_body(body).unwrap_err().to_string();
    assert_eq!(error(b"{}"), "this is no hello: missing field `protocol` at line 1 column 2");
    let empty = serde_json::to_vec(&Hello { agent_id: String::new(), ..hello() }).unwrap();
    assert_eq!(error(&empty), "hello: agent_id must not be empty");
    let long = Hello { software: "s".repeat(FIELD_BYTES_MAX + 1), ..hello() };
    assert_eq!(
        long.to_document(1).unwrap_err().to_string(),
        "hello: software has 1025 bytes, at most 1024 are allowed"
    );
    let spaces = [b' '; HELLO_BYTES_MAX + 1];
    assert_eq!(error(&spaces), "a hello has at most 4096 bytes as JSON, this one has 4097");
    let proof = String::from_utf8(hello().to_document(1).unwrap().body.to_vec())
        .unwrap()
        .replace(&"ab".repeat(32), "ab");
    assert!(error(proof.as_bytes()).contains("expected 64 hexadecimal digits"));
}

#[test]
fn too_many_deployments_a_zero_keep_alive_and_an_oversized_result_are_refused() {
    let deployment = DeploymentProgress {
        id: String::new(),
        name: String::new(),
        group: String::new(),
        state: DeploymentState::Skipped,
        since_unix_ms: 0,
        output_tail: None,
    };
    let progress =
        Progress { document_version: 1, deployments: vec![deployment; DEPLOYMENTS_MAX + 1] };
    assert!(matches!(progress.to_document(1), Err(MessageError::Field { .. })));
    let welcome = Welcome {
        protocol: 1,
        software: String::new(),
        agent_id: "a".into(),
        keep_alive_s: 0,
        newest: None,
        return_within_ms: None,
    };
    assert!(matches!(welcome.to_document(1), Err(MessageError::Field { .. })));
    let result = DeploymentResult { deploy_stdout: "x".repeat(RESULT_BYTES_MAX), ..result() };
    assert!(matches!(result.to_document(1), Err(MessageError::TooLong { .. })));
}

#[test]
fn a_result_of_any_config_id_has_a_name_and_distinct_ids_have_distinct_names() {
    assert_eq!(result_name("51d3a9f7").as_str(), "result/51d3a9f7");
    let odd = ["", "../x y", "ü", &"x".repeat(500), &"x".repeat(501)];
    let names: std::collections::BTreeSet<Name> = odd.iter().map(|id| result_name(id)).collect();
    assert_eq!(names.len(), odd.len());
    for name in names {
        assert!(crate::Limits::server().names.admits(name.as_str()), "{name}");
    }
}

#[test]
fn debug_output_holds_nothing_that_a_hook_printed() {
    let deployment = DeploymentProgress {
        id: "1".into(),
        name: "n".into(),
        group: "g".into(),
        state: DeploymentState::Running,
        since_unix_ms: 0,
        output_tail: Some("secret".into()),
    };
    let text = format!("{deployment:?}");
    assert!(!text.contains("secret") && text.contains("output_tail_bytes: Some(6)"), "{text}");
    let text = format!("{:?}", result());
    assert!(!text.contains("secret") && !text.contains("42"), "{text}");
    assert!(text.contains("stderr_bytes: 6"), "{text}");
}

#[test]
fn hex_is_read_in_either_case_and_nothing_else_is() {
    let text = "0123456789abcdefABCDEF".to_owned() + &"0".repeat(42);
    let hex: Hex32 = text.parse().unwrap();
    assert_eq!(hex.to_string(), text.to_lowercase());
    for wrong in ["", "0", &"g".repeat(64), &"0".repeat(63), &"0".repeat(65), &"ü".repeat(32)] {
        assert_eq!(wrong.parse::<Hex32>(), Err(Hex32Error), "{wrong}");
    }
    assert_eq!(
        Hex32::sha256_of(b"abc").to_string(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

#[test]
fn a_welcome_of_an_older_release_and_one_of_a_newer_one_are_read() {
    let old = br#"{"protocol":1,"software":"s","agent_id":"a","keep_alive_s":20}"#;
    assert_eq!(Welcome::from_body(old).unwrap().newest, None);
    let new = br#"{"protocol":1,"software":"s","agent_id":"a","keep_alive_s":20,"later":[1]}"#;
    assert_eq!(Welcome::from_body(new).unwrap(), Welcome::from_body(old).unwrap());
    let none = Welcome::from_body(old).unwrap().to_document(1).unwrap();
    assert_eq!(none.body.as_ref(), old, "and written as before");
}

fn signal() -> WaitSignal {
    WaitSignal { id: "0f-1".into(), url: "http://h/wait?Signature=s".into(), body: "{}".into() }
}

#[test]
fn a_signal_of_a_wait_condition_is_named_by_its_id_and_shows_no_secret() {
    let json = round_trip(&signal(), "signal/0f-1");
    assert_eq!(json, r#"{"id":"0f-1","url":"http://h/wait?Signature=s","body":"{}"}"#);
    assert!(!format!("{:?}", signal()).contains("Signature"));
    for (field, wrong) in [
        ("id", WaitSignal { id: String::new(), ..signal() }),
        ("id", WaitSignal { id: "a/b".into(), ..signal() }),
        ("id", WaitSignal { id: "a".repeat(SIGNAL_ID_BYTES_MAX + 1), ..signal() }),
        ("url", WaitSignal { url: "file:///etc/passwd".into(), ..signal() }),
        ("url", WaitSignal { url: "http://h/a b".into(), ..signal() }),
        (
            "url",
            WaitSignal { url: format!("http://{}", "h".repeat(SIGNAL_URL_BYTES_MAX)), ..signal() },
        ),
    ] {
        let error = wrong.to_document(1).unwrap_err();
        assert!(matches!(&error, MessageError::Field { field: f, .. } if *f == field), "{error}");
    }
    let long = WaitSignal { body: "x".repeat(SIGNAL_BYTES_MAX), ..signal() };
    assert!(matches!(long.to_document(1), Err(MessageError::TooLong { .. })));
}
