//! Readiness without the kernel's help: the loop tries every socket, and pauses when nothing moves.
//!
//! The pause begins at 50 µs and doubles to 5 ms; anything that moves resets it. So a busy server answers within
//! 50 µs, an idle one wakes 200 times a second, and each connection costs one system call per round: fine for tens of
//! connections, slow but correct beyond. It reports everything all the time, and keeps but the tokens of the sockets.

use std::io;
use std::time::Duration;

use super::event::Event;
use crate::server::listener::Listener;
use crate::server::stream::Stream;
use crate::sync::{Arc, Condvar, Mutex};

const PAUSE_MIN: Duration = Duration::from_micros(50);
const PAUSE_MAX: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(crate) struct Poller {
    tokens: Vec<u64>,
    /// How many of the tokens have been reported in this round.
    reported: usize,
    pause: Duration,
    has_progressed: bool,
    wake: Waker,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let wake = Waker(Arc::new((Mutex::new(false), Condvar::new())));
        Ok(Self { tokens: Vec::new(), reported: 0, pause: PAUSE_MIN, has_progressed: false, wake })
    }

    pub(crate) fn waker(&self) -> Waker {
        self.wake.clone()
    }

    pub(crate) fn add(&mut self, _: &Stream, token: u64) -> io::Result<()> {
        self.report(token);
        Ok(())
    }

    pub(crate) fn await_room(&mut self, _: &Stream, _: u64) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn add_listener(&mut self, _: &Listener, token: u64) -> io::Result<()> {
        self.report(token);
        Ok(())
    }

    pub(crate) fn remove(&mut self, _: &Stream, token: u64) {
        self.retired(token);
    }

    pub(crate) fn remove_listener(&mut self, _: &Listener, token: u64) {
        self.retired(token);
    }

    pub(crate) fn retired(&mut self, token: u64) {
        if let Some(at) = self.tokens.iter().position(|have| *have == token) {
            // The last one takes its place, and may be reported a round late, or twice.
            self.tokens.swap_remove(at);
        }
    }

    pub(crate) fn progressed(&mut self) {
        self.has_progressed = true;
    }

    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.reported = 0;
        if std::mem::take(&mut self.has_progressed) {
            self.pause = PAUSE_MIN;
        }
        let pause = timeout.map_or(self.pause, |timeout| timeout.min(self.pause));
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.wake.sleep(pause);
        Ok(())
    }

    pub(crate) fn next(&mut self) -> Option<Event> {
        let token = *self.tokens.get(self.reported)?;
        self.reported += 1;
        // Nobody knows whether there is more after a short read, so the loop must read until it would block.
        Some(Event { token, is_hangup: true })
    }

    fn report(&mut self, token: u64) {
        self.tokens.push(token);
        self.has_progressed = true;
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Waker(Arc<(Mutex<bool>, Condvar)>);

impl Waker {
    pub(crate) fn wake(&self) {
        let (is_awake, changed) = &*self.0;
        *is_awake.lock() = true;
        changed.notify_one();
    }

    fn sleep(&self, pause: Duration) {
        let (is_awake, changed) = &*self.0;
        *changed.wait_timeout_while(is_awake.lock(), pause, |is_awake| !*is_awake) = false;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::server::listener::LocalAddress;
    use crate::sync;

    #[test]
    fn every_socket_is_reported_each_round_until_it_is_taken_back() {
        let listener = Listener::bound(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let LocalAddress::Tcp(address) = listener.local_address().clone() else { unreachable!("bound to TCP") };
        let stream = Stream::Tcp(TcpStream::connect(address).unwrap());
        let mut poller = Poller::new().unwrap();
        poller.add_listener(&listener, 1).unwrap();
        (2..6).for_each(|token| poller.add(&stream, token).unwrap());
        poller.await_room(&stream, 2).unwrap();
        let look = |poller: &mut Poller| {
            poller.wait(None).unwrap();
            let mut tokens: Vec<_> = std::iter::from_fn(|| poller.next()).map(|event| event.token).collect();
            tokens.sort_unstable();
            tokens
        };
        assert_eq!(look(&mut poller), [1, 2, 3, 4, 5]);
        poller.remove(&stream, 4);
        poller.retired(2);
        assert_eq!(look(&mut poller), [1, 3, 5]);
        poller.remove_listener(&listener, 1);
        assert_eq!(look(&mut poller), [3, 5]);
        assert_eq!(look(&mut poller), [3, 5]);
    }

    #[test]
    fn the_pause_grows_until_something_moves() {
        let mut poller = Poller::new().unwrap();
        for _ in 0..12 {
            poller.wait(None).unwrap();
        }
        assert_eq!(poller.pause, PAUSE_MAX);
        poller.progressed();
        poller.wait(None).unwrap();
        assert_eq!(poller.pause, PAUSE_MIN * 2);
    }

    #[test]
    fn a_wake_is_not_lost_between_waits() {
        let wake = Poller::new().unwrap().waker();
        wake.wake();
        let start = sync::now();
        wake.sleep(Duration::from_secs(60));
        assert!(sync::now() - start < Duration::from_secs(30));
    }
}
