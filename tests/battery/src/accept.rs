//! `accept4` fails in every way: the server says so, pauses, recovers, and no client is lost by it.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::clients::Ask;
use crate::ground::Ground;
use crate::server::Server;
use crate::strace::{self, Injected};
use crate::{HANG, Report, Result};

/// What the server is to say of an error.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    /// It waits, and says so.
    Yes,
    /// It tries again at once: the error is of one connection.
    No,
}

/// An error, how often in each thread, and what is said.
const CASES: [(&str, u32, Said); 8] = [
    ("EMFILE", 6, Said::Yes),
    ("ENFILE", 6, Said::Yes),
    ("ENOBUFS", 6, Said::Yes),
    ("ENOMEM", 6, Said::Yes),
    ("ECONNABORTED", 6, Said::No),
    ("EPERM", 6, Said::No),
    // The same again and again is of no one connection.
    ("EPERM", 70, Said::Yes),
    ("EPROTO", 70, Said::Yes),
];

/// Calls that fail for good: with pauses from 5 ms to 1 s, each of two loops makes ten of them in three seconds.
const TIME: Duration = Duration::from_secs(3);
const CALLS_MAX: usize = 60;

pub(crate) fn run(ground: &Ground) -> Result<Report> {
    if let Some(why) = strace::missing() {
        return Ok(Report { figures: "none".to_owned(), skipped: vec![why], ..Report::default() });
    }
    let clients = ground.form(20, 200);
    let (mut faults, mut injected, mut served) = (Vec::new(), 0, 0);
    for (error, times, said) in CASES {
        let found = case(ground, error, times, said, clients)?;
        injected += found.injected;
        served += found.served;
        faults.extend(found.faults.into_iter().map(|fault| format!("{error}, {times} times: {fault}")));
    }
    let calls = for_good(ground, &mut faults)?;
    for error in ["EBADF", "EINVAL", "ENOTSOCK"] {
        breaks(ground, error, &mut faults)?;
    }
    let done = format!("{} errors of `accept4`, {clients} clients each; for good; of a broken listener", CASES.len());
    let figures = format!(
        "{injected} calls failed, {served} clients served; failing for good: {calls} calls in {} s; a broken listener: \
         exit 1, and it says so",
        TIME.as_secs()
    );
    Ok(Report { done, figures, faults, ..Report::default() })
}

struct Found {
    injected: usize,
    served: usize,
    faults: Vec<String>,
}

/// Some calls fail, and then no more.
fn case(ground: &Ground, error: &str, times: u32, said: Said, clients: usize) -> Result<Found> {
    let mut strace = Injected::new(ground, "accept4", &format!("error={error}:when=1..{times}"))?;
    let loops = if times > 10 { "1" } else { "2" };
    let server = Server::start(strace.command.args(["--loops", loops]))?;
    let began = Instant::now();
    let answers = at_once(server.address, clients);
    let mut faults: Vec<_> = answers.iter().filter(|it| !matches!(it, Ok(200))).map(|it| format!("{it:?}")).collect();
    // When all of it has been said.
    let all = server.expect_clean_stop(&mut faults)?;
    let lines = all.iter().filter(|line| line.contains("cannot accept")).count() as u64;
    // Once a second at most, over all loops.
    let lines_max = if said == Said::Yes { began.elapsed().as_secs() + 1 } else { 0 };
    if lines > lines_max || (lines == 0 && said == Said::Yes) {
        faults.push(format!("it was said {lines} times, and {lines_max} times at most are due: {all:?}"));
    }
    let log = strace.log();
    if log.injected < times as usize {
        faults.push(format!("only {} calls were made to fail", log.injected));
    }
    Ok(Found { injected: log.injected, served: answers.iter().filter(|it| matches!(it, Ok(200))).count(), faults })
}

/// All of them at the same time, each on a connection of its own.
fn at_once(address: SocketAddr, clients: usize) -> Vec<std::io::Result<u16>> {
    thread::scope(|scope| {
        let ask = |number| if number % 2 == 0 { Ask::Ping } else { Ask::Bytes(100) };
        let clients: Vec<_> = (0..clients).map(|number| scope.spawn(move || ask(number).once(address))).collect();
        let joined = clients.into_iter().map(|client| client.join());
        joined.map(|joined| joined.unwrap_or_else(|_| Err(std::io::Error::other("it panicked")))).collect()
    })
}

/// Every call fails: no core is burnt, and the client that waits is answered at the stop or told to be cut off.
fn for_good(ground: &Ground, faults: &mut Vec<String>) -> Result<usize> {
    let mut strace = Injected::new(ground, "accept4", "error=EMFILE:when=1+")?;
    let server = Server::start(strace.command.args(["--loops", "2", "--grace", "1"]))?;
    let address = server.address;
    let client = thread::spawn(move || Ask::Ping.once(address));
    let began = Instant::now();
    while strace.log().calls == 0 && began.elapsed() < HANG {
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(TIME);
    let calls = strace.log().calls;
    if calls == 0 || calls > CALLS_MAX {
        faults.push(format!("EMFILE for good: {calls} calls in {TIME:?}, and {CALLS_MAX} may be"));
    }
    let end = server.stop()?;
    let answer = client.join().map_err(|_| "the client panicked")?;
    let last = end.last();
    let is_told = match answer {
        Ok(200) => end.code == Some(0),
        _ => end.code == Some(124) && last.contains(" 1 cut off"),
    };
    if !is_told {
        faults.push(format!("EMFILE for good: {answer:?}, and the end was {:?}, {last}", end.code));
    }
    Ok(calls)
}

/// The listener itself is broken: the group ends, and says why.
fn breaks(ground: &Ground, error: &str, faults: &mut Vec<String>) -> Result<()> {
    let mut strace = Injected::new(ground, "accept4", &format!("error={error}:when=1+"))?;
    let server = Server::start(strace.command.args(["--loops", "2", "--grace", "1"]))?;
    // It is in the queue of a listener that is broken, so nothing is due to it.
    let _ = Ask::Ping.once(server.address);
    let end = server.end()?;
    let is_said = end.has_said("stopping: listener") && end.last().starts_with("all out: listener");
    if end.code != Some(1) || !is_said {
        faults.push(format!("{error}: it ended with {:?}: {:?}", end.code, end.lines));
    }
    Ok(())
}
