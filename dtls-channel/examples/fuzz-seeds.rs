//! Writes the inputs that a fuzzer begins with: `fuzz-seeds FOLDER` makes a folder for each target.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: fuzz-seeds FOLDER");
        std::process::exit(64);
    };
    for (target, seeds) in dtls_channel::testing::fuzz::seeds::all() {
        let folder = Path::new(&folder).join(target);
        std::fs::create_dir_all(&folder)?;
        for (name, input) in seeds {
            std::fs::write(folder.join(name), input)?;
        }
    }
    Ok(())
}
