//! From what files, command line and environment say to the value of each option: which one counts,
//! substitution of `$name`, types. Nothing here reads anything.

use serde_json::Value;

use super::ini::Assignment;
use super::options::{DEFAULT, Kind, OPTIONS, Opt};
use crate::json_text::json_text;
use openstack_client::http::without_secrets;

/// How deep options may name each other by `$name`.
const SUBSTITUTION_DEPTH_MAX: usize = 20;

/// What was said of each option until now.
#[derive(Clone)]
pub(super) struct Layers {
    said: Vec<Vec<String>>,
    in_file: Vec<bool>,
}

/// The values of all options, substituted and of the right type.
pub(super) struct Values(Vec<Vec<String>>);

impl Layers {
    pub(super) fn new() -> Self {
        Self { said: vec![Vec::new(); OPTIONS.len()], in_file: vec![false; OPTIONS.len()] }
    }

    /// Adds a value: a list grows, anything else is replaced.
    pub(super) fn say(&mut self, at: usize, value: String) {
        if OPTIONS[at].kind != Kind::List {
            self.said[at].clear();
        }
        self.said[at].push(value);
    }

    /// The collectors of the command line replace those of files.
    pub(super) fn say_collectors(&mut self, collectors: Vec<String>) {
        if let Some(at) = place(DEFAULT, "collectors") {
            self.said[at] = collectors;
        }
    }

    /// Adds what a file says. Unknown sections and keys are passed over.
    pub(super) fn say_file(&mut self, assignments: Vec<Assignment>) {
        for Assignment { section, key, value } in assignments {
            let group = if section == DEFAULT { section } else { section.to_lowercase() };
            if let Some(at) = place(&group, &key) {
                self.in_file[at] = true;
                self.say(at, value);
            }
        }
    }

    /// The values of all options. An environment variable counts more than a file, and less than the
    /// command line alone.
    ///
    /// # Errors
    /// A value is of the wrong type, or names what does not exist.
    pub(super) fn resolve(
        mut self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Values, String> {
        for (at, option) in OPTIONS.iter().enumerate() {
            if (self.in_file[at] || self.said[at].is_empty())
                && let Some(value) = environment(&option.variable())
            {
                self.said[at] = vec![value];
            }
        }
        let all = (0..OPTIONS.len()).map(|at| self.values(at, 0)).collect::<Result<_, _>>()?;
        Ok(Values(all))
    }

    fn values(&self, at: usize, depth: usize) -> Result<Vec<String>, String> {
        let option = &OPTIONS[at];
        if depth > SUBSTITUTION_DEPTH_MAX {
            return Err(format!("{}: options name each other in a circle", shown(option)));
        }
        let defaults = || option.default.iter().map(|&value| value.to_owned()).collect();
        let said = match &self.said[at] {
            said if said.is_empty() => defaults(),
            said => said.clone(),
        };
        let numeric = matches!(option.kind, Kind::Number | Kind::Integer);
        let mut values = Vec::with_capacity(said.len());
        for text in said {
            let value = self.substituted(&text, option, depth)?;
            // An empty number is none.
            if numeric && value.trim().is_empty() {
                return Ok(defaults());
            }
            values.push(typed(option, value)?);
        }
        Ok(values)
    }

    /// Replaces `$name`, `${name}` and `${group.name}`; `$$` and `\$` are a dollar sign, and one that
    /// begins no name stays.
    fn substituted(&self, text: &str, option: &Opt, depth: usize) -> Result<String, String> {
        let text = text.replace("\\$", "$$");
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                out.push('$');
                rest = after;
                continue;
            }
            let (name, after) = match after.strip_prefix('{') {
                Some(braced) => match name(braced) {
                    (name, after) if after.starts_with('}') => (name, &after[1..]),
                    _ => ("", after),
                },
                None => name(after),
            };
            if name.is_empty() {
                out.push('$');
            } else {
                out.push_str(&self.named(name, option, depth)?);
            }
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }

    /// The value that a name stands for, as Python prints it.
    fn named(&self, name: &str, option: &Opt, depth: usize) -> Result<String, String> {
        let found = match name.split_once('.') {
            Some((group, key)) => place(group, key).filter(|_| group != DEFAULT),
            None => place(option.group, name).or_else(|| place(DEFAULT, name)),
        };
        // The name is not repeated: it may be part of a password.
        let at = found.ok_or_else(|| {
            format!(
                "{}: a $ begins the name of no option; write $$ for a dollar sign",
                shown(option)
            )
        })?;
        let values = self.values(at, depth + 1)?;
        let text = |value: &String| match OPTIONS[at].kind {
            Kind::Flag if value == "true" => "True".into(),
            Kind::Flag => "False".into(),
            Kind::Number => json_text(&Value::from(value.parse::<f64>().unwrap_or_default())),
            _ => value.clone(),
        };
        if OPTIONS[at].kind == Kind::List {
            let quoted: Vec<String> = values.iter().map(|value| format!("'{value}'")).collect();
            return Ok(format!("[{}]", quoted.join(", ")));
        }
        Ok(values.first().map(text).unwrap_or_default())
    }
}

