//! Bodies that are not held in memory: read as they arrive, written as they are made.
//!
//! Only the two ends that a handler sees. What lies behind them, the socket and its clocks, is the server's matter.

use std::fmt;
use std::io::{Error, Read, Result, Write};

use super::given::{Fault, Given, OnFault};

/// The body of a request as it arrives, its transfer coding removed. A read waits for bytes; 0 is the body's end.
///
/// It may be of any length, but not of any slowness: a client has [`Config::body_timeout`](crate::Config::body_timeout)
/// for what it sends while somebody waits, and each 4 KiB give it a second more, up to that time.
///
/// # Errors
///
/// Of a read:
///
/// - `UnexpectedEof`: the client has gone, or the deadline of a stop has come.
/// - `TimedOut`: the client was too slow. It is answered 408.
/// - `InvalidData`: the chunked coding is broken (RFC 9112 §7.1). It is answered 400.
///
/// After one of these the body has no more to give, and what the handler answers is not sent.
pub struct BodyReader<'a>(Source<'a>);

impl<'a> BodyReader<'a> {
    pub(crate) fn new(source: Source<'a>) -> Self {
        Self(source)
    }
}

impl Read for BodyReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match &mut self.0 {
            Source::Held(bytes) => bytes.read(buffer),
            Source::Arriving(source) => source.read(buffer),
        }
    }
}

/// A request's body: what there is of it, or whoever has it.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    Held(&'a [u8]),
    Arriving(&'a dyn ReadBody),
}

/// Where a body comes from that is read as it arrives, whoever reads it.
pub(crate) trait ReadBody: Sync {
    fn read(&self, buffer: &mut [u8]) -> Result<usize>;
}

impl fmt::Debug for BodyReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BodyReader")
    }
}

/// The body of a response as it is made. What is written is gathered to chunks of 16 KiB, and the head goes out with
/// the first of them; `flush` sends what there is, the head at least.
///
/// A write waits until the client takes it, and fails if the client has gone, or stalls for as long as
/// [`Config::write_timeout`](crate::Config::write_timeout) says, or if the deadline of a stop has come; or if it is of
/// more than [`Response::with_length`](crate::Response::with_length) has said, and then nothing of it is sent.
pub struct BodyWriter<'a> {
    sink: &'a mut (dyn Write + 'a),
    /// Bytes that are still to be written, if their number was said.
    left: Option<u64>,
    is_too_long: bool,
}

impl<'a> BodyWriter<'a> {
    pub(crate) fn new(sink: &'a mut (dyn Write + 'a), length: Option<u64>) -> Self {
        Self { sink, left: length, is_too_long: false }
    }

    /// All has been written. It must be as much as was said, even if whoever wrote it does not care for errors.
    fn finish(&self) -> Result<()> {
        match self.left {
            _ if self.is_too_long => Err(Error::other("the body is longer than was said")),
            None | Some(0) => Ok(()),
            Some(left) => Err(Error::other(format!("the body is {left} bytes shorter than was said"))),
        }
    }
}

impl Write for BodyWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let Some(left) = self.left else { return self.sink.write(bytes) };
        self.is_too_long |= bytes.len() as u64 > left;
        if self.is_too_long {
            self.finish()?;
        }
        let count = self.sink.write(bytes)?;
        self.left = Some(left.saturating_sub(count as u64));
        Ok(count)
    }

    fn flush(&mut self) -> Result<()> {
        self.sink.flush()
    }
}

impl fmt::Debug for BodyWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BodyWriter")
    }
}

/// What writes the body of a response.
pub(crate) struct WriteBody(Given<Box<Function>>);

type Function = dyn FnOnce(&mut BodyWriter<'_>) -> Result<()> + Send;

impl WriteBody {
    pub(crate) fn new(write: impl FnOnce(&mut BodyWriter<'_>) -> Result<()> + Send + 'static) -> Self {
        Self(Given::new(Box::new(write)))
    }

    pub(crate) fn tell(&mut self, on_fault: &OnFault) {
        self.0.tell(on_fault);
    }

    /// Writes it. `None`: it has panicked, which has been told.
    pub(crate) fn call(self, writer: &mut BodyWriter<'_>) -> Option<std::result::Result<(), Failure>> {
        let on_fault = self.0.on_fault();
        // The error is of the embedder's own making: to write and to drop it belongs to the call.
        let written = self.0.call(|write| {
            let written = write(writer).and_then(|()| writer.finish());
            written.map_err(|error| error.to_string())
        })?;
        Some(written.map_err(|error| Failure { error, on_fault }))
    }
}

/// Why a body could not be written.
pub(crate) struct Failure {
    error: String,
    on_fault: Option<OnFault>,
}

impl Failure {
    pub(crate) fn tell(&self) {
        if let Some(on_fault) = &self.on_fault {
            on_fault(Fault::Failed(&self.error));
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

impl fmt::Debug for WriteBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriteBody")
    }
}
