//! Panics without end: in handlers, in closures that come with answers, in whoever listens to notices, in destructors.
//!
//! Beside them neighbours ask on connections that must last from the first panic to the last. Memory is looked at after
//! each tenth: what a panic leaves behind, be it a byte, is a megabyte after a million.

use std::io::Write;
use std::panic::panic_any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use allout::{BodyPlan, Cause, Config, Group, Handler, Method, Request, Response, Router, Server};
use fastrand::Rng;

use crate::Result;
use crate::base::{Base, resident_kb};
use crate::client::{Client, HANG, Place};

const CLIENTS: usize = 6;
const NEIGHBOURS: usize = 4;
/// Pages of the allocator and of stacks come and go: four bytes for each panic of a long run's nine tenths would be
/// thrice this.
const GROWTH_KB_MAX: u64 = 1024;

static PANICS: AtomicU64 = AtomicU64::new(0);
static NOTICES: AtomicU64 = AtomicU64::new(0);

/// Panics when it is dropped, with another as long as there are rounds left.
struct Grenade(u8);

impl Drop for Grenade {
    fn drop(&mut self) {
        match self.0 {
            0 => {}
            1 => panic!("dropped, and it held {} bytes", "text".len()),
            rounds => panic_any(Self(rounds - 1)),
        }
    }
}

/// One that panics, and whoever it is in panics when it is dropped.
fn grenade() -> Grenade {
    Grenade(2)
}

/// How a panic is asked for: the request, and what is due.
struct Way {
    method: &'static str,
    path: &'static str,
    due: Due,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Due {
    /// 200, and the connection stays.
    Fine,
    /// 500, and the connection closes.
    Error,
    /// 200, but the body breaks off.
    Torn,
    /// The client does not wait for it.
    Nothing,
}

const fn way(method: &'static str, path: &'static str, due: Due) -> Way {
    Way { method, path, due }
}

const WAYS: [Way; 14] = [
    way("GET", "/text", Due::Error),
    way("GET", "/string", Due::Error),
    way("GET", "/grenade", Due::Error),
    way("GET", "/holding", Due::Error),
    way("GET", "/at-once", Due::Error),
    way("POST", "/streams", Due::Error),
    way("GET", "/after", Due::Fine),
    way("GET", "/after-dropped", Due::Fine),
    way("GET", "/several", Due::Fine),
    way("HEAD", "/uncalled", Due::Fine),
    way("GET", "/early", Due::Error),
    way("GET", "/late", Due::Torn),
    way("GET", "/after-stream", Due::Fine),
    way("GET", "/gone", Due::Nothing),
];

/// A handler that panics when it is asked about a request; or when it is called, as it is if a handler may be.
struct Asked;

impl Handler for Asked {
    fn handle(&self, _: &Request<'_>) -> Response {
        panic_any(grenade())
    }

    fn is_at_once(&self, request: &Request<'_>) -> bool {
        if request.method() == Method::Get { panic!("is it at once?") } else { false }
    }

