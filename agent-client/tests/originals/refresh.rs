//! `os-refresh-config` and `dib-run-parts`.

use std::process::Command;

use crate::{Place, both};

const TRACE: &str = "#!/bin/sh\necho \"$(basename \"$0\") $# $VALUE\" >> \"$PLACE/trace\"\n";

fn script(more: &str) -> String {
    format!("{TRACE}{more}")
}

fn with_place(place: &Place, mut command: Command) -> Command {
    command.env("PLACE", place.path("."));
    command
}

#[test]
fn parts_run_in_the_same_order_and_stop_at_the_same_failure() {
    let names = [
        "10-x",
        "9-x",
        "b",
        "a",
        "010-y",
        "has.dot",
        "README.md",
        "with space",
        "1_2",
        "Z",
        "00",
        "-1",
        "999999999999999999999999-n",
    ];
    let failures: [Option<(&str, &str)>; 5] = [
        None,
        Some(("9-x", "exit 7\n")),
        Some(("a", "kill -9 $$\n")),
        Some(("Z", "exit 0\n")),
        Some(("00", "exit 255\n")),
    ];
    for failure in failures {
        for list in [false, true] {
            let prepare = |place: &Place| {
                for name in names {
                    let more = failure.filter(|(failing, _)| *failing == name).map_or("", |f| f.1);
                    place.write(&format!("parts.d/{name}"), script(more), 0o755);
                }
                place.write("parts.d/5-not-executable", script(""), 0o644);
                place.write("parts.d/6-dir/7-inside", script(""), 0o755);
                std::os::unix::fs::symlink("a", place.path("parts.d/2-link")).unwrap();
                std::os::unix::fs::symlink("none", place.path("parts.d/3-broken")).unwrap();
                place.write("trace", "", 0o644);
            };
            let run = |place: &Place| {
                let mut command = place.command("dib-run-parts");
                if list {
                    command.arg("--list");
                }
                command.arg("parts.d");
                with_place(place, command)
            };
            let _ = both(&format!("{failure:?} list {list}"), prepare, run, ".");
        }
    }
}

#[test]
fn environment_files_reach_the_parts_alike() {
    let files: [&[(&str, &str)]; 5] = [
        &[("10-a", "export VALUE=a\n")],
        &[("10-a", "VALUE=unexported\n")],
        &[("10-a", "export VALUE=a\n"), ("9.b", "export VALUE=${VALUE:-}b\ncd /\n")],
        &[("10-a", "false\nexport VALUE=never\n")],
        &[("10-a", "echo $UNSET_VARIABLE\n")],
    ];
    for files in files {
        let prepare = |place: &Place| {
            for (name, text) in files {
                place.write(&format!("environment.d/{name}"), text, 0o644);
            }
            place.write("parts.d/10-x", script("pwd | grep -c '^/$' >> \"$PLACE/trace\"\n"), 0o755);
        };
        let run = |place: &Place| {
            let mut command = place.command("dib-run-parts");
            command.arg(place.path("parts.d"));
            with_place(place, command)
        };
        let _ = both(&format!("{files:?}"), prepare, run, ".");
    }
}

#[test]
fn parts_see_the_same_name_and_environment_files_change_no_list() {
    let files = ["", "cd /\n", "export RUN_PARTS_REGEX=none\n", "file=x directory=y program=z\n"];
    for file in files {
        for directory in ["parts.d", "parts.d/", "./parts.d"] {
            let prepare = |place: &Place| {
                let name = "#!/bin/sh\necho \"$0\" >> \"$PLACE/trace\"\n";
                place.write("environment.d/10-a", file, 0o644);
                place.write("parts.d/10-x", name, 0o755);
                place.write(
                    "parts.d/20-no-interpreter",
                    "echo \"$0\" >> \"$PLACE/trace\"\n",
                    0o755,
                );
            };
            let run = |place: &Place| {
                let mut command = place.command("dib-run-parts");
                command.arg(directory);
                with_place(place, command)
            };
            let _ = both(&format!("{directory} {file:?}"), prepare, run, ".");
        }
    }
}

