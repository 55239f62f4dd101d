use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::machine::testing::{recorder, root, taken};
use openstack_client::testing::{Answer, HttpServer};

const QUICK: Patience = Patience { attempts_max: 3, pause: Duration::from_millis(1) };

struct Machine {
    root: tempfile::TempDir,
    tools: PathBuf,
    calls: PathBuf,
    system: System,
}

/// A machine without a config drive, whose metadata service is `nova`.
fn machine(nova: &str) -> Machine {
    let (root, tools) = root();
    let calls = root.path().join("calls");
    for name in ["blkid", "mount", "umount"] {
        recorder(&tools, name, &calls, "exit 2");
    }
    let mut path = tools.clone().into_os_string();
    path.push(":/usr/bin:/bin");
    let system = System::below(root.path(), &path, nova);
    Machine { root, tools, calls, system }
}

impl Machine {
    fn write(&self, path: &str, text: &str) {
        let path = self.system.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Who the found token is for, and where it was.
    fn found(&self) -> (String, String) {
        let found = find(&self.system, QUICK).unwrap();
        (found.token.agent_id.to_string(), found.place)
    }
}

fn token(agent: &str) -> String {
    let fingerprint = certs::Fingerprint::from_bytes([7; 32]);
    let servers = vec!["127.0.0.1:4242".to_owned()];
    let token = EnrolmentToken::issue(servers, fingerprint, agent.parse().unwrap(), 2_000_000_000);
    token.unwrap().0.encode().to_string()
}

fn nobody() -> String {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    format!("http://{address}")
}

#[test]
fn the_cheapest_place_wins() {
    let meta = json!({"meta": {"agent-client-token": token("service")}}).to_string();
    let nova = HttpServer::start(move |asked| match asked.target.as_str() {
        "/openstack/latest/meta_data.json" => Answer::new(200, meta.clone()),
        _ => Answer::new(404, ""),
    });
    let machine = machine(&nova.url(""));
    assert_eq!(machine.found().0, "service");
    let heat = |agent: &str| json!({"agent-client": {"token": token(agent)}}).to_string();
    for (agent, path, text) in [
        ("local", "/etc/agent-client/token", token("local")),
        (
            "user",
            "/var/lib/cloud/instance/user-data.txt",
            format!("#cloud-config\nx: {}\n", token("user")),
        ),
        ("cloud", "/var/lib/cloud/data/cfn-init-data", heat("cloud")),
        ("heat", "/var/lib/heat-cfntools/cfn-init-data", heat("heat")),
    ] {
        machine.write(path, &text);
        assert_eq!(machine.found(), (agent.to_owned(), path.to_owned()));
    }
    assert_eq!(nova.asked().len(), 1, "asked only when nothing nearer has one");
}

#[test]
fn a_config_drive_is_mounted_read_only_and_unmounted_again() {
    for (path, text) in [
        (
            "openstack/latest/meta_data.json",
            json!({"meta": {"agent-client-token": token("drive")}}).to_string(),
        ),
        ("openstack/latest/user_data", format!("TOKEN={}", token("drive"))),
        ("ec2/latest/user-data", token("drive")),
    ] {
        let machine = machine(&nobody());
        machine.write(&format!("/drive/{path}"), &text);
        let drive = machine.system.at("/drive");
        recorder(
            &machine.tools,
            "blkid",
            &machine.calls,
            "[ $2 = LABEL=config-2 ] && echo /dev/sr0",
        );
        let copy = format!("cp -r {}/. \"$4\"", drive.display());
        recorder(&machine.tools, "mount", &machine.calls, &copy);
        recorder(&machine.tools, "umount", &machine.calls, "rm -rf \"$1\"/*");
        assert_eq!(machine.found(), ("drive".to_owned(), format!("config drive {path}")));
        let calls = taken(&machine.calls);
        assert_eq!(calls.len(), 3, "{calls:?}");
        assert_eq!(calls[0], "blkid -t LABEL=config-2 -o device");
        let place = calls[1].strip_prefix("mount -o ro,nosuid,nodev,noexec /dev/sr0 ").unwrap();
        assert_eq!(calls[2], format!("umount {place}"));
        assert!(!Path::new(place).exists());
    }
}

#[test]
fn a_config_drive_that_is_mounted_is_read_where_it_is() {
    let machine = machine(&nobody());
    machine.write("/dev/vdb", "");
    let by_label = machine.system.at("/dev/disk/by-label");
    fs::create_dir_all(&by_label).unwrap();
    std::os::unix::fs::symlink("../../vdb", by_label.join("CONFIG-2")).unwrap();
    let device = machine.system.at("/dev/vdb").canonicalize().unwrap();
    let place = machine.root.path().join("mounted");
    machine
        .write("/proc/mounts", &format!("{} {} vfat ro 0 0\n", device.display(), place.display()));
    machine.write("/mounted/openstack/latest/user_data", &token("drive"));
    assert_eq!(machine.found().0, "drive");
    assert_eq!(taken(&machine.calls), Vec::<String>::new());
}

#[test]
fn a_service_that_comes_late_is_waited_for_and_one_that_is_not_there_may_come() {
    let count = std::sync::atomic::AtomicU32::new(0);
    let line = token("late");
    let nova = HttpServer::start(move |asked| {
        match (count.fetch_add(1, std::sync::atomic::Ordering::SeqCst), asked.target.as_str()) {
            (0, _) => Answer::new(503, ""),
            (_, "/openstack/latest/user_data") => Answer::new(200, line.clone()),
            _ => Answer::new(200, "{}"),
        }
    });
    assert_eq!(
        machine(&nova.url("")).found(),
        ("late".to_owned(), "metadata service /openstack/latest/user_data".to_owned())
    );
    assert!(find(&machine(&nobody()).system, QUICK).unwrap_err().may_come);
    let nothing = HttpServer::start(|_| Answer::new(404, ""));
    assert!(!find(&machine(&nothing.url("")).system, QUICK).unwrap_err().may_come);
}

#[test]
fn what_was_looked_at_is_told_without_any_secret() {
    let nothing = HttpServer::start(|_| Answer::new(404, ""));
    let machine = machine(&nothing.url(""));
    let line = token("vm");
    let cut = &line[..line.len() - 7];
    machine.write(
        "/var/lib/heat-cfntools/cfn-init-data",
        &json!({"agent-client": {"token": cut}}).to_string(),
    );
    machine.write("/var/lib/cloud/data/cfn-init-data", "{}");
    machine.write("/var/lib/cloud/instance/user-data.txt", &format!("x {cut} y"));
    recorder(&machine.tools, "blkid", &machine.calls, "echo /dev/sr0");
    let error = find(&machine.system, QUICK).unwrap_err();
    let text = error.to_string();
    for part in [
        "/var/lib/heat-cfntools/cfn-init-data: enrolment token is damaged or cut short",
        "/var/lib/cloud/data/cfn-init-data has none",
        "/var/lib/cloud/instance/user-data.txt: enrolment token is damaged",
        "/etc/agent-client/token is not there",
        "the config drive: mount -o ro,nosuid,nodev,noexec /dev/sr0 ",
        "exit status 2",
        "metadata service /openstack/latest/meta_data.json answered with status 404",
    ] {
        assert!(text.contains(part), "{part} not in {text}");
    }
    assert!(!text.contains(&line[5..30]) && !format!("{error:?}").contains(&line[5..30]));
}

#[test]
fn every_token_is_found_again_and_again_and_the_config_drive_is_read_once() {
    let late = token("service");
    let nova = HttpServer::start(move |asked| match asked.target.as_str() {
        "/latest/user-data" => Answer::new(200, late.clone()),
        _ => Answer::new(404, ""),
    });
    let machine = machine(&nova.url(""));
    machine.write("/etc/agent-client/token", &token("file"));
    machine.write("/drive/openstack/latest/user_data", &token("drive"));
    let copy = format!("cp -r {}/. \"$4\"", machine.system.at("/drive").display());
    recorder(&machine.tools, "blkid", &machine.calls, "echo /dev/sr0");
    recorder(&machine.tools, "mount", &machine.calls, &copy);
    recorder(&machine.tools, "umount", &machine.calls, "rm -rf \"$1\"/*");
    let mut places = Places::default();
    for calls in [3, 0] {
        let found = places.look(&machine.system).unwrap();
        let agents: Vec<String> = found.iter().map(|f| f.token.agent_id.to_string()).collect();
        assert_eq!(agents, ["file", "drive", "service"]);
        assert_eq!(taken(&machine.calls).len(), calls);
    }
}
