//! Footprint: how soon a server answers, and what it takes at rest.

use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::builds::{self, Profile};
use crate::clients::Client;
use crate::figures::{Times, ms, table};
use crate::process::Process;
use crate::servers::Server;
use crate::speed::idle;
use crate::workloads::{IDLE, WORKLOADS, Workload};

const STARTS: usize = 9;
/// Until what a server does after its start, or after many clients have come, is over.
const SETTLE: Duration = Duration::from_secs(1);
/// How long it is watched at rest.
const REST: Duration = Duration::from_secs(5);
const PING: &Workload = &WORKLOADS[0];

/// A table in Markdown: servers down.
pub fn servers(servers: &[Server]) -> Result<String> {
    let heads = [
        "server",
        "start to first answer",
        "resident at rest",
        "private at rest",
        "threads",
        "wake-ups a second at rest",
        "per idle connection",
        "CPU with 10,000 idle",
        "binary",
        "binary, `small`",
    ];
    eprintln!("building the servers in the profile `small`");
    builds::peers(Profile::Small)?;
    let mut rows = Vec::new();
    for (at, server) in servers.iter().enumerate() {
        eprint!("\r\x1b[Kfootprint: {} ({} of {})", server.name, at + 1, servers.len());
        rows.push(row(server)?);
    }
    eprintln!();
    let text = "Per idle connection: the growth of the proportional memory at 10,000 that have each had an answer, over \
                10,000; what the kernel keeps for a socket is not in it.\n";
    Ok(table(&heads, 1, &rows) + "\n" + text)
}

fn row(server: &Server) -> Result<Vec<String>> {
    let starts = (0..STARTS).map(|_| server.start(PING).map(|(_, took)| took)).collect::<Result<Vec<_>>>()?;
    let (process, _) = server.start(PING)?;
    thread::sleep(SETTLE);
    let (at_rest, threads) = (process.memory()?, process.threads());
    let (switches, since) = (process.switches(), Instant::now());
    thread::sleep(REST);
    let wakeups = (process.switches() - switches) as f64 / since.elapsed().as_secs_f64();

    let (per_connection, cpu) = match idle(&process, PING) {
        // It is told as it is, and the others are measured all the same.
        Err(error) => (error.to_string(), "–".to_owned()),
        Ok(clients) => {
            thread::sleep(SETTLE);
            let grown = process.memory()?.proportional.saturating_sub(at_rest.proportional);
            let (cpu, since) = (process.cpu()?, Instant::now());
            thread::sleep(REST);
            let busy = (process.cpu()? - cpu).as_secs_f64() / since.elapsed().as_secs_f64();
            let gone = clients.iter().filter(|client| !client.is_resting()).count();
            let per_connection = match gone {
                0 => format!("{} B", grown / IDLE as u64),
                _ => format!("{gone} were closed"),
            };
            (per_connection, format!("{:.2} %", busy * 100.0))
        }
    };
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "–".to_owned(), kilobytes);
    Ok(vec![
        server.name.to_owned(),
        ms(Times::new(starts).median()),
        kilobytes(at_rest.resident),
        kilobytes(at_rest.private),
        threads.to_string(),
        format!("{wakeups:.1}"),
        per_connection,
        cpu,
        size(server.binary_bytes(Profile::Release)?),
        size(server.binary_bytes(Profile::Small)?),
    ])
}

/// A target whose programs need nothing of the system but its kernel.
const STATIC: &str = "x86_64-unknown-linux-musl";

/// A table in Markdown: the command `allout`, by features and profile.
pub fn command() -> Result<String> {
    let heads = ["the command `allout`, stripped", "default profile", "`small`", "`small`, resident at rest"];
    let builds: [(&str, &[&str]); 4] = [
        ("default features", &[]),
        ("`sweep` with signals", &["--no-default-features", "--features", "signals"]),
        ("without default features", &["--no-default-features"]),
        ("default features, static, with musl", &["--target", STATIC]),
    ];
    let mut rows = Vec::new();
    for (name, options) in builds {
        eprint!("\r\x1b[Kbuilding allout: {name}");
        let (Some(program), Some(small)) =
            (builds::stripped(Profile::Release, options)?, builds::stripped(Profile::Small, options)?)
        else {
            eprintln!("\r\x1b[KSKIPPED: allout, {name}: rustup target add {STATIC}");
            continue;
        };
        let bytes = [std::fs::metadata(program)?.len(), std::fs::metadata(&small)?.len()];
        let process = Process::start_with(&small, &["--loops", "2"])?;
        Client::connect(process.address)?.get("/ping")?;
        thread::sleep(SETTLE);
        let resident = process.memory()?.resident;
        rows.push(vec![name.to_owned(), kilobytes(bytes[0]), kilobytes(bytes[1]), kilobytes(resident)]);
    }
    eprintln!();
    Ok(table(&heads, 1, &rows))
}

fn kilobytes(bytes: u64) -> String {
    format!("{:.0} kB", bytes as f64 / 1000.0)
}
