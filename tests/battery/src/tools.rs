//! Tools that others have written for this, each with a verdict that can be checked.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::clients::Ask;
use crate::delays::Delays;
use crate::ground::{Ground, is_there};
use crate::server::Server;
use crate::{Report, Result};

/// One tool: what it is called, Debian's package, and what it came to.
type Tool = (&'static str, &'static str, fn(&Ground, &mut Vec<String>) -> Result<String>);

const TOOLS: [Tool; 4] = [
    ("slowhttptest", "slowhttptest", slowhttptest),
    ("wrk", "wrk", wrk),
    ("h2load", "nghttp2-client", h2load),
    ("varnishtest", "varnish", varnishtest),
];

pub(crate) fn run(ground: &Ground) -> Result<Report> {
    let mut report = Report { done: "real tools".to_owned(), ..Report::default() };
    let mut figures = Vec::new();
    for (tool, package, run) in TOOLS {
        if !is_there(tool) {
            report.skipped.push(format!("{tool} (Debian's package {package}) is not installed"));
            continue;
        }
        let mut faults = Vec::new();
        match run(ground, &mut faults) {
            Ok(found) if faults.is_empty() => figures.push(format!("{tool}: {found}")),
            Ok(_) => {}
            Err(error) => faults.push(error.to_string()),
        }
        report.faults.extend(faults.into_iter().map(|fault| format!("{tool}: {fault}")));
    }
    report.figures = figures.join("; ");
    Ok(report)
}

fn output(command: &mut Command) -> Result<Output> {
    Ok(command.stdin(Stdio::null()).output()?)
}

/// The word before a label.
fn number_before(text: &str, label: &str) -> Option<u64> {
    text.split(label).next()?.split_whitespace().last()?.parse().ok()
}

