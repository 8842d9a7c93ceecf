//! Everything at once: slow clients of each kind, keep-alive and one-shot clients, uploads held and refused, streams,
//! clients that vanish in the middle, panics. Memory and descriptors, sampled all the while, do not rise.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use allout_soak::client::{Client, Place};
use fastrand::Rng;

use crate::clients::{Ask, Fresh, get};
use crate::crowd::{Crowd, Deadlines, KINDS, Kind, Tally};
use crate::delays::Delays;
use crate::fit::{Rise, Sample, rise};
use crate::ground::Ground;
use crate::server::Server;
use crate::{Report, Result};

const SAMPLES: u32 = 200;
/// Caches, tables and the allocator's arenas fill up first.
const SETTLES: f64 = 0.4;
const CLIENTS: usize = 12;
/// Each client's pause, at most: the load is to be there for an hour, not to take the machine.
const PAUSE_MS: u64 = 20;

/// A client that stood still for so long is owed nothing: half of the shortest timeout.
const LATE: Duration = Duration::from_secs(1);

/// It rises if the line does so by more than three times its own standard error, and by more than this: samples that
/// follow each other are no strangers, so the error alone would see a slope in any slow wave. In ten seconds 20 bytes
/// that leak with each request show, and in an hour the fortieth part of a byte.
const RISE_KB: (f64, f64) = (2048.0, 1024.0);
/// Of the slow clients, who come and go. A descriptor that leaks shows at the end in any case, when all have gone.
const RISE_DESCRIPTORS: f64 = 0.25;

#[derive(Debug, Default)]
struct Counts {
    asked: AtomicU64,
    vanished: AtomicU64,
    late: AtomicU64,
    /// How many slow clients there are, and of these readers: each holds an answer in the server.
    slow: AtomicUsize,
    readers: AtomicUsize,
}

pub(crate) fn run(ground: &Ground) -> Result<Report> {
    let time = ground.form(Duration::from_secs(10), ground.mixed);
    let of_each = ground.form(20, 100);
    let deadlines = Deadlines::new([2, 3, 2, 4]);
    let server = Server::start(&mut Ground::giving_back(ground.timed(&deadlines.text())))?;
    Ask::Ping.once(server.address)?;
    let descriptors = server.descriptors()?;
    let (delays, counts, is_over) = (Delays::default(), Counts::default(), AtomicBool::new(false));
    let began = Instant::now();
    let (tally, fresh, clients, samples) = thread::scope(|scope| -> Result<_> {
        scope.spawn(|| delays.note(server.pid));
        let slow = scope.spawn(|| crowd(&server, deadlines, &delays, of_each, &counts, &is_over));
        let fresh = scope.spawn(|| Fresh::come(server.address, Duration::from_millis(20), &is_over));
        let client = |number| {
            let (address, delays, counts, is_over) = (server.address, &delays, &counts, &is_over);
            scope.spawn(move || life(address, Rng::with_seed(number as u64), delays, counts, is_over))
        };
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        let samples = sample(&server, &counts, began, time);
        is_over.store(true, Ordering::Relaxed);
        let tally = slow.join().map_err(|_| "the slow clients panicked")?;
        let fresh = fresh.join().map_err(|_| "the fresh clients panicked")?;
        let clients: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        delays.end();
        Ok((tally?, fresh, clients, samples?))
    })?;

    let (mut faults, mut rises) = (tally.faults, Vec::new());
    faults.extend(fresh.faults);
    for client in clients {
        faults.extend(client.map_err(|_| "a client panicked")?.err());
    }
    let descriptors_max = RISE_DESCRIPTORS * (KINDS.len() * of_each) as f64;
    let kb_max = ground.form(RISE_KB.0, RISE_KB.1);
    for (name, bound, line) in [("kB", kb_max, &samples.kb), ("descriptors", descriptors_max, &samples.descriptors)] {
        let Rise { value, error } = rise(line).ok_or("too few samples")?;
        rises.push(format!("{value:+.1} ± {error:.1} {name}"));
        if value > bound && value > 3.0 * error {
            faults.push(format!("it rises by {value:.1} ± {error:.1} {name}, and {bound} may be"));
        }
    }
    server.expect_descriptors(descriptors)?;
    server.expect_clean_stop(&mut faults)?;
    let cut: u64 = tally.cut.values().map(|(cut, _)| cut).sum();
    let figures = format!(
        "{} requests, {} of clients that stood still, {} vanished clients, {} fresh, {cut} slow ones cut; rises over \
         the samples: {}; last {:.0} kB",
        counts.asked.into_inner(),
        counts.late.into_inner(),
        counts.vanished.into_inner(),
        fresh.served,
        rises.join(", "),
        samples.kb.last().map_or(0.0, |sample| sample.value),
    );
    let done = format!("all of it at once for {} s, {of_each} slow ones of each kind", time.as_secs());
    Ok(Report { done, figures, faults, ..Report::default() })
}