    fn body_plan(&self, _: &Request<'_>) -> BodyPlan {
        panic_any(grenade())
    }
}

fn routes() -> Router {
    Router::new()
        .at_once(Method::Get, "/ping", |_| Response::text("pong"))
        .get("/sleep", |_| {
            thread::sleep(Duration::from_millis(2));
            Response::text("slept")
        })
        .get("/text", |_| -> Response { panic!("text") })
        .get("/string", |request| -> Response { panic!("asked for {}", request.raw_path()) })
        .get("/grenade", |_| -> Response { panic_any(grenade()) })
        .get("/holding", |_| -> Response {
            let (first, second) = (grenade(), grenade());
            let response = Response::stream("text/plain", move |_| {
                drop(first);
                Ok(())
            });
            let _response = response.on_sent(move || drop(second));
            panic!("with a response that panics when it is dropped")
        })
        .route(Method::Get, "/at-once", Asked)
        .route(Method::Post, "/streams", Asked)
        .get("/after", |_| Response::text("fine").on_sent(|| panic!("after the answer")))
        .get("/after-dropped", |_| {
            let grenade = grenade();
            Response::text("fine").on_sent(move || drop(grenade))
        })
        .get("/several", |_| {
            let (first, last) = (grenade(), grenade());
            Response::text("fine")
                .on_sent(move || panic_any(first))
                .on_sent(|| {})
                .on_sent(|| panic!("in between"))
                .on_sent(move || drop(last))
        })
        .get("/uncalled", |_| {
            let grenade = grenade();
            Response::stream("text/plain", move |_| {
                drop(grenade);
                Ok(())
            })
        })
        .get("/early", |_| Response::stream("text/plain", |_| panic!("before anything is sent")))
        .get("/late", |_| {
            let grenade = grenade();
            Response::stream("text/plain", move |out| {
                out.write_all(b"some of it\n")?;
                out.flush()?;
                panic_any(grenade)
            })
        })
        .get("/after-stream", |_| {
            Response::stream("text/plain", |out| out.write_all(b"fine")).on_sent(|| panic!("after the stream"))
        })
        .get("/gone", |_| {
            let (first, second) = (grenade(), grenade());
            let response = Response::stream("text/plain", move |out| {
                let written = out.write_all(&[b'x'; 100_000]);
                panic_any((first, written.is_ok()))
            });
            response.on_sent(move || drop(second))
        })
}

pub(crate) fn run(count: u64) -> Result<()> {
    std::panic::set_hook(Box::new(|panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        if thread::current().name().is_some_and(|name| matches!(name, "client" | "main")) {
            eprintln!("{panic}");
        }
    }));
    println!("{count} panics");
    let before = Base::now();
    let folder = std::env::temp_dir().join(format!("allout-soak-panics-{}.sock", std::process::id()));
    let addresses = ["127.0.0.1:0".to_owned(), format!("unix:{}", folder.display())];
    let config = Config { loops: 2, handlers_max: 16, queue_timeout: HANG, ..Config::default() };
    let server = Server::bind(&addresses, config)?.on_notice(|_| {
        // Whoever hears of a panic panics too, now and then.
        match NOTICES.fetch_add(1, Ordering::Relaxed) % 4 {
            0 => panic!("heard"),
            1 => panic_any(grenade()),
            _ => {}
        }
    });
    let places: Vec<Place> = server.addresses().map(|bound| bound.to_string().parse()).collect::<Result<_, _>>()?;
    let mut group = Group::new();
    let stop = group.stop();
    let stats = server.stats();
    group.add("http", move |stop| server.run(routes(), stop));
    let running = thread::Builder::new().name("group".to_owned()).spawn(move || group.run(Duration::from_secs(20)))?;

    let over = Arc::new(AtomicBool::new(false));
    let client = |number: usize, work: fn(&Place, u64, &AtomicBool) -> Result<u64>| {
        let (place, over) = (places[number % places.len()].clone(), Arc::clone(&over));
        let work = move || work(&place, number as u64, &over).map_err(|error| error.to_string());
        thread::Builder::new().name("client".to_owned()).spawn(work)
    };
    let clients: Vec<_> = (0..CLIENTS).map(|number| client(number, ask)).collect::<Result<_, _>>()?;
    let neighbours: Vec<_> = (0..NEIGHBOURS).map(|number| client(number, neighbour)).collect::<Result<_, _>>()?;

