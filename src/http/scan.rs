//! Finds what follows a run of bytes of one class. Every byte of a head passes through here, at most twice.
//!
//! The class tables check byte by byte, and look for the end of the input only every eight bytes. Values and targets
//! are long, and their classes are a few ranges: so sixteen bytes at a time are checked together, by comparisons
//! without a branch. Compilers turn those into the vector instructions of their target, so none need be named here.

use super::grammar::{is_plain, is_reg_name, is_target, is_tchar, is_value};

/// How many bytes the table checks between two looks for the end of the input.
const FEW: usize = 8;
/// How many bytes are checked together: a vector register of x86-64 and of AArch64.
const MANY: usize = 16;

/// What follows the rest of a token (a field name, for example).
#[inline(always)]
pub(crate) fn behind_tchars(bytes: &[u8]) -> &[u8] {
    behind(bytes, is_tchar)
}

/// What follows the rest of a field value.
#[inline(always)]
pub(crate) fn behind_value(bytes: &[u8]) -> &[u8] {
    // The table handles HTAB and obs-text: they are rare, and without them the class is a single range.
    behind(behind_many(bytes, |byte| !matches!(byte, b' '..=b'~')), is_value)
}

/// What follows the rest of a request target.
#[inline(always)]
pub(crate) fn behind_target(bytes: &[u8]) -> &[u8] {
    behind(behind_many(bytes, |byte| !matches!(byte, b'!'..=b'~') || byte == b'#'), is_target)
}

/// What follows the rest of a host name, or of a part of it between two escapes.
#[inline(always)]
pub(crate) fn behind_reg_name(bytes: &[u8]) -> &[u8] {
    behind(bytes, is_reg_name)
}

/// What follows the beginning of a target that has neither an escape nor the `?` of a query.
#[inline(always)]
pub(crate) fn behind_plain(bytes: &[u8]) -> &[u8] {
    behind(bytes, is_plain)
}

/// What follows the bytes for which `holds`.
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

/// What follows the leading whole blocks in which no byte `stops`.
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        static LOOKS: Cell<usize> = const { Cell::new(0) };
    }

    /// How many looks at a byte this thread has made.
    pub(crate) fn looks() -> usize {
        LOOKS.get()
    }

    /// The same rule, counting its calls.
    pub(super) fn counted(rule: impl Fn(u8) -> bool) -> impl Fn(u8) -> bool {
        move |byte| {
            LOOKS.set(LOOKS.get().saturating_add(1));
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
