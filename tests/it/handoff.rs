//! The hand-off: handlers that block stall nobody but their own client, and when all threads are held by them, requests
//! wait their turn.

use std::collections::HashSet;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use allout::{Config, CutOff, Exit, Outcome, Request, Response, Router, Server};

use crate::drain::{
    SHORT, cut_off, expect_answer, expect_clean, get, routes, start, start_with_grace, wait_until_refused,
};
use crate::support::{Client, Gate, HANG, PING, Site, at_once, poll};

/// One loop, and no request that waits for its turn is given up because the machine is slow.
fn one_loop() -> Config {
    Config { loops: 1, queue_timeout: HANG, ..Config::default() }
}

/// `/keep` is `/echo` that waits at the gate.
fn routes_with_keep(gate: &Gate) -> Router {
    let at = gate.clone();
    routes(gate).post("/keep", move |request| {
        at.pass();
        Response::bytes("application/octet-stream", request.body().to_vec())
    })
}

/// So many clients ask for `/hold/0`, `/hold/1` and so on, one after another, and each one's handler is at the gate.
fn hold(site: &Site, gate: &Gate, count: usize) -> Vec<Client> {
    let hold_one = |n| {
        let mut client = site.connect();
        client.send(get(&format!("/hold/{n}")));
        gate.wait_for(n + 1);
        client
    };
    (0..count).map(hold_one).collect()
}

/// Somebody else is answered. With one loop: no handler that was called before has it any more.
#[track_caller]
fn expect_others_served(site: &Site) {
    assert_eq!(site.connect().ask(PING).text(), "pong");
}

/// With one loop: whatever was sent before has been read when this returns. The poller may have looked at a connection
/// just before its bytes came, and found the first of these newcomers in the same round; but not the second. Neither
/// needs a thread for its answer.
#[track_caller]
fn wait_until_read(site: &Site) {
    for _ in 0..2 {
        assert_eq!(site.connect().ask("BAD\r\n\r\n").status, 400);
    }
}

// ---- One that blocks ---------------------------------------------------------------------------------------------

#[track_caller]
fn check_stalls_nobody(loops: usize) {
    let gate = Gate::new();
    let site = start(Config { loops, ..Config::default() }, routes(&gate));
    let mut kept: Vec<_> = (0..8).map(|_| site.connect()).collect();
    for client in &mut kept {
        assert_eq!(client.ask(PING).text(), "pong");
    }
    let mut half = site.connect();
    half.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nha");
    let mut blocked = hold(&site, &gate, 1);
    for _ in 0..3 {
        for client in &mut kept {
            assert_eq!(client.ask(PING).text(), "pong");
        }
        expect_others_served(&site);
    }
    half.send("lf");
    expect_answer(&mut half, "half", false);
    gate.open();
    expect_answer(&mut blocked[0], "0", false);
    // Where the loop is now does not matter to anybody.
    for client in kept.iter_mut().chain(&mut blocked).chain([&mut half]) {
        assert_eq!(client.ask(PING).text(), "pong");
    }
}

#[test]
fn a_handler_that_blocks_stalls_nobody_on_one_loop() {
    check_stalls_nobody(1);
}

#[test]
fn a_handler_that_blocks_stalls_nobody_on_two_loops() {
    check_stalls_nobody(2);
}

#[track_caller]
fn check_hundreds(loops: usize) {
    let gate = Gate::new();
    let config = Config { loops, handlers_max: 300, stack_bytes: Some(256 * 1024), ..Config::default() };
    let site = start(config, routes(&gate));
    let mut other = site.connect();
    let mut blocked = Vec::new();
    for n in 0..300 {
        let mut client = site.connect();
        client.send(get(&format!("/hold/{n}")));
        gate.wait_for(n + 1);
        // The last thread has no successor but the one that serves the others' loop, and there is no permit left.
        if n < 299 {
            assert_eq!(other.ask(PING).text(), "pong");
        }
        blocked.push(client);
    }
    gate.open();
    for (n, client) in blocked.iter_mut().enumerate() {
        expect_answer(client, &n.to_string(), false);
    }
    assert_eq!(other.ask(PING).text(), "pong");
}

#[test]
fn hundreds_of_handlers_that_block_one_after_another_stall_nobody_on_one_loop() {
    check_hundreds(1);
}

#[test]
fn hundreds_of_handlers_that_block_one_after_another_stall_nobody_on_two_loops() {
    check_hundreds(2);
}

#[test]
fn a_handler_may_call_its_own_server() {
    let server = Server::bind("127.0.0.1:0", one_loop()).unwrap();
    let Some(allout::LocalAddress::Tcp(address)) = server.addresses().next().cloned() else { panic!("no TCP address") };
    // Down to 0, each by a request to the next.
    let router = Router::new().get("/n/{n}", move |request| {
        let n: usize = request.param("n").unwrap().parse().unwrap();
        let below =
            if n == 0 { String::new() } else { Client::connect(address).ask(get(&format!("/n/{}", n - 1))).text() };
        Response::text(format!("{n}{below}"))
    });
    let site = Site::run(server, router, HANG);
    for _ in 0..5 {
        assert_eq!(site.connect().ask(get("/n/9")).text(), "9876543210");
    }
    site.stop();
    expect_clean(site);
}

/// Needs 4 MiB of stack.
fn use_stack(depth: usize) -> usize {
    let mut bytes = [0_u8; 64 * 1024];
    std::hint::black_box(&mut bytes)[depth] = 1;
    let below = if depth == 0 { 0 } else { use_stack(depth - 1) };
    below + usize::from(std::hint::black_box(&bytes)[depth])
}

