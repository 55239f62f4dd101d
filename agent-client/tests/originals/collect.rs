//! `os-collect-config`.

use std::process::Command;

use serde_json::{Value, json};

use crate::{NO_CACHE, Place, both};
use openstack_client::testing::{Answer, Asked, HttpServer};

const METADATA: &str = r#"{"z": 1, "a": {"f": 1.0, "e": 2e5, "s": 1e-7, "u": "ü \u2028 \u0001", "n": null,
    "l": [], "o": {}, "t": true}, "deployments": [
    {"name": "first", "config": {"x": [1, {"y": 2}]}},
    {"name": "text one", "group": "os-apply-config", "config": "text"},
    {"name": "script", "group": "script", "config": "echo"},
    {"group": "os-apply-config", "config": "no name"}]}"#;
const LOCAL: [(&str, &str); 4] =
    [("b", "[1, 2.50]"), ("B.json", "{\"k\": 1}"), (".hidden", "{"), ("_", "\"t\"")];

fn prepare(place: &Place) {
    std::fs::create_dir(place.path("cache")).unwrap();
    place.write("init", METADATA, 0o644);
    place.write("init2", r#"{"a": {"f": 2}, "more": true}"#, 0o644);
    for (name, text) in LOCAL {
        place.write(&format!("local/{name}"), text, 0o644);
    }
    place.write(
        "conf",
        "[DEFAULT]\ncachedir=cache\nbackup_cachedir=run/backup\ncollectors=local\ncollectors=heat_local\n\
         command=printf '%s|' \"$$OS_CONFIG_FILES\" \"$$KEPT\" $$(umask) $$(cat) >> ran\n\
         [local]\npath=local\npath=none\n[heat_local]\npath=init\npath=none\npath=init2\n",
        0o644,
    );
}

/// With a locale in which the original does not crash when it sorts.
fn collect(place: &Place, arguments: &[&str]) -> Command {
    let mut command = place.command("os-collect-config");
    command.args(["--config-file", "conf"]).args(arguments);
    command.env("LC_ALL", "C").env("HOME", place.path(".")).env("KEPT", "kept");
    command
}

/// Several calls, one after the other, in a shell; each prints its exit code.
fn session(place: &Place, script: &str) -> Command {
    drop(place.command("os-collect-config"));
    let mut command = Command::new("sh");
    let header = "occ() { os-collect-config --config-file conf \"$@\"; echo \"exit $?\"; }\n";
    command.args(["-c", &format!("{header}{script}")]).env_clear();
    let bin = place.path("bin");
    command.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).env("LC_ALL", "C");
    command.env("HOME", place.path(".")).env("KEPT", "kept").env("XDG_CACHE_HOME", NO_CACHE);
    command.current_dir(place.path("."));
    command
}

#[test]
fn what_is_collected_on_the_machine_is_printed_alike() {
    for arguments in [
        &["--print"][..],
        &["--print", "heat_local"],
        &["--print", "local", "heat_local", "request", "cfn", "heat"],
        &["--print", "--heat_local-path", "init2"],
        &["--print", "request"],
        &["--print-cachedir"],
        &["-c", ""],
    ] {
        let run = |place: &Place| collect(place, arguments);
        let output = both(&format!("{arguments:?}"), prepare, run, ".");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty());
    }
}

#[test]
fn the_cache_its_copy_and_the_command_see_the_same() {
    let script = "occ --one-time </dev/null\n\
        occ --one-time\n\
        echo '{\"k\": 2}' > local/B.json; rm local/b\n\
        occ --one-time -c 'cat cache/B.json.json.last; exit 7'\n\
        ls cache; cat cache/B.json.json.last\n\
        occ --one-time -c 'kill -9 $$$$'\n\
        occ --one-time -c no-such-program\n\
        occ --one-time < init2\n\
        occ --force\n\
        echo '[]' > local/c; rm -r run; mkdir -p run/backup/old\n\
        occ --one-time local\n\
        rm cache/c.json.orig\n\
        occ --one-time local\n\
        rm cache/c.json.last\n\
        occ --one-time local\n\
        echo '{\"a\": 1.0, \"b\": 2}' > local/c; occ --one-time local\n\
        echo '{\"b\": 2, \"a\": 1.0}' > local/c; occ --one-time local\n\
        umask 027; echo 5 > local/d; chmod 600 local/d; occ --one-time local\n\
        chmod o+w local/d; occ --one-time heat_local local; cat cache/os_config_files.json\n";
    let output = both("a session", prepare, |place| session(place, script), ".");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("exit 7") && text.contains("exit 247") && text.contains("exit 127"));
}

