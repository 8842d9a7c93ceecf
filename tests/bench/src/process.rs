//! A server under measurement, as a process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Result;

/// A running server; killed if it is dropped before it has ended.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Process {
    /// Starts `allout` on a port that the system chooses, and waits until it says which.
    pub fn start(program: &Path) -> Result<Self> {
        Self::start_with(program, &[])
    }

    /// The same with more options.
    pub fn start_with(program: &Path, options: &[&str]) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["--listen", "127.0.0.1:0"]).args(options).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let mut lines = child.stderr.take().map(|stderr| BufReader::new(stderr).lines()).into_iter().flatten();
        let place = lines.find_map(|line| line.ok()?.strip_prefix("listening on http://").map(str::to_owned));
        let Some(address) = place.and_then(|place| place.parse().ok()) else {
            let _ = child.kill();
            return Err(format!("{} does not listen: {}", program.display(), child.wait()?).into());
        };
        // A pipe that is full would hold it up.
        thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, address })
    }

    /// User and system time that it has used, in hundredths of a second, which is what Linux counts in.
    pub fn cpu_ticks(&self) -> Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name, in parentheses, may hold anything.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let tick = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        Ok(tick(11) + tick(12))
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().try_into()?), Signal::SIGTERM)?)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both do nothing if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
