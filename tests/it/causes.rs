//! Ways to stop: before, during and after the start, from inside a handler, by a listener's end, by another member; and
//! that each leads to the same drain. The drain itself is in `drain`.

use std::net::SocketAddr;
#[cfg(target_os = "linux")]
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use allout::{Cause, Config, Exit, Group, LocalAddress, MemberResult, Response, Router, Server, Stop};

use crate::drain::{expect_answer, get, routes, wait_until_refused};
use crate::support::{Client, Gate, HANG, PING, Site, demo};

const GRACE: Duration = Duration::from_secs(20);

fn bind() -> (Server, SocketAddr) {
    // A client that has its last answer and stays is soon left.
    let config = Config { linger: Duration::from_millis(50), ..Config::default() };
    let server = Server::bind("127.0.0.1:0", config).unwrap();
    let Some(LocalAddress::Tcp(address)) = server.addresses().next().cloned() else { panic!("no TCP address") };
    (server, address)
}

fn asked() -> Cause {
    Cause::Request("test".to_owned())
}

#[track_caller]
fn wait_for_stop(stop: &Stop) {
    assert!(stop.wait_timeout(HANG), "it was never stopped");
}

// ---- Before, during and after the start ------------------------------------------------------------------------------

#[test]
fn a_stop_before_the_group_runs_still_answers_who_waits() {
    let (server, address) = bind();
    let mut group = Group::new();
    let stop = group.stop();
    group.add("http", move |stop| server.run(routes(&Gate::new()), stop));
    let mut client = Client::connect(address);
    client.send(PING);
    assert!(stop.trigger(asked()));
    let outcome = group.run(GRACE);
    assert_eq!((outcome.exit_code(), outcome.cause()), (0, Some(&asked())), "{outcome:?}");
    expect_answer(&mut client, "pong", true);
    wait_until_refused(address);
}

#[test]
fn a_server_that_was_told_to_stop_before_it_runs_serves_who_has_come() {
    let (server, address) = bind();
    let stop = Stop::new();
    let mut client = Client::connect(address);
    client.send(PING);
    stop.trigger(asked());
    let thread = thread::spawn(move || server.run(routes(&Gate::new()), &stop));
    expect_answer(&mut client, "pong", true);
    client.expect_fin();
    drop(client);
    thread.join().unwrap().unwrap();
    wait_until_refused(address);
}

#[test]
fn a_stop_during_the_start_works_at_every_moment() {
    for round in 0..50 {
        let (server, address) = bind();
        let mut group = Group::new();
        let stop = group.stop();
        group.add("http", move |stop| server.run(routes(&Gate::new()), stop));
        let mut client = Client::connect(address);
        client.send(PING);
        let (go, gone) = mpsc::channel();
        let trigger = thread::spawn(move || {
            gone.recv().unwrap();
            // A little later each time; it does not matter when exactly.
            (0..round * 50).for_each(|_| std::hint::spin_loop());
            stop.trigger(asked());
        });
        go.send(()).unwrap();
        let running = thread::spawn(move || group.run(GRACE));
        // Either nothing has started, or the request is answered.
        if let Some(reply) = client.next_reply(false) {
            assert_eq!((reply.status, reply.text().as_str()), (200, "pong"));
        }
        drop(client);
        let outcome = running.join().unwrap();
        assert_eq!((outcome.exit_code(), outcome.cause()), (0, Some(&asked())), "{outcome:?}");
        assert!(outcome.took() < GRACE, "{outcome:?}");
        trigger.join().unwrap();
    }
}

#[test]
fn a_second_stop_changes_nothing() {
    let gate = Gate::new();
    let site = Site::start(Config::default(), routes(&gate));
    let mut client = site.connect();
    client.send(get("/hold/1"));
    gate.wait_for(1);
    site.stop();
    let deadline = site.stop.deadline();
    assert!(!site.stop.trigger(Cause::Failed { who: "late".to_owned(), error: "too late".to_owned() }));
    assert_eq!(site.stop.deadline(), deadline);
    gate.open();
    expect_answer(&mut client, "1", true);
    drop(client);
    let outcome = site.outcome();
    assert_eq!((outcome.exit_code(), outcome.cause()), (0, Some(&asked())), "{outcome:?}");
}

