//! Field lines as they arrive: `*( field-name ":" OWS field-value OWS CRLF ) CRLF` (RFC 9112 §5).
//!
//! One machine for the header section and the trailer section. It keeps its place between calls, so a section that
//! comes byte by byte costs no more than one that comes whole, and both get the same verdict at the same byte: nothing
//! here depends on how the bytes were cut.
//!
//! ```text
//! Start ──tchar──▶ Name ──":"──▶ Value ──CR──▶ ValueLf ──LF──▶ Start
//!   └──CR──▶ EndLf ──LF──▶ done
//! ```

use super::grammar::is_tchar;
use super::reject::Reject;
use super::scan::{behind_tchars, behind_value};

/// A stretch of the request's bytes, all before `REACH`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    /// No head is longer than this, whatever its limit.
    pub(crate) const REACH: usize = i32::MAX as usize;

    pub(crate) fn new(start: usize, end: usize) -> Self {
        #[expect(clippy::cast_possible_truncation)] // Invariant: heads end before `REACH`.
        let narrow = |at: usize| at as u32;
        Self { start: narrow(start), end: narrow(end) }
    }

    pub(crate) fn len(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    pub(crate) fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name: Span,
    pub(crate) value: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Start,
    Name,
    Value,
    ValueLf,
    EndLf,
}

/// The line being read.
#[derive(Clone, Copy, Debug)]
struct Line {
    at: At,
    /// Where the name began; after the colon, where the value began.
    mark: usize,
    name: Span,
}

#[derive(Debug)]
pub(crate) struct FieldLines {
    line: Line,
    list: Vec<Field>,
}

impl FieldLines {
    pub(crate) const fn new() -> Self {
        Self { line: Line { at: At::Start, mark: 0, name: Span { start: 0, end: 0 } }, list: Vec::new() }
    }

    /// Makes it ready for the next section; the list keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.line.at = At::Start;
        self.list.clear();
    }

    /// The caller has removed `count` bytes before the current position: the current line now begins that much earlier.
    /// Lines already in the list become meaningless.
    pub(crate) fn moved_back(&mut self, count: usize) {
        self.line.mark = self.line.mark.saturating_sub(count);
    }

    pub(crate) fn list(&self) -> &[Field] {
        &self.list
    }

    /// Reads on from `*pos` to the end of the section (`Ok(true)`) or of the window (`Ok(false)`).
    ///
    /// # Errors
    ///
    /// [`Reject::Field`] for broken grammar, [`Reject::HeadTooLarge`] for more than `count_max` fields.
    #[expect(clippy::arithmetic_side_effects)] // All are positions in the window: none is past its end.
    pub(crate) fn advance(&mut self, window: &[u8], pos: &mut usize, count_max: usize) -> Result<bool, Reject> {
        // Copies, so that they can stay in registers while a line is read.
        let (mut line, mut rest) = (self.line, window.get(*pos..).unwrap_or_default());
        // Invariant: `rest` is the end of the window.
        let place = |rest: &[u8]| window.len() - rest.len();
        // Each part falls through to the next.
        let is_whole = loop {
            if line.at == At::Start {
                match rest {
                    [] => break false,
                    [b'\r', after @ ..] => (line.at, rest) = (At::EndLf, after),
                    _ if self.list.len() >= count_max => return Err(Reject::HeadTooLarge),
                    // An empty name, the leading space of a folded line, a bare LF. Found here, not by the name's
                    // length: its beginning may have been moved away before the colon comes.
                    [byte, ..] if !is_tchar(*byte) => return Err(Reject::Field),
                    _ => (line.at, line.mark) = (At::Name, place(rest)),
                }
            }
            if line.at == At::Name {
                rest = behind_tchars(rest);
                let end = place(rest);
                match rest {
                    [] => break false,
                    [b':', after @ ..] => (line.name, rest) = (Span::new(line.mark, end), after),
                    // A space before the colon, or no colon at all.
                    _ => return Err(Reject::Field),
                }
                (line.at, line.mark) = (At::Value, end + 1);
            }
            if line.at == At::Value {
                rest = behind_value(rest);
                match rest {
                    [] => break false,
                    [b'\r', after @ ..] => {
                        let value = trimmed(window, line.mark, place(rest));
                        self.list.push(Field { name: line.name, value });
                        (line.at, rest) = (At::ValueLf, after);
                    }
                    // A bare LF, NUL or another control character.
                    _ => return Err(Reject::Field),
                }
            }
            match rest {
                [] => break false,
                [b'\n', after @ ..] => rest = after,
                // A bare CR.
                _ => return Err(Reject::Field),
            }
            if line.at == At::EndLf {
                break true;
            }
            line.at = At::Start;
        };
        (self.line, *pos) = (line, place(rest));
        Ok(is_whole)
    }
}

/// The stretch from `start` to `end`, without the white space around it.
#[expect(clippy::arithmetic_side_effects)] // A part of what ends at `end` is no longer than `end`.
fn trimmed(window: &[u8], start: usize, end: usize) -> Span {
    let mut value = window.get(start..end).unwrap_or_default();
    // Of the bytes that a value may have, only SP and HTAB are not above SP.
    while let [..=b' ', after @ ..] = value {
        value = after;
    }
    let start = end - value.len();
    while let [before @ .., ..=b' '] = value {
        value = before;
    }
    Span::new(start, start + value.len())
}
