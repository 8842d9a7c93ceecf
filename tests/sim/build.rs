//! Takes the crate's files in by their paths, unchanged, and puts stand-ins in the place of those that hold sockets.
//!
//! `ALLOUT_SIM_SRC` names another tree than `../../src`: a copy with a fault in it, to see whether it is found.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What the simulation has its own of.
const STAND_INS: [&str; 8] = ["bind", "inherited", "listener", "poller", "sock_diag", "socket_file", "stream", "tests"];
/// What of `lib.rs` it leaves out: its own seam, and what is not part of a running server.
const LEFT_OUT: [&str; 3] = ["answer", "cookbook", "sync"];

fn main() {
    println!("cargo::rerun-if-env-changed=ALLOUT_SIM_SRC");
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let src = std::env::var_os("ALLOUT_SIM_SRC").map_or_else(|| here.join("../../src"), PathBuf::from);
    let src = src.canonicalize().expect("the crate's src");
    let server = src.join("server/mod.rs");
    println!("cargo::rerun-if-changed={}", server.display());
    let mut text = String::new();
    let root = src.join("lib.rs");
    println!("cargo::rerun-if-changed={}", root.display());
    let root = std::fs::read_to_string(root).expect("src/lib.rs");
    let modules =
        root.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'));
    for module in modules.filter(|module| *module != "server" && !LEFT_OUT.contains(module)) {
        let _ = writeln!(text, "#[path = {:?}]\nmod {module};", path_of(&src, module));
    }
    text.push_str("mod server {\n");
    let lines = std::fs::read_to_string(&server).expect("src/server/mod.rs");
    for line in lines.lines().filter(|line| !line.starts_with("//!")) {
        let module = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'));
        match module {
            Some(module) if STAND_INS.contains(&module) => {
                let _ = writeln!(text, "#[path = {:?}]", path_of(&here.join("src/server"), module));
            }
            Some(module) => {
                let _ = writeln!(text, "#[path = {:?}]", path_of(&src.join("server"), module));
            }
            None => {}
        }
        text.push_str(line);
        text.push('\n');
    }
    let sweep = src.join("server/poller/sweep.rs");
    let event = src.join("server/poller/event.rs");
    let _ = writeln!(text, "#[path = {sweep:?}]\nmod sweep;\n#[path = {event:?}]\nmod event;\n}}");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    std::fs::write(out.join("taken.rs"), text).expect("OUT_DIR can be written to");
}

fn path_of(folder: &Path, module: &str) -> PathBuf {
    let file = folder.join(format!("{module}.rs"));
    if file.exists() { file } else { folder.join(module).join("mod.rs") }
}
