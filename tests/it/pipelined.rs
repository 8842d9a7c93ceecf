//! Requests behind the running one, and what a connection does after its last answer.

use std::thread;
use std::time::{Duration, Instant};

use allout::{Config, Response};

#[cfg(unix)]
use crate::drain::{BIG, cut_off, slow_reader, unix_site, wait_for_answer};
use crate::drain::{LONG, SHORT, at_the_deadline, expect_answer, expect_clean, get, routes, start, wait_until_refused};
#[cfg(unix)]
use crate::support::Client;
use crate::support::{Gate, PING, Site};

// ---- Behind a running handler -------------------------------------------------------------------------------------

#[test]
fn requests_that_came_with_the_running_one_are_answered_in_order() {
    let gate = Gate::new();
    let site = start(Config::default(), routes(&gate));
    let mut client = site.connect();
    client.send(get("/hold/0") + &get("/n/1") + &get("/n/2") + &get("/n/3"));
    gate.wait_for(1);
    site.stop();
    gate.open();
    for n in 0..4 {
        expect_answer(&mut client, &n.to_string(), n == 3);
    }
    client.expect_fin();
    drop(client);
    expect_clean(site);
}

#[test]
fn several_requests_within_the_grace_are_all_answered() {
    let site = start(Config { idle_grace: LONG, ..Config::default() }, routes(&Gate::new()));
    let mut client = site.connect();
    assert_eq!(client.ask(PING).status, 200);
    site.stop();
    wait_until_refused(site.address);
    client.send(get("/n/1") + &get("/n/2") + &get("/n/3"));
    expect_answer(&mut client, "1", false);
    expect_answer(&mut client, "2", false);
    expect_answer(&mut client, "3", true);
    client.expect_fin();
    drop(client);
    expect_clean(site);
}

/// The client sends `/hold/0`, and while that is held the rest, so that it is still in the socket at the stop: all of
/// `/n/1` to `/n/{last}` are answered, and nothing more.
#[track_caller]
#[cfg(unix)]
fn check_successors(rest: &str, last: usize) {
    let gate = Gate::new();
    let (site, path) = unix_site(Config::default(), routes(&gate));
    let mut client = Client::connect_unix(&path);
    client.send(get("/hold/0"));
    gate.wait_for(1);
    client.send(rest);
    site.stop();
    gate.open();
    for n in 0..=last {
        expect_answer(&mut client, &n.to_string(), n == last);
    }
    client.expect_fin();
    drop(client);
    expect_clean(site);
}

#[test]
#[cfg(unix)]
fn requests_that_are_still_in_the_socket_are_answered_in_order() {
    check_successors(&(get("/n/1") + &get("/n/2") + &get("/n/3")), 3);
}

#[test]
#[cfg(unix)]
fn part_of_a_request_behind_the_running_one_is_dropped() {
    check_successors(&(get("/n/1") + "GET /n/2 HTTP/1.1\r\nHost: te"), 1);
    check_successors("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nha", 0);
}

#[test]
#[cfg(unix)]
fn a_batch_that_no_single_read_holds_is_answered_in_order() {
    let padding = "x".repeat(1000);
    let batch: String =
        (1..=90).map(|n| format!("GET /n/{n} HTTP/1.1\r\nHost: test\r\nX: {padding}\r\n\r\n")).collect();
    assert!(batch.len() > 64 * 1024 + 16 * 1024);
    check_successors(&batch, 90);
}

#[test]
#[cfg(unix)]
fn a_successor_with_a_body_that_no_single_read_holds_is_answered() {
    let gate = Gate::new();
    let (site, path) = unix_site(Config::default(), routes(&gate));
    let mut client = Client::connect_unix(&path);
    client.send(get("/hold/0"));
    gate.wait_for(1);
    let body = "x".repeat(100_000);
    client.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}{PING}", body.len()));
    site.stop();
    gate.open();
    expect_answer(&mut client, "0", false);
    expect_answer(&mut client, &body, false);
    expect_answer(&mut client, "pong", true);
    client.expect_fin();
    drop(client);
    expect_clean(site);
}

