use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::compat::occ::config::load;
use openstack_client::testing::{Answer, Asked, HttpServer};

/// What a collector says under this configuration, and what it passed over.
fn collect(name: &str, file: &str) -> (Found, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("conf");
    let cachedir = directory.path().join("cache").display().to_string();
    fs::write(&path, format!("[DEFAULT]\ncachedir={cachedir}\n{file}")).unwrap();
    let arguments = ["--config-file".into(), OsString::from(&path)];
    let config = load(&arguments, |_| None).unwrap();
    let cache = Cache::new(cachedir.into());
    let mut all = Collectors::new(&config, &cache);
    let found = all.collect(name);
    (found, all.warnings())
}

/// Names and contents.
fn items(found: Found) -> Vec<(String, Value)> {
    found.unwrap().into_iter().map(|item| (item.name, item.content)).collect()
}

fn why(found: Found) -> String {
    match found {
        Err(Missing::Unavailable(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn is_not_configured(found: &Found) -> bool {
    matches!(found, Err(Missing::NotConfigured(_)))
}

fn write(directory: &Path, name: &str, text: &str) {
    fs::write(directory.join(name), text).unwrap();
    fs::set_permissions(directory.join(name), fs::Permissions::from_mode(0o644)).unwrap();
}

#[test]
fn local_files_come_in_the_order_of_their_names() {
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path();
    for (name, text) in [("b", "1"), ("B", "{}"), ("a.json", "[]"), (".hidden", "nonsense")] {
        write(own, name, text);
    }
    fs::create_dir(own.join("directory")).unwrap();
    let file = format!("[local]\npath={}\npath=/no/such", own.display());
    let (found, warnings) = collect("local", &file);
    let expected = [("B", json!({})), ("a.json", json!([])), ("b", json!(1))];
    assert_eq!(items(found), expected.map(|(name, value)| (name.to_owned(), value)));
    assert_eq!(warnings, ["/no/such not found. Skipping"]);
    let (found, _) = collect("local", "[local]\npath=/no/such");
    assert_eq!(items(found), []);
}

#[test]
fn local_files_that_others_can_write_or_that_are_broken_fail_all() {
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path();
    write(own, "good", "1");
    let file = format!("[local]\npath={}", own.display());
    write(own, "bad", "secret");
    let error = why(collect("local", &file).0);
    assert!(error.contains("bad is not valid JSON") && !error.contains("secret"), "{error}");
    write(own, "bad", "2");
    assert!(collect("local", &file).0.is_ok());
    for path in [own.join("bad"), own.to_owned()] {
        let before = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let error = why(collect("local", &file).0);
        assert!(error.contains("world writable"), "{error}");
        fs::set_permissions(&path, before).unwrap();
    }
}

#[test]
fn files_of_the_first_boot_are_merged_and_bad_ones_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path();
    write(own, "1", r#"{"a": {"x": 1}, "b": 1, "deployments": [{"name": "d", "config": 1}]}"#);
    write(own, "2", "broken");
    write(own, "3", r#"{"a": {"y": 2}}"#);
    write(own, "4", "[1]");
    let paths: String = (0..5).map(|n| format!("path={}/{n}\n", own.display())).collect();
    let (found, warnings) = collect("heat_local", &format!("[heat_local]\n{paths}"));
    let content = json!({"a": {"y": 2}, "b": 1, "deployments": [{"name": "d", "config": 1}]});
    assert_eq!(items(found), [("heat_local".to_owned(), content)]);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    write(own, "1", "{}");
    let (found, _) = collect("heat_local", &format!("[heat_local]\npath={}/1", own.display()));
    assert!(why(found).contains("not found"));
}

#[test]
fn the_metadata_service_is_read_as_a_tree() {
    let server = HttpServer::start(|asked: &Asked| match asked.target.as_str() {
        "/md/" => Answer::new(200, "ami-id\nkeys/\npublic/\n"),
        "/md/ami-id" => Answer::new(200, "ami-1 \u{fc}"),
        "/md/keys/" => Answer::new(200, "0=my key"),
        "/md/keys/0/" => Answer::new(200, "openssh-key"),
        "/md/keys/0/openssh-key" => Answer::new(200, "ssh-rsa A\nssh-rsa B"),
        "/md/public/" => Answer::new(200, ""),
        _ => Answer::new(404, ""),
    });
    let file = format!("[ec2]\nmetadata_url={}", server.url("/md"));
    let (found, _) = collect("ec2", &file);
    let content = json!({
        "ami-id": "ami-1 ü",
        "keys": {"0": {"openssh-key": "ssh-rsa A\nssh-rsa B"}},
        "public": {},
    });
    assert_eq!(items(found), [("ec2".to_owned(), content)]);
    let (found, _) = collect("ec2", &format!("[ec2]\nmetadata_url={}", server.url("/none")));
    assert!(why(found).contains("status 404"));
    let endless = HttpServer::start(|_| Answer::new(200, "a/"));
    let (found, _) = collect("ec2", &format!("[ec2]\nmetadata_url={}", endless.url("/md")));
    assert!(why(found).contains("more than 10 deep"));
    assert_eq!(endless.asked().len(), 11);
}

#[test]
fn cached_ec2_metadata_is_used_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::new(directory.path().to_owned());
    cache.store("ec2", &json!({"a": 1})).unwrap();
    let file = ["--config-file", "/dev/null", "--ec2-metadata-url", "http://127.0.0.1:9"];
    let config = load(&file.map(OsString::from), |_| None).unwrap();
    let found = Collectors::new(&config, &cache).collect("ec2");
    assert_eq!(items(found), [("ec2".to_owned(), json!({"a": 1}))]);
}

fn cfn_answer(metadata: &str) -> Answer {
    let metadata = metadata.replace('<', "&lt;");
    Answer::new(
        200,
        format!(
            "<DescribeStackResourceResponse><DescribeStackResourceResult><StackResourceDetail>\
             <Metadata>{metadata}</Metadata></StackResourceDetail></DescribeStackResourceResult>\
             </DescribeStackResourceResponse>"
        ),
    )
}

fn cfn_file(url: &str, more: &str) -> String {
    format!(
        "[cfn]\nmetadata_url={url}\naccess_key_id=AK\nsecret_access_key=secret\nstack_name=s\n{more}"
    )
}

#[test]
fn the_cloudformation_api_is_asked_for_each_path() {
    let server = HttpServer::start(|asked: &Asked| {
        if asked.target.contains("LogicalResourceId=one&") {
            cfn_answer(r#"{"a": 1, "b": 1, "deployments": [{"name": "d", "config": {"x": 1}}]}"#)
        } else {
            cfn_answer(r#"{"os": {"b": {"c": 2}}}"#)
        }
    });
    let paths = "path=one.Metadata\npath=two.Metadata.os";
    let (found, _) = collect("cfn", &cfn_file(&server.url("/v1/"), paths));
    let main = json!({"a": 1, "b": {"c": 2}, "deployments": [{"name": "d", "config": {"x": 1}}]});
    assert_eq!(items(found), [("cfn".to_owned(), main), ("d".to_owned(), json!({"x": 1}))]);
    let asked = server.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].header("content-type"), Some("application/json"));
    assert!(asked[0].target.starts_with("/v1/?AWSAccessKeyId=AK&Action=DescribeStackResource"));
    assert!(asked[0].target.contains("&StackName=s&Signature="));
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "hint", &format!("{}\n", server.url("")));
    let hint = format!("heat_metadata_hint={}/hint\n{paths}", directory.path().display());
    let file = cfn_file("", &hint).replace("metadata_url=\n", "");
    assert!(collect("cfn", &file).0.is_ok());
    assert!(server.asked().pop().unwrap().target.starts_with("/v1/?"));
}

#[test]
fn a_failing_path_or_setting_of_cfn_is_told_apart() {
    let server = HttpServer::start(|asked: &Asked| {
        if asked.target.contains("LogicalResourceId=bad&") {
            cfn_answer("secret")
        } else if asked.target.contains("LogicalResourceId=list&") {
            cfn_answer("[1]")
        } else if asked.target.contains("LogicalResourceId=good&") {
            cfn_answer("{}")
        } else {
            Answer::new(403, "")
        }
    });
    let url = server.url("/v1/");
    for (path, part) in [
        ("good.Other", "Path good.Other does not exist"),
        ("good.Metadata.x", "Sub-key x does not exist"),
        ("bad.Metadata", "failed to parse as json"),
        ("list.Metadata", "is no object"),
        ("none.Metadata", "status 403"),
    ] {
        let error = why(collect("cfn", &cfn_file(&url, &format!("path={path}"))).0);
        assert!(error.contains(part) && !error.contains("secret"), "{path}: {error}");
        assert!(!error.contains("Signature"), "{error}");
    }
    assert!(is_not_configured(&collect("cfn", &cfn_file(&url, "path=noformat")).0));
    assert!(is_not_configured(&collect("cfn", &cfn_file(&url, "")).0));
    for setting in ["metadata_url", "access_key_id", "secret_access_key", "stack_name"] {
        let file = cfn_file(&url, "path=a.b\nheat_metadata_hint=/no/such");
        let file: String = file
            .lines()
            .filter(|line| !line.starts_with(setting))
            .map(|l| format!("{l}\n"))
            .collect();
        assert!(is_not_configured(&collect("cfn", &file).0), "{setting}");
    }
}

#[test]
fn a_url_is_asked_by_head_and_get() {
    let server = HttpServer::start(|asked: &Asked| match asked.target.as_str() {
        "/good?sig=secret" => Answer::new(200, r#"{"a": "ü"}"#).header("Last-Modified", "nonsense"),
        "/list" => Answer::new(200, "[]"),
        _ => Answer::new(403, ""),
    });
    let ask =
        |path: &str| collect("request", &format!("[request]\nmetadata_url={}", server.url(path))).0;
    assert_eq!(items(ask("/good?sig=secret")), [("request".to_owned(), json!({"a": "ü"}))]);
    let methods: Vec<String> = server.asked().into_iter().map(|asked| asked.method).collect();
    assert_eq!(methods, ["HEAD", "GET"]);
    assert!(why(ask("/list")).contains("not an object"));
    let error = why(ask("/none?sig=secret"));
    assert!(error.contains("status 403") && !error.contains("secret"), "{error}");
    assert!(is_not_configured(&collect("request", "").0));
}

/// Keystone, Heat and Zaqar at one address; `refused` tokens are answered with 401.
fn cloud(refused: &'static str) -> HttpServer {
    HttpServer::start(move |asked: &Asked| {
        let here = format!("http://{}", asked.header("host").unwrap());
        let is_refused = asked.header("x-auth-token") == Some(refused);
        let endpoint = |path: &str| json!([{"interface": "public", "region_id": "one", "url": format!("{here}{path}")}]);
        let catalog = json!([
            {"type": "orchestration", "endpoints": endpoint("/heat/")},
            {"type": "messaging", "endpoints": endpoint("/zaqar")},
        ]);
        match (asked.method.as_str(), asked.target.as_str()) {
            ("POST", "/v3/auth/tokens") => {
                Answer::new(201, json!({"token": {"catalog": catalog}}).to_string())
                    .header("X-Subject-Token", "fresh")
            }
            _ if is_refused => Answer::new(401, ""),
            ("GET", "/heat/stacks/name") => {
                Answer::new(302, "").header("Location", format!("{here}/heat/stacks/name/id"))
            }
            ("GET", "/heat/stacks/name/id/resources/my%20server/metadata") => {
                let metadata = json!({"a": 1, "deployments": [{"name": "d", "config": 1}]});
                Answer::new(200, json!({ "metadata": metadata }).to_string())
            }
            ("DELETE", "/zaqar/v2/queues/q/messages?pop=1") => {
                Answer::new(200, json!({"messages": [{"body": {"z": 1}, "ttl": 60}]}).to_string())
            }
            ("DELETE", _) => Answer::new(200, json!({"messages": []}).to_string()),
            _ => Answer::new(404, ""),
        }
    })
}

fn user(section: &str, server: &HttpServer, more: &str) -> String {
    format!(
        "[{section}]\nauth_url={}\nuser_id=u\npassword=secret\nproject_id=p\n{more}\n",
        server.url("/v3")
    )
}

#[test]
fn heat_is_asked_with_a_token_and_a_stack_of_a_name_alone_is_looked_up() {
    let server = cloud("");
    for stack in ["name/id", "name"] {
        let more = format!("stack_id={stack}\nresource_name=my server\nregion_name=one");
        let (found, _) = collect("heat", &user("heat", &server, &more));
        let names: Vec<String> = items(found).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["heat", "d"]);
    }
    let asked = server.asked().pop().unwrap();
    assert_eq!(asked.header("x-auth-token"), Some("fresh"));
    for (more, part) in [
        ("stack_id=name/id\nresource_name=other", "status 404"),
        ("stack_id=other\nresource_name=r", "in place of a redirect"),
        ("stack_id=name/id\nresource_name=r\nregion_name=two", "in region two"),
    ] {
        let error = why(collect("heat", &user("heat", &server, more)).0);
        assert!(error.contains(part), "{error}");
    }
    assert!(is_not_configured(&collect("heat", &user("heat", &server, "stack_id=a/b")).0));
    assert!(is_not_configured(&collect("heat", "").0));
}

#[test]
fn zaqar_gives_one_message_and_an_empty_queue_is_unavailable() {
    let server = cloud("");
    let (found, _) = collect("zaqar", &user("zaqar", &server, "queue_id=q"));
    assert_eq!(items(found), [("zaqar".to_owned(), json!({"z": 1}))]);
    let asked = server.asked().pop().unwrap();
    assert_eq!(asked.header("x-project-id"), Some("p"));
    assert_eq!(asked.header("client-id").map(str::len), Some(36));
    let (found, warnings) =
        collect("zaqar", &user("zaqar", &server, "queue_id=none\nuse_websockets=true"));
    assert!(why(found).contains("empty"));
    assert!(warnings[0].contains("use_websockets"), "{warnings:?}");
    let more = "queue_id=q\nssl_certificate_validation=true";
    assert!(is_not_configured(&collect("zaqar", &user("zaqar", &server, more)).0));
    assert!(is_not_configured(&collect("zaqar", "").0));
}

#[test]
fn a_kept_token_is_used_again_until_it_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let tokens = directory.path().join("tokens");
    let more = "stack_id=name/id\nresource_name=my server";
    let kept = format!("[keystone]\ncache_dir={}\n", tokens.display());
    let server = cloud("stale");
    let file = user("heat", &server, more) + &kept;
    let sign_ins =
        || server.asked().iter().filter(|asked| asked.target == "/v3/auth/tokens").count();
    for _ in 0..3 {
        assert!(collect("heat", &file).0.is_ok());
    }
    assert_eq!(sign_ins(), 1);
    assert_eq!(fs::metadata(&tokens).unwrap().permissions().mode() & 0o777, 0o700);
    let path = fs::read_dir(&tokens).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("fresh", "stale")).unwrap();
    assert!(collect("heat", &file).0.is_ok());
    assert_eq!(sign_ins(), 2);
    assert!(collect("heat", &file.replace("cache_dir", "cache_ttl=0\ncache_dir")).0.is_ok());
    assert_eq!(sign_ins(), 3);
}
