//! What is owed at the deadline is counted wherever it lies, and a handler that still runs is named.

#[cfg(unix)]
use std::io::Write;
use std::io::{self, Read};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use allout::{Config, CutOff, Method, Outcome, Response};
#[cfg(unix)]
use allout::{Connections, Router, Server};

use crate::drain::{SHORT, cut_off, get, routes, start_with_grace};
#[cfg(unix)]
use crate::support::Client;
#[cfg(unix)]
use crate::support::poll;
use crate::support::{Gate, HANG, Site};

/// Runs a site until its deadline, `SHORT` after the stop, with a gate that opens afterwards; again if the machine stood
/// still, from which nothing is learned.
#[track_caller]
fn at_the_deadline<T>(config: &Config, run: impl Fn(&Site, &Gate) -> T) -> (Outcome, T) {
    for _ in 0..20 {
        let (gate, stall) = (Gate::new(), Gate::new());
        let (stalling, coming, keeping) = (stall.clone(), gate.clone(), gate.clone());
        let router = routes(&gate)
            .at_once(Method::Get, "/stall", move |_| {
                coming.come();
                stalling.pass();
                Response::text("stalled")
            })
            .stream(Method::Post, "/keep", move |_, body| {
                io::copy(body, &mut io::sink()).unwrap();
                keeping.pass();
                Response::text("kept")
            });
        let site = start_with_grace(config.clone(), router, SHORT);
        let clients = run(&site, &gate);
        site.stop();
        // Opens right behind the deadline, if anybody stands there.
        thread::sleep(SHORT + Duration::from_millis(2));
        stall.open();
        let outcome = site.outcome();
        gate.open();
        if outcome.took() < SHORT + Duration::from_millis(45) {
            return (outcome, clients);
        }
    }
    panic!("the machine is never in time");
}

#[track_caller]
fn expect_owed(outcome: &Outcome, owed: usize) -> CutOff {
    assert_eq!(outcome.exit_code(), 124, "{outcome:?}");
    let cut_off = cut_off(outcome);
    assert_eq!(cut_off.owed, owed, "{cut_off:?}");
    cut_off
}

fn one_loop() -> Config {
    Config { loops: 1, ..Config::default() }
}

#[test]
fn requests_that_were_read_behind_a_running_one_are_owed_too() {
    let (outcome, _clients) = at_the_deadline(&one_loop(), |site, gate| {
        let mut client = site.connect();
        client.send(get("/hold/0") + &get("/n/1") + &get("/n/2") + "GET /n/3 HT");
        gate.wait_for(1);
        client
    });
    let cut_off = expect_owed(&outcome, 3);
    assert_eq!(cut_off.details.len(), 1, "{cut_off:?}");
    assert!(cut_off.details[0].contains("GET /hold/0 for 127.0.0.1:"), "{cut_off:?}");
    assert!(cut_off.details[0].contains(" (3 owed to it), its handler running for "), "{cut_off:?}");
}

#[test]
fn requests_that_were_read_behind_one_of_a_batch_are_owed_too() {
    let (outcome, _clients) = at_the_deadline(&one_loop(), |site, gate| {
        let mut client = site.connect();
        client.send(get("/n/1") + &get("/n/2") + &get("/hold/3") + &get("/n/4"));
        gate.wait_for(1);
        client
    });
    expect_owed(&outcome, 2);
}

#[test]
fn requests_that_lie_in_the_socket_behind_a_running_one_are_owed_too() {
    let (outcome, _clients) = at_the_deadline(&one_loop(), |site, gate| {
        let mut client = site.connect();
        client.send(get("/hold/0") + "GET /n/1");
        gate.wait_for(1);
        client.send(" HTTP/1.1\r\nHost: test\r\n\r\n".to_owned() + &get("/n/2"));
        let body = "x".repeat(100_000);
        client.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        client
    });
    expect_owed(&outcome, 4);
}

