//! CPU time of other processes.

use std::time::Duration;

use anyhow::Context as _;

/// User and system time that all threads of a process have used so far, to a tick of the kernel (10 ms).
pub(crate) fn of(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid}"))?;
    let ticks = ticks(&stat).with_context(|| format!("process {pid}: {stat}"))?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// Fields 14 and 15; the second, the program's name, may hold spaces and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_found_behind_any_name() {
        let stat = "71 (a) b (c)) S 1 71 71 0 -1 4194560 1 2 3 4 150 25 8 9 20 0 1 0 5";
        assert_eq!(ticks(stat), Some(175));
        assert_eq!(ticks("71 (a) S"), None);
        assert!(of(std::process::id()).is_ok());
    }
}
