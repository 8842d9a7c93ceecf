//! The body of an upload at the deadline.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use super::HANG;
use crate::http::{Body, Framing, ReadBody};
use crate::server::config::Config;
use crate::server::counts::Totals;
use crate::server::stream::Stream;
use crate::server::streaming::Arriving;
use crate::sync::{self, Arc};

/// A body of four bytes, and its client.
fn body() -> (TcpStream, Arc<Arriving>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let stream = Stream::Tcp(listener.accept().unwrap().0);
    stream.never_wait().unwrap();
    let (limits, mut decoder) = (Config::default().limits().body, Body::new());
    decoder.start(Framing::Length(4), &limits).unwrap();
    (client, Arc::new(Arriving::of(Arc::new(stream), Arc::new(Totals::new(1)), HANG, (decoder, limits))))
}

#[test]
fn at_the_deadline_a_body_has_come_that_its_handler_has_not_read_to_its_end() {
    let (mut client, body) = body();
    client.write_all(b"bo").unwrap();
    assert_eq!(body.read(&mut [0; 2]).unwrap(), 2);
    assert!(body.leave().0.is_none(), "the rest has yet to come");
    client.write_all(b"dy, and more").unwrap();
    let came = Instant::now();
    while !body.has_come(sync::now()) {
        assert!(came.elapsed() < HANG);
        thread::yield_now();
    }
    assert_eq!(body.behind(sync::now()).unwrap(), b", and more");
}

#[test]
fn at_the_deadline_a_body_has_come_that_its_handler_is_about_to_take() {
    let (mut client, body) = body();
    let handler = thread::spawn({
        let body = Arc::clone(&body);
        move || body.read(&mut [0; 4])
    });
    while !body.is_being_read() {
        thread::yield_now();
    }
    let sender = thread::spawn({
        let body = Arc::clone(&body);
        move || {
            while !body.is_cut_off() {
                thread::yield_now();
            }
            client.write_all(b"body, and more").unwrap();
        }
    });
    assert!(body.has_come(sync::now() + HANG));
    // Nobody knows what it would have done with it: the connection is cut off.
    assert!(handler.join().unwrap().is_err());
    assert_eq!(body.behind(sync::now() + HANG).unwrap(), b", and more");
    body.leave();
    assert_eq!(body.behind(sync::now() + HANG).unwrap(), b", and more");
    sender.join().unwrap();
}
