//! Whether every event loop responds: for a watchdog. Costs nothing while nobody asks.

use std::time::Duration;

use super::inbox::Message;
use super::shared::Shared;
use crate::panics::caught;
use crate::stop::FAR;
use crate::sync::{self, Arc, OnceLock, Weak, sync_channel};

/// Asks a server whether its event loops respond. Clones ask the same server. See
/// [`Server::liveness`](crate::Server::liveness).
#[derive(Clone, Default)]
pub struct Liveness(Arc<OnceLock<Weak<Shared>>>);

impl Liveness {
    /// From now on it can be asked.
    pub(crate) fn of(&self, shared: &Arc<Shared>) {
        let _ = self.0.set(Arc::downgrade(shared));
    }

    /// Wakes every event loop, and returns true once each has come to its inbox. That they do promptly, whatever
    /// clients send and handlers do, is what the server promises: a false is a fault, of ours or of the machine.
    ///
    /// Blocks until then: do not call it where a loop would wait for it, as in routes `at_once`. False if one has not
    /// responded within `timeout`, and at once before the server [runs](crate::Server::run), and when one has ended,
    /// as they do in a stop.
    pub fn check(&self, timeout: Duration) -> bool {
        let Some(shared) = self.0.get().and_then(Weak::upgrade) else { return false };
        let until = sync::now() + timeout.min(FAR);
        let loops = shared.loops.len();
        let (sender, responses) = sync_channel(loops);
        let is_asked = shared.loops.iter().all(|index| index.inbox.push(Message::Check(sender.clone())).is_ok());
        // What never comes is not waited for: a loop that dies drops what is in its inbox.
        drop(sender);
        // It may have ended meanwhile, and this be the last to hold what it had from the embedder.
        let _ = caught(|| drop(shared));
        let left = || until.saturating_duration_since(sync::now());
        is_asked && (0..loops).all(|_| responses.recv_timeout(left()).is_ok())
    }
}

impl std::fmt::Debug for Liveness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Liveness").finish_non_exhaustive()
    }
}
