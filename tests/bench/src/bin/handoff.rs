//! What the hand-off is worth, and what it costs:
//!
//! ```text
//! cargo run --release --manifest-path tests/bench/Cargo.toml --bin handoff -- [ROUNDS]
//! ```
//!
//! In alternating rounds, of which medians are shown: `/ping` at 64 connections alone and beside 12 clients whose handler
//! sleeps 170 ms; a lone request beside them; and the server's CPU time per request with the hand-off and with the slot
//! compiled out. Needs Linux and `wrk`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use allout_bench::Result;
use allout_bench::builds::{HANDOFF, NO_HANDOFF};
use allout_bench::figures::{median, ms, table};
use allout_bench::process::Process;
use allout_bench::wrk::{Drive, Load};

const SECONDS: u32 = 4;
const LONE_REQUESTS: u32 = 200;

fn main() -> Result<()> {
    let rounds = std::env::args().nth(1).map_or(Ok(7), |text| text.parse())?;
    eprintln!("building");
    let (with, without) = (HANDOFF.demo()?, NO_HANDOFF.demo()?);
    let drive = Drive::new("/ping", 64, SECONDS);
    let (mut alone, mut beside, mut lone_alone, mut lone_beside) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut cpu_with, mut cpu_without, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut errors = 0;
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        let server = Process::start_with(&with, &["--loops", "2"])?;
        alone.push(drive.run(&server)?);
        lone_alone.push(lone(&server)?);
        let mut sleepers = Drive::new("/sleep/170", 12, SECONDS + 1).start(&server)?;
        beside.push(drive.run(&server)?);
        sleepers.wait()?;
        let mut sleepers = Drive::new("/sleep/170", 12, 3).start(&server)?;
        lone_beside.push(lone(&server)?);
        sleepers.wait()?;
        drop(server);

        // The same server program, started anew for each, and first one, then the other.
        let pair = if round % 2 == 0 { [&with, &without] } else { [&without, &with] };
        let mut cpu = Vec::new();
        for program in pair {
            let server = Process::start_with(program, &["--loops", "2"])?;
            Drive::new("/ping", 64, 1).run(&server)?;
            let measured = drive.run(&server)?;
            errors += measured.errors;
            cpu.push(measured.cpu_us);
        }
        if round % 2 != 0 {
            cpu.reverse();
        }
        cpu_with.push(cpu[0]);
        cpu_without.push(cpu[1]);
        ratios.push(cpu[0] / cpu[1]);
    }
    errors += alone.iter().chain(&beside).map(|load| load.errors).sum::<u64>();

    let rate = |loads: &[Load]| median(loads.iter().map(|load| load.per_second));
    let p99 = |loads: &[Load]| median(loads.iter().map(|load| load.p99_ms));
    let row = |cells: [String; 4]| cells.to_vec();
    let rows = [
        row([
            "/ping at 64, requests a second".to_owned(),
            format!("{:.0}", rate(&alone)),
            format!("{:.0}", rate(&beside)),
            format!("{:.3} (goal 0.9)", rate(&beside) / rate(&alone)),
        ]),
        row([
            "/ping at 64, 99th percentile".to_owned(),
            format!("{:.2} ms", p99(&alone)),
            format!("{:.2} ms", p99(&beside)),
            format!("{:.2} (goal 2)", p99(&beside) / p99(&alone)),
        ]),
        row([
            format!("a lone request, longest of {LONE_REQUESTS}"),
            ms(median_time(&lone_alone)),
            ms(median_time(&lone_beside)),
            "10 ms and the machine's noise".to_owned(),
        ]),
    ];
    println!("{}", table(&["what", "alone", "beside 12 on /sleep/170", "ratio"], 1, &rows));
    let rows = [row([
        "server CPU per request, /ping at 64".to_owned(),
        format!("{:.2} µs", median(cpu_without)),
        format!("{:.2} µs", median(cpu_with)),
        format!("{:.3} (goal 1.03)", median(ratios)),
    ])];
    println!("{}", table(&["what", "slot compiled out", "with the hand-off", "median of ratios"], 1, &rows));
    println!("{errors} errors");
    Ok(())
}

/// The longest that one request after the other takes on one connection, a little apart.
fn lone(server: &Process) -> Result<Duration> {
    let mut stream = TcpStream::connect(server.address)?;
    stream.set_nodelay(true)?;
    let mut longest = Duration::ZERO;
    for _ in 0..LONE_REQUESTS {
        let start = Instant::now();
        stream.write_all(b"GET /ping HTTP/1.1\r\nHost: bench\r\n\r\n")?;
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes)?;
        if !bytes[..count].ends_with(b"pong") {
            return Err("a lone request was not answered at once".into());
        }
        longest = longest.max(start.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(longest)
}

fn median_time(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}