    let began = Instant::now();
    let (mut first, mut last) = ((0, 0), (0, 0));
    for tenth in 1..=10 {
        while PANICS.load(Ordering::Relaxed) < count * tenth / 10 {
            if clients.iter().chain(&neighbours).any(thread::JoinHandle::is_finished) || running.is_finished() {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        last = (resident_kb(), Base::now().threads);
        first = if tenth == 1 { last } else { first };
        let panics = PANICS.load(Ordering::Relaxed);
        println!("{panics:>9} panics: {} kB resident, {} threads, {:.0?}", last.0, last.1, began.elapsed());
    }
    over.store(true, Ordering::Relaxed);
    let join = |clients: Vec<thread::JoinHandle<Result<u64, String>>>| -> Result<u64> {
        clients.into_iter().try_fold(0, |sum, client| Ok(sum + client.join().map_err(|_| "a client panicked")??))
    };
    let (asked, answered) = (join(clients)?, join(neighbours)?);
    stop.trigger(Cause::Request("the soak".to_owned()));
    let outcome = running.join().map_err(|_| "the group panicked")?;
    let notices = NOTICES.load(Ordering::Relaxed);
    println!("{asked} requests that panic, {notices} notices, {answered} answers to neighbours; {outcome:?}");
    if outcome.exit_code() != 0 || stats.cut_off() > 0 {
        return Err("it did not end well".into());
    }
    before.is_reached()?;
    // Threads of handlers come and go with the load; one that is lost each time would be thousands.
    if last.1 > first.1 + 16 {
        return Err(format!("{} threads at first, and {} at last", first.1, last.1).into());
    }
    let growth = last.0.saturating_sub(first.0);
    if growth > GROWTH_KB_MAX {
        return Err(format!("memory has grown by {growth} kB").into());
    }
    Ok(())
}

/// Asks for panics of all kinds. Returns how many requests it has sent.
fn ask(place: &Place, number: u64, over: &AtomicBool) -> Result<u64> {
    let mut rng = Rng::with_seed(number);
    let mut asked = 0;
    while !over.load(Ordering::Relaxed) {
        let mut client = Client::connect(place)?;
        let mut stands = true;
        while stands && !over.load(Ordering::Relaxed) {
            // A batch ends with the first that closes.
            let mut batch: Vec<&Way> = Vec::new();
            while batch.len() < 8 && batch.last().is_none_or(|way| way.due == Due::Fine) {
                batch.push(&WAYS[rng.usize(..WAYS.len())]);
            }
            asked += batch.len() as u64;
            stands = one(&mut client, &batch)?;
        }
    }
    Ok(asked)
}

/// Sends a batch and reads what is due. Returns true if the connection stands.
fn one(client: &mut Client, batch: &[&Way]) -> Result<bool> {
    let request = |way: &&Way| {
        let body = if way.method == "POST" { "Content-Length: 4\r\n\r\nbody" } else { "\r\n" };
        format!("{} {} HTTP/1.1\r\nHost: soak\r\n{body}", way.method, way.path)
    };
    client.send(batch.iter().map(request).collect::<String>().as_bytes()).1?;
    for way in batch {
        if way.due == Due::Nothing {
            return Ok(false);
        }
        let is_whole = match client.answer(way.method == "HEAD") {
            Ok(answer) => {
                let due = if way.due == Due::Error { 500 } else { 200 };
                if answer.status != due || answer.is_last != (way.due == Due::Error) {
                    return Err(format!("{} {} is answered {}", way.method, way.path, answer.status).into());
                }
                true
            }
            Err(error) if way.due == Due::Torn && error.kind() == std::io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(format!("{} {}: {error}", way.method, way.path).into()),
        };
        if is_whole && way.due == Due::Torn {
            return Err(format!("{} is answered whole", way.path).into());
        }
        if way.due != Due::Fine {
            let rest = client.rest()?;
            return if rest == 0 || !is_whole { Ok(false) } else { Err(format!("{rest} bytes more").into()) };
        }
    }
    Ok(true)
}

/// Asks for what does not panic, on one connection from the beginning to the end. Returns how many answers it had.
fn neighbour(place: &Place, number: u64, over: &AtomicBool) -> Result<u64> {
    let mut client = Client::connect(place)?;
    let mut answers = 0;
    while !over.load(Ordering::Relaxed) {
        let path = if (answers + number) % 2 == 0 { "/ping" } else { "/sleep" };
        client.send(format!("GET {path} HTTP/1.1\r\nHost: soak\r\n\r\n").as_bytes()).1?;
        let answer = client.answer(false).map_err(|error| format!("a neighbour lost its connection: {error}"))?;
        if answer.status != 200 || answer.is_last {
            return Err(format!("a neighbour is answered {}", answer.status).into());
        }
        answers += 1;
    }
    Ok(answers)
}
