//! A soak: `allout` is stopped by every cause, and panicked in wherever its embedder's code runs, under load.
//!
//! | command | what it does |
//! |---|---|
//! | `stops` | stops by random causes; what every client was owed is checked, and what is left behind |
//! | `panics` | panics in handlers, closures and destructors; memory, threads and neighbours are watched |
//!
//! What happens at a stop follows from a seed, which is printed. When exactly it happens does not: that is the matter
//! of the system's scheduler. So a stop that has failed is best run again a hundred times (`--again`).

mod ask;
mod base;
mod kinds;
mod panics;
mod plan;
mod serve;
mod stops;
mod tally;

use std::path::PathBuf;
use std::process::ExitCode;

use allout_soak::client;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const HELP: &str = "\
allout under load: stopped by random causes, and panicked in.

Usage: cargo run --release --manifest-path tests/soak/Cargo.toml -- COMMAND [OPTIONS]

  stops                   stops of a server with clients of every kind at work
    --count N             how many                                               [300]
    --seed S              of the first; each next one has the next               [by the clock]
    --again N             each so many times                                     [1]
  panics                  panics in handlers, closures and destructors
    --count N             how many                                               [1000000]

Without a command: a minute of both. Exit codes: 0 nothing was found, 1 something was, 2 wrong usage.
";

/// What a minute is enough for.
const SHORT_STOPS: u64 = 40;
const SHORT_PANICS: u64 = 100_000;

enum Command {
    Help,
    Short,
    Stops {
        count: u64,
        seed: u64,
        again: u64,
    },
    Panics {
        count: u64,
    },
    /// For itself: the server of one stop, as a process.
    Serve {
        seed: u64,
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match read(std::env::args().skip(1)) {
        Ok(Command::Help) => {
            print!("{HELP}");
            Ok(())
        }
        // Memory that the stops have had would hide what panics leave behind.
        Ok(Command::Short) => {
            panics::run(SHORT_PANICS).and_then(|()| stops::run(SHORT_STOPS, fastrand::u64(..1 << 32), 1))
        }
        Ok(Command::Stops { count, seed, again }) => stops::run(count, seed, again),
        Ok(Command::Panics { count }) => panics::run(count),
        Ok(Command::Serve { seed, folder }) => match serve::as_process(seed, &folder) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Err(error) => {
            eprintln!("{error} (try --help)");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error}");
            ExitCode::from(1)
        }
    }
}

fn read(mut arguments: impl Iterator<Item = String>) -> Result<Command> {
    let mut command = match arguments.next().as_deref() {
        None => Command::Short,
        Some("--help" | "-h") => Command::Help,
        Some("stops") => Command::Stops { count: 300, seed: fastrand::u64(..1 << 32), again: 1 },
        Some("panics") => Command::Panics { count: 1_000_000 },
        Some("serve") => {
            let mut next = || arguments.next().ok_or("serve SEED FOLDER");
            Command::Serve { seed: next()?.parse()?, folder: next()?.into() }
        }
        Some(other) => return Err(format!("no such command: {other}").into()),
    };
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{option} needs a value"))?.parse()?;
        match (option.as_str(), &mut command) {
            ("--count", Command::Stops { count, .. } | Command::Panics { count }) => *count = value,
            ("--seed", Command::Stops { seed, .. }) => *seed = value,
            ("--again", Command::Stops { again, .. }) => *again = value,
            _ => return Err(format!("no such option: {option}").into()),
        }
    }
    Ok(command)
}