#[test]
fn worker_threads_have_the_stack_that_was_asked_for() {
    let gate = Gate::new();
    let router = routes(&gate).get("/deep", |_| Response::text(use_stack(63).to_string()));
    let site = start(Config { stack_bytes: Some(8 * 1024 * 1024), ..one_loop() }, router);
    assert_eq!(site.connect().ask(get("/deep")).text(), "64");
    // A thread that was started later, too.
    let _blocked = hold(&site, &gate, 1);
    assert_eq!(site.connect().ask(get("/deep")).text(), "64");
    gate.open();
}

// ---- Its own connection ------------------------------------------------------------------------------------------

#[test]
fn answers_before_a_slow_request_arrive_before_it_has_finished() {
    let gate = Gate::new();
    let site = start(one_loop(), routes(&gate));
    let mut client = site.connect();
    client.send(get("/n/1") + &get("/n/2") + &get("/hold/3") + &get("/n/4"));
    expect_answer(&mut client, "1", false);
    expect_answer(&mut client, "2", false);
    gate.wait_for(1);
    gate.open();
    expect_answer(&mut client, "3", false);
    expect_answer(&mut client, "4", false);
}

#[test]
fn a_slow_request_in_every_place_of_a_batch_is_answered_in_order() {
    // Each has a gate of its own, and is the second of its three.
    let gates: Vec<Gate> = (0..10).map(|_| Gate::new()).collect();
    let at = gates.clone();
    let router = routes(&Gate::new()).get("/step/{n}", move |request| {
        let n = request.param("n").unwrap();
        at[n.parse::<usize>().unwrap()].pass();
        Response::text(n.into_owned())
    });
    let site = start(one_loop(), router);
    let mut client = site.connect();
    let batch: Vec<_> = (0..10).map(|n| get(&format!("/n/{n}")) + &get(&format!("/step/{n}")) + PING).collect();
    client.send(batch.concat());
    for (n, gate) in gates.iter().enumerate() {
        expect_answer(&mut client, &n.to_string(), false);
        gate.wait_for(1);
        expect_others_served(&site);
        gate.open();
        expect_answer(&mut client, &n.to_string(), false);
        expect_answer(&mut client, "pong", false);
    }
}

/// What comes with the slow request, while its handler runs, and after its answer: `/n/1` and so on, all answered in
/// order.
#[track_caller]
fn check_successors(with: &str, during: &str, after: &str, count: usize) {
    let gate = Gate::new();
    let site = start(one_loop(), routes(&gate));
    let mut client = site.connect();
    client.send(get("/hold/0") + with);
    gate.wait_for(1);
    expect_others_served(&site);
    client.send(during);
    // It is reported to a loop that does not read it now.
    wait_until_read(&site);
    gate.open();
    expect_answer(&mut client, "0", false);
    client.send(after);
    for n in 1..=count {
        expect_answer(&mut client, &n.to_string(), false);
    }
    assert_eq!(client.ask(PING).text(), "pong", "{with:?}, {during:?}, {after:?}");
}

#[test]
fn requests_that_came_with_a_slow_one_are_answered_in_order() {
    check_successors(&(get("/n/1") + &get("/n/2") + &get("/n/3")), "", "", 3);
}

#[test]
fn requests_that_come_while_a_slow_one_runs_are_answered_in_order() {
    check_successors("", &(get("/n/1") + &get("/n/2")), "", 2);
    check_successors(&get("/n/1"), &get("/n/2"), &get("/n/3"), 3);
}

#[test]
fn part_of_a_request_behind_a_slow_one_is_completed_later() {
    let (head, rest) = ("GET /n/1 HTTP/1.1\r\nHo", "st: test\r\n\r\n");
    check_successors(head, rest, "", 1);
    check_successors(head, "", rest, 1);
    check_successors("", head, rest, 1);
    check_successors("G", "ET /n/1 HTTP/1.1\r\nHo", rest, 1);
    let (head, rest) =
        ("POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\n1\r\n0\r\n\r\n");
    check_successors(head, rest, &get("/n/2"), 2);
    check_successors("", &format!("{head}1\r"), "\n1\r\n0\r\n\r\n", 1);
    check_successors(&format!("{head}1\r\n1"), "\r\n0", "\r\n\r\n", 1);
}

#[test]
fn a_batch_behind_a_slow_request_that_no_single_read_holds_is_answered_in_order() {
    let padding = "x".repeat(1000);
    let batch: String =
        (1..=150).map(|n| format!("GET /n/{n} HTTP/1.1\r\nHost: test\r\nX: {padding}\r\n\r\n")).collect();
    check_successors(&batch, "", "", 150);
    check_successors("", &batch, "", 150);
}

#[test]
fn a_slow_request_with_a_body_is_told_from_what_follows() {
    let large = "x".repeat(300_000);
    let cases = [
        ("Content-Length: 5\r\n\r\nhello".to_owned(), "hello"),
        ("Content-Length: 0\r\n\r\n".to_owned(), ""),
        ("Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nA: b\r\n\r\n".to_owned(), "hello"),
        (format!("Content-Length: {}\r\n\r\n{large}", large.len()), &large),
        (format!("Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", "5\r\nxxxxx\r\n".repeat(60_000)), &large),
    ];
    let gate = Gate::new();
    let site = start(Config { handlers_max: cases.len() + 1, ..one_loop() }, routes_with_keep(&gate));
    let mut clients = Vec::new();
    for (n, (request, _)) in cases.iter().enumerate() {
        let mut client = site.connect();
        client.send(format!("{PING}POST /keep HTTP/1.1\r\nHost: test\r\n{request}{}GET /n", get("/n/1")));
        expect_answer(&mut client, "pong", false);
        gate.wait_for(n + 1);
        expect_others_served(&site);
        clients.push(client);
    }
    gate.open();
    for ((_, body), client) in cases.iter().zip(&mut clients) {
        expect_answer(client, body, false);
        expect_answer(client, "1", false);
        client.send("/2 HTTP/1.1\r\nHost: test\r\n\r\n");
        expect_answer(client, "2", false);
    }
}

