//! A response whose body is sent as it is written.

use std::io::{self, Write};

use super::line::Line;
use crate::http::{AfterAnswer, BodyWriter, Version, WriteBody};
use crate::server::call::Call;
use crate::server::connection::Away;
use crate::server::notice::Notice;
use crate::server::outgoing::Unsent;
use crate::server::shared::Shared;
use crate::server::table::Token;

/// Bytes of content that are gathered before they are sent.
const CHUNK_BYTES: usize = 16 * 1024;
/// Room for a chunk's size in front of it: as many hex digits as `CHUNK_BYTES` needs, CR, LF.
const SIZE_ROOM: usize = 6;
/// Ends a chunk and then the body.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What a thread needs to write the body of a response, whose head its loop has sent.
#[derive(Debug)]
pub(crate) struct Download {
    token: Token,
    line: Line,
    /// What the peer has not taken yet of the answers before, and of the head.
    unsent: Option<Box<Unsent>>,
    is_chunked: bool,
    /// Whose response it is, for the report of a failure.
    call: Call,
    after: AfterAnswer,
}

/// The body has been written, or cannot be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streamed {
    pub(crate) token: Token,
    /// Answers that have left whole.
    pub(crate) answers: u64,
    /// If not, the connection is of no use any more.
    pub(crate) is_whole: bool,
}

impl Download {
    pub(crate) fn new(away: Away, token: Token, version: Version, after: AfterAnswer, shared: &Shared) -> Self {
        let Away { stream, unsent, call } = away;
        // Nothing is read meanwhile.
        let patience = shared.config.write_timeout;
        let line = Line::new(stream, patience, patience);
        Self { token, line, unsent, is_chunked: version == Version::Http11, call, after }
    }

    /// Writes the body.
    pub(crate) fn run(self, write: WriteBody, shared: &Shared) -> Streamed {
        let Self { token, line, unsent, is_chunked, call, after } = self;
        let mut sink = Sink { line, unsent, answers: 0, is_chunked, buffer: Vec::new(), has_failed: false };
        let written = write.call(&mut BodyWriter::new(&mut sink));
        // Its error is of interest unless it is only what it was told of its client.
        if let (Some(Err(error)), false) = (&written, sink.has_failed) {
            shared.tell(&Notice::StreamFailed { method: call.method, path: &call.path(), error });
        }
        let is_whole = written.is_some_and(|result| result.is_ok()) && sink.finish().is_ok();
        drop(after);
        Streamed { token, answers: sink.answers + u64::from(is_whole), is_whole }
    }
}

struct Sink {
    line: Line,
    unsent: Option<Box<Unsent>>,
    answers: u64,
    is_chunked: bool,
    /// `SIZE_ROOM` bytes, and the content of one chunk.
    buffer: Vec<u8>,
    has_failed: bool,
}

impl Sink {
    fn content_len(&self) -> usize {
        self.buffer.len().saturating_sub(SIZE_ROOM)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.send(if self.is_chunked { LAST_CHUNK } else { &[] })
    }

    /// Sends what has been gathered, if anything, and `end` behind it, with one write.
    fn send(&mut self, end: &[u8]) -> io::Result<()> {
        if self.has_failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let sent = self.try_send(end);
        self.has_failed = sent.is_err();
        self.buffer.clear();
        sent
    }

    fn try_send(&mut self, end: &[u8]) -> io::Result<()> {
        if let Some(unsent) = self.unsent.take() {
            self.line.write(unsent.rest())?;
            self.answers += unsent.answers() as u64;
        }
        let length = self.content_len();
        if length == 0 {
            return self.line.write(end);
        }
        let mut start = SIZE_ROOM;
        if self.is_chunked {
            let size = format!("{length:x}\r\n");
            start = SIZE_ROOM.saturating_sub(size.len());
            self.buffer.splice(start..SIZE_ROOM, size.bytes());
            self.buffer.extend_from_slice(b"\r\n");
        }
        self.buffer.extend_from_slice(end);
        self.line.write(self.buffer.get(start..).unwrap_or_default())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.has_failed {
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