#[derive(Debug, Default)]
struct Samples {
    kb: Vec<Sample>,
    descriptors: Vec<Sample>,
}

fn sample(server: &Server, counts: &Counts, began: Instant, time: Duration) -> Result<Samples> {
    let (mut samples, from) = (Samples::default(), time.mul_f64(SETTLES));
    let step = (time - from) / SAMPLES;
    thread::sleep(from);
    while began.elapsed() < time {
        let at = began.elapsed().as_secs_f64();
        let [readers, slow] = [&counts.readers, &counts.slow].map(|count| count.load(Ordering::Relaxed) as f64);
        samples.kb.push(Sample { at, value: server.resident_kb()? as f64, goes_with: readers });
        samples.descriptors.push(Sample { at, value: server.descriptors()? as f64, goes_with: slow });
        thread::sleep(step);
    }
    Ok(samples)
}

fn crowd(
    server: &Server,
    deadlines: Deadlines,
    delays: &Delays,
    of_each: usize,
    counts: &Counts,
    is_over: &AtomicBool,
) -> Result<Tally> {
    let mut crowd = Crowd::new(server.address, deadlines, delays);
    while !is_over.load(Ordering::Relaxed) {
        // A few at a time: all of them together would come and go in waves.
        crowd.fill_up(of_each, of_each / 10)?;
        crowd.look()?;
        counts.readers.store(crowd.count_of(Kind::Reader), Ordering::Relaxed);
        counts.slow.store(crowd.count(), Ordering::Relaxed);
        thread::sleep(Duration::from_millis(100));
    }
    Ok(crowd.tally)
}

/// One client after another, each of a kind of its own.
fn life(
    address: SocketAddr,
    mut rng: Rng,
    delays: &Delays,
    counts: &Counts,
    is_over: &AtomicBool,
) -> Result<(), String> {
    while !is_over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let kind = rng.u8(..8);
        let lived = match kind {
            0..3 => keep(address, &mut rng, counts),
            3 => Ask::Bytes(rng.usize(..100_000)).once(address).map(|status| status == 200),
            4 => upload(address, rng.usize(..200_000), 200),
            5 => upload(address, 2_000_000, 413),
            6 => vanish(address, &mut rng, counts),
            _ => panics(address),
        };
        counts.asked.fetch_add(1, Ordering::Relaxed);
        match lived {
            Ok(true) => {}
            // The server's timeouts are short here, and one ran out while this client or the server stood still.
            _ if delays.between(began, Instant::now()) > LATE => _ = counts.late.fetch_add(1, Ordering::Relaxed),
            other => return Err(format!("a client of kind {kind}: {other:?}")),
        }
        thread::sleep(Duration::from_millis(rng.u64(..PAUSE_MS)));
    }
    Ok(())
}

fn keep(address: SocketAddr, rng: &mut Rng, counts: &Counts) -> std::io::Result<bool> {
    let mut client = Client::connect(&Place::Tcp(address))?;
    for _ in 0..rng.usize(1..50) {
        let ask = if rng.bool() { Ask::Ping } else { Ask::Bytes(rng.usize(..2000)) };
        if ask.on(&mut client)? != (200, false) {
            return Ok(false);
        }
        counts.asked.fetch_add(1, Ordering::Relaxed);
    }
    client.send(&get("/stream/20")).1?;
    let stream = client.answer(false)?;
    Ok(stream.status == 200 && stream.length.is_none() && stream.body.ends_with(b"20\n"))
}

/// An upload that is answered, or refused by its length: it is not sent on then.
fn upload(address: SocketAddr, length: usize, due: u16) -> std::io::Result<bool> {
    let mut client = Client::connect(&Place::Tcp(address))?;
    let head = format!("POST /echo HTTP/1.1\r\nHost: battery\r\nContent-Length: {length}\r\n\r\n");
    client.send(head.as_bytes()).1?;
    if due == 200 {
        client.send(&vec![b'y'; length]).1?;
    }
    let answer = client.answer(false)?;
    Ok(answer.status == due && (due != 200 || answer.body.len() == length))
}

/// Goes in the middle: of a head, of a body, of an answer.
fn vanish(address: SocketAddr, rng: &mut Rng, counts: &Counts) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    let bytes = match rng.u8(..4) {
        0 => b"GET /ping HTT".to_vec(),
        1 => b"POST /echo HTTP/1.1\r\nHost: battery\r\nContent-Length: 500000\r\n\r\nsome".to_vec(),
        2 => get("/bytes/900000"),
        _ => get("/sleep/5"),
    };
    stream.write_all(&bytes)?;
    thread::sleep(Duration::from_millis(rng.u64(..3)));
    counts.vanished.fetch_add(1, Ordering::Relaxed);
    Ok(true)
}

fn panics(address: SocketAddr) -> std::io::Result<bool> {
    let mut client = Client::connect(&Place::Tcp(address))?;
    client.send(&get("/panic")).1?;
    let answer = client.answer(false)?;
    Ok(answer.status == 500 && answer.is_last && client.rest()? == 0)
}
