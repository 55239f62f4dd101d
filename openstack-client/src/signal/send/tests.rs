use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::*;
use crate::http::Trust;
use crate::testing::{Answer, Asked, HttpServer};

fn send_to(transport: &Transport, data: &Value) -> Result<u16, Failed> {
    attempt(&Client::default(), transport, data)
}

fn presigned(server: &HttpServer, put: bool) -> Transport {
    Transport::Presigned { url: server.url("/v1/signal/a%3Ab/x?Signature=secret%3D"), put }
}

/// Answers with these statuses, the last of them again and again.
fn scripted(statuses: &'static [u16]) -> HttpServer {
    let asked = Mutex::new(0);
    HttpServer::start(move |_: &Asked| {
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        Answer::new(statuses[(*asked - 1).min(statuses.len() - 1)], "an answer")
    })
}

fn signal_data() -> Value {
    json!({"deploy_stdout": "ü", "deploy_status_code": 0})
}

const SIGNAL_TEXT: &str = r#"{"deploy_stdout": "\u00fc", "deploy_status_code": 0}"#;

#[test]
fn a_presigned_url_gets_the_data_as_python_writes_it() {
    for (put, method) in [(false, "POST"), (true, "PUT")] {
        let server = scripted(&[200]);
        assert_eq!(send_to(&presigned(&server, put), &signal_data()), Ok(200));
        let [asked] = &server.asked()[..] else { panic!() };
        assert_eq!(asked.method, method);
        assert_eq!(asked.target, "/v1/signal/a%3Ab/x?Signature=secret%3D");
        assert_eq!(asked.header("content-type"), Some("application/json"));
        assert_eq!(asked.text(), SIGNAL_TEXT);
    }
}

#[test]
fn only_success_is_success_and_what_is_wrong_for_good_is_not_tried_again() {
    for status in [201, 204] {
        let server = HttpServer::start(move |_: &Asked| Answer::new(status, ""));
        assert_eq!(send_to(&presigned(&server, false), &signal_data()), Ok(status));
    }
    for status in [300, 400, 401, 403, 404, 409, 413] {
        let server = HttpServer::start(move |_: &Asked| Answer::new(status, "the  reason\n"));
        let failed = send_to(&presigned(&server, false), &signal_data()).unwrap_err();
        let Failed::Refused(why) = failed else { panic!("{status}: {failed:?}") };
        assert!(why.text.contains(&format!("answered with {status}: the reason")), "{why}");
        assert!(!why.text.contains("secret"), "{why}");
        assert_eq!(server.asked().len(), 1);
    }
}

#[test]
fn what_may_be_better_later_is_told_from_what_is_refused() {
    for status in [408, 425, 429, 500, 502, 503, 504] {
        let server = HttpServer::start(move |_| Answer::new(status, ""));
        let failed = send_to(&presigned(&server, false), &signal_data());
        assert!(matches!(failed, Err(Failed::Later(Why { status: Some(s), .. })) if s == status));
    }
}

#[test]
fn nobody_listening_is_a_matter_of_time_unless_the_url_has_ended() {
    let gone = scripted(&[200]).url("/x?Signature=secret");
    let to = |url: &str| {
        let transport = Transport::Presigned { url: url.into(), put: true };
        send_to(&transport, &json!({})).unwrap_err()
    };
    let Failed::Later(why) = to(&gone) else { panic!() };
    assert!(!why.text.contains("secret"), "{why}");
    let Failed::Refused(why) = to(&format!("{gone}&temp_url_expires=1000")) else { panic!() };
    assert!(why.text.contains("the URL was good until"), "{why}");
    assert!(matches!(to(&format!("{gone}&temp_url_expires=9999999999")), Failed::Later(_)));
    for url in ["", "mock://x", "not a url"] {
        assert!(matches!(to(url), Failed::Refused(_)), "{url}");
    }
}

#[test]
fn a_refused_url_that_is_old_says_so() {
    let server = scripted(&[403]);
    let url = server.url("/x?Timestamp=2020-01-01T00%3A00%3A00Z");
    let transport = Transport::Presigned { url, put: false };
    let failed = send_to(&transport, &json!({})).unwrap_err();
    let Failed::Refused(why) = failed else { panic!("{failed:?}") };
    assert!(why.text.contains("auth_ttl"), "{why}");
}

