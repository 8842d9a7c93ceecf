//! Bodies that are not held in memory: read as they arrive, written as they are made.
//!
//! Only the two ends that a handler sees. What lies behind them, the socket and its clocks, is the server's matter.

use std::fmt;
use std::io::{Read, Result, Write};

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
pub struct BodyReader<'a>(Content<'a>);

impl<'a> BodyReader<'a> {
    pub(crate) fn new(content: Content<'a>) -> Self {
        Self(content)
    }
}

impl Read for BodyReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match &mut self.0 {
            Content::Held(bytes) => bytes.read(buffer),
            Content::Arriving(source) => source.read(buffer),
        }
    }
}

/// A request's body: what there is of it, or whoever has it.
#[derive(Clone, Copy)]
pub(crate) enum Content<'a> {
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
/// [`Config::write_timeout`](crate::Config::write_timeout) says, or if the deadline of a stop has come.
pub struct BodyWriter<'a> {
    sink: &'a mut (dyn Write + 'a),
}

impl<'a> BodyWriter<'a> {
    pub(crate) fn new(sink: &'a mut (dyn Write + 'a)) -> Self {
        Self { sink }
    }
}

impl Write for BodyWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.sink.write(bytes)
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

/// What writes the body of a response. In a box, so that those that are not streamed are no larger for it.
pub(crate) struct WriteBody(Box<Given<Box<Function>>>);

type Function = dyn FnOnce(&mut BodyWriter<'_>) -> Result<()> + Send;

impl WriteBody {
    pub(crate) fn new(write: impl FnOnce(&mut BodyWriter<'_>) -> Result<()> + Send + 'static) -> Self {
        Self(Box::new(Given::new(Box::new(write))))
    }

    pub(crate) fn tell(&mut self, on_fault: &OnFault) {
        self.0.tell(on_fault);
    }

    /// Writes it. `None`: it has panicked, which has been told.
    pub(crate) fn call(self, writer: &mut BodyWriter<'_>) -> Option<std::result::Result<(), Failure>> {
        let on_fault = self.0.on_fault();
        // The error is of the embedder's own making: to write and to drop it belongs to the call.
        let written = self.0.call(|write| write(writer).map_err(|error| error.to_string()))?;
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

impl fmt::Debug for WriteBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriteBody")
    }
}
