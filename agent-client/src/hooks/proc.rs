//! What `/proc` says about processes, and the end of hooks that outlived the agent that started them.
//!
//! A hook is found again by its recorded process id and start time. Between its start and the writing of
//! that record the agent may be killed; therefore every hook also carries [`RUN_VARIABLE`], by which it
//! is found without a record.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::journal::ProcessMark;

/// Environment variable of every hook: a name for one run of one config, unique on this machine.
pub const RUN_VARIABLE: &str = "AGENT_CLIENT_RUN";
/// How long killed processes may take to be gone.
const GONE_MS_MAX: u64 = 2_000;
const GONE_POLL_MS: u64 = 5;

/// The kernel's id of this boot; empty where it has none.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// The start time of a live process in clock ticks since boot: field 22 of its `stat`.
pub fn start_ticks(pid: u32) -> Option<u64> {
    Stat::of(pid).map(|stat| stat.start_ticks)
}

#[derive(Debug, Clone, Copy)]
struct Stat {
    parent: u32,
    group: u32,
    start_ticks: u64,
    is_dead: bool,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// `pid (name) state ppid pgrp … starttime …`; the name may hold anything, parentheses too.
    fn parse(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            start_ticks: fields.get(19)?.parse().ok()?,
            is_dead: matches!(*fields.first()?, "Z" | "X"),
        })
    }
}

/// Kills what is left of a run: the process group of the recorded process, or without a record the one
/// whose leader carries the run's name. Returns whether there was anything to kill.
///
/// Only call it during the boot in which the run was started.
pub fn kill_leftover(recorded: Option<ProcessMark>, run_name: &str) -> bool {
    let groups: Vec<u32> = match recorded {
        Some(mark) if start_ticks(mark.pid) == Some(mark.start_ticks) => vec![mark.pid],
        // The leader is gone; its number can only have gone to somebody else, unless members of its
        // group are left: they carry the name.
        Some(mark) => members(run_name).filter(|&(_, g)| g == mark.pid).map(|(_, g)| g).collect(),
        None => members(run_name).filter(|&(pid, g)| pid == g).map(|(_, g)| g).collect(),
    };
    for &group in &groups {
        kill_group(group);
    }
    !groups.is_empty()
}

/// Live processes whose environment holds the run's name, and their process groups.
fn members(run_name: &str) -> impl Iterator<Item = (u32, u32)> {
    let variable = format!("{RUN_VARIABLE}={run_name}").into_bytes();
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(move |pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let named = environment.split(|&b| b == 0).any(|v| v == variable);
        let stat = Stat::of(pid).filter(|stat| named && !stat.is_dead)?;
        Some((pid, stat.group))
    })
}

fn kill_group(group: u32) {
    let Some(pid) = i32::try_from(group).ok().and_then(Pid::from_raw) else { return };
    if kill_process_group(pid, Signal::KILL).is_err() {
        return;
    }
    // Death is not immediate, and the next run must not meet this one.
    for _ in 0..GONE_MS_MAX / GONE_POLL_MS {
        if !has_live_member(group) {
            return;
        }
        std::thread::sleep(Duration::from_millis(GONE_POLL_MS));
    }
    tracing::warn!(group, "a killed hook is still there (waiting for a device?)");
}

fn has_live_member(group: u32) -> bool {
    processes().any(|(_, stat)| stat.group == group && !stat.is_dead)
}

fn processes() -> impl Iterator<Item = (u32, Stat)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, Stat::of(pid)?))
    })
}

/// Kills a process and everything that it started, as far as the parents still live. All are stopped
/// first, from the top, so that none can start another one or lose its parent meanwhile.
pub fn kill_tree(root: Pid) {
    let mut tree = vec![root];
    let _ = kill_process(root, Signal::STOP);
    loop {
        let known = tree.len();
        for (pid, stat) in processes() {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let parent = i32::try_from(stat.parent).ok().and_then(Pid::from_raw);
            if let (Some(pid), Some(parent)) = (pid, parent)
                && tree.contains(&parent)
                && !tree.contains(&pid)
            {
                let _ = kill_process(pid, Signal::STOP);
                tree.push(pid);
            }
        }
        if tree.len() == known {
            break;
        }
    }
    for pid in tree {
        let _ = kill_process(pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn sleeper(run_name: &str) -> Child {
        Command::new("/bin/sleep")
            .arg("60")
            .env(RUN_VARIABLE, run_name)
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap()
    }

    #[test]
    fn the_process_name_cannot_confuse_the_parser() {
        let rest = "S 1 77 77 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        for name in ["sh", "a b", ") S 1 2 3 (", "(x)"] {
            let stat = Stat::parse(&format!("123 ({name}) {rest}")).unwrap();
            assert_eq!((stat.group, stat.start_ticks, stat.is_dead), (77, 4242, false), "{name}");
        }
        assert!(Stat::parse("123 (sh) Z").is_none());
    }

    #[test]
    fn a_tree_is_killed_with_those_that_left_its_process_group() {
        let script = "setsid sleep 60 & sleep 60 & echo; wait";
        let mut shell = Command::new("/bin/sh");
        let mut shell = shell.args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        // Once it has written its line both children run; they hold the pipe open until they die.
        let mut out = shell.stdout.take().unwrap();
        std::io::Read::read_exact(&mut out, &mut [0]).unwrap();
        kill_tree(Pid::from_child(&shell));
        assert!(!shell.wait().unwrap().success());
        assert_eq!(std::io::Read::read_to_end(&mut out, &mut Vec::new()).unwrap(), 0);
    }

    #[test]
    fn a_recorded_leftover_is_killed() {
        let mut child = sleeper("recorded-leftover");
        let mark = ProcessMark { pid: child.id(), start_ticks: start_ticks(child.id()).unwrap() };
        assert!(kill_leftover(Some(mark), "recorded-leftover"));
        assert!(!child.wait().unwrap().success());
        assert!(!kill_leftover(Some(mark), "recorded-leftover"), "nothing is left");
    }

    #[test]
    fn an_unrecorded_leftover_is_found_by_its_run_name() {
        let mut child = sleeper("unrecorded-leftover");
        // The environment is in place once the program runs, which spawning waits for.
        assert!(kill_leftover(None, "unrecorded-leftover"));
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_later_process_with_the_recorded_number_is_left_alone() {
        let mut child = sleeper("somebody-else");
        let mark = ProcessMark { pid: child.id(), start_ticks: 1 };
        assert!(!kill_leftover(Some(mark), "my-run"));
        assert!(child.try_wait().unwrap().is_none(), "it still runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
