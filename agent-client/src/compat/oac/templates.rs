//! Templates: where they are, and from a template to a file's content.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{Access, access};
use serde_json::{Map, Value};

use super::control::Control;
use super::mustache::{self, Partials, Template};
use crate::json_text::json_text;

/// What a file beside a template is called that says how to write it.
const CONTROL_SUFFIX: &[u8] = b".oac";

/// A file to be written.
#[derive(Debug)]
pub struct Rendered {
    /// Below the output's root.
    pub path: PathBuf,
    /// Its content.
    pub body: Vec<u8>,
    /// How it is written.
    pub control: Control,
}

/// Renders every template below `root`, in the order of their paths. No root, no templates.
///
/// # Errors
/// The first template that cannot be rendered.
pub fn render_all(root: &Path, data: &Map<String, Value>) -> Result<Vec<Rendered>> {
    let mut found = Vec::new();
    find(root, Path::new(""), &mut found)?;
    found.sort();
    let data = Value::Object(data.clone());
    found
        .into_iter()
        .map(|path| {
            let template = root.join(&path);
            let file = || -> Result<(Vec<u8>, Control)> {
                Ok((render(&template, &data)?, control(&template)?))
            };
            let (body, control) = file().with_context(|| template.display().to_string())?;
            Ok(Rendered { path, body, control })
        })
        .collect()
}

/// Every file but control files; links to directories are not followed.
fn find(root: &Path, below: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let directory = root.join(below);
    // As it always was: a directory that is not there, or cannot be read, has no templates.
    let Ok(entries) = fs::read_dir(&directory) else { return Ok(()) };
    for entry in entries {
        let entry = entry.with_context(|| directory.display().to_string())?;
        let path = below.join(entry.file_name());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find(root, &path, found)?;
        } else if !entry.file_name().as_bytes().ends_with(CONTROL_SUFFIX)
            && !root.join(&path).is_dir()
        {
            found.push(path);
        }
    }
    Ok(())
}

fn control(template: &Path) -> Result<Control> {
    let mut name = template.as_os_str().to_owned();
    name.push(".oac");
    let path = PathBuf::from(name);
    if !path.is_file() {
        return Ok(Control::default());
    }
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Control::parse(&text).with_context(|| path.display().to_string())
}

fn render(template: &Path, data: &Value) -> Result<Vec<u8>> {
    if template.is_file() && access(template, Access::EXEC_OK).is_ok() {
        return run(template, data);
    }
    let text = fs::read_to_string(template).context("could not read the template")?;
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let template = Template::parse(&text)?;
    Ok(mustache::render(&template, data, &Here)?.into_bytes())
}

/// A template that can be run is: the metadata goes in, the content comes out.
fn run(program: &Path, data: &Value) -> Result<Vec<u8>> {
    // Without a slash the name would be looked up in PATH.
    let program = if program.components().count() == 1 {
        Path::new(".").join(program)
    } else {
        program.to_owned()
    };
    let mut child = Command::new(&program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("the template is executable and cannot be run")?;
    let input = json_text(data);
    let stdin = child.stdin.take();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            // One that does not read its input is free not to.
            stdin.map(|mut stdin| stdin.write_all(input.as_bytes()))
        });
        child.wait_with_output()
    })?;
    if !output.status.success() {
        let text = [&output.stdout[..], &output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        bail!("config script failed ({}), with output:\n\n{text}", output.status);
    }
    if let Err(error) = std::str::from_utf8(&output.stdout) {
        return Err(anyhow!("config script printed something else than UTF-8: {error}"));
    }
    Ok(output.stdout)
}

/// Partials are files in the current directory.
struct Here;

impl Partials for Here {
    fn load(&self, name: &str) -> Result<Option<String>, String> {
        match fs::read(format!("./{name}.mustache")) {
            Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|e| e.to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}
