//! The command line.

use std::path::PathBuf;

use crate::Result;
use crate::rows::{ROWS, Row};

pub(crate) const HELP: &str = "\
A stop while clients are far away: what allout loses, and what nginx and Go lose.

Usage: cargo run --release --manifest-path tests/far/Cargo.toml -- [OPTIONS]

  --stops N               of each server, for each row                                            [20]
  --row N                 this row of the table alone; repeatable                                 [all]
  --jobs N                stops at once: more than there are cores add delays of their own        [2]
  --seed S                of the network and the clients                                          [0]
  --no-peers              allout alone
  --allout PATH           the release build of the command; built here otherwise

A stop takes seven to eight seconds. Exit codes: 0 allout lost no more than it may, 1 it did, or something failed,
2 wrong usage, 3 as 0, but a peer was skipped.
";

#[derive(Debug)]
pub(crate) enum Mode {
    Help,
    All(Options),
    /// For itself: one stop of a server, in a namespace that is there already.
    Once {
        row: &'static Row,
        seed: u64,
        server: Vec<String>,
    },
    /// For itself: the clients of one stop.
    Clients {
        row: &'static Row,
        seed: u64,
    },
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) stops: u64,
    pub(crate) rows: Vec<usize>,
    pub(crate) jobs: usize,
    pub(crate) seed: u64,
    pub(crate) peers: bool,
    pub(crate) allout: Option<PathBuf>,
}

pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Mode> {
    let mut options = Options { stops: 20, rows: Vec::new(), jobs: 2, seed: 0, peers: true, allout: None };
    while let Some(option) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{option} needs a value"));
        match option.as_str() {
            "--help" | "-h" => return Ok(Mode::Help),
            "--stops" => options.stops = value()?.parse::<u64>()?.max(1),
            "--row" => options.rows.push(row(&value()?)?.number),
            "--jobs" => options.jobs = value()?.parse::<usize>()?.max(1),
            "--seed" => options.seed = value()?.parse()?,
            "--no-peers" => options.peers = false,
            "--allout" => options.allout = Some(value()?.into()),
            "once" => {
                let (row, seed) = (row(&value()?)?, value()?.parse()?);
                return Ok(Mode::Once { row, seed, server: arguments.collect() });
            }
            "clients" => return Ok(Mode::Clients { row: row(&value()?)?, seed: value()?.parse()? }),
            _ => return Err(format!("unknown option `{option}`").into()),
        }
    }
    Ok(Mode::All(options))
}

fn row(text: &str) -> Result<&'static Row> {
    let number: usize = text.parse()?;
    static ALL: [Row; 5] = ROWS;
    ALL.iter().find(|row| row.number == number).ok_or_else(|| format!("there is no row {number}").into())
}
