//! Too much of something: what is refused for it is told, counted, and answered so that its client can come again.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use allout::{BodyPlan, Config, Handler, Method, Request, Response, Router, Server};

use crate::drain::get;
use crate::support::{Client, Gate, HANG, PING, Site, poll};

type Told = Arc<Mutex<Vec<String>>>;

/// A site, and what it has to say.
fn told_site(config: Config, handler: impl Handler) -> (Site, Told) {
    let told = Told::default();
    let to = Arc::clone(&told);
    let server = Server::bind("127.0.0.1:0", config).unwrap().on_notice(move |notice| {
        if !notice.is_verbose() {
            to.lock().unwrap().push(notice.to_string());
        }
    });
    (Site::run(server, handler, HANG), told)
}

fn expect_refusal(client: &mut Client) {
    let reply = client.reply();
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{}", reply.head);
}

fn holding(gate: &Gate) -> Router {
    let gate = gate.clone();
    Router::new()
        .get("/ping", |_| Response::text("pong"))
        .post("/echo", |request| Response::bytes("application/octet-stream", request.body().to_vec()))
        .get("/hold", move |_| {
            gate.pass();
            Response::text("held")
        })
}

// ---- Told and counted ----------------------------------------------------------------------------------------------

#[test]
fn requests_that_waited_in_vain_are_told_and_counted() {
    let gate = Gate::new();
    let config = Config { loops: 1, handlers_max: 1, queue_timeout: Duration::from_millis(50), ..Config::default() };
    let (site, told) = told_site(config, holding(&gate));
    let mut holder = site.connect();
    holder.send(get("/hold"));
    gate.wait_for(1);
    let mut client = site.connect();
    client.send(PING);
    expect_refusal(&mut client);
    assert_eq!(site.stats.refused(), 1);
    assert_eq!(*told.lock().unwrap(), ["refused 1: no worker thread was free in time"]);
    gate.open();
    assert_eq!(holder.reply().text(), "held");
}

#[test]
fn connections_without_room_are_told_and_counted() {
    let gate = Gate::new();
    let (site, told) = told_site(Config { loops: 1, connections_max: 1, ..Config::default() }, holding(&gate));
    let mut holder = site.connect();
    holder.send(get("/hold"));
    gate.wait_for(1);
    for count in 1..=3 {
        expect_refusal(&mut site.connect());
        assert_eq!(site.stats.refused(), count);
    }
    // Once a second at most.
    assert_eq!(told.lock().unwrap()[0], "refused 1: too many connections");
    gate.open();
    assert_eq!(holder.reply().text(), "held");
}

/// Each that is refused lingers. So as not to have ever more of them, the server closes the next without an answer.
#[test]
fn who_is_refused_beyond_all_bounds_gets_no_answer() {
    let gate = Gate::new();
    let config = Config { loops: 1, connections_max: 1, linger: HANG, linger_max: HANG, ..Config::default() };
    let (site, _) = told_site(config, holding(&gate));
    let mut holder = site.connect();
    holder.send(get("/hold"));
    gate.wait_for(1);
    let refused = || {
        let mut client = site.connect();
        expect_refusal(&mut client);
        client
    };
    let mut all: Vec<_> = std::iter::repeat_with(refused).take(128).collect();
    assert_eq!(site.connect().rest(), b"");
    assert_eq!(site.stats.refused(), 129);
    // Once one has gone, there is room for another.
    all.pop();
    poll(|| site.connect().next_reply(false).filter(|reply| reply.status == 503)).expect("it is answered");
    gate.open();
    assert_eq!(holder.reply().text(), "held");
}

// ---- Memory for bodies ---------------------------------------------------------------------------------------------

const BODY: usize = 64 * 1024;

fn with_memory_for(bodies: usize) -> Config {
    Config { loops: 1, body_bytes_max: BODY, bodies_bytes_max: bodies * BODY, ..Config::default() }
}

fn upload(framing: &str) -> String {
    format!("POST /echo HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n")
}

/// Waits until the loop has seen what was sent before on other connections.
fn barrier(site: &Site) {
    let mut client = site.connect();
    (0..2).for_each(|_| assert_eq!(client.ask(PING).status, 200));
}

