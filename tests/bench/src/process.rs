//! A server under measurement, as a process.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clients::Client;
use crate::proc::{self, Memory};
use crate::{HANG, Result};

/// Options for a port that the system chooses.
pub const LISTEN: [&str; 2] = ["--listen", "127.0.0.1:0"];

/// A running server; killed with all its children if it is dropped before it has ended.
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
        command.args(LISTEN).args(options);
        Self::start_by(command)
    }

    /// The same by a command of its own, which has [`LISTEN`] in it: under `valgrind`, for example.
    pub fn start_by(mut command: Command) -> Result<Self> {
        let name = format!("{:?}", command.get_program());
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("cannot start {name}: {error}"))?;
        let mut lines = child.stderr.take().map(|stderr| BufReader::new(stderr).lines()).into_iter().flatten();
        let place = lines.find_map(|line| line.ok()?.strip_prefix("listening on http://").map(str::to_owned));
        let Some(address) = place.and_then(|place| place.parse().ok()) else {
            let _ = child.kill();
            return Err(format!("{name} does not listen: {}", child.wait()?).into());
        };
        // A pipe that is full would hold it up.
        thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, address })
    }

    /// Starts any server, which was told to listen on this address, and waits until it has answered a request. Returns
    /// how long that took, too.
    pub fn start_at(mut command: Command, address: SocketAddr, request: &str) -> Result<(Self, Duration)> {
        let name = format!("{:?}", command.get_program());
        let started = Instant::now();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| format!("cannot start {name}: {error}"))?;
        let mut process = Self { child, address };
        while TcpStream::connect(address).is_err() {
            if let Some(status) = process.child.try_wait()? {
                return Err(format!("{name} does not listen: {status}").into());
            }
            if started.elapsed() > HANG {
                return Err(format!("{name} does not listen").into());
            }
            thread::sleep(Duration::from_micros(100));
        }
        let mut client = Client::connect(address)?;
        client.send(request)?;
        let answer = client.answer()?;
        let took = started.elapsed();
        if answer.status == 200 { Ok((process, took)) } else { Err(format!("{name} says {}", answer.status).into()) }
    }

    /// User and system time that it has used.
    pub fn cpu(&self) -> Result<Duration> {
        proc::cpu(self.child.id())
    }

    pub fn memory(&self) -> Result<Memory> {
        proc::memory(self.child.id())
    }

    pub fn threads(&self) -> usize {
        proc::threads(self.child.id())
    }

    pub fn switches(&self) -> u64 {
        proc::switches(self.child.id())
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
        // Nothing is done if it has ended: its number may be somebody else's by now.
        if let Ok(None) = self.child.try_wait() {
            for pid in proc::tree(self.child.id()) {
                let _ = pid.try_into().map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
            }
            let _ = self.child.wait();
        }
    }
}

/// An address on this machine whose port is free now.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}
