//! The request line and the header section as they arrive (RFC 9112 §3 and §5): positions, not copies.
//!
//! The machine keeps its place between calls: when more has come, it reads no byte again, except the ten of the
//! version.
//!
//! ```text
//! Start ──▶ Method ──SP──▶ Target ──SP──▶ Version ──CRLF──▶ Fields ──CRLF──▶ Done
//! ```

use super::fields::{Field, FieldLines, Span};
use super::method::{Method, Version};
use super::reject::Reject;
use super::scan::{behind_plain, behind_target, behind_tchars};

/// The longest method name that is read before it counts as unknown. The longest in the IANA registry has 17 letters.
const METHOD_BYTES_MAX: usize = 32;

/// The limits of a head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    /// Bytes from the start of the request line to the end of the empty line.
    pub(crate) head_bytes: usize,
    /// Bytes of the request target.
    pub(crate) target_bytes: usize,
    /// Field lines.
    pub(crate) fields: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Start,
    Method,
    Target,
    Version,
    Fields,
    Done,
}

/// A request head, complete or still arriving.
#[derive(Debug)]
pub(crate) struct Head {
    at: At,
    pos: usize,
    /// Where the element being read began.
    mark: usize,
    /// `None`: a method that we do not have. The request is refused for that, unless its version is not ours either.
    method: Option<Method>,
    version: Version,
    target: Span,
    /// The target is known to have neither an escape nor a query.
    is_target_plain: bool,
    fields: FieldLines,
}

impl Head {
    pub(crate) const fn new() -> Self {
        Self {
            at: At::Start,
            pos: 0,
            mark: 0,
            method: Some(Method::Get),
            version: Version::Http11,
            target: Span { start: 0, end: 0 },
            is_target_plain: false,
            fields: FieldLines::new(),
        }
    }

    /// Makes it ready for the next request.
    pub(crate) fn clear(&mut self) {
        self.at = At::Start;
        self.pos = 0;
        self.method = Some(Method::Get);
        self.fields.clear();
    }

    /// True once a byte has come that is not part of an empty line before the request line.
    pub(crate) fn has_begun(&self) -> bool {
        self.at != At::Start
    }

    /// The head's length in bytes, once it is complete.
    pub(crate) fn len(&self) -> usize {
        self.pos
    }

