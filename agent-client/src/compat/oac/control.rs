//! `FILE.oac`: mode, owner and group of the file that a template makes, and whether it may be empty.

use anyhow::{Result, anyhow, bail};
use nix::unistd::{Gid, Group, Uid, User};

use crate::compat::yaml::{Scalar, flat_map};

/// What a template's control file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Permission bits; as before, or 0644, if it does not say.
    pub mode: Option<u32>,
    /// Numeric owner; as before if it does not say.
    pub owner: Option<u32>,
    /// Numeric group; as before if it does not say.
    pub group: Option<u32>,
    /// Whether an empty file is written; otherwise it is removed.
    pub allow_empty: bool,
}

impl Default for Control {
    fn default() -> Self {
        Self { mode: None, owner: None, group: None, allow_empty: true }
    }
}

impl Control {
    /// Reads a control file's text.
    ///
    /// # Errors
    /// It is no flat YAML map, a key is unknown, a value is of the wrong kind or out of range, or there
    /// is no such owner or group.
    pub fn parse(text: &str) -> Result<Self> {
        let mut control = Self::default();
        for (key, value) in flat_map(text)? {
            match key.as_str() {
                "mode" => control.mode = mode(&value)?,
                "owner" => control.owner = Some(owner(&value)?),
                "group" => control.group = Some(group(&value)?),
                "allow_empty" => match value {
                    Scalar::Bool(allowed) => control.allow_empty = allowed,
                    other => bail!("allow_empty takes true or false, not {}", shown(&other)),
                },
                _ => bail!(
                    "unrecognised file control key {key:?}; there are mode, owner, group, allow_empty"
                ),
            }
        }
        Ok(control)
    }
}

/// 0 means that nothing is said, as it always did.
fn mode(value: &Scalar) -> Result<Option<u32>> {
    match value {
        Scalar::Int(bits @ 0..=0o777) => Ok(u32::try_from(*bits).ok().filter(|&bits| bits != 0)),
        Scalar::Int(bits) => {
            bail!("mode {bits:#o} is not within 0 and 0777; try a leading 0, such as 0644")
        }
        other => bail!("mode {} is not numeric; try 0644, without quotes", shown(other)),
    }
}

fn owner(value: &Scalar) -> Result<u32> {
    let found = match value {
        Scalar::Int(id) => User::from_uid(Uid::from_raw(u32::try_from(*id)?))?,
        Scalar::Text(name) => User::from_name(name)?,
        other => bail!("owner {} is neither a name nor a number", shown(other)),
    };
    let found = found.ok_or_else(|| anyhow!("owner {} not found on this machine", shown(value)))?;
    Ok(found.uid.as_raw())
}

fn group(value: &Scalar) -> Result<u32> {
    let found = match value {
        Scalar::Int(id) => Group::from_gid(Gid::from_raw(u32::try_from(*id)?))?,
        Scalar::Text(name) => Group::from_name(name)?,
        other => bail!("group {} is neither a name nor a number", shown(other)),
    };
    let found = found.ok_or_else(|| anyhow!("group {} not found on this machine", shown(value)))?;
    Ok(found.gid.as_raw())
}

fn shown(value: &Scalar) -> String {
    match value {
        Scalar::Null => "null".into(),
        Scalar::Bool(value) => value.to_string(),
        Scalar::Int(value) => value.to_string(),
        Scalar::Text(text) => format!("{text:?}"),
        Scalar::Collection => "a list or map".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_file_says_mode_owner_group_and_emptiness() {
        let control =
            Control::parse("mode: 0600\nowner: root\ngroup: 0\nallow_empty: no\n").unwrap();
        let expected =
            Control { mode: Some(0o600), owner: Some(0), group: Some(0), allow_empty: false };
        assert_eq!(control, expected);
        assert_eq!(Control::parse("").unwrap(), Control::default());
        assert_eq!(Control::parse("mode: 0").unwrap(), Control::default());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("mode: 600", "0o1130"),
            ("mode: -1", "not within"),
            ("mode: \"0600\"", "not numeric"),
            ("mode: true", "not numeric"),
            ("owner: \"0\"", "\"0\" not found"),
            ("owner: no-such-user", "\"no-such-user\" not found"),
            ("group: [a]", "neither"),
            ("allow_empty: 1", "true or false"),
            ("modes: 0600", "\"modes\""),
            ("- mode", "not a map"),
        ];
        for (text, part) in cases {
            let error = Control::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
