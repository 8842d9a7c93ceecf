//! The command line.

use std::path::PathBuf;

use crate::{Result, TRIALS};

const HELP: &str = "\
The real binary under slow clients, scarce descriptors, failing system calls, and real tools.

Usage: cargo run --release --manifest-path tests/battery/Cargo.toml -- [OPTIONS]

  --long                  the numbers that are published, instead of a minute
  --only NAME             this trial alone; repeatable                                            [all]
  --minutes N             how long the long `mixed` lasts                                         [60]
  --server PATH           the release example `demo`, or what is to be judged in its place; built here otherwise
  --timed PATH            the same for the trials that set timeouts: `timed`
  --list                  the trials' names

Last it prints a table in Markdown. Exit codes: 0 all held, 1 something did not, 2 wrong usage, 3 as 0, but something
was skipped.
";

#[derive(Debug)]
pub(crate) enum Mode {
    Print(String),
    Run(Options),
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) is_long: bool,
    pub(crate) minutes: u64,
    only: Vec<String>,
    pub(crate) server: Option<PathBuf>,
    pub(crate) timed: Option<PathBuf>,
}

impl Options {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Mode> {
    let mut options = Options { is_long: false, minutes: 60, only: Vec::new(), server: None, timed: None };
    while let Some(option) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{option} needs a value"));
        match option.as_str() {
            "--help" | "-h" => return Ok(Mode::Print(HELP.to_owned())),
            "--list" => return Ok(Mode::Print(TRIALS.map(|trial| format!("{}\n", trial.name)).concat())),
            "--long" => options.is_long = true,
            "--minutes" => options.minutes = value()?.parse::<u64>()?.max(1),
            "--only" => {
                let name = value()?;
                if !TRIALS.iter().any(|trial| trial.name == name) {
                    return Err(format!("there is no trial `{name}`").into());
                }
                options.only.push(name);
            }
            "--server" => options.server = Some(value()?.into()),
            "--timed" => options.timed = Some(value()?.into()),
            _ => return Err(format!("unknown option `{option}`").into()),
        }
    }
    Ok(Mode::Run(options))
}
