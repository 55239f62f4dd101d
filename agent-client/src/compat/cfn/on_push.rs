//! `cfn-hup` after each push, in place of cron: the agent knows when there is something to see.
//!
//! A machine has hooks if it has a main configuration; there is no other setting. The pass is a process of
//! its own, so that a hook that hangs holds up nothing. Pushes that come meanwhile are one more pass.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use super::hup::CONFIG;

/// Makes passes when told to.
#[derive(Debug)]
pub struct OnPush {
    tell: mpsc::Sender<()>,
}

impl OnPush {
    /// For this machine, with this program.
    ///
    /// # Errors
    /// There can be no further thread, or this program cannot be found.
    pub fn of_machine() -> io::Result<Self> {
        Self::start(CONFIG.into(), std::env::current_exe()?)
    }

    fn start(config: PathBuf, program: PathBuf) -> io::Result<Self> {
        let (tell, told) = mpsc::channel();
        let serve = move || serve(&told, &config, &program);
        thread::Builder::new().name("cfn-hup".into()).spawn(serve)?;
        Ok(Self { tell })
    }

    /// A document has been applied.
    pub fn applied(&self) {
        // The thread lives as long as this does.
        let _ = self.tell.send(());
    }
}

fn serve(told: &mpsc::Receiver<()>, config: &Path, program: &Path) {
    while told.recv().is_ok() {
        while told.try_recv().is_ok() {}
        if config.exists() {
            pass(program);
        }
    }
}

fn pass(program: &Path) {
    let ended =
        Command::new(program).arg("cfn-hup").stdin(Stdio::null()).stdout(Stdio::null()).status();
    match ended {
        Ok(status) if status.success() => tracing::debug!("cfn-hup has made its pass"),
        Ok(status) => tracing::warn!(%status, "cfn-hup has failed; see /var/log/cfn-hup.log"),
        Err(error) => tracing::warn!(%error, "cfn-hup could not be started"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::machine::testing::{recorder, root, taken};

    #[test]
    fn pushes_during_a_pass_are_one_more() {
        let (root, tools) = root();
        let (config, calls) = (root.path().join("cfn-hup.conf"), root.path().join("calls"));
        let gate = root.path().join("gate");
        // Each pass waits until it is let go on.
        let wait = format!("while [ ! -e {} ]; do sleep 0.01; done", gate.display());
        recorder(&tools, "agent-client", &calls, &wait);
        let passes = || fs::read_to_string(&calls).unwrap_or_default().lines().count();
        let until = |count: usize| {
            let end = Instant::now() + Duration::from_secs(15);
            while passes() < count {
                assert!(Instant::now() < end, "{} of {count} passes", passes());
                thread::sleep(Duration::from_millis(2));
            }
        };
        fs::write(&config, "").unwrap();
        let on_push = OnPush::start(config, tools.join("agent-client")).unwrap();
        on_push.applied();
        until(1);
        for _ in 0..5 {
            on_push.applied();
        }
        fs::write(&gate, "").unwrap();
        until(2);
        on_push.applied();
        until(3);
        assert_eq!(fs::read_to_string(&calls).unwrap(), "agent-client cfn-hup\n".repeat(3));
    }

    #[test]
    fn without_a_configuration_there_is_no_pass() {
        let (root, tools) = root();
        let (config, calls) = (root.path().join("cfn-hup.conf"), root.path().join("calls"));
        recorder(&tools, "agent-client", &calls, "");
        for expected in [0, 1] {
            let (tell, told) = mpsc::channel();
            OnPush { tell }.applied();
            serve(&told, &config, &tools.join("agent-client"));
            assert_eq!(taken(&calls).len(), expected);
            fs::write(&config, "").unwrap();
        }
    }
}
