//! What a server counts, and what it says that it is busy with.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use allout::{Busy, Config, Connections, Figures, Method, Response, Router, Server, Stats, Status, Work};

use crate::drain::get;
use crate::support::{Client, Gate, HANG, PING, Site, poll};

const STREAMED: usize = 100_000;
const BODY: usize = 64 * 1024;

fn routes(gate: &Gate) -> Router {
    let (gate, stuck) = (gate.clone(), gate.clone());
    Router::new()
        .get("/ping", |_| Response::text("pong"))
        .get("/moved", |_| Response::new(Status::SEE_OTHER).with_field("Location", "/ping"))
        .get("/panic", |_| -> Response { panic!("asked to") })
        .get("/big", |_| Response::bytes("text/plain", vec![b'x'; 16 << 20]))
        .get("/hold", move |_| {
            gate.pass();
            Response::text("held")
        })
        .get("/stream", move |_| {
            let gate = stuck.clone();
            Response::stream("text/plain", move |out| {
                out.write_all(&[b'x'; STREAMED])?;
                out.flush()?;
                gate.pass();
                Ok(())
            })
            .with_length(STREAMED as u64)
        })
        .post("/echo", |request| Response::bytes("text/plain", request.body().to_vec()))
        .stream(Method::Post, "/count", |_, body| {
            let count = io::copy(body, &mut io::sink()).unwrap_or(0);
            Response::text(count.to_string())
        })
}

fn start(config: Config, gate: &Gate) -> Site {
    let server = Server::bind("127.0.0.1:0", config).unwrap();
    assert_eq!(server.stats().figures(), Figures::default(), "nothing has happened yet");
    Site::run(server, routes(gate), HANG)
}

/// Whoever is idle when the stop comes is not waited for.
fn one_loop() -> Config {
    Config { loops: 1, idle_grace: Duration::ZERO, ..Config::default() }
}

/// A loop counts an answer's end when it has been sent, and so perhaps after its client has it.
#[track_caller]
fn expect(stats: &Stats, is_so: impl Fn(&Figures) -> bool) -> Figures {
    let found = poll(|| Some(stats.figures()).filter(&is_so));
    found.unwrap_or_else(|| panic!("this stays: {:#?}", stats.figures()))
}

#[test]
fn answers_connections_and_bytes_are_counted() {
    let site = start(one_loop(), &Gate::new());
    let request = PING.repeat(3) + &get("/moved") + &get("/nowhere") + &get("/panic");
    let mut client = site.connect();
    client.send(&request);
    let received = client.rest().len() as u64;
    drop(client);
    let figures = expect(&site.stats, |figures| figures.connections.total() == 0);
    assert_eq!((figures.accepted, figures.answers, figures.panics), (1, [3, 1, 1, 1], 1));
    assert_eq!((figures.bytes_in, figures.bytes_out), (request.len() as u64, received));
    assert_eq!(figures.durations.count(), 6);
    // The server's own refusal, and HEAD.
    let mut client = site.connect();
    client.send(PING.replace("GET", "HEAD"));
    client.reply_to_head();
    client.send("no request\r\n\r\n");
    client.rest();
    drop(client);
    let figures = expect(&site.stats, |figures| figures.accepted == 2 && figures.connections.total() == 0);
    assert_eq!(figures.answers, [4, 1, 2, 1]);
    assert_eq!(Figures::CLASSES.len(), figures.answers.len());
    // What is there after the end is final.
    let stats = site.stats.clone();
    site.stop();
    assert_eq!(site.outcome().exit_code(), 0);
    assert_eq!(stats.figures(), figures);
    assert!(format!("{stats:?}").starts_with("Stats(Figures { accepted: 2,"), "{stats:?}");
}

