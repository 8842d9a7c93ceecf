//! A response whose body is sent as it is written.

use crate::sync::Arc;
use std::io::{self, Write};
use std::time::Duration;

use super::blocking_socket::BlockingSocket;
use crate::http::{AfterAnswer, BodyWriter, Version, WriteBody};
use crate::server::buffer::Answer;
use crate::server::call::internal_error;
use crate::server::counts::Totals;
use crate::server::outgoing::Unsent;
use crate::server::stream::Stream;
use crate::server::table::Token;

/// How many bytes of content to gather for one chunk.
const CHUNK_BYTES: usize = 16 * 1024;
/// Room for a chunk's size before it: as many hex digits as `CHUNK_BYTES` needs, CR, LF.
const SIZE_ROOM: usize = 6;
/// The last chunk, and an empty trailer section: the end of the body.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What a thread needs to send the body of a response.
#[derive(Debug)]
pub(crate) struct Download {
    token: Token,
    socket: BlockingSocket,
    /// What the peer has not taken of earlier answers, then the head: sent with the first chunk.
    unsent: Option<Box<Unsent>>,
    /// How many answers have left in full.
    answers: u64,
    /// How many bytes of the body have left.
    bytes: u64,
    after: AfterAnswer,
}

/// The end of a streamed answer: its body has been written, or cannot be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streamed {
    pub(crate) token: Token,
    /// How many answers have left in full.
    pub(crate) answers: u64,
    pub(crate) finish: Finish,
}

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// The whole body has been sent.
    Whole,
    /// Its writer has failed: the client is to see that something is missing.
    Torn,
    /// The client has gone or stalls, or the connection is lost to us.
    Lost,
}

impl Streamed {
    /// The end of a stream whose connection is lost.
    pub(crate) fn lost(token: Token) -> Self {
        Self { token, answers: 0, finish: Finish::Lost }
    }
}

impl Download {
    pub(crate) fn new(
        stream: Arc<Stream>,
        totals: Arc<Totals>,
        patience: Duration,
        unsent: Box<Unsent>,
        token: Token,
        after: AfterAnswer,
    ) -> Self {
        // Nothing is read meanwhile: the read patience is unused.
        let socket = BlockingSocket::new(stream, totals, patience, patience);
        Self { token, socket, unsent: Some(unsent), answers: 0, bytes: 0, after }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(mut unsent) = self.unsent.take() {
            unsent.extend(bytes);
            self.socket.write_noting(unsent.rest(), |count| unsent.note_left(count))?;
            self.answers += unsent.answers() as u64;
            unsent.end();
        } else {
            self.socket.write(bytes)?;
        }
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn end(self, finish: Finish) -> Streamed {
        let Self { token, answers, bytes, after, socket, .. } = self;
        // Gives the socket back to the loop before any closure learns that the answer has left.
        drop(socket);
        after.end(bytes, finish == Finish::Whole);
        Streamed { token, answers: answers + u64::from(finish == Finish::Whole), finish }
    }
}

/// Writes an answer's body. Returns what the loop must learn; `None` if the loop no longer has the connection. `Err`:
/// nothing has been sent, and this is the answer instead.
///
/// Until the first bytes are sent, the connection is its loop's, like that of any handler: `start` asks the loop for
/// what sending them needs. If the closure fails before that, the answer is 500.
pub(crate) fn write_body(
    answer: Answer,
    write: WriteBody,
    start: impl FnMut(Answer) -> Option<Download>,
) -> Option<Result<Streamed, Box<Answer>>> {
    let length = answer.response.length();
    let is_chunked = length.is_none() && answer.exchange.version == Version::Http11;
    let mut sink = Sink { stage: Stage::Kept(Box::new(answer)), start, is_chunked, buffer: Vec::new() };
    let written = write.call(&mut BodyWriter::new(&mut sink, length));
    let is_whole = match written {
        Some(Ok(())) => sink.send(if is_chunked { LAST_CHUNK } else { &[] }).is_ok(),
        // Nobody needs a report that a client has gone or stalls.
        Some(Err(failure)) if !sink.has_failed() => {
            failure.tell();
            false
        }
        Some(Err(_)) | None => false,
    };
    match sink.stage {
        Stage::Kept(mut answer) => {
            answer.response = internal_error();
            Some(Err(answer))
        }
        Stage::Sending(download) => Some(Ok(download.end(if is_whole { Finish::Whole } else { Finish::Torn }))),
        Stage::Failed(download) => download.map(|download| Ok(download.end(Finish::Lost))),
    }
}

enum Stage {
    /// Nothing has been sent.
    Kept(Box<Answer>),
    Sending(Download),
    /// The client has gone, or stalls. Without a download, the loop no longer has the connection.
    Failed(Option<Download>),
}

struct Sink<F> {
    stage: Stage,
    start: F,
    is_chunked: bool,
    /// `SIZE_ROOM` bytes, and the content of one chunk.
    buffer: Vec<u8>,
}

impl<F: FnMut(Answer) -> Option<Download>> Sink<F> {
    fn has_failed(&self) -> bool {
        matches!(self.stage, Stage::Failed(_))
    }

    fn content_len(&self) -> usize {
        self.buffer.len().saturating_sub(SIZE_ROOM)
    }

    /// Sends what has been gathered, if anything, followed by `end`, in one write. The head goes first, unless it has
    /// been sent.
    fn send(&mut self, end: &[u8]) -> io::Result<()> {
        let mut start = SIZE_ROOM.min(self.buffer.len());
        if self.is_chunked && self.content_len() > 0 {
            let size = format!("{:x}\r\n", self.content_len());
            start = SIZE_ROOM.saturating_sub(size.len());
            self.buffer.splice(start..SIZE_ROOM, size.bytes());
            self.buffer.extend_from_slice(b"\r\n");
        }
        self.buffer.extend_from_slice(end);
        let download = match std::mem::replace(&mut self.stage, Stage::Failed(None)) {
            Stage::Kept(answer) => (self.start)(*answer),
            Stage::Sending(download) => Some(download),
            Stage::Failed(download) => {
                self.stage = Stage::Failed(download);
                None
            }
        };
        let Some(mut download) = download else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let sent = download.write(self.buffer.get(start..).unwrap_or_default());
        self.buffer.clear();
        self.stage = if sent.is_ok() { Stage::Sending(download) } else { Stage::Failed(Some(download)) };
        sent
    }
}

impl<F: FnMut(Answer) -> Option<Download>> Write for Sink<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.has_failed() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.content_len() == CHUNK_BYTES {
            self.send(&[])?;
        }
        if self.buffer.is_empty() {
            self.buffer.resize(SIZE_ROOM, 0);
        }
        let count = bytes.len().min(CHUNK_BYTES.saturating_sub(self.content_len()));
        self.buffer.extend_from_slice(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send(&[])
    }
}
