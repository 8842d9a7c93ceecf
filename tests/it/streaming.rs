//! Streaming: bodies that handlers read as they arrive, and write as they are made.

use std::io::{ErrorKind, Read, Write};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use allout::{BodyReader, BodyWriter, Config, Method, Notice, Outcome, Request, Response, Router, Server, Status};

use crate::drain::{LONG, SHORT, cut_off, expect_answer, expect_clean, get, start};
use crate::support::{Client, Gate, HANG, PING, Site, at_once};

type Bytes = Vec<u8>;

/// What a handler's read of the body came to.
type Reads = mpsc::Receiver<Result<Bytes, ErrorKind>>;

/// Whoever is idle when the stop comes is not waited for.
fn one_loop() -> Config {
    Config { loops: 1, idle_grace: Duration::ZERO, ..Config::default() }
}

fn ping() -> Router {
    Router::new().get("/ping", |_| Response::text("pong"))
}

/// `/ping`, `/hold` at the gate, and `/upload`, which answers with the length of what it has read.
fn uploads(gate: &Gate) -> (Router, Reads) {
    let (sender, reads) = mpsc::channel();
    let at = gate.clone();
    let upload = move |_: &Request<'_>, body: &mut BodyReader<'_>| {
        let mut bytes = Vec::new();
        let read = body.read_to_end(&mut bytes).map(|_| bytes).map_err(|error| error.kind());
        let length = read.as_ref().map_or(0, Vec::len);
        let _ = sender.send(read);
        Response::text(format!("{length} bytes"))
    };
    let router = ping()
        .get("/hold", move |_| {
            at.pass();
            Response::text("held")
        })
        .stream(Method::Post, "/upload", upload)
        .stream(Method::Post, "/unread", |_, _| Response::text("unread"));
    (router, reads)
}