#[test]
fn configuration_is_read_alike() {
    let files = [
        "[DEFAULT]\ncachedir = a\n  b\ncommand: x\n",
        "[DEFAULT]\ncachedir=a$backup_cachedir\nbackup_cachedir=/${polling_interval}$$\\$5\n",
        "[DEFAULT]\ncachedir=$collectors/$force/${keystone.cache_ttl}|${cfn.stack_name}|$ec2.timeout\n\
         collectors=ec2\ncollectors=local\npolling-interval=x\n",
        "[default]\ncachedir=no\n[LOCAL]\npath=$cachedir\n[DEFAULT]\ncachedir='q'\n",
        "[DEFAULT]\ncachedir=\"\n[DEFAULT]\n; c\ncachedir=\n",
        "[DEFAULT]\nother=$nosuch\ncachedir=x\n[unknown]\ny=$z\n",
        "[DEFAULT]\ncommand=$nosuch\n",
        "[DEFAULT]\ncommand=$cachedir.x\n",
        "[DEFAULT]\ncommand=$local\n",
        "[cfn]\npath=$stack_name$cachedir\n",
        "[DEFAULT]\npolling_interval=soon\n",
        "[DEFAULT]\nforce=2\n",
        "[ec2]\nmetadata_url=nowhere\n",
        "[keystone]\ncache_ttl=1.5\n",
        "[DEFAULT]\nno assignment\n",
        "cachedir=x\n",
        "[DEFAULT\n",
        "[DEFAULT]\n\n continued\n",
    ];
    for file in files {
        let prepare = |place: &Place| place.write("conf", file, 0o644);
        let run = |place: &Place| collect(place, &["--print-cachedir"]);
        let _ = both(file, prepare, run, ".");
    }
}

#[test]
fn options_files_and_variables_count_in_the_same_order() {
    let prepare = |place: &Place| {
        prepare(place);
        place.write("one", "[DEFAULT]\ncachedir=one\n", 0o644);
        place.write("two", "[DEFAULT]\nbackup_cachedir=two\n", 0o644);
        place.write("conf.d/1.conf", "[DEFAULT]\ncachedir=d1\n", 0o644);
        place.write("conf.d/2.conf", "[DEFAULT]\ncachedir=d2\n", 0o644);
        place.write("conf.d/3.bak", "nonsense", 0o644);
        place.write("os-collect-config.conf", "[DEFAULT]\ncachedir=home\n", 0o644);
        place.write("os-collect-config.conf.d/x.conf", "[local]\npath=$cachedir\n", 0o644);
    };
    for (arguments, variable) in [
        (&[][..], ""),
        (&["--cachedir", "said"], ""),
        (&[], "variable"),
        (&["--cachedir", "said"], "variable"),
        (&["--cachedir=said", "--config-file", "one"], ""),
        (&["--config-file", "one", "--cachedir=said"], "variable"),
        (&["--config-file=two", "--cachedir=said"], "variable"),
        (&["--config-dir", "conf.d"], ""),
        (&["--config-dir", "conf.d", "--config-file", "one"], ""),
        (&["--config-dir", "none"], ""),
        (&["--config-file", "none"], ""),
    ] {
        let run = |place: &Place| {
            let mut command = place.command("os-collect-config");
            command.args(arguments).arg("--print-cachedir").env("HOME", place.path("."));
            if !variable.is_empty() {
                command.env("OS_DEFAULT__CACHEDIR", variable);
            }
            command
        };
        let _ = both(&format!("{arguments:?} {variable}"), prepare, run, ".");
    }
}

