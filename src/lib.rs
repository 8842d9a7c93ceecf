//! One out, all out: an HTTP/1.1 server, and the group that it runs in, whose whole point is how they start and how
//! they stop.
//!
//! Members run side by side on threads of their own: [servers](Server), a [signal listener](signals), jobs of yours.
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
//!     while !stop.wait_timeout(Duration::from_millis(20)) { break } // one round is enough here
//!     Ok(())
//! });
//! let outcome = group.run(Duration::from_secs(3)); // ends, since the job is done
//! assert_eq!(outcome.exit_code(), 0);
//! # Ok(())
//! # }
//! ```
//!
//! # Streaming
//!
//! A body need not be held in memory: a handler can read the request's as it arrives and write the response's as it is
//! made.
//!
//! ```
//! use std::io::{self, Write};
//! use allout::{Method, Response, Router};
//!
//! let router = Router::new()
//!     .stream(Method::Post, "/count", |_, body| {
//!         match io::copy(body, &mut io::sink()) {
//!             Ok(bytes) => Response::text(format!("{bytes}\n")),
//!             Err(_) => Response::text(""), // not sent: the body's own fault is answered, 400 or 408
//!         }
//!     })
//!     .get("/ticks", |_| {
//!         Response::stream("text/plain", |out| {
//!             for n in 0..10 {
//!                 writeln!(out, "{n}")?;
//!                 out.flush()?; // sent now; otherwise in chunks of 16 KiB
//!                 std::thread::sleep(std::time::Duration::from_millis(100));
//!             }
//!             Ok(())
//!         })
//!     });
//! ```
//!
//! # In a test
//!
//! [`answer()`] lets a handler, a router or a wrapper answer without a socket: the bytes of a request in, its
//! [`Response`] out. A server in a test is bound to `127.0.0.1:0`, and says which [port](Server::port) it has got.
//!
//! # Features
//!
//! | feature | by default | what for | without it |
//! |---|---|---|---|
//! | `signals` | yes | [`signals`]: Ctrl-C, SIGTERM and SIGHUP stop a group; brings `ctrlc` | no dependency at all |
//! | `sys` | yes | what std lacks, on Linux `epoll`; the one file with `unsafe` | `forbid(unsafe_code)` |
//!
//! # In scope, and not
//!
//! An origin server of HTTP/1.1 (RFC 9110 and 9112) over TCP and Unix sockets, for what runs behind a proxy or on a
//! closed network. Handlers are plain blocking functions, and one that blocks stalls nobody else. Not in scope: TLS,
//! HTTP/2, WebSocket, static files, a client. There is no `async`, and no dependency but `ctrlc` for the feature
//! `signals`; without default features there is none at all, and no `unsafe`.
//!
//! # Two walks
//!
//! **A request.** An event loop accepts its connection from a `listener` and enters it in its table
//! (`server/event_loop/accept.rs`). When its bytes come, the loop lays the `connection` on its thread's `buffer` and
//! reads (`server/event_loop/visit.rs`). `http/incoming.rs` understands the bytes: head, target, framing, body. Once
//! a request is whole, the thread lets go of the loop and calls the [`Handler`] (`server/handoff/`), a [`Router`] as a
//! rule, with the [`Request`]. The [`Response`] is encoded behind others of its batch (`server/outgoing.rs`), and one
//! write sends them. A body that is too large to be held is read or written by the handler's thread itself
//! (`server/streaming/`).
//!
//! **A stop.** A [`Cause`] triggers the [`Stop`]: first come, first kept. Wakers end the wait of every event loop. Each
//! drains (`server/event_loop/drain.rs`): listeners let nobody new in, and are closed once nobody can follow
//! (`server/listener.rs`), answers say `Connection: close`, quiet connections are closed. Loops that are empty end; at
//! the deadline all do, and say what they had to cut off. The [`Group`] joins the members' threads and returns the
//! [`Outcome`], which `main` can return as the process's exit code.
//!
//! # The house
//!
//! | room | what for | names |
//! |---|---|---|
//! | `stop`, `group` | members, and how they end together | `helpers`, `panics` |
//! | `helpers` | threads for what may block | `panics` |
//! | `panics` | the embedder's panics, caught | nothing else here |
//! | `signals` | the only room that names `ctrlc` | `stop`, `group`, `server`, `panics` |
//! | `http` | the protocol, without sockets, threads or clocks | `panics` |
//! | `router` | method and path to handler | `http` |
//! | `answer` | a handler's answer without a socket, for tests | `http`, `server` |
//! | `server` | sockets, event loops, the hand-off | `http`, `stop`, `group`, `helpers`, `panics` |
//! | `main`, `command`, `options`, `log`, `notify`, `check` | the binary | this crate's public face |

#![cfg_attr(not(feature = "sys"), forbid(unsafe_code))]
#![cfg_attr(all(doctest, feature = "signals"), doc = include_str!("../README.md"))]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))] // A test says what it expects by panicking.

mod answer;
#[cfg(all(doc, not(doctest)))]
pub mod cookbook;
mod group;
mod helpers;
mod http;
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
    Address, AddressError, BindError, Config, Inherited, Liveness, LocalAddress, Notice, Server, Stats, ToAddresses,
    Want, remove_socket_files,
};
pub use stop::{Cause, GRACE, Stop};
