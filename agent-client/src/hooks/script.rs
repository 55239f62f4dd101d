//! The built-in `script` hook: the config is a program with a `#!` line, inputs are environment variables,
//! outputs are files.
//!
//! The config is written to `<working>/<id>` and run there without arguments. Each input is a variable of
//! its name: strings as they are, null empty, anything else as JSON. `heat_outputs_path` is
//! `<outputs>/<id>`; the script writes output *o* to `$heat_outputs_path.o`.
//!
//! Inputs named like variables by which the loader or the shell is told to run other code
//! ([`is_refused_variable`]) do not get into the environment: the hook keeps the agent's own value, and a
//! line on its standard error says so. Whoever writes the script can set such a variable in it; whoever
//! merely supplies a value cannot.

use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use certs::file::{FileError, ensure_private_directory};
use serde_json::Value;

use super::outputs;
use super::proc::RUN_VARIABLE;
use super::process::{Exit, Launch, Printing};
use super::{NotRun, Response};
use crate::document::{Config, ConfigId, Input, Output, plain_text};

const SCRIPT_MODE: u32 = 0o700;
const OUTPUTS_VARIABLE: &str = "heat_outputs_path";
/// What a shell reports for a program that is not executable, and for one that is not there.
const CANNOT_EXECUTE: i64 = 126;
const NOT_FOUND: i64 = 127;

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The script.
    pub config: &'a Value,
    /// What it gets.
    pub inputs: &'a [Input],
    /// What it may give.
    pub outputs: &'a [Output],
}

impl<'a> From<&'a Config> for Job<'a> {
    fn from(config: &'a Config) -> Self {
        Self { config: &config.config, inputs: &config.inputs, outputs: &config.outputs }
    }
}

/// Where scripts and their outputs are written.
#[derive(Debug)]
pub struct Directories {
    working: PathBuf,
    outputs: PathBuf,
    /// Making them waits for the disk, so it is done before a script waits.
    are_ready: AtomicBool,
}

impl Directories {
    /// `working` (`HEAT_SCRIPT_WORKING`) is for scripts and their working directory, `outputs`
    /// (`HEAT_SCRIPT_OUTPUTS`) for output files.
    pub fn new(working: PathBuf, outputs: PathBuf) -> Self {
        Self { working, outputs, are_ready: AtomicBool::new(false) }
    }

    /// Both of them.
    pub fn both(&self) -> [&Path; 2] {
        [&self.working, &self.outputs]
    }

