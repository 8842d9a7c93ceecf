//! Whether every event loop responds: for a watchdog. Costs nothing while nobody asks.

use std::time::Duration;

use super::inbox::{Message, Responses};
use super::shared::{LoopHandle, Shared};
use crate::panics::caught;
use crate::stop::FAR;
use crate::sync::{Arc, OnceLock, Weak};

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
        let responses = self.with(|shared| {
            let responses = Arc::new(Responses::of(shared.loops.len()));
            let ask = |of: &LoopHandle| {
                let responses = Arc::clone(&responses);
                of.inbox.push(Message::Ask(Box::new(move |_| responses.respond()))).is_ok()
            };
            shared.loops.iter().all(ask).then_some(responses)
        });
        responses.flatten().is_some_and(|responses| responses.wait(timeout.min(FAR)))
    }

    /// Asks something of what the loops share, while the server runs.
    pub(crate) fn with<T>(&self, ask: impl FnOnce(&Shared) -> T) -> Option<T> {
        let shared = self.0.get().and_then(Weak::upgrade)?;
        let answer = ask(&shared);
        // It may have ended meanwhile, and this be the last to hold what it had from the embedder.
        let _ = caught(|| drop(shared));
        Some(answer)
    }
}

impl std::fmt::Debug for Liveness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Liveness").finish_non_exhaustive()
    }
}
