use std::sync::Arc;

use super::*;
use crate::testing::{Answer, HttpServer};

fn client() -> Client {
    Client::default()
}

#[test]
fn every_method_arrives_with_its_headers_and_body() {
    let server = HttpServer::start(|_| Answer::new(200, "ok").header("X-Answer", "yes"));
    for method in [Method::Get, Method::Head, Method::Put, Method::Post, Method::Delete] {
        let request = Request::new(method, server.url("/a?b=c%20d"))
            .header("X-Auth-Token", "t")
            .header("Content-Type", "")
            .body("body");
        let response = client().send(&request).unwrap();
        assert_eq!(response.status, 200);
        assert_eq!(response.header("x-answer"), Some("yes"));
        assert_eq!(response.text(), if method == Method::Head { "" } else { "ok" });
        let asked = server.asked().pop().unwrap();
        assert_eq!(
            (asked.method.as_str(), asked.target.as_str()),
            (&*method.to_string(), "/a?b=c%20d")
        );
        assert_eq!(asked.header("x-auth-token"), Some("t"));
        assert_eq!(asked.header("content-type"), Some(""));
        let sends = matches!(method, Method::Put | Method::Post);
        assert_eq!(asked.text(), if sends { "body" } else { "" });
    }
    let post = Request::new(Method::Post, server.url("/")).json(&serde_json::json!({"a": 1}));
    client().send(&post).unwrap();
    let asked = server.asked().pop().unwrap();
    assert_eq!(asked.header("content-type"), Some("application/json"));
    assert_eq!(asked.text(), "{\"a\":1}");
    client().send(&Request::new(Method::Post, server.url("/"))).unwrap();
    assert_eq!(server.asked().pop().unwrap().header("content-length"), Some("0"));
}

#[test]
fn a_status_of_failure_is_a_response() {
    for status in [204, 300, 304, 400, 401, 403, 404, 409, 500, 503] {
        let server = HttpServer::start(move |_| Answer::new(status, ""));
        let response = client().send(&Request::get(server.url("/"))).unwrap();
        assert_eq!(response.status, status);
        assert_eq!(response.is_success(), status == 204);
    }
}

#[test]
fn redirects_are_followed_as_requests_does() {
    for (status, method, then) in [
        (301, Method::Get, "GET"),
        (301, Method::Post, "GET"),
        (302, Method::Put, "GET"),
        (302, Method::Delete, "DELETE"),
        (303, Method::Delete, "GET"),
        (303, Method::Head, "HEAD"),
        (307, Method::Post, "POST"),
        (308, Method::Put, "PUT"),
    ] {
        let server = HttpServer::start(move |asked| match asked.target.as_str() {
            "/old" => Answer::new(status, "gone").header("Location", "new?x=1"),
            _ => Answer::new(200, "here"),
        });
        let request = Request::new(method, server.url("/old"))
            .header("X-Auth-Token", "t")
            .header("Content-Type", "application/json")
            .body("body");
        let response = client().send(&request).unwrap();
        assert_eq!(response.url, server.url("/new?x=1"));
        let asked = server.asked().pop().unwrap();
        assert_eq!((asked.method.as_str(), asked.target.as_str()), (then, "/new?x=1"));
        assert_eq!(asked.header("x-auth-token"), Some("t"));
        assert_eq!(asked.text(), if matches!(then, "POST" | "PUT") { "body" } else { "" });
        assert_eq!(
            asked.header("content-type").is_some(),
            then != "GET" || method == Method::Get,
            "{status} {method}"
        );
    }
}

#[test]
fn secrets_do_not_go_to_another_host() {
    let other = HttpServer::start(|_| Answer::new(200, ""));
    let there = other.url("/");
    let server = HttpServer::start(move |_| Answer::new(307, "").header("Location", &*there));
    let request = Request::get(server.url("/"))
        .header("X-Auth-Token", "t")
        .header("Authorization", "a")
        .header("Accept", "application/json");
    assert_eq!(client().send(&request).unwrap().status, 200);
    let asked = other.asked().pop().unwrap();
    assert_eq!(asked.header("x-auth-token"), None);
    assert_eq!(asked.header("authorization"), None);
    assert_eq!(asked.header("accept"), Some("application/json"));
}

