//! The whole server in a simulated world. Everything that is chance comes from one seed, and the same seed gives the
//! same world again, step by step.
//!
//! ```text
//! cargo run --release --manifest-path tests/sim/Cargo.toml -- --seeds 1000
//! cargo run --release --manifest-path tests/sim/Cargo.toml -- --seed 42 [--faults none|all|short,resets,…] [--clients 3]
//! ```
//!
//! # What is real
//!
//! `build.rs` takes in the crate's own files by their paths, unchanged: `group`, `stop`, `signals`, `helpers`, `panics`,
//! `http`, `router`, and all of `server`, its poller `sweep` too. Stand-ins take the place of what touches sockets
//! (`stream`, `listener`, `poller`, `bind`, `sock_diag`), of `sync`, the seam to threads, locks and time, and of the
//! package `ctrlc`.
//!
//! # How it works
//!
//! - *Threads* ([`world`]): each simulated thread has a stack of its own, and all of them run on one thread of the
//!   system, one at a time. Every operation of the seam is a step, at which the thread may be preempted; dice choose who
//!   runs next. A switch takes some 50 ns, so that a seed takes a few milliseconds.
//! - *Time* is virtual: each step takes a little of it. When no thread can run, the clock jumps to the next thing that
//!   is to happen. If nothing is to happen, and threads are left, that is a deadlock.
//! - *The network* ([`net`]): connections are pipes with a length, windows and buffers; with FIN, reset, half-close; an
//!   accept queue, handshakes under way, descriptors that run out; readiness as `epoll` reports it.
//! - *Clients* ([`client`]) are no threads: they move when something happens to them. Each has a script, knows the
//!   answer that it is owed, byte for byte, and checks it.
//! - *The site* ([`site`]): a group with a server, jobs and signals, its handlers, and a cause that stops it.
//! - *Torture* ([`torture`]) is another kind of world: one call fails.
//! - *A plan* ([`plan`]) says what a seed's world is made of: how many of what, how long each takes, which faults. It is
//!   drawn before the world begins, so that a failing seed can be shrunk: the same seed with fewer faults and clients.
//!
//! # What must hold
//!
//! Every request that was received whole is answered once, in order, byte for byte, or was counted as cut off at the
//! deadline. No handler is called twice for one request; what is to be called after an answer is called once. Nothing
//! deadlocks or goes on without end; no loop looks for ever in vain. The group ends within 100 ms of its deadline, time
//! aside for which the process stood still. The exit code and the report say what happened. In the end no descriptor is
//! open and no thread is left. And where faults end before the stop, a client that comes a while later is served.
//! Whenever all threads wait ([`rest`]), nobody waits for the process: no connection lies in a queue, and no request
//! whose handler could be called.
//!
//! # Does it see?
//!
//! `faults/` has faults that the server once had, or could have, as patches. `put-back` puts each back into a copy of
//! `src`, and runs the simulation until it finds it. It does not find those in `faults/unseen` within some thousand
//! seeds: a client, a fault or a rule is missing here.
//!
//! # What it does not show
//!
//! Memory is sequentially consistent here. What lies below the stand-ins is not run: system calls, `sys`, `epoll`'s
//! own file.

mod answer;
mod client;
mod dice;
mod net;
mod plan;
mod rest;
mod site;
mod sync;
pub mod torture;
mod world;

include!(concat!(env!("OUT_DIR"), "/taken.rs"));

use std::collections::BTreeMap;

/// What may be said of a seed from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub seed: u64,
    /// Which faults may be.
    pub faults: u32,
    pub clients_max: usize,
}

/// What came of one seed.
#[derive(Debug)]
pub struct Result {
    pub broken: Vec<String>,
    pub trace: Vec<String>,
    pub plan: String,
    /// Which faults there were, and how many clients.
    pub faults: u32,
    pub clients: usize,
    pub requests: u64,
    pub answered: u64,
    pub steps: u64,
    /// The world was left in the middle: what is static has not seen its end.
    pub is_left: bool,
    pub seconds: f64,
    pub tally: BTreeMap<&'static str, u64>,
}

/// Runs one world.
pub fn run(choice: Choice, is_traced: bool) -> Result {
    let plan = plan::Plan::of(choice.seed, choice.faults, choice.clients_max);
    let text = format!("{plan:?} [{}]", plan.fault_names().join(","));
    let (faults, clients) = (plan.faults, plan.clients);
    let world = world::run(plan, None, is_traced, site::main);
    Result {
        broken: world.broken,
        trace: world.trace.unwrap_or_default(),
        plan: text,
        faults,
        clients,
        requests: world.diary.requests,
        answered: world.diary.answered,
        steps: world.steps,
        is_left: world.is_left,
        seconds: world.now as f64 / 1e9,
        tally: world.tally,
    }
}

/// The faults of these names.
///
/// # Errors
///
/// There is none of that name.
pub fn faults_of(text: &str) -> std::result::Result<u32, String> {
    plan::faults_of(text)
}

pub fn names_of(faults: u32) -> String {
    let names: Vec<_> = plan::FAULTS
        .iter()
        .filter(|(fault, _, _)| faults & 1 << *fault as u32 != 0)
        .map(|(_, name, _)| *name)
        .collect();
    if names.is_empty() { "none".to_owned() } else { names.join(",") }
}
