//! What all trials stand on: the programs, a folder for files, and descriptors enough.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;

use crate::options::Options;
use crate::{Result, process};

pub(crate) struct Ground {
    pub(crate) is_long: bool,
    /// How long the long form of `mixed` lasts.
    pub(crate) mixed: Duration,
    demo: PathBuf,
    timed: PathBuf,
    folder: TempDir,
}

impl Ground {
    /// Whoever tells the program to leave finds neither files nor processes left behind.
    pub(crate) fn prepare(options: &Options) -> Result<Self> {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = here.join("target/programs");
        let build = |manifest: PathBuf, what: [&str; 2], program: &str| -> Result<PathBuf> {
            let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            command.args(["build", "--release", "--locked", "--quiet"]).args(what);
            command.arg("--manifest-path").arg(manifest).arg("--target-dir").arg(&target);
            match command.status()?.success() {
                true => Ok(target.join("release").join(program)),
                false => Err(format!("cannot build {program}").into()),
            }
        };
        let demo = || build(here.join("../../Cargo.toml"), ["--example", "demo"], "examples/demo");
        let timed = || build(here.join("Cargo.toml"), ["--bin", "timed"], "timed");
        let folder = tempfile::Builder::new().prefix("allout-battery-").tempdir()?;
        let path = folder.path().to_owned();
        ctrlc::set_handler(move || {
            process::kill_all();
            let _ = std::fs::remove_dir_all(&path);
            std::process::exit(130);
        })?;
        Ok(Self {
            is_long: options.is_long,
            mixed: Duration::from_secs(60 * options.minutes),
            demo: options.server.clone().map_or_else(demo, Ok)?,
            timed: options.timed.clone().map_or_else(timed, Ok)?,
            folder,
        })
    }

    /// The short form's number, or the long one's.
    pub(crate) fn form<T>(&self, short: T, long: T) -> T {
        if self.is_long { long } else { short }
    }

    /// The release example `demo`.
    pub(crate) fn demo(&self) -> Command {
        Command::new(&self.demo)
    }

    /// The same, started by another program, whose last argument it is.
    pub(crate) fn demo_under(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).arg(&self.demo);
        command
    }

    /// `timed`, with these timeouts.
    pub(crate) fn timed(&self, timeouts: &str) -> Command {
        let mut command = Command::new(&self.timed);
        command.env("BATTERY_TIMEOUTS", timeouts);
        command
    }

    /// Memory is to be what the server holds. glibc's allocator keeps blocks of the size that it has seen freed, up to
    /// 32 MB each, unless it is told from which size on it gives them back; this is what it begins with.
    pub(crate) fn giving_back(mut command: Command) -> Command {
        command.env("MALLOC_MMAP_THRESHOLD_", "131072");
        command
    }

    /// Where a trial may have a file.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// True if this program is installed.
pub(crate) fn is_there(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).chain(["/usr/sbin".into()]).any(|folder| folder.join(program).is_file())
}