    /// Makes them if they are not there, private to us.
    ///
    /// # Errors
    /// They cannot be made, or others could write there.
    pub fn make_ready(&self) -> Result<(), FileError> {
        let both = [&self.working, &self.outputs];
        if self.are_ready.load(Ordering::Relaxed) && both.iter().all(|path| path.is_dir()) {
            return Ok(());
        }
        both.into_iter().try_for_each(|path| ensure_private_directory(path))?;
        self.are_ready.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// Whether an input of this name is kept out of a script's environment.
pub fn is_refused_variable(name: &str) -> bool {
    name.starts_with("LD_")
        || name.starts_with("BASH_FUNC_")
        || matches!(
            name,
            "PATH"
                | "BASH_ENV"
                | "BASHOPTS"
                | "SHELLOPTS"
                | "GCONV_PATH"
                | "GLIBC_TUNABLES"
                | "MALLOC_TRACE"
                | RUN_VARIABLE
        )
}

/// Writes the script and says how to start it.
///
/// # Errors
/// It cannot run.
pub fn prepare(directories: &Directories, id: &ConfigId, job: Job<'_>) -> Result<Launch, NotRun> {
    let text = match job.config {
        Value::String(text) if !text.is_empty() => text,
        Value::String(_) | Value::Null => {
            return Err(NotRun::new(
                CANNOT_EXECUTE,
                "the config is empty: there is no script to run",
            ));
        }
        _ => {
            return Err(NotRun::new(
                CANNOT_EXECUTE,
                "the config is not text: a script is expected",
            ));
        }
    };
    check_first_line(text)?;
    let mut environment = Vec::with_capacity(job.inputs.len() + 1);
    for input in job.inputs.iter().filter(|input| !is_refused_variable(&input.name)) {
        let value = plain_text(&input.value);
        if input.name.is_empty() || input.name.contains(['=', '\0']) || value.contains('\0') {
            let reason = format!(
                "input {:?} cannot be an environment variable: its name is empty or has \"=\", or there is a zero byte in it",
                input.name
            );
            return Err(NotRun::new(CANNOT_EXECUTE, reason));
        }
        environment.push((input.name.clone(), OsString::from(value)));
    }
    let prefix = outputs::prefix(&directories.outputs, id);
    environment.push((OUTPUTS_VARIABLE.into(), prefix.into()));

    let program = directories.working.join(&*id.file_name());
    let failed = |what: &str, path: &Path, error: &dyn std::fmt::Display| {
        NotRun::new(CANNOT_EXECUTE, format!("{what} {}: {error}", path.display()))
    };
    directories.make_ready().map_err(|e| NotRun::new(CANNOT_EXECUTE, with_source(&e)))?;
    outputs::remove_old(&directories.outputs, id, job.outputs)
        .map_err(|(path, e)| failed("removing old output", &path, &e))?;
    write_script(&program, text).map_err(|e| failed("writing script", &program, &e))?;
    Ok(Launch {
        program,
        arguments: Vec::new(),
        directory: Some(directories.working.clone()),
        environment,
        input: None,
        printing: Printing::Log,
    })
}

/// What the system's refusal to start a script means to its author.
pub fn not_started(launch_program: &Path, error: &io::Error) -> NotRun {
    let program = launch_program.display();
    match error.kind() {
        io::ErrorKind::NotFound => NotRun::new(
            NOT_FOUND,
            format!(
                "the interpreter in the script's first line does not exist ({program}: {error})"
            ),
        ),
        io::ErrorKind::PermissionDenied => NotRun::new(
            CANNOT_EXECUTE,
            format!(
                "{program}: {error}; is its file system mounted noexec? try another HEAT_SCRIPT_WORKING"
            ),
        ),
        _ => NotRun::new(
            CANNOT_EXECUTE,
            format!("the script could not be started: {program}: {error}"),
        ),
    }
}

/// The response of a script that ran.
pub fn respond(directories: &Directories, id: &ConfigId, job: Job<'_>, exit: Exit) -> Response {
    let mut stderr = String::new();
    let mut complain = |what: String| stderr.push_str(&format!("agent-client: {what}\n"));
    for input in job.inputs.iter().filter(|input| is_refused_variable(&input.name)) {
        complain(format!(
            "input {} was not put into the environment (it would change how programs are loaded)",
            input.name
        ));
    }
    let outputs = outputs::collect(&directories.outputs, id, job.outputs, complain);
    stderr.push_str(&exit.stderr);
    Response { stdout: exit.stdout, stderr, status_code: exit.code, outputs, reason: None }
}

/// The system finds the interpreter by the first line; where it could not, it says nothing helpful.
fn check_first_line(text: &str) -> Result<(), NotRun> {
    let first = text.split('\n').next().unwrap_or_default();
    let Some(interpreter) = first.strip_prefix("#!") else {
        return Err(NotRun::new(
            CANNOT_EXECUTE,
            "the script does not begin with \"#!\": add a first line such as #!/bin/sh",
        ));
    };
    if first.ends_with('\r') {
        return Err(NotRun::new(
            CANNOT_EXECUTE,
            "the script's first line ends in a carriage return: save it with Unix line ends",
        ));
    }
    if interpreter.trim().is_empty() {
        return Err(NotRun::new(
            CANNOT_EXECUTE,
            "the script's first line names no interpreter after \"#!\"",
        ));
    }
    if text.contains('\0') {
        return Err(NotRun::new(CANNOT_EXECUTE, "the script has a zero byte in it"));
    }
    Ok(())
}

fn write_script(path: &Path, text: &str) -> io::Result<()> {
    // A fresh file: nothing is left of a longer one, and a running copy is not written into.
    outputs::remove(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(SCRIPT_MODE).open(path)?;
    // The process's umask may have taken bits away.
    fs::set_permissions(path, Permissions::from_mode(SCRIPT_MODE))?;
    file.write_all(text.as_bytes())
}

fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::outputs::OUTPUT_BYTES_MAX;
    use super::super::{Hook, Hooks};
    use super::*;
    use crate::document::{Document, Work};

    struct Bench {
        dir: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap() }
        }

        fn directories(&self) -> Directories {
            Directories::new(self.dir.path().join("w"), self.dir.path().join("o"))
        }

        async fn run(&self, config: Value, inputs: Value, outputs: Value) -> Response {
            let entry = json!({"id": "the-id", "group": "script", "config": config,
                "inputs": inputs, "outputs": outputs});
            let body = json!({"deployments": [entry]}).to_string();
            let document = Document::parse(1, body.as_bytes()).unwrap();
            let Work::Run(config) = &document.entries[0].work else { panic!() };
            let hooks = Hooks::new(vec![], None, self.directories(), "test".into());
            hooks.run(&Hook::Script, &document.entries[0].id, config).await
        }

        async fn script(&self, body: &str) -> Response {
            self.run(json!(format!("#!/bin/sh\n{body}")), json!([]), json!([])).await
        }
    }

    #[tokio::test]
    async fn inputs_are_variables_and_outputs_are_files() {
        let script = "#!/bin/sh\nprintf '%s|' \"$s\" \"$n\" \"$b\" \"$z\" \"$l\" \"$o\"; pwd\n\
                      printf 'a result' > $heat_outputs_path.result\nexit 4\n";
        let inputs = json!([
            {"name": "s", "value": "a 'b'"}, {"name": "n", "value": 5}, {"name": "b", "value": true},
            {"name": "z", "value": null}, {"name": "l", "value": [1, "x"]}, {"name": "o", "value": {"k": "ü"}},
            {"name": "heat_outputs_path", "value": "/overridden"}]);
        let bench = Bench::new();
        let response =
            bench.run(json!(script), inputs, json!([{"name": "result"}, {"name": "absent"}])).await;
        let cwd = bench.directories().working.canonicalize().unwrap();
        assert_eq!(
            response.stdout,
            format!("a 'b'|5|true||[1, \"x\"]|{{\"k\": \"\\u00fc\"}}|{}\n", cwd.display())
        );
        assert_eq!(response.status_code, 4);
        assert_eq!(Value::Object(response.outputs), json!({"result": "a result"}));
    }

