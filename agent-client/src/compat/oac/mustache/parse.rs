use regex::Regex;
use thiserror::Error;

/// How deep sections may be nested.
pub const SECTIONS_NESTED_MAX: usize = 100;

/// Why a template cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseError {
    /// A closing tag that closes nothing, or something else than what is open.
    #[error("line {line}: {{{{/{found}}}}} where {expected} is open")]
    Mismatch {
        /// Counted from 1.
        line: usize,
        /// The name in the closing tag.
        found: String,
        /// What is open: a tag, or "nothing".
        expected: String,
    },
    /// A section without its end.
    #[error("line {line}: section {name:?} is never closed; try {{{{/{name}}}}}")]
    Unclosed {
        /// Where it begins, counted from 1.
        line: usize,
        /// Its name.
        name: String,
    },
    /// `{{= … =}}` that does not hold two delimiters.
    #[error("line {line}: {text:?} are not two delimiters with a space between them")]
    Delimiters {
        /// Counted from 1.
        line: usize,
        /// What is there instead.
        text: String,
    },
    /// More nested sections than [`SECTIONS_NESTED_MAX`].
    #[error("line {line}: more than {SECTIONS_NESTED_MAX} sections inside each other")]
    TooDeep {
        /// Counted from 1.
        line: usize,
    },
}

/// A template that was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Template {
    pub(super) nodes: Vec<Node>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Node {
    Text(String),
    Value(String),
    Section { name: String, inner: Template },
    Inverted { name: String, inner: Template },
    Partial { name: String, indent: String },
}

/// A section that is being read.
struct Open {
    name: String,
    inverted: bool,
    line: usize,
    outer: Template,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// See [`ParseError`].
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut tags = tag_pattern("{{", "}}");
        let mut open: Vec<Open> = Vec::new();
        let mut current = Self::default();
        let mut done = 0;
        while let Some(found) = tags.captures_at(text, done) {
            let part = |name| found.name(name).map(|part| part.as_str());
            let Some(whole) = found.get(0) else { break };
            let (mut start, mut end) = (whole.start(), whole.end());
            let line = 1 + text[..end].matches('\n').count();
            let (kind, name) = match (part("delimiters"), part("raw"), part("key")) {
                (Some(delimiters), ..) => ("=", delimiters),
                (_, Some(raw), _) => ("&", raw),
                (.., key) => (part("kind").unwrap_or_default(), key.unwrap_or_default()),
            };
            let mut indent = part("indent").unwrap_or_default();
            let begins_line = start == 0 || text[..start].ends_with(['\r', '\n']);
            let ends_line = end == text.len() || text[end..].starts_with(['\r', '\n']);
            if begins_line && ends_line && !matches!(kind, "" | "&") {
                // The tag has the line for itself, which leaves no line.
                end += usize::from(text[end..].starts_with('\r'));
                end += usize::from(text[end..].starts_with('\n'));
            } else {
                start += indent.len();
                indent = "";
            }
            current.text(&text[done..start]);
            done = end;
            match kind {
                "#" | "^" => {
                    if open.len() >= SECTIONS_NESTED_MAX {
                        return Err(ParseError::TooDeep { line });
                    }
                    let outer = std::mem::take(&mut current);
                    open.push(Open { name: name.into(), inverted: kind == "^", line, outer });
                }
                "/" => {
                    let section = open.pop_if(|section| section.name == name).ok_or_else(|| {
                        let expected = open.last().map_or_else(|| "nothing".into(), Open::tag);
                        ParseError::Mismatch { line, found: name.into(), expected }
                    })?;
                    let inner = std::mem::replace(&mut current, section.outer);
                    let name = section.name;
                    current.nodes.push(match section.inverted {
                        false => Node::Section { name, inner },
                        true => Node::Inverted { name, inner },
                    });
                }
                "=" => {
                    let mut delimiters = name.split_whitespace();
                    let (Some(opening), Some(closing)) = (delimiters.next(), delimiters.next())
                    else {
                        return Err(ParseError::Delimiters { line, text: name.into() });
                    };
                    tags = tag_pattern(opening, closing);
                }
                ">" => {
                    let (name, indent) = (name.into(), indent.into());
                    current.nodes.push(Node::Partial { name, indent });
                }
                "!" => {}
                _ => current.nodes.push(Node::Value(name.into())),
            }
        }
        if let Some(Open { line, name, .. }) = open.pop() {
            return Err(ParseError::Unclosed { line, name });
        }
        current.text(&text[done..]);
        Ok(current)
    }

    fn text(&mut self, text: &str) {
        if !text.is_empty() {
            self.nodes.push(Node::Text(text.into()));
        }
    }
}

impl Open {
    fn tag(&self) -> String {
        format!("{{{{{}{}}}}}", if self.inverted { '^' } else { '#' }, self.name)
    }
}

/// One tag with the blanks before it. The name ends at the first closing delimiter, so one that has
/// none stays text.
#[expect(clippy::expect_used, reason = "the pattern is fixed but for two literals")]
fn tag_pattern(opening: &str, closing: &str) -> Regex {
    let (opening, closing) = (regex::escape(opening), regex::escape(closing));
    let pattern = format!(
        r"(?P<indent>[ \t]*){opening}\s*(?:=\s*(?P<delimiters>.+?)\s*=|\{{\s*(?P<raw>.+?)\s*\}}|(?P<kind>[!>&/#^]?)\s*(?P<key>[\s\S]+?))\s*{closing}"
    );
    Regex::new(&pattern).expect("a valid pattern")
}
