//! A request allocates nothing: not when it is read, parsed and routed, not when it is answered and its clock set anew.
//!
//! A crate of its own, since the allocator that counts is the whole process's, and the only test in it, since others
//! would be counted too.

#![allow(unsafe_code)] // An allocator cannot be had without; each block says why it is sound.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test says what it expects by panicking.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use allout::{Cause, Config, Group, LocalAddress, Response, Router, Server};

/// The system's allocator, and how often it was asked for memory.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is handed to `System` as it came, so that its promises hold; counting touches nothing but a number.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller has promised to us what `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above; and the memory is `System`'s, since all of ours is.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, bytes) }
    }
}

/// Only a hang takes this long.
const HANG: Duration = Duration::from_secs(30);
const BATCHES: usize = 50;
/// A round can be disturbed: a handler whose thread the system holds up is handed off, which does allocate. What is
/// allocated for each request would show in every round.
const ROUNDS: usize = 200;

const PING: &[u8] = b"GET /ping HTTP/1.1\r\nHost: test\r\nUser-Agent: test/1.0\r\nAccept: */*\r\n\r\n";
const BOX: &[u8] = b"GET /box HTTP/1.1\r\nHost: test\r\n\r\n";

#[test]
fn a_keep_alive_ping_allocates_nothing() {
    let server = Server::bind("127.0.0.1:0", Config::default()).unwrap();
    let Some(LocalAddress::Tcp(address)) = server.addresses().next().cloned() else { panic!("no TCP address") };
    let router = Router::new()
        .get("/users/{id}/posts", |_| Response::text("posts"))
        .get("/ping", |_| Response::text("pong"))
        .get("/box", |_| Response::text(String::from("pong")));
    let mut group = Group::new();
    let stop = group.stop();
    group.add("http", move |stop| server.run(router, stop));
    let group = thread::spawn(move || group.run(HANG));

    let mut client = TcpStream::connect(address).unwrap();
    client.set_nodelay(true).unwrap();
    client.set_read_timeout(Some(HANG)).unwrap();
    for (what, request, pipelined, expected) in
        [("a ping", PING, 1, 0), ("16 pipelined pings", PING, 16, 0), ("a handler that allocates", BOX, 1, BATCHES)]
    {
        let batch = request.repeat(pipelined);
        // Buffers grow to what they need once.
        let _ = allocations(&mut client, &batch, pipelined);
        let least = (0..ROUNDS).map(|_| allocations(&mut client, &batch, pipelined)).find(|count| *count <= expected);
        assert_eq!(least, Some(expected), "{what}: no round of {BATCHES} came by with so many allocations");
    }
    stop.trigger(Cause::Request("test".to_owned()));
    assert_eq!(group.join().unwrap().exit_code(), 0);
}

/// How often memory was asked for while the same bytes were sent and answered again and again. The client's own part
/// asks for none.
fn allocations(client: &mut TcpStream, batch: &[u8], answers: usize) -> usize {
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    let mut bytes = [0; 16 * 1024];
    for _ in 0..BATCHES {
        client.write_all(batch).unwrap();
        let mut filled = 0;
        while bytes[..filled].windows(4).filter(|text| text == b"pong").count() < answers {
            let count = client.read(&mut bytes[filled..]).unwrap();
            assert!(count > 0, "the server has closed the connection");
            filled += count;
        }
    }
    ALLOCATIONS.load(Ordering::SeqCst) - before
}
