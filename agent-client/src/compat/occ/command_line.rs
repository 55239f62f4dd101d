//! The command line as Python's `argparse` reads it: in order, long options abbreviated, and the
//! collectors wherever they stand together.

use std::ffi::OsString;

use super::options::{ALIASES, COLLECTORS, DEFAULT, Kind, OPTIONS, Opt};

/// What the command line says, piece by piece; later pieces win.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// An option's value, by its place in [`OPTIONS`].
    Value(usize, String),
    /// A file to read at this point.
    ConfigFile(String),
    /// A directory whose `*.conf` are read at this point.
    ConfigDir(String),
    /// The collectors.
    Collectors(Vec<String>),
}

/// A command line that says something else than what to collect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Instead {
    /// Print the help.
    Help,
    /// Print the version.
    Version,
    /// It is wrong: why.
    Wrong(String),
}

/// What an option does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Value(usize),
    Flag(usize, bool),
    ConfigFile,
    ConfigDir,
    ShellCompletion,
    Help,
    Version,
}

impl Meaning {
    fn takes_value(self) -> bool {
        matches!(self, Self::Value(_) | Self::ConfigFile | Self::ConfigDir | Self::ShellCompletion)
    }
}

/// Every long option with what it does.
fn long_options() -> Vec<(String, Meaning)> {
    let mut all = vec![
        ("--config-file".into(), Meaning::ConfigFile),
        ("--config-dir".into(), Meaning::ConfigDir),
        ("--help".into(), Meaning::Help),
        ("--shell_completion".into(), Meaning::ShellCompletion),
        ("--version".into(), Meaning::Version),
    ];
    for (at, option) in OPTIONS.iter().enumerate().filter(|(_, option)| !is_positional(option)) {
        match option.inverse() {
            Some(inverse) => {
                all.push((option.long(), Meaning::Flag(at, true)));
                all.push((inverse, Meaning::Flag(at, false)));
            }
            None => all.push((option.long(), Meaning::Value(at))),
        }
    }
    for (alias, name) in ALIASES {
        let meaning = all.iter().find(|(known, _)| known == name).map(|(_, meaning)| *meaning);
        all.extend(meaning.map(|meaning| (alias.to_owned(), meaning)));
    }
    all
}

