//! How an event loop accepts connections, and how it stops accepting. [`intake`](super::intake) is what it keeps about
//! each listener, [`placement`](super::placement) decides which loop serves a connection.

use super::EventLoop;
use crate::server::accept_error::AcceptError;
use crate::server::buffer::ReadBuffer;
use crate::server::inbox::Arrival;

impl EventLoop {
    /// The poller has reported a listener.
    pub(super) fn accept_from(&mut self, number: usize, buffer: &mut ReadBuffer) {
        if self.books.is_draining {
            return self.close_listener(number);
        }
        for count in 0..self.intake.batch(number) {
            let Some(accepted) = self.intake.accept(number) else { return };
            match accepted {
                Ok((stream, peer)) => {
                    self.books.counts.accepted.add(1);
                    self.books.poller.progressed();
                    self.settle(Arrival { stream, peer, listener: number, is_sent: false, refusals: 0 }, buffer);
                    if self.intake.is_paused(number) {
                        return;
                    }
                    self.intake.recover(number);
                }
                Err(AcceptError::WouldBlock) => return,
                Err(AcceptError::Transient(_)) => {}
                // The system says so even if the queue is empty. If it is not, the poller reports the listener again.
                Err(AcceptError::Exhausted(_)) if count > 0 => return,
                // The descriptor limit is below `connections_max`: the longest-idle connection makes room here too. It
                // must have been idle for the idle grace, since perhaps nobody is waiting.
                Err(AcceptError::Exhausted(_)) if self.books.make_room(self.shared.config.idle_grace, buffer) => {}
                Err(AcceptError::Exhausted(error) | AcceptError::Stuck(error)) => {
                    return self.pause_listener(number, &error);
                }
                Err(AcceptError::Dead(error)) => {
                    self.intake.ignore(number, &mut self.books.poller);
                    return self.shared.listener_failed(&self.shared.listeners[number], &error);
                }
            }
        }
        self.intake.grow(number);
    }

    /// Reports that the system has no descriptor or memory left to accept or to watch with, and pauses the listener:
    /// the next connections wait in its queue.
    pub(super) fn pause_listener(&mut self, number: usize, error: &std::io::Error) {
        self.shared.tell_accept_failed(&self.shared.listeners[number], error, self.books.now);
        self.intake.pause(number, &mut self.books.poller, self.books.now);
    }

    /// Watches paused listeners again once their pause is over.
    pub(super) fn resume_listeners(&mut self) {
        for number in self.intake.take_due(self.books.now) {
            if self.books.is_draining {
                self.close_listener(number);
            } else if self.intake.watch(number, &mut self.books.poller).is_err() {
                self.intake.pause(number, &mut self.books.poller, self.books.now);
            }
        }
    }

    /// Accepts the connections that have come, and no more. The first loop that can closes the listener for all.
    pub(super) fn close_listener(&mut self, number: usize) {
        if self.intake.is_over(number) {
            return;
        }
        let (accepted, closing) = self.intake.close(number, self.books.now, &mut self.books.poller);
        // These connections stay here: the other loops may have left already.
        self.books.counts.accepted.add(accepted.len() as u64);
        for (stream, peer) in accepted {
            self.take_in(stream, peer, number);
        }
        self.intake.note_closing(number, closing, &mut self.books.poller, self.books.now);
    }
}
