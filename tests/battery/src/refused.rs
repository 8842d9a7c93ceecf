//! No more threads: from the first, the second, … on that any thread starts. The server does not start, and says why,
//! or answers every request or refuses it, and stops cleanly.

use std::io::ErrorKind;
use std::thread;

use crate::clients::Ask;
use crate::ground::Ground;
use crate::server::Server;
use crate::strace::{self, Injected};
use crate::{Report, Result};

const CLIENTS: usize = 24;
const NO_THREAD: &str = "cannot start its thread";
const EAGAIN: &str = "Resource temporarily unavailable";

pub(crate) fn run(ground: &Ground) -> Result<Report> {
    if let Some(why) = strace::missing() {
        return Ok(Report { figures: "none".to_owned(), skipped: vec![why], ..Report::default() });
    }
    let from_max = ground.form(8, 24);
    let (mut faults, mut started, mut refused, mut counts) = (Vec::new(), 0, 0, [0; 3]);
    for from in 1..=from_max {
        let mut strace = Injected::new(ground, "clone3", &format!("error=EAGAIN:when={from}+"))?;
        let mut fault = |what: String| faults.push(format!("from thread {from} on: {what}"));
        match Server::try_start(strace.command.args(["--loops", "2"]))? {
            Ok(server) => {
                started += 1;
                let answers = ask(&server);
                let end = server.stop()?;
                // The server started, but another member of its group could not, and has ended it.
                let is_cut_short = end.code == Some(1) && end.has_said(NO_THREAD) && end.last().contains(" 0 cut off;");
                if !end.is_clean() && !is_cut_short {
                    fault(format!("it ended with {end:?}"));
                }
                for answer in answers {
                    match answer {
                        Ok(200) => counts[0] += 1,
                        Ok(503) => counts[1] += 1,
                        Err(error) if is_cut_short && error.kind() == ErrorKind::ConnectionRefused => counts[2] += 1,
                        other => fault(format!("a request: {other:?}")),
                    }
                }
            }
            Err(end) if end.code == Some(1) && end.has_said(EAGAIN) => {}
            Err(end) => fault(format!("{end:?}")),
        }
        refused += strace.log().injected;
    }
    let [served, told, unconnected] = counts;
    if refused == 0 || started == 0 || started == from_max {
        faults.push(format!("{refused} threads were refused, and it started {started} times of {from_max}"));
    }
    let done = format!("threads refused from the 1st to the {from_max}th on");
    let figures = format!(
        "{refused} refused; {started} of {from_max} times it started; of {} requests {served} served, {told} told 503, \
         {unconnected} not connected",
        started * CLIENTS
    );
    Ok(Report { done, figures, faults, ..Report::default() })
}

/// Slow handlers and quick ones, all at the same time: more than there are loops to run them.
fn ask(server: &Server) -> Vec<std::io::Result<u16>> {
    let address = server.address;
    let ask = |number: usize| match number % 3 {
        0 => Ask::Ping,
        1 => Ask::Bytes(1000),
        _ => Ask::Sleep(50),
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || ask(number).once(address))).collect();
        let joined = clients.into_iter().map(|client| client.join());
        joined.map(|joined| joined.unwrap_or_else(|_| Err(std::io::Error::other("it panicked")))).collect()
    })
}
