//! What a simulation is made of: all drawn from its seed, before it begins.

use crate::dice::Dice;
use crate::net::Kind;
use crate::world::{MS, Nanos, SEC, US};

macro_rules! faults {
    ($($fault:ident $name:literal $one_in:literal)*) => {
        /// What may go wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Fault { $($fault),* }

        /// Each with its name, and in how many seeds it is.
        pub(crate) const FAULTS: &[(Fault, &str, u64)] = &[$((Fault::$fault, $name, $one_in)),*];
    };
}

faults! {
    Short "short" 3
    Interrupts "interrupts" 4
    Resets "resets" 3
    Vanish "vanish" 5
    Slow "slow" 3
    Stalls "stalls" 4
    Freezes "freezes" 6
    Accept "accept" 6
    Drought "drought" 8
    Control "control" 10
    Threads "threads" 8
    Panics "panics" 4
    Loss "loss" 4
    Late "late" 4
    Spurious "spurious" 4
    Calendar "calendar" 8
    SlowEnds "slow-ends" 8
    Poller "poller" 40
    Stuck "stuck" 6
    Second "second" 20
}

/// What stops the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Signal,
    Trigger,
    JobIsDone,
    JobFails,
    JobPanics,
    Listener,
    /// A client asks for it.
    Request,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) faults: u32,
    pub(crate) clients: usize,
    pub(crate) loops: usize,
    pub(crate) handlers_max: usize,
    /// In quarters of a usual machine's times.
    pub(crate) slowness: u64,
    /// How often a step is preempted: so many of so many.
    pub(crate) preempted_of_1024: (u64, u64),
    pub(crate) is_uneven: bool,
    pub(crate) is_swept: bool,
    /// How many events a wait takes.
    pub(crate) events_max: usize,
    pub(crate) small_buffers: bool,
    pub(crate) listeners: Vec<Kind>,
    /// The longest way to a client.
    pub(crate) latency_max: Nanos,
    pub(crate) ending: Ending,
    pub(crate) stop_at: Nanos,
    pub(crate) grace: Nanos,
    pub(crate) lame_duck: Nanos,
    pub(crate) idle_grace: Nanos,
    pub(crate) idle_timeout: Nanos,
    pub(crate) head_timeout: Nanos,
    pub(crate) body_timeout: Nanos,
    pub(crate) queue_timeout: Nanos,
    pub(crate) write_timeout: Nanos,
    pub(crate) connections_max: usize,
    /// Handlers sleep for at most so long.
    pub(crate) sleep_max: Nanos,
    /// Faults end then, and a while later all must be well.
    pub(crate) calm_at: Option<Nanos>,
    pub(crate) is_nested: bool,
    /// Somebody asks as fast as he can, until the end.
    pub(crate) is_flooded: bool,
    /// Clients keep step: what they do after a pause, they do at the same time.
    pub(crate) is_in_step: bool,
}