/// A mode, its options, and what it asks for.
type Mode = (&'static str, &'static [&'static str], &'static str);

const MODES: [Mode; 3] = [
    ("heads", &["-H", "-i", "1", "-l", "60"], "/ping"),
    ("bodies", &["-B", "-i", "1", "-s", "100000", "-t", "POST", "-l", "60"], "/echo"),
    // Until its time is over: what the server had passed on when it closed is still to be taken from the system.
    ("readers", &["-X", "-w", "500", "-y", "1000", "-n", "1", "-z", "10", "-l", "10"], "/bytes/4000000"),
];

/// The readers take ten seconds, of which the server needs three.
const STOOD_STILL: Duration = Duration::from_secs(5);

/// Slow heads, slow bodies, slow readers. Its own prober must find the server there all the time, and the server is rid
/// of all of them before it ends.
fn slowhttptest(ground: &Ground, faults: &mut Vec<String>) -> Result<String> {
    let mut rows = 0;
    for (name, options, path) in MODES {
        let connections = if name == "readers" { ground.form(50, 200) } else { ground.form(100, 1000) };
        let server = Server::start(&mut ground.timed("head=2,body=2,write=2,idle=2"))?;
        let base = server.descriptors()?;
        let prefix = ground.file(name);
        let mut command = Command::new("slowhttptest");
        command.args(["-c", &connections.to_string(), "-r", "200", "-p", "20", "-g", "-o"]).arg(&prefix);
        command.args(options).arg("-u").arg(format!("http://{}{path}", server.address));
        let said = ground.file("said");
        let mut child = command.stdin(Stdio::null()).stdout(fs::File::create(&said)?).spawn()?;
        let (mut most, mut is_rid) = (0, false);
        let (delays, began) = (Delays::default(), Instant::now());
        thread::scope(|scope| -> Result<()> {
            scope.spawn(|| delays.note(server.pid));
            let watched = loop {
                match (child.try_wait(), server.descriptors()) {
                    (Ok(None), Ok(now)) => {
                        most = most.max(now.saturating_sub(base));
                        // One is its prober's.
                        is_rid |= most >= connections / 4 && now <= base + 1;
                    }
                    (ended, descriptors) => break ended.map_err(Into::into).and(descriptors.map(drop)),
                }
                thread::sleep(Duration::from_millis(20));
            };
            delays.end();
            watched
        })?;
        // It ends, too, when the last one is closed.
        is_rid |= fs::read_to_string(&said)?.contains("No open connections left");
        // The tool has a time, and no use for it where it or the server was kept from running.
        if !is_rid && delays.between(began, Instant::now()) > STOOD_STILL {
            println!("    SKIPPED: whether it is rid of slow {name} in time: the machine was busy");
            is_rid = true;
        }
        let states = states(&prefix.with_extension("csv"))?;
        rows += states.len();
        let absent = states.iter().filter(|state| state[3] == 0).count();
        if absent > 0 || !is_rid || most == 0 {
            faults.push(format!("{name}: {most} at most, rid of them {is_rid}; {absent} times it was not there"));
        }
        server.expect_descriptors(base)?;
        server.expect_clean_stop(faults)?;
    }
    Ok(format!("slow heads, bodies and readers, all cut, the server there in each of {rows} seconds"))
}

/// What it has seen at each second: closed, pending, connected, and whether the server was there.
fn states(csv: &Path) -> Result<Vec<[u64; 4]>> {
    let text = fs::read_to_string(csv)?;
    let row = |line: &str| {
        let numbers: Vec<u64> = line.split(',').filter_map(|word| word.trim().parse().ok()).collect();
        <[u64; 5]>::try_from(numbers)
            .ok()
            .map(|[_, closed, pending, connected, there]| [closed, pending, connected, there])
    };
    let rows: Vec<_> = text.lines().filter_map(row).collect();
    if rows.is_empty() { Err(format!("it has noted nothing: {text}").into()) } else { Ok(rows) }
}

fn wrk(ground: &Ground, faults: &mut Vec<String>) -> Result<String> {
    let server = Server::start(&mut ground.demo())?;
    let (connections, seconds) = ground.form((100, 2), (1000, 30));
    let mut command = Command::new("wrk");
    command.args(["-t1", "--timeout", "60", &format!("-c{connections}"), &format!("-d{seconds}")]);
    let said = output(command.arg(format!("http://{}/bytes/1000", server.address)))?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let requests = number_before(&said, " requests in").unwrap_or_default();
    let wrong = said.lines().filter(|line| line.contains("Socket errors") || line.contains("Non-2xx"));
    faults.extend(wrong.map(|line| line.trim().to_owned()));
    if requests == 0 {
        faults.push(format!("no requests: {said}"));
    }
    // It breaks its connections off in the middle.
    server.expect_clean_stop(faults)?;
    Ok(format!("{requests} requests on {connections} connections, no error"))
}

fn h2load(ground: &Ground, faults: &mut Vec<String>) -> Result<String> {
    let server = Server::start(&mut ground.demo())?;
    let (requests, connections) = ground.form((20_000, 100), (1_000_000, 1000));
    let mut command = Command::new("h2load");
    command.args(["--h1", "-m4", "-n", &requests.to_string(), "-c", &connections.to_string()]);
    let said = output(command.arg(format!("http://{}/bytes/1000", server.address)))?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let succeeded = number_before(&said, " succeeded").unwrap_or_default();
    if succeeded != requests {
        let line = said.lines().find(|line| line.starts_with("requests:"));
        faults.push(line.map_or_else(|| last_line(&said), str::to_owned));
    }
    server.expect_clean_stop(faults)?;
    Ok(format!("{succeeded} of {requests} requests succeeded, pipelined by 4 on {connections} connections"))
}

/// A script in its own language, of requests and what is expected of their answers.
fn varnishtest(ground: &Ground, faults: &mut Vec<String>) -> Result<String> {
    let server = Server::start(&mut ground.timed("head=1"))?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("wire.vtc");
    let mut command = Command::new("varnishtest");
    let said = output(command.arg("-D").arg(format!("allout={}", server.address)).arg(&script))?;
    if !said.status.success() {
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let failed = text.lines().find(|line| line.starts_with("----") && !line.contains("top"));
        faults.push(failed.map_or_else(|| last_line(&text), str::to_owned));
    }
    let expectations = fs::read_to_string(&script)?.matches("expect").count();
    // Still there, and not kept busy.
    if Ask::Ping.once(server.address)? != 200 {
        faults.push("no pong afterwards".to_owned());
    }
    server.expect_clean_stop(faults)?;
    Ok(format!("{expectations} expectations"))
}

fn last_line(text: &str) -> String {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim().to_owned()
}
