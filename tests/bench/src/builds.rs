//! The binaries that are measured, built into this crate's own target directory.

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
pub const BUILDS: [Build; 2] = [HANDOFF, Build { poller: "sweep", features: NO_EPOLL, flags: "" }];

const NO_EPOLL: &[&str] = &["--no-default-features", "--features", "signals"];

/// A profile of `Cargo.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Release,
    Small,
}

impl Profile {
    pub fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Small => "small",
        }
    }
}

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
        let target = target().join(self.poller);
        let mut cargo = cargo(&here().join("../../Cargo.toml"), Profile::Release, &target);
        cargo.args(what).args(self.features).env("RUSTFLAGS", self.flags);
        if !cargo.status()?.success() {
            return Err(format!("cannot build allout for `{}`", self.poller).into());
        }
        Ok(target.join("release"))
    }
}

/// Builds the command stripped, with these options of cargo, and says where it lies. `None`: its target is not
/// installed.
pub fn stripped(profile: Profile, options: &[&str]) -> Result<Option<PathBuf>> {
    let folder = target().join("stripped");
    let mut cargo = cargo(&here().join("../../Cargo.toml"), profile, &folder);
    cargo.args(["--bin", "allout"]).args(options);
    cargo.arg("--config").arg(format!("profile.{}.strip=true", profile.name()));
    let target = options.iter().skip_while(|option| **option != "--target").nth(1);
    if target.is_some_and(|target| !has_std(target)) {
        return Ok(None);
    }
    if !cargo.status()?.success() {
        return Err(format!("cannot build allout in the profile `{}`", profile.name()).into());
    }
    let folder = target.map_or(folder.clone(), |target| folder.join(target)).join(profile.name());
    Ok(Some(folder.join(format!("allout{}", std::env::consts::EXE_SUFFIX))))
}

/// True if the compiler has std for this target.
fn has_std(target: &str) -> bool {
    let asked = Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output();
    asked.is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}

/// Builds all peers in a profile, and says in which folder they lie.
pub fn peers(profile: Profile) -> Result<PathBuf> {
    let mut cargo = cargo(&here().join("Cargo.toml"), profile, &target());
    if !cargo.args(["--package", "allout-bench-peers", "--bins"]).status()?.success() {
        return Err("cannot build the peers".into());
    }
    Ok(target().join(profile.name()))
}

/// Builds the one of the peers that is `allout`, without the system calls that std lacks, and says where it lies.
pub fn sweep_peer() -> Result<PathBuf> {
    let target = target().join("sweep");
    let mut cargo = cargo(&here().join("Cargo.toml"), Profile::Release, &target);
    cargo.args(["--package", "allout-bench-peers", "--bin", "allout", "--no-default-features"]);
    if !cargo.status()?.success() {
        return Err("cannot build allout's peer for `sweep`".into());
    }
    Ok(target.join("release/allout"))
}

/// This crate's own target directory.
pub fn target() -> PathBuf {
    here().join("target")
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn cargo(manifest: &Path, profile: Profile, target: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--locked", "--quiet", "--profile", profile.name()]);
    cargo.arg("--manifest-path").arg(manifest).arg("--target-dir").arg(target);
    cargo
}
