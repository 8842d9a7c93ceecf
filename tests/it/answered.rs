//! What is told of each answer: once, whatever becomes of it.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use allout::{BodyPlan, Config, Handler, Method, Request, Response, Router, Server};

use crate::drain::get;
use crate::handoff::reset;
use crate::support::{Client, Gate, HANG, PING, Site, poll};

/// A site, one line for each answer that has left or was lost, and what else the server reports.
struct Watched {
    site: Site,
    lines: mpsc::Receiver<String>,
    notices: mpsc::Receiver<String>,
}

impl Watched {
    fn start(config: Config, gate: &Gate, grace: Duration) -> Self {
        let (gate, stuck) = (gate.clone(), gate.clone());
        let router = Router::new()
            .get("/ping", |_| Response::text("pong"))
            .get("/slow", move |_| {
                gate.pass();
                Response::text("slow")
            })
            .get("/panic", |_| -> Response { panic!("asked to") })
            .get("/big", |_| Response::bytes("text/plain", vec![b'x'; 16 << 20]))
            .get("/stream", |_| Response::stream("text/plain", |out| out.write_all(b"streamed")).with_length(8))
            .get("/fails", |_| {
                Response::stream("text/plain", |out| {
                    out.write_all(b"half")?;
                    out.flush()?;
                    Err(io::Error::other("asked to fail"))
                })
                .with_length(8)
            })
            .get("/endless", |_| {
                Response::stream("text/plain", |out| {
                    loop {
                        out.write_all(&[b'x'; 4096])?;
                    }
                })
            })
            .stream(Method::Post, "/upload", move |_, body| {
                let bytes = io::copy(body, &mut io::sink()).unwrap_or(0);
                if bytes > 10 {
                    stuck.pass();
                }
                Response::text(bytes.to_string())
            })
            .at_once(Method::Get, "/at-once", |_| Response::text("at once"));
        let ((teller, lines), (reporter, notices)) = (mpsc::channel(), mpsc::channel());
        let server = Server::bind("127.0.0.1:0", config).unwrap();
        let server = server.on_notice(move |notice| _ = reporter.send(notice.to_string())).on_answer(move |answered| {
            let method = answered.method.map_or("-".to_owned(), |method| method.to_string());
            let end = if answered.is_whole { "whole" } else { "lost" };
            let path = answered.query.map_or(answered.path.to_owned(), |query| format!("{}?{query}", answered.path));
            let (status, bytes) = (answered.status.code(), answered.bytes);
            assert!(answered.peer.is_local() && answered.waited <= answered.took);
            assert_eq!(answered.method.is_some(), answered.version.is_some());
            let bytes = if end == "lost" && bytes > 8 { "some".to_owned() } else { bytes.to_string() };
            teller.send(format!("{method} {path} {status} {bytes} {end}")).unwrap();
            assert!(status != 404, "the listener panics");
        });
        Self { site: Site::run(server, router, grace), lines, notices }
    }

    fn connect(&self) -> Client {
        self.site.connect()
    }

    #[track_caller]
    fn expect(&self, line: &str) {
        assert_eq!(self.lines.recv_timeout(HANG).as_deref(), Ok(line));
    }

    /// Nothing more has been told, up to the end.
    #[track_caller]
    fn end(self) -> i32 {
        self.site.stop();
        let outcome = self.site.outcome();
        assert_eq!(self.lines.iter().collect::<Vec<_>>(), Vec::<String>::new());
        i32::from(outcome.exit_code())
    }
}

/// Whoever is idle when the stop comes is not waited for.
fn one_loop() -> Config {
    Config { loops: 1, idle_grace: Duration::ZERO, ..Config::default() }
}

