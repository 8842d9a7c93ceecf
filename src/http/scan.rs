//! What comes behind a run of bytes of one class: every byte of a head passes through here, and none more than twice.
//!
//! The classes' tables judge one byte after the other, eight without looking for the end. Values and targets are long,
//! and their classes a few ranges: sixteen bytes at a time are judged together, by comparisons without a branch, which
//! compilers turn into the vector instructions of whatever machine they build for, so that none need be named here;
//! and what is left of them, eight at a time, as the bytes of one number.

use super::grammar::{is_plain, is_reg_name, is_target, is_tchar, is_value};

/// Bytes judged by the table between two looks for the end.
const FEW: usize = 8;
/// Bytes judged together: a vector register of x86-64 and of AArch64.
const MANY: usize = 16;

/// Behind the rest of a token, a field name for example.
#[inline(always)]
pub(crate) fn behind_tchars(bytes: &[u8]) -> &[u8] {
    behind(bytes, is_tchar)
}

/// Behind the rest of a field value.
#[inline(always)]
pub(crate) fn behind_value(bytes: &[u8]) -> &[u8] {
    // HTAB and obs-text are left to the table: they are rare, and without them a range is all there is to tell.
    let rest = behind_many(bytes, |byte| !matches!(byte, b' '..=b'~'));
    behind(behind_words(rest, |word| below::<b' '>(word) | above_tilde(word)), is_value)
}

/// Behind the rest of a request target.
#[inline(always)]
pub(crate) fn behind_target(bytes: &[u8]) -> &[u8] {
    let rest = behind_many(bytes, |byte| !matches!(byte, b'!'..=b'~') || byte == b'#');
    behind(behind_words(rest, |word| below::<b'!'>(word) | above_tilde(word) | equal::<b'#'>(word)), is_target)
}

/// Behind the rest of a host's name, or of a part of it between two escapes.
#[inline(always)]
pub(crate) fn behind_reg_name(bytes: &[u8]) -> &[u8] {
    behind(bytes, is_reg_name)
}

/// Behind what a target begins with that is neither an escape nor the mark of a query.
#[inline(always)]
pub(crate) fn behind_plain(bytes: &[u8]) -> &[u8] {
    behind(bytes, is_plain)
}

/// Behind the bytes for which `holds`.
#[inline(always)]
fn behind(bytes: &[u8], holds: impl Fn(u8) -> bool) -> &[u8] {
    #[cfg(test)]
    let holds = tests::counted(holds);
    let mut rest = bytes;
    while let Some((few, after)) = rest.split_first_chunk::<FEW>() {
        match few.iter().position(|byte| !holds(*byte)) {
            None => rest = after,
            Some(at) => return rest.get(at..).unwrap_or_default(),
        }
    }
    while let [byte, after @ ..] = rest {
        if !holds(*byte) {
            break;
        }
        rest = after;
    }
    rest
}

/// Behind as many whole blocks as have no byte that `stops`.
#[inline(always)]
fn behind_many(bytes: &[u8], stops: impl Fn(u8) -> bool) -> &[u8] {
    #[cfg(test)]
    let stops = tests::counted(stops);
    let mut rest = bytes;
    while let Some((many, after)) = rest.split_first_chunk::<MANY>() {
        if many.iter().fold(false, |found, byte| found | stops(*byte)) {
            break;
        }
        rest = after;
    }
    rest
}

/// Behind as many bytes as do not stop, as long as there are whole words of them. `stops` gives a word with the highest
/// bit of the first byte that does; of those behind it, it may give any.
#[inline(always)]
fn behind_words(bytes: &[u8], stops: impl Fn(u64) -> u64) -> &[u8] {
    let mut rest = bytes;
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        #[cfg(test)]
        tests::count(8);
        let stop = stops(u64::from_le_bytes(*word)).trailing_zeros() as usize / 8;
        if stop < 8 {
            return rest.get(stop..).unwrap_or_default();
        }
        rest = after;
    }
    rest
}

/// In each byte.
const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHEST: u64 = 0x8080_8080_8080_8080;

/// The bytes less than `LIMIT`, itself at most 128: what is taken from them borrows from their highest bit, and then
/// from the next byte, which may be found in error, but is not the first.
#[inline(always)]
fn below<const LIMIT: u8>(word: u64) -> u64 {
    word.wrapping_sub(ONES.wrapping_mul(LIMIT as u64)) & !word & HIGHEST
}

/// The bytes greater than `~`, the last that is printed: one more has their highest bit, or they have it already.
#[inline(always)]
fn above_tilde(word: u64) -> u64 {
    (word.wrapping_add(ONES) | word) & HIGHEST
}

#[inline(always)]
fn equal<const BYTE: u8>(word: u64) -> u64 {
    below::<1>(word ^ ONES.wrapping_mul(BYTE as u64))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        static LOOKS: Cell<usize> = const { Cell::new(0) };
    }

    /// How often a byte has been looked at on this thread.
    pub(crate) fn looks() -> usize {
        LOOKS.get()
    }

    /// So many bytes are looked at.
    pub(super) fn count(bytes: usize) {
        LOOKS.set(LOOKS.get().saturating_add(bytes));
    }

    /// The same rule, counting.
    pub(super) fn counted(rule: impl Fn(u8) -> bool) -> impl Fn(u8) -> bool {
        move |byte| {
            count(1);
            rule(byte)
        }
    }

    #[test]
    fn a_run_ends_where_its_class_does_wherever_that_is() {
        type Case = (fn(&[u8]) -> &[u8], fn(u8) -> bool, &'static [u8]);
        let cases: [Case; 5] = [
            (behind_tchars, is_tchar, b"aZ-9_"),
            (behind_value, is_value, b"a\t \xff~"),
            (behind_target, is_target, b"/a?~%\""),
            (behind_reg_name, is_reg_name, b"a.Z-0~!"),
            (behind_plain, is_plain, b"/a-~\""),
        ];
        for (behind, class, goes_on) in cases {
            for (length, byte) in (0..40).flat_map(|length| (0..=255).map(move |byte| (length, byte))) {
                for more in [&b""[..], b"a", b"\0 and more than a whole block of bytes"] {
                    let mut bytes: Vec<u8> = goes_on.iter().copied().cycle().take(length).collect();
                    bytes.push(byte);
                    bytes.extend_from_slice(more);
                    let wanted = bytes.iter().position(|byte| !class(*byte)).unwrap_or(bytes.len());
                    let found = bytes.len().saturating_sub(behind(&bytes).len());
                    assert_eq!(found, wanted, "{}", bytes.escape_ascii());
                }
            }
        }
    }
}