fn download(write: impl Fn(&mut BodyWriter<'_>) -> std::io::Result<()> + Clone + Send + Sync + 'static) -> Router {
    ping().get("/stream", move |_| {
        let write = write.clone();
        Response::stream("text/plain", move |out| write(out))
    })
}

/// A site with one loop, and what it tells of handlers that fail.
fn told_of_failures(router: Router) -> (Site, mpsc::Receiver<String>) {
    let (sender, told) = mpsc::channel();
    let server = Server::bind("127.0.0.1:0", one_loop()).unwrap().on_notice(move |notice| {
        if matches!(notice, Notice::HandlerPanicked { .. } | Notice::StreamFailed { .. }) {
            let _ = sender.send(notice.to_string());
        }
    });
    (Site::run(server, router, HANG), told)
}

/// Others are served and the stop is clean, and this was told.
#[track_caller]
fn expect_unharmed(site: Site, told: &mpsc::Receiver<String>, lines: &[&str]) {
    for line in lines {
        assert_eq!(told.recv_timeout(HANG).unwrap(), *line);
    }
    assert_eq!(site.connect().ask(PING).text(), "pong");
    site.stop();
    expect_clean(site);
    assert!(told.try_recv().is_err(), "nothing else was told");
}

/// With one loop: whatever was sent before has been looked at when this returns.
#[track_caller]
fn wait_until_served(site: &Site) {
    for _ in 0..2 {
        assert_eq!(site.connect().ask("BAD\r\n\r\n").status, 400);
    }
}

fn upload_head(framing: &str) -> String {
    format!("POST /upload HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n")
}

/// For what is to be cut off.
const GRACE: Duration = Duration::from_millis(300);

const STREAM: &str = "GET /stream HTTP/1.1\r\nHost: test\r\n\r\n";

/// More than a body held in memory may have, and than all buffers of a connection hold.
fn large() -> Bytes {
    (0..9_000_000_u32).map(|n| (n % 251) as u8).collect()
}

fn chunked(bytes: &[u8], size: usize) -> Bytes {
    let mut wire = Vec::new();
    for chunk in bytes.chunks(size) {
        write!(wire, "{:x};note=\"of no matter\"\r\n", chunk.len()).unwrap();
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\nTrailer-Field: dropped\r\n\r\n");
    wire
}

// ---- Request bodies ------------------------------------------------------------------------------------------------

#[test]
fn a_body_of_any_length_is_read_as_it_arrives_and_the_next_request_behind_it() {
    let (router, reads) = uploads(&Gate::new());
    let site = start(one_loop(), router);
    let mut client = site.connect();
    let large = large();
    for (framing, wire) in [
        (format!("Content-Length: {}", large.len()), large.clone()),
        ("Transfer-Encoding: chunked".to_owned(), chunked(&large, 70_000)),
    ] {
        client.send(upload_head(&framing));
        client.send(&wire);
        client.send(PING);
        assert_eq!(client.reply().text(), format!("{} bytes", large.len()));
        assert!(reads.recv_timeout(HANG).unwrap().unwrap() == large, "the body is another one");
        assert_eq!(client.reply().text(), "pong");
    }
}

#[test]
fn it_does_not_matter_how_a_streamed_body_is_cut() {
    let (router, reads) = uploads(&Gate::new());
    let site = start(one_loop(), router);
    let wire =
        [upload_head("Transfer-Encoding: chunked").into_bytes(), chunked(b"hello, world", 5), PING.into()].concat();
    let mut byte_by_byte = site.connect();
    for byte in &wire {
        byte_by_byte.send([*byte]);
    }
    let mut clients = vec![byte_by_byte];
    for at in 0..wire.len() {
        let mut client = site.connect();
        client.send(&wire[..at]);
        client.send(&wire[at..]);
        clients.push(client);
    }
    for mut client in clients {
        assert_eq!(client.reply().text(), "12 bytes");
        assert_eq!(client.reply().text(), "pong");
        assert_eq!(reads.recv_timeout(HANG).unwrap(), Ok(b"hello, world".to_vec()));
    }
}

#[test]
fn a_request_without_a_body_reaches_a_handler_that_would_read_one() {
    let (router, reads) = uploads(&Gate::new());
    let site = start(one_loop(), router);
    let mut client = site.connect();
    for framing in ["X-None: 1", "Content-Length: 0"] {
        assert_eq!(client.ask(upload_head(framing)).text(), "0 bytes");
        assert_eq!(reads.recv_timeout(HANG).unwrap(), Ok(Vec::new()));
    }
    client.send(upload_head("Transfer-Encoding: chunked"));
    client.send("0\r\n\r\n");
    assert_eq!(client.reply().text(), "0 bytes");
}

#[test]
fn a_client_that_sends_slowly_stalls_nobody() {
    let (router, _reads) = uploads(&Gate::new());
    let site = start(one_loop(), router);
    let mut slow = site.connect();
    slow.send(upload_head("Content-Length: 10"));
    slow.send("half,");
    for _ in 0..3 {
        assert_eq!(site.connect().ask(PING).text(), "pong");
    }
    slow.send("half.");
    assert_eq!(slow.reply().text(), "10 bytes");
}

#[test]
fn a_broken_chunked_body_is_answered_400_whatever_the_handler_says() {
    let (router, reads) = uploads(&Gate::new());
    let rejects = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&rejects);
    let server = Server::bind("127.0.0.1:0", one_loop()).unwrap().on_notice(move |notice| {
        if matches!(notice, Notice::Rejected { .. }) {
            told.lock().unwrap().push(notice.to_string());
        }
    });
    let site = Site::run(server, router, HANG);
    let mut client = site.connect();
    client.send(upload_head("Transfer-Encoding: chunked"));
    client.send("3\r\nabcX\r\n0\r\n\r\n");
    client.send(PING);
    let reply = client.reply();
    assert_eq!((reply.status, reply.is_last()), (400, true));
    client.expect_end();
    assert_eq!(reads.recv_timeout(HANG).unwrap(), Err(ErrorKind::InvalidData));
    assert_eq!(rejects.lock().unwrap().len(), 1);
}

#[test]
fn a_body_that_stalls_is_answered_408() {
    let (router, reads) = uploads(&Gate::new());
    let site = start(Config { body_timeout: Duration::from_millis(200), ..one_loop() }, router);
    let mut client = site.connect();
    client.send(upload_head("Content-Length: 10"));
    client.send("half,");
    let reply = client.reply();
    assert_eq!((reply.status, reply.is_last()), (408, true));
    client.expect_end();
    assert_eq!(reads.recv_timeout(HANG).unwrap(), Err(ErrorKind::TimedOut));
}

#[test]
fn the_time_that_the_handler_takes_is_not_the_clients() {
    let gate = Gate::new();
    let at = gate.clone();
    let router = ping().stream(Method::Post, "/upload", move |_, body| {
        at.pass();
        let mut text = String::new();
        let read = body.read_to_string(&mut text);
        Response::text(format!("{read:?} {text}"))
    });
    let site = start(Config { body_timeout: Duration::from_millis(200), ..one_loop() }, router);
    let mut client = site.connect();
    client.send(upload_head("Content-Length: 4"));
    gate.wait_for(1);
    // Longer than the client would have had.
    thread::sleep(Duration::from_millis(400));
    client.send("body");
    gate.open();
    assert_eq!(client.reply().text(), "Ok(4) body");
}

#[test]
fn a_client_that_goes_away_in_the_middle_of_its_body_gets_no_answer() {
    let (router, reads) = uploads(&Gate::new());
    let site = start(one_loop(), router);
    let mut client = site.connect();
    client.send(upload_head("Content-Length: 10"));
    client.send("half,");
    client.finish();
    client.expect_end();
    assert_eq!(reads.recv_timeout(HANG).unwrap(), Err(ErrorKind::UnexpectedEof));
    site.stop();
    expect_clean(site);
}

#[test]
fn a_client_that_waits_to_be_asked_for_its_body_is_asked_when_it_is_read() {
    let (router, _reads) = uploads(&Gate::new());
    let site = start(one_loop(), router);
    let mut client = site.connect();
    client.send(upload_head("Content-Length: 4\r\nExpect: 100-continue"));
    assert_eq!(client.next_head().unwrap().status, 100);
    client.send("body");
    assert_eq!(client.reply().text(), "4 bytes");
    // It has been sent unasked: then nobody asks.
    client.send(upload_head("Content-Length: 4\r\nExpect: 100-continue") + "body");
    assert_eq!(client.reply().text(), "4 bytes");
    // Nobody reads it: whether it will follow is not known, so the connection ends.
    client.send("POST /unread HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    let reply = client.reply();
    assert_eq!((reply.text().as_str(), reply.is_last()), ("unread", true));
    client.expect_end();
}

#[test]
fn what_is_left_unread_of_a_body_is_never_taken_for_a_request() {
    let (router, _reads) = uploads(&Gate::new());
    let site = start(one_loop(), router);
    // All of it has come: it is passed over.
    let mut client = site.connect();
    let request = |length: usize| format!("POST /unread HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n");
    client.send(request(PING.len()) + PING + PING);
    assert_eq!(client.reply().text(), "unread");
    assert_eq!(client.reply().text(), "pong");
    // Part of it is on its way: the connection ends.
    client.send(request(PING.len() * 2) + PING);
    let reply = client.reply();
    assert_eq!((reply.text().as_str(), reply.is_last()), ("unread", true));
    client.send(PING);
    client.expect_end();
}

#[test]
fn uploads_wait_their_turn_and_503_ends_their_connection() {
    let gate = Gate::new();
    let (router, _reads) = uploads(&gate);
    let config = Config { handlers_max: 1, queue_timeout: SHORT, ..one_loop() };
    let site = start(config, router);
    let mut held = site.connect();
    held.send(get("/hold"));
    gate.wait_for(1);
    let mut refused = site.connect();
    refused.send(upload_head("Content-Length: 40") + PING);
    let reply = refused.reply();
    assert_eq!((reply.status, reply.is_last()), (503, true));
    refused.expect_end();
    gate.open();
    expect_answer(&mut held, "held", false);
}

#[test]
fn an_upload_that_waits_its_turn_when_the_stop_comes_is_answered() {
    let gate = Gate::new();
    let (router, _reads) = uploads(&gate);
    let site = start(Config { handlers_max: 1, queue_timeout: LONG, ..one_loop() }, router);
    let mut held = site.connect();
    held.send(get("/hold"));
    gate.wait_for(1);
    let mut waiting = site.connect();
    waiting.send(upload_head("Content-Length: 4") + "bo");
    assert_eq!(site.connect().ask("BAD\r\n\r\n").status, 400);
    assert_eq!(site.connect().ask("BAD\r\n\r\n").status, 400);
    site.stop();
    gate.open();
    expect_answer(&mut held, "held", true);
    waiting.send("dy");
    expect_answer(&mut waiting, "4 bytes", true);
    drop((held, waiting));
    expect_clean(site);
}

#[test]
fn a_handler_that_panics_while_it_reads_is_answered_500() {
    let router = ping().stream(Method::Post, "/upload", |_, body| -> Response {
        let mut byte = [0];
        let _ = body.read(&mut byte);
        panic!("at {byte:?}");
    });
    let site = start(one_loop(), router);
    let mut client = site.connect();
    client.send(upload_head("Content-Length: 10") + "half,");
    let reply = client.reply();
    assert_eq!((reply.status, reply.is_last()), (500, true));
    client.expect_end();
    assert_eq!(site.connect().ask(PING).text(), "pong");
}

// ---- Response bodies -----------------------------------------------------------------------------------------------

#[test]
fn a_body_is_sent_as_it_is_made_and_its_neighbours_are_served_meanwhile() {
    let (made, to_make) = mpsc::channel::<&str>();
    let to_make = Arc::new(Mutex::new(to_make));
    let site = start(
        one_loop(),
        download(move |out| {
            for text in to_make.lock().unwrap().iter() {
                out.write_all(text.as_bytes())?;
                out.flush()?;
            }
            Ok(())
        }),
    );
    let mut client = site.connect();
    // What was asked before and behind it is answered in order.
    client.send([PING, STREAM, PING].concat());
    assert_eq!(client.reply().text(), "pong");
    for text in ["one", "two", "three"] {
        made.send(text).unwrap();
        if text == "one" {
            let head = client.next_head().unwrap();
            assert_eq!((head.status, head.header("content-length"), head.is_last()), (200, None, false));
        }
        assert_eq!(client.chunk().unwrap(), text.as_bytes());
        assert_eq!(site.connect().ask(PING).text(), "pong");
    }
    drop(made);
    assert_eq!(client.chunk(), None);
    assert_eq!(client.reply().text(), "pong");
}

#[test]
fn many_streams_at_once_and_one_after_another() {
    let site = start(
        Config { loops: 2, ..Config::default() },
        download(|out| {
            for n in 0..20_000 {
                writeln!(out, "{n}")?;
            }
            Ok(())
        }),
    );
    let expected: String = (0..20_000).map(|n| format!("{n}\n")).collect();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = site.connect();
                for _ in 0..5 {
                    assert!(client.ask(STREAM).text() == expected, "another body");
                    assert_eq!(client.ask(PING).text(), "pong");
                }
            });
        }
    });
}

