//! Packages, by the package managers of the machine.

use std::cmp::Ordering;
use std::path::Path;

use serde_json::{Map, Value};

use super::files::fetch;
use super::rpm_version::compare;
use super::work::{Work, words_of};
use crate::machine::run::Call;

/// These come first, in this order; others by name.
const ORDER: [&str; 5] = ["dpkg", "rpm", "apt", "yum", "dnf"];

/// Installs, upgrades or downgrades the packages.
pub(super) fn apply(work: &mut Work<'_>, packages: Option<&Value>) {
    let Some(packages) = work.map("packages", packages) else { return };
    let mut managers: Vec<&String> = packages.keys().collect();
    let rank = |name: &str| ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len());
    managers.sort_by_key(|name| (rank(name), name.to_lowercase()));
    for manager in managers {
        let what = format!("packages of {manager}");
        let Some(entries) = work.map(&what, packages.get(manager)) else { continue };
        let entries: Vec<(&str, Vec<String>)> = entries_of(work, entries);
        match manager.as_str() {
            "dpkg" => dpkg(work, &entries),
            "rpm" => rpm(work, &entries),
            "apt" => apt(work, &entries),
            "yum" => yum(work, &entries),
            "dnf" => by_rpm(work, &DNF, &entries),
            "zypper" => by_rpm(work, &ZYPPER, &entries),
            "rubygems" => rubygems(work, &entries),
            "python" => python(work, &entries),
            other => work.fail(format!(
                "packages: {other:?} is not known; there are apt, dnf, dpkg, python, rpm, rubygems, yum and zypper"
            )),
        }
    }
}

/// Names with their versions, or what stands in place of versions.
fn entries_of<'v>(
    work: &mut Work<'_>,
    entries: &'v Map<String, Value>,
) -> Vec<(&'v str, Vec<String>)> {
    let mut fit = Vec::with_capacity(entries.len());
    for (name, versions) in entries {
        let versions = words_of(versions);
        if work.is_name("package", name)
            && versions.iter().all(|version| work.is_name("package version", version))
        {
            fit.push((name.as_str(), versions));
        }
    }
    fit
}

fn words<'a>(first: &[&'a str], rest: impl IntoIterator<Item = &'a str>) -> Call {
    Call::new(first.iter().copied().chain(rest))
}

/// A package manager that works on RPM's database.
struct Manager {
    name: &'static str,
    available: &'static [&'static str],
    install: &'static [&'static str],
    downgrade: &'static [&'static str],
}

const YUM: Manager = Manager {
    name: "yum",
    available: &["yum", "-y", "--showduplicates", "list", "available"],
    install: &["yum", "-y", "install"],
    downgrade: &["yum", "-y", "downgrade"],
};
const DNF: Manager = Manager {
    name: "dnf",
    available: &["dnf", "-y", "--showduplicates", "list", "available"],
    // Also upgrades what is installed but old.
    install: &["dnf", "-y", "--best", "install"],
    downgrade: &["dnf", "-y", "downgrade"],
};
const ZYPPER: Manager = Manager {
    name: "zypper",
    available: &["zypper", "-n", "--no-refresh", "search"],
    install: &["zypper", "-n", "install"],
    downgrade: &["zypper", "-n", "install", "--oldpackage"],
};

/// By yum, or by dnf where there is none.
fn yum(work: &mut Work<'_>, entries: &[(&str, Vec<String>)]) {
    let is_there = match Call::new(["which", "yum"]).run(work.system) {
        Ok(ran) => ran.status != 1,
        // `which` is not everywhere.
        Err(_) => work.system.has_tool("yum") || !work.system.has_tool("dnf"),
    };
    by_rpm(work, if is_there { &YUM } else { &DNF }, entries);
}

