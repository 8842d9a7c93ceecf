//! 64 descriptors and 200 clients, round after round: each client is served or told, nobody hangs, and afterwards the
//! server serves on and holds what it held before.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use allout_soak::client::{Client, Place};

use crate::clients::{Ask, get};
use crate::ground::Ground;
use crate::server::Server;
use crate::{HANG, Report, Result};

const DESCRIPTORS: &str = "64";
const CLIENTS: usize = 200;
/// A connection that has rested for less may not be closed to make room: it is less than the idle grace.
const RESTED: Duration = Duration::from_millis(150);

#[derive(Debug, Default)]
struct Tally {
    answered: AtomicU64,
    refused: AtomicU64,
    made_room: AtomicU64,
}

pub(crate) fn run(ground: &Ground) -> Result<Report> {
    let rounds = ground.form(3, 100);
    // The soft limit and the hard one, and then the server in the shell's place.
    let script = format!("ulimit -n {DESCRIPTORS} && exec \"$0\" \"$@\"");
    let server = Server::start(&mut ground.demo_under("sh", &["-c", &script]))?;
    Ask::Ping.once(server.address)?;
    let base = server.descriptors()?;
    let (tally, began) = (Tally::default(), Instant::now());
    let (mut faults, mut most, mut slowest) = (Vec::new(), 0, Duration::ZERO);
    for round in 0..rounds {
        let began = Instant::now();
        let lives: Vec<_> = thread::scope(|scope| {
            let client = |number| {
                scope.spawn({
                    let tally = &tally;
                    move || live(number, server.address, tally)
                })
            };
            let clients: Vec<_> = (0..CLIENTS).map(client).collect();
            while clients.iter().any(|client| !client.is_finished()) {
                most = most.max(server.descriptors().unwrap_or_default());
                thread::sleep(Duration::from_millis(5));
            }
            clients
                .into_iter()
                .map(|client| client.join().unwrap_or_else(|_| Err("a client panicked".to_owned())))
                .collect()
        });
        slowest = slowest.max(began.elapsed());
        faults.extend(lives.into_iter().filter_map(Result::err).map(|fault| format!("round {round}: {fault}")));
        if let Err(error) = server.expect_descriptors(base) {
            faults.push(format!("round {round}: {error}"));
        }
        match Ask::Bytes(100).once(server.address) {
            Ok(200) => {}
            other => faults.push(format!("after round {round}: {other:?}")),
        }
        // Whoever hangs does so for a minute.
        if !faults.is_empty() {
            break;
        }
    }
    // When all of it has been said.
    let lines = server.expect_clean_stop(&mut faults)?;
    let said = lines.iter().filter(|line| line.contains("cannot accept")).count() as u64;
    let (answered, room) = (tally.answered.into_inner(), tally.made_room.into_inner());
    // Otherwise the trial has been none.
    if said + room == 0 {
        faults.push(format!("descriptors were never scarce: {most} at most"));
    }
    if said > began.elapsed().as_secs() + 1 {
        faults.push(format!("it said {said} times that it cannot accept, which is more than once a second"));
    }
    let figures = format!(
        "{answered} answered, {} told 503, {room} idle connections closed to make room; a round {:.1} s at most; \
         descriptors {base}, at most {most}; said {said} times",
        tally.refused.into_inner(),
        slowest.as_secs_f64(),
    );
    let done = format!("{DESCRIPTORS} descriptors, {CLIENTS} clients, {rounds} rounds");
    Ok(Report { done, figures, faults, ..Report::default() })
}

/// Three requests, which must be answered in the end. Between them one client in three rests, and its connection may be
/// closed meanwhile; one in three comes with a new connection each time.
fn live(number: usize, address: SocketAddr, tally: &Tally) -> Result<(), String> {
    let (rests, renews) = (number % 3 == 0, number % 3 == 1);
    let began = Instant::now();
    let (mut connection, mut answered) = (None, 0);
    while answered < 3 {
        if began.elapsed() > HANG {
            return Err(format!("client {number} has had {answered} answers of 3 in {HANG:?}"));
        }
        let mut client: Client = match connection.take() {
            Some(client) => client,
            None => Client::connect(&Place::Tcp(address)).map_err(|error| format!("client {number}: {error}"))?,
        };
        let is_first = !client.is_accepted;
        let (quiet, sent) = client.send(&get(if number % 2 == 0 { "/ping" } else { "/bytes/1000" }));
        let answer = sent.and_then(|()| client.answer(false));
        match answer {
            Ok(answer) if answer.status == 200 => {
                tally.answered.fetch_add(1, Ordering::Relaxed);
                answered += 1;
                connection = Some(client).filter(|_| !renews && !answer.is_last);
            }
            Ok(answer) if answer.status == 503 => _ = tally.refused.fetch_add(1, Ordering::Relaxed),
            Ok(answer) => return Err(format!("client {number} was told {}", answer.status)),
            // Closed while it rested; nothing of an answer can have come.
            Err(_) if !is_first && quiet > RESTED && !client.has_begun() => {
                tally.made_room.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                let what = if is_first { "new" } else { "kept" };
                return Err(format!("client {number} on a {what} connection, quiet for {quiet:?}: {error}"));
            }
        }
        if rests {
            thread::sleep(Duration::from_millis(400));
        }
    }
    Ok(())
}