#[test]
fn on_http_1_0_a_streamed_body_ends_with_the_connection() {
    let site = start(one_loop(), download(|out| out.write_all(b"all of it")));
    let mut client = site.connect();
    client.send("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let head = client.next_head().unwrap();
    assert_eq!((head.header("transfer-encoding"), head.is_last()), (None, true));
    assert_eq!(client.rest(), b"all of it");
}

/// A stream of a length that is said, and what is written in its place.
fn of_length(
    length: u64,
    write: impl Fn(&mut BodyWriter<'_>) -> std::io::Result<()> + Clone + Send + Sync + 'static,
) -> Router {
    ping().get("/stream", move |_| {
        let write = write.clone();
        Response::stream("text/plain", move |out| write(out)).with_length(length)
    })
}

#[test]
fn a_stream_of_a_length_is_sent_with_it_and_told_to_head() {
    const LENGTH: usize = 100_000;
    let router = of_length(LENGTH as u64, |out| (0..LENGTH / 1000).try_for_each(|_| out.write_all(&[b'x'; 1000])));
    let site = start(one_loop(), router);
    let mut client = site.connect();
    for _ in 0..2 {
        client.send("HEAD /stream HTTP/1.1\r\nHost: test\r\n\r\n");
        let head = client.reply_to_head();
        assert_eq!((head.header("content-length"), head.header("transfer-encoding")), (Some("100000"), None));
        let reply = client.ask(STREAM);
        assert_eq!((reply.header("transfer-encoding"), reply.is_last()), (None, false));
        assert_eq!(reply.body, vec![b'x'; LENGTH]);
        // A client of HTTP/1.0 keeps its connection.
        let reply = client.ask("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!((reply.header("connection"), reply.body.len()), (Some("keep-alive"), LENGTH));
    }
    assert_eq!(client.ask(PING).text(), "pong");
    site.stop();
    expect_clean(site);
}

#[test]
fn a_stream_of_length_0_is_whole_at_once() {
    let site = start(one_loop(), of_length(0, |_| Ok(())));
    let mut client = site.connect();
    let reply = client.ask(STREAM);
    assert_eq!((reply.header("content-length"), reply.text().as_str()), (Some("0"), ""));
    assert_eq!(client.ask(PING).text(), "pong");
}

/// What a client sees of a stream that is not as long as was said, on either version; and what is told of it.
#[track_caller]
fn check_length(
    write: impl Fn(&mut BodyWriter<'_>) -> std::io::Result<()> + Clone + Send + Sync + 'static,
    body: Option<&[u8]>,
    told_of: &str,
) {
    let (site, told) = told_of_failures(of_length(10, write));
    for request in [STREAM, "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"] {
        let mut client = site.connect();
        client.send(request);
        match body {
            None => assert_eq!(client.reply().status, 500, "{told_of}"),
            Some(body) => {
                let head = client.next_head().unwrap();
                assert_eq!((head.status, head.header("content-length")), (200, Some("10")), "{told_of}");
                assert_eq!(client.rest(), body, "{told_of}");
            }
        }
    }
    expect_unharmed(site, &told, &[told_of, told_of]);
}

#[test]
fn a_stream_that_is_shorter_than_was_said_is_500_or_seen_to_be_cut_short() {
    let told = "stream of GET /stream failed: the body is 3 bytes shorter than was said";
    check_length(|out| out.write_all(b"1234567"), None, told);
    check_length(
        |out| {
            out.write_all(b"1234567")?;
            out.flush()
        },
        Some(b"1234567"),
        told,
    );
}

#[test]
fn a_stream_that_is_longer_than_was_said_fails_and_is_never_taken_for_whole() {
    let told = "stream of GET /stream failed: the body is longer than was said";
    check_length(|out| out.write_all(b"12345678901"), None, told);
    check_length(
        |out| {
            out.write_all(b"1234567890")?;
            out.write_all(b"1")
        },
        None,
        told,
    );
    // Whoever does not care for the error gains nothing by that.
    check_length(
        |out| {
            out.write_all(b"12345")?;
            out.flush()?;
            let _ = out.write_all(b"123456");
            let _ = out.write_all(b"67890");
            Ok(())
        },
        Some(b"12345"),
        told,
    );
}

#[test]
fn a_stream_of_a_length_that_fails_or_panics_is_seen_to_be_cut_short() {
    let begin = |out: &mut BodyWriter<'_>| {
        out.write_all(b"12345")?;
        out.flush()
    };
    check_length(
        move |out| begin(out).and_then(|()| Err(std::io::Error::other("no more"))),
        Some(b"12345"),
        "stream of GET /stream failed: no more",
    );
    check_length(
        move |out| {
            begin(out)?;
            panic!("no more")
        },
        Some(b"12345"),
        "handler of GET /stream panicked: no more",
    );
}

#[test]
fn a_stream_of_a_length_that_the_deadline_cuts_off_is_seen_to_be_short() {
    let gate = Gate::new();
    let at = gate.clone();
    let router = of_length(10, move |out| {
        out.write_all(b"12345")?;
        out.flush()?;
        at.pass();
        out.write_all(b"67890")
    });
    let site = Site::start_with_grace(one_loop(), router, GRACE);
    // On 1.0 there is nothing else by which it could be seen.
    let mut client = site.connect();
    client.send("GET /stream HTTP/1.0\r\n\r\n");
    gate.wait_for(1);
    site.stop();
    assert_eq!(client.next_head().unwrap().header("content-length"), Some("10"));
    assert_eq!(client.rest(), b"12345");
    assert_eq!(site.outcome().exit_code(), 124);
    gate.open();
}

#[test]
fn a_response_that_has_no_body_is_not_written() {
    let router = download(|_| panic!("never called")).delete("/stream", |_| {
        Response::stream("text/plain", |_| panic!("never called")).with_status(Status::NO_CONTENT)
    });
    let site = start(one_loop(), router);
    let mut client = site.connect();
    client.send("HEAD /stream HTTP/1.1\r\nHost: test\r\n\r\n");
    let reply = client.reply_to_head();
    assert_eq!((reply.status, reply.header("transfer-encoding")), (200, Some("chunked")));
    let reply = client.ask("DELETE /stream HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!((reply.status, reply.header("transfer-encoding")), (204, None));
    assert_eq!(client.ask(PING).text(), "pong");
}

/// `/stream` writes a part and sends it, and then comes to this end; what is told of it.
#[track_caller]
fn check_cut_short(end: fn() -> std::io::Result<()>, line: &str) {
    let (site, told) = told_of_failures(download(move |out| {
        out.write_all(b"part")?;
        out.flush()?;
        end()
    }));
    let mut client = site.connect();
    client.send(STREAM);
    assert_eq!(client.next_head().unwrap().status, 200);
    assert_eq!(client.rest(), b"4\r\npart\r\n");
    drop(client);
    expect_unharmed(site, &told, &[line]);
}

#[test]
fn a_body_that_fails_half_way_is_cut_short_for_the_client_to_see() {
    check_cut_short(|| Err(std::io::Error::other("no more")), "stream of GET /stream failed: no more");
}

/// A close with something unread would reset the connection, and destroy what the client has not taken yet.
#[test]
fn answers_before_a_body_that_fails_arrive_whole_although_more_was_asked_behind_it() {
    const BYTES: usize = 200_000;
    let router = download(|out| {
        out.write_all(b"some")?;
        out.flush()?;
        Err(std::io::Error::other("no more"))
    })
    .get("/bytes", |_| Response::bytes("application/octet-stream", vec![b'x'; BYTES]));
    let (site, told) = told_of_failures(router);
    let mut client = site.connect();
    client.send(get("/bytes") + &get("/stream") + &get("/bytes"));
    told.recv_timeout(HANG).unwrap();
    // By now it has closed its connection, if it does so at once.
    assert_eq!(site.connect().ask(PING).status, 200);
    assert_eq!(client.reply().body.len(), BYTES);
    client.finish();
    site.stop();
    expect_clean(site);
}

#[test]
fn a_body_whose_writer_panics_is_cut_short_too() {
    check_cut_short(|| panic!("half way"), "handler of GET /stream panicked: half way");
}

/// The same, but nothing has been sent.
#[track_caller]
fn check_early(end: fn() -> std::io::Result<()>, line: &str) {
    let (site, told) = told_of_failures(download(move |out| {
        out.write_all(b"part")?;
        end()
    }));
    let mut client = site.connect();
    client.send(PING.to_owned() + STREAM);
    assert_eq!(client.reply().text(), "pong");
    let reply = client.reply();
    assert_eq!((reply.status, reply.text().as_str(), reply.is_last()), (500, "internal server error\n", true));
    client.expect_fin();
    drop(client);
    expect_unharmed(site, &told, &[line]);
}

#[test]
fn a_body_that_fails_before_any_of_it_was_sent_is_answered_500() {
    check_early(|| Err(std::io::Error::other("no such file")), "stream of GET /stream failed: no such file");
    check_early(|| panic!("too early"), "handler of GET /stream panicked: too early");
}

#[test]
fn the_head_goes_out_with_a_flush_although_nothing_has_been_written() {
    let gate = Gate::new();
    let at = gate.clone();
    let site = start(
        one_loop(),
        download(move |out| {
            out.flush()?;
            at.pass();
            out.write_all(b"body")
        }),
    );
    let mut client = site.connect();
    client.send(STREAM);
    assert_eq!(client.next_head().unwrap().status, 200);
    gate.open();
    assert_eq!(client.chunk().unwrap(), b"body");
    assert_eq!(client.chunk(), None);
    assert_eq!(client.ask(STREAM).text(), "body");
}

#[test]
fn a_body_without_a_byte_is_a_whole_answer() {
    let site = start(one_loop(), download(|_| Ok(())));
    let mut client = site.connect();
    assert_eq!(client.ask(STREAM).text(), "");
    assert_eq!(client.ask(PING).text(), "pong");
}

/// Answers of these lengths stand before a stream that has nothing to say yet.
#[cfg(unix)]
#[track_caller]
fn check_sent_before(lengths: [usize; 3]) {
    let path = crate::support::socket_path();
    let gate = Gate::new();
    let at = gate.clone();
    let router = download(move |out| {
        at.pass();
        out.write_all(b"late")
    });
    let router = router.get("/bytes/{n}", |request| {
        Response::bytes("text/plain", vec![b'x'; request.param("n").unwrap().parse().unwrap()])
    });
    let addresses = ["127.0.0.1:0".to_owned(), format!("unix:{}", path.display())];
    let site = Site::run(Server::bind(&addresses, one_loop()).unwrap(), router, HANG);
    let mut client = Client::connect_unix(&path);
    client.send(lengths.map(|length| get(&format!("/bytes/{length}"))).concat() + STREAM);
    // So that all of it is on its way, or blocked; then nobody reads.
    wait_until_served(&site);
    for length in lengths {
        assert_eq!(client.reply().body.len(), length);
    }
    gate.wait_for(1);
    gate.open();
    assert_eq!(client.reply().text(), "late");
}

#[cfg(unix)]
#[test]
fn what_a_slow_reader_has_yet_to_take_does_not_wait_for_a_streams_first_byte() {
    // Of some of these, the socket holds all but a part of the last one.
    for large in (64..112).step_by(4) {
        check_sent_before([large * 1024, large * 1024, 60_000]);
    }
}

#[test]
fn a_client_that_reads_slowly_gets_all_of_a_large_body() {
    let large = Arc::new(large());
    let body = Arc::clone(&large);
    let site = start(one_loop(), download(move |out| out.write_all(&body)));
    let mut client = site.connect();
    client.send(STREAM);
    // Until the writer has to wait, others are served; and then too.
    assert_eq!(site.connect().ask(PING).text(), "pong");
    assert!(client.reply().body == *large, "the body is another one");
    assert_eq!(client.ask(PING).text(), "pong");
}

#[test]
fn a_client_that_stalls_ends_the_writing() {
    let (sender, ends) = mpsc::channel();
    let config = Config { write_timeout: Duration::from_millis(200), ..one_loop() };
    let site = start(
        config,
        download(move |out| {
            let end = loop {
                if let Err(error) = out.write_all(&[b'x'; 60_000]) {
                    break error;
                }
            };
            let _ = sender.send(end.kind());
            Err(end)
        }),
    );
    let mut client = site.connect();
    client.send(STREAM);
    assert_eq!(ends.recv_timeout(HANG).unwrap(), ErrorKind::TimedOut);
    assert_eq!(site.connect().ask(PING).text(), "pong");
}

#[test]
fn a_client_that_goes_away_ends_the_writing() {
    let (sender, ends) = mpsc::channel();
    let site = start(
        one_loop(),
        download(move |out| {
            let end = loop {
                if let Err(error) = out.write_all(b"more").and_then(|()| out.flush()) {
                    break error;
                }
            };
            let _ = sender.send(end.kind());
            Ok(())
        }),
    );
    let mut client = site.connect();
    client.send(STREAM);
    client.chunk_after_head();
    drop(client);
    assert_eq!(ends.recv_timeout(HANG).unwrap(), ErrorKind::BrokenPipe);
    site.stop();
    expect_clean(site);
}

#[test]
fn what_follows_an_answer_is_called_when_its_streamed_body_has_left() {
    let gate = Gate::new();
    let (sender, left) = mpsc::channel();
    let at = gate.clone();
    let router = ping().get("/stream", move |_| {
        let (at, sender) = (at.clone(), sender.clone());
        let response = Response::stream("text/plain", move |out| {
            at.pass();
            out.write_all(b"body")
        });
        response.on_sent(move || _ = sender.send(()))
    });
    let site = start(one_loop(), router);
    let mut client = site.connect();
    client.send(STREAM);
    gate.wait_for(1);
    assert_eq!(left.try_recv(), Err(mpsc::TryRecvError::Empty));
    gate.open();
    left.recv_timeout(HANG).unwrap();
    assert_eq!(client.reply().text(), "body");
}

// ---- What may panic when nobody calls it ---------------------------------------------------------------------------

/// Panics when it is dropped.
#[derive(Debug)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a destructor");
    }
}

/// `/stream` answers with a stream whose closure has a `Bomb`, and waits at the gate before.
fn armed(gate: &Gate) -> Router {
    let at = gate.clone();
    let stream = move |_: &Request<'_>| {
        at.pass();
        let bomb = Bomb;
        Response::stream("text/plain", move |out| {
            let _bomb = &bomb;
            out.write_all(b"body")
        })
    };
    ping().get("/stream", stream)
}

#[test]
fn a_stream_that_head_does_not_call_may_panic_when_it_is_dropped() {
    let gate = Gate::new();
    gate.open();
    let (site, told) = told_of_failures(armed(&gate));
    let mut neighbour = site.connect();
    assert_eq!(neighbour.ask(PING).text(), "pong");
    let mut client = site.connect();
    client.send("HEAD /stream HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.reply_to_head().status, 200);
    assert_eq!(client.ask(PING).text(), "pong");
    assert_eq!(neighbour.ask(PING).text(), "pong");
    expect_unharmed(site, &told, &["handler of HEAD /stream panicked: a destructor"]);
}

#[test]
fn a_stream_for_a_client_that_has_gone_may_panic_when_it_is_dropped() {
    let gate = Gate::new();
    let (site, told) = told_of_failures(armed(&gate));
    let mut client = site.connect();
    client.send(PING.to_owned() + STREAM);
    gate.wait_for(1);
    // Closed with an answer unread, it resets.
    assert_eq!(client.stream.peek(&mut [0]).unwrap(), 1);
    drop(client);
    wait_until_served(&site);
    gate.open();
    expect_unharmed(site, &told, &["handler of GET /stream panicked: a destructor"]);
}

#[test]
fn a_stream_whose_closure_panics_when_it_is_dropped_behind_its_last_byte_has_failed() {
    let gate = Gate::new();
    gate.open();
    let (site, told) = told_of_failures(armed(&gate));
    assert_eq!(site.connect().ask(STREAM).status, 500);
    expect_unharmed(site, &told, &["handler of GET /stream panicked: a destructor"]);
}

#[test]
fn what_a_stream_has_failed_with_may_panic_when_it_is_written_or_dropped() {
    #[derive(Debug)]
    struct Unspeakable(Option<Bomb>);
    impl std::fmt::Display for Unspeakable {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            if self.0.is_none() {
                panic!("unspeakable");
            }
            f.write_str("speakable")
        }
    }
    impl std::error::Error for Unspeakable {}
    for (is_bomb, text) in [(false, "unspeakable"), (true, "a destructor")] {
        let (site, told) =
            told_of_failures(download(move |_| Err(std::io::Error::other(Unspeakable(is_bomb.then(|| Bomb))))));
        assert_eq!(site.connect().ask(STREAM).status, 500);
        expect_unharmed(site, &told, &[&format!("handler of GET /stream panicked: {text}")]);
    }
}

#[test]
fn what_follows_a_streamed_answer_may_panic() {
    let router = ping().get("/stream", |_| {
        let response = Response::stream("text/plain", |out| out.write_all(b"body"));
        response.on_sent(|| panic!("first")).on_sent(|| panic!("second"))
    });
    let (site, told) = told_of_failures(router);
    let mut client = site.connect();
    assert_eq!(client.ask(STREAM).text(), "body");
    assert_eq!(client.ask(PING).text(), "pong");
    let lines = ["first", "second"].map(|text| format!("handler of GET /stream panicked: {text}"));
    expect_unharmed(site, &told, &[&lines[0], &lines[1]]);
}

#[test]
fn what_follows_the_answers_of_a_batch_may_panic_though_its_client_resets() {
    let (gate, count) = (Gate::new(), 3);
    let at = gate.clone();
    let router = ping().get("/hold", move |_| {
        at.pass();
        Response::text("held").on_sent(|| panic!("lost"))
    });
    let (site, told) = told_of_failures(router);
    let mut client = site.connect();
    client.send(PING.to_owned() + &get("/hold").repeat(count));
    gate.wait_for(1);
    assert_eq!(client.stream.peek(&mut [0]).unwrap(), 1);
    drop(client);
    gate.open();
    // How many are called depends on when the reset is seen.
    assert_eq!(told.recv_timeout(HANG).unwrap(), "handler of GET /hold panicked: lost");
    assert_eq!(site.connect().ask(PING).text(), "pong");
    site.stop();
    expect_clean(site);
}

#[test]
fn a_handler_may_panic_with_an_answer_in_its_hands_whose_closures_panic_too() {
    let router = ping().get("/twice", |_| -> Response {
        let bomb = Bomb;
        let _stream = Response::stream("text/plain", move |_| {
            let _bomb = &bomb;
            Ok(())
        });
        let _answer = Response::text("never sent").on_sent(|| panic!("second"));
        panic!("first")
    });
    let (site, told) = told_of_failures(router);
    assert_eq!(site.connect().ask(get("/twice")).status, 500);
    expect_unharmed(site, &told, &["handler of GET /twice panicked: first"]);
}

// ---- The stop ------------------------------------------------------------------------------------------------------

#[test]
fn a_stream_that_has_begun_is_finished_when_the_stop_comes() {
    let gate = Gate::new();
    let at = gate.clone();
    let site = start(
        one_loop(),
        download(move |out| {
            out.write_all(b"before, ")?;
            out.flush()?;
            at.pass();
            out.write_all(b"after")
        }),
    );
    let mut client = site.connect();
    client.send([STREAM, PING].concat());
    gate.wait_for(1);
    site.stop();
    gate.open();
    assert_eq!(client.reply().text(), "before, after");
    expect_answer(&mut client, "pong", true);
    drop(client);
    let stats = site.stats.clone();
    expect_clean(site);
    assert_eq!(stats.finished_while_draining(), 2);
}

#[test]
fn a_stream_that_begins_while_draining_says_that_it_is_the_last_answer() {
    let gate = Gate::new();
    let at = gate.clone();
    let router = download(|out| out.write_all(b"body")).get("/hold", move |_| {
        at.pass();
        Response::stream("text/plain", |out| out.write_all(b"held"))
    });
    let site = start(one_loop(), router);
    let mut client = site.connect();
    client.send(get("/hold"));
    gate.wait_for(1);
    site.stop();
    gate.open();
    expect_answer(&mut client, "held", true);
    drop(client);
    expect_clean(site);
}

#[test]
fn an_upload_that_is_arriving_at_the_stop_may_arrive() {
    let (router, _reads) = uploads(&Gate::new());
    let site = start(one_loop(), router);
    let mut client = site.connect();
    client.send(upload_head("Content-Length: 8\r\nExpect: 100-continue"));
    assert_eq!(client.next_head().unwrap().status, 100);
    client.send("half");
    site.stop();
    client.send("half");
    expect_answer(&mut client, "8 bytes", true);
    drop(client);
    expect_clean(site);
}

#[test]
fn at_the_deadline_a_stream_is_cut_off_and_owed() {
    let (outcome, end) = timely(|| {
        let (sender, ends) = mpsc::channel();
        let router = download(move |out| {
            let end = loop {
                if let Err(error) = out.write_all(b"more").and_then(|()| out.flush()) {
                    break error;
                }
                thread::sleep(Duration::from_millis(5));
            };
            let _ = sender.send(end.kind());
            Ok(())
        });
        let site = Site::start_with_grace(one_loop(), router, GRACE);
        let mut client = site.connect();
        client.send(STREAM);
        client.chunk_after_head();
        site.stop();
        (site.outcome(), ends.recv_timeout(HANG).unwrap())
    });
    assert_eq!(outcome.exit_code(), 124);
    let cut_off = cut_off(&outcome);
    assert_eq!(cut_off.owed, 1);
    assert!(cut_off.details[0].starts_with("GET /stream for 127.0.0.1:"), "{cut_off:?}");
    assert_eq!(end, ErrorKind::BrokenPipe);
}

/// What a stop of a site with [`GRACE`] has come to, on a machine that was fast once: one that stands still for longer
/// than the server waits for its loops teaches nothing.
#[track_caller]
fn timely<T>(stop: impl Fn() -> (Outcome, T)) -> (Outcome, T) {
    let is_timely = |(outcome, _): &(Outcome, T)| outcome.took() < GRACE + Duration::from_millis(45);
    (0..50).map(|_| stop()).find(is_timely).expect("a machine that is fast once")
}

/// An upload whose handler runs at the deadline, waiting for its body or for something else; what is sent before it is
/// called, and after.
fn stop_uploading(waits_for_body: bool, before: &str, after: &str) -> (Outcome, Client) {
    let gate = Gate::new();
    let (begun, has_begun) = mpsc::channel();
    let at = gate.clone();
    let router = ping().stream(Method::Post, "/upload", move |_, body| {
        let _ = begun.send(());
        if !waits_for_body {
            at.pass();
        }
        let _ = body.read_to_end(&mut Vec::new());
        Response::text("late")
    });
    let site = Site::start_with_grace(one_loop(), router, GRACE);
    let mut client = site.connect();
    client.send(upload_head("Transfer-Encoding: chunked") + before);
    has_begun.recv_timeout(HANG).unwrap();
    client.send(after);
    site.stop();
    let outcome = site.outcome();
    gate.open();
    (outcome, client)
}

/// How much is owed, and what its client gets.
#[track_caller]
fn check_upload_at_the_deadline(waits_for_body: bool, before: &str, after: &str, owed: usize, end: Option<u16>) {
    let (outcome, mut client) = timely(|| stop_uploading(waits_for_body, before, after));
    assert_eq!(outcome.exit_code(), 124, "{outcome:?}");
    let cut_off = cut_off(&outcome);
    assert_eq!((cut_off.owed, cut_off.details.len()), (owed, 1), "{cut_off:?}");
    let named = format!("POST /upload for {}", client.stream.local_addr().unwrap());
    let what = if owed == 0 { ", its body not whole" } else { "" };
    assert!(cut_off.details[0].starts_with(&format!("{named}{what}, its handler running for ")), "{cut_off:?}");
    assert_eq!(client.next_reply(false).map(|reply| (reply.status, reply.is_last())), end.map(|status| (status, true)));
    client.expect_end();
}

#[test]
fn at_the_deadline_an_upload_that_has_not_come_is_answered_408_and_not_owed_but_its_handler_is_named() {
    at_once([true, false], |waits_for_body| {
        check_upload_at_the_deadline(waits_for_body, "", "", 0, Some(408));
        check_upload_at_the_deadline(waits_for_body, "4\r\nha", "lf", 0, Some(408));
    });
}

#[test]
fn at_the_deadline_an_upload_is_owed_whose_body_has_come_though_nobody_has_read_it() {
    let body = "4\r\nbody\r\n0\r\n\r\n";
    at_once([0, 5, body.len()], |cut| {
        let (before, after) = body.split_at(cut);
        check_upload_at_the_deadline(false, before, after, 1, None);
    });
}

#[test]
fn at_the_deadline_an_upload_that_waits_for_a_thread_and_has_not_come_is_answered_408() {
    let (outcome, mut waiting) = timely(|| {
        let gate = Gate::new();
        let (router, _reads) = uploads(&gate);
        let config = Config { handlers_max: 1, queue_timeout: HANG, ..one_loop() };
        let site = Site::start_with_grace(config, router, GRACE);
        let mut held = site.connect();
        held.send(get("/hold"));
        gate.wait_for(1);
        let mut waiting = site.connect();
        waiting.send(upload_head("Content-Length: 8") + "half");
        wait_until_served(&site);
        site.stop();
        let outcome = site.outcome();
        gate.open();
        (outcome, waiting)
    });
    assert_eq!(cut_off(&outcome).owed, 1, "{outcome:?}");
    assert_eq!(waiting.reply().status, 408);
    waiting.expect_end();
}

#[cfg(unix)]
#[test]
fn streams_go_over_unix_sockets_too() {
    let path = crate::support::socket_path();
    let (router, _reads) = uploads(&Gate::new());
    let router = router.get("/stream", |_| Response::stream("text/plain", |out| out.write_all(b"body")));
    let addresses = ["127.0.0.1:0".to_owned(), format!("unix:{}", path.display())];
    let server = Server::bind(addresses, one_loop()).unwrap();
    let site = Site::run(server, router, HANG);
    let mut client = Client::connect_unix(&path);
    let large = large();
    client.send(upload_head(&format!("Content-Length: {}", large.len())));
    client.send(&large);
    assert_eq!(client.reply().text(), format!("{} bytes", large.len()));
    assert_eq!(client.ask(STREAM).text(), "body");
    site.stop();
    expect_clean(site);
}

impl Client {
    /// The first chunk of the next response.
    fn chunk_after_head(&mut self) -> Option<Bytes> {
        assert_eq!(self.next_head().unwrap().status, 200);
        self.chunk()
    }
}
