//! The example `demo` of the crate, built for release: the server behind the proxies.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::Process;
use crate::{HANG, Result};

/// Builds it, and the example `restart`, into this crate's own target directory, and says where it lies.
pub(crate) fn build() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = here.join("target").join("demo");
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--release",
            "--locked",
            "--quiet",
            "--example",
            "demo",
            "--example",
            "restart",
            "--manifest-path",
        ])
        .arg(here.join("../../Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .status()?;
    if !built.success() {
        return Err(format!("cannot build the examples: {built}").into());
    }
    Ok(target.join("release").join("examples").join("demo"))
}

/// A running `demo`.
#[derive(Debug)]
pub(crate) struct Demo {
    program: PathBuf,
    options: Vec<String>,
    process: Process,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Demo {
    /// Starts it on a port that the system chooses.
    pub(crate) fn start(program: &Path) -> Result<Self> {
        Self::start_with(program, &[])
    }

    pub(crate) fn start_with(program: &Path, options: &[String]) -> Result<Self> {
        let process = spawn(program, options, "127.0.0.1:0")?;
        let Some(line) = process.line_with(LISTENING)? else {
            return Err(format!("demo does not listen: {:?}", process.lines()).into());
        };
        let address = line.trim_start_matches(LISTENING).parse()?;
        Ok(Self { program: program.to_owned(), options: options.to_owned(), process, address })
    }

    /// Tells it to leave, starts another in its place as soon as the place is free, and waits for both.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.process.terminate()?;
        let next = loop {
            let next = spawn(&self.program, &self.options, &self.address.to_string())?;
            match next.line_with(LISTENING)? {
                Some(_) => break next,
                // The other has not closed its listener yet.
                None if next.lines().iter().any(|line| line.contains("in use")) => {}
                None => return Err(format!("the next demo does not listen: {:?}", next.lines()).into()),
            }
        };
        let mut last = std::mem::replace(&mut self.process, next);
        expect_clean_end(&mut last)
    }

    /// Tells it to leave, and starts another in its place when it has.
    pub(crate) fn replace(&mut self) -> Result<()> {
        self.process.terminate()?;
        expect_clean_end(&mut self.process)?;
        self.process = spawn(&self.program, &self.options, &self.address.to_string())?;
        match self.process.line_with(LISTENING)? {
            Some(_) => Ok(()),
            None => Err(format!("the next demo does not listen: {:?}", self.process.lines()).into()),
        }
    }

    /// Tells it to leave, and expects that it owes nobody anything.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.process.terminate()?;
        expect_clean_end(&mut self.process)
    }
}

const LISTENING: &str = "listening on http://";

fn spawn(program: &Path, options: &[String], address: &str) -> Result<Process> {
    Process::start(Command::new(program).args(["--listen", address]).args(options))
}

pub(crate) fn expect_clean_end(process: &mut Process) -> Result<()> {
    let status = process.end_within(HANG)?;
    match process.line_with("all out: signal")? {
        Some(line) if status.success() && line.contains(" 0 cut off") => Ok(()),
        _ => Err(format!("demo ended with {status}: {:?}", process.lines()).into()),
    }
}