#[test]
fn a_redirect_takes_the_data_along() {
    for status in [301, 302, 307, 308] {
        let server = HttpServer::start(move |asked: &Asked| match asked.target.as_str() {
            "/there" => Answer::new(200, ""),
            _ => Answer::new(status, "").header("Location", "/there"),
        });
        assert_eq!(send_to(&presigned(&server, false), &signal_data()), Ok(200));
        let asked = server.asked().pop().unwrap();
        assert_eq!((asked.method.as_str(), asked.text()), ("POST", SIGNAL_TEXT.into()), "{status}");
    }
    let server = HttpServer::start(|_: &Asked| Answer::new(302, "").header("Location", "/again"));
    let failed = send_to(&presigned(&server, false), &signal_data());
    assert!(matches!(failed, Err(Failed::Refused(_))));
}

#[test]
fn a_body_is_never_longer_than_heat_takes() {
    let server = scripted(&[200]);
    let data = json!({"deploy_stdout": "x".repeat(3_000_000), "deploy_stderr": "short"});
    send_to(&presigned(&server, false), &data).unwrap();
    let body = server.asked().pop().unwrap().text();
    assert!(body.len() <= HEAT_BYTES_MAX && body.contains("bytes left out"));
    let sent: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(sent["deploy_stderr"], "short");
}

/// Keystone, Heat and Zaqar in one.
fn cloud(signal_status: u16) -> HttpServer {
    HttpServer::start(move |asked: &Asked| {
        let here = format!("http://{}", asked.header("host").unwrap());
        let endpoint = |region: &str, path: &str| json!({"interface": "public", "region_id": region, "url": format!("{here}{path}")});
        match (asked.method.as_str(), asked.target.as_str()) {
            ("POST", "/v3/auth/tokens") => {
                let catalog = json!([
                    {"type": "orchestration", "endpoints": [endpoint("one", "/heat/v1/p/"), endpoint("two", "/other/v1/p")]},
                    {"type": "messaging", "endpoints": [endpoint("one", "/zaqar"), endpoint("two", "/zaqar/v1.1/")]},
                ]);
                Answer::new(201, json!({"token": {"catalog": catalog}}).to_string())
                    .header("X-Subject-Token", "the-token")
            }
            ("GET", "/heat/v1/p/stacks/by%20name") => Answer::new(302, "")
                .header("Location", format!("{here}/heat/v1/p/stacks/by%20name/uuid?x")),
            ("GET", "/heat/v1/p/stacks/none") => Answer::new(404, "no such stack"),
            ("GET", "/heat/v1/p/stacks/odd") => Answer::new(200, "{}"),
            ("POST", _) => Answer::new(signal_status, "null"),
            _ => Answer::new(404, ""),
        }
    })
}

fn account(server: &HttpServer, region: Option<&str>) -> Account {
    Account {
        auth_url: server.url("/v3"),
        user_id: "user".into(),
        password: "secret".into(),
        project_id: "project".into(),
        region: region.map(Into::into),
    }
}

fn to_heat(server: &HttpServer, region: Option<&str>, stack: &str) -> Result<u16, Failed> {
    let account = account(server, region);
    let transport = Transport::Heat { account, stack: stack.into(), resource: "a resource".into() };
    send_to(&transport, &signal_data())
}

#[test]
fn heat_gets_the_signal_at_the_deployments_resource() {
    for (region, stack, path) in [
        (None, "s/1", "/heat/v1/p/stacks/s/1/resources/a%20resource/signal"),
        (Some("two"), "s/1", "/other/v1/p/stacks/s/1/resources/a%20resource/signal"),
        (None, "by name", "/heat/v1/p/stacks/by%20name/uuid/resources/a%20resource/signal"),
    ] {
        let server = cloud(200);
        assert_eq!(to_heat(&server, region, stack), Ok(200));
        let asked = server.asked().pop().unwrap();
        assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", path));
        assert_eq!(asked.header("x-auth-token"), Some("the-token"));
        assert_eq!(asked.header("content-type"), Some("application/json"));
        assert_eq!(asked.text(), SIGNAL_TEXT);
    }
}