#[test]
fn requests_behind_one_that_waits_for_a_thread_are_owed_too() {
    let (outcome, _clients) = at_the_deadline(&Config { handlers_max: 1, ..one_loop() }, |site, gate| {
        let (mut holder, mut client) = (site.connect(), site.connect());
        holder.send(get("/hold/0"));
        gate.wait_for(1);
        client.send(get("/n/1") + &get("/n/2"));
        // It has been read once one that comes later is answered.
        let mut last = site.connect();
        (0..2).for_each(|_| assert_eq!(last.ask(get("/nowhere")).status, 404));
        client.send(get("/n/3"));
        (holder, client, last)
    });
    let cut_off = expect_owed(&outcome, 4);
    assert!(cut_off.details.iter().any(|line| line.starts_with("3 for 127.0.0.1:")), "{cut_off:?}");
}

#[test]
fn requests_that_nobody_came_to_read_are_owed() {
    let (outcome, _clients) = at_the_deadline(&Config { handlers_max: 1, ..one_loop() }, |site, gate| {
        let mut holder = site.connect();
        holder.send(get("/hold/0"));
        gate.wait_for(1);
        let mut clients: Vec<_> = (0..10).map(|_| site.connect()).collect();
        for client in &mut clients {
            assert_eq!(client.ask(get("/nowhere")).status, 404);
        }
        // From here on its loop does not come back before the deadline.
        let mut staller = site.connect();
        staller.send(get("/stall"));
        gate.wait_for(2);
        clients.iter_mut().for_each(|client| client.send(get("/n/1")));
        clients.extend([holder, staller]);
        clients
    });
    let cut_off = expect_owed(&outcome, 11);
    assert_eq!(cut_off.details.iter().filter(|line| line.ends_with(", not begun")).count(), 10, "{cut_off:?}");
}

#[test]
fn requests_behind_an_upload_whose_handler_has_read_it_are_owed_too() {
    let (outcome, _clients) = at_the_deadline(&one_loop(), |site, gate| {
        let mut client = site.connect();
        client.send("POST /keep HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nkeep".to_owned() + &get("/n/1"));
        gate.wait_for(1);
        client.send(get("/n/2"));
        client
    });
    let cut_off = expect_owed(&outcome, 3);
    assert!(cut_off.details[0].contains(" (3 owed to it), its handler running for "), "{cut_off:?}");
}

/// A handler's thread that sends its answer itself takes along what is left of the answers before it.
#[test]
#[cfg(unix)]
fn answers_before_one_that_is_streamed_are_owed_until_they_have_left() {
    let gate = Gate::new();
    let coming = gate.clone();
    let router = Router::new()
        .get("/bytes/{n}", |request| {
            let count = request.param("n").unwrap().parse().unwrap();
            Response::bytes("application/octet-stream", vec![b'x'; count])
        })
        .get("/flow", move |_| {
            let coming = coming.clone();
            Response::stream("text/plain", move |out| {
                coming.come();
                out.write_all(&[b'x'; 1_000_000])
            })
        });
    let path = crate::support::socket_path();
    let addresses = ["127.0.0.1:0".to_owned(), format!("unix:{}", path.display())];
    let site = Site::run(Server::bind(addresses, one_loop()).unwrap(), router, SHORT);
    // With one of these sizes the first two answers fit into the socket and the third does not: it is gathered with the
    // head of the fourth.
    let sizes = (60_000..140_000).step_by(5_000).map(|size| [size, size, 60_000]);
    let connect = |sizes: [usize; 3]| {
        let mut client = Client::connect_unix(&path);
        client.send(sizes.map(|size| get(&format!("/bytes/{size}"))).concat() + &get("/flow"));
        (client, sizes)
    };
    let clients: Vec<_> = sizes.map(connect).collect();
    gate.wait_for(1);
    let has_begun = |of: &Connections| of.writing + of.working == clients.len();
    poll(|| has_begun(&site.stats.figures().connections).then_some(())).expect("each has as much as its socket takes");
    site.stop();
    let cut_off = cut_off(&site.outcome());
    // What has left is in the clients' sockets.
    let owed = clients.into_iter().map(|(mut client, sizes)| {
        let got = client.rest();
        let mut rest = &got[..];
        let whole = sizes.iter().take_while(|size| {
            let head = rest.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
            let behind = head.and_then(|head| rest.get(head + **size..));
            rest = behind.unwrap_or_default();
            behind.is_some()
        });
        4 - whole.count()
    });
    assert_eq!(cut_off.owed, owed.sum::<usize>(), "{cut_off:?}");
}

