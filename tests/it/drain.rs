//! The drain, row by row of its table: what becomes of a connection that is in this or that state when the stop comes.
//! Ways to stop are in `causes`.

use std::net::{SocketAddr, TcpStream};
#[cfg(target_os = "linux")]
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

#[cfg(unix)]
use allout::Server;
use allout::{Config, CutOff, Exit, Outcome, Request, Response, Router};

#[cfg(target_os = "linux")]
use crate::support::Process;
use crate::support::{Client, Gate, PING, Site, poll};

/// More than the sockets' buffers hold between a server that writes and a client that does not read.
pub(crate) const BIG: usize = 16 * 1024 * 1024;

/// For tests in which something is to happen within a time: only a hang is longer.
pub(crate) const LONG: Duration = Duration::from_secs(15);

/// For tests in which a time is to pass.
pub(crate) const SHORT: Duration = Duration::from_millis(200);

/// Routes that answer with what they were asked: `/n/{n}` at once, `/hold/{n}` when the gate is open.
pub(crate) fn routes(gate: &Gate) -> Router {
    let gate = gate.clone();
    let number = |request: &Request<'_>| Response::text(request.param("n").unwrap().into_owned());
    Router::new()
        .get("/ping", |_| Response::text("pong"))
        .get("/n/{n}", number)
        .get("/hold/{n}", move |request| {
            gate.pass();
            number(request)
        })
        .get("/big", |_| Response::bytes("application/octet-stream", vec![b'x'; BIG]))
        .post("/echo", |request| Response::bytes("application/octet-stream", request.body().to_vec()))
}

/// A site that is known to run: a stop that comes before would start nothing.
pub(crate) fn start(config: Config, router: Router) -> Site {
    start_with_grace(config, router, Duration::from_secs(20))
}

