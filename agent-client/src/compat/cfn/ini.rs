//! Files as Python's `configparser` reads them.

use std::collections::BTreeMap;

use thiserror::Error;

/// Deepest chain of references between values.
const REFERENCES_MAX: usize = 10;
/// The section whose values hold in all others.
const DEFAULT: &str = "DEFAULT";

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum IniError {
    /// A line that belongs to nothing or is nothing.
    #[error("line {line}: {reason}")]
    Line {
        /// From 1.
        line: usize,
        /// What about it.
        reason: String,
    },
    /// A section that is not there.
    #[error("there is no section [{0}]")]
    NoSection(String),
    /// An option that is not there.
    #[error("[{section}] has no option {option:?}")]
    NoOption {
        /// Where.
        section: String,
        /// Which.
        option: String,
    },
    /// A value with a `%` that stands for nothing.
    #[error("[{section}] {option}: {reason}")]
    Reference {
        /// Where.
        section: String,
        /// Which.
        option: String,
        /// Why.
        reason: String,
    },
}

/// What one or more files say.
#[derive(Debug, Default)]
pub(super) struct Ini {
    order: Vec<String>,
    sections: BTreeMap<String, BTreeMap<String, String>>,
}

impl Ini {
    /// Adds a file; what it says wins over earlier ones.
    ///
    /// # Errors
    /// [`IniError::Line`].
    pub(super) fn read(&mut self, text: &str) -> Result<(), IniError> {
        let mut section: Option<String> = None;
        let mut seen: Vec<(String, String)> = Vec::new();
        let mut option: Option<(String, usize)> = None;
        for (number, line) in text.lines().enumerate() {
            let wrong = |reason: String| IniError::Line { line: number + 1, reason };
            let content = line.trim();
            if content.starts_with(['#', ';']) {
                continue;
            }
            let indent = line.len() - line.trim_start().len();
            if let (Some((name, depth)), Some(section)) = (&option, &section)
                && (content.is_empty() || indent > *depth)
            {
                let value = self.sections.entry(section.clone()).or_default().entry(name.clone());
                let value = value.or_default();
                value.push('\n');
                value.push_str(content);
                continue;
            }
            if content.is_empty() {
                continue;
            }
            if let Some(rest) = content.strip_prefix('[') {
                let (name, _) =
                    rest.split_once(']').ok_or_else(|| wrong("\"[\" without \"]\"".into()))?;
                if seen.iter().any(|(old, option)| old == name && option.is_empty()) {
                    return Err(wrong(format!("section [{name}] is there already")));
                }
                seen.push((name.to_owned(), String::new()));
                if name != DEFAULT && !self.order.iter().any(|old| old == name) {
                    self.order.push(name.to_owned());
                }
                self.sections.entry(name.to_owned()).or_default();
                (section, option) = (Some(name.to_owned()), None);
                continue;
            }
            let Some(place) = &section else {
                return Err(wrong("a value before the first [section]".into()));
            };
            let (name, value) = content
                .split_once(['=', ':'])
                .ok_or_else(|| wrong(format!("{content:?} is no \"name = value\"")))?;
            let name = name.trim_end().to_lowercase();
            let key = (place.clone(), name.clone());
            if seen.contains(&key) {
                return Err(wrong(format!("option {name:?} is there already")));
            }
            seen.push(key);
            let values = self.sections.entry(place.clone()).or_default();
            values.insert(name.clone(), value.trim().to_owned());
            option = Some((name, indent));
        }
        for values in self.sections.values_mut() {
            for value in values.values_mut() {
                value.truncate(value.trim_end().len());
            }
        }
        Ok(())
    }

    /// The sections in the order they first came in, without the default one.
    pub(super) fn sections(&self) -> impl Iterator<Item = &str> {
        self.order.iter().map(String::as_str)
    }