/// The longest name at the beginning, and what follows it.
fn name(text: &str) -> (&str, &str) {
    let starts = text.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic());
    let fits = |c: char| c == '_' || c == '.' || c.is_ascii_alphanumeric();
    let end = if starts { text.find(|c| !fits(c)).unwrap_or(text.len()) } else { 0 };
    text.split_at(end)
}

/// A value in its usual form.
fn typed(option: &Opt, value: String) -> Result<String, String> {
    let form = match option.kind {
        Kind::Text | Kind::List => Some(value.clone()),
        Kind::Uri => is_uri(&value).then(|| value.clone()),
        Kind::Number => value.trim().parse::<f64>().ok().map(|number| number.to_string()),
        Kind::Integer => value.trim().parse::<i64>().ok().map(|number| number.to_string()),
        Kind::Flag => match value.to_lowercase().as_str() {
            "true" | "1" | "on" | "yes" => Some("true".into()),
            "false" | "0" | "off" | "no" => Some("false".into()),
            _ => None,
        },
    };
    form.ok_or_else(|| {
        let (key, kind) = (option.key, option.kind.name());
        format!("argument --{key}: Invalid {kind} value: {}", without_secrets(&value))
    })
}

/// Whether there is a scheme and a host, and no character that must not be there.
fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let path = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(literal) => literal.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let allowed = |more: &'static str| {
        move |c: char| {
            c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=%".contains(c) || more.contains(c)
        }
    };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        && !host.is_empty()
        && host.chars().all(allowed(":"))
        && path.chars().all(allowed(":@/"))
}

fn place(group: &str, key: &str) -> Option<usize> {
    OPTIONS.iter().position(|option| option.group == group && option.key == key)
}

fn shown(option: &Opt) -> String {
    format!("option [{}] {}", option.group, option.key)
}

/// There are passwords in it.
impl std::fmt::Debug for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Values").finish_non_exhaustive()
    }
}

impl Values {
    fn find(&self, group: &str, key: &str) -> &[String] {
        place(group, key).map_or(&[], |at| &self.0[at])
    }

    pub(super) fn text(&self, group: &str, key: &str) -> Option<String> {
        self.find(group, key).first().cloned()
    }

    pub(super) fn list(&self, group: &str, key: &str) -> Vec<String> {
        self.find(group, key).to_vec()
    }

    pub(super) fn flag(&self, group: &str, key: &str) -> bool {
        self.find(group, key).first().is_some_and(|value| value == "true")
    }