pub(crate) fn start_with_grace(config: Config, router: Router, grace: Duration) -> Site {
    let site = Site::start_with_grace(config, router, grace);
    assert_eq!(site.connect().ask(PING).status, 200);
    site
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// The next answer is 200 with this text, and says whether it is the last.
#[track_caller]
pub(crate) fn expect_answer(client: &mut Client, text: &str, is_last: bool) {
    let reply = client.reply();
    assert_eq!((reply.status, reply.text().as_str(), reply.is_last()), (200, text, is_last), "{}", reply.head);
}

/// Waits until connects are refused, or not answered: a server that drains has closed its listener, or lets nobody new
/// in before it does.
#[track_caller]
pub(crate) fn wait_until_refused(address: SocketAddr) {
    // A connect that finds its own port has reached nobody either. One that is not answered is tried again by the
    // system, but only after a second.
    let connect = || TcpStream::connect_timeout(&address, SHORT);
    let is_served = || connect().is_ok_and(|stream| stream.local_addr().unwrap() != address);
    poll(|| (!is_served()).then_some(())).expect("connects are refused");
}

/// What the server had to cut off.
#[track_caller]
pub(crate) fn cut_off(outcome: &Outcome) -> CutOff {
    match outcome.exits().find(|(name, ..)| *name == "http") {
        Some((_, Exit::CutOff(cut_off), _)) => cut_off.clone(),
        other => panic!("something is cut off, not {other:?}"),
    }
}

/// The site ends before its deadline and has cut nothing off. Returns how long it took.
#[track_caller]
pub(crate) fn expect_clean(site: Site) -> Duration {
    let stats = site.stats.clone();
    let outcome = site.outcome();
    assert_eq!(outcome.exit_code(), 0, "{outcome:?}");
    assert_eq!(stats.cut_off(), 0);
    assert!(outcome.took() < LONG, "it did not wait for the deadline: {outcome:?}");
    outcome.took()
}

/// Runs a site until its deadline, which is `SHORT` after the stop. A server waits 50 ms more for what its loops have to
/// report; from a machine that stood still for as long nothing is learned, and it is done once more.
pub(crate) fn at_the_deadline<T>(run: impl Fn(Site) -> (Outcome, T), config: &Config) -> (Outcome, T) {
    let again = || run(start_with_grace(config.clone(), routes(&Gate::new()), SHORT));
    let mut end = again();
    for _ in 0..20 {
        if end.0.took() < SHORT + Duration::from_millis(45) {
            break;
        }
        end = again();
    }
    assert!(end.0.took() >= SHORT, "not before the deadline: {:?}", end.0);
    end
}

/// A client whose socket takes so little that an answer of `BIG` bytes cannot be written whole.
#[cfg(unix)]
pub(crate) fn slow_reader(address: SocketAddr) -> Client {
    let client = Client::connect(address);
    nix::sys::socket::setsockopt(&client.stream, nix::sys::socket::sockopt::RcvBuf, &(64 * 1024)).unwrap();
    client
}

/// Waits until an answer has begun to come, and leaves it where it is.
#[cfg(unix)]
pub(crate) fn wait_for_answer(client: &Client) {
    assert_eq!(client.stream.peek(&mut [0]).unwrap(), 1);
}

/// A site on a Unix socket as well. The path lives as long as the server.
#[cfg(unix)]
pub(crate) fn unix_site(config: Config, router: Router) -> (Site, std::path::PathBuf) {
    let path = crate::support::socket_path();
    let addresses = ["127.0.0.1:0".to_owned(), format!("unix:{}", path.display())];
    let site = Site::run(Server::bind(&addresses, config).unwrap(), router, Duration::from_secs(20));
    assert_eq!(site.connect().ask(PING).status, 200);
    (site, path)
}

// ---- The accept queue, and the closed door ---------------------------------------------------------------------------

#[test]
fn connections_in_the_accept_queue_are_served() {
    let gate = Gate::new();
    let site = start(Config { loops: 1, ..Config::default() }, routes(&gate));
    let mut clients: Vec<_> = (0..8).map(|_| site.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(get(&format!("/hold/{n}")));
    }
    // Whatever holds its handler here, others of these may not even have been accepted.
    gate.wait_for(1);
    site.stop();
    gate.open();
    for (n, client) in clients.iter_mut().enumerate() {
        expect_answer(client, &n.to_string(), true);
        client.expect_fin();
    }
    drop(clients);
    expect_clean(site);
}

#[test]
#[cfg(unix)]
fn connections_in_the_accept_queue_of_a_unix_socket_are_served() {
    for _ in 0..20 {
        let (site, path) = unix_site(Config { loops: 2, ..Config::default() }, routes(&Gate::new()));
        let mut clients: Vec<_> = (0..8).map(|_| Client::connect_unix(&path)).collect();
        for client in &mut clients {
            client.send(PING);
        }
        site.stop();
        for client in &mut clients {
            assert_eq!(client.reply().text(), "pong");
        }
        drop(clients);
        expect_clean(site);
    }
}

#[test]
fn connections_that_came_just_before_the_stop_are_served() {
    for _ in 0..20 {
        let site = start(Config { loops: 2, ..Config::default() }, routes(&Gate::new()));
        let mut clients: Vec<_> = (0..8).map(|_| site.connect()).collect();
        for client in &mut clients {
            client.send(PING);
        }
        site.stop();
        for client in &mut clients {
            assert_eq!(client.reply().text(), "pong");
        }
        drop(clients);
        expect_clean(site);
    }
}

/// A client that the machine leaves standing between its connect and its request is waited for.
#[cfg(unix)]
fn gapless() -> Config {
    Config { loops: 2, idle_grace: LONG, ..Config::default() }
}

/// Clients that connect without pause, one request on each connection, while the server is stopped in the middle. Whoever
/// gets in is answered.
#[cfg(unix)]
fn check_no_gap(connect: impl Fn() -> std::io::Result<Client> + Sync, stop: impl FnOnce()) {
    let connected = std::sync::atomic::AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Ok(mut client) = connect() {
                    client.send("GET /ping HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
                    assert_eq!(client.reply().text(), "pong");
                    connected.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
        poll(|| (connected.load(std::sync::atomic::Ordering::Relaxed) > 40).then_some(())).expect("they are served");
        stop();
    });
}

/// Elsewhere there is one, of a microsecond: nothing there keeps newcomers out.
#[test]
#[cfg(all(target_os = "linux", feature = "sys"))]
fn there_is_no_gap_between_the_last_accept_and_the_end_of_a_listener() {
    for _ in 0..5 {
        let site = start(gapless(), routes(&Gate::new()));
        let connect = || {
            let stream = TcpStream::connect_timeout(&site.address, SHORT)?;
            // One that finds its own port has reached nobody.
            if stream.local_addr()? == site.address {
                Err(std::io::ErrorKind::NotFound.into())
            } else {
                Ok(Client::of(stream))
            }
        };
        check_no_gap(connect, || site.stop());
        expect_clean(site);
    }
}

#[test]
#[cfg(unix)]
fn there_is_no_gap_between_the_last_accept_and_the_end_of_a_unix_socket() {
    for _ in 0..20 {
        let (site, path) = unix_site(gapless(), routes(&Gate::new()));
        check_no_gap(|| Client::try_connect_unix(&path), || site.stop());
        expect_clean(site);
    }
}

#[test]
fn new_connections_are_refused_while_old_ones_are_still_served() {
    let site = start(Config::default(), routes(&Gate::new()));
    let mut client = site.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nha");
    site.stop();
    wait_until_refused(site.address);
    client.send("lf");
    expect_answer(&mut client, "half", true);
    drop(client);
    expect_clean(site);
}

/// The example, with so few descriptors that only some of so many clients can be accepted. Each has asked for this, and
/// then the first asks for the stop.
#[cfg(target_os = "linux")]
fn stop_without_descriptors(options: &[&str], clients: usize, request: &str) -> (Process, Vec<Client>) {
    let mut process = few_descriptors(&[&["--listen", "127.0.0.1:0"], options].concat());
    let address = process.address();
    let clients = stop_while_full(&mut process, || Client::connect(address), clients, request);
    (process, clients)
}

/// Has its handler wait until the rest has come.
#[cfg(target_os = "linux")]
const HALF: &str = "POST /count HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nha";

/// Sends the rest of [`HALF`], and returns how many are answered.
#[cfg(target_os = "linux")]
fn complete(clients: &mut [Client]) -> usize {
    clients.iter_mut().for_each(|client| client.send("lf"));
    let answers = clients.iter_mut().filter_map(|client| client.next_reply(false));
    answers.map(|reply| assert_eq!((reply.status, reply.text().as_str()), (200, "4\n"))).count()
}

#[cfg(target_os = "linux")]
fn few_descriptors(options: &[&str]) -> Process {
    let demo = std::path::PathBuf::from(env!("CARGO_BIN_EXE_allout")).with_file_name("examples").join("demo");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 24; exec \"$0\" \"$@\""]).arg(demo).args(options);
    Process::spawn(&mut command)
}

