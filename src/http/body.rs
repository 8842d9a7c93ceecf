//! A body as it arrives: by length, or by the chunked coding (RFC 9112 §7.1), decoded in place.
//!
//! The decoder moves chunk data to the front, over the framing that it has read: `..decoded` is content, `raw..` has
//! not been read yet, and what lies between is spent. Like the head's machine it keeps its place between calls, and its
//! verdicts do not depend on how the bytes were cut.
//!
//! ```text
//! Size ──";", blank──▶ Extension ──CR──▶ SizeLf ──LF──▶ Data ──▶ DataCr ──▶ DataLf ──▶ Size
//!   └───────────────CR──────────────────────▲ └──size 0──▶ Trailers ──▶ Done
//! ```

use super::extension::Extension;
use super::fields::FieldLines;
use super::framing::Framing;
use super::grammar::hex_digit;
use super::reject::Reject;

/// The most hex digits of a chunk size: 16 hold a `u64`.
const SIZE_DIGITS_MAX: u32 = 16;
/// The most bytes of extensions in one body. We use none of them; Go has bounded the same waste at 16 KiB since
/// CVE-2023-39326.
const EXTENSION_BYTES_MAX: usize = 16 * 1024;
/// The most bytes of one chunk's extensions.
const EXTENSION_LINE_BYTES_MAX: usize = 1024;

/// The limits of a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    /// Bytes of content.
    pub(crate) body_bytes: u64,
    /// Bytes and field lines of a trailer section.
    pub(crate) trailer_bytes: usize,
    pub(crate) trailers: usize,
}

impl BodyLimits {
    /// For a body that is not held in memory: its content may have any length, its framing may not.
    pub(crate) fn of_stream(&self) -> Self {
        Self { body_bytes: u64::MAX, ..*self }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Length,
    Size,
    Extension(Extension),
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
    Done,
}

/// The body being read. Positions count from the body's first byte.
#[derive(Debug)]
pub(crate) struct Body {
    at: At,
    /// How many bytes of decoded content stand at the front.
    decoded: usize,
    /// Where the bytes not yet read begin.
    raw: usize,
    /// How many bytes of content there may be.
    bytes_max: u64,
    /// How many bytes of content are to come: of the body (by length) or of the chunk (chunked).
    left: u64,
    size_digits: u32,
    extension_bytes: usize,
    extension_line_bytes: usize,
    trailer_bytes_left: usize,
    trailers: FieldLines,
}

impl Body {
    pub(crate) const fn new() -> Self {
        Self {
            at: At::Done,
            decoded: 0,
            raw: 0,
            bytes_max: 0,
            left: 0,
            size_digits: 0,
            extension_bytes: 0,
            extension_line_bytes: 0,
            trailer_bytes_left: 0,
            trailers: FieldLines::new(),
        }
    }

    /// Prepares to read the body of a request whose head has been read.
    ///
    /// # Errors
    ///
    /// [`Reject::BodyTooLarge`] for a declared length over the limit, before a byte of it is read or reserved.
    pub(crate) fn start(&mut self, framing: Framing, limits: &BodyLimits) -> Result<(), Reject> {
        (self.decoded, self.raw, self.bytes_max) = (0, 0, limits.body_bytes);
        match framing {
            Framing::Length(length) if length > limits.body_bytes => {
                return Err(Reject::BodyTooLarge);
            }
            Framing::Length(length) => (self.at, self.left) = (At::Length, length),
            Framing::Chunked => {
                (self.at, self.left, self.size_digits) = (At::Size, 0, 0);
                (self.extension_bytes, self.extension_line_bytes) = (0, 0);
                self.trailer_bytes_left = limits.trailer_bytes;
                self.trailers.clear();
            }
        }
        Ok(())
    }

    /// The length of the content decoded so far: all of it once the body is complete.
    pub(crate) fn decoded(&self) -> usize {
        self.decoded
    }

    /// How far the bytes have been read: once the body is complete, to its end on the wire.
    pub(crate) fn raw(&self) -> usize {
        self.raw
    }

    /// The caller has removed the spent bytes between `decoded` and `raw`.
    pub(crate) fn compacted(&mut self) {
        let spent = self.raw.saturating_sub(self.decoded);
        self.raw = self.decoded;
        self.trailers.moved_back(spent);
    }

    /// Resets it: nothing has come, and nothing is expected.
    pub(crate) fn clear(&mut self) {
        (self.at, self.decoded, self.raw) = (At::Done, 0, 0);
    }

    /// The caller has taken the content decoded so far, and removed all bytes that have been read.
    pub(crate) fn taken(&mut self) {
        self.trailers.moved_back(self.raw);
        (self.decoded, self.raw) = (0, 0);
    }

