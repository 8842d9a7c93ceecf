//! Bytes in, bytes out: one table of requests, good and bad, in parts by what they are about. Each is sent whole, byte
//! by byte, cut in two at every place, and with another request right behind it. How the bytes were cut must make no
//! difference to the answer.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use allout::{Config, Method, Response, Router, Status};

use crate::support::{Client, HANG, PING, Site};

// Before the tables, which are written with its macros.
#[macro_use]
mod case;
mod attacks;
mod chunks;
mod connections;
mod fields;
mod framing;
mod requests;

use case::{Case, Closed, Done, Open, PONG_WIRE, TOO_LARGE, Waits, expected, routes, undated};

const ABOUT_HEADS: [&[Case]; 2] = [requests::CASES, fields::CASES];
const ABOUT_BODIES: [&[Case]; 4] = [framing::CASES, chunks::CASES, connections::CASES, attacks::CASES];

fn cases() -> impl Iterator<Item = &'static Case> {
    ABOUT_HEADS.into_iter().chain(ABOUT_BODIES).flatten()
}

fn router() -> Router {
    routes().post("/echo", |request| Response::bytes("application/octet-stream", request.body().to_vec()))
}

/// The same, but that the body is read as it arrives.
fn streaming_router() -> Router {
    routes().stream(Method::Post, "/echo", |_, body| {
        let mut bytes = Vec::new();
        match body.read_to_end(&mut bytes) {
            Ok(_) => Response::bytes("application/octet-stream", bytes),
            Err(_) => Response::text("never sent\n"),
        }
    })
}

// ---- Expect: 100-continue, which is a conversation -----------------------------------------------------------------

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

#[track_caller]
fn check_continue(head: &str, body: &str) {
    check_continue_on(router(), head, body);
    check_continue_on(streaming_router(), head, body);
}

#[track_caller]
fn check_continue_on(router: Router, head: &str, body: &str) {
    let site = Site::start(Config { loops: 1, ..Config::default() }, router);
    // The whole head at once, and byte by byte: the body is asked for once, and only when the head is complete.
    for pieces in [vec![head.as_bytes().to_vec()], cut(head.as_bytes(), 1..head.len())] {
        let mut client = site.connect();
        let mut barrier = Barrier(site.connect());
        for piece in pieces {
            client.send(piece);
            barrier.pass();
        }
        assert_eq!(client.reply().head, CONTINUE);
        // The body byte by byte: it is not asked for again. Then a request that expects nothing.
        for piece in cut(body.as_bytes(), 1..body.len()) {
            client.send(piece);
            barrier.pass();
        }
        let reply = client.reply();
        assert_eq!((reply.status, reply.text().as_str(), reply.is_last()), (200, "hello", false));
        assert_eq!(client.ask(PING).text(), "pong");
    }
    // A client that does not wait is answered like any other, and is asked for nothing that it has sent.
    let mut client = site.connect();
    client.send([head, body, PING].concat());
    assert_eq!([client.reply().text(), client.reply().text()], ["hello", "pong"]);
    client.finish();
    client.expect_fin();
}

