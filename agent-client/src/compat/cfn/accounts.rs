//! Groups and users. One that is there already is left as it is, so that a config can be applied again.

use serde_json::Value;

use super::work::{Work, text_of, words_of};
use crate::machine::run::Call;

/// Users are for services: nobody logs in as one.
const SHELL: &str = "/sbin/nologin";
/// What `groupadd` and `useradd` exit with if the name is taken.
const STATUS_EXISTS: i32 = 9;

/// Makes the groups.
pub(super) fn apply_groups(work: &mut Work<'_>, groups: Option<&Value>) {
    let Some(groups) = work.map("groups", groups) else { return };
    for (name, properties) in groups {
        let mut words = vec!["groupadd".to_owned(), name.clone()];
        option(&mut words, "--gid", properties.get("gid"));
        add(work, "group", name, &words, |status| match status {
            4 => "its GID is taken",
            3 => "its GID is not valid",
            2 => "invalid syntax",
            _ => "",
        });
    }
}

/// Makes the users.
pub(super) fn apply_users(work: &mut Work<'_>, users: Option<&Value>) {
    let Some(users) = work.map("users", users) else { return };
    for (name, properties) in users {
        let mut words = vec!["useradd".to_owned(), name.clone()];
        option(&mut words, "--uid", properties.get("uid"));
        option(&mut words, "--home", properties.get("homeDir"));
        if let Some(groups) = properties.get("groups") {
            words.extend(["--groups".to_owned(), words_of(groups).join(",")]);
        }
        words.extend(["--shell".to_owned(), SHELL.to_owned()]);
        add(work, "user", name, &words, |status| match status {
            6 => "a group does not exist",
            4 => "its UID is taken",
            3 => "invalid argument",
            2 => "invalid syntax",
            _ => "",
        });
    }
}

fn option(words: &mut Vec<String>, name: &str, value: Option<&Value>) {
    if let Some(value) = value.filter(|value| !value.is_null()) {
        words.extend([name.to_owned(), text_of(value)]);
    }
}

fn add(
    work: &mut Work<'_>,
    kind: &str,
    name: &str,
    words: &[String],
    meaning: fn(i32) -> &'static str,
) {
    if !work.is_name(kind, name) {
        return;
    }
    work.log.debug(format!("{name} {kind} is being created"));
    let ran = work.run(&Call::new(words));
    match ran.status {
        0 => work.log.info(format!("{name} has been successfully created")),
        STATUS_EXISTS => work.log.info(format!("{kind} {name} is there already")),
        status => {
            let meaning = Some(meaning(status)).filter(|meaning| !meaning.is_empty());
            let meaning = meaning.map(|meaning| format!("{meaning}; ")).unwrap_or_default();
            work.fail(format!("{kind} {name} could not be created: {meaning}{}", ran.why()));
        }
    }
}
