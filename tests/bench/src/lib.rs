//! What the benchmarks share: servers as processes, clients, and figures.
//!
//! Each benchmark is a binary of its own in `src/bin`, measures real processes through real sockets, prints Markdown
//! tables on stdout, and tells on stderr how far it is.
//!
//! | binary | what it measures |
//! |---|---|
//! | `compare` | speed and footprint, beside the peers of `peers/` and the no-parse limit |
//! | `stops` | how long a start and a stop take |
//! | `handoff` | what the hand-off is worth, and what it costs |
//! | `versions` | what a change costs: builds of several commits beside each other |
//! | `busy` | how long a newcomer waits at a busy server |

pub mod builds;
pub mod clients;
pub mod figures;
pub mod footprint;
pub mod plot;
pub mod proc;
pub mod process;
pub mod servers;
pub mod speed;
pub mod workloads;
pub mod wrk;

use std::time::Duration;

/// Only a hang takes this long.
pub const HANG: Duration = Duration::from_secs(30);

/// Whatever goes wrong ends the benchmark: a figure of a failed run is none.
pub type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;
