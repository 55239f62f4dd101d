//! Archives that are fetched and unpacked, each into its directory.

use std::fs;
use std::io::{Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::archive::{self, Kind};
use super::files::fetch;
use super::work::Work;
use openstack_client::http::without_secrets;

/// Fetches and unpacks the sources.
pub(super) fn apply(work: &mut Work<'_>, sources: Option<&Value>) {
    let Some(sources) = work.map("sources", sources) else { return };
    for (directory, url) in sources {
        let done = match url.as_str() {
            Some(url) => one(work, Path::new(directory), url),
            None => Err(anyhow!("it must be a URL")),
        };
        match done {
            Ok(()) => work.log.info(format!("source {directory} is unpacked")),
            Err(error) => work.fail(format!("source {directory}: {error:#}")),
        }
    }
}

fn one(work: &Work<'_>, directory: &Path, url: &str) -> Result<()> {
    let kind = kind(url).ok_or_else(|| {
        anyhow!(
            "{} is of no known kind (.tar, .tgz, .tar.gz, .tbz2, .tar.bz2, .zip, .gz, .bz2, or GitHub's tarball and zipball)",
            without_secrets(url)
        )
    })?;
    if !directory.is_absolute() {
        bail!("it is no absolute path");
    }
    fs::create_dir_all(directory).context("making the directory")?;
    let mut fetched = tempfile::tempfile().context("making a temporary file")?;
    fetch(work.client, url, &mut fetched)?;
    fetched.seek(SeekFrom::Start(0)).context("reading what was fetched")?;
    archive::unpack(fetched, &kind, directory)
}

/// What a URL leads to, by its name.
fn kind(url: &str) -> Option<Kind> {
    let path = &url[..url.find(['?', '#']).unwrap_or(url.len())];
    if let Some(kind) = github_kind(path) {
        return Some(kind);
    }
    let name = path.rsplit('/').next()?;
    let lower = name.to_lowercase();
    let ends = |ends: &[&str]| ends.iter().any(|end| lower.ends_with(end));
    let without =
        |end: &str| Some(name[..name.len() - end.len()].to_owned()).filter(|n| is_plain(n));
    if ends(&[".tgz", ".tar.gz"]) {
        Some(Kind::TarGz)
    } else if ends(&[".tbz2", ".tar.bz2"]) {
        Some(Kind::TarBz2)
    } else if ends(&[".tar"]) {
        Some(Kind::Tar)
    } else if ends(&[".zip"]) {
        Some(Kind::Zip)
    } else if ends(&[".gz"]) {
        Some(Kind::Gz(without(".gz")?))
    } else if ends(&[".bz2"]) {
        Some(Kind::Bz2(without(".bz2")?))
    } else {
        None
    }
}

/// A name that leads nowhere else.
fn is_plain(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

/// `https://github.com/OWNER/NAME/tarball/REF` has no telling end.
fn github_kind(path: &str) -> Option<Kind> {
    let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    let [scheme, _, host, .., ball, _] = parts.as_slice() else { return None };
    if !scheme.starts_with("http") || !host.ends_with("github.com") {
        return None;
    }
    match *ball {
        "tarball" => Some(Kind::TarGz),
        "zipball" => Some(Kind::Zip),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_the_url() {
        for (url, expected) in [
            ("http://www.example.com/a.tgz", Some(Kind::TarGz)),
            ("http://www.example.com/a.tar.gz", Some(Kind::TarGz)),
            ("http://www.example.com/A.TAR.GZ?sig=x.zip", Some(Kind::TarGz)),
            ("https://github.com/openstack/heat-cfntools/tarball/master", Some(Kind::TarGz)),
            ("https://github.com/openstack/heat-cfntools/tarball/master/", Some(Kind::TarGz)),
            ("https://github.com/openstack/heat-cfntools/tarball/v1.2", Some(Kind::TarGz)),
            ("https://github.com/openstack/heat-cfntools/zipball/master", Some(Kind::Zip)),
            ("http://www.example.com/a.tbz2", Some(Kind::TarBz2)),
            ("http://www.example.com/a.tar.bz2", Some(Kind::TarBz2)),
            ("http://www.example.com/a.zip", Some(Kind::Zip)),
            ("http://www.example.com/a.tar", Some(Kind::Tar)),
            ("http://www.example.com/a.sh.gz", Some(Kind::Gz("a.sh".into()))),
            ("http://www.example.com/a.sh.bz2", Some(Kind::Bz2("a.sh".into()))),
            ("http://www.example.com/a.sh", None),
            ("http://www.example.com/...gz", None),
            ("http://www.example.com/.gz", None),
            ("https://example.com/a/tarball/b", None),
            ("", None),
        ] {
            assert_eq!(kind(url), expected, "{url}");
        }
    }
}