#[test]
fn a_slow_head_request_is_answered_without_a_body() {
    let gate = Gate::new();
    let site = start(one_loop(), routes(&gate));
    let mut client = site.connect();
    client.send(format!("HEAD /hold/12345 HTTP/1.1\r\nHost: test\r\n\r\n{PING}"));
    gate.wait_for(1);
    expect_others_served(&site);
    gate.open();
    let reply = client.reply_to_head();
    assert_eq!((reply.status, reply.header("content-length")), (200, Some("5")));
    expect_answer(&mut client, "pong", false);
}

/// A slow request with this request line and these fields, and one behind it: what its answer says of the connection,
/// and whether the second is answered.
#[track_caller]
fn check_persistence(version: &str, fields: &str, connection: Option<&str>) {
    let gate = Gate::new();
    let site = start(one_loop(), routes(&gate));
    let mut client = site.connect();
    client.send(format!("GET /hold/0 HTTP/{version}\r\nHost: test\r\n{fields}\r\n{PING}"));
    gate.wait_for(1);
    expect_others_served(&site);
    gate.open();
    let reply = client.reply();
    assert_eq!((reply.status, reply.header("connection")), (200, connection), "HTTP/{version} {fields:?}");
    if connection == Some("close") {
        client.expect_fin();
    } else {
        expect_answer(&mut client, "pong", false);
    }
}

#[test]
fn a_slow_request_keeps_or_closes_its_connection_as_it_asked() {
    check_persistence("1.1", "", None);
    check_persistence("1.1", "Connection: close\r\n", Some("close"));
    check_persistence("1.0", "", Some("close"));
    check_persistence("1.0", "Connection: keep-alive\r\n", Some("keep-alive"));
}

// ---- Clients that go away ------------------------------------------------------------------------------------------

/// A client goes away while its handler blocks: the handler finishes, and who waits for the end of the answer is told.
#[track_caller]
fn check_gone(leave: impl FnOnce(Client)) {
    let gate = Gate::new();
    let (sender, ended) = mpsc::channel();
    let at = gate.clone();
    let router = routes(&gate).get("/told", move |_| {
        at.pass();
        let sender = sender.clone();
        Response::text("told").on_sent(move || sender.send(()).unwrap())
    });
    let site = start(one_loop(), router);
    let mut client = site.connect();
    client.send(PING.to_owned() + &get("/told") + &get("/n/1"));
    gate.wait_for(1);
    expect_others_served(&site);
    leave(client);
    wait_until_read(&site);
    gate.open();
    ended.recv_timeout(HANG).expect("it is told that the answer was lost");
    expect_others_served(&site);
    site.stop();
    expect_clean(site);
    // Once.
    assert!(ended.try_recv().is_err());
}

#[test]
fn a_client_that_closes_while_its_handler_blocks_costs_nothing() {
    check_gone(|mut client| expect_answer(&mut client, "pong", false));
}

#[test]
fn a_client_that_resets_while_its_handler_blocks_costs_nothing() {
    check_gone(|client| {
        // Closed with an answer unread, it resets.
        assert_eq!(client.stream.peek(&mut [0]).unwrap(), 1);
    });
}

#[test]
fn a_client_that_half_closes_while_its_handler_blocks_gets_its_answers() {
    let gate = Gate::new();
    let site = start(one_loop(), routes(&gate));
    let mut client = site.connect();
    client.send(get("/hold/0") + &get("/n/1"));
    client.finish();
    gate.wait_for(1);
    expect_others_served(&site);
    wait_until_read(&site);
    gate.open();
    expect_answer(&mut client, "0", false);
    expect_answer(&mut client, "1", false);
    client.expect_fin();
}

#[test]
fn threads_of_slow_handlers_are_used_again() {
    const ROUNDS: usize = 50;
    let threads = Arc::new(Mutex::new(HashSet::new()));
    let gates: Vec<Gate> = (0..ROUNDS).map(|_| Gate::new()).collect();
    let (at, noted) = (gates.clone(), Arc::clone(&threads));
    let router = routes(&Gate::new()).get("/step/{n}", move |request| {
        noted.lock().unwrap().insert(thread::current().id());
        at[request.param("n").unwrap().parse::<usize>().unwrap()].pass();
        Response::text("done")
    });
    let site = start(one_loop(), router);
    for (n, gate) in gates.iter().enumerate() {
        let mut client = site.connect();
        client.send(get(&format!("/step/{n}")));
        gate.wait_for(1);
        expect_others_served(&site);
        gate.open();
        // Every other one is gone before its answer.
        if n % 2 == 0 {
            expect_answer(&mut client, "done", false);
        }
    }
    let count = threads.lock().unwrap().len();
    // Two are needed. One that is slow to become a spare may cause another.
    assert!(count <= 10, "{count} threads for {ROUNDS} handlers, one at a time");
}

// ---- All threads are held --------------------------------------------------------------------------------------------

/// Counts handlers that run, and the most of them at once.
#[derive(Clone, Default)]
struct Gauge(Arc<(AtomicUsize, AtomicUsize)>);

impl Gauge {
    fn while_counted<T>(&self, run: impl FnOnce() -> T) -> T {
        let (running, most) = &*self.0;
        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let result = run();
        running.fetch_sub(1, Ordering::SeqCst);
        result
    }

    fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

/// Routes whose handlers are all counted.
fn counted(gauge: &Gauge, router: Router) -> impl allout::Handler {
    let gauge = gauge.clone();
    move |request: &Request<'_>| gauge.while_counted(|| allout::Handler::handle(&router, request))
}

#[track_caller]
fn check_most(threads: usize, loops: usize, most: usize) {
    let (gate, gauge) = (Gate::new(), Gauge::default());
    let config = Config { handlers_max: threads, loops, ..one_loop() };
    let site = Site::start(config, counted(&gauge, routes(&gate)));
    let mut clients: Vec<_> = (0..4 * most).map(|_| site.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(get(&format!("/hold/{n}")) + &get(&format!("/n/{n}")));
    }
    gate.wait_for(most);
    wait_until_read(&site);
    assert_eq!(gauge.most(), most, "{threads} threads, {loops} loops");
    gate.open();
    for (n, client) in clients.iter_mut().enumerate() {
        expect_answer(client, &n.to_string(), false);
        expect_answer(client, &n.to_string(), false);
    }
    assert_eq!(gauge.most(), most, "{threads} threads, {loops} loops");
}

#[test]
fn never_more_handlers_than_threads_run_and_all_requests_are_answered() {
    check_most(4, 2, 4);
    check_most(3, 1, 3);
}

#[test]
fn there_is_a_thread_for_each_loop_at_least() {
    check_most(1, 3, 3);
    check_most(0, 1, 1);
}

#[test]
fn never_more_handlers_than_threads_run_while_they_come_and_go() {
    let gauge = Gauge::default();
    let router = routes(&Gate::new()).get("/work", |_| {
        // It is slow, which is all that matters here.
        thread::sleep(Duration::from_millis(3));
        Response::text("worked")
    });
    let config = Config { handlers_max: 4, loops: 2, ..one_loop() };
    let site = Site::start(config, counted(&gauge, router));
    let address = site.address;
    let ask = move |paths: [&'static str; 2]| {
        let mut client = Client::connect(address);
        for _ in 0..20 {
            client.send(paths.map(get).concat());
            for _ in paths {
                assert_eq!(client.reply().status, 200);
            }
        }
    };
    let clients: Vec<_> = (0..12)
        .map(|n| thread::spawn(move || ask(if n % 2 == 0 { ["/work", "/ping"] } else { ["/n/1", "/work"] })))
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert!(gauge.most() <= 4, "{} at once", gauge.most());
    site.stop();
    expect_clean(site);
}

#[test]
fn requests_wait_in_the_order_in_which_they_came() {
    let gate = Gate::new();
    let order = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&order);
    let router = routes(&gate).get("/note/{n}", move |request| {
        noted.lock().unwrap().push(request.param("n").unwrap().parse::<usize>().unwrap());
        Response::text("noted")
    });
    let site = start(Config { handlers_max: 1, ..one_loop() }, router);
    // They are seated in another order than the one in which they will ask.
    let mut clients: Vec<_> = (0..8).map(|_| site.connect()).collect();
    clients.rotate_left(3);
    let mut blocked = hold(&site, &gate, 1);
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(get(&format!("/note/{n}")));
        wait_until_read(&site);
    }
    gate.open();
    expect_answer(&mut blocked[0], "0", false);
    for client in &mut clients {
        expect_answer(client, "noted", false);
    }
    assert_eq!(*order.lock().unwrap(), (0..8).collect::<Vec<_>>());
}

#[test]
fn answers_before_a_request_that_waits_arrive_meanwhile() {
    let gates = [Gate::new(), Gate::new()];
    let at = gates[1].clone();
    let router = routes(&gates[0]).get("/second", move |_| {
        at.pass();
        Response::text("second")
    });
    let site = start(Config { handlers_max: 2, ..one_loop() }, router);
    let _first = hold(&site, &gates[0], 1);
    let mut client = site.connect();
    client.send(get("/n/1") + &get("/n/2") + &get("/second") + &get("/n/3"));
    expect_answer(&mut client, "1", false);
    expect_answer(&mut client, "2", false);
    gates[1].wait_for(1);
    // Both threads are held.
    let mut waiting = site.connect();
    waiting.send(get("/n/4") + &get("/n/5") + "GET /n/6");
    wait_until_read(&site);
    gates[1].open();
    expect_answer(&mut client, "second", false);
    expect_answer(&mut client, "3", false);
    expect_answer(&mut waiting, "4", false);
    expect_answer(&mut waiting, "5", false);
    waiting.send(" HTTP/1.1\r\nHost: test\r\n\r\n");
    expect_answer(&mut waiting, "6", false);
    gates[0].open();
}

#[test]
fn with_all_threads_held_loops_still_accept_refuse_and_time_out() {
    at_once([1, 2], |loops| {
        let gate = Gate::new();
        let config = Config {
            loops,
            handlers_max: 2,
            queue_timeout: HANG,
            head_timeout: SHORT,
            body_timeout: SHORT,
            // Longer, since each client must have begun before it is over.
            idle_timeout: Duration::from_secs(1),
            ..Config::default()
        };
        let site = start(config, routes(&gate));
        let mut blocked = hold(&site, &gate, 2);
        let mut waiting: Vec<_> = (0..4).map(|_| site.connect()).collect();
        for client in &mut waiting {
            client.send(PING);
        }
        let begun = Instant::now();
        let mut head = site.connect();
        head.send("GET /ping HTTP/1.1\r\nHo");
        let mut body = site.connect();
        body.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nha");
        let mut idle = site.connect();
        let mut bad = site.connect();
        assert_eq!(bad.ask("GET /ping HTTP/1.1\r\n\r\n").status, 400);
        for client in [&mut head, &mut body] {
            let reply = client.reply();
            assert_eq!((reply.status, reply.is_last()), (408, true));
        }
        idle.expect_fin();
        assert!(begun.elapsed() >= SHORT);
        // It has no clock but that of its turn.
        gate.open();
        for (n, client) in blocked.iter_mut().enumerate() {
            expect_answer(client, &n.to_string(), false);
        }
        for client in &mut waiting {
            expect_answer(client, "pong", false);
        }
    });
}