fn by_rpm(work: &mut Work<'_>, manager: &Manager, entries: &[(&str, Vec<String>)]) {
    let (mut installs, mut downgrades) = (Vec::new(), Vec::new());
    for (name, versions) in entries {
        let version = versions.iter().max_by(|a, b| compare(a, b));
        let package =
            version.map_or_else(|| (*name).to_owned(), |version| format!("{name}-{version}"));
        if work.run(&Call::new(["rpm", "-q", &package])).is_success() {
            work.log.info(format!("{package} is installed already"));
            continue;
        }
        if !work.run(&words(manager.available, [package.as_str()])).is_success() {
            work.fail(format!("package {package} is not available by {}", manager.name));
            continue;
        }
        let is_newer = version.is_some_and(|version| installed(work, name, version));
        if is_newer { downgrades.push(package) } else { installs.push(package) }
    }
    for (first, packages) in [(manager.install, installs), (manager.downgrade, downgrades)] {
        if !packages.is_empty() {
            let call = words(first, packages.iter().map(String::as_str));
            work.log.info(format!("Installing packages: {call}"));
            work.do_or_fail("packages", &call);
        }
    }
}

/// Whether a version that is newer than the wanted one is installed.
fn installed(work: &mut Work<'_>, name: &str, wanted: &str) -> bool {
    let ran = work.run(&Call::new(["rpm", "-q", "--queryformat", "%{VERSION}-%{RELEASE}", name]));
    ran.is_success() && compare(ran.stdout.trim(), wanted) == Ordering::Greater
}

/// From the URLs in place of versions.
fn rpm(work: &mut Work<'_>, entries: &[(&str, Vec<String>)]) {
    let urls = urls(work, entries);
    if !urls.is_empty() {
        let call = words(&["rpm", "-U", "--force"], urls.iter().map(|(_, url)| url.as_str()));
        work.do_or_fail("packages of rpm", &call);
    }
}

/// From the URLs in place of versions; dpkg itself fetches nothing.
fn dpkg(work: &mut Work<'_>, entries: &[(&str, Vec<String>)]) {
    for (name, url) in urls(work, entries) {
        let fetched = tempfile::Builder::new().suffix(".deb").tempfile();
        let fetched = fetched.map_err(anyhow::Error::from).and_then(|mut file| {
            fetch(work.client, &url, file.as_file_mut())?;
            Ok(file)
        });
        match fetched {
            Ok(file) => {
                let call = Call::new([Path::new("dpkg"), Path::new("-i"), file.path()]);
                work.do_or_fail(&format!("package {name}"), &call);
            }
            Err(error) => work.fail(format!("package {name}: {error:#}")),
        }
    }
}

fn urls(work: &mut Work<'_>, entries: &[(&str, Vec<String>)]) -> Vec<(String, String)> {
    let mut urls = Vec::new();
    for (name, places) in entries {
        if places.is_empty() {
            work.fail(format!("package {name}: it must have a URL"));
        }
        urls.extend(places.iter().map(|url| ((*name).to_owned(), url.clone())));
    }
    urls
}

fn apt(work: &mut Work<'_>, entries: &[(&str, Vec<String>)]) {
    for (name, versions) in entries.iter().filter(|(_, versions)| !versions.is_empty()) {
        let versions = versions.join(", ");
        work.log
            .warning(format!("{name}: version {versions} is passed over; apt takes its newest"));
    }
    if !entries.is_empty() {
        let call = words(&["apt-get", "-y", "install"], entries.iter().map(|(name, _)| *name));
        work.do_or_fail("packages of apt", &call.variable("DEBIAN_FRONTEND", "noninteractive"));
    }
}

fn rubygems(work: &mut Work<'_>, entries: &[(&str, Vec<String>)]) {
    for (name, versions) in entries {
        let version = versions.first().map(|version| ["--version", version]);
        let rest = version.into_iter().flatten().chain([*name]);
        // Local and remote, with what it depends on.
        let call = words(&["gem", "install", "-b", "-y"], rest);
        work.do_or_fail(&format!("package {name}"), &call);
    }
}

fn python(work: &mut Work<'_>, entries: &[(&str, Vec<String>)]) {
    // What came after easy_install, which is no longer everywhere.
    let by_pip = !work.system.has_tool("easy_install") && work.system.has_tool("pip3");
    for (name, _) in entries {
        let call = if by_pip {
            Call::new(["pip3", "install", name])
        } else {
            Call::new(["easy_install", name])
        };
        work.do_or_fail(&format!("package {name}"), &call);
    }
}