impl Plan {
    /// The plan of a seed; of the faults only those that are allowed, and no more than so many clients.
    pub(crate) fn of(seed: u64, allowed: u32, clients_max: usize) -> Self {
        let mut dice = Dice::new(seed, 0);
        let mut faults = 0;
        for (fault, _, one_in) in FAULTS {
            if dice.one_in(*one_in) {
                faults |= 1 << *fault as u32;
            }
        }
        // One seed in six has none at all.
        if dice.one_in(6) {
            faults = 0;
        }
        faults &= allowed;
        let loops = dice.pick(&[1, 1, 2, 2, 3]);
        let is_swept = dice.one_in(4);
        let plain = if is_swept { Kind::Plain } else { Kind::Filtered };
        let listeners = match dice.below(10) {
            0 => vec![Kind::Unix],
            1 => vec![plain, Kind::Unix],
            2 => vec![Kind::Shared],
            _ => vec![plain],
        };
        let stop_at = match dice.below(4) {
            0 => dice.between(0, 5 * MS),
            1 => dice.between(0, 60 * MS),
            2 => dice.between(0, 600 * MS),
            _ => dice.between(0, 3 * SEC),
        };
        let calm_at = dice.one_in(6).then(|| dice.between(100 * MS, 2 * SEC));
        let grace = dice.pick(&[400 * MS, SEC, 3 * SEC]);
        let ending = dice.pick(&[
            Ending::Signal,
            Ending::Signal,
            Ending::Trigger,
            Ending::JobIsDone,
            Ending::JobFails,
            Ending::JobPanics,
            Ending::Listener,
            Ending::Request,
        ]);
        let has_short_times = dice.one_in(4);
        let time = |dice: &mut Dice, long: Nanos| if has_short_times { dice.between(30 * MS, 900 * MS) } else { long };
        let mut plan = Self {
            seed,
            faults,
            clients: dice.pick(&[1, 2, 3, 5, 8, 12, 20]).min(clients_max),
            loops,
            handlers_max: dice.pick(&[1, 2, 3, 64]),
            slowness: dice.pick(&[1, 4, 4, 16, 60]),
            preempted_of_1024: dice.pick(&[(1, 2), (1, 8), (1, 30), (1, 200)]),
            is_uneven: dice.one_in(3),
            is_swept,
            events_max: dice.pick(&[1, 3, 256, 256]),
            small_buffers: dice.one_in(3),
            listeners,
            latency_max: dice.pick(&[30 * US, 300 * US, 5 * MS, 60 * MS, 150 * MS]),
            ending,
            stop_at: calm_at.map_or(stop_at, |calm_at| calm_at + 8 * SEC),
            grace,
            lame_duck: if dice.one_in(5) { dice.between(MS, 500 * MS) } else { 0 },
            idle_grace: dice.pick(&[20 * MS, 250 * MS, 250 * MS]),
            idle_timeout: time(&mut dice, 75 * SEC),
            head_timeout: time(&mut dice, 5 * SEC),
            body_timeout: time(&mut dice, 30 * SEC),
            queue_timeout: time(&mut dice, 5 * SEC),
            write_timeout: time(&mut dice, 30 * SEC),
            connections_max: if dice.one_in(8) { dice.between(1, 6) as usize } else { 10_000 },
            sleep_max: dice.pick(&[200 * US, 5 * MS, 100 * MS, 900 * MS]),
            calm_at,
            is_nested: dice.one_in(6),
            is_flooded: false,
            is_in_step: false,
        };
        if plan.calm_at.is_some() {
            // What ends the server, or never ends, has no part in getting well.
            for fault in [Fault::Poller, Fault::Stuck, Fault::Second] {
                plan.faults &= !(1 << fault as u32);
            }
            if plan.ending == Ending::Request {
                plan.ending = Ending::Trigger;
            }
            plan.connections_max = 10_000;
        }
        if plan.ending == Ending::Listener && plan.listeners.len() > 1 {
            plan.ending = Ending::Signal;
        }
        // Threads that have nothing to do end after ten seconds.
        if plan.calm_at.is_none() && dice.one_in(if plan.has(Fault::SlowEnds) { 2 } else { 20 }) {
            plan.stop_at += dice.between(9 * SEC, 14 * SEC);
        }
        // On a slow machine with a near client, whom a loop cannot satisfy.
        if plan.calm_at.is_none() && dice.one_in(40) {
            (plan.is_flooded, plan.slowness, plan.latency_max, plan.grace) = (true, 60, 30 * US, 50 * MS);
            plan.clients = plan.clients.min(5);
        }
        plan.is_in_step = dice.one_in(4);
        plan
    }

    /// How many handlers may run at once: one on each loop at least.
    pub(crate) fn permits(&self) -> usize {
        self.handlers_max.max(self.loops)
    }

    /// Without a thread for a helper, the server and the group themselves join threads that end slowly.
    pub(crate) fn may_join(&self) -> bool {
        self.has(Fault::Threads) && self.has(Fault::SlowEnds)
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.faults & 1 << fault as u32 != 0
    }

    pub(crate) fn fault_names(&self) -> Vec<&'static str> {
        FAULTS.iter().filter(|(fault, _, _)| self.has(*fault)).map(|(_, name, _)| *name).collect()
    }
}

/// The faults of these names: `all`, `none`, or a list.
pub(crate) fn faults_of(text: &str) -> Result<u32, String> {
    match text {
        "all" => return Ok(u32::MAX),
        "none" => return Ok(0),
        _ => {}
    }
    text.split(',').try_fold(0, |sum, name| {
        let found = FAULTS.iter().find(|(_, other, _)| *other == name);
        found.map(|(fault, _, _)| sum | 1 << *fault as u32).ok_or_else(|| format!("there is no fault `{name}`"))
    })
}