#[test]
fn a_request_that_waits_too_long_for_its_turn_is_answered_503_and_its_connection_goes_on() {
    let gate = Gate::new();
    let site = start(Config { handlers_max: 1, queue_timeout: SHORT, ..one_loop() }, routes(&gate));
    let mut blocked = hold(&site, &gate, 1);
    let mut client = site.connect();
    let begun = Instant::now();
    // The one behind it has a time of its own.
    client.send(
        "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n".to_owned() + PING,
    );
    for waited in 1..=2 {
        let reply = client.reply();
        assert_eq!((reply.status, reply.header("retry-after"), reply.is_last()), (503, Some("1"), false));
        // The loop reads the time once a round, so that its clock can have begun a little before ours.
        assert!(begun.elapsed() >= SHORT * waited / 2);
    }
    client.send("HEAD /ping HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.reply_to_head().status, 503);
    // The handler itself has all the time it wants.
    gate.open();
    expect_answer(&mut blocked[0], "0", false);
    // Its thread is free in a moment, which on a machine that stands still may be too long for one more.
    let mut reply = client.ask(PING);
    while reply.status == 503 && begun.elapsed() < HANG {
        reply = client.ask(PING);
    }
    assert_eq!((reply.status, reply.text().as_str(), reply.is_last()), (200, "pong", false));
}

#[test]
fn a_client_that_goes_while_it_waits_for_its_turn_holds_nobody_up() {
    let gate = Gate::new();
    let site = start(Config { handlers_max: 1, ..one_loop() }, routes(&gate));
    let mut blocked = hold(&site, &gate, 1);
    let mut gone = site.connect();
    gone.send(PING);
    let mut client = site.connect();
    client.send(PING);
    wait_until_read(&site);
    drop(gone);
    gate.open();
    expect_answer(&mut blocked[0], "0", false);
    expect_answer(&mut client, "pong", false);
    drop((blocked, client));
    site.stop();
    expect_clean(site);
}

#[test]
#[cfg_attr(windows, ignore = "there, only a read tells that the peer has reset")]
fn a_client_that_resets_while_it_waits_for_its_turn_has_no_handler_called() {
    let gate = Gate::new();
    let called = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&called);
    let router = routes(&gate).get("/count", move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Response::text("counted")
    });
    let site = start(Config { handlers_max: 2, ..one_loop() }, router);
    let mut blocked = hold(&site, &gate, 1);
    let mut gone = site.connect();
    // Its first answer, which it leaves unread, makes its close a reset; behind it the second thread is held too.
    gone.send(PING);
    assert_eq!(gone.stream.peek(&mut [0]).unwrap(), 1);
    let mut second = site.connect();
    second.send(get("/hold/1"));
    gate.wait_for(2);
    gone.send(get("/count"));
    let mut client = site.connect();
    client.send(get("/count"));
    wait_until_read(&site);
    reset(gone);
    wait_until_read(&site);
    gate.open();
    expect_answer(&mut blocked[0], "0", false);
    expect_answer(&mut second, "1", false);
    expect_answer(&mut client, "counted", false);
    assert_eq!(called.load(Ordering::SeqCst), 1, "for the client that stayed");
}

#[test]
fn a_half_closed_client_that_waits_for_its_turn_gets_its_answers() {
    let gate = Gate::new();
    let site = start(Config { handlers_max: 1, ..one_loop() }, routes(&gate));
    let mut blocked = hold(&site, &gate, 1);
    let mut client = site.connect();
    client.send(get("/n/1") + &get("/n/2"));
    client.finish();
    wait_until_read(&site);
    gate.open();
    expect_answer(&mut blocked[0], "0", false);
    expect_answer(&mut client, "1", false);
    expect_answer(&mut client, "2", false);
    client.expect_fin();
}

// ---- A stop --------------------------------------------------------------------------------------------------------

#[test]
fn handlers_that_have_lost_their_loop_finish_while_it_drains() {
    for loops in [1, 2] {
        let gate = Gate::new();
        let site = start(Config { loops, ..Config::default() }, routes(&gate));
        let mut clients = hold(&site, &gate, 6);
        for client in &mut clients[3..] {
            client.send(get("/n/7"));
        }
        expect_others_served(&site);
        wait_until_read(&site);
        site.stop();
        wait_until_refused(site.address);
        gate.open();
        for (n, client) in clients.iter_mut().enumerate() {
            expect_answer(client, &n.to_string(), n < 3);
            if n >= 3 {
                expect_answer(client, "7", true);
            }
            client.expect_fin();
        }
        drop(clients);
        expect_clean(site);
    }
}

/// A stop while three requests wait for the only thread, which is theirs only after their turn's time is over. Returns
/// false if the machine was so slow that they had waited too long before the stop came.
fn stop_while_they_wait(turn: Duration) -> bool {
    let gate = Gate::new();
    let site = start(Config { handlers_max: 1, queue_timeout: turn, ..one_loop() }, routes(&gate));
    let mut blocked = hold(&site, &gate, 1);
    let begun = Instant::now();
    let mut waiting: Vec<_> = (0..3).map(|_| site.connect()).collect();
    for client in &mut waiting {
        client.send(get("/n/1") + &get("/n/2"));
    }
    wait_until_read(&site);
    site.stop();
    wait_until_refused(site.address);
    if begun.elapsed() >= turn * 3 / 4 {
        gate.open();
        return false;
    }
    // Their time must pass without anything happening.
    thread::sleep(turn * 5 / 4);
    gate.open();
    expect_answer(&mut blocked[0], "0", true);
    for client in &mut waiting {
        expect_answer(client, "1", false);
        expect_answer(client, "2", true);
        client.expect_fin();
    }
    drop((blocked, waiting));
    expect_clean(site);
    true
}

