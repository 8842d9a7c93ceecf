//! A connection on its way from one loop to another.

use std::time::Instant;

use super::stream::Stream;
use crate::http::Peer;
use crate::sync::Arc;

/// A connection that has had its first answer.
pub(crate) struct Transfer {
    pub(crate) stream: Arc<Stream>,
    pub(crate) peer: Peer,
    /// When it became idle: the longest-idle connection of all loops makes room.
    pub(crate) since: Instant,
}
