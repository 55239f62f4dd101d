//! Reading the file and its `conf.d`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::{Origin, Override, Problem, SETTINGS, Value};

/// Reads the file, then every `conf.d/*.toml` beside it in the order of their names.
pub(super) fn read(path: &Path, must_exist: bool, problems: &mut Vec<Problem>) -> Vec<Override> {
    let mut given = Vec::new();
    match fs::read_to_string(path) {
        Ok(text) => parse(path, &text, &mut given, problems),
        Err(e) if e.kind() == ErrorKind::NotFound && !must_exist => {}
        Err(e) => problems.push(unreadable(path, &e)),
    }
    for path in fragments(path, problems) {
        match fs::read_to_string(&path) {
            Ok(text) => parse(&path, &text, &mut given, problems),
            Err(e) => problems.push(unreadable(&path, &e)),
        }
    }
    given
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    Problem {
        origin: Origin::File(path.to_owned(), 0),
        message: format!("cannot be read: {error}"),
    }
}

fn fragments(file: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let folder = file.with_file_name("conf.d");
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Vec::new();
        }
        Err(e) => {
            problems.push(unreadable(&folder, &e));
            return Vec::new();
        }
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    paths.sort();
    paths
}

fn parse(path: &Path, text: &str, given: &mut Vec<Override>, problems: &mut Vec<Problem>) {
    let origin = |at: usize| Origin::File(path.to_owned(), line_of(text, at));
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        problems.push(Problem {
            origin: origin(at),
            message: format!("not TOML: {}", error.message()),
        });
    }
    for (key, value) in table.get_ref() {
        let origin = origin(key.span().start);
        let name: &str = key.get_ref();
        match SETTINGS.iter().find(|s| s.key == name) {
            Some(setting) => {
                given.push(Override { key: setting.key, value: plain(value.get_ref()), origin });
            }
            None => problems.push(Problem { origin, message: unknown(name) }),
        }
    }
}

fn unknown(key: &str) -> String {
    match nearest(key) {
        Some(near) => format!("unknown key {key:?}; did you mean {near:?}?"),
        None => {
            let keys: Vec<_> = SETTINGS.iter().map(|s| s.key).collect();
            format!("unknown key {key:?}; the keys are {}", keys.join(", "))
        }
    }
}

fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Integer(number) => {
            i64::from_str_radix(&number.as_str().replace('_', ""), number.radix())
                .map_or(Value::Other("a number out of range"), Value::Integer)
        }
        DeValue::Array(entries) => entries
            .iter()
            .map(|entry| entry.get_ref().as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .map_or(Value::Other("a list of other things than strings"), Value::List),
        DeValue::Float(_) => Value::Other("a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Table(_) => Value::Other("a table"),
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count() + 1
}

/// The setting that was probably meant.
fn nearest(key: &str) -> Option<&'static str> {
    let normal = key.replace('-', "_").to_lowercase();
    SETTINGS
        .iter()
        .map(|s| (distance(&normal, s.key), s.key))
        .min()
        .filter(|(distance, near)| *distance <= 1 + near.len() / 4)
        .map(|(_, near)| near)
}

/// Letters to insert, delete, replace to get from one to the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
