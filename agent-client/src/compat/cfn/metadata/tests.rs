use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::compat::pylog::{Level, Style};
use crate::store::StoredDocument;

struct Machine {
    root: tempfile::TempDir,
    system: System,
}

fn machine() -> Machine {
    let root = tempfile::tempdir().unwrap();
    let system = System::below(root.path(), OsStr::new(""), "");
    Machine { root, system }
}

impl Machine {
    fn write(&self, path: &str, text: &str) {
        let path = self.system.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn push(&self, value: &Value) {
        let path = self.system.document();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let document = StoredDocument::new(1, Bytes::from(value.to_string()), 1);
        DocumentStore::new(path.to_owned()).save(&document).unwrap();
    }

    fn look(&self, wanted: &Wanted<'_>) -> Result<Option<Found>> {
        retrieve(&self.system, &mut Log::new(Style::CfnTools, Level::Critical), wanted)
    }

    fn value(&self, wanted: &Wanted<'_>) -> Value {
        self.look(wanted).unwrap().unwrap().value
    }
}

fn of<'a>(resource: &'a str) -> Wanted<'a> {
    Wanted { resource: Some(resource), ..Wanted::default() }
}

const LAST: &str = "/var/cache/heat-cfntools/last_metadata";

#[test]
fn the_nearest_of_the_places_wins_and_a_copy_is_kept_privately() {
    let machine = machine();
    assert!(machine.look(&of("r")).unwrap().is_none());
    assert!(!machine.system.at(LAST).exists());
    machine.write(INIT_DATA, "{\"from\": \"init\"}");
    assert_eq!(machine.value(&of("r")), json!({"from": "init"}));
    for name in [LAST, &format!("{LAST}_r")] {
        let path = machine.system.at(name);
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"from\": \"init\"}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let directory = machine.system.at("/var/cache/heat-cfntools");
    assert_eq!(fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o700);

    machine.write(LAST, "{\"from\": \"last\"}");
    assert_eq!(machine.value(&of("other")), json!({"from": "last"}));
    machine.write(&format!("{LAST}_r"), "{\"from\": \"last of r\"}");
    assert_eq!(machine.value(&of("r")), json!({"from": "last of r"}));
    machine.push(&json!({"from": "push"}));
    assert_eq!(machine.value(&of("r")), json!({"from": "push"}));
}

#[test]
fn what_a_hook_hands_over_goes_before_a_push_when_no_resource_is_named() {
    let machine = machine();
    machine.write(INIT_DATA, "{\"from\": \"init\"}");
    machine.push(&json!({"from": "push"}));
    assert_eq!(machine.value(&Wanted::default()), json!({"from": "push"}));
    machine.write(LAST, "{\"from\": \"hook\"}");
    assert_eq!(machine.value(&Wanted::default()), json!({"from": "hook"}));
}

#[test]
fn a_push_about_something_else_or_a_damaged_one_is_passed_over() {
    let machine = machine();
    machine.write(INIT_DATA, "{\"from\": \"init\"}");
    machine.push(&json!({"from": "push"}));
    let wanted = Wanted { resource: Some("r"), needs: Some("section"), ..Wanted::default() };
    assert_eq!(machine.value(&wanted), json!({"from": "init"}));
    fs::write(machine.system.document(), "damaged").unwrap();
    assert_eq!(machine.value(&of("r")), json!({"from": "init"}));
    assert_eq!(fs::read(machine.system.document()).unwrap(), b"damaged", "left where it is");
}

#[test]
fn a_change_is_seen_once_and_each_resource_has_its_own() {
    let machine = machine();
    let changed = |resource: &str| machine.look(&of(resource)).unwrap().unwrap().has_changed;
    machine.push(&json!({"a": 1, "b": 2}));
    assert!(changed("r"));
    assert!(!changed("r"));
    machine.push(&json!({"b": 2, "a": 1}));
    assert!(!changed("r"), "the order of keys is no change");
    machine.push(&json!({"a": 2}));
    assert!(changed("r"));
    machine.write(LAST, "{\"from\": \"another resource\"}");
    assert!(!changed("r"));
}

#[test]
fn broken_files_and_names_are_errors_that_say_so() {
    let machine = machine();
    machine.write(INIT_DATA, "{");
    let error = format!("{:#}", machine.look(&of("r")).unwrap_err());
    assert!(error.contains("cfn-init-data is no JSON: EOF"), "{error}");
    for bad in ["", "../x"] {
        let error = machine.look(&of(bad)).unwrap_err().to_string();
        assert!(error.ends_with("is no name of a resource"), "{error}");
    }
    drop(machine.root);
}

#[test]
fn credentials_are_read_as_they_are_written_and_not_shown() {
    let machine = machine();
    for text in [
        "AWSAccessKeyId=foo\nAWSSecretKey=bar\n",
        "AWSAccessKeyId =foo\nAWSSecretKey= bar\n",
        "# x\nAWSAccessKeyId    =    foo\nAWSSecretKey    =    bar\n",
    ] {
        machine.write("/keys", text);
        let keys = Keys::read(&machine.system.at("/keys")).unwrap().unwrap();
        assert_eq!((keys.access.as_str(), keys.secret.as_str()), ("foo", "bar"));
        assert!(!format!("{keys:?}").contains("bar"));
    }
    machine.write("/keys", "AWSAccessKeyId=foo\n");
    assert_eq!(Keys::read(&machine.system.at("/keys")).unwrap(), None);
    assert!(Keys::read(&machine.system.at("/none")).is_err());
}

#[test]
fn where_heat_is_comes_from_what_cloud_init_has_left() {
    let machine = machine();
    let shown = || endpoint(&machine.system).map(|(url, trust)| format!("{url} {trust:?}"));
    assert!(shown().unwrap_err().to_string().contains("is not known"));
    machine.write(BOTO, "[Boto]\nis_secure = 0\ncfn_region_endpoint = 192.0.2.1\n");
    assert_eq!(shown().unwrap(), "http://192.0.2.1:8000/v1/ Machine");
    machine.write(
        BOTO,
        "[Boto]\nis_secure = 1\nhttps_validate_certificates = 0\ncfn_region_endpoint = h\n",
    );
    assert_eq!(shown().unwrap(), "https://h:8000/v1/ Everybody");
    machine.write(SERVER, "https://heat:8000\n");
    assert_eq!(shown().unwrap(), "https://heat:8000/v1/ Everybody");
    machine.write(SERVER, "http://heat:8000/v1/\n");
    machine.write(BOTO, "[Boto]\nca_certificates_file = /etc/ca.pem\n");
    assert_eq!(shown().unwrap(), "http://heat:8000/v1/ File(\"/etc/ca.pem\")");
}
