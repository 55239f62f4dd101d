use std::fs;

use super::*;

fn load(text: &str) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, text).unwrap();
    Config::load(&ConfigFile::Named(path.clone()), &[])
        .map_err(|e| e.to_string().replace(&format!("{}/", folder.path().display()), ""))
}

#[test]
fn an_empty_file_gives_the_defaults() {
    assert_eq!(load("").unwrap(), Config::default());
    assert_eq!(Config::default().listen.to_string(), "0.0.0.0:7843");
    assert_eq!(Config::default().document_bytes_max, 16 << 20);
}

#[test]
fn every_default_is_a_valid_value_of_its_setting() {
    for setting in SETTINGS {
        if let Some(default) = setting.default {
            let mut config = Config::default();
            assert_eq!((setting.apply)(&mut config, &Value::Text(default.into())), Ok(()));
            assert_eq!(config, Config::default(), "{}", setting.key);
        }
    }
}

#[test]
fn an_unknown_key_is_an_error_that_names_its_line_and_the_near_key() {
    assert_eq!(
        load("# comment\nlisten = \"127.0.0.1:1\"\nadmin-lisen = \"127.0.0.1:2\"\n").unwrap_err(),
        "config.toml:3: unknown key \"admin-lisen\"; did you mean \"admin_listen\"?"
    );
    assert!(load("colour = 1").unwrap_err().contains("the keys are listen, admin_listen"));
}

#[test]
fn all_errors_are_reported_at_once() {
    let errors = load(
        "listen = \"here\"\nkeep_alive = 5\npeer_timeout = \"1y\"\n\
         document_bytes_max = \"17GiB\"\n[extra]\nx = 1\n",
    )
    .unwrap_err();
    insta::assert_snapshot!(errors);
}

#[test]
fn broken_toml_is_named_by_its_line() {
    let error = load("listen = \"127.0.0.1:1\"\nadmin_listen = \n").unwrap_err();
    assert!(error.starts_with("config.toml:2: not TOML: "), "{error}");
}

#[test]
fn a_named_file_must_exist() {
    let error = Config::load(&ConfigFile::Named("/nonexistent/x.toml".into()), &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/nonexistent/x.toml: cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn fragments_win_over_the_file_in_the_order_of_their_names_and_flags_win_over_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, "drain_timeout = \"1s\"\nkeep_alive = \"2s\"\ntoken_ttl = \"3m\"").unwrap();
    fs::create_dir(folder.path().join("conf.d")).unwrap();
    fs::write(folder.path().join("conf.d/20-b.toml"), "keep_alive = \"7s\"").unwrap();
    fs::write(folder.path().join("conf.d/10-a.toml"), "keep_alive = \"5s\"").unwrap();
    fs::write(folder.path().join("conf.d/notes.txt"), "not toml").unwrap();
    let flag = Override {
        key: "token_ttl",
        value: Value::Text("9m".into()),
        origin: Origin::Flag("token-ttl".into()),
    };
    let config = Config::load(&ConfigFile::Named(path), &[flag]).unwrap();
    assert_eq!(config.drain_timeout.as_secs(), 1);
    assert_eq!(config.keep_alive.as_secs(), 7);
    assert_eq!(config.token_ttl.as_secs(), 9 * 60);
}

#[test]
fn an_admin_api_beyond_loopback_must_be_asked_for() {
    let error = load("admin_listen = \"0.0.0.0:1\"").unwrap_err();
    assert!(error.contains("beyond loopback"), "{error}");
    assert!(load("admin_listen = \"0.0.0.0:1\"\nadmin_remote = true").is_ok());
}

#[test]
fn certificate_and_key_are_set_together() {
    let error = load("key_file = \"/k\"").unwrap_err();
    assert!(error.contains("certificate_file and key_file belong together"), "{error}");
}

#[test]
fn numbers_are_read_in_any_notation_of_toml() {
    let config = load("agents_max = 1_000\ndocument_bytes_max = 0x10000").unwrap();
    assert_eq!((config.agents_max, config.document_bytes_max), (1000, 65536));
    let config = load("document_bytes_max = \"64KiB\"\nadvertise = [\"a.example:1\", \"[::1]:2\"]");
    assert_eq!(config.unwrap().advertise, ["a.example:1", "[::1]:2"]);
}
