//! Log lines as oslo.log writes them, to standard error, a file or the system's log.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::{self, Command};

use jiff::Zoned;

use super::config::LogSettings;
use crate::compat::pylog::Level;

const NAME: &str = "os-collect-config";
const SYSLOG: &str = "/dev/log";
/// What a shell says of a program that died of SIGPIPE.
const EXIT_SIGPIPE: i32 = 128 + 13;

enum Sink {
    Stderr,
    File(File),
    /// With the facility, in the place it has in a line.
    Syslog(UnixDatagram, u8),
}

/// Where lines go, and which.
pub(super) struct Log {
    sink: Sink,
    least: Level,
}

impl Log {
    /// As configured; standard error where that cannot be had, with a line that says so.
    pub(super) fn new(settings: &LogSettings) -> Self {
        let least = if settings.debug { Level::Debug } else { Level::Info };
        let opened = match (&settings.syslog, &settings.file) {
            (Some(name), _) => {
                let socket = UnixDatagram::unbound().and_then(|socket| {
                    socket.connect(SYSLOG)?;
                    Ok(socket)
                });
                let sink = socket.map(|socket| Sink::Syslog(socket, facility(name)));
                sink.map_err(|error| format!("no log in {SYSLOG}: {error}"))
            }
            (None, Some(path)) => OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .map(Sink::File)
                .map_err(|error| format!("no log in {}: {error}", path.display())),
            (None, None) => Ok(Sink::Stderr),
        };
        match opened {
            Ok(sink) => Self { sink, least },
            Err(problem) => {
                let mut log = Self { sink: Sink::Stderr, least };
                log.warning(problem);
                log
            }
        }
    }

    pub(super) fn debug(&mut self, text: impl Display) {
        self.line(Level::Debug, "DEBUG", 7, &text);
    }

    pub(super) fn info(&mut self, text: impl Display) {
        self.line(Level::Info, "INFO", 6, &text);
    }

    pub(super) fn warning(&mut self, text: impl Display) {
        self.line(Level::Warning, "WARNING", 4, &text);
    }

    pub(super) fn error(&mut self, text: impl Display) {
        self.line(Level::Error, "ERROR", 3, &text);
    }

    fn line(&mut self, level: Level, name: &str, severity: u8, text: &dyn Display) {
        if level < self.least {
            return;
        }
        let now = Zoned::now();
        let time = now.strftime("%Y-%m-%d %H:%M:%S");
        let ms = now.millisecond();
        let pid = process::id();
        let line = format!("{time}.{ms:03} {pid} {name} {NAME} [-] {text}\n");
        // Nobody can be told if the log cannot be written, but for a pipe that nobody reads.
        match &mut self.sink {
            Sink::Stderr => die_if_broken(io::stderr().write_all(line.as_bytes())),
            Sink::File(file) => drop(file.write_all(line.as_bytes())),
            Sink::Syslog(socket, facility) => {
                let priority = *facility * 8 + severity;
                drop(socket.send(format!("<{priority}>{NAME}[{pid}]: {text}").as_bytes()));
            }
        }
    }
}

/// The number of a facility of syslog(3), by its name.
fn facility(name: &str) -> u8 {
    let name = name.strip_prefix("LOG_").unwrap_or(name).to_lowercase();
    let known = ["kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron"];
    if let Some(local) = name.strip_prefix("local").and_then(|number| number.parse::<u8>().ok()) {
        return 16 + local.min(7);
    }
    let user = 1;
    known.iter().position(|known| *known == name).map_or(user, |at| at as u8)
}

/// Ends the program if what was written to is a pipe that nobody reads any more.
pub(super) fn die_if_broken(written: io::Result<()>) {
    if written.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
        // As the original did, so that the service manager starts it anew. The signal is ignored in this
        // process, and what it becomes when another takes its place.
        let _ = Command::new("/bin/sh").args(["-c", "kill -PIPE $$"]).exec();
        process::exit(EXIT_SIGPIPE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_where_they_are_wanted_from_the_level_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("log");
        for (debug, lines) in [(false, 3), (true, 4)] {
            let settings = LogSettings { debug, file: Some(file.clone()), syslog: None };
            let mut log = Log::new(&settings);
            log.debug("one");
            log.info("two");
            log.warning("three");
            log.error("four");
            let text = std::fs::read_to_string(&file).unwrap();
            assert_eq!(text.lines().count(), lines);
            let last = text.lines().last().unwrap();
            let expected = format!(" {} ERROR os-collect-config [-] four", process::id());
            assert!(last.ends_with(&expected), "{last}");
            std::fs::remove_file(&file).unwrap();
        }
        let none = directory.path().join("none/log");
        let settings = LogSettings { debug: false, file: Some(none), syslog: None };
        assert!(matches!(Log::new(&settings).sink, Sink::Stderr));
    }

    #[test]
    fn facilities_are_known_by_name() {
        let known = [("LOG_USER", 1), ("LOG_LOCAL3", 19), ("daemon", 3), ("nonsense", 1)];
        for (name, number) in known {
            assert_eq!(facility(name), number, "{name}");
        }
    }
}
