//! Readiness without the kernel's help: every socket is tried, with a pause when nothing moves.
//!
//! The pause begins at 50 µs and doubles to 5 ms; anything that moves resets it. So a busy server answers within
//! 50 µs, an idle one wakes 200 times a second, and each connection costs one system call a round: fine for tens of
//! them, honest beyond.

use std::time::Duration;

use super::Event;
use crate::sync::{Arc, Condvar, Mutex};

const PAUSE_MIN: Duration = Duration::from_micros(50);
const PAUSE_MAX: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(crate) struct Sweep {
    tokens: Vec<u64>,
    /// How many of the tokens have been reported in this round.
    reported: usize,
    pause: Duration,
    has_progressed: bool,
    wake: SweepWaker,
}

impl Sweep {
    pub(crate) fn new() -> Self {
        let wake = SweepWaker(Arc::new((Mutex::new(false), Condvar::new())));
        Self { tokens: Vec::new(), reported: 0, pause: PAUSE_MIN, has_progressed: false, wake }
    }

    pub(crate) fn waker(&self) -> SweepWaker {
        self.wake.clone()
    }

    pub(crate) fn add(&mut self, token: u64) {
        self.tokens.push(token);
        self.has_progressed = true;
    }

    pub(crate) fn remove(&mut self, token: u64) {
        if let Some(at) = self.tokens.iter().position(|have| *have == token) {
            // The last one takes its place, and may be reported late by a round, or twice.
            self.tokens.swap_remove(at);
        }
    }

    pub(crate) fn progressed(&mut self) {
        self.has_progressed = true;
    }

    pub(crate) fn wait(&mut self, timeout: Option<Duration>) {
        self.reported = 0;
        if std::mem::take(&mut self.has_progressed) {
            self.pause = PAUSE_MIN;
        }
        let pause = timeout.map_or(self.pause, |timeout| timeout.min(self.pause));
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.wake.sleep(pause);
    }

    pub(crate) fn next(&mut self) -> Option<Event> {
        let token = *self.tokens.get(self.reported)?;
        self.reported += 1;
        // Whether there is more than a short read gave is not known, so the loop must read until it would block.
        Some(Event { token, is_hangup: true })
    }
}

#[derive(Clone, Debug)]
pub(crate) struct SweepWaker(Arc<(Mutex<bool>, Condvar)>);

impl SweepWaker {
    pub(crate) fn wake(&self) {
        let (is_awake, changed) = &*self.0;
        *is_awake.lock() = true;
        changed.notify_one();
    }

    fn sleep(&self, pause: Duration) {
        let (is_awake, changed) = &*self.0;
        let guard = is_awake.lock();
        *changed.wait_timeout_while(guard, pause, |is_awake| !*is_awake) = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync;

    #[test]
    fn every_token_is_reported_each_round() {
        let mut sweep = Sweep::new();
        for token in [3, 1, 2] {
            sweep.add(token);
        }
        sweep.remove(3);
        for _ in 0..2 {
            sweep.wait(None);
            let mut tokens: Vec<_> = std::iter::from_fn(|| sweep.next()).map(|event| event.token).collect();
            tokens.sort_unstable();
            assert_eq!(tokens, [1, 2]);
        }
    }

    #[test]
    fn the_pause_grows_until_something_moves() {
        let mut sweep = Sweep::new();
        for _ in 0..12 {
            sweep.wait(None);
        }
        assert_eq!(sweep.pause, PAUSE_MAX);
        sweep.progressed();
        sweep.wait(None);
        assert_eq!(sweep.pause, PAUSE_MIN * 2);
    }

    #[test]
    fn a_wake_is_not_lost_between_waits() {
        let wake = Sweep::new().waker();
        wake.wake();
        let start = sync::now();
        wake.sleep(Duration::from_secs(60));
        assert!(sync::now() - start < Duration::from_secs(30));
    }
}