fn is_positional(option: &Opt) -> bool {
    option.group == DEFAULT && option.key == "collectors"
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// It asks for something else, or is wrong.
pub(super) fn parse(arguments: &[OsString]) -> Result<Vec<Said>, Instead> {
    let mut reader =
        Reader { long: long_options(), said: Vec::new(), collectors: None, extra: None };
    let mut arguments = arguments.iter().map(|argument| {
        argument
            .to_str()
            .ok_or_else(|| Instead::Wrong(format!("argument {argument:?} is no UTF-8")))
    });
    let mut only_words = false;
    let mut words: Vec<String> = Vec::new();
    while let Some(argument) = arguments.next() {
        let argument = argument?;
        if only_words || reader.is_word(argument) {
            words.push(argument.to_owned());
        } else if argument == "--" {
            only_words = true;
        } else {
            reader.words(std::mem::take(&mut words));
            reader.option(argument, &mut || arguments.next().transpose())?;
        }
    }
    reader.words(words);
    match reader.extra {
        Some(extra) => Err(Instead::Wrong(format!("unrecognized arguments: {extra}"))),
        None => {
            reader.said.extend(reader.collectors.map(Said::Collectors));
            Ok(reader.said)
        }
    }
}

struct Reader {
    long: Vec<(String, Meaning)>,
    said: Vec<Said>,
    collectors: Option<Vec<String>>,
    extra: Option<String>,
}

impl Reader {
    /// Whether this stands for itself or may be a value: it is no option, and does not look like one.
    fn is_word(&self, argument: &str) -> bool {
        if !argument.starts_with('-') || argument == "-" {
            return true;
        }
        if argument == "--" || self.find(argument).is_ok() {
            return false;
        }
        argument.parse::<f64>().is_ok() || argument.contains(' ')
    }

    /// Words that stand together: the collectors, but only once.
    fn words(&mut self, words: Vec<String>) {
        if words.is_empty() {
            return;
        }
        match &self.collectors {
            None => self.collectors = Some(words),
            Some(_) => self.extra = Some(words.join(" ")),
        }
    }

    /// The option that an argument names, and the value that is part of it.
    fn find<'a>(&self, argument: &'a str) -> Result<(Meaning, Option<&'a str>), Instead> {
        if !argument.starts_with("--") {
            return short(argument);
        }
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (argument, None),
        };
        if let Some((_, meaning)) = self.long.iter().find(|(known, _)| known == name) {
            return Ok((*meaning, value));
        }
        let near: Vec<&(String, Meaning)> =
            self.long.iter().filter(|(known, _)| known.starts_with(name)).collect();
        match near[..] {
            [(_, meaning)] => Ok((*meaning, value)),
            [] => Err(Instead::Wrong(format!("unrecognized arguments: {name}"))),
            _ => {
                let names: Vec<&str> = near.iter().map(|(known, _)| known.as_str()).collect();
                let names = names.join(", ");
                Err(Instead::Wrong(format!("ambiguous option: {name} could match {names}")))
            }
        }
    }

    fn option<'a>(
        &mut self,
        argument: &str,
        next: &mut dyn FnMut() -> Result<Option<&'a str>, Instead>,
    ) -> Result<(), Instead> {
        let (meaning, value) = self.find(argument)?;
        let name = argument.split('=').next().unwrap_or(argument);
        let lacks = || Instead::Wrong(format!("argument {name}: expected one argument"));
        if !meaning.takes_value() {
            return match (meaning, value) {
                // Letters may stand together: -di5.
                (Meaning::Flag(at, on), Some(rest)) if !argument.starts_with("--") => {
                    self.said.push(Said::Value(at, on.to_string()));
                    self.option(&format!("-{rest}"), next)
                }
                (_, Some(value)) => {
                    let what = format!("argument {name}: ignored explicit argument {value:?}");
                    Err(Instead::Wrong(what))
                }
                (Meaning::Help, None) => Err(Instead::Help),
                (Meaning::Version, None) => Err(Instead::Version),
                (Meaning::Flag(at, on), None) => {
                    self.said.push(Said::Value(at, on.to_string()));
                    Ok(())
                }
                _ => Ok(()),
            };
        }
        let value = match value {
            Some(value) => value.to_owned(),
            None => {
                let value = next()?.ok_or_else(lacks)?;
                if !self.is_word(value) {
                    return Err(lacks());
                }
                value.to_owned()
            }
        };
        self.said.push(match meaning {
            Meaning::Value(at) => Said::Value(at, value),
            Meaning::ConfigFile => Said::ConfigFile(value),
            Meaning::ConfigDir => Said::ConfigDir(value),
            _ => return Err(Instead::Wrong("shell completion is not offered".into())),
        });
        Ok(())
    }
}

/// `-c VALUE`, `-cVALUE`, `-c=VALUE`, `-d`.
fn short(argument: &str) -> Result<(Meaning, Option<&str>), Instead> {
    let unknown = || Instead::Wrong(format!("unrecognized arguments: {argument}"));
    let mut letters = argument.strip_prefix('-').unwrap_or_default().chars();
    let letter = letters.next().ok_or_else(unknown)?;
    let rest = Some(letters.as_str()).filter(|rest| !rest.is_empty());
    if letter == 'h' {
        return Ok((Meaning::Help, None));
    }
    let at = OPTIONS.iter().position(|option| option.short == Some(letter)).ok_or_else(unknown)?;
    Ok(match OPTIONS[at].kind {
        Kind::Flag => (Meaning::Flag(at, true), rest),
        _ => (Meaning::Value(at), rest.map(|rest| rest.strip_prefix('=').unwrap_or(rest))),
    })
}