#[test]
fn what_heat_or_keystone_refuse_is_told_from_what_they_cannot_do_now() {
    let refused = |result: Result<u16, Failed>| matches!(result, Err(Failed::Refused(_)));
    let later = |result: Result<u16, Failed>| matches!(result, Err(Failed::Later(_)));
    assert!(refused(to_heat(&cloud(404), None, "s/1")));
    assert!(later(to_heat(&cloud(503), None, "s/1")));
    assert!(refused(to_heat(&cloud(200), Some("nowhere"), "s/1")));
    assert!(refused(to_heat(&cloud(200), None, "none")));
    assert!(refused(to_heat(&cloud(200), None, "odd")));
    assert!(refused(to_heat(&scripted(&[401]), None, "s/1")));
    assert!(later(to_heat(&scripted(&[500]), None, "s/1")));
}

#[test]
fn zaqar_gets_one_message_by_version_2_of_its_api() {
    for (region, path) in [
        (None, "/zaqar/v2/queues/a%20queue/messages"),
        (Some("two"), "/zaqar/v2/queues/a%20queue/messages"),
    ] {
        let server = cloud(201);
        let transport =
            Transport::Zaqar { account: account(&server, region), queue: "a queue".into() };
        assert_eq!(send_to(&transport, &signal_data()), Ok(201));
        let asked = server.asked().pop().unwrap();
        assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", path));
        assert_eq!(asked.header("x-auth-token"), Some("the-token"));
        assert_eq!(asked.header("x-project-id"), Some("project"));
        let client = asked.header("client-id").unwrap();
        let lengths: Vec<_> = client.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{client}");
        assert_eq!(
            asked.text(),
            format!("{{\"messages\": [{{\"body\": {SIGNAL_TEXT}, \"ttl\": 600}}]}}")
        );
    }
    let server = cloud(201);
    let transport = Transport::Zaqar { account: account(&server, None), queue: "q".into() };
    let data = json!({"deploy_stdout": "x".repeat(900_000)});
    send_to(&transport, &data).unwrap();
    assert!(server.asked().pop().unwrap().body.len() < 256 << 10);
}

#[test]
fn all_requests_of_an_attempt_end_together() {
    let (release, hangs) = std::sync::mpsc::channel::<()>();
    let hangs = Mutex::new(hangs);
    let heat = HttpServer::start(move |asked: &Asked| match asked.method.as_str() {
        "POST" => {
            let _ = hangs.lock().unwrap().recv();
            Answer::new(200, "")
        }
        _ => Answer::new(404, ""),
    });
    let account = Account {
        auth_url: heat.url("/v3"),
        user_id: "u".into(),
        password: "secret".into(),
        project_id: "p".into(),
        region: None,
    };
    let transport = Transport::Heat { account, stack: "s/1".into(), resource: "r".into() };
    let client = Client::default().ending_at(Instant::now() + Duration::from_millis(300));
    let failed = attempt(&client, &transport, &signal_data()).unwrap_err();
    let Failed::Later(why) = failed else { panic!("{failed:?}") };
    assert!(why.text.contains("/auth/tokens: timeout: global"), "{why}");
    drop(release);
}

#[test]
fn certificates_that_cannot_be_read_are_our_fault_and_no_refusal() {
    let client = Client::new(Trust::File("/nowhere/bundle.pem".into()));
    let account = Account {
        auth_url: "https://127.0.0.1:1/v3".into(),
        user_id: "u".into(),
        password: "secret".into(),
        project_id: "p".into(),
        region: None,
    };
    let ways = [
        Transport::Presigned { url: "https://127.0.0.1:1/?Signature=secret".into(), put: false },
        Transport::Heat { account, stack: "s/1".into(), resource: "r".into() },
    ];
    for way in ways {
        let failed = attempt(&client, &way, &signal_data()).unwrap_err();
        let Failed::Later(why) = failed else { panic!("{way}: {failed:?}") };
        assert!(why.is_ours && why.text.contains("/nowhere/bundle.pem"), "{why}");
    }
}