    /// True once all of the body has come.
    pub(crate) fn is_whole(&self) -> bool {
        self.at == At::Done
    }

    /// Reads on in `bytes`, which begin where the body begins. `Ok(false)`: more is needed. How long the content may be
    /// was said at the start.
    ///
    /// # Errors
    ///
    /// [`Reject::Chunk`] for a broken coding, [`Reject::BodyTooLarge`] and [`Reject::HeadTooLarge`] for a body or
    /// trailers over their limit.
    pub(crate) fn advance(&mut self, bytes: &mut [u8], limits: &BodyLimits) -> Result<bool, Reject> {
        loop {
            match self.at {
                At::Done => return Ok(true),
                At::Length | At::Data => {
                    if !self.take_content(bytes) {
                        return Ok(false);
                    }
                }
                At::Trailers => {
                    if !self.take_trailers(bytes, limits)? {
                        return Ok(false);
                    }
                }
                _ => {
                    let Some(&byte) = bytes.get(self.raw) else {
                        return Ok(false);
                    };
                    self.take_framing(byte)?;
                    self.raw = self.raw.saturating_add(1);
                }
            }
        }
    }

    /// Moves the content that is here to the front. True once all of it has come.
    fn take_content(&mut self, bytes: &mut [u8]) -> bool {
        let here = bytes.len().saturating_sub(self.raw);
        let taken = usize::try_from(self.left).map_or(here, |left| left.min(here));
        let end = self.raw.saturating_add(taken);
        if self.decoded != self.raw {
            bytes.copy_within(self.raw..end, self.decoded);
        }
        self.decoded = self.decoded.saturating_add(taken);
        self.raw = end;
        self.left = self.left.saturating_sub(taken as u64);
        let whole = self.left == 0;
        if whole {
            self.at = if self.at == At::Length { At::Done } else { At::DataCr };
        }
        whole
    }

    /// Reads trailers by the grammar of header fields, and drops them (RFC 9112 §7.1.2 allows it).
    fn take_trailers(&mut self, bytes: &[u8], limits: &BodyLimits) -> Result<bool, Reject> {
        let (start, end) = (self.raw, self.raw.saturating_add(self.trailer_bytes_left));
        let window = bytes.get(..end).unwrap_or(bytes);
        let whole = self.trailers.advance(window, &mut self.raw, limits.trailers)?;
        self.trailer_bytes_left = self.trailer_bytes_left.saturating_sub(self.raw.saturating_sub(start));
        if whole {
            self.at = At::Done;
        } else if self.trailer_bytes_left == 0 {
            return Err(Reject::HeadTooLarge);
        }
        Ok(whole)
    }

    /// Reads one byte of the chunked coding itself.
    fn take_framing(&mut self, byte: u8) -> Result<(), Reject> {
        self.at = match (self.at, byte) {
            // chunk-size = 1*HEXDIG
            (At::Size, b'\r') if self.size_digits > 0 => At::SizeLf,
            (At::Size, _) => match hex_digit(byte) {
                Some(digit) => {
                    self.size_digits = self.size_digits.saturating_add(1);
                    if self.size_digits > SIZE_DIGITS_MAX {
                        return Err(Reject::Chunk);
                    }
                    self.left = self.left.wrapping_shl(4) | u64::from(digit);
                    At::Size
                }
                None if self.size_digits > 0 => self.take_extension_byte(Extension::begun(byte))?,
                None => return Err(Reject::Chunk),
            },
            (At::Extension(extension), b'\r') if extension.is_whole() => At::SizeLf,
            (At::Extension(extension), _) => self.take_extension_byte(extension.with(byte))?,
            (At::SizeLf, b'\n') => {
                (self.size_digits, self.extension_line_bytes) = (0, 0);
                let room = self.bytes_max.saturating_sub(self.decoded as u64);
                if self.left > room {
                    return Err(Reject::BodyTooLarge);
                }
                if self.left == 0 { At::Trailers } else { At::Data }
            }
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size,
            _ => return Err(Reject::Chunk),
        };
        Ok(())
    }

    fn take_extension_byte(&mut self, extension: Option<Extension>) -> Result<At, Reject> {
        self.extension_bytes = self.extension_bytes.saturating_add(1);
        self.extension_line_bytes = self.extension_line_bytes.saturating_add(1);
        if self.extension_bytes > EXTENSION_BYTES_MAX || self.extension_line_bytes > EXTENSION_LINE_BYTES_MAX {
            return Err(Reject::Chunk);
        }
        extension.map(At::Extension).ok_or(Reject::Chunk)
    }
}
