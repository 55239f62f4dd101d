//! Services: enabled or not, running or not; by systemd, else by what came before it.

use std::ffi::OsString;

use serde_json::{Map, Value};

use super::work::{Work, is_true};
use crate::machine::run::{Call, Ran};

const SYSTEMCTL: &str = "/bin/systemctl";
const SERVICE: [&str; 2] = ["/sbin/service", "/usr/sbin/service"];
const CHKCONFIG: &str = "/sbin/chkconfig";
const UPDATE_RC: &str = "/usr/sbin/update-rc.d";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Enable,
    Disable,
    Start,
    Stop,
    Status,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Self::Enable => "enable",
            Self::Disable => "disable",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Status => "status",
        }
    }
}

/// Enables, disables, starts and stops.
pub(super) fn apply(work: &mut Work<'_>, services: Option<&Value>) {
    each(work, services, |work, service, properties| {
        if let Some(enabled) = properties.get("enabled") {
            let verb = if is_true(enabled) { Verb::Enable } else { Verb::Disable };
            work.log.info(format!("{} of service {service}", verb.word()));
            must(work, verb, service);
        }
        if let Some(wanted) = properties.get("ensureRunning") {
            let is_running = call(work, Verb::Status, service).is_success();
            match (is_true(wanted), is_running) {
                (true, false) => {
                    work.log.info(format!("Starting service {service}"));
                    must(work, Verb::Start, service);
                }
                (false, true) => {
                    work.log.info(format!("Stopping service {service}"));
                    must(work, Verb::Stop, service);
                }
                (true, true) | (false, false) => {}
            }
        }
    });
}

/// Starts the services that should run and do not, and tells of each.
pub(super) fn restart_stopped(
    work: &mut Work<'_>,
    services: Option<&Value>,
    mut restarted: impl FnMut(&mut Work<'_>, &str),
) {
    each(work, services, |work, service, properties| {
        let Some(wanted) = properties.get("ensureRunning") else { return };
        let is_running = call(work, Verb::Status, service).is_success();
        if is_true(wanted) && !is_running {
            work.log.warning(format!("Restarting service {service}"));
            must(work, Verb::Start, service);
            restarted(work, service);
        }
    });
}

fn each(
    work: &mut Work<'_>,
    services: Option<&Value>,
    mut apply: impl FnMut(&mut Work<'_>, &str, &Map<String, Value>),
) {
    let Some(managers) = work.map("services", services) else { return };
    for (manager, entries) in managers {
        if !matches!(manager.as_str(), "sysvinit" | "systemd") {
            work.fail(format!(
                "services: {manager:?} is not known; there are sysvinit and systemd"
            ));
            continue;
        }
        let Some(entries) = work.map(&format!("services of {manager}"), Some(entries)) else {
            continue;
        };
        for (service, properties) in entries {
            if work.is_name("service", service)
                && let Some(properties) = work.map(&format!("service {service}"), Some(properties))
            {
                apply(work, service, properties);
            }
        }
    }
}

fn must(work: &mut Work<'_>, verb: Verb, service: &str) {
    let call = words(work, verb, service);
    work.do_or_fail(&format!("service {service}"), &call);
}

fn call(work: &mut Work<'_>, verb: Verb, service: &str) -> Ran {
    let call = words(work, verb, service);
    work.run(&call)
}

fn words(work: &Work<'_>, verb: Verb, service: &str) -> Call {
    let system = work.system;
    let exists = |path: &str| system.at(path).exists();
    let words = |path: &str, rest: [&str; 2]| {
        let mut words = vec![system.at(path).into_os_string()];
        words.extend(rest.map(OsString::from));
        Call::new(words)
    };
    if exists(SYSTEMCTL) {
        let unit = match service.rsplit_once('.') {
            Some((_, "service" | "socket" | "timer" | "target" | "path" | "mount")) => {
                service.to_owned()
            }
            _ => format!("{service}.service"),
        };
        return words(SYSTEMCTL, [verb.word(), &unit]);
    }
    match verb {
        Verb::Enable | Verb::Disable if exists(CHKCONFIG) => {
            words(CHKCONFIG, [service, if verb == Verb::Enable { "on" } else { "off" }])
        }
        Verb::Enable | Verb::Disable => words(UPDATE_RC, [service, verb.word()]),
        Verb::Start | Verb::Stop | Verb::Status => {
            let program = if exists(SERVICE[0]) { SERVICE[0] } else { SERVICE[1] };
            words(program, [service, verb.word()])
        }
    }
}