#[test]
fn requests_that_wait_for_their_turn_at_the_stop_are_answered_however_long_it_takes() {
    let mut turns = [1, 1, 4, 16, 64].map(|times| SHORT * times).into_iter();
    assert!(turns.any(stop_while_they_wait), "the machine was never fast enough");
}

#[test]
fn a_turn_time_of_nothing_is_no_trap_for_a_loop_that_drains() {
    let gate = Gate::new();
    let config = Config { handlers_max: 1, queue_timeout: Duration::ZERO, ..one_loop() };
    let site = start(config, routes(&gate));
    let mut blocked = hold(&site, &gate, 1);
    let mut half = site.connect();
    half.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nha");
    // Whoever must wait need not.
    assert_eq!(site.connect().ask(PING).status, 503);
    site.stop();
    wait_until_refused(site.address);
    half.send("lf");
    // A loop that can be trapped is so once it has read it, and then tells nobody that it waits.
    poll(|| (site.stats.figures().connections.waiting == 1).then_some(())).expect("it waits");
    gate.open();
    expect_answer(&mut blocked[0], "0", true);
    expect_answer(&mut half, "half", true);
    drop((blocked, half));
    expect_clean(site);
}

/// Resets a connection: closed with something unread, it sends no FIN.
pub(crate) fn reset(client: Client) {
    assert_eq!(client.stream.peek(&mut [0]).unwrap(), 1);
    drop(client);
}

/// A handler never returns, and its client resets before the stop.
fn cut_off_for_nobody() -> (Outcome, u64, String) {
    let gate = Gate::new();
    let site = start_with_grace(one_loop(), routes(&gate), SHORT);
    let mut client = site.connect();
    client.send(PING.to_owned() + &get("/hold/0"));
    gate.wait_for(1);
    expect_others_served(&site);
    let peer = client.stream.local_addr().unwrap().to_string();
    reset(client);
    wait_until_read(&site);
    site.stop();
    let stats = site.stats.clone();
    let outcome = site.outcome();
    gate.open();
    (outcome, stats.cut_off(), peer)
}

#[test]
#[cfg_attr(windows, ignore = "there, only a read tells that the peer has reset")]
fn an_answer_whose_client_has_reset_is_owed_to_nobody_but_its_handler_is_named() {
    let is_timely = |(outcome, ..): &(Outcome, _, _)| outcome.took() < SHORT + Duration::from_millis(45);
    let runs = (0..20).map(|_| cut_off_for_nobody());
    let (outcome, count, peer) = runs.into_iter().find(is_timely).expect("a machine that is fast once");
    assert!(outcome.took() >= SHORT, "its thread is waited for: {outcome:?}");
    let cut_off = cut_off(&outcome);
    assert_eq!((cut_off.owed, count, cut_off.details.len()), (0, 0, 1), "{cut_off:?}");
    let named = format!("GET /hold/0 for {peer}, which has gone, its handler running for ");
    assert!(cut_off.details[0].starts_with(&named), "{cut_off:?}");
}

/// Two handlers never return, and four requests of three clients wait for their threads when the deadline comes.
fn cut_off_all() -> (Outcome, u64, Vec<String>) {
    let gate = Gate::new();
    let site = start_with_grace(Config { handlers_max: 2, ..one_loop() }, routes(&gate), SHORT);
    let stuck = hold(&site, &gate, 2);
    let mut waiting: Vec<_> = (0..3).map(|_| site.connect()).collect();
    for (n, client) in waiting.iter_mut().enumerate() {
        client.send(get("/n/1").repeat(if n == 0 { 2 } else { 1 }) + "GET /n/2 HTTP/1.1\r\n");
    }
    wait_until_read(&site);
    site.stop();
    let stats = site.stats.clone();
    let outcome = site.outcome();
    // So that the threads end; the group did not wait for them.
    gate.open();
    let peer = |client: &Client| client.stream.local_addr().unwrap().to_string();
    (outcome, stats.cut_off(), stuck.iter().chain(&waiting).map(peer).collect())
}

#[test]
fn at_the_deadline_stuck_handlers_are_named_and_those_that_waited_for_them_counted() {
    // A machine that stood still for longer than the server waits for its loops teaches nothing.
    let is_timely = |(outcome, ..): &(Outcome, _, _)| outcome.took() < SHORT + Duration::from_millis(45);
    let (outcome, count, peers) = (0..20).map(|_| cut_off_all()).find(is_timely).expect("a machine that is fast once");
    assert_eq!(outcome.exit_code(), 124, "{outcome:?}");
    assert!(outcome.took() >= SHORT, "not before the deadline: {outcome:?}");
    let cut_off = cut_off(&outcome);
    assert_eq!((cut_off.owed, count, cut_off.details.len()), (6, 6, 5), "{cut_off:?}");
    let detail_of =
        |peer: &str| cut_off.details.iter().find(|detail| detail.contains(&format!("for {peer}, "))).unwrap();
    for (n, peer) in peers[..2].iter().enumerate() {
        let detail = detail_of(peer);
        let age = detail.strip_prefix(&format!("GET /hold/{n} for {peer}, its handler running for ")).expect(detail);
        let age: f64 = age.strip_suffix(" s").unwrap().parse().unwrap();
        assert!(age >= 0.2, "{detail}");
    }
    for (n, peer) in peers[2..].iter().enumerate() {
        let count = if n == 0 { 2 } else { 1 };
        assert_eq!(*detail_of(peer), format!("{count} for {peer}, waiting for a worker thread"));
    }
}