#[test]
fn wrong_usage_ends_alike() {
    let prepare = |place: &Place| place.write("conf", "", 0o644);
    for arguments in [
        &["--nosuch"][..],
        &["-x"],
        &["--cachedir"],
        &["--force=1"],
        &["--cfn-s", "x"],
        &["local", "--force", "ec2"],
        &["nosuch"],
        &["--print", "-i", "x"],
        &["--one", "--print-c"],
        &["--cached", "abbreviated", "--print-cachedir"],
        &["-dcx", "-i5", "--print-cachedir", "--cachedir=-"],
        &["-c", "-unknown"],
        &["-c", "- words", "--print-cachedir"],
    ] {
        let run = |place: &Place| collect(place, arguments);
        let _ = both(&format!("{arguments:?}"), prepare, run, ".");
    }
}

/// Everything that collectors ask, at one address.
fn cloud() -> HttpServer {
    HttpServer::start(|asked: &Asked| {
        let here = format!("http://{}", asked.header("host").unwrap());
        let endpoint = |path: &str| {
            let url = format!("{here}{path}");
            json!([{"interface": "public", "region_id": "one", "region": "one", "url": url}])
        };
        let json = |status: u16, body: Value| {
            Answer::new(status, body.to_string()).header("Content-Type", "application/json")
        };
        let version = json!({"id": "v3.14", "status": "stable",
            "links": [{"rel": "self", "href": format!("{here}/v3/")}]});
        let path = asked.target.split('?').next().unwrap();
        match (asked.method.as_str(), path) {
            ("GET", "/ec2/") => Answer::new(200, "ami-id\npublic-keys/"),
            ("GET", "/ec2/ami-id") => Answer::new(200, "ami-1"),
            ("GET", "/ec2/public-keys/") => Answer::new(200, "0=key"),
            ("GET", "/ec2/public-keys/0/") => Answer::new(200, "openssh-key"),
            ("GET", "/ec2/public-keys/0/openssh-key") => Answer::new(200, "ssh-rsa AAAA"),
            (_, "/request") => json(200, serde_json::from_str(METADATA).unwrap()),
            ("GET", "/v1/") => {
                let metadata = METADATA.replace('&', "&amp;").replace('<', "&lt;");
                let body = format!(
                    "<DescribeStackResourceResponse><DescribeStackResourceResult>\
                     <StackResourceDetail><Metadata>{metadata}</Metadata></StackResourceDetail>\
                     </DescribeStackResourceResult></DescribeStackResourceResponse>"
                );
                Answer::new(200, body).header("Content-Type", "application/xml; charset=UTF-8")
            }
            ("GET", "/" | "/v3/" | "/v3") => json(200, json!({ "version": version })),
            ("POST", "/v3/auth/tokens") => {
                let catalog = json!([
                    {"type": "orchestration", "name": "heat", "id": "1", "endpoints": endpoint("/heat/p")},
                    {"type": "messaging", "name": "zaqar", "id": "2", "endpoints": endpoint("/zaqar")},
                ]);
                let token = json!({"methods": ["password"], "catalog": catalog,
                    "expires_at": "2099-01-01T00:00:00.000000Z",
                    "issued_at": "2026-01-01T00:00:00.000000Z",
                    "project": {"id": "p", "name": "p", "domain": {"id": "d", "name": "d"}},
                    "user": {"id": "u", "name": "u", "domain": {"id": "d", "name": "d"}}});
                json(201, json!({ "token": token })).header("X-Subject-Token", "token")
            }
            ("GET", "/heat/p/stacks/name/id/resources/server%201/metadata") => {
                let metadata: Value = serde_json::from_str(METADATA).unwrap();
                json(200, json!({ "metadata": metadata }))
            }
            ("DELETE", "/zaqar/v2/queues/q/messages") => {
                let body: Value = serde_json::from_str(METADATA).unwrap();
                json(200, json!({"messages": [{"id": "1", "ttl": 60, "age": 1, "body": body}]}))
            }
            _ => Answer::new(404, "{}"),
        }
    })
}