#[cfg(target_os = "linux")]
fn stop_while_full(process: &mut Process, connect: impl Fn() -> Client, clients: usize, request: &str) -> Vec<Client> {
    let mut first = connect();
    assert_eq!(first.ask(PING).status, 200);
    // Busy, so that it does not make room for others.
    first.send("POST /shutdown HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n");
    // Each asks before the next one comes: one that the machine left standing before that would make room.
    let ask = |_| {
        let mut client = connect();
        client.send(request);
        client
    };
    let clients = (0..clients).map(ask).collect();
    process.line_with("cannot accept");
    assert_eq!(first.ask("x").status, 200);
    clients
}

#[test]
#[cfg(target_os = "linux")]
fn the_file_of_a_unix_socket_goes_before_its_queue_is_emptied() {
    let path = crate::support::socket_path();
    let listen = format!("unix:{}", path.display());
    let mut process = few_descriptors(&["--listen", &listen, "--loops", "1", "--grace", "20"]);
    process.line_with("listening on unix:");
    let mut clients = stop_while_full(&mut process, || Client::connect_unix(&path), 30, HALF);
    poll(|| (!path.exists()).then_some(())).expect("nobody new finds it");
    for client in &clients {
        client.stream.set_nonblocking(true).unwrap();
        assert!(client.stream.peek(&mut [0]).is_err(), "nobody is answered yet, and so the queue is as long as before");
        client.stream.set_nonblocking(false).unwrap();
    }
    assert_eq!(complete(&mut clients), 30);
    drop(clients);
    assert_eq!(process.end().0, Some(0));
}

#[test]
#[cfg(target_os = "linux")]
fn requests_in_the_accept_queue_are_answered_though_no_descriptor_is_left_at_the_stop() {
    crate::support::at_once(["1", "2"], |loops| {
        let (process, mut clients) = stop_without_descriptors(&["--loops", loops, "--grace", "20"], 30, HALF);
        let answered = complete(&mut clients);
        drop(clients);
        let (code, said) = process.end();
        assert_eq!((answered, code), (30, Some(0)), "{loops} loops: {said}");
        assert!(said.contains(" 0 cut off; "), "{said}");
    });
}

