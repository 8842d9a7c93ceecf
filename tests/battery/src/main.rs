//! The battery: the real binary, as a process, under everything that a network and a system can do to it.
//!
//! Each trial is a file, starts a server of its own, and ends with the server's clean stop. A trial has a short form,
//! and a long one with the numbers that are published. What is not installed is skipped, aloud.
//!
//! The server is the release example `demo`: the command `allout` with a few heavier routes. Where a trial needs
//! timeouts that the command has no options for, it is [`timed`](../timed.rs), the same command with these.
//!
//! No bound is one of the machine's speed. What must be in time is judged by [`delays`]: the time for which this
//! process or the server was kept from running is given back.

mod accept;
mod clients;
mod crowd;
mod delays;
mod descriptors;
mod early;
mod fit;
mod ground;
mod idle;
mod mixed;
mod options;
#[path = "../../proxies/src/process.rs"]
mod process;
mod refused;
mod server;
mod slow;
mod strace;
mod tools;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use allout_bench::figures::table;

use ground::Ground;
use options::{Mode, Options};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Only a hang takes this long.
const HANG: Duration = Duration::from_secs(60);

/// One trial.
struct Trial {
    name: &'static str,
    run: fn(&Ground) -> Result<Report>,
}

const TRIALS: [Trial; 8] = [
    Trial { name: "slow", run: slow::run },
    Trial { name: "descriptors", run: descriptors::run },
    Trial { name: "accept", run: accept::run },
    Trial { name: "refused", run: refused::run },
    Trial { name: "idle", run: idle::run },
    Trial { name: "early", run: early::run },
    Trial { name: "mixed", run: mixed::run },
    Trial { name: "tools", run: tools::run },
];

/// What a trial came to.
#[derive(Debug, Default)]
struct Report {
    /// What was done, in numbers.
    done: String,
    /// What was seen.
    figures: String,
    /// What was wrong.
    faults: Vec<String>,
    /// What was left out, and why.
    skipped: Vec<String>,
}

impl Report {
    fn verdict(&self) -> String {
        match (self.faults.len(), self.skipped.is_empty()) {
            (0, true) => "held".to_owned(),
            (0, false) => format!("held; skipped: {}", self.skipped.join(", ")),
            (count, _) => format!("**FAILED**, {count}"),
        }
    }
}

fn main() -> ExitCode {
    let options = match options::read(std::env::args().skip(1)) {
        Ok(Mode::Run(options)) => options,
        Ok(Mode::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error} (try --help)");
            return ExitCode::from(2);
        }
    };
    match Ground::prepare(&options) {
        Ok(ground) => run(&options, &ground),
        Err(error) => {
            println!("FAILED: {error}");
            ExitCode::from(1)
        }
    }
}

fn run(options: &Options, ground: &Ground) -> ExitCode {
    let (mut rows, mut is_held, mut is_whole) = (Vec::new(), true, true);
    for trial in TRIALS.iter().filter(|trial| options.has(trial.name)) {
        println!("{} ...", trial.name);
        let began = Instant::now();
        let report = (trial.run)(ground).unwrap_or_else(|error| Report {
            figures: "none".to_owned(),
            faults: vec![error.to_string()],
            ..Report::default()
        });
        report.faults.iter().take(20).for_each(|fault| println!("    FAILED: {fault}"));
        report.skipped.iter().for_each(|what| println!("    SKIPPED: {what}"));
        is_held &= report.faults.is_empty();
        is_whole &= report.skipped.is_empty();
        let took = format!("{:.0} s", began.elapsed().as_secs_f64());
        let verdict = report.verdict();
        rows.push(vec![trial.name.to_owned(), report.done, report.figures, verdict, took]);
    }
    println!("\n{}", table(&["trial", "what was done", "figures", "verdict", "took"], 4, &rows));
    match (is_held, is_whole) {
        (false, _) => ExitCode::from(1),
        (true, false) => ExitCode::from(3),
        (true, true) => ExitCode::SUCCESS,
    }
}