#[test]
fn every_answer_is_told_once_with_what_it_answers() {
    let watched = Watched::start(one_loop(), &Gate::new(), HANG);
    let mut client = watched.connect();
    assert_eq!(client.ask(get("/ping?query")).text(), "pong");
    watched.expect("GET /ping?query 200 4 whole");
    client.send(PING.replace("GET", "HEAD"));
    client.reply_to_head();
    watched.expect("HEAD /ping 200 0 whole");
    client.send(PING.repeat(3) + &get("/stream") + &get("/panic"));
    (0..5).for_each(|_| _ = client.reply());
    (0..3).for_each(|_| watched.expect("GET /ping 200 4 whole"));
    watched.expect("GET /stream 200 8 whole");
    watched.expect("GET /panic 500 22 whole");
    drop(client);
    let mut client = watched.connect();
    client.send("POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(client.reply().text(), "4");
    watched.expect("POST /upload 200 1 whole");
    // A listener that panics costs nobody anything, and is reported.
    assert_eq!(client.ask(get("/nowhere")).status, 404);
    watched.expect("GET /nowhere 404 10 whole");
    let reported = watched.notices.iter().find(|notice| notice.starts_with("on_answer "));
    assert_eq!(reported.as_deref(), Some("on_answer panicked: the listener panics"));
    assert_eq!(client.ask(PING).text(), "pong");
    watched.expect("GET /ping 200 4 whole");
    assert_eq!(watched.end(), 0);
}

#[test]
fn refusals_of_the_server_are_told_too() {
    let gate = Gate::new();
    let config = Config { handlers_max: 1, queue_timeout: Duration::from_millis(20), body_bytes_max: 10, ..one_loop() };
    let watched = Watched::start(config, &gate, HANG);
    let mut client = watched.connect();
    assert_eq!(client.ask("GET /ping HTTP/1.1\r\nbad field\r\n\r\n").status, 400);
    drop(client);
    watched.expect("-  400 23 whole");
    let mut client = watched.connect();
    assert_eq!(client.ask("POST /ping HTTP/1.1\r\nHost: test\r\nContent-Length: 11\r\n\r\n").status, 413);
    drop(client);
    watched.expect("POST /ping 413 23 whole");
    let mut slow = watched.connect();
    slow.send(get("/slow"));
    gate.wait_for(1);
    let mut client = watched.connect();
    assert_eq!(client.ask(PING).status, 503);
    watched.expect("GET /ping 503 34 whole");
    assert_eq!(client.ask(get("/at-once")).status, 200);
    watched.expect("GET /at-once 200 7 whole");
    gate.open();
    assert_eq!(slow.reply().text(), "slow");
    watched.expect("GET /slow 200 4 whole");
    assert_eq!(watched.end(), 0);
}

#[test]
fn an_answer_that_is_lost_is_told_once() {
    let gate = Gate::new();
    let watched = Watched::start(Config { write_timeout: Duration::from_millis(50), ..one_loop() }, &gate, HANG);
    // What writes a body fails.
    let mut client = watched.connect();
    client.send(get("/fails"));
    client.rest();
    drop(client);
    watched.expect("GET /fails 200 4 lost");
    assert_eq!(watched.notices.recv_timeout(HANG).as_deref(), Ok("stream of GET /fails failed: asked to fail"));
    // Clients that do not read: of what is held, and of what is written as it is made.
    for path in ["/big", "/endless"] {
        let mut client = watched.connect();
        client.send(get(path));
        watched.expect(&format!("GET {path} 200 some lost"));
    }
    // A client that has reset before its handler returns.
    let mut client = watched.connect();
    client.send(PING.to_owned() + &get("/slow"));
    gate.wait_for(1);
    watched.expect("GET /ping 200 4 whole");
    reset(client);
    gate.open();
    watched.expect("GET /slow 200 4 lost");
    assert_eq!(watched.end(), 0);
}

#[test]
fn what_the_deadline_cuts_off_is_told_once() {
    let gate = Gate::new();
    let watched = Watched::start(one_loop(), &gate, Duration::from_millis(300));
    let mut stalled = watched.connect();
    stalled.send(get("/big"));
    let mut unfinished = watched.connect();
    unfinished.send("POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbod");
    // Of one that is held, no handler has heard.
    let mut held = watched.connect();
    held.send("POST /ping?held HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbod");
    let mut client = watched.connect();
    assert_eq!(client.ask(PING).text(), "pong");
    watched.expect("GET /ping 200 4 whole");
    watched.site.stop();
    let outcome = watched.site.outcome();
    assert_eq!(outcome.exit_code(), 124);
    let mut told: Vec<_> = watched.lines.iter().collect();
    told.sort();
    assert_eq!(told, ["GET /big 200 some lost", "POST /ping?held 408 29 whole", "POST /upload 408 29 whole"]);
}

#[test]
fn refusals_before_a_body_and_the_last_answers_are_told() {
    let gate = Gate::new();
    let config = Config { connections_max: 2, body_bytes_max: 10, ..one_loop() };
    let watched = Watched::start(config, &gate, HANG);
    let expecting = |expectation| {
        format!("POST /upload HTTP/1.1\r\nHost: test\r\nExpect: {expectation}\r\nContent-Length: 4\r\n\r\n")
    };
    let mut client = watched.connect();
    assert_eq!(client.ask(expecting("more")).status, 417);
    watched.expect("-  417 26 whole");
    client.expect_fin();
    drop(client);
    // An interim response is no answer.
    let mut client = watched.connect();
    assert_eq!(client.ask(expecting("100-continue")).status, 100);
    client.send("body");
    assert_eq!(client.reply().text(), "4");
    watched.expect("POST /upload 200 1 whole");
    // Of HTTP/1.0, until the connection's end.
    client.send("GET /endless?1.0 HTTP/1.0\r\n\r\n");
    client.next_head();
    reset(client);
    watched.expect("GET /endless?1.0 200 some lost");
    // A client that has ended its side still reads.
    let mut client = watched.connect();
    client.send(PING.repeat(2) + "GET /ping HT");
    client.finish();
    assert_eq!((client.reply().status, client.reply().status), (200, 200));
    client.expect_fin();
    (0..2).for_each(|_| watched.expect("GET /ping 200 4 whole"));
    drop(client);
    let stats = watched.site.stats.clone();
    poll(|| (stats.figures().connections.total() == 0).then_some(())).expect("all have gone");
    // One too many.
    let (mut slow, mut other) = (watched.connect(), watched.connect());
    slow.send(get("/slow"));
    gate.wait_for(1);
    other.send("GET /ping HT");
    poll(|| (stats.figures().connections.reading == 1).then_some(())).expect("it is read");
    assert_eq!(watched.connect().reply().status, 503);
    watched.expect("-  503 21 whole");
    gate.open();
    assert_eq!(slow.reply().text(), "slow");
    watched.expect("GET /slow 200 4 whole");
    // What is never sent is refused in time.
    watched.site.stop();
    assert_eq!(other.reply().status, 408);
    watched.expect("-  408 29 whole");
    assert_eq!(watched.end(), 0);
}

#[test]
fn an_answer_is_told_after_its_own_closures_with_how_long_it_waited() {
    const LONG: Duration = Duration::from_millis(60);
    let (gate, told) = (Gate::new(), Arc::new(Mutex::new(Vec::new())));
    let (stuck, said, sent) = (gate.clone(), Arc::clone(&told), Arc::clone(&told));
    let router = Router::new()
        .get("/slow", move |_| {
            stuck.pass();
            Response::text("slow")
        })
        .get("/ping", move |_| {
            let sent = Arc::clone(&sent);
            Response::text("pong").on_sent(move || sent.lock().unwrap().push("sent".to_owned()))
        });
    let config = Config { handlers_max: 1, ..one_loop() };
    let (done, answers) = mpsc::channel();
    let server = Server::bind("127.0.0.1:0", config).unwrap().on_answer(move |answered| {
        said.lock().unwrap().push(answered.path.to_owned());
        done.send((answered.waited, answered.took)).unwrap();
    });
    let site = Site::run(server, router, HANG);
    let (mut first, mut second) = (site.connect(), site.connect());
    first.send(get("/slow"));
    gate.wait_for(1);
    second.send(PING);
    poll(|| (site.stats.figures().connections.waiting == 1).then_some(())).expect("it waits");
    std::thread::sleep(LONG);
    gate.open();
    assert_eq!((first.reply().text(), second.reply().text()), ("slow".to_owned(), "pong".to_owned()));
    let of = || answers.recv_timeout(HANG).unwrap();
    let (slow, ping) = (of(), of());
    assert!(slow.0 < LONG && slow.1 >= LONG, "{slow:?}");
    assert!(ping.0 >= LONG && ping.1 >= ping.0, "{ping:?}");
    assert_eq!(*told.lock().unwrap(), ["/slow", "sent", "/ping"]);
}

/// Refuses every body, so that its own answer is the last.
struct Refusing;

impl Handler for Refusing {
    fn handle(&self, _: &Request<'_>) -> Response {
        Response::text("refused")
    }

    fn body_plan(&self, _: &Request<'_>) -> BodyPlan {
        BodyPlan::Refuse
    }
}

#[test]
fn a_long_target_is_told_whole_and_a_refused_body_once() {
    let (teller, lines) = mpsc::channel();
    let server = Server::bind("127.0.0.1:0", one_loop()).unwrap().on_answer(move |answered| {
        let query = answered.query.unwrap_or("-");
        teller.send(format!("{} {query} {}", answered.path, answered.is_whole)).unwrap();
    });
    let site = Site::run(server, Refusing, HANG);
    let (path, mut client) = ("/".repeat(1000), site.connect());
    client.send(format!("POST {path}?a?b HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"));
    assert_eq!(client.reply().text(), "refused");
    client.expect_fin();
    drop(client);
    site.stop();
    assert_eq!(site.outcome().exit_code(), 0);
    assert_eq!(lines.iter().collect::<Vec<_>>(), [format!("{path} a?b true")]);
}
