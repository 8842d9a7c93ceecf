//! What must hold whenever the whole process sleeps: nobody waits for what it could do at once.
//!
//! A few things wait for a clock all the same: a loop that lies with a slow handler for the watcher's next look, a
//! socket for the sweep. They take some milliseconds.

use crate::net::DOWN;
use crate::plan::Fault;
use crate::world::{MS, Nanos, Why, World};

/// For how long a client may wait for a process that has nothing else to do.
const IDLE_MAX: Nanos = 40 * MS;

impl World {
    /// All threads wait, and time is about to pass.
    pub(crate) fn look_at_rest(&mut self) {
        let deadline = self.diary.told_at.map_or(Nanos::MAX, |told| told + self.plan.grace);
        // Without a thread, a loop stays with its slow handler.
        let is_hindered = self.has(Fault::Threads) || self.diary.has_poller_failed || self.diary.blocked_loops > 0;
        if is_hindered || !self.net.is_serving || self.now >= deadline || self.is_any(Why::Stalled) {
            return;
        }
        let since: Vec<_> = (0..self.clients.len()).map(|number| self.left_undone_since(number)).collect();
        for (number, since) in since.into_iter().enumerate() {
            if since.is_some_and(|since| self.now >= since + IDLE_MAX + self.stood_between(since, self.now)) {
                self.clients[number].was_forgotten = true;
                self.break_rule(format!("client {number} waits for a process that does nothing"));
            }
        }
    }

    fn left_undone_since(&mut self, number: usize) -> Option<Nanos> {
        let is_undone =
            !self.clients[number].was_forgotten && (self.is_left_in_queue(number) || self.is_uncalled(number));
        // Of many requests, each has its own time.
        let client = &self.clients[number];
        let next = client.next_owed().map(|(id, _)| id);
        let since = client.undone_since.filter(|(of, _)| *of == next).map_or(self.now, |(_, since)| since);
        self.clients[number].undone_since = is_undone.then_some((next, since));
        is_undone.then(|| since.max(self.diary.full_at))
    }

    /// A connection that could be accepted.
    fn is_left_in_queue(&self, number: usize) -> bool {
        let Some(connection) = self.clients[number].connection() else { return false };
        let may_pause = [Fault::Accept, Fault::Drought, Fault::Control].into_iter().any(|fault| self.plan.has(fault));
        let listener = &self.net.listeners[self.net.pipes[connection].listener];
        !may_pause && listener.is_open && !listener.is_dead && listener.queue.contains(&connection)
    }

    /// A request lies in the server whole, and its handler could be called.
    fn is_uncalled(&self, number: usize) -> bool {
        let client = &self.clients[number];
        let Some((connection, (id, end))) = client.connection().zip(client.next_owed()) else { return false };
        let pipe = &self.net.pipes[connection];
        let is_served = pipe.is_accepted && pipe.ended_at.is_none() && !pipe.is_excused && pipe.takes_answers();
        // Nothing is on its way to it, a refusal for example.
        let is_waiting = pipe.halves[DOWN].written == client.has_read();
        let has_permit = self.diary.permits_used < self.plan.permits();
        is_served && is_waiting && has_permit && !self.diary.was_called(id) && self.delivered(connection, end).is_some()
    }
}