/// Behind requests whose handlers never return, clients have sent as many others as their sockets hold.
fn cut_off_flood() -> Outcome {
    let gate = Gate::new();
    let site = start_with_grace(Config { handlers_max: 120, ..one_loop() }, routes(&gate), SHORT);
    let clients = hold(&site, &gate, 120);
    let flood = PING.repeat(100_000);
    for client in &clients {
        client.stream.set_nonblocking(true).unwrap();
        while (&client.stream).write(flood.as_bytes()).is_ok() {}
    }
    site.stop();
    let outcome = site.outcome();
    gate.open();
    outcome
}

#[test]
fn at_the_deadline_what_clients_have_sent_without_end_hides_nobody_from_the_report() {
    // To close the sockets may take longer than the server waits; what was counted before is told all the same.
    let has_counted = |told: &CutOff| !told.details.iter().any(|detail| detail.contains("unknown"));
    // A server that the machine did not let report in time is missing.
    let reported = |outcome: Outcome| match outcome.exits().find(|(name, ..)| *name == "http") {
        Some((_, Exit::CutOff(told), _)) => Some(told.clone()),
        _ => None,
    };
    let mut told = (0..20).filter_map(|_| reported(cut_off_flood()));
    let cut_off = told.find(has_counted).expect("a machine on which the loop runs once within 50 ms");
    let named = cut_off.details.iter().filter(|detail| detail.starts_with("GET /hold/")).count();
    assert_eq!(named, 120, "{cut_off:?}");
    assert!(cut_off.owed >= 120, "{cut_off:?}");
}

/// Does not end before its gate is open.
struct SlowEnd(Gate);

impl Drop for SlowEnd {
    fn drop(&mut self) {
        self.0.pass();
    }
}

thread_local! {
    static LOCAL: std::cell::RefCell<Option<SlowEnd>> = const { std::cell::RefCell::new(None) };
}

#[test]
fn a_thread_whose_end_takes_its_time_makes_no_clean_end_unclean() {
    let stop = |grace| {
        let gate = Gate::new();
        let at = gate.clone();
        let router = routes(&Gate::new()).get("/local", move |_| {
            LOCAL.set(Some(SlowEnd(at.clone())));
            Response::text("kept")
        });
        let site = start_with_grace(one_loop(), router, grace);
        assert_eq!(site.connect().ask(get("/local")).text(), "kept");
        site.stop();
        let outcome = site.outcome();
        // It is still there.
        gate.wait_for(1);
        gate.open();
        outcome
    };
    // Whoever has not ended at the deadline is told, so that a busy machine may need a longer grace.
    let mut outcomes = [1, 4, 16, 64].map(|times| SHORT * times).into_iter().map(stop);
    assert!(outcomes.any(|outcome| outcome.exit_code() == 0), "its thread is waited for");
}

/// Takes its time to end, and says when it has ended.
struct Ended(Arc<AtomicUsize>);

