//! What the environment says.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// The program that sends a result, unless something else is said.
pub const NOTIFY: &str = "heat-config-notify";
/// Variable: how long an entry may run that does not say so itself, in seconds; 0 or unset: for ever.
pub const TIMEOUT: &str = "HEAT_CONFIG_TIMEOUT";
/// Variable: how long to try to send a result, in seconds.
pub const NOTIFY_TIMEOUT: &str = "HEAT_CONFIG_NOTIFY_TIMEOUT";
/// How long that is if nothing is said.
pub const NOTIFY_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// Where hooks are looked for, after the place that is asked for and the built-in ones.
const HOOKS: [&str; 2] = ["/usr/libexec/heat-config/hooks", "/var/lib/heat-config/hooks"];
const LIST: &str = "/var/run/heat-config/heat-config";
pub(super) const DEPLOYED: &str = "/var/lib/heat-config/deployed";
pub(super) const DEPLOYED_OLD: &str = "/var/run/heat-config/deployed";

/// Where things are, and how long they may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The list of entries, `HEAT_SHELL_CONFIG`.
    pub list: PathBuf,
    /// The directory whose hooks win, `HEAT_CONFIG_HOOKS`.
    pub hooks: Option<PathBuf>,
    /// The other directories of hooks, the first wins.
    pub hook_directories: Vec<PathBuf>,
    /// What has been done, `HEAT_CONFIG_DEPLOYED`.
    pub deployed: PathBuf,
    /// Where that was once, `HEAT_CONFIG_DEPLOYED_OLD`.
    pub deployed_old: PathBuf,
    /// The program that sends a result, `HEAT_CONFIG_NOTIFY`.
    pub notify: PathBuf,
    /// For entries that do not say how long they may take, `HEAT_CONFIG_TIMEOUT`; zero: for ever.
    pub timeout: Duration,
    /// How long to try to send a result, `HEAT_CONFIG_NOTIFY_TIMEOUT`.
    pub notify_timeout: Duration,
}

impl Settings {
    /// Reads the variables; empty ones count as unset. What is wrong is told beside.
    pub fn of_environment(variable: impl Fn(&str) -> Option<OsString>) -> (Self, Vec<String>) {
        let path = |name| variable(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let mut complaints = Vec::new();
        let mut time = |name: &str| {
            seconds(name, variable(name)).unwrap_or_else(|complaint| {
                complaints.push(complaint);
                None
            })
        };
        let (timeout, notify_timeout) = (time(TIMEOUT), time(NOTIFY_TIMEOUT));
        let settings = Self {
            list: path("HEAT_SHELL_CONFIG").unwrap_or_else(|| LIST.into()),
            hooks: path("HEAT_CONFIG_HOOKS"),
            hook_directories: HOOKS.map(PathBuf::from).into(),
            deployed: path("HEAT_CONFIG_DEPLOYED").unwrap_or_else(|| DEPLOYED.into()),
            deployed_old: path("HEAT_CONFIG_DEPLOYED_OLD").unwrap_or_else(|| DEPLOYED_OLD.into()),
            notify: path("HEAT_CONFIG_NOTIFY").unwrap_or_else(|| NOTIFY.into()),
            timeout: timeout.unwrap_or_default(),
            notify_timeout: notify_timeout.unwrap_or(NOTIFY_TIMEOUT_DEFAULT),
        };
        (settings, complaints)
    }
}

/// Where it is kept what was done: the place that HEAT_CONFIG_DEPLOYED names, else, if `usual` counts, the
/// usual one.
pub fn deployed(variable: impl Fn(&str) -> Option<OsString>, usual: bool) -> Option<PathBuf> {
    let named = variable("HEAT_CONFIG_DEPLOYED").filter(|path| !path.is_empty());
    named.map(PathBuf::from).or_else(|| usual.then(|| DEPLOYED.into()))
}

/// A variable that is a number of seconds.
///
/// # Errors
/// It is none; with what it should be.
pub fn seconds(name: &str, value: Option<OsString>) -> Result<Option<Duration>, String> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    let number = value.to_str().and_then(|text| text.trim().parse().ok());
    number
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .map(Some)
        .ok_or_else(|| format!("{name} is {value:?}, it must be a number of seconds; left out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unset_and_empty_variables_leave_the_usual_places() {
        let (unset, complaints) = Settings::of_environment(|_| None);
        assert!(complaints.is_empty());
        assert_eq!(unset.list, PathBuf::from("/var/run/heat-config/heat-config"));
        assert_eq!(unset.deployed, PathBuf::from("/var/lib/heat-config/deployed"));
        assert_eq!(unset.deployed_old, PathBuf::from("/var/run/heat-config/deployed"));
        assert_eq!(unset.notify, PathBuf::from("heat-config-notify"));
        assert_eq!((unset.hooks.as_ref(), unset.timeout), (None, Duration::ZERO));
        assert_eq!(Settings::of_environment(|_| Some(OsString::new())).0, unset);
    }

    #[test]
    fn seconds_are_numbers_and_anything_else_is_told() {
        let read = |text: &str| seconds("T", Some(text.into()));
        assert_eq!(read("90"), Ok(Some(Duration::from_secs(90))));
        assert_eq!(read(" 0.5 "), Ok(Some(Duration::from_millis(500))));
        assert_eq!(read(""), Ok(None));
        for bad in ["soon", "-1", "inf", "nan", "1e30"] {
            assert!(read(bad).unwrap_err().contains("must be a number of seconds"), "{bad}");
        }
    }
}
