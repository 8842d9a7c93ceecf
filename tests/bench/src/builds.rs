//! The binaries that are measured, built in release mode into this crate's own target directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;

/// A way to build `allout`.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    /// Its poller, which is also the name of its target directory.
    pub poller: &'static str,
    features: &'static [&'static str],
    /// Given to the compiler.
    flags: &'static str,
}

/// The command as it is, and with its event loops held on to while handlers run.
pub const HANDOFF: Build = Build { poller: "epoll", features: &[], flags: "" };
pub const NO_HANDOFF: Build = Build { poller: "no-handoff", features: &[], flags: "--cfg allout_no_handoff" };

/// Both pollers: the default on Linux, and the one in safe std.
pub const BUILDS: [Build; 2] =
    [HANDOFF, Build { poller: "sweep", features: &["--no-default-features", "--features", "signals"], flags: "" }];

impl Build {
    /// Builds the command, and says where it lies.
    pub fn command(self) -> Result<PathBuf> {
        Ok(self.build(&["--bin", "allout"])?.join(format!("allout{}", std::env::consts::EXE_SUFFIX)))
    }

    /// Builds the example, which has handlers that block.
    pub fn demo(self) -> Result<PathBuf> {
        let folder = self.build(&["--example", "demo"])?.join("examples");
        Ok(folder.join(format!("demo{}", std::env::consts::EXE_SUFFIX)))
    }

    fn build(self, what: &[&str]) -> Result<PathBuf> {
        let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = bench.join("target").join(self.poller);
        let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--release", "--locked", "--quiet"])
            .args(what)
            .args(self.features)
            .arg("--manifest-path")
            .arg(bench.join("../../Cargo.toml"))
            .arg("--target-dir")
            .arg(&target)
            .env("RUSTFLAGS", self.flags)
            .status()?;
        if !built.success() {
            return Err(format!("cannot build allout for `{}`", self.poller).into());
        }
        Ok(target.join("release"))
    }
}