#[test]
fn an_answer_takes_from_when_its_request_has_come_until_it_leaves() {
    const LONG: Duration = Duration::from_millis(120);
    let gate = Gate::new();
    let site = start(Config { handlers_max: 1, ..one_loop() }, &gate);
    assert_eq!(site.connect().ask(PING).text(), "pong");
    let quick = expect(&site.stats, |figures| figures.durations.count() == 1).durations;
    let (mut first, mut second) = (site.connect(), site.connect());
    first.send(get("/hold"));
    gate.wait_for(1);
    // This one waits for the first.
    second.send(PING);
    expect(&site.stats, |figures| figures.connections.waiting == 1);
    thread::sleep(LONG);
    gate.open();
    assert_eq!((first.reply().text(), second.reply().text()), ("held".to_owned(), "pong".to_owned()));
    let both = expect(&site.stats, |figures| figures.durations.count() == 3).durations;
    assert!(both.sum() >= quick.sum() + 2 * LONG, "{both:?} after {quick:?}");
    for (bound, count) in both.buckets() {
        assert!(bound >= LONG || count <= 1, "{both:?}");
        assert!(count <= both.count());
    }
    assert!(both.buckets().map(|(_, count)| count).is_sorted());
    assert!(both.buckets().map(|(bound, _)| bound).is_sorted());
    assert!(site.stats.figures().hand_offs >= 1);
}

#[test]
fn what_handlers_stream_is_counted_as_it_goes() {
    let gate = Gate::new();
    let site = start(one_loop(), &gate);
    let mut client = site.connect();
    client.send(get("/stream"));
    gate.wait_for(1);
    let figures = expect(&site.stats, |figures| figures.bytes_out > STREAMED as u64);
    assert_eq!((figures.answers, figures.handlers, figures.connections.working), ([1, 0, 0, 0], 1, 1));
    assert_eq!(figures.durations.count(), 0, "it has not left yet");
    gate.open();
    assert_eq!(client.reply().body.len(), STREAMED);
    expect(&site.stats, |figures| figures.durations.count() == 1 && figures.handlers == 0);
    let before = site.stats.figures().bytes_in;
    let head = "POST /count HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n";
    client.send(head);
    client.send(vec![b'x'; STREAMED]);
    assert_eq!(client.reply().text(), STREAMED.to_string());
    assert_eq!(site.stats.figures().bytes_in - before, (head.len() + STREAMED) as u64);
}

fn body(length: usize, sent: &str) -> String {
    format!("POST /echo?query HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{sent}")
}

/// A connection in the middle of each thing that there is, and one that is idle.
fn one_of_each(site: &Site, gate: &Gate) -> Vec<Client> {
    let mut clients: Vec<_> = (0..5).map(|_| site.connect()).collect();
    assert_eq!(clients[0].ask(PING).text(), "pong");
    clients[1].send(body(5, "bo"));
    expect(&site.stats, |figures| figures.connections.reading == 1);
    clients[2].send(get("/big"));
    expect(&site.stats, |figures| figures.connections.writing == 1);
    clients[3].send(get("/hold"));
    gate.wait_for(1);
    clients[4].send(get("/ping?query"));
    expect(&site.stats, |figures| figures.connections.waiting == 1);
    clients
}

fn line(busy: &Busy) -> (Work, Option<Method>, &str) {
    (busy.work, busy.method, &busy.path)
}

