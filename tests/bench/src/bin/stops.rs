//! How long a stop takes: from the trigger until the process has ended, seen from outside.
//!
//! ```text
//! cargo run --release --manifest-path tests/bench/Cargo.toml --bin stops [STOPS]
//! ```
//!
//! For each poller, each trigger and each kind of company at the stop, so many stops (20) of a fresh process. The
//! clock starts just before SIGTERM is sent, or just before `GET /shutdown` is sent on a connection that is open
//! already; it ends when the parent has collected the process. The time from a process's start to its first answer is
//! measured too.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use allout_bench::Result;
use allout_bench::builds::BUILDS;
use allout_bench::clients::{Client, Load, Tally};
use allout_bench::figures::{Times, ms, table};
use allout_bench::process::Process;

const STOPS: usize = 20;
const IDLE: usize = 100;
const BUSY: usize = 8;

/// What a stop may take with no connection open.
const GOAL: Duration = Duration::from_millis(20);
/// And with such as have to be waited for: the idle grace, and 50 ms.
const GOAL_QUIET: Duration = Duration::from_millis(250 + 50);

/// Who is connected at the stop.
#[derive(Clone, Copy)]
enum Company {
    Nobody,
    Idle,
    HalfHead,
    Busy,
}

#[derive(Clone, Copy)]
enum Trigger {
    Signal,
    Shutdown,
}

const COMPANIES: [(Company, &str, Option<Duration>); 4] = [
    (Company::Nobody, "stop, no connection open", Some(GOAL)),
    (Company::Idle, "stop, 100 idle keep-alive connections", Some(GOAL_QUIET)),
    (Company::HalfHead, "stop, one client with half a request head sent", Some(GOAL_QUIET)),
    (Company::Busy, "stop, 8 keep-alive clients asking without pause", None),
];

const TRIGGERS: [(Trigger, &str); 2] = [(Trigger::Signal, "SIGTERM"), (Trigger::Shutdown, "/shutdown")];

fn main() -> Result<()> {
    let stops = match std::env::args().nth(1) {
        Some(count) => count.parse().ok().filter(|count| *count > 0).ok_or("usage: stops [STOPS]")?,
        None => STOPS,
    };
    let mut rows = Vec::new();
    let mut load = Tally::default();
    for build in BUILDS {
        eprintln!("building allout for {}", build.poller);
        let program = build.command()?;
        let mut take =
            |case: &str, trigger: &str, goal: Option<Duration>, once: &mut dyn FnMut() -> Result<Duration>| {
                eprintln!("{}: {case}, {trigger}", build.poller);
                let times = Times::new((0..stops).map(|_| once()).collect::<Result<_>>()?);
                let goal = match goal {
                    None => "–".to_owned(),
                    Some(goal) if times.median() < goal => format!("< {} ms", goal.as_millis()),
                    Some(goal) => format!("< {} ms: missed", goal.as_millis()),
                };
                let head = [case, build.poller, trigger].map(str::to_owned);
                rows.push([&head[..], &[ms(times.median()), ms(times.min()), ms(times.max()), goal]].concat());
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
            };
        take("start to first answer", "–", None, &mut || start(&program))?;
        for (company, case, goal) in COMPANIES {
            for (trigger, name) in TRIGGERS {
                take(case, name, goal, &mut || stop(&program, company, trigger, &mut load))?;
            }
        }
    }
    let cores = thread::available_parallelism()?;
    println!("{stops} times each, {cores} cores, {} {}.\n", std::env::consts::OS, std::env::consts::ARCH);
    println!("{}", table(&["what", "poller", "by", "median", "least", "most", "goal"], 3, &rows));
    println!("The busy clients had {} answers; {} requests sent whole were lost.", load.answered, load.lost);
    Ok(())
}

/// From a process's start until its first answer has come.
fn start(program: &Path) -> Result<Duration> {
    let started = Instant::now();
    let process = Process::start(program)?;
    Client::connect(process.address)?.get("/ping")?;
    Ok(started.elapsed())
}

/// From the trigger until the process has ended.
fn stop(program: &Path, company: Company, trigger: Trigger, total: &mut Tally) -> Result<Duration> {
    let mut process = Process::start(program)?;
    // It listens before it serves: an answer shows that it is wholly there.
    Client::connect(process.address)?.get("/ping")?;
    // Whatever is made ready here is kept until the process has ended.
    let (mut idle, mut reader, mut load) = (Vec::new(), None, None);
    match company {
        Company::Nobody => {}
        Company::Idle => {
            for _ in 0..IDLE {
                let mut client = Client::connect(process.address)?;
                client.get("/ping")?;
                idle.push(client);
            }
        }
        Company::HalfHead => {
            let mut client = Client::connect(process.address)?;
            client.send("GET /ping HTTP/1.1\r\nHost: loc")?;
            reader = Some(thread::spawn(move || client.read_to_end()));
        }
        Company::Busy => load = Some(Load::start(process.address, BUSY)?),
    }
    let took = match trigger {
        Trigger::Signal => {
            let triggered = Instant::now();
            process.terminate()?;
            ended(&mut process, triggered)?
        }
        Trigger::Shutdown => {
            let mut client = Client::connect(process.address)?;
            let triggered = Instant::now();
            let answer = client.get("/shutdown")?;
            client.read_to_end();
            if answer.status != 200 {
                return Err(format!("/shutdown was answered with {}", answer.status).into());
            }
            ended(&mut process, triggered)?
        }
    };
    if let Some(load) = load {
        let tally = load.tally()?;
        total.answered += tally.answered;
        total.lost += tally.lost;
    }
    if let Some(reader) = reader {
        reader.join().map_err(|_| "the reader panicked")?;
    }
    Ok(took)
}

fn ended(process: &mut Process, since: Instant) -> Result<Duration> {
    let status = process.wait()?;
    let took = since.elapsed();
    if status.success() { Ok(took) } else { Err(format!("the stop was not clean: {status}").into()) }
}