/// Each byte of content comes in a chunk of its own, which is legal, and makes six of it on the wire.
#[test]
#[cfg(unix)]
fn a_successor_whose_coding_is_much_larger_than_its_content_is_answered() {
    let gate = Gate::new();
    let (site, path) = unix_site(Config { body_bytes_max: 16 * 1024, ..Config::default() }, routes(&gate));
    let mut client = Client::connect_unix(&path);
    client.send(get("/hold/0"));
    gate.wait_for(1);
    let (body, coded) = ("x".repeat(16 * 1024), "1\r\nx\r\n".repeat(16 * 1024));
    client.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{coded}0\r\n\r\n"));
    site.stop();
    gate.open();
    expect_answer(&mut client, "0", false);
    expect_answer(&mut client, &body, true);
    client.expect_fin();
    drop(client);
    expect_clean(site);
}

#[test]
#[cfg(unix)]
fn a_chain_of_successors_is_answered_however_long_it_is() {
    const LAST: usize = 40;
    let steps: Vec<Gate> = (0..=LAST).map(|_| Gate::new()).collect();
    let handler = {
        let steps = steps.clone();
        move |request: &allout::Request<'_>| {
            let n = request.param("n").unwrap().into_owned();
            steps[n.parse::<usize>().unwrap()].pass();
            Response::text(n)
        }
    };
    let router = routes(&Gate::new()).get("/step/{n}", handler);
    let (site, path) = unix_site(Config::default(), router);
    let mut client = Client::connect_unix(&path);
    client.send(get("/step/0"));
    steps[0].wait_for(1);
    site.stop();
    // Each comes whole while the handler of the one before runs.
    for n in 1..=LAST {
        client.send(get(&format!("/step/{n}")));
        steps[n - 1].open();
        steps[n].wait_for(1);
    }
    steps[LAST].open();
    for n in 0..=LAST {
        expect_answer(&mut client, &n.to_string(), n == LAST);
    }
    client.expect_fin();
    drop(client);
    expect_clean(site);
}

#[test]
fn a_half_closed_client_still_gets_its_answers() {
    let gate = Gate::new();
    let site = start(Config::default(), routes(&gate));
    let mut clients = [site.connect(), site.connect(), site.connect()];
    clients[0].send(get("/hold/0"));
    clients[1].send(get("/hold/0") + &get("/n/1") + &get("/n/2") + "GET /n/3");
    gate.wait_for(1);
    for client in &clients[..2] {
        client.finish();
    }
    // Perhaps not even looked at yet.
    clients[2].send(get("/hold/0"));
    clients[2].finish();
    site.stop();
    gate.open();
    for (client, last) in clients.iter_mut().zip([0, 2, 0]) {
        for n in 0..=last {
            expect_answer(client, &n.to_string(), n == last);
        }
        client.expect_fin();
    }
    expect_clean(site);
}

#[test]
fn answers_that_leave_after_the_stop_are_counted() {
    let gate = Gate::new();
    let site = start(Config { idle_grace: LONG, ..Config::default() }, routes(&gate));
    let mut idle = site.connect();
    assert_eq!(idle.ask(PING).status, 200);
    let mut busy = site.connect();
    busy.send(get("/hold/0") + &get("/n/1"));
    gate.wait_for(1);
    site.stop();
    gate.open();
    expect_answer(&mut busy, "0", false);
    expect_answer(&mut busy, "1", true);
    wait_until_refused(site.address);
    assert!(idle.ask(PING).is_last());
    let stats = site.stats.clone();
    drop((idle, busy));
    expect_clean(site);
    assert_eq!(stats.finished_while_draining(), 3, "two behind the gate and one within the grace");
}

// ---- Behind an answer that closes -----------------------------------------------------------------------------------

#[test]
fn requests_that_came_with_one_whose_answer_closes_are_answered_first() {
    for n in 1..4 {
        let site = start(Config::default(), routes(&Gate::new()).get("/bye", |_| Response::text("bye").closing()));
        let mut client = site.connect();
        client.send(get("/bye") + &get("/n/1").repeat(n));
        expect_answer(&mut client, "bye", false);
        for left in (0..n).rev() {
            expect_answer(&mut client, "1", left == 0);
        }
        client.expect_fin();
        // With nothing behind it, it is the last itself.
        expect_answer(
            &mut {
                let mut client = site.connect();
                client.send(get("/bye"));
                client
            },
            "bye",
            true,
        );
    }
}

