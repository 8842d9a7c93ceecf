//! Every member counts: when one ends, all end. That is right for a server and wrong
//! for a worker that is done before the others, an import for example. Such a worker
//! waits for the stop when it has finished, and only its failure ends the group. While
//! it works it looks at the stop between two pieces of work, so that none is torn.

use std::env::args;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use allout::{Config, GRACE, Group, MemberResult, Outcome, Server, Stop, signals};
use allout::{Response, Router};

fn import(lines: &str, sum: &AtomicUsize, stop: &Stop) -> MemberResult {
    for line in lines.lines() {
        if stop.is_set() {
            return Ok(()); // the rest is for the next start
        }
        sum.fetch_add(line.trim().parse()?, Relaxed);
    }
    stop.wait(); // finished: stay as long as the others do
    Ok(())
}

fn main() -> Result<Outcome, Box<dyn Error>> {
    let address = args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let lines = args().nth(2).unwrap_or("1\n2\n3\n".to_owned());
    let mut group = Group::new();
    let signals = signals::install(&group.stop())?;
    let server = Server::bind(address, Config::default())?;
    let sum = Arc::new(AtomicUsize::new(0));
    let read = Arc::clone(&sum);
    let router = Router::new()
        .get("/sum", move |_| Response::text(format!("{}\n", read.load(Relaxed))));
    group.add("import", move |stop| import(&lines, &sum, stop));
    group.add("http", move |stop| server.run(router, stop));
    group.add("signals", move |stop| signals.run(stop));
    Ok(group.run(GRACE))
}
