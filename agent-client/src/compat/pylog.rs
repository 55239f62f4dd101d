//! Log lines as the Python programs write them.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use jiff::Zoned;

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For developers.
    Debug,
    /// What is done.
    Info,
    /// What may be wrong.
    Warning,
    /// What failed.
    Error,
    /// Why it ends.
    Critical,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        }
    }
}

/// How a line looks.
#[derive(Debug, Clone, Copy)]
pub enum Style {
    /// `[2026/11/22 09:15:11 AM] [INFO] text`.
    OsApplyConfig,
    /// `[2026-11-22 09:15:11,123] (name) [INFO] text`.
    Named(&'static str),
    /// `INFO [2026-11-22 09:15:11,123] text`.
    CfnTools,
}

/// Writes lines to stderr, and to a file if there is one.
#[derive(Debug)]
pub struct Log {
    style: Style,
    least: Level,
    told: Level,
    file: Option<File>,
}

impl Log {
    /// Logs what is at least this important.
    #[must_use]
    pub fn new(style: Style, least: Level) -> Self {
        Self { style, least, told: least, file: None }
    }

    /// Lines that are less important than this go to the file only.
    #[must_use]
    pub fn saying_from(mut self, told: Level) -> Self {
        self.told = told;
        self
    }

    /// Appends the lines to a file too. One that cannot be opened is done without, and said.
    pub fn also_to(&mut self, path: &Path) {
        match OpenOptions::new().append(true).create(true).open(path) {
            Ok(file) => self.file = Some(file),
            Err(error) => self.warning(format!("no log in {}: {error}", path.display())),
        }
    }

    /// For developers.
    pub fn debug(&mut self, text: impl Display) {
        self.line(Level::Debug, &text);
    }

    /// What is done.
    pub fn info(&mut self, text: impl Display) {
        self.line(Level::Info, &text);
    }

    /// What may be wrong.
    pub fn warning(&mut self, text: impl Display) {
        self.line(Level::Warning, &text);
    }

    /// What failed.
    pub fn error(&mut self, text: impl Display) {
        self.line(Level::Error, &text);
    }

    fn line(&mut self, level: Level, text: &dyn Display) {
        if level < self.least {
            return;
        }
        let now = Zoned::now();
        let (told, level) = (level >= self.told, level.name());
        let line = match self.style {
            Style::OsApplyConfig => {
                format!("[{}] [{level}] {text}\n", now.strftime("%Y/%m/%d %I:%M:%S %p"))
            }
            Style::Named(name) => {
                let time = now.strftime("%Y-%m-%d %H:%M:%S");
                format!("[{time},{:03}] ({name}) [{level}] {text}\n", now.millisecond())
            }
            Style::CfnTools => {
                let time = now.strftime("%Y-%m-%d %H:%M:%S");
                format!("{level} [{time},{:03}] {text}\n", now.millisecond())
            }
        };
        // Nobody can be told if the log cannot be written.
        if told {
            let _ = io::stderr().write_all(line.as_bytes());
        }
        if let Some(file) = &mut self.file {
            let _ = file.write_all(line.as_bytes());
        }
    }
}
