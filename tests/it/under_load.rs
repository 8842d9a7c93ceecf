//! Many clients at work when the stop comes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use allout::{Config, Request, Response};

use crate::support::{Client, Gate, HANG, PING, Site, at_once};

const GRACE: Duration = Duration::from_secs(20);

/// Asks until it is told that an answer was the last.
fn keep_asking(mut client: Client) {
    loop {
        client.send(PING);
        let reply = client.next_reply(false).expect("an answer to a request on a connection that is kept");
        assert_eq!((reply.status, reply.text().as_str()), (200, "pong"));
        if reply.is_last() {
            return client.expect_fin();
        }
    }
}

/// Asks on one connection after another, until one is refused. Returns how many got no answer.
fn ask_anew(address: SocketAddr) -> usize {
    let mut lost = 0;
    while let Ok(mut stream) = TcpStream::connect(address) {
        stream.set_read_timeout(Some(HANG)).unwrap();
        let request = stream.write_all(b"GET /ping HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        match request.and_then(|()| stream.read_to_string(&mut answer)) {
            Ok(_) if answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\npong") => {}
            _ if answer.is_empty() => lost += 1,
            other => panic!("{other:?}, after {answer:?}"),
        }
    }
    lost
}

#[test]
fn no_request_is_lost_when_a_busy_server_stops() {
    let lost = AtomicUsize::new(0);
    at_once(0..5, |_| {
        // A gate that is open counts who goes through.
        let gate = Gate::new();
        gate.open();
        let counted = gate.clone();
        let handler = move |_: &Request<'_>| {
            counted.pass();
            Response::text("pong")
        };
        // Nobody is quiet for so long: a client that was not scheduled for a while is not taken for an idle one.
        let config = Config { loops: 2, idle_grace: GRACE, linger: GRACE, ..Config::default() };
        let site = Site::start(config, handler);
        let address = site.address;
        // Connected here, so that none finds the door closed already.
        let clients: Vec<_> = (0..8).map(|_| Client::connect(address)).collect();
        let kept: Vec<_> = clients.into_iter().map(|client| thread::spawn(move || keep_asking(client))).collect();
        let anew: Vec<_> = (0..4).map(|_| thread::spawn(move || ask_anew(address))).collect();
        gate.wait_for(600);
        site.stop();
        kept.into_iter().for_each(|client| client.join().unwrap());
        lost.fetch_add(anew.into_iter().map(|client| client.join().unwrap()).sum(), Ordering::Relaxed);
        let outcome = site.outcome();
        assert_eq!(outcome.exit_code(), 0, "{outcome:?}");
        assert!(outcome.took() < GRACE, "{outcome:?}");
    });
    // What completes its handshake between the last accept and the close is reset by the kernel.
    let lost = lost.into_inner();
    assert!(lost <= 1, "{lost} connections were accepted and not answered");
}