#[test]
fn wrong_usage_of_parts_ends_alike() {
    for arguments in [&[][..], &["none.d"], &["--list"], &["--list", "none.d"], &["empty.d"]] {
        let prepare = |place: &Place| std::fs::create_dir(place.path("empty.d")).unwrap();
        let run = |place: &Place| {
            let mut command = place.command("dib-run-parts");
            command.args(arguments);
            command
        };
        let _ = both(&format!("{arguments:?}"), prepare, run, ".");
    }
    for pattern in ["^x", "x$", "[0-9]", ""] {
        let prepare = |place: &Place| {
            for name in ["x", "ax", "x.y", "7"] {
                place.write(&format!("parts.d/{name}"), script(""), 0o755);
            }
        };
        let run = |place: &Place| {
            let mut command = place.command("dib-run-parts");
            command.arg("parts.d").env("RUN_PARTS_REGEX", pattern);
            with_place(place, command)
        };
        let _ = both(&format!("{pattern:?}"), prepare, run, ".");
    }
}

fn refresh(place: &Place, arguments: &[&str]) -> Command {
    // The original calls it by its name.
    drop(place.command("dib-run-parts"));
    let mut command = place.command("os-refresh-config");
    command.args(["--lockfile", "lock"]).args(arguments);
    command.env("OS_REFRESH_CONFIG_BASE_DIR", "base");
    with_place(place, command)
}

#[test]
fn phases_run_alike_and_a_failure_calls_the_error_handlers() {
    for failing in ["", "pre-configure", "configure", "post-configure", "migration"] {
        for handler in ["", "exit 1\n"] {
            let prepare = |place: &Place| {
                for phase in ["pre-configure", "configure", "post-configure", "migration"] {
                    let more = if phase == failing { "exit 3\n" } else { "" };
                    place.write(&format!("base/{phase}.d/10-{phase}"), script(more), 0o755);
                    place.write(&format!("base/{phase}.d/20-after"), script("echo out\n"), 0o755);
                }
                place.write("base/error.d/10-error", script(handler), 0o755);
            };
            let run = |place: &Place| refresh(place, &[]);
            let _ = both(&format!("failing {failing:?}"), prepare, run, ".");
        }
    }
}

#[test]
fn options_of_refresh_are_answered_alike() {
    let nothing = |_: &Place| {};
    for arguments in [
        &[][..],
        &["--print-base"],
        &["--print-phases"],
        &["--log-level", "DEBUG"],
        &["--log-level", "LOUD"],
        &["--timeout", "x"],
        &["--no-such"],
        &["--print-p"],
    ] {
        let run = |place: &Place| refresh(place, arguments);
        let output = both(&format!("{arguments:?}"), nothing, run, ".");
        if arguments.is_empty() {
            assert!(output.stderr.is_empty(), "nothing is said where there are no phases");
        }
    }
}

#[test]
fn a_second_run_ends_alike_while_the_first_holds_the_lock() {
    let prepare = |place: &Place| place.write("base/configure.d/10-x", script(""), 0o755);
    let run = |place: &Place| {
        drop(refresh(place, &[]));
        let inner = place.path("bin/os-refresh-config");
        let mut command = Command::new("flock");
        command.args(["--exclusive", "lock"]).arg(inner).args(["--lockfile", "lock"]);
        command.current_dir(place.path(".")).env("OS_REFRESH_CONFIG_BASE_DIR", "base");
        with_place(place, command)
    };
    let output = both("a held lock", prepare, run, ".");
    assert_eq!(output.status.code(), Some(11));
}

#[test]
fn a_timeout_ends_what_runs_alike() {
    let prepare = |place: &Place| {
        place.write("base/configure.d/10-x", script("sleep 60\n"), 0o755);
        place.write("base/configure.d/20-never", script(""), 0o755);
        place.write("base/error.d/10-error", script(""), 0o755);
    };
    let run = |place: &Place| refresh(place, &["--timeout", "1"]);
    let output = both("a timeout of a second", prepare, run, ".");
    assert_eq!(output.status.code(), Some(1));
}