#[test]
fn what_connections_are_in_the_middle_of_is_counted_and_told() {
    let gate = Gate::new();
    let site = start(Config { handlers_max: 1, ..one_loop() }, &gate);
    let clients = one_of_each(&site, &gate);
    let figures = expect(&site.stats, |figures| figures.connections.working == 1);
    let Connections { idle, reading, waiting, working, writing, lingering, .. } = figures.connections;
    assert_eq!([idle, reading, waiting, working, writing, lingering], [1, 1, 1, 1, 1, 0]);
    assert_eq!((figures.connections.total(), figures.handlers, figures.accepted), (5, 1, 5));
    let busy = site.stats.busy(10, HANG);
    let lines: Vec<_> = busy.iter().map(line).collect();
    let hold = (Work::Handler, Some(Method::Get), "/hold");
    let (echo, ping) = ((Work::Body, Some(Method::Post), "/echo"), (Work::Waiting, Some(Method::Get), "/ping"));
    assert_eq!(lines, [echo, (Work::Writing, None, ""), hold, ping], "the longest first");
    assert!(busy.iter().map(|busy| busy.age).rev().is_sorted());
    for (busy, client) in busy.iter().zip(&clients[1..]) {
        assert_eq!(busy.peer.to_string(), client.stream.local_addr().unwrap().to_string());
        assert!(!busy.client_has_gone);
    }
    let text = busy[2].to_string();
    assert!(text.starts_with("GET /hold for 127.0.0.1:") && text.contains(", its handler running for "), "{text}");
    assert!(busy[1].to_string().starts_with("127.0.0.1:"), "{}", busy[1]);
    assert_eq!(site.stats.busy(2, HANG).iter().map(line).collect::<Vec<_>>(), lines[..2]);
    assert_eq!(site.stats.busy(0, HANG), []);
    // A stop closes the idle one alone; the others are those that it waits for.
    site.stop();
    expect(&site.stats, |figures| figures.connections.total() == 4);
    assert_eq!(site.stats.busy(10, HANG).len(), 4);
    gate.open();
    let stats = site.stats.clone();
    drop(clients);
    assert_eq!(site.outcome().exit_code(), 0);
    assert_eq!((stats.busy(10, HANG), stats.figures().connections), (Vec::new(), Connections::default()));
}

#[test]
fn a_handler_can_ask_what_its_own_server_is_busy_with() {
    let server = Server::bind("127.0.0.1:0", Config { loops: 2, ..Config::default() }).unwrap();
    let stats = server.stats();
    let router = Router::new().get("/busy", move |_| {
        let busy = stats.busy(10, HANG);
        Response::text(busy.iter().map(|busy| format!("{busy}\n")).collect::<String>())
    });
    let site = Site::run(server, router, HANG);
    let text = site.connect().ask(get("/busy")).text();
    assert!(text.starts_with("GET /busy for 127.0.0.1:") && text.lines().count() == 1, "{text}");
}

#[test]
fn what_is_refused_is_counted_by_what_ran_out() {
    let gate = Gate::new();
    let config = Config {
        handlers_max: 1,
        queue_timeout: Duration::from_millis(20),
        body_bytes_max: BODY,
        bodies_bytes_max: BODY,
        connections_max: 3,
        ..one_loop()
    };
    let site = start(config, &gate);
    let (mut holder, mut upload, mut other) = (site.connect(), site.connect(), site.connect());
    holder.send(get("/hold"));
    gate.wait_for(1);
    upload.send(body(BODY, "bo"));
    expect(&site.stats, |figures| figures.connections.reading == 1);
    assert_eq!(other.ask(PING).status, 503);
    assert_eq!(other.ask(body(BODY, "")).status, 503);
    other.expect_fin();
    drop(other);
    expect(&site.stats, |figures| figures.connections.total() == 2);
    let mut other = site.connect();
    other.send("GET /ping HT");
    expect(&site.stats, |figures| figures.connections.reading == 2);
    assert_eq!(site.connect().reply().status, 503);
    let figures = site.stats.figures();
    assert_eq!([figures.refused_for_connections, figures.refused_for_handlers, figures.refused_for_memory], [1, 1, 1]);
    assert_eq!((site.stats.refused(), figures.answers), (3, [0, 0, 0, 3]));
    gate.open();
    assert_eq!(holder.reply().text(), "held");
}

#[test]
fn what_a_stop_drains_is_counted() {
    let gate = Gate::new();
    let site = start(one_loop(), &gate);
    let mut client = site.connect();
    client.send(get("/hold") + &PING.repeat(2));
    gate.wait_for(1);
    site.stop();
    gate.open();
    (0..3).for_each(|_| assert_eq!(client.reply().status, 200));
    drop(client);
    let stats = site.stats.clone();
    assert_eq!(site.outcome().exit_code(), 0);
    let figures = stats.figures();
    assert_eq!((figures.drained, figures.cut_off, figures.answers), (3, 0, [3, 0, 0, 0]));
    assert_eq!((stats.finished_while_draining(), figures.connections.total()), (3, 0));
}
