//! Field lines as they arrive: `*( field-name ":" OWS field-value OWS CRLF ) CRLF` (RFC 9112 §5).
//!
//! One machine for the header section and for the trailer section. It keeps its place between calls, so a section
//! that comes a byte at a time costs no more than one that comes whole, and both meet the same verdict at the same
//! byte: nothing here depends on how the bytes were cut.
//!
//! ```text
//! LineStart ──tchar──▶ Name ──":"──▶ Value ──CR──▶ ValueLf ──LF──▶ LineStart
//!     └──CR──▶ EndLf ──LF──▶ done
//! ```

use super::grammar::{is_tchar, is_value};
use super::reject::Reject;

/// A stretch of the request's bytes. Heads are limited far below `u32::MAX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        // Saturates only past 4 GiB, which no section limit admits; `of` would then find nothing.
        let narrow = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self { start: narrow(start), end: narrow(end) }
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
    LineStart,
    Name,
    Value,
    ValueLf,
    EndLf,
}

#[derive(Debug)]
pub(crate) struct FieldLines {
    at: At,
    /// Where the name, or after the colon the value, of the current line began.
    mark: usize,
    name: Span,
    list: Vec<Field>,
}

impl FieldLines {
    pub(crate) const fn new() -> Self {
        Self { at: At::LineStart, mark: 0, name: Span { start: 0, end: 0 }, list: Vec::new() }
    }

    /// Ready for the next section; the list keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.at = At::LineStart;
        self.list.clear();
    }

    /// The caller has removed `count` bytes before the place reached: the current line now begins so much earlier.
    /// The lines that are already listed point nowhere from then on.
    pub(crate) fn moved_back(&mut self, count: usize) {
        self.mark = self.mark.saturating_sub(count);
    }

    pub(crate) fn list(&self) -> &[Field] {
        &self.list
    }

    /// Reads on from `*pos` to the end of the section, `Ok(true)`, or of the window, `Ok(false)`.
    ///
    /// # Errors
    ///
    /// [`Reject::Field`] for broken grammar, [`Reject::HeadTooLarge`] for more than `count_max` fields.
    #[expect(clippy::arithmetic_side_effects)] // Invariant: *pos < window.len() wherever it grows by one.
    pub(crate) fn advance(&mut self, window: &[u8], pos: &mut usize, count_max: usize) -> Result<bool, Reject> {
        while let Some(&byte) = window.get(*pos) {
            match self.at {
                At::LineStart if byte == b'\r' => self.at = At::EndLf,
                At::LineStart => {
                    if self.list.len() >= count_max {
                        return Err(Reject::HeadTooLarge);
                    }
                    // An empty name, a folded line's leading space, a bare LF. Told here and not by the length of the
                    // name, whose beginning may have been moved away before the colon comes.
                    if !is_tchar(byte) {
                        return Err(Reject::Field);
                    }
                    self.mark = *pos;
                    self.at = At::Name;
                    continue;
                }
                At::Name => {
                    *pos += run(window, *pos, is_tchar);
                    match window.get(*pos) {
                        None => return Ok(false),
                        Some(b':') => self.name = Span::new(self.mark, *pos),
                        // A space before the colon, or no colon at all.
                        Some(_) => return Err(Reject::Field),
                    }
                    self.mark = *pos + 1;
                    self.at = At::Value;
                }
                At::Value => {
                    *pos += run(window, *pos, is_value);
                    match window.get(*pos) {
                        None => return Ok(false),
                        Some(b'\r') => self.at = At::ValueLf,
                        // A bare LF, NUL and the other control characters.
                        Some(_) => return Err(Reject::Field),
                    }
                    let value = trimmed(window, self.mark, *pos);
                    self.list.push(Field { name: self.name, value });
                }
                At::ValueLf if byte == b'\n' => self.at = At::LineStart,
                At::EndLf if byte == b'\n' => {
                    *pos += 1;
                    return Ok(true);
                }
                // A bare CR.
                At::ValueLf | At::EndLf => return Err(Reject::Field),
            }
            *pos += 1;
        }
        Ok(false)
    }
}

/// The stretch between `start` and `end` without the white space around it.
#[expect(clippy::arithmetic_side_effects)] // Invariant: start < end wherever one moves towards the other.
fn trimmed(window: &[u8], mut start: usize, mut end: usize) -> Span {
    let is_ows = |at: usize| matches!(window.get(at), Some(b' ' | b'\t'));
    while start < end && is_ows(start) {
        start += 1;
    }
    while start < end && is_ows(end - 1) {
        end -= 1;
    }
    Span::new(start, end)
}

/// How many bytes from `pos` on are of a class.
fn run(window: &[u8], pos: usize, class: impl Fn(u8) -> bool) -> usize {
    let rest = window.get(pos..).unwrap_or_default();
    rest.iter().position(|byte| !class(*byte)).unwrap_or(rest.len())
}