    pub(crate) fn method(&self) -> Method {
        self.method.unwrap_or(Method::Get)
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    pub(crate) fn target(&self) -> Span {
        self.target
    }

    /// True if the target is known to have neither an escape nor a query; false says nothing.
    pub(crate) fn is_target_plain(&self) -> bool {
        self.is_target_plain
    }

    pub(crate) fn fields(&self) -> &[Field] {
        self.fields.list()
    }

    /// Reads on in `bytes`: all that has come since the request began. `Ok(false)`: more is needed.
    ///
    /// # Errors
    ///
    /// The first fault, in the order of the bytes.
    pub(crate) fn advance(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<bool, Reject> {
        let bytes_max = limits.head_bytes.min(Span::REACH);
        let window = bytes.get(..bytes_max).unwrap_or(bytes);
        if self.read(window, limits)? {
            Ok(true)
        } else if window.len() >= bytes_max {
            Err(Reject::HeadTooLarge)
        } else {
            Ok(false)
        }
    }

    /// Reads element after element, from where it stands. False: one of them is incomplete.
    fn read(&mut self, window: &[u8], limits: &HeadLimits) -> Result<bool, Reject> {
        if self.at == At::Start && !self.skip_empty_lines(window) {
            return Ok(false);
        }
        if self.at == At::Method && !self.read_method(window)? {
            return Ok(false);
        }
        if self.at == At::Target && !self.read_target(window, limits.target_bytes)? {
            return Ok(false);
        }
        if self.at == At::Version && !self.read_version(window)? {
            return Ok(false);
        }
        if self.at == At::Fields {
            if !self.fields.advance(window, &mut self.pos, limits.fields)? {
                return Ok(false);
            }
            self.at = At::Done;
        }
        Ok(true)
    }

    /// RFC 9112 §2.2: ignores empty lines before the request line. They count towards the head's limit.
    fn skip_empty_lines(&mut self, window: &[u8]) -> bool {
        loop {
            match window.get(self.pos..).unwrap_or_default() {
                [] | [b'\r'] => return false,
                [b'\r', b'\n', ..] => self.pos = self.pos.saturating_add(2),
                _ => break,
            }
        }
        (self.at, self.mark) = (At::Method, self.pos);
        true
    }

    /// `method = token`, then one SP.
    fn read_method(&mut self, window: &[u8]) -> Result<bool, Reject> {
        // Most requests begin like this.
        if let (true, [b'G', b'E', b'T', b' ', ..]) =
            (self.pos == self.mark, window.get(self.pos..).unwrap_or_default())
        {
            self.method = Some(Method::Get);
            self.pos = self.pos.saturating_add(b"GET ".len());
            (self.at, self.mark) = (At::Target, self.pos);
            return Ok(true);
        }
        let Some(end) = self.find_end(window, METHOD_BYTES_MAX, behind_tchars, Reject::Method)? else {
            return Ok(false);
        };
        self.method = Method::from_name(end.of(window));
        self.at = At::Target;
        Ok(true)
    }

    /// `request-target`, then one SP. Its form is examined once the head is complete.
    fn read_target(&mut self, window: &[u8], bytes_max: usize) -> Result<bool, Reject> {
        let (is_whole, mut is_plain) = (self.pos == self.mark, false);
        let end = self.find_end(
            window,
            bytes_max,
            |rest| {
                let plain = behind_plain(rest);
                is_plain = is_whole && plain.first() == Some(&b' ');
                if is_plain { plain } else { behind_target(plain) }
            },
            Reject::TargetTooLong,
        )?;
        let Some(end) = end else { return Ok(false) };
        (self.target, self.is_target_plain) = (end, is_plain);
        self.at = At::Version;
        Ok(true)
    }

    /// The element that began at `mark` and extends over what `behind` skips: at least one byte and at most
    /// `bytes_max`, ended by a space, which is skipped.
    #[inline(always)] // Inlined once for each `behind`.
    fn find_end(
        &mut self,
        window: &[u8],
        bytes_max: usize,
        behind: impl FnOnce(&[u8]) -> &[u8],
        too_long: Reject,
    ) -> Result<Option<Span>, Reject> {
        let rest = behind(window.get(self.pos..).unwrap_or_default());
        self.pos = window.len().saturating_sub(rest.len());
        let length = self.pos.saturating_sub(self.mark);
        if length > bytes_max {
            // In the order of the bytes: being too long comes before any fault behind the limit.
            return Err(too_long);
        }
        match rest {
            [] => Ok(None),
            [b' ', ..] if length > 0 => {
                let element = Span::new(self.mark, self.pos);
                self.pos = self.pos.saturating_add(1);
                self.mark = self.pos;
                Ok(Some(element))
            }
            _ => Err(Reject::RequestLine),
        }
    }

    /// `HTTP-version = "HTTP/" DIGIT "." DIGIT`, then CRLF (RFC 9112 §2.3). A higher minor version counts as 1.1.
    fn read_version(&mut self, window: &[u8]) -> Result<bool, Reject> {
        let rest = window.get(self.pos..).unwrap_or_default();
        self.version = if rest.starts_with(b"HTTP/1.1\r\n") {
            Version::Http11
        } else {
            // Byte by byte, so that the verdict on a mistake does not wait for the rest.
            let fits = |(have, want): (&u8, &u8)| {
                if *want == b'#' { have.is_ascii_digit() } else { have == want }
            };
            if !rest.iter().zip(b"HTTP/#.#\r\n").all(fits) {
                return Err(Reject::RequestLine);
            }
            match rest {
                [_, _, _, _, _, b'1', _, b'0', _, _, ..] => Version::Http10,
                [_, _, _, _, _, b'1', _, _, _, _, ..] => Version::Http11,
                [_, _, _, _, _, _, _, _, _, _, ..] => return Err(Reject::Version),
                _ => return Ok(false),
            }
        };
        if self.method.is_none() {
            return Err(Reject::Method);
        }
        self.pos = self.pos.saturating_add(b"HTTP/1.1\r\n".len());
        self.at = At::Fields;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::scan::tests::looks;
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { head_bytes: 16 * 1024, target_bytes: 8 * 1024, fields: 100 };

    /// Gives a head one byte more each time, and counts all looks at bytes.
    #[track_caller]
    fn check_work(head: &str) {
        let before = looks();
        let mut machine = Head::new();
        for end in 1..head.len() {
            let part = head.as_bytes().get(..end).unwrap();
            assert_eq!(machine.advance(part, &LIMITS), Ok(false), "after {end} bytes");
        }
        assert_eq!(machine.advance(head.as_bytes(), &LIMITS), Ok(true));
        let looked = looks().saturating_sub(before);
        assert!(looked <= head.len().saturating_mul(2), "{looked} looks at {} bytes", head.len());
    }

    #[test]
    fn a_head_that_comes_a_byte_at_a_time_is_not_read_again_from_its_beginning() {
        let long = |count| "a".repeat(count);
        check_work(&format!("GET /{} HTTP/1.1\r\n\r\n", long(8000)));
        check_work(&format!("GET / HTTP/1.1\r\n{}: b\r\n\r\n", long(16000)));
        check_work(&format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", long(16000)));
        check_work(&format!("GET / HTTP/1.1\r\na: {}b{}\r\n\r\n", " ".repeat(8000), "\t".repeat(8000)));
        check_work(&format!("GET / HTTP/1.1\r\n{}\r\n", format!("{}: b\r\n", long(150)).repeat(100)));
        check_work(&format!("{}GET / HTTP/1.1\r\n\r\n", "\r\n".repeat(8000)));
    }
}