/// At the deadline the server looks through the socket for the body's end, and throws away what it finds.
#[test]
fn a_handler_that_reads_on_after_the_deadline_never_gets_a_body_with_a_hole() {
    const BYTES: usize = 300_000;
    let (gate, (sender, read)) = (Gate::new(), mpsc::channel());
    let passing = gate.clone();
    let router = routes(&gate).stream(Method::Post, "/up", move |_, body| {
        body.read_exact(&mut [0; 1]).unwrap();
        passing.pass();
        let rest = io::copy(body, &mut io::sink());
        sender.send(rest.map(|rest| rest + 1)).unwrap();
        Response::text("up")
    });
    let site = start_with_grace(one_loop(), router, SHORT);
    let mut client = site.connect();
    client.send(format!("POST /up HTTP/1.1\r\nHost: test\r\nContent-Length: {BYTES}\r\n\r\n"));
    client.send(vec![b'x'; BYTES]);
    gate.wait_for(1);
    site.stop();
    let _ = site.outcome();
    gate.open();
    let read = read.recv_timeout(HANG).unwrap();
    assert!(read.as_ref().map_or(true, |read| *read == BYTES as u64), "{read:?}");
}

/// A client that has not taken its earlier answers is given up, but not the handler that works for it.
#[test]
#[cfg(unix)]
fn a_handler_whose_client_stalls_is_waited_for_and_named() {
    let gate = Gate::new();
    let router = Router::new()
        .get("/bytes/{n}", |request| {
            let count = request.param("n").unwrap().parse().unwrap();
            Response::bytes("application/octet-stream", vec![b'x'; count])
        })
        .get("/hold", {
            let gate = gate.clone();
            move |_: &allout::Request<'_>| {
                gate.pass();
                Response::text("held")
            }
        });
    let path = crate::support::socket_path();
    let addresses = ["127.0.0.1:0".to_owned(), format!("unix:{}", path.display())];
    let config = Config { write_timeout: SHORT, ..one_loop() };
    let site = Site::run(Server::bind(addresses, config).unwrap(), router, SHORT);
    // With one of these sizes the first two answers fit into the socket and the third does not: it is gathered with what
    // comes next, and has been written in part when the handler of that is found to be slow.
    let sizes = (60_000..140_000).step_by(5_000);
    let clients: Vec<_> = sizes
        .map(|size| {
            let mut client = Client::connect_unix(&path);
            client.send([size, size, 60_000].map(|n| get(&format!("/bytes/{n}"))).concat() + &get("/hold"));
            client
        })
        .collect();
    gate.wait_for(1);
    // Those that are to take more are given up, one of them although its handler runs.
    let is_one_gone = || site.stats.busy(clients.len(), HANG).iter().any(|busy| busy.client_has_gone);
    poll(|| (site.stats.figures().connections.writing == 0 && is_one_gone()).then_some(())).expect("they are given up");
    site.stop();
    let cut_off = cut_off(&site.outcome());
    gate.open();
    let named =
        |line: &&String| line.starts_with("GET /hold for unix socket, which has gone, its handler running for ");
    let count = cut_off.details.iter().filter(named).count();
    assert!(count > 0, "{cut_off:?}");
    assert!(cut_off.owed < clients.len(), "{cut_off:?}");
}