#[test]
#[cfg(target_os = "linux")]
fn requests_that_are_in_the_accept_queue_at_the_deadline_are_counted() {
    let run = || {
        let (process, clients) = stop_without_descriptors(&["--loops", "1", "--grace", "0.2"], 30, &get("/sleep/3000"));
        let (code, said) = process.end();
        drop(clients);
        assert_eq!(code, Some(124), "{said}");
        said
    };
    // A server waits 50 ms more for what its loop has to report; a machine that stood still for as long teaches nothing.
    let is_timely =
        |said: &String| ["0.20 s\n", "0.21 s\n", "0.22 s\n", "0.23 s\n"].iter().any(|end| said.ends_with(end));
    let said = (0..20).map(|_| run()).find(is_timely).expect("a machine that is fast once");
    assert!(said.contains(" 30 cut off; "), "{said}");
    assert!(said.lines().any(|line| line.contains(" in the queue of `127.0.0.1:")), "{said}");
    // "30 in the queue of …", "1 for …, not begun", "GET … for …": one each that a handler works on.
    let lines = said.lines().filter_map(|line| line.strip_prefix("cut off: "));
    let counts = lines.map(|line| line.split(' ').next().unwrap().parse().unwrap_or(1));
    assert_eq!(counts.sum::<usize>(), 30, "{said}");
}

// ---- Handler running, or answer being written ------------------------------------------------------------------------

#[test]
fn a_running_handler_finishes_and_its_answer_is_the_last() {
    let gate = Gate::new();
    let site = start(Config::default(), routes(&gate));
    let mut client = site.connect();
    client.send(get("/hold/1"));
    gate.wait_for(1);
    site.stop();
    gate.open();
    expect_answer(&mut client, "1", true);
    client.expect_fin();
    let address = site.address;
    drop(client);
    expect_clean(site);
    wait_until_refused(address);
}

#[test]
#[cfg(unix)]
fn an_answer_being_written_to_a_slow_reader_is_finished() {
    let site = start(Config::default(), routes(&Gate::new()));
    let mut client = slow_reader(site.address);
    client.send(get("/big"));
    wait_for_answer(&client);
    site.stop();
    wait_until_refused(site.address);
    let reply = client.reply();
    assert_eq!((reply.status, reply.body.len()), (200, BIG));
    client.expect_fin();
    drop(client);
    expect_clean(site);
}

#[test]
#[cfg(unix)]
fn a_reader_that_never_reads_is_cut_off_at_the_deadline() {
    let run = |site: Site| {
        let mut client = slow_reader(site.address);
        client.send(get("/big"));
        wait_for_answer(&client);
        site.stop();
        let stats = site.stats.clone();
        let outcome = site.outcome();
        (outcome, (stats.cut_off(), client.stream.local_addr().unwrap().to_string()))
    };
    let (outcome, (count, peer)) = at_the_deadline(run, &Config::default());
    assert_eq!(outcome.exit_code(), 124, "{outcome:?}");
    let cut_off = cut_off(&outcome);
    assert_eq!((cut_off.owed, count), (1, 1));
    assert!(cut_off.details.iter().any(|detail| detail.contains(&peer)), "{cut_off:?} names {peer}");
}

#[test]
fn a_handler_that_never_returns_is_reported_at_the_deadline() {
    let gate = Gate::new();
    let site = start_with_grace(Config::default(), routes(&gate), SHORT);
    let mut client = site.connect();
    client.send(get("/hold/1"));
    gate.wait_for(1);
    site.stop();
    let stats = site.stats.clone();
    let outcome = site.outcome();
    assert_eq!(outcome.exit_code(), 124, "{outcome:?}");
    assert!(outcome.took() >= SHORT, "not before the deadline: {outcome:?}");
    let cut_off = cut_off(&outcome);
    assert!(cut_off.owed >= 1 && !cut_off.details.is_empty(), "{cut_off:?}");
    assert!(stats.cut_off() >= 1);
    // So that the thread ends.
    gate.open();
}

// ---- Body arriving ---------------------------------------------------------------------------------------------------

