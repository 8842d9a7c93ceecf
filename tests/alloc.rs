//! A request allocates nothing: not when it is read, parsed and routed, not when it is answered and its clock set anew.
//! And a server never takes more memory than its configuration says.
//!
//! A crate of its own, since the allocator that counts is the whole process's. Its tests run one after the other, since
//! each would be counted by the others too.

#![allow(unsafe_code)] // An allocator cannot be had without; each block says why it is sound.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test says what it expects by panicking.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use allout::{Cause, Config, Group, LocalAddress, Response, Router, Server};

/// The system's allocator, how often it was asked for memory, how much is in use, and how much has been at once.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// One test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn count(bytes: usize) {
    ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
    let live = LIVE.fetch_add(bytes, Ordering::SeqCst) + bytes;
    PEAK.fetch_max(live, Ordering::SeqCst);
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is handed to `System` as it came, so that its promises hold; counting touches nothing but a number.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller has promised to us what `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::SeqCst);
        // SAFETY: as above; and the memory is `System`'s, since all of ours is.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // The old and the new are there at once.
        count(bytes);
        LIVE.fetch_sub(layout.size(), Ordering::SeqCst);
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
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
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

/// The largest answer of the test's handler, with its head.
const BIG: usize = 64 * 1024;

#[test]
fn a_server_takes_no_more_memory_than_its_configuration_says() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = LIVE.load(Ordering::SeqCst);
    PEAK.store(before, Ordering::SeqCst);
    let config = Config::small();
    let threads = config.handlers_max + 2 * config.loops + 4;
    // Stacks are not the allocator's.
    let most = config.memory_max(BIG) - threads * config.stack_bytes.unwrap();
    let router = Router::new()
        .get("/big", |_| Response::bytes("text/plain", vec![b'x'; BIG - 256]))
        .post("/", |_| Response::text("pong"));
    let server = Server::bind("127.0.0.1:0", config.clone()).unwrap();
    let address = ("127.0.0.1", server.port().unwrap());
    let mut group = Group::new();
    let stop = group.stop();
    group.add("http", move |stop| server.run(router, stop));
    let group = thread::spawn(move || group.run(Duration::ZERO));

    let head = format!("GET /big HTTP/1.1\r\nHost: test\r\nX: {}", "x".repeat(config.head_bytes_max - 100));
    let body = format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", config.body_bytes_max);
    let body = body + &"x".repeat(config.body_bytes_max - 1);
    let stalled = "GET /big HTTP/1.1\r\nHost: test\r\n\r\n".repeat(1000);
    let mut clients = Vec::new();
    for number in 0..config.connections_max {
        let mut client = TcpStream::connect(address).unwrap();
        // Each hostile in its own way. Of those that do not read, one must not keep the test from going on.
        let bytes = [&head, &body, &stalled, &stalled][number % 4];
        client.set_nonblocking(true).unwrap();
        let _ = client.write(bytes.as_bytes());
        clients.push(client);
    }
    // All have been seen: each has something that is kept for it, those that do not read an answer.
    let seen = config.connections_max / 4 * (config.head_bytes_max / 2 + config.body_bytes_max / 2 + BIG);
    let until = std::time::Instant::now() + HANG;
    while LIVE.load(Ordering::SeqCst) < before + seen {
        assert!(std::time::Instant::now() < until, "only {} are in use", LIVE.load(Ordering::SeqCst) - before);
        thread::yield_now();
    }
    stop.trigger(Cause::Request("test".to_owned()));
    let _ = group.join().unwrap();
    let peak = PEAK.load(Ordering::SeqCst) - before;
    assert!(peak <= most, "{peak} bytes, where the formula says {most}");
}
