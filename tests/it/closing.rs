//! The last answer: nothing that a client does afterwards, and nothing that it still sends, takes it away.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use allout::{Config, Response, Router};

#[cfg(target_os = "linux")]
use crate::drain::get;
#[cfg(all(target_os = "linux", feature = "sys"))]
use crate::handshakes::can_see_handshakes;
use crate::support::{Client, HANG, Site, poll};

const LARGE: usize = 2_000_000;

fn router() -> Router {
    Router::new()
        .get("/ping", |_| Response::text("pong"))
        .post("/echo", |request| Response::bytes("application/octet-stream", request.body().to_vec()))
        .get("/large", |_| Response::bytes("application/octet-stream", vec![b'x'; LARGE]).closing())
}

/// One connection at a time: another is served only once this one has gone.
fn one_at_a_time(linger: Duration) -> Site {
    Site::start(Config { loops: 1, connections_max: 1, linger, linger_max: linger, ..Config::default() }, router())
}

fn is_served(site: &Site) -> bool {
    let reply = site.connect().ask("GET /ping HTTP/1.0\r\n\r\n");
    assert!([200, 503].contains(&reply.status), "{}", reply.head);
    reply.status == 200
}

// ---- Read on until the end -----------------------------------------------------------------------------------------

/// A slow reader gets all of its answer, whatever it sends behind its request, and has it end there.
#[cfg(target_os = "linux")]
fn check_slow_reader(sends: impl Fn(&mut Client)) {
    let site = Site::start(Config { loops: 1, linger: HANG, ..Config::default() }, router());
    let mut client = site.connect();
    nix::sys::socket::setsockopt(&client.stream, nix::sys::socket::sockopt::RcvBuf, &(64 * 1024)).unwrap();
    client.send(get("/large"));
    // Nothing tells when the system has taken all that was written, as it may.
    assert_eq!(client.stream.peek(&mut [0]).unwrap(), 1);
    thread::sleep(Duration::from_millis(50));
    sends(&mut client);
    thread::sleep(Duration::from_millis(20));
    let reply = client.reply();
    assert_eq!((reply.status, reply.body.len()), (200, LARGE));
    assert_eq!(client.stream.read(&mut [0]).unwrap(), 0);
}

#[test]
#[cfg(target_os = "linux")]
fn what_comes_together_with_the_end_does_not_reset_a_slow_reader() {
    use nix::sys::socket::{MsgFlags, send};
    use std::os::fd::AsRawFd;

    check_slow_reader(|client| {
        // MSG_MORE: held back until the end goes with it.
        send(client.stream.as_raw_fd(), b"\r\n", MsgFlags::from_bits_retain(0x8000)).unwrap();
        client.finish();
    });
    check_slow_reader(|client| {
        client.send("\r\n");
        client.finish();
    });
    check_slow_reader(|client| client.finish());
    check_slow_reader(|client| client.send("\r\n"));
}

// ---- Time to read it -----------------------------------------------------------------------------------------------

