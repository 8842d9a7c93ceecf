//! What a poller reports.

/// Something is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// The token given when the socket was added.
    pub(crate) token: u64,
    /// The peer has ended its direction, or the connection is broken: there may be more even after a short read.
    pub(crate) is_hangup: bool,
}
