//! What Linux tells of a process and its children, in /proc and by their clocks.

use std::fs;
use std::time::Duration;

use nix::time::ClockId;
use nix::unistd::Pid;

use crate::Result;

/// A process and all its descendants: nginx works in several.
pub fn tree(root: u32) -> Vec<u32> {
    let mut pids = vec![root];
    let mut at = 0;
    while at < pids.len() {
        for task in tasks(pids[at]) {
            let children = fs::read_to_string(format!("{task}/children")).unwrap_or_default();
            pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        at += 1;
    }
    pids
}

/// User and system time, of threads that have ended too, to the nanosecond.
pub fn cpu(root: u32) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for pid in tree(root) {
        total += Duration::from(ClockId::pid_cpu_clock_id(Pid::from_raw(pid.try_into()?))?.now()?);
    }
    Ok(total)
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// What is mapped, pages of the binary and of libraries included.
    pub resident: u64,
    /// The same, but of each page that others have mapped too only the share.
    pub proportional: u64,
    /// What nobody else has.
    pub private: u64,
}

pub fn memory(root: u32) -> Result<Memory> {
    let mut total = Memory::default();
    for pid in tree(root) {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let kilobytes = |name: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0)
        };
        total.resident += kilobytes("Rss:") * 1024;
        total.proportional += kilobytes("Pss:") * 1024;
        total.private += (kilobytes("Private_Clean:") + kilobytes("Private_Dirty:")) * 1024;
    }
    Ok(total)
}

pub fn threads(root: u32) -> usize {
    tree(root).into_iter().map(|pid| tasks(pid).len()).sum()
}

/// How often its threads have been given a core: each is a wake-up, or a turn that was cut short.
pub fn switches(root: u32) -> u64 {
    let of_task = |task: String| -> u64 {
        let status = fs::read_to_string(format!("{task}/status")).unwrap_or_default();
        let lines = status.lines().filter_map(|line| line.split_once("ctxt_switches:"));
        lines.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum()
    };
    tree(root).into_iter().flat_map(tasks).map(of_task).sum()
}

/// The folder of each of its threads.
fn tasks(pid: u32) -> Vec<String> {
    let folder = format!("/proc/{pid}/task");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().to_string_lossy().into_owned()).collect()
}