impl Drop for Ended {
    fn drop(&mut self) {
        thread::sleep(SHORT);
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

thread_local! {
    static ENDED: std::cell::RefCell<Option<Ended>> = const { std::cell::RefCell::new(None) };
}

#[test]
fn threads_have_ended_when_the_group_has_if_the_deadline_lets_them() {
    let ended = Arc::<AtomicUsize>::default();
    let counts = Arc::clone(&ended);
    let router = routes(&Gate::new()).get("/local", move |_| {
        ENDED.set(Some(Ended(Arc::clone(&counts))));
        Response::text("kept")
    });
    let site = start(one_loop(), router);
    assert_eq!(site.connect().ask(get("/local")).text(), "kept");
    site.stop();
    expect_clean(site);
    assert_eq!(ended.load(Ordering::SeqCst), 1);
}

// ---- Panics ------------------------------------------------------------------------------------------------------

#[test]
fn a_handler_that_panics_after_it_has_lost_its_loop_is_answered_500_and_told_once() {
    let gate = Gate::new();
    let (sender, notices) = mpsc::channel();
    let server = Server::bind("127.0.0.1:0", one_loop()).unwrap();
    let server = server.on_notice(move |notice| sender.send(notice.to_string()).unwrap());
    let at = gate.clone();
    let router = routes(&gate).get("/panic", move |_| -> Response {
        at.pass();
        // Without the panic hook, which would fill the test's output.
        std::panic::resume_unwind(Box::new("too late"))
    });
    let site = Site::run(server, router, HANG);
    let mut clients: Vec<_> = (0..3).map(|_| site.connect()).collect();
    for client in &mut clients {
        client.send(PING.to_owned() + &get("/panic") + PING);
        expect_answer(client, "pong", false);
    }
    gate.wait_for(clients.len());
    expect_others_served(&site);
    gate.open();
    for client in &mut clients {
        let reply = client.reply();
        assert_eq!((reply.status, reply.text().as_str(), reply.is_last()), (500, "internal server error\n", true));
        client.expect_fin();
    }
    expect_others_served(&site);
    site.stop();
    drop(clients);
    expect_clean(site);
    assert_eq!(notices.iter().collect::<Vec<_>>(), ["handler of GET /panic panicked: too late"; 3]);
}

// ---- The process, as the system sees it ------------------------------------------------------------------------------

#[cfg(target_os = "linux")]
mod process {
    use super::*;
    use crate::support::{Process, demo, poll};

    /// The names of its threads.
    fn threads(process: &Process) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
        // One that ends meanwhile has none.
        let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
        tasks.filter_map(|task| name(task.unwrap())).map(|name| name.trim_end().to_owned()).collect()
    }

    fn workers(process: &Process) -> HashSet<String> {
        threads(process).into_iter().filter(|name| name.starts_with("worker-")).collect()
    }

    #[test]
    fn worker_threads_bear_their_numbers() {
        let mut process = demo(&["--listen", "127.0.0.1:0", "--loops", "1"]);
        let address = process.address();
        let mut slow: Vec<_> = (0..3).map(|_| Client::connect(address)).collect();
        for client in &mut slow {
            client.send(get("/sleep/60000"));
        }
        let names: HashSet<_> = (0..4).map(|n| format!("worker-{n}")).collect();
        let are_there = poll(|| workers(&process).is_superset(&names).then_some(()));
        assert!(are_there.is_some(), "{:?}", threads(&process));
    }

    #[test]
    fn a_thousand_panics_cost_no_neighbour_an_answer_and_no_thread() {
        let mut process = demo(&["--listen", "127.0.0.1:0", "--loops", "2", "--threads", "4"]);
        let address = process.address();
        let panicking: Vec<_> = (0..5)
            .map(|_| {
                thread::spawn(move || {
                    for _ in 0..200 {
                        let reply = Client::connect(address).ask(get("/panic"));
                        assert_eq!((reply.status, reply.is_last()), (500, true));
                    }
                })
            })
            .collect();
        let mut neighbour = Client::connect(address);
        while panicking.iter().any(|thread| !thread.is_finished()) {
            assert_eq!(neighbour.ask(PING).text(), "pong");
        }
        panicking.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(neighbour.ask(PING).text(), "pong");
        // One for each handler that may run and each loop, and a few that were slow to become spares.
        let count = workers(&process).len();
        assert!(count <= 4 + 2 + 6, "{count} worker threads");
        let reply = neighbour.ask("POST /shutdown HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(reply.status, 200);
        let (code, said) = process.end();
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(said.matches("handler of GET /panic panicked: asked to").count(), 1000);
    }

    #[cfg(feature = "sys")]
    mod epoll {
        use super::*;
        use std::collections::HashMap;

        /// How often each thread has gone to sleep.
        fn sleeps(process: &Process) -> HashMap<std::path::PathBuf, u64> {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
            let count = |task: &std::path::Path| {
                let status = std::fs::read_to_string(task.join("status")).ok()?;
                let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
                line.trim().parse().ok()
            };
            let paths = tasks.map(|task| task.unwrap().path());
            paths.filter_map(|path| count(&path).map(|count| (path, count))).collect()
        }

        /// How often its threads have woken in this time. There is nothing to wait for: that nothing happens is the
        /// point.
        fn wakes_in(process: &Process, time: Duration) -> u64 {
            let before = sleeps(process);
            thread::sleep(time);
            let after = sleeps(process);
            after.iter().map(|(task, count)| count - before.get(task).copied().unwrap_or_default()).sum()
        }

        #[test]
        fn an_idle_server_hardly_wakes() {
            let mut process = demo(&["--listen", "127.0.0.1:0"]);
            let address = process.address();
            let mut clients: Vec<_> = (0..20).map(|_| Client::connect(address)).collect();
            for client in &mut clients {
                assert_eq!(client.ask(PING).text(), "pong");
            }
            // So that the watcher is wide awake, and there are spares.
            assert_eq!(clients[0].ask(get("/sleep/20")).status, 200);
            // It falls asleep after some looks, for which a busy machine may take its time.
            let begun = Instant::now();
            while wakes_in(&process, Duration::from_millis(100)) > 0 && begun.elapsed() < HANG {}
            let wakes = wakes_in(&process, Duration::from_secs(1));
            assert!(wakes <= 2, "{wakes} wake-ups in a second");
            for client in &mut clients {
                assert_eq!(client.ask(PING).text(), "pong");
            }
        }

        /// How many descriptors each of its epoll instances watches.
        fn watched(process: &Process) -> Vec<(String, usize)> {
            let folder = format!("/proc/{}", process.id());
            let mut watched = Vec::new();
            for descriptor in std::fs::read_dir(format!("{folder}/fd")).unwrap() {
                let descriptor = descriptor.unwrap();
                let target = std::fs::read_link(descriptor.path()).unwrap_or_default();
                if target.to_string_lossy() == "anon_inode:[eventpoll]" {
                    let number = descriptor.file_name().into_string().unwrap();
                    let info = std::fs::read_to_string(format!("{folder}/fdinfo/{number}")).unwrap();
                    watched.push((number, info.lines().filter(|line| line.starts_with("tfd:")).count()));
                }
            }
            watched.sort();
            watched
        }

        #[test]
        fn connections_are_spread_evenly_over_the_loops() {
            let mut process = demo(&["--listen", "127.0.0.1:0", "--loops", "2"]);
            let address = process.address();
            // The first may be served before the second loop is there.
            assert_eq!(Client::connect(address).ask(PING).text(), "pong");
            let mut clients: Vec<_> = (0..200).map(|_| Client::connect(address)).collect();
            // Who has been answered once is given to the other loop, or stays for good.
            for _ in 0..2 {
                for client in &mut clients {
                    assert_eq!(client.ask(PING).text(), "pong");
                }
            }
            let watched = watched(&process);
            assert_eq!(watched.len(), 2, "{watched:?}");
            let most = watched.iter().map(|(_, count)| *count).max().unwrap();
            // The listener and the waker are watched by each.
            assert!(most - 2 <= 126, "{watched:?}");
            assert!(watched.iter().map(|(_, count)| count - 2).sum::<usize>() >= 200, "{watched:?}");
        }
    }
}
