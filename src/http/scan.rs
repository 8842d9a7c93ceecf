//! What comes behind a run of bytes of one class: every byte of a head passes through here, and none more than twice.
//!
//! The classes' tables judge one byte after the other, eight without looking for the end. Values and targets are long,
//! and their classes a few ranges: sixteen bytes at a time are judged together, by comparisons without a branch, which
//! compilers turn into the vector instructions of whatever machine they build for, so that none need be named here.

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
    behind(behind_many(bytes, |byte| !matches!(byte, b' '..=b'~')), is_value)
}

/// Behind the rest of a request target.
#[inline(always)]
pub(crate) fn behind_target(bytes: &[u8]) -> &[u8] {
    behind(behind_many(bytes, |byte| !matches!(byte, b'!'..=b'~') || byte == b'#'), is_target)
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

    /// The same rule, counting.
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