    pub(super) fn number(&self, group: &str, key: &str) -> f64 {
        let value = self.find(group, key).first();
        value.and_then(|value| value.parse().ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::ini;
    use super::*;

    fn layers(files: &[&str]) -> Layers {
        let mut layers = Layers::new();
        for text in files {
            layers.say_file(ini::parse(text).unwrap());
        }
        layers
    }

    fn values(files: &[&str]) -> Result<Values, String> {
        layers(files).resolve(|_| None)
    }

    #[test]
    fn later_files_win_lists_grow_and_unknown_keys_are_passed_over() {
        let one = "[DEFAULT]\npolling_interval=5\npolling_interval=6\ncollectors=ec2\ncommand=a\n\
                   polling-interval=99\n[nosuch]\nx=$y\n[LOCAL]\npath=/a\n[default]\ncachedir=/no";
        let two = "[DEFAULT]\ncommand=b\ncollectors=local\ncollectors=cfn\n[local]\npath=/b";
        let values = values(&[one, two]).unwrap();
        assert_eq!(values.number(DEFAULT, "polling_interval"), 6.0);
        assert_eq!(values.text(DEFAULT, "command").as_deref(), Some("b"));
        assert_eq!(values.list(DEFAULT, "collectors"), ["ec2", "local", "cfn"]);
        assert_eq!(values.list("local", "path"), ["/a", "/b"]);
        assert_eq!(values.text(DEFAULT, "cachedir").as_deref(), Some("/var/lib/os-collect-config"));
        assert_eq!(values.text("cfn", "stack_name"), None);
        assert!(values.list("cfn", "path").is_empty());
    }

    #[test]
    fn the_environment_beats_files_and_the_command_line_beats_it_alone() {
        let environment = |name: &str| match name {
            "OS_DEFAULT__COMMAND" => Some("environment".to_owned()),
            "OS_CFN__TIMEOUT" => Some("3".to_owned()),
            _ => None,
        };
        let command =
            |layers: Layers| layers.resolve(environment).unwrap().text(DEFAULT, "command").unwrap();
        let at = place(DEFAULT, "command").unwrap();
        assert_eq!(command(Layers::new()), "environment");
        let mut said = Layers::new();
        said.say(at, "said".into());
        assert_eq!(command(said.clone()), "said");
        // As the original has it: where a file speaks of an option, its variable wins.
        said.say_file(ini::parse("[DEFAULT]\ncommand=file").unwrap());
        assert_eq!(command(said), "environment");
        let values = Layers::new().resolve(environment).unwrap();
        assert_eq!(values.number("cfn", "timeout"), 3.0);
    }

    #[test]
    fn names_are_substituted_as_oslo_config_does() {
        for (text, expected) in [
            ("a$cachedir", "a/c"),
            ("${cachedir}x", "/cx"),
            ("$polling_interval", "30.0"),
            ("$force/${ec2.timeout}", "False/10.0"),
            ("$command2", "error"),
            ("${cfn.stack_name}|", "|"),
            ("$local.path", "['/var/lib/os-collect-config/local-data']"),
            ("$keystone.cache_ttl", "1800"),
            ("$$ \\$ $5 $ ${ ${5} $", "$ $ $5 $ ${ ${5} $"),
            ("$nosuch", "error"),
            ("$cachedir.x", "error"),
            ("$heat", "error"),
            ("$DEFAULT.cachedir", "error"),
            ("$command", "error"),
        ] {
            let file = format!("[DEFAULT]\ncachedir=/c\ncommand={text}");
            let value = values(&[&file]).map(|values| values.text(DEFAULT, "command").unwrap());
            match value {
                Ok(value) => assert_eq!(value, expected, "{text}"),
                Err(error) => {
                    assert_eq!(expected, "error", "{text}: {error}");
                    assert!(error.contains("[DEFAULT] command"), "{error}");
                }
            }
        }
        let own = "[DEFAULT]\ncachedir=/c\n[cfn]\nstack_name=s\npath=$stack_name.$$x$cachedir";
        let error = values(&[own]).unwrap_err();
        assert!(error.contains("[cfn] path"), "{error}");
        let own = "[DEFAULT]\ncachedir=/c\n[cfn]\nstack_name=s\npath=${stack_name}$cachedir";
        assert_eq!(values(&[own]).unwrap().list("cfn", "path"), ["s/c"]);
        let secret = values(&["[heat]\npassword=pa$word"]).unwrap_err();
        assert!(!secret.contains("word;") && !secret.contains("$word"), "{secret}");
    }

    #[test]
    fn values_of_the_wrong_type_are_refused_in_the_words_of_oslo_config() {
        for (text, error) in [
            (
                "[DEFAULT]\npolling_interval=x",
                "argument --polling_interval: Invalid Float value: x",
            ),
            ("[DEFAULT]\nforce=maybe", "argument --force: Invalid Boolean value: maybe"),
            ("[keystone]\ncache_ttl=1.5", "argument --cache_ttl: Invalid Integer value: 1.5"),
            ("[ec2]\nmetadata_url=x", "argument --metadata_url: Invalid URI value: x"),
            ("[ec2]\nmetadata_url=", "argument --metadata_url: Invalid URI value: "),
        ] {
            assert_eq!(values(&[text]).err().as_deref(), Some(error));
        }
        let values = values(&["[DEFAULT]\nforce=YES\nsplay= 2.5 \npolling_interval="]).unwrap();
        assert!(values.flag(DEFAULT, "force"));
        assert_eq!(values.number(DEFAULT, "splay"), 2.5);
        assert_eq!(values.number(DEFAULT, "polling_interval"), 30.0);
    }

    #[test]
    fn urls_need_a_scheme_and_a_host() {
        for (uri, good) in [
            ("http://h", true),
            ("https://u:p@h:80/p?q#f", true),
            ("http://[::1]:80/", true),
            ("http://h/a b", false),
            ("http:///x", false),
            ("h/x", false),
            ("1http://h", false),
            ("http://h ost/", false),
        ] {
            assert_eq!(is_uri(uri), good, "{uri}");
        }
    }
}
