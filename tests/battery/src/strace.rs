//! System calls that fail, by `strace`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::ground::{Ground, is_there};

/// Why it cannot be, if so.
pub(crate) fn missing() -> Option<String> {
    if !is_there("strace") {
        return Some("strace is not installed".to_owned());
    }
    // Where tracing is forbidden, as in many a container.
    let runs = Command::new("strace").args(["-o", "/dev/null", "true"]).output().is_ok_and(|it| it.status.success());
    (!runs).then(|| "strace may not trace here".to_owned())
}

/// The server under strace, in which these calls fail: `error=EMFILE:when=1..6`, counted in each thread.
pub(crate) struct Injected {
    pub(crate) command: Command,
    log: PathBuf,
}

impl Injected {
    pub(crate) fn new(ground: &Ground, call: &str, how: &str) -> Result<Self> {
        let log = ground.file("strace");
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{how}"));
        // With a file of its own, strace passes no signal on and takes none: the server gets it itself.
        let path = log.to_str().ok_or("a path that is not UTF-8")?;
        let options = ["-f", "-q", "-o", path, "--seccomp-bpf", "-e", &trace, "-e", &inject, "-e", "signal=none"];
        Ok(Self { command: ground.demo_under("strace", &options), log })
    }

    /// What strace has noted, once it has ended or while it writes.
    pub(crate) fn log(&self) -> Log {
        Log::read(&self.log)
    }
}

/// How many calls there were, and how many of them were made to fail.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Log {
    pub(crate) calls: usize,
    pub(crate) injected: usize,
}

impl Log {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_default();
        // A call that another thread's interrupts has a second line, which says that it is resumed.
        let calls = text.lines().filter(|line| line.contains('(') && !line.contains(" resumed>")).count();
        Self { calls, injected: text.matches("(INJECTED)").count() }
    }
}
