use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The `metadata-server` program: the one in `METADATA_SERVER_BIN`, or built here.
///
/// # Panics
/// If it cannot be built.
pub fn server_binary() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| find("METADATA_SERVER_BIN", "metadata-server"))
}

/// The `agent-client` program: the one in `AGENT_CLIENT_BIN`, or built here.
///
/// # Panics
/// If it cannot be built.
pub fn agent_binary() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| find("AGENT_CLIENT_BIN", "agent-client"))
}

/// The engine's `dtls-echo` program: the one in `DTLS_ECHO_BIN`, or built here.
///
/// # Panics
/// If it cannot be built.
pub fn echo_binary() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| find_part("DTLS_ECHO_BIN", "dtls-channel", Some("dtls-echo")))
}

fn find(variable: &str, package: &str) -> PathBuf {
    find_part(variable, package, None)
}

/// A package's program, or one of its examples.
fn find_part(variable: &str, package: &str, example: Option<&str>) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "{variable} is {}, which is no file", path.display());
        return path;
    }
    // Beside this program: TARGET/PROFILE/deps/this, or TARGET/PROFILE/this.
    let this = std::env::current_exe().expect("the path of this program");
    let mut profile_dir = this.parent().expect("a directory");
    if profile_dir.ends_with("deps") {
        profile_dir = profile_dir.parent().expect("a directory");
    }
    let target_dir = profile_dir.parent().expect("a target directory");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--package", package]).arg("--target-dir").arg(target_dir);
    if let Some(example) = example {
        build.args(["--example", example]);
    }
    if profile_dir.ends_with("release") {
        build.arg("--release");
    }
    // What cargo tells this test about its own package would make build scripts run again, now and
    // at the next `cargo test`.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            build.env_remove(&name);
        }
    }
    let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
    assert!(built.success(), "{package} does not build; nothing was tested");
    match example {
        Some(example) => profile_dir.join("examples").join(example),
        None => profile_dir.join(package),
    }
}