    #[tokio::test]
    async fn scripts_that_cannot_run_get_a_failed_response_that_says_why() {
        let bench = Bench::new();
        for (config, code, why) in [
            (json!(""), 126, "the config is empty"),
            (json!(null), 126, "the config is empty"),
            (json!({"a": 1}), 126, "the config is not text"),
            (json!("echo hello\n"), 126, "does not begin with \"#!\""),
            (json!("#!/bin/sh\r\necho hello\r\n"), 126, "carriage return"),
            (json!("#! \n"), 126, "names no interpreter"),
            (json!("#!/no/such/interpreter\n"), 127, "interpreter in the script's first line"),
        ] {
            let response = bench.run(config.clone(), json!([]), json!([])).await;
            assert_eq!(response.status_code, code, "{config}");
            let reason = response.reason.unwrap();
            assert!(reason.contains(why), "{config}: {reason}");
            assert!(response.stderr.contains(why), "the user sees it in deploy_stderr");
        }
    }

    #[tokio::test]
    async fn a_shorter_script_leaves_nothing_of_a_longer_one() {
        let bench = Bench::new();
        bench.script(&format!("true\n{}", "echo tail\n".repeat(20))).await;
        assert_eq!(bench.script("echo short").await.stdout, "short\n");
    }

    #[tokio::test]
    async fn old_output_files_are_not_reported_again() {
        let bench = Bench::new();
        let outputs = json!([{"name": "r"}]);
        let first = json!("#!/bin/sh\necho old > $heat_outputs_path.r\n");
        assert_eq!(bench.run(first, json!([]), outputs.clone()).await.outputs["r"], "old\n");
        assert!(bench.run(json!("#!/bin/sh\n"), json!([]), outputs).await.outputs.is_empty());
    }

    #[tokio::test]
    async fn output_that_is_no_utf8_is_replaced_and_a_pipe_is_not_waited_for() {
        let script = "#!/bin/sh\nprintf 'a\\377b' > $heat_outputs_path.r; printf '\\377'\n\
                      mkfifo $heat_outputs_path.pipe\n";
        let outputs = json!([{"name": "r"}, {"name": "pipe"}, {"name": "../w/the-id"}]);
        let response = Bench::new().run(json!(script), json!([]), outputs).await;
        assert_eq!(response.outputs["r"], "a\u{fffd}b");
        assert_eq!(response.stdout, "\u{fffd}");
        assert!(response.stderr.contains("output pipe is unreadable: it is not a regular file"));
        assert_eq!(response.outputs.len(), 1, "and no output leaves its directory");
    }

    #[tokio::test]
    async fn a_huge_output_is_bounded() {
        let script = "#!/bin/sh\nhead -c 2000000 /dev/zero | tr '\\0' x > $heat_outputs_path.r\n";
        let response = Bench::new().run(json!(script), json!([]), json!([{"name": "r"}])).await;
        let text = response.outputs["r"].as_str().unwrap();
        assert!(text.len() < OUTPUT_BYTES_MAX + 100 && text.contains("bytes left out"));
    }

    #[tokio::test]
    async fn loader_variables_do_not_reach_the_script_and_that_is_said() {
        let names = ["LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "BASH_ENV", "GLIBC_TUNABLES"];
        let inputs: Vec<Value> =
            names.iter().map(|n| json!({"name": n, "value": "/evil"})).collect();
        let response = Bench::new().run(json!("#!/bin/sh\nenv\n"), json!(inputs), json!([])).await;
        assert!(!response.stdout.contains("/evil"), "{}", response.stdout);
        assert_eq!(response.status_code, 0);
        for name in names {
            assert!(response.stderr.contains(&format!("input {name} was not put")), "{name}");
        }
    }

    #[tokio::test]
    async fn an_input_that_cannot_be_a_variable_fails_the_deployment() {
        for input in [json!({"name": "a=b", "value": ""}), json!({"name": "a", "value": "x\u{0}y"})]
        {
            let response = Bench::new().run(json!("#!/bin/sh\n"), json!([input]), json!([])).await;
            assert_eq!(response.status_code, 126, "{:?}", response.reason);
        }
    }

    #[tokio::test]
    async fn an_input_too_large_for_the_system_fails_the_deployment() {
        let inputs = json!([{"name": "a", "value": "x".repeat(3 << 20)}]);
        let response = Bench::new().run(json!("#!/bin/sh\n"), inputs, json!([])).await;
        assert!(response.reason.unwrap().contains("Argument list too long"));
    }
}
