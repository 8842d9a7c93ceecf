//! Every limit: what happens just below it and just above, and that nobody else notices who crosses one.

use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use allout::{BodyPlan, Config, Handler, Request, Response, Router, Server};

use crate::support::{Client, Gate, HANG, PING, Site, at_once, poll};

/// Long enough to be told from "at once", short enough to be waited for.
const SHORT: Duration = Duration::from_millis(200);

fn router() -> Router {
    Router::new()
        .get("/ping", |_| Response::text("pong"))
        .post("/echo", |request| Response::bytes("application/octet-stream", request.body().to_vec()))
        .get("/users/{id}", |request| Response::text(request.param("id").unwrap_or_default().into_owned()))
}

/// One loop, so that an answer on one connection shows that what came before on another has been seen; and no clock
/// that runs out by itself.
fn patient() -> Config {
    Config {
        loops: 1,
        head_timeout: HANG,
        body_timeout: HANG,
        idle_timeout: HANG,
        write_timeout: HANG,
        linger: HANG,
        ..Config::default()
    }
}

// ---- Sizes ---------------------------------------------------------------------------------------------------------

fn sizes() -> Config {
    Config { head_bytes_max: 1000, fields_max: 10, target_bytes_max: 60, body_bytes_max: 100, ..patient() }
}

/// A request that is at a limit is answered and the connection goes on; one that is one above is refused.
#[track_caller]
fn check_size(status_above: u16, at: impl Fn(usize) -> String, limit: usize) {
    let site = Site::start(sizes(), |_: &Request<'_>| Response::text("fine"));
    let mut client = site.connect();
    for size in [limit - 1, limit] {
        let reply = client.ask(at(size));
        assert_eq!((reply.status, reply.is_last()), (200, false), "{size} of {limit}: {}", reply.text());
    }
    let reply = client.ask(at(limit + 1));
    assert_eq!((reply.status, reply.is_last()), (status_above, true), "{limit} and one more");
    client.finish();
    client.expect_fin();
}

/// A request of so many bytes without a body.
fn head_of(size: usize) -> String {
    let bare = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
    format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(size - bare))
}

#[test]
fn a_head_is_limited_in_bytes() {
    check_size(431, head_of, 1000);
    // Empty lines before it count too.
    check_size(431, |size| format!("\r\n\r\n{}", head_of(size - 4)), 1000);
}

#[test]
fn a_head_is_limited_in_fields() {
    check_size(431, |count| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1)), 10);
}

