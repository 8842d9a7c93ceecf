//! allout beside its peers, and beside the limit of what the kernel alone costs:
//!
//! ```text
//! cargo run --release --manifest-path tests/bench/Cargo.toml -- [OPTIONS]
//!   --rounds N          rounds, of which medians are shown    [3]
//!   --seconds N         how long each server is driven, 2 at least [3]
//!   --servers A,B       only these
//!   --workloads A,B     only these
//!   --only speed        leave the footprint out; or `footprint`, and leave the speed out
//!   --out FOLDER        where the tables and the plot are put [tests/bench/results]
//! ```
//!
//! Each server is started anew for each run, all of them in turn within a round, so that what the machine does besides
//! is shared out evenly. Rates and percentiles follow the machine's mood; the server's CPU time per request repeats.
//! Needs Linux, and `wrk` for the speed; nginx and Go are measured where they are installed.

use std::fs;
use std::path::{Path, PathBuf};

use allout_bench::plot::{Panel, svg};
use allout_bench::servers::{Server, installed};
use allout_bench::speed::Speed;
use allout_bench::workloads::{IDLE, WORKLOADS, Workload};
use allout_bench::{Result, footprint};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

struct Options {
    rounds: usize,
    seconds: u32,
    servers: Vec<String>,
    workloads: Vec<String>,
    only: Option<String>,
    out: PathBuf,
}

fn main() -> Result<()> {
    let options = Options::read(std::env::args().skip(1))?;
    raise_descriptor_limit()?;
    eprintln!("building the servers");
    let is_wanted = |wanted: &[String], name: &str| wanted.is_empty() || wanted.iter().any(|one| one == name);
    let servers = Server::all(|name| is_wanted(&options.servers, name))?;
    let workloads: Vec<Workload> =
        WORKLOADS.into_iter().filter(|workload| is_wanted(&options.workloads, workload.name)).collect();
    fs::create_dir_all(&options.out)?;
    let put = |name: &str, text: &str| fs::write(options.out.join(name), text);
    let machine = machine();

    let wants = |what: &str| options.only.as_deref().is_none_or(|only| only == what);
    if wants("speed") && installed("wrk", "-v", "wrk") {
        let mut speed = Speed::default();
        let mut text = String::new();
        for round in 1..=options.rounds {
            speed.round(round, &servers, &workloads, options.seconds)?;
            // After each, so that a run that is ended early leaves what it has.
            let head = format!("{machine}; medians of {round} rounds of {} s.", options.seconds);
            text = format!("{head}\n\n{}", speed.tables(&servers, &workloads));
            put("speed.md", &text)?;
            put("speed.svg", &plot(&speed, &servers, &workloads))?;
        }
        print!("{text}");
    }
    if wants("footprint") {
        let mut text = format!("{machine}.\n\n{}", footprint::servers(&servers)?);
        put("footprint.md", &text)?;
        text = format!("{text}\n{}", footprint::command()?);
        print!("{text}");
        put("footprint.md", &text)?;
    }
    Ok(())
}

fn plot(speed: &Speed, servers: &[Server], workloads: &[Workload]) -> String {
    let cpu = |server: &str, workload: &Workload| speed.median(server, workload.name, |load| load.cpu_us);
    let panel = |workload: &Workload| Panel {
        title: workload.about.to_owned(),
        bars: servers
            .iter()
            .filter(|server| server.is_plotted())
            .map(|server| (server.name.to_owned(), cpu(server.name, workload)))
            .collect(),
        limit: servers.iter().find(|server| server.is_limit()).and_then(|server| cpu(server.name, workload)),
    };
    let head = "Server CPU per request, µs: less is better. Dashed: a loop that parses nothing.";
    svg(head, &workloads.iter().map(panel).collect::<Vec<_>>())
}

/// What it was measured on, and when.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let date = std::process::Command::new("date").arg("+%F").output();
    let date = date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} cores of {}, Linux {}, {date}", model.unwrap_or("an unnamed processor"), kernel.trim())
}

/// Both ends of the idle connections need a descriptor each; the servers inherit the limit.
fn raise_descriptor_limit() -> Result<()> {
    let needed = IDLE as u64 + 2000;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed))
            .map_err(|error| format!("cannot have {needed} open descriptors (`ulimit -n` says {soft}): {error}"))?;
    }
    Ok(())
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
        let mut options = Self { rounds: 3, seconds: 3, servers: Vec::new(), workloads: Vec::new(), only: None, out };
        while let Some(option) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("`{option}` needs a value"))?;
            let wrong = |_| format!("`{option}` needs a number, not `{value}`");
            let names = || value.split(',').map(str::to_owned).collect();
            match option.as_str() {
                "--rounds" => options.rounds = value.parse::<usize>().map_err(wrong)?.max(1),
                "--seconds" => options.seconds = value.parse::<u32>().map_err(wrong)?.max(2),
                "--servers" => options.servers = names(),
                "--workloads" => options.workloads = names(),
                "--only" if ["speed", "footprint"].contains(&value.as_str()) => options.only = Some(value),
                "--only" => return Err(format!("`--only` is `speed` or `footprint`, not `{value}`").into()),
                "--out" => options.out = value.into(),
                _ => return Err(format!("`{option}` is no option").into()),
            }
        }
        let check = |given: &[String], known: &[&str]| match given.iter().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => Err(format!("`{name}` is none of {}", known.join(", "))),
        };
        check(&options.servers, &Server::names())?;
        check(&options.workloads, &WORKLOADS.map(|workload| workload.name))?;
        Ok(options)
    }
}
