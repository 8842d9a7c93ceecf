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
}

/// Both pollers: the default on Linux, and the one in safe std.
pub const BUILDS: [Build; 2] = [
    Build { poller: "epoll", features: &[] },
    Build { poller: "sweep", features: &["--no-default-features", "--features", "signals"] },
];

impl Build {
    /// Builds the command, and says where it lies.
    pub fn command(self) -> Result<PathBuf> {
        let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = bench.join("target").join(self.poller);
        let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--release", "--locked", "--quiet", "--bin", "allout"])
            .args(self.features)
            .arg("--manifest-path")
            .arg(bench.join("../../Cargo.toml"))
            .arg("--target-dir")
            .arg(&target)
            .status()?;
        if !built.success() {
            return Err(format!("cannot build allout for `{}`", self.poller).into());
        }
        Ok(target.join("release").join(format!("allout{}", std::env::consts::EXE_SUFFIX)))
    }
}
