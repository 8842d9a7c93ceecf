//! How long a loop, or a handler's thread that streams, bears a slow peer.

use std::time::Duration;

/// The least rate of a peer, in bytes per second: this many bytes earn a second of patience.
const BYTES_PER_SECOND_MIN: u64 = 4096;

/// The time that a peer has left. It earns more by taking or sending bytes, but cannot save it up beyond the maximum: a
/// stall uses it up all the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    left: Duration,
    max: Duration,
}

impl Patience {
    pub(crate) fn new(max: Duration) -> Self {
        Self { left: max, max }
    }

    pub(crate) fn spend(&mut self, waited: Duration) {
        self.left = self.left.saturating_sub(waited);
    }

    pub(crate) fn earn(&mut self, bytes: usize) {
        let earned = Duration::from_millis((bytes as u64).saturating_mul(1000) / BYTES_PER_SECOND_MIN);
        self.left = self.left.saturating_add(earned).min(self.max);
    }

    pub(crate) fn left(&self) -> Duration {
        self.left
    }

    pub(crate) fn max(&self) -> Duration {
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_peer_earns_time_but_cannot_save_it_up() {
        let mut patience = Patience::new(Duration::from_secs(30));
        patience.earn(1 << 20);
        assert_eq!(patience.left(), Duration::from_secs(30));
        patience.spend(Duration::from_secs(29));
        patience.earn(4096);
        assert_eq!(patience.left(), Duration::from_secs(2));
        patience.spend(Duration::from_secs(3));
        assert!(patience.left().is_zero());
        patience.earn(2048);
        assert_eq!(patience.left(), Duration::from_millis(500));
    }
}
