//! A program under test, as a process: what it says, and its end.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::{HANG, Result};

/// The groups of all processes that run, for [`kill_all`].
static RUNNING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Kills whatever was started and still runs: for a program that is told to leave in the middle.
pub(crate) fn kill_all() {
    for group in lock(&RUNNING).iter() {
        let _ = killpg(Pid::from_raw(*group), Signal::SIGKILL);
    }
}

/// A process in a group of its own, with all that it starts; killed if it is dropped before it has ended.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    said: Arc<Said>,
}

/// What a process has said on stderr.
#[derive(Debug, Default)]
struct Said {
    /// The lines, and whether there will be no more.
    lines: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Process {
    /// Starts a command. Its stderr is kept, line by line.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        Self::start_with(command, Stdio::null())
    }

    /// The same, with this as its standard input.
    pub(crate) fn start_with(command: &mut Command, stdin: Stdio) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let name = name.rsplit('/').next().unwrap_or_default().to_owned();
        command.stdin(stdin).stderr(Stdio::piped()).process_group(0);
        // The lock is held so that no process can be missed by `kill_all`.
        let mut running = lock(&RUNNING);
        let mut child = command.spawn().map_err(|error| format!("cannot start {name}: {error}"))?;
        running.insert(child.id().try_into()?);
        drop(running);
        let said = Arc::<Said>::default();
        if let Some(stderr) = child.stderr.take() {
            let said = Arc::clone(&said);
            thread::spawn(move || said.keep(BufReader::new(stderr)));
        }
        Ok(Self { name, child, said })
    }

    /// Waits for a line that has this text. `None`: stderr ended without one.
    pub(crate) fn line_with(&self, text: &str) -> Result<Option<String>> {
        let is_open =
            |(lines, is_over): &mut (Vec<String>, bool)| !*is_over && !lines.iter().any(|line| line.contains(text));
        let waited = self.said.changed.wait_timeout_while(lock(&self.said.lines), HANG, is_open);
        let (lines, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Err(format!("{} has not said `{text}`, but: {:?}", self.name, lines.0).into());
        }
        Ok(lines.0.iter().find(|line| line.contains(text)).cloned())
    }

    /// Waits until nobody is left who could say more, itself or whoever it has started.
    pub(crate) fn silence(&self) -> Result<()> {
        self.line_with("\0").map(drop)
    }

    /// What it has said so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        lock(&self.said.lines).0.clone()
    }

    /// The child, for its stdout.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) -> Result<()> {
        Ok(killpg(self.group(), Signal::SIGTERM)?)
    }

    /// True once it has ended.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits for its end. That it does not end within `limit` is an error.
    pub(crate) fn end_within(&mut self, limit: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            match self.child.try_wait()? {
                Some(status) => return Ok(status),
                None if start.elapsed() > limit => {
                    return Err(format!("{} does not end; it said: {:?}", self.name, self.lines()).into());
                }
                None => thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    fn group(&self) -> Pid {
        // Invariant: the system's process ids fit, see `start`.
        Pid::from_raw(self.child.id().try_into().unwrap_or(i32::MAX))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let group = self.group();
        // The group goes even if its first process has ended, with whatever that has left behind.
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
        lock(&RUNNING).remove(&group.as_raw());
    }
}

impl Said {
    fn keep(&self, stderr: impl BufRead) {
        for line in stderr.split(b'\n').map_while(std::io::Result::ok) {
            lock(&self.lines).0.push(String::from_utf8_lossy(&line).into_owned());
            self.changed.notify_all();
        }
        lock(&self.lines).1 = true;
        self.changed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
