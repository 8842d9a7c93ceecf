//! Builds of allout beside the first of them: what a change costs.
//!
//! ```text
//! cargo run --release --manifest-path tests/bench/Cargo.toml --bin versions -- [OPTIONS] ALLOUT ALLOUT...
//!   --rounds N      rounds, of which medians are shown                            [9]
//!   --seconds N     how long each build is driven in each, at each workload      [2]
//! ```
//!
//! `ALLOUT` is the command as some commit builds it (`target/release/allout`, copied elsewhere). Within a round each
//! build is started anew and driven in turn, in another order each time; ratios are within a round. Two processes of
//! one build differ by some hundredths, so give a build twice to see how much that is. Instructions (callgrind) repeat
//! to a thousandth. Needs Linux and `wrk`; `valgrind` for the instructions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use allout_bench::Result;
use allout_bench::builds::target;
use allout_bench::clients::Client;
use allout_bench::figures::{median, table};
use allout_bench::process::{LISTEN, Process};
use allout_bench::servers::{installed, script};
use allout_bench::workloads::{WORKLOADS, Workload};
use allout_bench::wrk::Drive;

/// What no change may make dearer.
const COMPARED: [&str; 4] = ["64", "512", "pipelined", "close"];
/// With each build, in each round.
const STOPS: usize = 20;
/// For its threads to come to rest after a start.
const SETTLE: Duration = Duration::from_millis(20);
/// Requests that are counted, beyond as many as show what start and stop take.
const COUNTED: usize = 8000;
const UNCOUNTED: usize = 1600;

fn main() -> Result<()> {
    let (rounds, seconds, builds) = options(std::env::args().skip(1))?;
    let mut rows = Vec::new();
    if installed("wrk", "-v", "wrk") {
        for workload in WORKLOADS.iter().filter(|workload| COMPARED.contains(&workload.name)) {
            let cpu = |build: &Path| cpu(build, workload, seconds);
            rows.push(row(&format!("CPU, µs: {}", workload.about), &alternating(rounds, workload.name, &builds, cpu)?));
        }
    }
    rows.push(row("SIGTERM to the end, nothing open, ms", &alternating(rounds, "stops", &builds, stop)?));
    if installed("valgrind", "--version", "valgrind") {
        for (what, pipelined) in [("a single", 1), ("16 pipelined, each", 16)] {
            eprintln!("instructions, {what}");
            let of_each = |build: &PathBuf| Ok(vec![instructions(build, pipelined)?]);
            rows.push(row(&format!("instructions: {what}"), &builds.iter().map(of_each).collect::<Result<Vec<_>>>()?));
        }
    }
    let names: Vec<String> = builds.iter().map(|build| build.display().to_string()).collect();
    let heads: Vec<&str> =
        ["medians (ratio of medians; median of ratios)"].into_iter().chain(names.iter().map(String::as_str)).collect();
    print!("{}", table(&heads, 1, &rows));
    Ok(())
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<(usize, u32, Vec<PathBuf>)> {
    let (mut rounds, mut seconds, mut builds) = (9, 2, Vec::new());
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<u32> {
            let value = arguments.next().ok_or_else(|| format!("`{argument}` needs a value"))?;
            Ok(value.parse::<u32>().map_err(|_| format!("`{argument}` needs a number, not `{value}`"))?.max(1))
        };
        match argument.as_str() {
            "--rounds" => rounds = number()?.try_into()?,
            "--seconds" => seconds = number()?,
            _ if argument.starts_with("--") => return Err(format!("`{argument}` is no option").into()),
            _ => builds.push(PathBuf::from(argument)),
        }
    }
    if builds.len() < 2 { Err("give two builds at least".into()) } else { Ok((rounds, seconds, builds)) }
}

/// A figure of each build from each round.
fn alternating(
    rounds: usize,
    what: &str,
    builds: &[PathBuf],
    measure: impl Fn(&Path) -> Result<f64>,
) -> Result<Vec<Vec<f64>>> {
    let mut figures = vec![Vec::new(); builds.len()];
    for round in 0..rounds {
        eprintln!("{what}, round {} of {rounds}", round + 1);
        for place in 0..builds.len() {
            let at = (place + round) % builds.len();
            figures[at].push(measure(&builds[at])?);
        }
    }
    Ok(figures)
}

fn row(what: &str, figures: &[Vec<f64>]) -> Vec<String> {
    let first = &figures[0];
    let cell = |own: &Vec<f64>| {
        let of_medians = median(own.iter().copied()) / median(first.iter().copied());
        let of_rounds = median(own.iter().zip(first).map(|(own, first)| own / first));
        format!("{} ({of_medians:.3}; {of_rounds:.3})", shown(median(own.iter().copied())))
    };
    [what.to_owned(), shown(median(first.iter().copied()))].into_iter().chain(figures[1..].iter().map(cell)).collect()
}

fn shown(figure: f64) -> String {
    if figure < 100.0 { format!("{figure:.2}") } else { format!("{figure:.0}") }
}

/// User and system time for each request, in microseconds.
fn cpu(build: &Path, workload: &Workload, seconds: u32) -> Result<f64> {
    let server = Process::start_with(build, &["--loops", "2"])?;
    let drive = Drive { script: script(workload)?, ..Drive::new(workload.route.path(), workload.connections, seconds) };
    let load = drive.run(&server)?;
    if load.errors > 0 {
        return Err(format!("{}: {} errors at `{}`", build.display(), load.errors, workload.name).into());
    }
    Ok(load.cpu_us)
}

/// From SIGTERM to the end of a process that has no connection, in milliseconds.
fn stop(build: &Path) -> Result<f64> {
    let one = || {
        let mut server = Process::start(build)?;
        thread::sleep(SETTLE);
        let sent = Instant::now();
        server.terminate()?;
        let status = server.wait()?;
        let took = sent.elapsed();
        if status.success() {
            Ok(took.as_secs_f64() * 1000.0)
        } else {
            Err(format!("{}: {status}", build.display()).into())
        }
    };
    Ok(median((0..STOPS).map(|_| one()).collect::<Result<Vec<_>>>()?))
}

/// How many instructions a request takes, of which so many come at once.
fn instructions(build: &Path, pipelined: usize) -> Result<f64> {
    let few = instructions_in_all(build, pipelined, UNCOUNTED)?;
    Ok((instructions_in_all(build, pipelined, UNCOUNTED + COUNTED)? - few) / COUNTED as f64)
}

fn instructions_in_all(build: &Path, pipelined: usize, requests: usize) -> Result<f64> {
    let counts = target().join("versions.callgrind");
    let mut command = Command::new("valgrind");
    command.args(["-q", "--tool=callgrind"]).arg(format!("--callgrind-out-file={}", counts.display()));
    command.arg(build).args(LISTEN).args(["--loops", "1"]);
    let mut server = Process::start_by(command)?;
    let mut client = Client::connect(server.address)?;
    let batch = "GET /ping HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n".repeat(pipelined);
    for _ in 0..requests / pipelined {
        client.send(&batch)?;
        for _ in 0..pipelined {
            client.answer()?;
        }
    }
    drop(client);
    server.terminate()?;
    server.wait()?;
    let text = fs::read_to_string(&counts)?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")?.parse().ok());
    total.ok_or_else(|| "callgrind has counted nothing".into())
}