// ---- From inside a handler -------------------------------------------------------------------------------------------

/// The stop of a site, which is known only once the site runs.
#[derive(Clone, Default)]
struct LateStop(Arc<OnceLock<Stop>>);

impl LateStop {
    fn trigger(&self, cause: Cause) -> bool {
        self.0.get().expect("no client comes before the site runs").trigger(cause)
    }
}

/// A site with the routes of `make`, which is given a stop to trigger.
fn site_with(config: Config, make: impl FnOnce(LateStop) -> Router) -> Site {
    let stop = LateStop::default();
    let site = Site::start(config, make(stop.clone()));
    assert!(stop.0.set(site.stop.clone()).is_ok());
    site
}

#[test]
fn a_handler_may_stop_its_own_server() {
    let site = site_with(Config::default(), |stop| {
        Router::new().get("/stop", move |_| {
            let is_first = stop.trigger(asked());
            Response::text(format!("{is_first} {}", stop.trigger(asked())))
        })
    });
    let mut client = site.connect();
    client.send(get("/stop"));
    expect_answer(&mut client, "true false", true);
    client.expect_fin();
    drop(client);
    let outcome = site.outcome();
    assert_eq!((outcome.exit_code(), outcome.cause()), (0, Some(&asked())), "{outcome:?}");
}

/// `/shutdown` with an answer of so many bytes, and `/ping`.
fn shutdown(bytes: usize) -> impl FnOnce(LateStop) -> Router {
    move |stop| {
        routes(&Gate::new()).get("/shutdown", move |_| {
            let stop = stop.clone();
            Response::bytes("application/octet-stream", vec![b'x'; bytes]).on_sent(move || {
                stop.trigger(Cause::Request("/shutdown".to_owned()));
            })
        })
    }
}

#[test]
fn a_stop_after_the_answer_comes_after_the_answer() {
    let config = Config { idle_grace: Duration::from_millis(100), ..Config::default() };
    let site = site_with(config, shutdown(10));
    let mut client = site.connect();
    client.send(get("/shutdown"));
    // When the answer is made, nothing is stopping yet: the connection ends as one that is idle.
    expect_answer(&mut client, "xxxxxxxxxx", false);
    client.expect_fin();
    drop(client);
    let outcome = site.outcome();
    assert_eq!((outcome.exit_code(), outcome.cause()), (0, Some(&Cause::Request("/shutdown".to_owned()))));
}

#[test]
#[cfg(unix)]
fn a_stop_after_the_answer_leaves_the_listener_open_until_the_answer_is_out() {
    const BYTES: usize = 16 * 1024 * 1024;
    let config = Config { idle_grace: Duration::from_millis(100), ..Config::default() };
    let site = site_with(config, shutdown(BYTES));
    let mut client = crate::drain::slow_reader(site.address);
    client.send(get("/shutdown"));
    crate::drain::wait_for_answer(&client);
    // Half written: the site is in full service.
    expect_answer_once(site.address);
    assert_eq!(site.stop.cause(), None);
    assert_eq!(client.reply().body.len(), BYTES);
    wait_for_stop(&site.stop);
    client.expect_fin();
    drop(client);
    let outcome = site.outcome();
    assert_eq!((outcome.exit_code(), outcome.cause()), (0, Some(&Cause::Request("/shutdown".to_owned()))));
}

/// A new client is served, and its connection kept.
#[cfg(unix)]
#[track_caller]
fn expect_answer_once(address: SocketAddr) {
    let mut client = Client::connect(address);
    client.send(PING);
    expect_answer(&mut client, "pong", false);
}

#[test]
fn a_stop_after_the_answer_comes_although_the_client_has_vanished() {
    let gate = Gate::new();
    let held = gate.clone();
    let site = site_with(Config::default(), |stop| {
        Router::new().get("/shutdown", move |_| {
            held.pass();
            let stop = stop.clone();
            Response::text("stopping").on_sent(move || {
                stop.trigger(asked());
            })
        })
    });
    let mut client = site.connect();
    client.send(get("/shutdown"));
    gate.wait_for(1);
    drop(client);
    gate.open();
    let outcome = site.outcome();
    assert_eq!((outcome.exit_code(), outcome.cause()), (0, Some(&asked())), "{outcome:?}");
}

