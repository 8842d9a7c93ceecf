//! Hostile bytes for the parser and for whole connections, and the same bytes for other servers' parsers.
//!
//! From the root of the repository, with `cargo install cargo-fuzz` and this very compiler, which needs to be told
//! that it may be asked for coverage:
//!
//! ```text
//! export RUSTC_BOOTSTRAP=1
//! cargo fuzz run --fuzz-dir tests/fuzz head -- -max_len=2048
//!
//! # For many executions: from the seeds and the dictionary on, and without the address sanitizer, which finds nothing
//! # in safe code. `.ci/run` does the same for each target, but shorter.
//! mkdir -p tests/fuzz/corpus/head
//! cargo fuzz run --fuzz-dir tests/fuzz -s none --no-trace-compares \
//!     head tests/fuzz/corpus/head tests/fuzz/seeds/requests \
//!     -- -max_len=2048 -dict=tests/fuzz/http.dict -print_final_stats=1 -max_total_time=60
//!
//! # All seeds, at every cut, without a fuzzer:
//! cargo test --release --manifest-path tests/fuzz/Cargo.toml
//! ```
//!
//! | target | seeds | what must hold |
//! |---|---|---|
//! | [`head`] | `requests` | every cut of the bytes gives the same requests and the same reject, in linear time |
//! | [`chunked`] | `chunked` | the same for a chunked body; a decoder written for clarity agrees; limits hold |
//! | [`connection`] | `requests` | every cut gives the same answers, well-formed, one for each request |
//! | [`differential`] | `requests` | `httparse` reads what we accept as we do |
//! | [`hyper`] | `requests` | a `hyper` server gives its service what we give our handler |
//!
//! An input is nothing but the bytes that a client sends. Everything else, where they are cut above all, is drawn from
//! a hash of them ([`dice`]): so the seeds can be read, each is good for every target, and a failure is told by its
//! input alone.
//!
//! # The seam
//!
//! The crate's own files are taken in by path, as in `tests/model`, since what is tested is no part of its public
//! face. `http` is used as [`reader`] has it, which names four of its items: a request as it arrives, its limits, its
//! progress, its reject. `server` is put together anew from its rooms, with stand-ins for the three that hold sockets
//! (see [`server`]). A room or an item that changes its name is renamed in these two places.

pub mod chunked;
pub mod connection;
pub mod dice;
pub mod differential;
pub mod head;
pub mod hyper;
mod reader;
#[cfg(test)]
mod replay;
mod responses;

// ---- The crate's own -----------------------------------------------------------------------------------------------

#[path = "../../../src/group.rs"]
mod group;
#[path = "../../../src/helpers.rs"]
mod helpers;
#[path = "../../../src/http/mod.rs"]
mod http;
#[path = "../../../src/outcome.rs"]
mod outcome;
#[path = "../../../src/panics.rs"]
mod panics;
mod server;
#[path = "../../../src/stop.rs"]
mod stop;
#[path = "../../../src/sync.rs"]
mod sync;