/// The text of `--help`.
pub(super) fn help() -> String {
    let mut text = String::from(
        "Collects metadata from all configured places, keeps it as JSON files, and runs a command \
         when it\nchanged.\n\nUsage: os-collect-config [OPTIONS] [COLLECTORS]...\n\nArguments:\n  \
         [COLLECTORS]...  where to collect from, in this order (default: ",
    );
    text.push_str(&COLLECTORS.join(" "));
    text.push_str(")\n");
    let mut group = "";
    for option in OPTIONS.iter().filter(|option| !is_positional(option)) {
        if option.group != group {
            group = option.group;
            let title =
                if group == DEFAULT { "Options".into() } else { format!("Section {group}") };
            text.push_str(&format!("\n{title}:\n"));
            if group == DEFAULT {
                text.push_str(
                    "      --config-file PATH  read this file, later ones win (default: \
                     ~/os-collect-config.conf or /etc/os-collect-config.conf)\n      \
                     --config-dir DIR  read its *.conf files in order\n",
                );
            }
        }
        let short = option.short.map_or_else(|| "    ".into(), |letter| format!("-{letter}, "));
        let value = if option.kind == Kind::Flag { "" } else { " VALUE" };
        let default = match option.default {
            [] | ["false"] => String::new(),
            values => format!(" (default: {})", values.join(" ")),
        };
        text.push_str(&format!("  {short}{}{value}  {}{default}\n", option.long(), option.help));
    }
    text.push_str(
        "\nEvery option can be set in its section of a file, by its name with underscores, or by an\n\
         environment variable, such as OS_DEFAULT__COMMAND or OS_CFN__STACK_NAME. A flag's opposite \
         has \"no\"\nbefore its name: --noforce.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Vec<Said>, Instead> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        parse(&arguments)
    }

    fn value(long: &str, value: &str) -> Said {
        let at = OPTIONS.iter().position(|option| option.long() == long).unwrap();
        Said::Value(at, value.into())
    }

    #[test]
    fn options_are_taken_in_all_their_forms() {
        for arguments in [
            &["--command", "x"][..],
            &["--command=x"],
            &["--comm", "x"],
            &["-c", "x"],
            &["-cx"],
            &["-c=x"],
        ] {
            assert_eq!(read(arguments).unwrap(), [value("--command", "x")], "{arguments:?}");
        }
        let said =
            read(&["-di5", "--noforce", "--print", "--heat_local-path", "/a", "local", "ec2"]);
        assert_eq!(
            said.unwrap(),
            [
                value("--debug", "true"),
                value("--polling-interval", "5"),
                value("--force", "false"),
                value("--print", "true"),
                value("--heat_local-path", "/a"),
                Said::Collectors(vec!["local".into(), "ec2".into()]),
            ]
        );
        let said = read(&["local", "--config-file", "a", "--config-dir=b", "--zaqar-nouse-web"]);
        assert_eq!(
            said.unwrap(),
            [
                Said::ConfigFile("a".into()),
                Said::ConfigDir("b".into()),
                value("--zaqar-use-websockets", "false"),
                Said::Collectors(vec!["local".into()]),
            ]
        );
        assert_eq!(read(&["-c", "-a b"]).unwrap(), [value("--command", "-a b")]);
        assert_eq!(read(&["--splay", "-1.5"]).unwrap(), [value("--splay", "-1.5")]);
        assert_eq!(read(&["--logfile", "-"]).unwrap(), [value("--log-file", "-")]);
        assert_eq!(read(&["--", "--x"]).unwrap(), [Said::Collectors(vec!["--x".into()])]);
        assert_eq!(read(&[]).unwrap(), []);
    }

    #[test]
    fn a_wrong_command_line_is_named() {
        for (arguments, part) in [
            (&["--bad"][..], "unrecognized arguments: --bad"),
            (&["-x"], "unrecognized arguments: -x"),
            (&["--command"], "argument --command: expected one argument"),
            (&["-c", "--force"], "argument -c: expected one argument"),
            (&["--force=1"], "argument --force: ignored explicit argument"),
            (&["--cfn-s"], "ambiguous option: --cfn-s could match"),
            (&["local", "--force", "ec2"], "unrecognized arguments: ec2"),
            (&["--shell_completion", "bash"], "shell completion is not offered"),
        ] {
            let Err(Instead::Wrong(what)) = read(arguments) else { panic!("{arguments:?}") };
            assert!(what.contains(part), "{arguments:?}: {what}");
        }
        assert_eq!(read(&["-h"]), Err(Instead::Help));
        assert_eq!(read(&["--vers"]), Err(Instead::Version));
    }

    #[test]
    fn the_help_names_every_option() {
        let help = help();
        for option in OPTIONS {
            assert!(help.contains(&option.long()) || is_positional(option), "{}", option.long());
        }
    }
}
