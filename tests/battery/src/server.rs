//! A server under trial: what it holds, and its end.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use allout_bench::proc;
use allout_soak::client::{Client, Place};

use crate::process::Process;
use crate::{HANG, Result};

const LISTENING: &str = "listening on http://";

pub(crate) struct Server {
    process: Process,
    /// Its own, if it was started by another program.
    pub(crate) pid: u32,
    pub(crate) address: SocketAddr,
}

/// How a server ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) code: Option<i32>,
    pub(crate) lines: Vec<String>,
}

impl Server {
    /// Starts it on a port that the system chooses.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        match Self::try_start(command)? {
            Ok(server) => Ok(server),
            Err(end) => Err(format!("the server does not listen: {end:?}").into()),
        }
    }

    /// The same; that it ends without listening is no error.
    pub(crate) fn try_start(command: &mut Command) -> Result<Result<Self, End>> {
        let mut process = Process::start(command.args(["--listen", "127.0.0.1:0"]))?;
        let Some(line) = process.line_with(LISTENING)? else {
            let code = process.end_within(HANG)?.code();
            return Ok(Err(End { code, lines: process.lines() }));
        };
        let address = line.trim_start_matches(LISTENING).parse()?;
        let pid = proc::tree(process.child().id()).last().copied().unwrap_or_default();
        Ok(Ok(Self { process, pid, address }))
    }

    pub(crate) fn client(&self) -> Result<Client> {
        Ok(Client::connect(&Place::Tcp(self.address))?)
    }

    /// Memory that is resident, in kB.
    pub(crate) fn resident_kb(&self) -> Result<u64> {
        Ok(proc::memory(self.pid)?.resident / 1024)
    }

    /// User and system time.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        proc::cpu(self.pid)
    }

    pub(crate) fn descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.pid))?.count())
    }

    /// Waits until it has no more descriptors than these: it notices in its own time that clients have gone.
    pub(crate) fn expect_descriptors(&self, base: usize) -> Result<()> {
        let began = Instant::now();
        loop {
            let now = self.descriptors()?;
            if now <= base {
                return Ok(());
            }
            if began.elapsed() > HANG {
                return Err(format!("{now} descriptors are left, of {base} at its start").into());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Tells it to leave, if it has not left by itself, and waits until it has.
    pub(crate) fn stop(mut self) -> Result<End> {
        // An end in between is the only reason why it cannot be told.
        if !self.process.has_ended()? && self.process.terminate().is_err() && !self.process.has_ended()? {
            return Err("it cannot be told to leave".into());
        }
        self.end()
    }

    /// Waits until it has left by itself.
    pub(crate) fn end(mut self) -> Result<End> {
        let code = self.process.end_within(HANG)?.code();
        self.process.silence()?;
        Ok(End { code, lines: self.process.lines() })
    }

    /// Tells it to leave, and says what is wrong with its end. Returns all that it has said.
    pub(crate) fn expect_clean_stop(self, faults: &mut Vec<String>) -> Result<Vec<String>> {
        let end = self.stop()?;
        if !end.is_clean() {
            faults.push(format!("it ended with {:?}: {:?}", end.code, end.lines));
        }
        Ok(end.lines)
    }
}

impl End {
    /// By the signal, with nothing owed to anybody.
    pub(crate) fn is_clean(&self) -> bool {
        let last = self.last();
        self.code == Some(0) && last.starts_with("all out: signal;") && last.contains(" 0 cut off;")
    }

    /// Its last line.
    pub(crate) fn last(&self) -> &str {
        self.lines.last().map_or("", String::as_str)
    }

    pub(crate) fn has_said(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.contains(text))
    }
}