#[test]
fn bodies_held_in_memory_have_one_limit_together() {
    let (site, told) = told_site(with_memory_for(3), holding(&Gate::new()));
    let length = upload(&format!("Content-Length: {BODY}"));
    let mut uploads: Vec<_> = (0..3).map(|_| site.connect()).collect();
    uploads.iter_mut().for_each(|client| client.send(length.clone() + "beginning"));
    barrier(&site);
    // It counts from its head on, before a byte of it has come; whoever asks first is not told to send it.
    for request in [&length, &upload(&format!("Content-Length: {BODY}\r\nExpect: 100-continue"))] {
        let mut client = site.connect();
        client.send(request);
        expect_refusal(&mut client);
        client.expect_fin();
    }
    assert_eq!(site.stats.refused(), 2);
    assert_eq!(told.lock().unwrap()[0], "refused 1: no memory for the request body");
    // What needs none is served, and what comes at once with its head needs none.
    assert_eq!(site.connect().ask(PING).status, 200);
    assert_eq!(site.connect().ask(upload("Content-Length: 2") + "hi").text(), "hi");
    // One that has been answered makes room, and so does one that has gone.
    let first = &mut uploads[0];
    first.send("x".repeat(BODY - "beginning".len()));
    assert_eq!(first.reply().body.len(), BODY);
    drop(uploads.pop());
    for _ in 0..2 {
        let mut client = site.connect();
        poll(|| {
            client = site.connect();
            client.send(length.clone() + &"x".repeat(BODY));
            (client.reply().status == 200).then_some(())
        })
        .expect("there is room again");
    }
}

#[test]
fn a_chunked_body_counts_as_it_grows() {
    let (site, _told) = told_site(with_memory_for(2), holding(&Gate::new()));
    let chunked = upload("Transfer-Encoding: chunked");
    let chunk = format!("{:x}\r\n{}\r\n", 16 * 1024, "x".repeat(16 * 1024));
    let mut uploads: Vec<_> = (0..2).map(|_| site.connect()).collect();
    for client in &mut uploads {
        client.send(chunked.clone() + &chunk.repeat(4));
    }
    barrier(&site);
    let mut client = site.connect();
    client.send(chunked.clone() + &chunk);
    expect_refusal(&mut client);
    for client in &mut uploads {
        client.send("0\r\n\r\n");
        assert_eq!(client.reply().body.len(), 4 * 16 * 1024);
    }
    let mut client = site.connect();
    client.send(chunked + &chunk.repeat(4) + "0\r\n\r\n");
    assert_eq!(client.reply().status, 200);
}

#[test]
fn bodies_that_wait_for_a_handler_count_and_streamed_ones_do_not() {
    let gate = Gate::new();
    let router = holding(&gate).stream(Method::Post, "/count", |_, body| {
        let bytes = std::io::copy(body, &mut std::io::sink());
        Response::text(bytes.unwrap_or_default().to_string())
    });
    let (site, _told) = told_site(Config { handlers_max: 1, ..with_memory_for(1) }, router);
    let mut holder = site.connect();
    holder.send(get("/hold"));
    gate.wait_for(1);
    let whole = upload("Content-Length: 60000") + &"x".repeat(60_000);
    let mut waiting = site.connect();
    waiting.send(&whole);
    barrier_without_permit(&site);
    let mut client = site.connect();
    client.send(&whole);
    expect_refusal(&mut client);
    let mut streamed = site.connect();
    streamed.send("POST /count HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n");
    barrier_without_permit(&site);
    gate.open();
    assert_eq!(holder.reply().text(), "held");
    assert_eq!(waiting.reply().body.len(), 60_000);
    streamed.send("x".repeat(100_000));
    assert_eq!(streamed.reply().text(), "100000");
}

/// The same as [`barrier`] where no handler may be called: a path that there is not is answered at once.
fn barrier_without_permit(site: &Site) {
    let mut client = site.connect();
    (0..2).for_each(|_| assert_eq!(client.ask(get("/nowhere")).status, 404));
}

// ---- A last look ---------------------------------------------------------------------------------------------------