#[test]
fn redirects_are_bounded_and_can_be_declined() {
    let server = HttpServer::start(|_| Answer::new(302, "").header("Location", "/again?secret"));
    let error = client().send(&Request::get(server.url("/?secret"))).unwrap_err();
    assert_eq!(error.failure, Failure::BadResponse);
    assert!(error.reason.contains("more than 10 times"), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
    assert_eq!(server.asked().len(), 11);
    let once = Request::get(server.url("/")).redirects_max(0);
    assert_eq!(client().send(&once).unwrap().status, 302);
    let nowhere = HttpServer::start(|_| Answer::new(302, "").header("Location", "http://"));
    let error = client().send(&Request::get(nowhere.url("/"))).unwrap_err();
    assert!(error.reason.contains("leads to no URL"), "{error}");
}

#[test]
fn a_response_that_is_too_large_is_an_error_and_a_chunked_one_is_read() {
    let server = HttpServer::start(|asked| match asked.target.as_str() {
        "/chunked" => Answer::new(200, "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            .header("Transfer-Encoding", "chunked"),
        _ => Answer::new(200, "12345678"),
    });
    let request = Request::get(server.url("/"));
    assert_eq!(client().send(&request.clone().response_bytes_max(8)).unwrap().body.len(), 8);
    let error = client().send(&request.response_bytes_max(7)).unwrap_err();
    assert_eq!(error.failure, Failure::BadResponse);
    assert!(error.reason.contains("larger than 7 bytes"), "{error}");
    let chunked = client().send(&Request::get(server.url("/chunked"))).unwrap();
    assert_eq!(chunked.text(), "abcde");
}

#[test]
fn nobody_there_is_transient_and_a_bad_url_is_not() {
    let closed = HttpServer::start(|_| Answer::new(200, "")).url("/path?signature=secret");
    let error = client().send(&Request::get(closed)).unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
    assert!(error.to_string().contains("/path: "), "{error}");
    for bad in
        ["", "x", "/x", "ftp://x/?secret", "http://", "http://[x/?secret", "http://a b/?secret"]
    {
        let error = client().send(&Request::get(bad)).unwrap_err();
        assert_eq!(error.failure, Failure::BadRequest, "{bad:?}: {error}");
        assert!(!error.is_transient());
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let header = Request::get("http://127.0.0.1:9/").header("X", "a\nb");
    assert_eq!(client().send(&header).unwrap_err().failure, Failure::BadRequest);
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = HttpServer::start(move |_| {
        let _ = wait.lock().unwrap().recv();
        Answer::new(200, "")
    });
    let request = Request::get(server.url("/")).timeout(Duration::from_millis(50));
    let error = client().send(&request).unwrap_err();
    assert_eq!(error.failure, Failure::Timeout);
    assert!(error.is_transient(), "{error}");
    drop(release);
}

#[test]
fn requests_that_have_to_end_do_so_however_steadily_bytes_trickle_in() {
    let beginnings: [(&str, &[u8]); 2] =
        [("http", b"HTTP/1.1 200 OK\r\nX: "), ("https", &[22, 3, 3, 0x40, 0])];
    for (scheme, beginning) in beginnings {
        let server = HttpServer::start_wrapped(
            |_| Answer::new(200, ""),
            move |mut stream| {
                let mut next = stream.write_all(beginning);
                while next.is_ok() {
                    std::thread::sleep(Duration::from_millis(10));
                    next = stream.write_all(b"x");
                }
                None
            },
        );
        let request = Request::get(server.url("/").replace("http", scheme));
        let patient = Client::new(Trust::Everybody);
        let client = patient.ending_at(Instant::now() + Duration::from_millis(200));
        let error = client.send(&request.timeout(Duration::from_secs(60))).unwrap_err();
        assert_eq!(error.failure, Failure::Timeout, "{error}");
        assert!(error.reason.contains("global"), "not a step of it: {error}");
    }
    let error = client().ending_at(Instant::now()).send(&Request::get("http://h/")).unwrap_err();
    assert_eq!(
        (error.failure, error.reason.as_str()),
        (Failure::Timeout, "no time is left for it")
    );
}

#[test]
fn what_is_no_http_is_an_error() {
    let server = HttpServer::start_wrapped(
        |_| Answer::new(200, ""),
        |mut stream| {
            let _ = std::io::Write::write_all(&mut stream, b"220 mail ready\r\n\r\n");
            None
        },
    );
    let error = client().send(&Request::get(server.url("/"))).unwrap_err();
    assert!(matches!(error.failure, Failure::BadResponse | Failure::Connection), "{error}");
}

#[test]
fn urls_are_shown_without_secrets() {
    for (url, shown) in [
        ("http://h/p?q=s", "http://h/p"),
        ("http://u:s@h:1/p#s", "http://h:1/p"),
        ("https://h", "https://h"),
        ("https://h?x", "https://h"),
        ("nonsense?x", "nonsense"),
    ] {
        assert_eq!(without_secrets(url), shown);
    }
    let request = Request::get("http://h/p?secret").header("X", "secret").body("secret");
    assert_eq!(format!("{request:?}"), "GET http://h/p (6 bytes)");
}

/// A certificate for 127.0.0.1 and a server with it.
fn tls_server() -> (HttpServer, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let private = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    let config = Arc::new(config);
    let server = HttpServer::start_wrapped(
        |_| Answer::new(200, "secure"),
        move |stream| {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).ok()?;
            Some(Box::new(rustls::StreamOwned::new(connection, stream)))
        },
    );
    (server, certificate.pem())
}

#[test]
fn https_is_spoken_with_those_whose_certificate_is_trusted_and_with_nobody_else() {
    let (server, pem) = tls_server();
    let url = format!("https://{}/", server.address);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, pem).unwrap();
    for trust in [Trust::File(file.clone()), Trust::Everybody] {
        let response = Client::new(trust).send(&Request::get(&url)).unwrap();
        assert_eq!(response.text(), "secure");
    }
    let (_, other) = tls_server();
    std::fs::write(&file, other).unwrap();
    let error = Client::new(Trust::File(file.clone())).send(&Request::get(&url)).unwrap_err();
    assert_eq!(error.failure, Failure::Connection, "{error}");
    assert!(error.reason.contains("certificate"), "{error}");
    std::fs::write(&file, "nothing").unwrap();
    for path in [file, directory.path().join("none")] {
        let error = Client::new(Trust::File(path.clone())).send(&Request::get(&url)).unwrap_err();
        assert_eq!(error.failure, Failure::Trust);
        assert!(error.is_transient() && error.is_ours(), "once it is put right");
        assert!(error.reason.contains(&path.display().to_string()), "{error}");
    }
}

#[test]
fn a_download_is_written_as_it_comes_and_only_if_it_is_a_success() {
    let large: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
    let expected = large.clone();
    let server = HttpServer::start(move |asked| match asked.target.as_str() {
        "/moved" => Answer::new(302, "elsewhere").header("Location", "/large"),
        "/large" => Answer::new(200, large.clone()),
        _ => Answer::new(404, "no such thing"),
    });
    let mut out = Vec::new();
    let response = client().download(&Request::get(server.url("/moved")), &mut out).unwrap();
    assert!(response.is_success() && response.body.is_empty());
    assert_eq!(out, expected);
    out.clear();
    let response = client().download(&Request::get(server.url("/none")), &mut out).unwrap();
    assert_eq!((response.status, response.text().as_str(), out.len()), (404, "no such thing", 0));
    let small = Request::get(server.url("/large")).response_bytes_max(1_000);
    let error = client().download(&small, &mut out).unwrap_err();
    assert_eq!(error.failure, Failure::BadResponse);
    let mut nowhere = [0; 10];
    let error = client().download(&Request::get(server.url("/large")), &mut &mut nowhere[..]);
    assert_eq!(error.unwrap_err().failure, Failure::Output);
}

#[test]
fn a_client_goes_nowhere_but_where_it_may_also_by_redirects() {
    let elsewhere = HttpServer::start(|_| Answer::new(200, "elsewhere"));
    let there = elsewhere.url("/there");
    let server = HttpServer::start(move |asked| match asked.target.as_str() {
        "/v1/away" => Answer::new(307, "").header("Location", there.clone()),
        "/v1/near" => Answer::new(307, "").header("Location", "/v1/x"),
        "/v1/out" => Answer::new(307, "").header("Location", "/v2/x"),
        _ => Answer::new(200, "here"),
    });
    let post = |client: &Client, path: &str| {
        client.send(&Request::new(Method::Post, server.url(path)).body("secret"))
    };
    let fenced = client().only_to(vec![server.url("/v1").parse().unwrap()]);
    assert_eq!(post(&fenced, "/v1/near").unwrap().text(), "here");
    for path in ["/v2/x", "/v1/away", "/v1/out"] {
        let error = post(&fenced, path).unwrap_err();
        assert_eq!(error.failure, Failure::NotAllowed, "{path}");
        assert!(!error.is_transient());
    }
    let staying = client().staying_at_host();
    assert_eq!(post(&staying, "/v1/out").unwrap().text(), "here");
    assert_eq!(post(&staying, "/v1/away").unwrap().status, 307);
    assert!(elsewhere.asked().is_empty());
}