#[test]
fn a_body_is_asked_for_once_by_a_client_that_waits() {
    check_continue(post!(["Expect: 100-continue", "Content-Length: 5"] ""), "hello");
    check_continue(
        post!(["expect: 100-Continue", "Transfer-Encoding: chunked"] ""),
        "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    );
}

#[test]
fn an_expectation_is_the_same_however_often_a_list_has_it() {
    check_continue(post!(["Expect: 100-continue,", "Content-Length: 5"] ""), "hello");
    check_continue(post!(["Expect:\t, ,100-continue", "Content-Length: 5"] ""), "hello");
    check_continue(post!(["Expect: 100-continue, 100-Continue", "Content-Length: 5"] ""), "hello");
    check_continue(post!(["Expect: 100-continue", "Expect: 100-continue", "Content-Length: 5"] ""), "hello");
    check_continue(post!(["Expect:", "Expect: 100-continue", "Content-Length: 5"] ""), "hello");
    check_continue(post!(["Expect: 100-continue", "Expect: ,", "Content-Length: 5"] ""), "hello");
}

#[test]
fn a_body_is_asked_for_behind_the_answers_before_it() {
    let site = Site::start(Config::default(), router());
    let mut client = site.connect();
    client.send([PING, post!(["Expect: 100-continue", "Content-Length: 5"] "")].concat());
    assert_eq!(client.reply().text(), "pong");
    assert_eq!(client.reply().head, CONTINUE);
    assert_eq!(client.ask("hello").text(), "hello");
}

#[test]
fn a_refused_body_that_comes_after_all_is_not_read_as_a_request() {
    let site = Site::start(Config { linger: HANG, ..Config::default() }, router());
    let mut client = site.connect();
    let reply = client.ask("POST /none HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 36\r\n\r\n");
    assert_eq!((reply.status, reply.is_last()), (404, true));
    client.send(PING);
    client.finish();
    client.expect_fin();
}

// ---- Sending -------------------------------------------------------------------------------------------------------

/// A case, sent in these pieces, each of which the server reads before the next is sent.
struct Play {
    case: &'static Case,
    pieces: Vec<Vec<u8>>,
    /// The last piece ends with another request.
    has_successor: bool,
}

impl Play {
    /// What the client sends against its word comes later than the answer.
    fn may_be_reset(&self) -> bool {
        self.case.end == Done && self.pieces.len() > 1
    }
}

/// Connections that are played at once.
const COMPANY: usize = 48;

/// Plays all, in lockstep, and tells which of them came out wrong.
fn play(plays: VecDeque<Play>) {
    play_on(router(), plays);
}

fn play_on(router: Router, mut plays: VecDeque<Play>) {
    // With one loop the answer to a later request shows that earlier bytes of other connections have been read. The
    // long linger is so that a slow machine cannot turn a FIN into a reset. A head or body is there for as many steps as
    // the longest of its company takes.
    let config = Config {
        loops: 1,
        linger: HANG,
        head_timeout: 20 * HANG,
        body_timeout: 20 * HANG,
        write_timeout: HANG,
        idle_timeout: 20 * HANG,
        ..Config::default()
    };
    let site = Site::start(config, router);
    let mut barrier = Barrier(site.connect());
    let mut wrong = Vec::new();
    while !plays.is_empty() {
        let batch: Vec<Play> = plays.drain(..COMPANY.min(plays.len())).collect();
        let mut streams: Vec<TcpStream> = batch.iter().map(|_| site.connect().stream).collect();
        barrier.pass();
        for step in 0..batch.iter().map(|play| play.pieces.len()).max().unwrap_or(0) {
            for (play, stream) in batch.iter().zip(&mut streams) {
                if let Some(piece) = play.pieces.get(step) {
                    let written = stream.write_all(piece);
                    assert!(written.is_ok() || play.may_be_reset(), "{}: {written:?}", play.case.name);
                }
            }
            barrier.pass();
        }
        for (play, stream) in batch.iter().zip(&mut streams) {
            if let Some(difference) = outcome(play, stream) {
                wrong.push(difference);
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
    drop(barrier);
    site.stop();
    assert_eq!(site.outcome().exit_code(), 0);
}

/// Compares what comes with what is expected; `None` if it is the same.
fn outcome(play: &Play, stream: &mut TcpStream) -> Option<String> {
    let mut wanted = expected(play.case);
    if play.case.end == Open {
        wanted += PONG_WIRE;
        if !play.has_successor {
            stream.write_all(PING.as_bytes()).unwrap();
        }
    }
    if matches!(play.case.end, Open | Waits) {
        // No server that is to keep the connection open may close it before we do.
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
    let mut came = Vec::new();
    let ended = stream.read_to_end(&mut came);
    let came = undated(&String::from_utf8_lossy(&came));
    if (ended.is_ok() || play.may_be_reset()) && came == wanted {
        return None;
    }
    let name = play.case.name;
    let pieces: Vec<usize> = play.pieces.iter().map(Vec::len).collect();
    Some(format!("{name}, in pieces of {pieces:?} ({ended:?}):\n  wanted {wanted:?}\n  came   {came:?}"))
}

/// Another connection, whose answers show that the loop has read what was sent before on others.
struct Barrier(Client);

impl Barrier {
    fn pass(&mut self) {
        // The first answer may have been on its way while the bytes came: a connection that waits in the accept queue
        // is read one round later, and a poller that tries all sockets in order may already have tried ours.
        for _ in 0..2 {
            assert_eq!(self.0.ask(PING).status, 200);
        }
    }
}

fn cut(input: &[u8], at: impl IntoIterator<Item = usize>) -> Vec<Vec<u8>> {
    let mut start = 0;
    let ends = at.into_iter().chain([input.len()]);
    ends.map(|end| input[std::mem::replace(&mut start, end)..end].to_vec()).collect()
}

/// Longer inputs are cut at fewer places.
const SHORT: usize = 600;

#[test]
fn requests_that_come_whole() {
    play(cases().map(|case| Play { case, pieces: vec![case.input.to_vec()], has_successor: false }).collect());
}

#[test]
fn requests_that_come_byte_by_byte() {
    let pieces = |input: &[u8]| cut(input, (1..input.len()).step_by(if input.len() <= SHORT { 1 } else { 61 }));
    play(cases().map(|case| Play { case, pieces: pieces(case.input), has_successor: false }).collect());
}

/// Two servers, so that both halves of the tables are played at the same time.
fn play_cut_anywhere(tables: &[&'static [Case]]) {
    let cuts = |case: &'static Case| {
        let places = (1..case.input.len()).step_by(if case.input.len() <= SHORT { 1 } else { 397 });
        places.map(move |at| Play { case, pieces: cut(case.input, [at]), has_successor: false })
    };
    let half = |first: usize| tables.iter().copied().flatten().skip(first).step_by(2).flat_map(cuts).collect();
    thread::scope(|scope| {
        scope.spawn(|| play(half(0)));
        scope.spawn(|| play(half(1)));
    });
}

#[test]
fn cases_about_heads_that_come_in_two_parts_cut_anywhere() {
    play_cut_anywhere(&ABOUT_HEADS);
}

#[test]
fn cases_about_bodies_that_come_in_two_parts_cut_anywhere() {
    play_cut_anywhere(&ABOUT_BODIES);
}

#[test]
fn bodies_that_are_read_as_they_arrive_have_the_same_answers() {
    // But for the limit of a body held in memory.
    let has_limit = |case: &&Case| case.answers.iter().any(|answer| answer.status == TOO_LARGE.status);
    let cases: Vec<_> = ABOUT_BODIES.into_iter().flatten().filter(|case| !has_limit(case)).collect();
    let whole = cases.iter().map(|case| Play { case, pieces: vec![case.input.to_vec()], has_successor: false });
    let each_byte = |input: &[u8]| cut(input, (1..input.len()).step_by(if input.len() <= SHORT { 1 } else { 61 }));
    let by_byte = cases.iter().map(|case| Play { case, pieces: each_byte(case.input), has_successor: false });
    let halves = |case: &'static Case| {
        let places = (1..case.input.len()).step_by(if case.input.len() <= SHORT { 7 } else { 397 });
        places.map(move |at| Play { case, pieces: cut(case.input, [at]), has_successor: false })
    };
    let cut = cases.iter().copied().flat_map(halves);
    play_on(streaming_router(), whole.chain(by_byte).chain(cut).collect());
}

#[test]
fn requests_with_another_right_behind_them() {
    // What waits for more would take the successor for it.
    let whole = cases().filter(|case| matches!(case.end, Open | Closed | Done));
    let with_successor = |input: &[u8]| vec![[input, PING.as_bytes()].concat()];
    play(whole.map(|case| Play { case, pieces: with_successor(case.input), has_successor: true }).collect());
}