/// What a request says, without what names the client.
fn shown(asked: &Asked) -> String {
    // A blank has two forms in a query.
    let target = asked.target.replace('+', "%20");
    let mut query: Vec<&str> = target.split(['?', '&']).skip(1).collect();
    query.sort_unstable();
    let path = target.split('?').next().unwrap();
    let header = |name: &str| asked.header(name).unwrap_or_default().to_owned();
    let body: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
    format!(
        "{} {path} {} {} {}",
        asked.method,
        query.join("&"),
        header("x-auth-token"),
        serde_json::to_string(&body["auth"]["scope"]).unwrap() + &header("x-project-id"),
    )
}

#[test]
fn what_the_cloud_has_is_asked_for_and_kept_alike() {
    let server = cloud();
    let url = |path: &str| server.url(path);
    let user =
        format!("auth_url={}\nuser_id=u\npassword=s\nproject_id=p\nregion_name=one\n", url("/v3"));
    let conf = format!(
        "[DEFAULT]\ncachedir=cache\nbackup_cachedir=backup\ncommand=echo \"$$OS_CONFIG_FILES\"\n\
         [ec2]\nmetadata_url={}\n[request]\nmetadata_url={}\n\
         [cfn]\nmetadata_url={}\naccess_key_id=A+K\nsecret_access_key=s\nstack_name=a stack\n\
         path=server.Metadata.a\n\
         [heat]\n{user}stack_id=name/id\nresource_name=server 1\n\
         [zaqar]\n{user}queue_id=q\n",
        url("/ec2"),
        url("/request"),
        url("/v1/"),
    );
    let prepare = |place: &Place| {
        std::fs::create_dir(place.path("cache")).unwrap();
        place.write("conf", &conf, 0o644);
        // Neither side may find a config drive of the machine.
        place.write("bin/blkid", "#!/bin/sh\n", 0o755);
    };
    for collector in ["ec2", "request", "cfn", "heat", "zaqar"] {
        let before = server.asked().len();
        let run = |place: &Place| collect(place, &["--one-time", collector]);
        let output = both(collector, prepare, run, ".");
        assert!(!output.stdout.is_empty(), "{collector} has collected");
        let asked: Vec<String> = server.asked()[before..].iter().map(shown).collect();
        let (theirs, ours) = asked.split_at(asked.len() / 2);
        assert_eq!(ours, theirs, "requests of {collector}");
    }
}

#[test]
fn a_source_that_is_not_there_is_passed_over_alike() {
    let server = HttpServer::start(|_| Answer::new(503, ""));
    let conf = format!(
        "[DEFAULT]\ncachedir=cache\nbackup_cachedir=backup\ncommand=echo \"$$OS_CONFIG_FILES\"\n\
         [ec2]\nmetadata_url={0}\n[request]\nmetadata_url={0}\n[heat_local]\npath=none\n\
         [cfn]\nmetadata_url={0}\naccess_key_id=A\nsecret_access_key=s\nstack_name=s\npath=a.b\n\
         [heat]\nauth_url={0}\nuser_id=u\npassword=s\nproject_id=p\nstack_id=a/b\nresource_name=r\n\
         [zaqar]\nauth_url={0}\nuser_id=u\npassword=s\nproject_id=p\nqueue_id=q\n[local]\npath=local\n",
        server.url("/"),
    );
    let prepare = |place: &Place| {
        std::fs::create_dir(place.path("cache")).unwrap();
        place.write("conf", &conf, 0o644);
        place.write("local/a", "{}", 0o644);
        place.write("bin/blkid", "#!/bin/sh\nexit 2\n", 0o755);
    };
    for arguments in [&["--one-time"][..], &["--print"]] {
        let _ = both(&format!("{arguments:?}"), prepare, |place| collect(place, arguments), ".");
    }
}
