//! Configuration files as oslo.config reads them: sections, repeated keys, continued lines.

/// An assignment, in its section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    pub(super) section: String,
    pub(super) key: String,
    pub(super) value: String,
}

/// Reads a file's text. The errors do not repeat the line, which may hold a password.
///
/// # Errors
/// What is wrong, with the number of the line.
pub(super) fn parse(text: &str) -> Result<Vec<Assignment>, String> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut found: Vec<Assignment> = Vec::new();
    let mut section: Option<String> = None;
    // Whether the next line may continue the last value.
    let mut open = false;
    for (at, line) in text.split('\n').enumerate() {
        let wrong = |what: &str| format!("line {}: {what}", at + 1);
        let line = line.trim_end();
        if line.is_empty() {
            open = false;
        } else if line.starts_with([' ', '\t']) {
            let last = found.last_mut().filter(|_| open);
            let last = last.ok_or_else(|| wrong("unexpected continuation line"))?;
            last.value.push('\n');
            last.value.push_str(line.trim_start());
        } else if let Some(name) = line.strip_prefix('[') {
            open = false;
            let name = name.strip_suffix(']').ok_or_else(|| wrong("a section must end with ]"))?;
            if name.is_empty() {
                return Err(wrong("empty section name"));
            }
            section = Some(name.to_owned());
        } else if line.starts_with(['#', ';']) {
            open = false;
        } else {
            let (key, value) =
                line.split_once(['=', ':']).ok_or_else(|| wrong("no ':' or '=' found"))?;
            let key = key.trim();
            if key.is_empty() {
                return Err(wrong("key cannot be empty"));
            }
            let section = section.clone();
            let section = section.ok_or_else(|| wrong("no section before the assignment"))?;
            let value = unquoted(value.trim()).to_owned();
            found.push(Assignment { section, key: key.to_owned(), value });
            open = true;
        }
    }
    Ok(found)
}

fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if value.starts_with(quote) && value.ends_with(quote) {
            return value.get(1..value.len() - 1).unwrap_or_default();
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let all = parse(text).unwrap();
        all.iter().map(|a| format!("{}.{}={:?}", a.section, a.key, a.value)).collect()
    }

    #[test]
    fn assignments_are_read_as_oslo_config_reads_them() {
        let text = "# comment\n[DEFAULT]\n a\n";
        assert!(parse(text).is_err());
        let text = "[DEFAULT]\r\nkey = a value  \n  continued\n\tmore # of it\n\n; x\nb: c=d\nb=\"q\"\n\
                    b='q\nb=\"\nb=''\nb=  \n[Cfn]\na-b=\r[DEFAULT]\nc=1";
        assert_eq!(
            shown(text),
            [
                "DEFAULT.key=\"a value\\ncontinued\\nmore # of it\"",
                "DEFAULT.b=\"c=d\"",
                "DEFAULT.b=\"q\"",
                "DEFAULT.b=\"'q\"",
                "DEFAULT.b=\"\"",
                "DEFAULT.b=\"\"",
                "DEFAULT.b=\"\"",
                "Cfn.a-b=\"\"",
                "DEFAULT.c=\"1\"",
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_without_its_text() {
        for (text, error) in [
            ("secret=1", "line 1: no section before the assignment"),
            ("[a]\nsecret", "line 2: no ':' or '=' found"),
            ("[a]\n=secret", "line 2: key cannot be empty"),
            ("[a", "line 1: a section must end with ]"),
            ("[a] # secret", "line 1: a section must end with ]"),
            ("[]", "line 1: empty section name"),
            ("[a]\nb=1\n\n secret", "line 4: unexpected continuation line"),
            ("[a]\nb=1\n# x\n secret", "line 4: unexpected continuation line"),
        ] {
            assert_eq!(parse(text).unwrap_err(), error);
        }
    }
}
