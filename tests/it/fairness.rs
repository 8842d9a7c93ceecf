//! No client keeps a loop from the others: what one sends, or how many wait, is nobody else's concern.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use allout::{Config, Method, Response, Router};

use crate::drain::get;
use crate::support::{Gate, HANG, PING, Site};

/// What one handler takes: less than after which a loop is taken over from it.
const QUICK: Duration = Duration::from_micros(50);

/// Works for so long without sleeping, as a handler does that computes.
fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {}
}

/// `/hold` waits until the gate is open.
fn holding(gate: &Gate) -> Router {
    let gate = gate.clone();
    Router::new().get("/hold", move |_| {
        gate.pass();
        Response::text("held")
    })
}

/// A neighbour on the same loop, whose request comes while the first of many handlers runs.
#[derive(Clone, Default)]
struct Neighbour {
    stream: Arc<Mutex<Option<TcpStream>>>,
    /// Handlers that have run for others.
    others: Arc<AtomicUsize>,
    /// How many had, when the neighbour's own was called.
    before: Arc<AtomicUsize>,
}

impl Neighbour {
    fn routes(&self, router: Router) -> Router {
        let (many, own) = (self.clone(), self.clone());
        router
            .get("/many", move |_| {
                if many.others.fetch_add(1, Ordering::SeqCst) == 0 {
                    let stream = many.stream.lock().unwrap();
                    stream.as_ref().unwrap().write_all(b"GET /own HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
                }
                spin(QUICK);
                Response::text("one of many")
            })
            .at_once(Method::Get, "/own", move |_| {
                own.before.store(own.others.load(Ordering::SeqCst), Ordering::SeqCst);
                Response::text("own")
            })
    }
}

#[test]
fn a_batch_of_one_client_does_not_keep_its_loop_from_the_others() {
    let neighbour = Neighbour::default();
    let site = Site::start(Config { loops: 1, ..Config::default() }, neighbour.routes(Router::new()));
    let mut own = site.connect();
    *neighbour.stream.lock().unwrap() = Some(own.stream.try_clone().unwrap());
    let mut client = site.connect();
    let request = get("/many");
    let count = 60_000 / request.len();
    client.send(request.repeat(count));
    assert_eq!(own.reply().text(), "own");
    for _ in 0..count {
        assert_eq!(client.reply().text(), "one of many");
    }
    let before = neighbour.before.load(Ordering::SeqCst);
    assert!(before < count / 4, "{before} of {count} came before");
    drop((own, client));
    site.stop();
    assert_eq!(site.outcome().exit_code(), 0);
}

#[test]
fn requests_that_wait_for_a_permit_do_not_keep_their_loop_from_the_others() {
    const COUNT: usize = 200;
    let (neighbour, gate) = (Neighbour::default(), Gate::new());
    let router = neighbour.routes(holding(&gate));
    let config = Config { loops: 1, handlers_max: 1, queue_timeout: HANG, ..Config::default() };
    let site = Site::start(config, router);
    let mut own = site.connect();
    *neighbour.stream.lock().unwrap() = Some(own.stream.try_clone().unwrap());
    let mut holder = site.connect();
    holder.send(get("/hold"));
    gate.wait_for(1);
    let mut clients: Vec<_> = (0..COUNT).map(|_| site.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(get("/many")));
    // Whoever comes last is answered at once: all before have been read, and wait.
    let mut last = site.connect();
    for _ in 0..2 {
        assert_eq!(last.ask(get("/nowhere")).status, 404);
    }
    gate.open();
    assert_eq!(own.reply().text(), "own");
    clients.iter_mut().for_each(|client| assert_eq!(client.reply().text(), "one of many"));
    let before = neighbour.before.load(Ordering::SeqCst);
    assert!(before < COUNT / 2, "{before} of {COUNT} came before");
    drop((own, holder, clients, last));
    site.stop();
    assert_eq!(site.outcome().exit_code(), 0);
}

/// Three handlers are together longer than what a loop does in one go, and each is too quick to be taken over from: so
/// the loop that calls them is over before it looks again at who waits.
#[test]
fn a_loop_that_is_over_leaves_the_line_of_those_that_wait_for_a_permit() {
    let last = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    // On a machine that is busy with others it may be otherwise, but not each time.
    for _ in 0..10 {
        let gate = Gate::new();
        let hold = gate.clone();
        let router = Router::new()
            .get("/hold", move |_| {
                hold.pass();
                Response::text("held")
            })
            .get("/spin", |_| {
                spin(Duration::from_micros(220));
                Response::text("spun")
            });
        let site = Site::start(Config { loops: 2, handlers_max: 2, queue_timeout: HANG, ..Config::default() }, router);
        // Each has its place with the loop that has fewer: by turns.
        let placed = || {
            let mut client = site.connect();
            assert_eq!(client.ask(get("/nowhere")).status, 404);
            client
        };
        let mut clients: Vec<_> = (0..8).map(|_| placed()).collect();
        let mut order = [0, 1, 2, 4, 6, 3].map(|number| (number, if number < 2 { "/hold" } else { "/spin" }));
        for (number, path) in order {
            clients[number].send(get(path));
            clients[number].finish();
            // On either loop, behind it.
            (0..2).for_each(|_| assert_eq!(site.connect().ask(last("/nowhere")).status, 404));
        }
        gate.wait_for(2);
        site.stop();
        gate.open();
        order.sort_unstable();
        for (number, path) in order {
            let text = if path == "/hold" { "held" } else { "spun" };
            assert_eq!(clients[number].reply().text(), text, "{number}");
        }
        drop(clients);
        assert_eq!(site.outcome().exit_code(), 0);
    }
}

#[test]
fn what_promises_not_to_block_is_answered_beside_handlers_that_all_do() {
    let gate = Gate::new();
    let router = holding(&gate).at_once(Method::Get, "/ping", |_| Response::text("pong"));
    let site = Site::start(Config { loops: 2, handlers_max: 4, ..Config::default() }, router);
    let mut holders: Vec<_> = (0..40).map(|_| site.connect()).collect();
    holders.iter_mut().for_each(|client| client.send(get("/hold")));
    gate.wait_for(4);
    for _ in 0..10 {
        let mut probe = site.connect();
        for _ in 0..3 {
            assert_eq!(probe.ask(PING).text(), "pong");
        }
    }
    gate.open();
    holders.iter_mut().for_each(|client| assert_eq!(client.reply().text(), "held"));
    drop(holders);
    site.stop();
    assert_eq!(site.outcome().exit_code(), 0);
}

#[test]
fn what_promises_not_to_block_must_not_stream_where_it_is_answered_at_once() {
    let gate = Gate::new();
    let router = holding(&gate).at_once(Method::Get, "/stream", |_| Response::stream("text/plain", |_| Ok(())));
    let site = Site::start(Config { loops: 1, handlers_max: 1, ..Config::default() }, router);
    let mut holder = site.connect();
    holder.send(get("/hold"));
    gate.wait_for(1);
    assert_eq!(site.connect().ask(get("/stream")).status, 500);
    gate.open();
    assert_eq!(holder.reply().text(), "held");
    assert_eq!(site.connect().ask(get("/stream")).status, 200);
    drop(holder);
    site.stop();
    assert_eq!(site.outcome().exit_code(), 0);
}

/// However fast one client sends, it is in its loop's queue once: between a neighbour's request and its answer it gets a
/// slice or two.
#[test]
fn a_client_that_sends_without_end_has_one_place_in_the_queue() {
    const UPLOADS: usize = 400;
    let neighbour = Neighbour::default();
    let (asked, longest) = (Arc::new(AtomicUsize::new(usize::MAX)), Arc::new(AtomicUsize::new(0)));
    let uploads = Arc::clone(&neighbour.others);
    let router = {
        let (neighbour, asked, asked_too) = (neighbour.clone(), Arc::clone(&asked), Arc::clone(&asked));
        let (longest, uploads_too) = (Arc::clone(&longest), Arc::clone(&uploads));
        Router::new()
            .post("/upload", move |_| {
                let count = uploads.fetch_add(1, Ordering::SeqCst);
                // One request of the neighbour's at a time.
                if asked.compare_exchange(usize::MAX, count, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                    let stream = neighbour.stream.lock().unwrap();
                    stream.as_ref().unwrap().write_all(b"GET /own HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
                }
                Response::text("uploaded")
            })
            .get("/own", move |_| {
                let between = uploads_too.load(Ordering::SeqCst) - asked_too.swap(usize::MAX, Ordering::SeqCst);
                longest.fetch_max(between, Ordering::SeqCst);
                Response::text("own")
            })
    };
    let site = Site::start(Config { loops: 1, ..Config::default() }, router);
    let mut own = site.connect();
    *neighbour.stream.lock().unwrap() = Some(own.stream.try_clone().unwrap());
    let mut client = site.connect();
    let mut sender = client.stream.try_clone().unwrap();
    let body = "x".repeat(300_000);
    let upload = format!("POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let sending = std::thread::spawn(move || (0..UPLOADS).for_each(|_| sender.write_all(upload.as_bytes()).unwrap()));
    for _ in 0..UPLOADS {
        assert_eq!(client.reply().text(), "uploaded");
    }
    sending.join().unwrap();
    let longest = longest.load(Ordering::SeqCst);
    assert!(longest < UPLOADS / 10, "{longest} uploads came before");
    assert_eq!(own.reply().text(), "own");
    drop((own, client));
    site.stop();
    assert_eq!(site.outcome().exit_code(), 0);
}
