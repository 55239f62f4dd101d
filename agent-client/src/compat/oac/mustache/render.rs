use std::borrow::Cow;

use serde_json::Value;
use thiserror::Error;

use super::parse::{Node, ParseError, Template};
use crate::compat::truth::is_true;
use crate::json_text::json_text;

/// How deep partials may include each other: one that includes itself must end somewhere.
pub const PARTIALS_NESTED_MAX: usize = 50;

/// Where partials come from.
pub trait Partials {
    /// The text of a partial; `None` if there is none, which then is empty.
    ///
    /// # Errors
    /// It is there and cannot be read.
    fn load(&self, name: &str) -> Result<Option<String>, String>;
}

/// Why a template did not become a text.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RenderError {
    /// A partial is no template.
    #[error("partial {name:?}: {error}")]
    Partial {
        /// Its name.
        name: String,
        /// What is wrong with it.
        error: ParseError,
    },
    /// A partial is there and cannot be read.
    #[error("partial {name:?}: {why}")]
    Unreadable {
        /// Its name.
        name: String,
        /// Why not.
        why: String,
    },
    /// Partials that include each other without an end.
    #[error("partial {0:?}: more than {PARTIALS_NESTED_MAX} partials inside each other")]
    TooDeep(String),
}

/// Fills in a template.
///
/// # Errors
/// Only partials can fail; see [`RenderError`].
pub fn render(
    template: &Template,
    data: &Value,
    partials: &dyn Partials,
) -> Result<String, RenderError> {
    let mut out = String::new();
    let mut renderer = Renderer { stack: vec![data], partials, depth: 0 };
    renderer.nodes(template, &mut out)?;
    Ok(out)
}

struct Renderer<'a> {
    /// What names are looked up in, innermost last; never empty.
    stack: Vec<&'a Value>,
    partials: &'a dyn Partials,
    depth: usize,
}

impl<'a> Renderer<'a> {
    fn nodes(&mut self, template: &Template, out: &mut String) -> Result<(), RenderError> {
        for node in &template.nodes {
            match node {
                Node::Text(text) => out.push_str(text),
                Node::Value(name) => {
                    if let Some(value) = self.find(name) {
                        out.push_str(&shown(value));
                    }
                }
                Node::Inverted { name, inner } => {
                    if !self.find(name).is_some_and(is_true) {
                        self.nodes(inner, out)?;
                    }
                }
                Node::Section { name, inner } => match self.find(name) {
                    Some(Value::Array(items)) => {
                        for item in items {
                            self.within(item, inner, out)?;
                        }
                    }
                    Some(value) if is_true(value) => self.within(value, inner, out)?,
                    _ => {}
                },
                Node::Partial { name, indent } => self.partial(name, indent, out)?,
            }
        }
        Ok(())
    }

    fn within(
        &mut self,
        value: &'a Value,
        inner: &Template,
        out: &mut String,
    ) -> Result<(), RenderError> {
        self.stack.push(value);
        let rendered = self.nodes(inner, out);
        self.stack.pop();
        rendered
    }

    fn partial(&mut self, name: &str, indent: &str, out: &mut String) -> Result<(), RenderError> {
        if self.depth >= PARTIALS_NESTED_MAX {
            return Err(RenderError::TooDeep(name.into()));
        }
        let text = self.partials.load(name);
        let text = text.map_err(|why| RenderError::Unreadable { name: name.into(), why })?;
        let Some(text) = text else { return Ok(()) };
        let template = Template::parse(&indented(&text, indent))
            .map_err(|error| RenderError::Partial { name: name.into(), error })?;
        self.depth += 1;
        let rendered = self.nodes(&template, out);
        self.depth -= 1;
        rendered
    }

    /// The value of a dotted name: its first part in the innermost object that has it, the others from
    /// there, through objects only.
    fn find(&self, name: &str) -> Option<&'a Value> {
        if name == "." {
            return self.stack.last().copied();
        }
        let mut parts = name.split('.');
        let first = parts.next()?;
        let start = self.stack.iter().rev().find_map(|item| item.as_object()?.get(first))?;
        parts.try_fold(start, |value, part| value.as_object()?.get(part))
    }
}

/// What a value looks like in the text.
fn shown(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => "".into(),
        Value::String(text) => text.into(),
        other => json_text(other).into(),
    }
}

/// Puts `indent` before every line that has something on it.
fn indented<'a>(text: &'a str, indent: &str) -> Cow<'a, str> {
    if indent.is_empty() {
        return text.into();
    }
    let lines = text.split_inclusive('\n');
    lines
        .fold(String::with_capacity(text.len()), |mut out, line| {
            if line != "\n" {
                out.push_str(indent);
            }
            out + line
        })
        .into()
}
