//! What a process was kept from running: for a bound in time that a busy machine must not break.
//!
//! A thread notes, twenty times a second, how late it is itself, and for how long the server's threads have stood ready
//! and had no core: at most one of them stood between a connection and its deadline, so the longest wait counts.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(crate) struct Delays {
    /// Each with the end of its step.
    noted: Mutex<Vec<(Instant, Duration)>>,
    is_over: AtomicBool,
}

impl Delays {
    /// Notes them until it is told that it is over.
    pub(crate) fn note(&self, pid: u32) {
        let mut before = waits(pid);
        while !self.is_over.load(Ordering::Relaxed) {
            let began = Instant::now();
            thread::sleep(STEP);
            let waits = waits(pid);
            let of_thread =
                |(task, wait): (&u64, &Duration)| wait.saturating_sub(before.get(task).copied().unwrap_or_default());
            let longest = waits.iter().map(of_thread).max().unwrap_or_default();
            let delay = longest + began.elapsed().saturating_sub(STEP);
            self.noted.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), delay));
            before = waits;
        }
    }

    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// All delays of this time, with those of the steps that it begins and ends in.
    pub(crate) fn between(&self, from: Instant, to: Instant) -> Duration {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let first = noted.partition_point(|(end, _)| *end < from);
        noted[first..].iter().take_while(|(end, _)| *end <= to + STEP * 2).map(|(_, delay)| *delay).sum()
    }
}

/// For how long each thread has stood ready without a core, in its life.
fn waits(pid: u32) -> HashMap<u64, Duration> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let wait = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let nanos = text.split(' ').nth(1)?.parse().ok()?;
        Some((task.file_name().to_str()?.parse().ok()?, Duration::from_nanos(nanos)))
    };
    tasks.filter_map(wait).collect()
}
