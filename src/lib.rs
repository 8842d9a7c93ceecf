//! One out, all out: an HTTP/1.1 server, and the group that it runs in, whose whole point is how they start and how
//! they stop.
//!
//! # Quick start
//!
//! Members run side by side on threads of their own: [servers](Server), a [signal listener][signals], jobs of yours.
//! When any one of them exits, because it failed, panicked, was asked to or is simply done, all others are told to
//! stop; every request that a client has sent is answered; threads are joined before a deadline; and the [`Outcome`]
//! says what came first.
//!
//! ```
//! use std::time::Duration;
//! use allout::{Config, Group, Response, Router, Server};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut group = Group::new();
//! # #[cfg(feature = "signals")]
//! let signals = allout::signals::install(&group.stop())?;
//! let server = Server::bind("127.0.0.1:0", Config::default())?;
//! let router = Router::new().get("/ping", |_| Response::text("pong"));
//!
//! group.add("http", move |stop| server.run(router, stop));
//! # #[cfg(feature = "signals")]
//! group.add("signals", move |stop| signals.run(stop));
//! group.add("job", |stop| {
//!     while !stop.wait_timeout(Duration::from_millis(20)) {
//!         break; // one round is enough here
//!     }
//!     Ok(())
//! });
//! let outcome = group.run(Duration::from_secs(3)); // ends, since the job is done
//! assert_eq!(outcome.exit_code(), 0);
//! # Ok(())
//! # }
//! ```
//!
//! A handler is a plain function from a [`Request`] to whatever is `Into<Response>`; it may block. [`Router`] finds it,
//! [`around`] wraps it, and in a unit test [`answer()`] calls it: the bytes of a request in, its [`Response`] out, no
//! socket. A server in a test is bound to `127.0.0.1:0`, and says which [port](Server::port) it has got.
//!
//! # Cookbook
//!
//! Each page is a program that is compiled and run by the tests: copy it whole, take away what you do not need.
//!
//! - [How do I start?](cookbook::hello)
//! - [How do I serve on two ports, with a job beside them?](cookbook::two_ports)
//! - [How do I put a server into a program that has its own signals and its own end?](cookbook::existing_program)
//! - [How do I do something with every request: ids, authentication, CORS, a page for panics?](cookbook::wrap)
//! - [How do I write an access log: Common Log Format, or JSON?](cookbook::access_log)
//! - [How do I know the client's address behind a proxy?](cookbook::client_address)
//! - [How do I receive a file of any size?](cookbook::upload)
//! - [How do I send a file, with its length, ranges and conditions?](cookbook::download)
//! - [How do I send events as they happen, and stop in time?](cookbook::server_sent_events)
//! - [How do I run a worker that may finish before the others?](cookbook::worker)
//! - [How do I run a member that may fail, and tries again?](cookbook::retry)
//! - [How do I close the database after everything else?](cookbook::database_last)
//! - [How do I end when nobody has asked for a while?](cookbook::idle)
//!
//! With other crates:
//!
//! - [How do I serve JSON, from SQLite?](cookbook::json_sqlite)
//! - [How do I read HTML forms, and set cookies?](cookbook::forms_and_cookies)
//! - [How do I handle signals of my own, with `signal-hook`?](cookbook::with_signal_hook)
//! - [How do I log with `tracing`, a span for each request?](cookbook::with_tracing)
//!
//! How it compares with `tiny_http`, `axum` and Go, with code for the same task: [comparison].
//!
//! # How it stops
//!
//! 1. The first [`Cause`] is kept: a signal, a request, a listener that fails, a member that returns, fails or panics.
//! 2. With a [lame-duck time](Group::lame_duck), everything goes on for that long. A readiness route that looks at
//!    [`Stop::cause`] says 503 meanwhile.
//! 3. No new connection begins. Those under way complete, the accept queue is emptied, the listeners are closed.
//! 4. Running handlers finish, bodies may arrive, pipelined requests are answered in order; the last answer says
//!    `Connection: close`. A quiet connection is closed after [`Config::idle_grace`].
//! 5. At the deadline whatever is left is cut off and named. Threads are joined, and the process says what came first.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | a signal, a request or a member's `Ok`; all were out in time, and none failed on the way out |
//! | 1 | a member failed, first or while leaving |
//! | 101 | a member panicked, first or while leaving |
//! | 124 | none of these, but at the deadline an owed answer was cut off, or a handler or member still ran |
//! | 130 | a second signal, of any of the three, more than 500 ms after the first |
//!
//! A supervisor must wait for the lame-duck time, the grace period and 0.2 s before it kills. Only 0 is a success.
//!
//! What has no end of its own must look at the [`Stop`]: members between two pieces of work, and
//! [streams](cookbook::server_sent_events). One that does holds nobody up; one that does not keeps the process until
//! the deadline, with code 124.
//!
//! # Limits
//!
//! Everything that could grow is bounded: heads, bodies, connections, handlers at once, and the time that each of these
//! may take. Each limit is a field of [`Config`], with its default, its reason and what the client is answered. Above
//! them stand [`Config::handlers_max`], since each stream holds one handler while it lasts, and
//! [`Config::bodies_bytes_max`], since bodies are held in memory unless a route [streams](Router::stream) them or has a
//! [limit of its own](Router::hold). What must be heard when all handlers are busy is a route
//! [`at_once`](Router::at_once).
//!
//! # Features
//!
//! Both are on by default:
//!
//! | feature | what for | without it |
//! |---|---|---|
//! | `signals` | [`signals`]: Ctrl-C, SIGTERM and SIGHUP stop a group; brings `ctrlc` | no dependency at all |
//! | `sys` | what std lacks, on Linux `epoll`; the one file with `unsafe` | no `unsafe`, forbidden by the compiler |
//!
//! In scope is an origin server of HTTP/1.1 (RFC 9110 and 9112) over TCP and Unix sockets, for what runs behind a proxy
//! or on a closed network. Not in scope: TLS, HTTP/2, WebSocket, static files, `async`, a client. Without default
//! features there is no dependency, and no `unsafe`.
//!
//! # How it works inside
//!
//! **The path of a request.** An event loop accepts its connection from a `listener` and enters it in its table
//! (`server/event_loop/accept.rs`). When its bytes come, the loop loads the `connection` into its thread's `buffer` and
//! reads (`server/event_loop/visit.rs`). `http/incoming.rs` understands the bytes: head, target, framing, body. Once
//! a request is whole, the thread lets go of the loop and calls the [`Handler`] (`server/handoff/`), a [`Router`] as a
//! rule, with the [`Request`]. The [`Response`] is encoded behind others of its batch (`server/outgoing.rs`), and one
//! write sends them. A body that is too large to be held is read or written by the handler's thread itself
//! (`server/streaming/`).
//!
//! **The path of a stop.** A [`Cause`] triggers the [`Stop`]: first come, first kept. Wakers end the wait of every
//! event loop. Each drains (`server/event_loop/drain.rs`): listeners let nobody new in, and are closed once nobody can
//! follow (`server/shared_listener.rs`), answers say `Connection: close`, quiet connections are closed. Loops that are
//! empty end; at the deadline all do, and say what they had to cut off. The [`Group`] joins the members' threads and
//! returns the [`Outcome`], which `main` can return as the process's exit code.
//!
//! **The map.**
//!
//! | module | what for | names |
//! |---|---|---|
//! | `stop`, `group`, `outcome` | members, how they end together, and how they ended | `helpers`, `panics` |
//! | `helpers` | threads for what may block | `panics` |
//! | `panics` | the embedder's panics, caught | nothing else here |
//! | `signals` | the only module that names `ctrlc` | `stop`, `group`, `server`, `panics` |
//! | `http` | the protocol, without sockets, threads or clocks | `panics` |
//! | `router` | method and path to handler | `http` |
//! | `answer` | a handler's answer without a socket, for tests | `http`, `server` |
//! | `server` | sockets, event loops, the hand-off | `http`, `stop`, `group`, `helpers`, `panics` |
//! | `main`, `command`, `options`, `log`, `notify`, `check` | the binary | this crate's public face |
//! | `routes`, `admin`, `status`, `metrics`, `threads` | what the binary shows, and where; its threads | the same |
//!
#![cfg_attr(not(feature = "signals"), doc = "[signals]: https://docs.rs/allout/latest/allout/signals")]
#![cfg_attr(not(feature = "signals"), doc = "[`signals`]: https://docs.rs/allout/latest/allout/signals")]
#![cfg_attr(not(feature = "sys"), forbid(unsafe_code))]
#![cfg_attr(all(doctest, feature = "signals"), doc = include_str!("../README.md"))]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))] // A test says what it expects by panicking.

mod answer;
#[cfg(doc)]
#[cfg(any(not(doctest), feature = "signals"))] // Its code, which is tested, uses them.
#[doc = include_str!("comparison.md")]
pub mod comparison {}
#[cfg(all(doc, not(doctest)))]
pub mod cookbook;
mod group;
mod helpers;
mod http;
mod outcome;
mod panics;
mod router;
mod server;
#[cfg(feature = "signals")]
pub mod signals;
mod stop;
mod sync;

pub use answer::answer;
pub use group::{CutOff, Exit, Group, MemberResult, Outcome};
pub use http::{
    BodyPlan, BodyReader, BodyWriter, Content, FieldError, Handler, Headers, HeadersIter, Method, Next, Peer, Reject,
    Request, Response, Status, StatusError, Version, around,
};
pub use router::Router;
pub use server::{
    Address, AddressError, Answered, BindError, Busy, Config, Connections, Durations, Figures, Inherited, Liveness,
    LocalAddress, Notice, Server, Stats, ToAddresses, Want, Work, remove_socket_files,
};
pub use stop::{Cause, GRACE, Stop};
