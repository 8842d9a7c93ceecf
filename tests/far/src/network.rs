//! A network with a length: every packet is delayed, lost, doubled, overtaken.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tun_rs::{DeviceBuilder, SyncDevice};

use crate::Result;
use crate::rows::Row;

/// An Ethernet's packet, and more than that.
const PACKET_BYTES: usize = 64 * 1024;

/// Runs `ip` in this namespace.
pub(crate) fn ip(arguments: &str) -> Result<()> {
    let status = Command::new("ip").args(arguments.split(' ')).status()?;
    if status.success() { Ok(()) } else { Err(format!("`ip {arguments}` failed").into()) }
}

/// Where the packets of a network device come out, to be carried to another.
pub(crate) fn end(name: &str) -> Result<SyncDevice> {
    let device = DeviceBuilder::new().name(name).enable(false).build_sync();
    device.map_err(|error| format!("no device can be had: {error}").into())
}

/// The packets under way, ordered by when they arrive. Of one direction, a packet that draws a shorter delay overtakes.
pub(crate) struct Network {
    ends: [SyncDevice; 2],
    under_way: Mutex<BinaryHeap<Reverse<Packet>>>,
    has_more: Condvar,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    arrives: Instant,
    number: u64,
    to: usize,
    bytes: Vec<u8>,
}

impl Network {
    /// Carries packets until the process ends.
    pub(crate) fn start(row: &'static Row, seed: u64, here: SyncDevice, there: SyncDevice) {
        let network = Self { ends: [here, there], under_way: Mutex::default(), has_more: Condvar::new() };
        let network = Arc::new(network);
        for from in [0, 1] {
            let network = Arc::clone(&network);
            thread::spawn(move || network.take_in(row, fastrand::Rng::with_seed(seed * 2 + from as u64), from));
        }
        thread::spawn(move || network.deliver());
    }

    fn take_in(&self, row: &Row, mut dice: fastrand::Rng, from: usize) {
        let mut buffer = vec![0; PACKET_BYTES];
        let mut number = 0;
        while let Ok(count) = self.ends[from].recv(&mut buffer) {
            if dice.f64() * 100.0 < row.lost_percent {
                continue;
            }
            let copies = if dice.f64() * 100.0 < row.doubled_percent { 2 } else { 1 };
            for _ in 0..copies {
                let stray = row.jitter.mul_f64(2.0 * dice.f64());
                let arrives = Instant::now() + (row.delay + stray).saturating_sub(row.jitter);
                number += 1;
                let packet = Packet { arrives, number, to: 1 - from, bytes: buffer[..count].to_vec() };
                self.lock().push(Reverse(packet));
            }
            self.has_more.notify_one();
        }
    }

    fn deliver(&self) {
        let mut under_way = self.lock();
        loop {
            let now = Instant::now();
            match under_way.peek().map(|Reverse(next)| next.arrives.saturating_duration_since(now)) {
                Some(Duration::ZERO) => {
                    let Some(Reverse(packet)) = under_way.pop() else { continue };
                    drop(under_way);
                    // Refused by a device that is not up, or full: the packet is lost, as elsewhere.
                    let _ = self.ends[packet.to].send(&packet.bytes);
                    under_way = self.lock();
                }
                wait => {
                    let wait = wait.unwrap_or(Duration::from_secs(60));
                    under_way = self.has_more.wait_timeout(under_way, wait).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BinaryHeap<Reverse<Packet>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