    /// A value, with its `%(references)s` replaced.
    ///
    /// # Errors
    /// No such section or option, or a reference to nothing.
    pub(super) fn get(&self, section: &str, option: &str) -> Result<String, IniError> {
        if !self.order.iter().any(|name| name == section) {
            return Err(IniError::NoSection(section.to_owned()));
        }
        let raw = self.raw(section, option).ok_or_else(|| IniError::NoOption {
            section: section.to_owned(),
            option: option.to_owned(),
        })?;
        self.expanded(section, raw, 0).map_err(|reason| IniError::Reference {
            section: section.to_owned(),
            option: option.to_owned(),
            reason,
        })
    }

    fn raw(&self, section: &str, option: &str) -> Option<&str> {
        let of = |name: &str| self.sections.get(name)?.get(option);
        of(section).or_else(|| of(DEFAULT)).map(String::as_str)
    }

    fn expanded(&self, section: &str, raw: &str, depth: usize) -> Result<String, String> {
        if depth > REFERENCES_MAX {
            return Err("references lead in circles".into());
        }
        let mut out = String::new();
        let mut rest = raw;
        while let Some((before, after)) = rest.split_once('%') {
            out.push_str(before);
            if let Some(after) = after.strip_prefix('%') {
                out.push('%');
                rest = after;
                continue;
            }
            let reference = after.strip_prefix('(').and_then(|after| after.split_once(")s"));
            let (name, after) =
                reference.ok_or("a \"%\" that is neither \"%%\" nor \"%(name)s\"")?;
            let name = name.to_lowercase();
            let value = self.raw(section, &name).ok_or_else(|| format!("{name:?} is not there"))?;
            out.push_str(&self.expanded(section, value, depth + 1)?);
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Ini {
        let mut ini = Ini::default();
        ini.read(text).unwrap();
        ini
    }

    #[test]
    fn values_are_read_as_configparser_reads_them() {
        // Right-hand sides are what Python 3.11's configparser returned for this text.
        let ini = read(
            "[DEFAULT]\nroot = /opt\n[main]\n# no\nStack=a = b\nlong: one\n  two\n\n  three\n; no\n\
             path = %(root)s/x%%\nempty =\n[other]\nroot=/srv\npath=%(root)s\n",
        );
        for (section, option, value) in [
            ("main", "stack", "a = b"),
            ("main", "long", "one\ntwo\n\nthree"),
            ("main", "path", "/opt/x%"),
            ("main", "empty", ""),
            ("other", "path", "/srv"),
        ] {
            assert_eq!(ini.get(section, option).unwrap(), value, "{section} {option}");
        }
        assert_eq!(ini.sections().collect::<Vec<_>>(), ["main", "other"]);
    }

    #[test]
    fn a_later_file_adds_to_and_wins_over_an_earlier_one() {
        let mut ini = read("[a]\nx = 1\ny = 1\n");
        ini.read("[b]\nz = 2\n[a]\nx = 2\n").unwrap();
        assert_eq!(
            (ini.get("a", "x").unwrap(), ini.get("a", "y").unwrap()),
            ("2".into(), "1".into())
        );
        assert_eq!(ini.sections().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, error) in [
            ("x = 1\n", "line 1: a value before the first [section]"),
            ("[a]\nnothing\n", "line 2: \"nothing\" is no \"name = value\""),
            ("[a\n", "line 1: \"[\" without \"]\""),
            ("[a]\nx=1\nX=2\n", "line 3: option \"x\" is there already"),
            ("[a]\n[a]\n", "line 2: section [a] is there already"),
        ] {
            assert_eq!(Ini::default().read(text).unwrap_err().to_string(), error);
        }
        let ini = read("[a]\nx = %(y)s\nz = 5%\nl = %(l)s\n");
        for (option, error) in [
            ("x", "[a] x: \"y\" is not there"),
            ("z", "[a] z: a \"%\" that is neither \"%%\" nor \"%(name)s\""),
            ("l", "[a] l: references lead in circles"),
            ("none", "[a] has no option \"none\""),
        ] {
            assert_eq!(ini.get("a", option).unwrap_err().to_string(), error);
        }
        assert_eq!(ini.get("b", "x").unwrap_err().to_string(), "there is no section [b]");
    }
}
