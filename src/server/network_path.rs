//! The network path to a peer.

use std::time::Duration;

/// What the system knows about the path to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NetworkPath {
    /// The shortest recent round trip.
    pub(crate) round_trip: Duration,
    /// How long the system waits for an acknowledgement before it sends again.
    pub(crate) retransmission: Duration,
    /// Something had to be sent again.
    pub(crate) has_lost: bool,
    /// Everything sent has been acknowledged.
    pub(crate) is_delivered: bool,
}
