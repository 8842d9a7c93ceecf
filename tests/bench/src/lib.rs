//! What the benchmarks share: servers as processes, clients, and figures.
//!
//! Each benchmark is a binary of its own in `src/bin`, measures real processes through real sockets, prints one
//! Markdown table on stdout, and tells on stderr how far it is.

pub mod builds;
pub mod clients;
pub mod figures;
pub mod process;
pub mod wrk;

/// Whatever goes wrong ends the benchmark: a figure of a failed run is none.
pub type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;
