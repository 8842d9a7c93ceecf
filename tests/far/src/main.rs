//! A stop while clients are far away: what allout loses of their requests, and what others lose.
//!
//! On loopback a round trip takes no time, and much of what a stop can lose never shows. Here server and clients live
//! in a network namespace each, and a network with a length carries their packets: each is delayed, and some are lost,
//! doubled or overtaken. Four seconds after its start the server is told to stop, with all clients at work.
//!
//! Needs Linux, `unshare` of util-linux, `ip` of iproute2, and namespaces that may be made; no privileges. Nothing
//! leaves the machine, and nothing is left behind.

mod clients;
mod network;
mod once;
mod options;
mod peers;
mod rows;

use std::collections::VecDeque;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use options::{Mode, Options};
use peers::Peer;
use rows::{ROWS, Row};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let done = match options::read(std::env::args().skip(1)) {
        Ok(Mode::Help) => {
            print!("{}", options::HELP);
            Ok(ExitCode::SUCCESS)
        }
        Ok(Mode::All(options)) => all(&options),
        Ok(Mode::Once { row, seed, server }) => once::run(row, seed, &server).map(|()| ExitCode::SUCCESS),
        Ok(Mode::Clients { row, seed }) => clients::run(row, seed).map(|()| ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("{error} (try --help)");
            return ExitCode::from(2);
        }
    };
    done.unwrap_or_else(|error| {
        println!("FAILED: {error}");
        ExitCode::from(1)
    })
}

/// What one stop came to.
#[derive(Clone, Copy, Debug)]
struct Stop {
    lost: u64,
    answered: u64,
    took_ms: u64,
}

fn all(options: &Options) -> Result<ExitCode> {
    if !can_be_apart() {
        println!("SKIPPED: network namespaces and devices cannot be made here");
        return Ok(ExitCode::from(3));
    }
    let folder = tempfile::Builder::new().prefix("allout-far-").tempdir()?;
    let mut skipped = Vec::new();
    let mut peers = vec![Peer::allout(options.allout.as_deref())?];
    if options.peers {
        for (name, peer) in [("nginx", Peer::nginx(folder.path())?), ("Go", Peer::go(folder.path())?)] {
            match peer {
                Some(peer) => peers.push(peer),
                None => skipped.push(name),
            }
        }
    }
    for name in &skipped {
        println!("SKIPPED: {name} is not installed");
    }
    println!("{} stops a row; lost at one stop, least to most; a stop's mean time\n", options.stops);
    let heads: Vec<_> = peers.iter().map(|peer| format!(" {} | took ", peer.name)).collect();
    println!("| network and clients |{}| wanted |\n|---|{}---|", heads.join("|"), "---:|---:|".repeat(peers.len()));
    let mut is_kept = true;
    for row in ROWS.iter().filter(|row| options.rows.is_empty() || options.rows.contains(&row.number)) {
        let mut cells = String::new();
        for (place, peer) in peers.iter().enumerate() {
            let stops = run(row, peer, options)?;
            let lost = stops.iter().map(|stop| stop.lost);
            let (least, most) = (lost.clone().min().unwrap_or(0), lost.clone().max().unwrap_or(0));
            let took_ms = stops.iter().map(|stop| stop.took_ms).sum::<u64>() / options.stops;
            cells += &format!(" {least} to {most}, {} of {} | {took_ms} ms |", lost.sum::<u64>(), asked(&stops));
            is_kept &= place > 0 || most <= row.lost_max;
        }
        println!("| {} |{cells} at most {} |", row.name, row.lost_max);
    }
    Ok(match (is_kept, skipped.is_empty()) {
        (false, _) => ExitCode::from(1),
        (true, false) => ExitCode::from(3),
        (true, true) => ExitCode::SUCCESS,
    })
}

/// A namespace of one's own, with a device of one's own in it.
fn can_be_apart() -> bool {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "ip", "tuntap", "add", "far0", "mode", "tun"]);
    command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn asked(stops: &[Stop]) -> u64 {
    stops.iter().map(|stop| stop.answered + stop.lost).sum()
}

/// All stops of a row, some at a time.
fn run(row: &Row, peer: &Peer, options: &Options) -> Result<Vec<Stop>> {
    let seeds = Mutex::new((1..=options.stops).collect::<VecDeque<u64>>());
    let next = || seeds.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = || -> Result<Vec<Stop>> {
        let mut stops = Vec::new();
        while let Some(seed) = next() {
            stops.push(stop(row, peer, options.seed + seed)?);
        }
        Ok(stops)
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs).map(|_| scope.spawn(work)).collect();
        let mut stops = Vec::new();
        for worker in workers {
            stops.extend(worker.join().map_err(|_| "a worker panicked")??);
        }
        Ok(stops)
    })
}

/// One stop, in a process and a network namespace of its own.
fn stop(row: &Row, peer: &Peer, seed: u64) -> Result<Stop> {
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net"])
        .arg(std::env::current_exe()?)
        .args(["once", &row.number.to_string(), &seed.to_string()])
        .args(&peer.command)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<u64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        [lost, answered, took_ms] if output.status.success() => Ok(Stop { lost, answered, took_ms }),
        _ => Err(format!("a stop of {} was none: {said}", peer.name).into()),
    }
}
