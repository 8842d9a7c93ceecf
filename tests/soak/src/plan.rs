//! What happens at one stop, as its seed has it.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use nix::sys::signal::Signal;

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) loops: usize,
    pub(crate) sockets: Sockets,
    pub(crate) threads: usize,
    pub(crate) cause: Cause,
    pub(crate) when: When,
    /// How the job leaves, if the stop is not of its making.
    pub(crate) last_words: LastWords,
    pub(crate) lame_duck: Duration,
    pub(crate) idle_grace: Duration,
    pub(crate) grace: Duration,
    /// A handler runs on behind the deadline.
    pub(crate) is_stuck: bool,
    /// The server is a process of its own.
    pub(crate) is_process: bool,
    pub(crate) clients: usize,
    /// How long the clients are at work before the cause.
    pub(crate) load: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sockets {
    Tcp,
    Unix,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Signal(Signal),
    /// A client asks for it: `/shutdown`, or a handler that stops before it answers.
    Asked(&'static str),
    /// Somebody in the process triggers the stop.
    Triggered,
    Done,
    Failed,
    Panicked,
    /// The listener is broken from outside.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Before the group runs, with clients in the queue.
    Before,
    /// While it starts, after so long.
    During(Duration),
    After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastWords {
    Fine,
    Failed,
    Panicked,
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        // Neighbouring seeds are to have nothing in common.
        let rng = &mut Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed);
        let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].map(Cause::Signal);
        let own = [Cause::Triggered, Cause::Done, Cause::Failed, Cause::Panicked, Cause::Broken];
        let asked = [Cause::Asked("/shutdown"), Cause::Asked("/stop")];
        let when = match rng.u8(..8) {
            0 => When::Before,
            1 => When::During(Duration::from_micros(rng.u64(..1500))),
            _ => When::After,
        };
        let causes = match when {
            When::After => [&signals[..], &own, &asked].concat(),
            When::Before | When::During(_) => [&signals[..], &own].concat(),
        };
        let cause = causes[rng.usize(..causes.len())];
        let sockets = match rng.u8(..3) {
            // Of what is handed over, only TCP can be broken.
            _ if cause == Cause::Broken => Sockets::Tcp,
            0 => Sockets::Tcp,
            1 => Sockets::Unix,
            _ => Sockets::Both,
        };
        let last_words = match rng.u8(..8) {
            0 => LastWords::Failed,
            1 => LastWords::Panicked,
            _ => LastWords::Fine,
        };
        let is_stuck = rng.u8(..10) == 0;
        Self {
            seed,
            loops: rng.usize(1..3),
            sockets,
            threads: [3, 8, 64][rng.usize(..3)],
            cause,
            when,
            last_words,
            lame_duck: if rng.u8(..4) == 0 { Duration::from_millis(rng.u64(1..150)) } else { Duration::ZERO },
            idle_grace: Duration::from_millis(rng.u64(100..300)),
            // Where nobody is stuck, the deadline is nobody's concern, however slow the machine is.
            grace: if is_stuck { Duration::from_millis(500) } else { Duration::from_secs(20) },
            is_stuck,
            is_process: rng.u8(..3) == 0,
            clients: rng.usize(6..28),
            load: Duration::from_millis(if when == When::After { rng.u64(..200) } else { rng.u64(..30) }),
        }
    }

    /// What the process ends with, if something was cut off or nothing was.
    pub(crate) fn code(&self, is_cut_off: bool) -> u8 {
        match (self.cause, self.last_words) {
            (Cause::Failed | Cause::Broken, _) => 1,
            (Cause::Panicked, _) => 101,
            (Cause::Done, _) | (_, LastWords::Fine) => {
                if is_cut_off {
                    124
                } else {
                    0
                }
            }
            (_, LastWords::Failed) => 1,
            (_, LastWords::Panicked) => 101,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}, {} loops, {:?}", self.cause, self.when, self.loops, self.sockets)?;
        write!(f, ", {} handlers, {} clients, the job {:?}", self.threads, self.clients, self.last_words)?;
        write!(f, ", lame duck {:?}, idle grace {:?}", self.lame_duck, self.idle_grace)?;
        f.write_str(if self.is_stuck { ", stuck" } else { "" })?;
        f.write_str(if self.is_process { ", a process" } else { "" })
    }
}
