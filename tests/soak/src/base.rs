//! What this process holds, as Linux tells it in /proc.

use std::fs;
use std::time::{Duration, Instant};

/// Descriptors and threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

impl Base {
    pub(crate) fn now() -> Self {
        let count = |folder| fs::read_dir(folder).map_or(0, Iterator::count);
        // The folder that is read is a descriptor itself, each time.
        Self { descriptors: count("/proc/self/fd"), threads: count("/proc/self/task") }
    }

    /// Waits until no more is held than this: threads that were left behind at a deadline end in their own time.
    pub(crate) fn is_reached(self) -> Result<(), String> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let now = Self::now();
            if now.descriptors <= self.descriptors && now.threads <= self.threads {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("{now:?} is left, and {self:?} was there before"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Memory that is in use, in kB.
pub(crate) fn resident_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
}