#[test]
#[cfg(unix)]
fn a_stop_after_the_answer_comes_although_the_client_vanished_in_its_middle() {
    let site = site_with(Config::default(), shutdown(16 * 1024 * 1024));
    let mut client = crate::drain::slow_reader(site.address);
    client.send(get("/shutdown"));
    crate::drain::wait_for_answer(&client);
    drop(client);
    let outcome = site.outcome();
    assert_eq!((outcome.exit_code(), outcome.cause()), (0, Some(&Cause::Request("/shutdown".to_owned()))));
}

// ---- By a listener's end ---------------------------------------------------------------------------------------------

/// A server on a listener that can be broken: `accept` of a socket that was shut down says EINVAL on Linux.
#[cfg(target_os = "linux")]
fn breakable(config: Config) -> (Server, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let handle = TcpStream::from(std::os::fd::OwnedFd::from(listener.try_clone().unwrap()));
    (Server::from_listeners([listener], config).unwrap(), handle)
}

#[cfg(target_os = "linux")]
fn shut_down(listener: &TcpStream) {
    listener.shutdown(std::net::Shutdown::Both).unwrap();
}

#[cfg(target_os = "linux")]
#[track_caller]
fn expect_listener_failed(outcome: &allout::Outcome, address: SocketAddr) {
    assert_eq!(outcome.exit_code(), 1, "{outcome:?}");
    match outcome.cause() {
        Some(Cause::Failed { who, .. }) if who.contains(&address.to_string()) => {}
        other => panic!("the listener {address} has failed, not {other:?}"),
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_broken_listener_ends_the_group_and_requests_in_flight_are_answered() {
    let gate = Gate::new();
    let (server, listener) = breakable(Config { loops: 2, ..Config::default() });
    let site = Site::run(server, routes(&gate), GRACE);
    let mut client = site.connect();
    client.send(get("/hold/0") + &get("/n/1"));
    gate.wait_for(1);
    shut_down(&listener);
    wait_for_stop(&site.stop);
    gate.open();
    expect_answer(&mut client, "0", false);
    expect_answer(&mut client, "1", true);
    client.expect_fin();
    drop(client);
    let address = site.address;
    expect_listener_failed(&site.outcome(), address);
}

#[test]
#[cfg(target_os = "linux")]
fn a_broken_listener_is_told_once_as_the_cause_or_else_as_a_notice() {
    for is_first in [true, false] {
        let (server, listener) = breakable(Config { loops: 2, ..Config::default() });
        let (sender, notices) = mpsc::channel();
        let server = server.on_notice(move |notice| sender.send(notice.to_string()).unwrap());
        let Some(LocalAddress::Tcp(address)) = server.addresses().next().cloned() else { panic!("no TCP address") };
        let mut group = Group::new();
        // After another cause it serves on for so long, and notices.
        group.lame_duck(if is_first { Duration::ZERO } else { Duration::from_millis(250) });
        let stop = group.stop();
        let router = routes(&Gate::new());
        group.add("http", move |stop| server.run(router, stop));
        let running = thread::spawn(move || group.run(GRACE));
        assert_eq!(Client::connect(address).ask(PING).status, 200);
        if !is_first {
            stop.trigger(asked());
        }
        shut_down(&listener);
        let outcome = running.join().unwrap();
        let told: Vec<_> = notices.iter().collect();
        match outcome.cause() {
            Some(Cause::Failed { .. }) if is_first => assert_eq!(told, [""; 0]),
            // A machine that stood still until the drain began has not noticed.
            Some(cause) if !is_first && *cause == asked() => assert!(told.len() <= 1, "{told:?}"),
            other => panic!("{other:?}, {told:?}"),
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_broken_listener_of_one_server_drains_the_other_too() {
    let gate = Gate::new();
    let (breaking, listener) = breakable(Config { loops: 2, ..Config::default() });
    let Some(LocalAddress::Tcp(broken)) = breaking.addresses().next().cloned() else { panic!("no TCP address") };
    let (other, address) = bind();
    let mut group = Group::new();
    let stop = group.stop();
    let (one, two) = (routes(&gate), routes(&gate));
    group.add("breaking", move |stop| breaking.run(one, stop));
    group.add("other", move |stop| other.run(two, stop));
    let running = thread::spawn(move || group.run(GRACE));
    let mut clients = [Client::connect(broken), Client::connect(address)];
    for client in &mut clients {
        client.send(get("/hold/1"));
    }
    gate.wait_for(2);
    shut_down(&listener);
    wait_for_stop(&stop);
    gate.open();
    for client in &mut clients {
        expect_answer(client, "1", true);
        client.expect_fin();
    }
    drop(clients);
    expect_listener_failed(&running.join().unwrap(), broken);
    wait_until_refused(address);
}

// ---- By another member -----------------------------------------------------------------------------------------------

/// The job of a group ends like this while a server of the group has a request in flight.
#[track_caller]
fn check_job(end: impl FnOnce() -> MemberResult + Send + 'static, cause: &str, code: u8) {
    let (gate, job) = (Gate::new(), Gate::new());
    let (server, address) = bind();
    let mut group = Group::new();
    let stop = group.stop();
    let router = routes(&gate);
    group.add("http", move |stop| server.run(router, stop));
    let until = job.clone();
    let body = move |_: &Stop| {
        until.pass();
        end()
    };
    group.add("job", body);
    let running = thread::spawn(move || group.run(GRACE));
    let mut client = Client::connect(address);
    client.send(get("/hold/1"));
    gate.wait_for(1);
    job.open();
    wait_for_stop(&stop);
    gate.open();
    expect_answer(&mut client, "1", true);
    client.expect_fin();
    drop(client);
    let outcome = running.join().unwrap();
    assert_eq!(outcome.exit_code(), code, "{outcome:?}");
    assert_eq!(outcome.cause().map(ToString::to_string).as_deref(), Some(cause));
    assert!(outcome.exits().any(|(name, exit, _)| name == "http" && *exit == Exit::Done), "{outcome:?}");
}

#[test]
fn a_job_that_is_done_drains_the_server() {
    check_job(|| Ok(()), "job is done", 0);
}

#[test]
fn a_job_that_fails_drains_the_server() {
    check_job(|| Err("no more work".into()), "job failed: no more work", 1);
}

#[test]
fn a_job_that_panics_drains_the_server() {
    check_job(|| panic!("asked to"), "job panicked: asked to", 101);
}

// ---- Lame duck -------------------------------------------------------------------------------------------------------

#[test]
fn a_lame_duck_serves_as_before_but_is_not_ready() {
    // Longer than any test: it is killed as a lame duck.
    let mut process = demo(&["--listen", "127.0.0.1:0", "--lame-duck", "3600"]);
    let address = process.address();
    let host = format!("Host: {address}\r\n");
    let mut old = Client::connect(address);
    assert_eq!(old.ask(get("/readyz")).status, 200);
    let reply = Client::connect(address).ask(format!("GET /shutdown HTTP/1.1\r\n{host}\r\n"));
    assert_eq!(reply.status, 200);
    process.line_with("stopping: /shutdown");
    for client in [&mut old, &mut Client::connect(address)] {
        let reply = client.ask(get("/readyz"));
        assert_eq!((reply.status, reply.is_last()), (503, false), "{}", reply.head);
        for _ in 0..2 {
            expect_answer_of(client);
        }
    }
}

#[track_caller]
fn expect_answer_of(client: &mut Client) {
    client.send(PING);
    expect_answer(client, "pong", false);
}

#[test]
fn the_deadline_counts_from_the_end_of_the_lame_duck_time() {
    const LAME_DUCK: Duration = Duration::from_millis(300);
    let gate = Gate::new();
    let (server, address) = bind();
    let mut group = Group::new();
    group.lame_duck(LAME_DUCK);
    let stop = group.stop();
    let router = routes(&gate);
    group.add("http", move |stop| server.run(router, stop));
    let running = thread::spawn(move || group.run(GRACE));
    let mut client = Client::connect(address);
    assert_eq!(client.ask(PING).status, 200);
    let start = Instant::now();
    stop.trigger(asked());
    // Served and kept, until the time is over.
    while !stop.is_set() {
        let reply = client.ask(PING);
        assert_eq!(reply.status, 200);
        if reply.is_last() {
            break;
        }
    }
    assert!(stop.is_set() && start.elapsed() >= LAME_DUCK, "not before the lame-duck time is over");
    assert!(stop.deadline().unwrap() >= start + LAME_DUCK + GRACE);
    drop(client);
    let outcome = running.join().unwrap();
    assert_eq!((outcome.exit_code(), outcome.cause()), (0, Some(&asked())), "{outcome:?}");
    assert!(outcome.took() >= LAME_DUCK, "{outcome:?}");
}

// ---- The real process ------------------------------------------------------------------------------------------------

#[test]
fn the_process_drains_and_says_so() {
    let mut process = demo(&["--listen", "127.0.0.1:0", "--grace", "20", "--loops", "1"]);
    let address = process.address();
    let mut uploading = Client::connect(address);
    uploading.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nha");
    let reply = Client::connect(address).ask(format!("GET /shutdown HTTP/1.1\r\nHost: {address}\r\n\r\n"));
    assert_eq!((reply.status, reply.is_last()), (200, true));
    process.line_with("stopping: /shutdown");
    wait_until_refused(address);
    uploading.send("lf");
    expect_answer(&mut uploading, "half", true);
    drop(uploading);
    let (code, said) = process.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("all out: /shutdown; 1 request finished while draining, 0 cut off; "), "{said}");
}

#[test]
#[cfg(unix)]
fn the_process_says_what_it_had_to_cut_off() {
    let run = || {
        let mut process = demo(&["--listen", "127.0.0.1:0", "--grace", "0.3"]);
        let address = process.address();
        let mut client = crate::drain::slow_reader(address);
        client.send(get("/bytes/33554432"));
        crate::drain::wait_for_answer(&client);
        let reply = Client::connect(address).ask(format!("GET /shutdown HTTP/1.1\r\nHost: {address}\r\n\r\n"));
        assert_eq!(reply.status, 200);
        let (code, said) = process.end();
        (code, said, client.stream.local_addr().unwrap())
    };
    // As in `at_the_deadline`: a machine that stood still at the deadline teaches nothing.
    let is_late =
        |said: &str| ["0.30 s", "0.31 s", "0.32 s", "0.33 s"].iter().all(|end| !said.trim_end().ends_with(end));
    let (code, said, peer) = (0..20).map(|_| run()).find(|(_, said, _)| !is_late(said)).expect("one end in time");
    assert_eq!(code, Some(124), "{said}");
    let line = said.lines().find(|line| line.starts_with("cut off: ")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains(&peer.to_string()), "{line} names {peer}");
    assert!(said.contains("all out: /shutdown; 0 requests finished while draining, 1 cut off; "), "{said}");
}

#[test]
#[cfg(all(unix, feature = "signals"))]
fn a_signal_drains_the_process() {
    let mut process = demo(&["--listen", "127.0.0.1:0", "--grace", "20"]);
    let address = process.address();
    let mut sleeping = Client::connect(address);
    // Known to run: a signal that comes before starts nothing.
    assert_eq!(sleeping.ask(PING).status, 200);
    sleeping.send(get("/sleep/300") + PING);
    let mut uploading = Client::connect(address);
    uploading.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nha");
    process.signal(nix::sys::signal::Signal::SIGTERM);
    wait_until_refused(address);
    uploading.send("lf");
    expect_answer(&mut uploading, "half", true);
    assert_eq!(sleeping.reply().text(), "slept 300 ms\n");
    assert_eq!(sleeping.reply().text(), "pong");
    drop((sleeping, uploading));
    let (code, said) = process.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("all out: signal; ") && said.contains(", 0 cut off; "), "{said}");
}