#[test]
fn a_body_that_is_arriving_may_arrive() {
    const CASES: &[(&str, &str)] = &[
        ("Content-Length: 4\r\n\r\n", "half"),
        ("Content-Length: 4\r\n\r\nha", "lf"),
        ("Transfer-Encoding: chunked\r\n\r\n2\r\nha\r", "\n2\r\nlf\r\n0\r\n\r\n"),
    ];
    let site = start(Config::default(), routes(&Gate::new()));
    let mut clients: Vec<_> = CASES.iter().map(|_| site.connect()).collect();
    for (client, (before, _)) in clients.iter_mut().zip(CASES) {
        client.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\n{before}"));
    }
    // The body has been asked for: this client is known to be in the middle of its request.
    let mut asked = site.connect();
    asked.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(asked.reply().status, 100);
    site.stop();
    wait_until_refused(site.address);
    asked.send("half");
    expect_answer(&mut asked, "half", true);
    for (client, (_, after)) in clients.iter_mut().zip(CASES) {
        client.send(after);
        expect_answer(client, "half", true);
        client.expect_fin();
    }
    drop((clients, asked));
    expect_clean(site);
}

#[test]
fn a_body_that_never_completes_gets_408_by_its_own_timeout() {
    let site = start(Config { body_timeout: SHORT, ..Config::default() }, routes(&Gate::new()));
    let mut client = site.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nha");
    site.stop();
    let reply = client.reply();
    assert_eq!((reply.status, reply.is_last()), (408, true));
    client.expect_fin();
    drop(client);
    expect_clean(site);
}

#[test]
fn a_body_that_never_completes_gets_408_at_the_deadline_and_was_not_owed() {
    let run = |site: Site| {
        let mut client = site.connect();
        client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nha");
        site.stop();
        let reply = client.reply();
        assert_eq!((reply.status, reply.is_last()), (408, true));
        client.expect_end();
        let stats = site.stats.clone();
        let outcome = site.outcome();
        (outcome, (stats.cut_off(), stats.finished_while_draining()))
    };
    let (outcome, counts) = at_the_deadline(run, &Config::default());
    assert_eq!((outcome.exit_code(), counts), (0, (0, 0)), "{outcome:?}");
}

// ---- Idle, or part of a head -----------------------------------------------------------------------------------------

/// A client sends this, answered by so many responses, and falls silent: what comes after the idle grace.
#[track_caller]
fn check_quiet(sent: &str, answers: usize, end: Option<u16>) {
    let config = Config { idle_grace: SHORT, linger: SHORT, ..Config::default() };
    let site = start(config, routes(&Gate::new()));
    let mut client = site.connect();
    client.send(sent);
    for _ in 0..answers {
        expect_answer(&mut client, "pong", false);
    }
    let start = Instant::now();
    site.stop();
    if let Some(status) = end {
        let reply = client.reply();
        assert_eq!((reply.status, reply.is_last()), (status, true), "{}", reply.head);
    }
    client.expect_fin();
    assert!(start.elapsed() >= SHORT, "not before the grace is over");
    assert_eq!(site.stats.finished_while_draining(), 0, "a refusal answers no request");
    // It keeps its own direction open.
    expect_clean(site);
    drop(client);
}

#[test]
fn an_idle_connection_is_closed_after_the_grace_without_a_word() {
    check_quiet(PING, 1, None);
}

#[test]
fn a_silent_connection_is_closed_after_the_grace_without_a_word() {
    check_quiet("", 0, None);
}

#[test]
fn an_empty_line_is_not_the_beginning_of_a_request() {
    check_quiet("\r\n", 0, None);
}

#[test]
fn part_of_a_head_gets_408_after_the_grace() {
    check_quiet("GET /ping HTTP/1.1\r\nHo", 0, Some(408));
}

#[test]
fn part_of_a_second_head_gets_408_after_the_grace() {
    check_quiet(&format!("{PING}G"), 1, Some(408));
}