/// A client that sends steadily for several times the linger time reads its 413 at the end. Says nothing of a machine on
/// which it was not steady.
#[test]
fn a_client_in_the_middle_of_an_upload_reads_its_refusal() {
    for linger in [200, 800, 3200].map(Duration::from_millis) {
        let config = Config { loops: 1, linger, linger_max: 10 * linger, body_bytes_max: 1000, ..Config::default() };
        let site = Site::start(config, router());
        let mut client = site.connect();
        client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n");
        let (begun, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
        let mut failed = None;
        while begun.elapsed() < 3 * linger && failed.is_none() {
            failed = client.stream.write_all(&[b'x'; 100]).err();
            thread::sleep(linger / 40);
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        if longest > linger / 2 {
            continue;
        }
        assert!(failed.is_none(), "{failed:?} after {:?}", begun.elapsed());
        client.finish();
        let reply = client.reply();
        assert_eq!((reply.status, reply.is_last()), (413, true));
        client.expect_end();
        return;
    }
}

#[test]
fn a_client_that_goes_on_sending_is_left_in_the_end() {
    let site = Site::start(
        Config {
            loops: 1,
            connections_max: 1,
            linger: Duration::from_millis(100),
            linger_max: Duration::from_millis(300),
            body_bytes_max: 1000,
            ..Config::default()
        },
        router(),
    );
    let mut client = site.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000000\r\n\r\n");
    let begun = Instant::now();
    while client.stream.write_all(&[b'x'; 1000]).is_ok() {
        assert!(begun.elapsed() < HANG);
        thread::sleep(Duration::from_millis(1));
    }
}

/// The linger time counts from when the client's system has the answer, not from when it was given to ours.
#[test]
#[cfg(all(target_os = "linux", feature = "sys"))]
fn a_reader_that_is_slower_than_the_linger_time_may_still_send() {
    // Where this cannot be asked, under qemu, TCP_INFO cannot either.
    if !can_see_handshakes() {
        return;
    }
    let linger = Duration::from_millis(100);
    let site = Site::start(Config { loops: 1, linger, linger_max: HANG, ..Config::default() }, router());
    let mut client = site.connect();
    nix::sys::socket::setsockopt(&client.stream, nix::sys::socket::sockopt::RcvBuf, &(64 * 1024)).unwrap();
    client.send(get("/large"));
    assert_eq!(client.stream.peek(&mut [0]).unwrap(), 1);
    // The time is to run out.
    thread::sleep(5 * linger);
    client.send("and more");
    thread::sleep(linger);
    let reply = client.reply();
    assert_eq!((reply.status, reply.body.len()), (200, LARGE));
}

// ---- At once -------------------------------------------------------------------------------------------------------

#[test]
#[cfg(all(target_os = "linux", feature = "sys"))]
fn a_client_whose_own_word_is_the_last_is_not_waited_for() {
    let site = one_at_a_time(HANG);
    for request in [
        "GET /ping HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n",
        "GET /ping HTTP/1.0\r\n\r\n",
        "HEAD /ping HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n",
    ] {
        let mut client = site.connect();
        client.send(request);
        let reply = if request.starts_with("HEAD") { client.reply_to_head() } else { client.reply() };
        assert_eq!((reply.status, reply.is_last()), (200, true));
        client.expect_fin();
        // Ours has not been closed, and the next is served.
        poll(|| is_served(&site).then_some(())).expect("it is served");
    }
}

#[test]
fn whoever_may_still_send_is_waited_for() {
    let site = one_at_a_time(HANG);
    for (request, status) in [
        // The server's word, not the client's.
        ("GET /ping HTTP/2.0\r\nHost: test\r\n\r\n", 505),
        ("GET /large HTTP/1.1\r\nHost: test\r\n\r\n", 200),
        // An answer that is not with the client yet.
        ("GET /large HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n", 200),
        // A body, of which more may come than was said.
        ("POST /echo HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", 200),
        // Something else behind it.
        ("GET /ping HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\nx", 200),
        // An earlier answer before it.
        ("GET /large HTTP/1.1\r\nHost: test\r\n\r\nGET /ping HTTP/1.0\r\n\r\n", 200),
    ] {
        // As soon as whoever was served before has gone.
        let mut client = poll(|| {
            let mut client = site.connect();
            client.send(request);
            let answer = client.reply().status;
            assert!([status, 503].contains(&answer), "{answer} to {request}");
            (answer == status).then_some(client)
        })
        .expect("it is served");
        if request.contains("1.0") {
            assert_eq!(client.reply().status, 200);
        }
        client.expect_fin();
        // Without a reset, and for as long as it is there.
        client.send("and more");
        assert!(!is_served(&site), "{request}");
        client.stream.shutdown(Shutdown::Write).unwrap();
        poll(|| is_served(&site).then_some(())).expect("it is served");
    }
}

#[test]
fn no_answer_is_reset_whose_client_said_that_it_was_the_last() {
    let site = Site::start(Config::default(), router());
    let address = site.address;
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(move || {
                for _ in 0..250 {
                    let mut client = Client::connect(address);
                    client.send("GET /ping HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
                    let mut wire = String::new();
                    client.stream.read_to_string(&mut wire).unwrap();
                    assert!(wire.ends_with("\r\nConnection: close\r\n\r\npong"), "{wire}");
                }
            });
        }
    });
}