/// A loop that was kept from its sockets for longer than a head may take finds whole requests in them, and answers
/// them. On a machine that was too slow to set this up in time it is tried again with more.
#[test]
fn requests_that_lie_in_the_socket_when_their_clocks_run_out_are_answered() {
    // More than the system reports at a time.
    const COUNT: usize = 400;
    for timeout in [500, 2000, 8000].map(Duration::from_millis) {
        let (hold, stall) = (Gate::new(), Gate::new());
        let stalling = stall.clone();
        let router = holding(&hold).at_once(Method::Get, "/stall", move |_| {
            stalling.pass();
            Response::text("stalled")
        });
        let config =
            Config { loops: 1, handlers_max: 1, head_timeout: timeout, queue_timeout: HANG, ..Config::default() };
        let site = Site::start(config, router);
        let mut holder = site.connect();
        holder.send(get("/hold"));
        hold.wait_for(1);
        let begun = Instant::now();
        let request = get("/nowhere");
        let (head, rest) = request.split_at(20);
        let mut clients: Vec<_> = (0..COUNT).map(|_| site.connect()).collect();
        clients.iter_mut().for_each(|client| client.send(head));
        barrier_without_permit(&site);
        let mut staller = site.connect();
        staller.send(get("/stall"));
        stall.wait_for(1);
        let was_in_time = begun.elapsed() < timeout / 2;
        clients.iter_mut().for_each(|client| client.send(rest));
        // The time is to run out: there is nothing else to wait for.
        thread::sleep(timeout);
        stall.open();
        assert_eq!(staller.reply().text(), "stalled");
        let answered = clients.iter_mut().map(|client| client.reply().status).filter(|status| *status == 404).count();
        hold.open();
        assert_eq!(holder.reply().text(), "held");
        if was_in_time {
            assert_eq!(answered, COUNT);
            return;
        }
    }
}

/// The same of a request whose handler may be called by the time that its wait is over.
#[test]
fn a_request_that_may_be_answered_when_its_wait_is_over_is() {
    for timeout in [200, 1000, 5000].map(Duration::from_millis) {
        let (hold, stall) = (Gate::new(), Gate::new());
        let stalling = stall.clone();
        let router = holding(&hold).at_once(Method::Get, "/stall", move |_| {
            stalling.pass();
            Response::text("stalled")
        });
        let site =
            Site::start(Config { loops: 1, handlers_max: 1, queue_timeout: timeout, ..Config::default() }, router);
        let mut holder = site.connect();
        holder.send(get("/hold"));
        hold.wait_for(1);
        let (mut staller, mut client) = (site.connect(), site.connect());
        for stalled in [&mut staller, &mut client] {
            assert_eq!(stalled.ask(get("/nowhere")).status, 404);
        }
        let begun = Instant::now();
        client.send(PING);
        barrier_without_permit(&site);
        staller.send(get("/stall"));
        stall.wait_for(1);
        let was_in_time = begun.elapsed() < timeout / 2;
        hold.open();
        // The time is to run out, and the handler that stood in its way to return.
        thread::sleep(timeout);
        stall.open();
        let answers = [&mut client, &mut holder, &mut staller].map(|client| client.reply().status);
        if was_in_time {
            assert_eq!(answers, [200; 3]);
            return;
        }
    }
}

// ---- Panics before the handler ---------------------------------------------------------------------------------------

/// Panics when it is asked what is to become of a body, or whether it answers at once.
struct Asked;

impl Handler for Asked {
    fn handle(&self, _: &Request<'_>) -> Response {
        Response::text("handled")
    }

    fn body_plan(&self, request: &Request<'_>) -> BodyPlan {
        panic!("asked for {}", request.raw_path())
    }
}

#[test]
fn a_handler_that_panics_when_it_is_asked_about_a_body_is_told_and_answered_500() {
    let (site, told) = told_site(Config { loops: 1, ..Config::default() }, Asked);
    let mut neighbour = site.connect();
    assert_eq!(neighbour.ask(PING).text(), "handled");
    for (path, expect) in [("/a", ""), ("/b", "Expect: 100-continue\r\n")] {
        let mut client = site.connect();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n{expect}\r\n"));
        let reply = client.reply();
        assert_eq!((reply.status, reply.is_last()), (500, true), "{path}");
    }
    let told = std::mem::take(&mut *told.lock().unwrap());
    assert_eq!(told, ["handler of POST /a panicked: asked for /a", "handler of POST /b panicked: asked for /b"]);
    assert_eq!(neighbour.ask(PING).text(), "handled");
}