#[test]
fn a_request_within_the_grace_is_answered_and_the_last() {
    const CASES: &[(&str, usize, &str)] = &[
        ("", 0, PING),
        (PING, 1, PING),
        ("\r\n", 0, PING),
        ("GET /ping HTTP/1.1\r\nHo", 0, "st: test\r\n\r\n"),
        ("GET /ping HTTP/1.1\r\nHost: test\r\n\r\nG", 1, "ET /ping HTTP/1.1\r\nHost: test\r\n\r\n"),
    ];
    let site = start(Config { idle_grace: LONG, ..Config::default() }, routes(&Gate::new()));
    let mut clients: Vec<_> = CASES.iter().map(|_| site.connect()).collect();
    for (client, (before, answers, _)) in clients.iter_mut().zip(CASES) {
        client.send(before);
        for _ in 0..*answers {
            expect_answer(client, "pong", false);
        }
    }
    site.stop();
    wait_until_refused(site.address);
    for (client, (.., after)) in clients.iter_mut().zip(CASES) {
        client.send(after);
        expect_answer(client, "pong", true);
        client.expect_fin();
    }
    drop(clients);
    expect_clean(site);
}

#[test]
fn the_grace_is_counted_from_the_last_byte() {
    const GRACE: Duration = Duration::from_millis(500);
    let pieces = ["GET /ping", " HTTP/1.1\r\n", "Host:", " test\r\n", "\r\n"];
    for _ in 0..10 {
        let site = start(Config { idle_grace: GRACE, ..Config::default() }, routes(&Gate::new()));
        let mut client = site.connect();
        let mut is_in_time = true;
        let mut last = Instant::now();
        site.stop();
        for piece in pieces {
            // Time must pass, more than the grace in all, but less between two pieces.
            thread::sleep(GRACE * 3 / 8);
            client.send(piece);
            // On a machine that stood still meanwhile the server was right to close: nothing is learned from it.
            is_in_time &= last.elapsed() < GRACE * 3 / 4;
            last = Instant::now();
            if !is_in_time {
                break;
            }
        }
        if is_in_time {
            expect_answer(&mut client, "pong", true);
            drop(client);
            expect_clean(site);
            return;
        }
    }
}

/// Until its next request is overdue by as much again.
#[test]
fn a_client_that_asks_at_intervals_is_waited_for() {
    let site = start(Config { idle_grace: Duration::from_millis(1), ..Config::default() }, routes(&Gate::new()));
    let mut client = site.connect();
    assert_eq!(client.ask(PING).status, 200);
    thread::sleep(SHORT);
    let asked = Instant::now();
    assert_eq!(client.ask(PING).status, 200);
    site.stop();
    client.expect_fin();
    let kept = asked.elapsed();
    assert!(kept >= SHORT * 2, "{kept:?}");
    expect_clean(site);
}

#[test]
fn a_trickle_of_head_bytes_cannot_renew_the_grace_for_ever() {
    let config = Config { head_timeout: SHORT, idle_grace: LONG, ..Config::default() };
    let site = start(config, routes(&Gate::new()));
    let mut client = site.connect();
    client.send("GET /ping HTTP/1.1\r\nX: ");
    site.stop();
    // One more byte every few milliseconds, which is what a trickle is, until the server has had enough.
    let mut trickle = client.stream.try_clone().unwrap();
    let trickling = thread::spawn(move || {
        while std::io::Write::write_all(&mut trickle, b"x").is_ok() {
            thread::sleep(Duration::from_millis(10));
        }
    });
    assert_eq!(client.reply().status, 408);
    client.expect_end();
    let outcome = site.outcome();
    assert_eq!(outcome.exit_code(), 0);
    assert!(outcome.took() < LONG, "{outcome:?}");
    drop(client);
    trickling.join().unwrap();
}

#[test]
fn with_no_connection_open_nothing_is_waited_for() {
    let site = start(Config { idle_grace: LONG, linger: LONG, ..Config::default() }, routes(&Gate::new()));
    let mut client = site.connect();
    client.send("GET /ping HTTP/1.0\r\n\r\n");
    assert_eq!(client.reply().status, 200);
    client.expect_fin();
    drop(client);
    site.stop();
    expect_clean(site);
}

#[test]
fn idle_clients_that_stay_do_not_hold_a_stop() {
    let site = start(Config { idle_grace: SHORT, ..Config::default() }, routes(&Gate::new()));
    let mut clients: Vec<_> = (0..40).map(|_| site.connect()).collect();
    for client in &mut clients[..20] {
        assert_eq!(client.ask(PING).status, 200);
    }
    site.stop();
    let took = expect_clean(site);
    assert!(took >= SHORT, "{took:?}");
    for client in &mut clients {
        client.expect_fin();
    }
}