#[test]
fn a_target_is_limited() {
    check_size(414, |size| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(size - 1)), 60);
    check_size(414, |size| format!("GET /?{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(size - 2)), 60);
    check_size(414, |size| format!("GET http://a/{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(size - 9)), 60);
}

#[test]
fn a_target_that_does_not_end_is_refused_before_its_head_is_whole() {
    let site = Site::start(sizes(), router());
    let reply = site.connect().ask(format!("GET /{}", "x".repeat(60)));
    assert_eq!((reply.status, reply.text().as_str()), (414, "request target too long\n"));
}

#[test]
fn a_body_is_limited_by_length_and_in_chunks() {
    let body = |size: usize| "x".repeat(size);
    check_size(413, |size| format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n{}", body(size)), 100);
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    check_size(413, |size| format!("{chunked}{size:x}\r\n{}\r\n0\r\n\r\n", body(size)), 100);
    // In chunks of one byte, of which only the last is too much.
    check_size(413, |size| format!("{chunked}{}0\r\n\r\n", "1;ext\r\nx\r\n".repeat(size)), 100);
}

#[test]
fn trailers_are_limited() {
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n";
    check_size(431, |count| format!("{chunked}{}\r\n", "X: y\r\n".repeat(count)), 10);
    check_size(431, |size| format!("{chunked}X: {}\r\n\r\n", "x".repeat(size - "X: \r\n\r\n".len())), 1000);
}

#[test]
fn a_body_that_is_too_large_is_not_asked_for() {
    let site = Site::start(sizes(), router());
    let mut client = site.connect();
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n";
    let reply = client.ask(format!("{head}Content-Length: 101\r\n\r\n"));
    assert_eq!((reply.status, reply.is_last()), (413, true), "the first answer is no 100");
    client.finish();
    client.expect_fin();
    // Of a chunked one it is not known before it comes.
    let mut client = site.connect();
    assert_eq!(client.ask(format!("{head}Transfer-Encoding: chunked\r\n\r\n")).status, 100);
    assert_eq!(client.ask("65\r\n").status, 413);
}

#[test]
fn a_refusal_reaches_a_client_that_goes_on_sending() {
    let site = Site::start(sizes(), router());
    let mut client = site.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4194304\r\n\r\n");
    // More than the buffers of both sides hold: the server must go on reading what it does not want.
    client.send(vec![b'x'; 4 * 1024 * 1024]);
    assert_eq!(client.reply().status, 413);
    client.finish();
    client.expect_fin();
}

#[test]
fn a_large_response_arrives_whole() {
    const SIZE: usize = 16 * 1024 * 1024;
    let pattern = |at: usize| (at / 4096 + at % 251).to_le_bytes()[0];
    let site = Site::start(patient(), move |request: &Request<'_>| match request.raw_path() {
        "/large" => Response::bytes("application/octet-stream", (0..SIZE).map(pattern).collect::<Vec<u8>>()),
        _ => Response::text("pong"),
    });
    let mut client = site.connect();
    client.send(["GET /large HTTP/1.1\r\nHost: a\r\n\r\n", PING].concat());
    let reply = client.reply();
    assert_eq!((reply.status, reply.body.len()), (200, SIZE));
    assert!(reply.body.iter().enumerate().all(|(at, byte)| *byte == pattern(at)));
    assert_eq!(client.reply().text(), "pong");
}

// ---- Clocks --------------------------------------------------------------------------------------------------------

/// Sends `bytes` again and again, a little at a time, until the server has something to say or the end to tell.
fn trickle(client: &mut Client, bytes: &str) {
    let start = Instant::now();
    // The pace of the trickle: much shorter than any limit that it must not renew.
    client.stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    while matches!(client.stream.peek(&mut [0]), Err(error) if is_timeout(&error)) {
        assert!(start.elapsed() < HANG, "a trickle keeps the connection open");
        if client.stream.write_all(bytes.as_bytes()).is_err() {
            break;
        }
    }
    client.stream.set_read_timeout(Some(HANG)).unwrap();
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A clock of this length has run. The loop reads the time once a round, so that a clock can have begun a little before
/// the byte that it is for.
fn has_run(start: Instant) -> bool {
    start.elapsed() >= SHORT / 2
}

#[track_caller]
fn check_timeout(config: Config, begin: &str, more: &str) {
    let site = Site::start(config, router());
    let ask = &|before: &str, more: &str| {
        let mut client = site.connect();
        if !before.is_empty() {
            assert_eq!(client.ask(before).status, 200);
        }
        let start = Instant::now();
        client.send(begin);
        trickle(&mut client, more);
        let reply = client.reply();
        assert!(has_run(start), "not before its time: {:?}", start.elapsed());
        assert_eq!((reply.status, reply.is_last()), (408, true));
        client.finish();
        client.expect_fin();
    };
    // A request before shows that the clock starts with the first byte, not with the connection; and one client says
    // nothing more, the other a little again and again.
    std::thread::scope(|scope| {
        for (before, more) in [("", ""), ("", more), (PING, ""), (PING, more)] {
            scope.spawn(move || ask(before, more));
        }
    });
}

#[test]
fn a_head_that_takes_too_long_is_answered_408() {
    let config = || Config { head_timeout: SHORT, ..patient() };
    let heads = [("G", ""), ("GET /ping HTTP/1.1\r\nX: ", "x"), ("GET /ping HTTP/1.1\r\nHost: a\r\n", "X: y\r\n")];
    at_once(heads, |(begin, more)| check_timeout(config(), begin, more));
}

#[test]
fn a_body_that_takes_too_long_is_answered_408() {
    let config = || Config { body_timeout: SHORT, ..patient() };
    let bodies = [
        ("Content-Length: 99999\r\n\r\n", "x"),
        ("Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"),
        ("Transfer-Encoding: chunked\r\n\r\n1;", "x"),
    ];
    at_once(bodies, |(begin, more)| {
        check_timeout(config(), &format!("POST /echo HTTP/1.1\r\nHost: a\r\n{begin}"), more);
    });
}

#[test]
fn a_body_has_its_own_time_after_the_head_had_its() {
    // The body comes when the head's time is long over.
    let site = Site::start(Config { head_timeout: SHORT, ..patient() }, router());
    let mut client = site.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    // Another connection runs into the head's limit meanwhile, and started later.
    let mut other = site.connect();
    assert_eq!(other.ask("GET").status, 408);
    assert_eq!(client.ask("hello").text(), "hello");
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let site = Site::start(Config { idle_timeout: SHORT, ..patient() }, router());
    at_once(["", PING], |before| {
        let closed = || {
            let mut client = site.connect();
            let start = Instant::now();
            client.send(before);
            if !before.is_empty() {
                match client.next_reply(false) {
                    Some(reply) => assert_eq!(reply.status, 200),
                    // One that the machine left standing before it asked was idle by then, and has to come again.
                    None => {
                        assert!(has_run(start));
                        return None;
                    }
                }
            }
            client.expect_fin();
            assert!(has_run(start));
            Some(())
        };
        poll(closed).expect("a client that asks in time");
    });
}

#[test]
fn empty_lines_do_not_keep_a_connection() {
    let site = Site::start(Config { idle_timeout: SHORT, ..patient() }, router());
    let mut client = site.connect();
    let start = Instant::now();
    trickle(&mut client, "\r\n");
    assert!(has_run(start));
    client.expect_end();
}

#[test]
fn a_client_that_never_ends_is_left_after_its_last_answer() {
    // There is room for one: the next is served when the first has gone.
    let config = Config { linger: SHORT, linger_max: 2 * SHORT, connections_max: 1, ..patient() };
    at_once(["", "x"], |more| {
        let site = Site::start(config.clone(), router());
        let mut client = site.connect();
        let start = Instant::now();
        // Its body shows that a client may have more to send although it has said that it goes.
        assert_eq!(client.ask("POST /echo HTTP/1.0\r\nContent-Length: 1\r\n\r\na").status, 200);
        client.expect_fin();
        let next = || {
            // What it still sends is thrown away, and wins it time up to a limit; in the end it is reset.
            let _ = client.stream.write(more.as_bytes());
            (site.connect().ask(PING).status == 200).then_some(())
        };
        // At a pace: of many that are refused at the same time, some get no answer.
        poll(next).expect("the next is served");
        assert!(has_run(start));
    });
}

// ---- Slow readers --------------------------------------------------------------------------------------------------

/// More than the buffers of both sides hold as long as the reader is slow.
const LARGE: usize = 16 * 1024 * 1024;

/// A site that answers at large, and tells when an answer has left or was lost.
fn large_site(config: Config) -> (Site, mpsc::Receiver<()>) {
    let (sender, left) = mpsc::channel();
    let site = Site::start(config, move |request: &Request<'_>| {
        let sender = sender.clone();
        match request.raw_path() {
            "/large" => Response::bytes("application/octet-stream", vec![b'x'; LARGE]).on_sent(move || {
                // The test may have ended.
                let _ = sender.send(());
            }),
            _ => Response::text("pong"),
        }
    });
    (site, left)
}

/// A client whose system takes little ahead of it, and who has asked for the large answer.
fn ask_for_large(site: &Site) -> Client {
    let mut client = site.connect();
    #[cfg(unix)]
    nix::sys::socket::setsockopt(&client.stream, nix::sys::socket::sockopt::RcvBuf, &(64 * 1024)).unwrap();
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    client
}

/// Reads until the end: how many bytes came.
fn read_all(client: &mut Client) -> usize {
    let mut bytes = Vec::new();
    // A reset ends it too.
    let _ = client.stream.read_to_end(&mut bytes);
    bytes.len()
}

#[test]
fn a_client_that_does_not_take_its_answer_is_cut() {
    let (site, left) = large_site(Config { write_timeout: SHORT, ..patient() });
    let start = Instant::now();
    let mut client = ask_for_large(&site);
    left.recv_timeout(HANG).unwrap();
    assert!(has_run(start));
    assert!(read_all(&mut client) < LARGE);
    assert_eq!(site.connect().ask(PING).text(), "pong");
}

#[test]
fn a_client_that_takes_a_trickle_is_cut() {
    let (site, left) = large_site(Config { write_timeout: SHORT, ..patient() });
    let mut client = ask_for_large(&site);
    let start = Instant::now();
    // Far below the rate. The pause is the client's pace.
    while let Err(mpsc::RecvTimeoutError::Timeout) = left.recv_timeout(Duration::from_millis(20)) {
        assert!(start.elapsed() < HANG, "a trickle keeps the connection open");
        let _ = client.stream.read(&mut [0; 16]);
    }
    assert!(has_run(start));
    assert!(read_all(&mut client) < LARGE);
}

#[test]
fn a_client_that_reads_slowly_but_above_the_rate_gets_it_all() {
    const TIMEOUT: Duration = Duration::from_millis(400);
    // A machine that stalls the client for too long makes it a client that does not read: then it tries again.
    for _ in 0..5 {
        let (site, _left) = large_site(Config { write_timeout: TIMEOUT, ..patient() });
        let mut client = ask_for_large(&site);
        let (start, mut last, mut pause_max) = (Instant::now(), Instant::now(), Duration::ZERO);
        let mut count = 0;
        let mut bytes = vec![0; 16 * 1024];
        while start.elapsed() < TIMEOUT * 3 {
            // 16 KiB each 25 ms: a slow reader, but 160 times as fast as the slowest that is to be served. The pause is
            // its pace.
            std::thread::sleep(Duration::from_millis(25));
            match client.stream.read(&mut bytes) {
                Ok(read) if read > 0 => count += read,
                _ => break,
            }
            pause_max = pause_max.max(last.elapsed());
            last = Instant::now();
        }
        count += read_all_but_end(&mut client, count);
        if count > LARGE {
            return;
        }
        assert!(pause_max >= TIMEOUT / 4, "cut after {count} bytes and {:?}", start.elapsed());
    }
}

/// Reads on until the large answer is whole or the connection ends.
fn read_all_but_end(client: &mut Client, had: usize) -> usize {
    let mut count = 0;
    let mut bytes = vec![0; 64 * 1024];
    while had + count <= LARGE {
        match client.stream.read(&mut bytes) {
            Ok(read) if read > 0 => count += read,
            _ => break,
        }
    }
    count
}

#[test]
fn a_client_that_vanishes_while_it_is_answered_costs_nothing() {
    let (site, left) = large_site(Config { connections_max: 2, ..patient() });
    for _ in 0..4 {
        let mut client = ask_for_large(&site);
        assert!(client.stream.read(&mut [0; 16]).unwrap() > 0);
        // With bytes unread this is a reset.
        drop(client);
        left.recv_timeout(HANG).unwrap();
    }
    assert_eq!(site.connect().ask(PING).text(), "pong");
}

// ---- Connections ---------------------------------------------------------------------------------------------------

#[test]
fn the_longest_idle_connection_makes_room() {
    let site = Site::start(Config { loops: 1, connections_max: 3, ..patient() }, router());
    let mut clients: Vec<Client> = (0..3).map(|_| site.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.ask(PING).text(), "pong");
    }
    // The second becomes the one that was served last; then the first and the third have to go, in this order.
    assert_eq!(clients[1].ask(PING).text(), "pong");
    let mut fourth = site.connect();
    assert_eq!(fourth.ask(PING).text(), "pong");
    clients[0].expect_fin();
    let mut fifth = site.connect();
    assert_eq!(fifth.ask(PING).text(), "pong");
    clients[2].expect_fin();
    for client in [&mut clients[1], &mut fourth, &mut fifth] {
        assert_eq!(client.ask(PING).text(), "pong");
    }
}

#[test]
fn an_idle_connection_of_any_loop_makes_room() {
    let site = Site::start(Config { loops: 2, connections_max: 4, ..patient() }, router());
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..40 {
        let mut client = site.connect();
        assert_eq!(client.ask(PING).text(), "pong");
        clients.push(client);
    }
}

#[test]
fn the_longest_idle_connection_makes_room_whichever_loop_has_it() {
    for _ in 0..20 {
        let site = Site::start(Config { loops: 2, connections_max: 8, ..patient() }, router());
        let mut clients: Vec<Client> = (0..8).map(|_| site.connect()).collect();
        // The first is idle from now on. Each loop has others too, and serves them once more: so the first one's has
        // told the other how long its own have been idle.
        for client in &mut clients {
            assert_eq!(client.ask(PING).text(), "pong");
        }
        for client in &mut clients[1..] {
            assert_eq!(client.ask(PING).text(), "pong");
        }
        let mut newcomer = site.connect();
        assert_eq!(newcomer.ask(PING).text(), "pong");
        clients[0].expect_fin();
        for client in &mut clients[1..] {
            assert_eq!(client.ask(PING).text(), "pong");
        }
    }
}

#[track_caller]
fn check_full(loops: usize, begin: &str, end: &str) {
    let site = Site::start(Config { loops, connections_max: 2, ..patient() }, router());
    let mut clients = [site.connect(), site.connect()];
    for client in &mut clients {
        // In one piece with a request before it: its answer shows that what follows has been read.
        assert_eq!(client.ask([PING, begin].concat()).text(), "pong");
    }
    for _ in 0..3 {
        let mut refused = site.connect();
        let reply = refused.reply();
        assert_eq!((reply.status, reply.header("retry-after"), reply.is_last()), (503, Some("1"), true));
        assert_eq!(reply.text(), "too many connections\n");
        refused.finish();
        refused.expect_fin();
    }
    for client in &mut clients {
        assert_eq!(client.ask(end).status, 200);
    }
    // Now they are idle, and one of them makes room: at the latest when their loop has said so, behind its next wait.
    poll(|| (site.connect().ask(PING).text() == "pong").then_some(())).expect("there is room");
}

#[test]
fn with_no_connection_idle_a_newcomer_is_answered_503() {
    for loops in [1, 2] {
        check_full(loops, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel", "lo");
        check_full(loops, "GET /ping HTTP/1.1\r\nHo", "st: a\r\n\r\n");
    }
}

#[test]
fn connections_with_a_running_handler_make_no_room() {
    let gate = Gate::new();
    let waits = gate.clone();
    let router = router().get("/wait", move |_| {
        waits.pass();
        Response::text("waited")
    });
    let site = Site::start(Config { connections_max: 2, ..patient() }, router);
    let mut clients = [site.connect(), site.connect()];
    for client in &mut clients {
        client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    gate.wait_for(2);
    let reply = site.connect().reply();
    assert_eq!((reply.status, reply.header("retry-after"), reply.is_last()), (503, Some("1"), true));
    gate.open();
    for client in &mut clients {
        assert_eq!(client.reply().text(), "waited");
    }
    poll(|| (site.connect().ask(PING).text() == "pong").then_some(())).expect("there is room");
}

/// Keeps its event loop itself from going on, until the gate is open: by the one question that is asked on it.
struct Blocking(Gate);

impl Handler for Blocking {
    fn handle(&self, _: &Request<'_>) -> Response {
        Response::text("fine")
    }

    fn body_plan(&self, _: &Request<'_>) -> BodyPlan {
        self.0.pass();
        BodyPlan::Hold
    }
}

#[test]
fn a_burst_of_newcomers_does_not_make_room_among_itself() {
    let gate = Gate::new();
    let site = Site::start(Config { connections_max: 4, ..patient() }, Blocking(gate.clone()));
    let mut first = site.connect();
    first.send("POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n");
    gate.wait_for(1);
    // All of them have sent a whole request before any is looked at.
    let mut clients: Vec<Client> = (0..24).map(|_| site.connect()).collect();
    for client in &mut clients {
        client.send(PING);
    }
    gate.open();
    assert_eq!(first.reply().status, 100);
    assert_eq!(first.ask("x").text(), "fine");
    let answers: Vec<_> = clients.iter_mut().map(|client| client.next_reply(false).map(|reply| reply.status)).collect();
    let unanswered = answers.iter().filter(|answer| !matches!(answer, Some(200 | 503))).count();
    assert_eq!(unanswered, 0, "sent a request, and neither got an answer nor a refusal: {answers:?}");
}

/// Each way in which a client can go.
#[derive(Clone, Copy, Debug)]
enum Going {
    /// FIN in its direction; it reads on.
    HalfClosed,
    /// Closed: FIN, and a reset for whatever comes.
    Closed,
    #[cfg(unix)]
    Reset,
}

#[test]
fn a_client_that_goes_in_the_middle_of_a_request_leaves_nothing_behind() {
    const REQUESTS: [&str; 3] = [
        PING,
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nA: b\r\n\r\n",
    ];
    let ways = [
        Going::HalfClosed,
        Going::Closed,
        #[cfg(unix)]
        Going::Reset,
    ];
    // None that is in the middle of a request makes room: what stayed would soon take all places.
    let site = Site::start(Config { connections_max: 3, ..patient() }, router());
    let mut other = site.connect();
    for request in REQUESTS {
        for (at, way) in (1..=request.len()).flat_map(|at| ways.map(|way| (at, way))) {
            let mut client = site.connect();
            client.send(&request[..at]);
            if at % 2 == 0 {
                // Half of them go only after their bytes have been read.
                assert_eq!(other.ask(PING).text(), "pong");
            }
            match way {
                Going::HalfClosed => {
                    client.finish();
                    let reply = client.next_reply(false);
                    assert_eq!(
                        reply.map(|reply| reply.status),
                        (at == request.len()).then_some(200),
                        "{at} of {request:?}"
                    );
                    client.expect_fin();
                }
                Going::Closed => drop(client),
                #[cfg(unix)]
                Going::Reset => {
                    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                    nix::sys::socket::setsockopt(&client.stream, nix::sys::socket::sockopt::Linger, &linger).unwrap();
                    drop(client);
                }
            }
            // Twice, so that its end has been seen, whatever the order in which the server looks.
            for _ in 0..2 {
                assert_eq!(other.ask(PING).text(), "pong", "{at} of {request:?}, {way:?}");
            }
        }
    }
    // All places are free: three connections can be in the middle of a request.
    drop(other);
    let mut clients: Vec<Client> = (0..3).map(|_| site.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.ask([PING, "GET"].concat()).text(), "pong");
    }
    for client in &mut clients {
        assert_eq!(client.ask(" /ping HTTP/1.1\r\nHost: a\r\n\r\n").text(), "pong");
    }
}

// ---- Pipelining ----------------------------------------------------------------------------------------------------

#[test]
fn a_hundred_requests_in_one_write_are_answered_in_order() {
    let site = Site::start(patient(), router());
    let mut client = site.connect();
    client.send((0..100).map(|n| format!("GET /users/{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect::<String>());
    for n in 0..100 {
        assert_eq!(client.reply().text(), n.to_string());
    }
}

#[test]
fn pipelined_answers_larger_than_the_buffers_come_whole_and_in_order() {
    let site = Site::start(patient(), |request: &Request<'_>| {
        let digit = request.raw_path().as_bytes()[1];
        Response::bytes("application/octet-stream", vec![digit; 3 * 1024 * 1024])
    });
    let mut client = site.connect();
    client.send((0..10).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect::<String>());
    for digit in b'0'..=b'9' {
        let reply = client.reply();
        assert!(reply.body.len() == 3 * 1024 * 1024 && reply.body.iter().all(|byte| *byte == digit));
    }
}

/// Writes without reading until the server stops taking: how many bytes it took.
fn write_until_blocked(client: &mut Client, bytes: &[u8]) -> usize {
    // If nothing is taken for so long it has stopped; on a slow machine that may be said too early, and the test then
    // shows less.
    client.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut count = 0;
    loop {
        match client.stream.write(&bytes[count % bytes.len()..]) {
            Ok(written) => count += written,
            Err(error) if is_timeout(&error) => return count,
            Err(error) => panic!("{error}"),
        }
        assert!(count < 256 * 1024 * 1024, "the server reads on although nobody takes its answers");
    }
}

#[test]
fn a_client_that_asks_without_reading_is_not_read_from_for_ever() {
    let site = Site::start(patient(), router());
    let mut client = site.connect();
    let batch = PING.repeat(1000);
    let count = write_until_blocked(&mut client, batch.as_bytes());
    // Others are served meanwhile, by the same loop.
    assert_eq!(site.connect().ask(PING).text(), "pong");
    // When it begins to read after all, every request that it has wholly sent is answered.
    client.finish();
    let mut wire = Vec::new();
    client.stream.read_to_end(&mut wire).unwrap();
    let answers = wire.windows(4).filter(|window| window == b"pong").count();
    assert_eq!(answers, count / PING.len());
}

// ---- Panics --------------------------------------------------------------------------------------------------------

#[test]
fn handlers_that_panic_cost_nobody_else_anything() {
    let (sender, notices) = mpsc::channel();
    let server = Server::bind("127.0.0.1:0", patient()).unwrap();
    let server = server.on_notice(move |notice| sender.send(notice.to_string()).unwrap());
    // Without the panic hook, which would fill the test's output.
    let router = router().get("/panic/{n}", |request| -> Response {
        let text = format!("number {}", request.param("n").unwrap_or_default());
        std::panic::resume_unwind(Box::new(text))
    });
    let site = Site::run(server, router, HANG);
    let mut other = site.connect();
    let mut half = site.connect();
    half.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel");
    for n in 0..10 {
        let mut client = site.connect();
        // What is pipelined behind it is not answered.
        let reply = client.ask(format!("GET /panic/{n}?secret HTTP/1.1\r\nHost: a\r\n\r\n{PING}"));
        assert_eq!((reply.status, reply.text().as_str(), reply.is_last()), (500, "internal server error\n", true));
        client.finish();
        client.expect_fin();
        assert_eq!(notices.recv_timeout(HANG).unwrap(), format!("handler of GET /panic/{n} panicked: number {n}"));
        assert_eq!(other.ask(PING).text(), "pong");
    }
    // The handler of GET is asked, but not for a body.
    let mut client = site.connect();
    client.send("HEAD /panic/head HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.reply_to_head().status, 500);
    client.finish();
    client.expect_fin();
    assert_eq!(half.ask("lo").text(), "hello");
    assert_eq!(notices.try_iter().count(), 1);
}

#[test]
fn a_listener_to_notices_that_panics_costs_nothing() {
    let server = Server::bind("127.0.0.1:0", patient()).unwrap();
    let server = server.on_notice(|_| std::panic::resume_unwind(Box::new("no")));
    let site = Site::run(server, router(), HANG);
    for _ in 0..3 {
        assert_eq!(site.connect().ask("BAD\r\n\r\n").status, 400);
    }
    assert_eq!(site.connect().ask(PING).text(), "pong");
}

// ---- Unix sockets --------------------------------------------------------------------------------------------------

#[cfg(unix)]
mod unix {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn ask(path: &std::path::Path, request: &str) -> String {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut wire = String::new();
        stream.read_to_string(&mut wire).unwrap();
        wire
    }

    #[test]
    fn a_unix_socket_has_the_same_limits() {
        let path = std::env::temp_dir().join(format!("allout-limits-{}.sock", std::process::id()));
        let addresses = ["127.0.0.1:0".to_owned(), format!("unix:{}", path.display())];
        let server = Server::bind(&addresses, patient()).unwrap();
        let router = router().get("/who", |request| {
            assert!(request.peer().is_local());
            Response::text(request.peer().to_string())
        });
        let site = Site::run(server, router, HANG);
        let wire = ask(&path, "GET /who HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(wire.starts_with("HTTP/1.1 200 OK\r\n") && wire.ends_with("\r\n\r\nunix socket"), "{wire}");
        let two = ask(&path, &PING.repeat(2));
        assert_eq!(two.matches("pong").count(), 2, "{two}");
        let refused = ask(&path, &format!("GET /{} HTTP/1.1\r\n", "x".repeat(9000)));
        assert!(refused.starts_with("HTTP/1.1 414 "), "{refused}");
        assert_eq!(ask(&path, "GET /pi"), "");
        site.stop();
        assert_eq!(site.outcome().exit_code(), 0);
        assert!(!path.exists(), "its file is removed");

        // Its clocks. The idle one is that of a server of its own: a client that the machine left standing would be idle.
        for (config, begin, status) in [
            (Config { idle_timeout: SHORT, ..patient() }, "", ""),
            (Config { head_timeout: SHORT, ..patient() }, "GET", "HTTP/1.1 408 "),
        ] {
            let site = Site::run(Server::bind(&addresses, config).unwrap(), super::router(), HANG);
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.set_read_timeout(Some(HANG)).unwrap();
            let start = Instant::now();
            stream.write_all(begin.as_bytes()).unwrap();
            let mut wire = String::new();
            stream.read_to_string(&mut wire).unwrap();
            assert!(has_run(start) && wire.starts_with(status) && wire.is_empty() == status.is_empty(), "{wire}");
            drop(stream);
            site.stop();
            assert_eq!(site.outcome().exit_code(), 0);
        }

        // One idle connection makes room for another, over either socket. A server of its own, since it may take the
        // first one a moment to see that the clients before have gone.
        let config = Config { connections_max: 2, ..patient() };
        let site = Site::run(Server::bind(&addresses, config).unwrap(), super::router(), HANG);
        let mut idle = UnixStream::connect(&path).unwrap();
        idle.set_read_timeout(Some(HANG)).unwrap();
        // Once it is answered it has been taken in, and is the first to be idle.
        idle.write_all(PING.as_bytes()).unwrap();
        let mut pong = [0; 512];
        assert!(idle.read(&mut pong).unwrap() > 0);
        let mut clients = [site.connect(), site.connect()];
        for client in &mut clients {
            assert_eq!(client.ask(PING).text(), "pong");
        }
        assert_eq!(idle.read(&mut [0]).unwrap(), 0);
        drop(clients);
        site.stop();
        assert_eq!(site.outcome().exit_code(), 0);
        assert!(!path.exists(), "its file is removed");
    }
}

// ---- The whole process ---------------------------------------------------------------------------------------------

#[cfg(target_os = "linux")]
mod process {
    use super::*;
    use crate::support::{Process, demo};
    use std::process::Command;

    /// The number behind a name in /proc/PID/status, in KiB.
    fn memory_kib(process: &Process, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn a_declared_length_reserves_nothing() {
        let mut process = demo(&["--listen", "127.0.0.1:0"]);
        let address = process.address();
        let declare = |count| -> Vec<Client> {
            (0..count)
                .map(|_| {
                    let mut client = Client::connect(address);
                    // In one piece with a request before it: its answer shows that the declaration has been read.
                    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\nx";
                    assert_eq!(client.ask([PING, head].concat()).text(), "pong");
                    client
                })
                .collect()
        };
        let _few = declare(10);
        let before_kib = memory_kib(&process, "VmData");
        let _many = declare(100);
        let grown_kib = memory_kib(&process, "VmData").saturating_sub(before_kib);
        assert!(grown_kib < 50 * 1024, "100 declarations of 1 MiB cost {grown_kib} KiB");
    }

    #[test]
    fn clients_that_ask_without_reading_cost_a_bounded_amount_of_memory() {
        let mut process = demo(&["--listen", "127.0.0.1:0"]);
        let address = process.address();
        let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(address)).collect();
        let batch = PING.repeat(1000);
        let written: usize = std::thread::scope(|scope| {
            let writes = |client| scope.spawn(|| write_until_blocked(client, batch.as_bytes()));
            let writers: Vec<_> = clients.iter_mut().map(writes).collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).sum()
        });
        assert_eq!(Client::connect(address).ask(PING).text(), "pong");
        let peak_kib = memory_kib(&process, "VmHWM");
        assert!(peak_kib < 32 * 1024, "{written} bytes of requests cost {peak_kib} KiB");
    }

    #[test]
    fn without_descriptors_it_waits_quietly_and_recovers() {
        let program = std::path::PathBuf::from(env!("CARGO_BIN_EXE_allout")).with_file_name("examples").join("demo");
        let mut process =
            Process::spawn(Command::new("sh").args(["-c", "ulimit -n 40; exec \"$0\" \"$@\""]).arg(program).args([
                "--listen",
                "127.0.0.1:0",
                "--loops",
                "1",
                "--idle-grace",
                "0.05",
            ]));
        let address = process.address();
        let start = Instant::now();
        // None of these is idle: each is in the middle of a body, behind a request whose answer says so.
        let half = [PING, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel"].concat();
        let mut clients: Vec<Client> = Vec::new();
        // Those above the limit were inherited, and do not count.
        let descriptors = format!("/proc/{}/fd", process.id());
        let is_free = || (0..40).any(|number| !std::path::Path::new(&format!("{descriptors}/{number}")).is_symlink());
        while is_free() {
            let mut client = Client::connect(address);
            assert_eq!(client.ask(&half).text(), "pong");
            clients.push(client);
        }
        let room = clients.len();
        // For these there is no descriptor left.
        let mut others: Vec<Client> = (0..room / 2).map(|_| Client::connect(address)).collect();
        for client in &mut others {
            client.send(PING);
        }
        process.line_with("cannot accept on `127.0.0.1:");
        let (ticks_before, before) = (process.ticks(), Instant::now());
        // It says so again, but not more than once a second; and it sleeps meanwhile.
        process.line_with("cannot accept on `127.0.0.1:");
        assert!(start.elapsed() >= Duration::from_secs(1), "more than once a second");
        let (used, waited) = (process.ticks() - ticks_before, before.elapsed());
        assert!(used < 25, "{used} hundredths of a second used while waiting {waited:?}");
        // Those that are done become idle and make room for those that wait. Each is answered.
        for client in &mut clients {
            assert_eq!(client.ask("lo").text(), "hello");
        }
        for client in &mut others {
            assert_eq!(client.reply().text(), "pong");
        }
        // Idle ones hold all descriptors now; newcomers still get in.
        for _ in 0..2 * room {
            let mut client = Client::connect(address);
            assert_eq!(client.ask(PING).text(), "pong");
            clients.push(client);
        }
        drop((clients, others));
        let reply = Client::connect(address).ask("POST /shutdown HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(reply.status, 200);
        let (code, said) = process.end();
        assert_eq!(code, Some(0), "{said}");
    }

    /// The program under a library that has some of its system calls fail.
    #[cfg(target_env = "gnu")]
    #[test]
    fn an_accept_that_fails_again_and_again_backs_off_and_holds_no_stop() {
        let folder = crate::support::Folder::new("accept-denied");
        let Some(shim) = crate::support::shim(&folder) else { return };
        let told = "cut off: whoever else was in the queue of `127.0.0.1:";
        expect_told_once(|| stop_while_denied(&shim, &folder), |said| said.contains(told));
    }

    /// A server waits 50 ms more for what its loops have to report at the deadline; a machine that stood still for as
    /// long teaches nothing.
    #[cfg(target_env = "gnu")]
    #[track_caller]
    fn expect_told_once(stop: impl Fn() -> String, is_told: impl Fn(&str) -> bool) {
        let said: Vec<_> = (0..10).map(|_| stop()).take_while(|said| !is_told(said)).collect();
        assert!(said.len() < 10, "it was never told:\n{}", said[9]);
    }

    #[cfg(target_env = "gnu")]
    fn stop_while_denied(shim: &std::path::Path, folder: &crate::support::Folder) -> String {
        let deny = folder.path("deny");
        let program = std::path::PathBuf::from(env!("CARGO_BIN_EXE_allout")).with_file_name("examples").join("demo");
        let mut command = Command::new(program);
        command.args(["--listen", "127.0.0.1:0", "--loops", "2", "--grace", "0.2"]);
        let mut process = Process::spawn(command.env("LD_PRELOAD", shim).env("SHIM_DENY", &deny));
        let address = process.address();
        let mut idle = Client::connect(address);
        assert_eq!(idle.ask(PING).text(), "pong");
        std::fs::write(&deny, "").unwrap();
        let mut waiting = Client::connect(address);
        waiting.send(PING);
        assert!(process.line_with("cannot accept on `127.0.0.1:").contains("not permitted"));
        // What it spends while it can do nothing: there is no event to wait for.
        let before = process.ticks();
        std::thread::sleep(Duration::from_millis(400));
        let used = process.ticks() - before;
        assert!(used < 10, "{used} hundredths of a second used while waiting");
        std::fs::remove_file(&deny).unwrap();
        assert_eq!(waiting.reply().text(), "pong");
        std::fs::write(&deny, "").unwrap();
        let mut late = Client::connect(address);
        late.send(PING);
        // The idle one has not been closed to make room: that would help nobody.
        assert_eq!(idle.ask("POST /shutdown HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200);
        let (code, said) = process.end();
        assert_eq!(code, Some(124), "{said}");
        // For the next one.
        std::fs::remove_file(&deny).unwrap();
        said
    }

    #[cfg(all(target_env = "gnu", feature = "signals"))]
    #[test]
    fn who_waits_in_the_queue_for_want_of_a_thread_is_not_told_to_want_a_descriptor() {
        let folder = crate::support::Folder::new("no-thread");
        let Some(shim) = crate::support::shim(&folder) else { return };
        let told = ["cut off: 5 in the queue of `127.0.0.1:", "`, which no thread was free to empty\n", " 6 cut off; "];
        let is_told = |said: &str| told.iter().all(|text| said.contains(text));
        expect_told_once(|| stop_without_threads(&shim, &folder), is_told);
    }

    #[cfg(all(target_env = "gnu", feature = "signals"))]
    fn stop_without_threads(shim: &std::path::Path, folder: &crate::support::Folder) -> String {
        let no_thread = folder.path("no-thread");
        let program = std::path::PathBuf::from(env!("CARGO_BIN_EXE_allout")).with_file_name("examples").join("demo");
        let mut command = Command::new(program);
        command.args(["--listen", "127.0.0.1:0", "--loops", "1", "--grace", "0.3"]);
        let mut process = Process::spawn(command.env("LD_PRELOAD", shim).env("SHIM_NO_THREAD", &no_thread));
        let address = process.address();
        assert_eq!(Client::connect(address).ask(PING).text(), "pong");
        std::fs::write(&no_thread, "").unwrap();
        let mut running = Client::connect(address);
        running.send("GET /sleep/20000 HTTP/1.1\r\nHost: a\r\n\r\n");
        process.line_with("cannot start a thread");
        let mut waiting: Vec<Client> = (0..5).map(|_| Client::connect(address)).collect();
        waiting.iter_mut().for_each(|client| client.send(PING));
        process.signal(nix::sys::signal::Signal::SIGTERM);
        let (code, said) = process.end();
        assert_eq!(code, Some(124), "{said}");
        // For the next one.
        std::fs::remove_file(&no_thread).unwrap();
        said
    }
}