#[test]
fn a_slow_request_behind_one_whose_answer_closes_is_answered() {
    let gate = Gate::new();
    let site = start(Config::default(), routes(&gate).get("/bye", |_| Response::text("bye").closing()));
    let mut client = site.connect();
    client.send(get("/bye") + &get("/hold/1") + &get("/n/2"));
    expect_answer(&mut client, "bye", false);
    gate.wait_for(1);
    gate.open();
    expect_answer(&mut client, "1", false);
    expect_answer(&mut client, "2", true);
    client.expect_fin();
}

// ---- Behind an answer to a slow reader -------------------------------------------------------------------------------

#[test]
#[cfg(unix)]
fn requests_behind_an_answer_that_is_cut_off_are_owed_too() {
    let run = |site: Site| {
        let mut client = slow_reader(site.address);
        client.send(get("/big") + PING + PING + "GET /pi");
        wait_for_answer(&client);
        site.stop();
        let stats = site.stats.clone();
        let outcome = site.outcome();
        (outcome, stats.cut_off())
    };
    let (outcome, count) = at_the_deadline(run, &Config::default());
    assert_eq!(outcome.exit_code(), 124, "{outcome:?}");
    assert_eq!((cut_off(&outcome).owed, count), (3, 3));
}

#[test]
#[cfg(unix)]
fn requests_behind_an_answer_to_a_slow_reader_are_answered() {
    let site = start(Config::default(), routes(&Gate::new()));
    let mut client = slow_reader(site.address);
    client.send(get("/big") + &get("/n/1") + &get("/n/2") + "GET /pi");
    wait_for_answer(&client);
    site.stop();
    wait_until_refused(site.address);
    assert_eq!(client.reply().body.len(), BIG);
    expect_answer(&mut client, "1", false);
    expect_answer(&mut client, "2", true);
    client.expect_fin();
    drop(client);
    expect_clean(site);
}

// ---- After the last answer -------------------------------------------------------------------------------------------

#[test]
fn a_client_that_does_not_close_after_its_last_answer_is_waited_for_until_the_linger_time_is_over() {
    let gate = Gate::new();
    let site = start(Config { linger: SHORT, ..Config::default() }, routes(&gate));
    let mut client = site.connect();
    client.send(get("/hold/1"));
    gate.wait_for(1);
    site.stop();
    // The handler takes longer than the time that begins only after it: a passage of time is what is tested.
    thread::sleep(SHORT);
    let start = Instant::now();
    gate.open();
    expect_answer(&mut client, "1", true);
    client.expect_fin();
    expect_clean(site);
    assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());
    drop(client);
}

#[test]
fn a_client_that_does_not_close_after_its_last_answer_is_not_waited_for_beyond_the_deadline() {
    let run = |site: Site| {
        let mut client = site.connect();
        client.send("POST /echo HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1");
        expect_answer(&mut client, "1", true);
        client.expect_fin();
        site.stop();
        (site.outcome(), client)
    };
    let (outcome, _) = at_the_deadline(run, &Config { linger: Duration::from_secs(600), ..Config::default() });
    assert_eq!(outcome.exit_code(), 0, "{outcome:?}");
}

#[test]
fn what_a_client_sends_behind_its_last_answer_does_not_destroy_it() {
    let gate = Gate::new();
    let site = start(Config { linger: LONG, ..Config::default() }, routes(&gate));
    let mut client = site.connect();
    client.send(get("/hold/1"));
    gate.wait_for(1);
    site.stop();
    gate.open();
    client.stream.peek(&mut [0]).unwrap();
    // Without lingering, these would be answered with a reset.
    for _ in 0..100 {
        client.send(PING);
    }
    expect_answer(&mut client, "1", true);
    client.expect_fin();
    drop(client);
    expect_clean(site);
}
