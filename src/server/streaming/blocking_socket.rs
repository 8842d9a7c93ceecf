//! A socket in the hands of a handler's thread: reads and writes wait while the peer's patience lasts.

use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::server::counts::Totals;
use crate::server::patience::Patience;
use crate::server::stream::{Moved, Stream};
use crate::sync::{self, Arc};

/// How long one system call waits at most. The socket checks the peer's patience in between.
const STEP: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct BlockingSocket {
    stream: Arc<Stream>,
    totals: Arc<Totals>,
    /// Whether calls wait. The first call that would block sets it, so that a fast peer costs no more calls than on a
    /// loop.
    is_waiting: bool,
    reading: Patience,
    writing: Patience,
}

impl BlockingSocket {
    pub(super) fn new(
        stream: Arc<Stream>,
        totals: Arc<Totals>,
        read_patience: Duration,
        write_patience: Duration,
    ) -> Self {
        let (reading, writing) = (Patience::new(read_patience), Patience::new(write_patience));
        Self { stream, totals, is_waiting: false, reading, writing }
    }

    /// Reads at least one byte. Returns 0 at the peer's end, or once the loop has shut the socket down at the deadline.
    ///
    /// # Errors
    ///
    /// `TimedOut` once the peer's patience is used up; otherwise what is wrong with the socket.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let since = sync::now();
            let moved = self.stream.read(buffer);
            self.reading.spend(sync::now() - since);
            match moved {
                Moved::Bytes(count) => {
                    self.reading.earn(count);
                    self.totals.add_streamed_in(count);
                    return Ok(count);
                }
                Moved::WouldBlock if self.reading.left().is_zero() => return Err(ErrorKind::TimedOut.into()),
                Moved::WouldBlock => self.wait_from_now_on()?,
                Moved::Failed => return Err(ErrorKind::ConnectionReset.into()),
            }
        }
    }

    /// Reads what has come already, without waiting. `None` if nothing has.
    pub(super) fn read_at_once(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if std::mem::take(&mut self.is_waiting) {
            self.stream.never_wait().ok()?;
        }
        match self.stream.read(buffer) {
            Moved::Bytes(count) if count > 0 => Some(count),
            Moved::Bytes(_) | Moved::WouldBlock | Moved::Failed => None,
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read); `BrokenPipe` if the peer has gone.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_noting(bytes, |_| ())
    }

    /// The same. Calls `note` with how many bytes have left, whenever more have.
    pub(super) fn write_noting(&mut self, mut bytes: &[u8], note: impl Fn(usize)) -> io::Result<()> {
        let all = bytes.len();
        while !bytes.is_empty() {
            let since = sync::now();
            let moved = self.stream.write(bytes);
            self.writing.spend(sync::now() - since);
            match moved {
                Moved::Bytes(count) if count > 0 => {
                    self.writing.earn(count);
                    self.totals.add_streamed_out(count);
                    bytes = bytes.get(count..).unwrap_or_default();
                    note(all - bytes.len());
                }
                Moved::WouldBlock if self.writing.left().is_zero() => return Err(ErrorKind::TimedOut.into()),
                Moved::WouldBlock => self.wait_from_now_on()?,
                Moved::Bytes(_) | Moved::Failed => return Err(ErrorKind::BrokenPipe.into()),
            }
        }
        Ok(())
    }

    /// Gives the socket back to the loop, which must never wait for it. It may still be read, without waiting.
    pub(super) fn give_back(&mut self) {
        if std::mem::take(&mut self.is_waiting) && self.stream.never_wait().is_err() {
            // A socket that cannot be made non-blocking again is given up.
            self.stream.shutdown(std::net::Shutdown::Both);
        }
    }

    fn wait_from_now_on(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.is_waiting, true) {
            let step = STEP.min(self.reading.max()).min(self.writing.max()).max(Duration::from_millis(1));
            self.stream.wait_up_to(step)?;
        }
        Ok(())
    }
}

impl Drop for BlockingSocket {
    fn drop(&mut self) {
        self.give_back();
    }
}
