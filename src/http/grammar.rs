//! The character classes and numbers of the wire, each with its ABNF above it.
//!
//! Only this file reads the wire's numbers: `"+5".parse::<u64>()` succeeds, so std's parser does not suit the wire.

/// `tchar` of RFC 9110 §5.6.2: the characters of a method or a field name.
pub(crate) const fn is_tchar(byte: u8) -> bool {
    is(byte, TCHAR)
}

/// `field-vchar`, SP and HTAB of RFC 9110 §5.5: the characters of a field value. `obs-text` passes as opaque.
pub(crate) const fn is_value(byte: u8) -> bool {
    is(byte, VALUE)
}

/// The characters of a request target: those of RFC 3986, `%` included. Browsers also send `"<>[]\^`{|}` raw in
/// queries; these pass, since they cannot be mistaken for a delimiter of the request line. `#` does not: a fragment is
/// never sent (RFC 9112 §3.2).
pub(crate) const fn is_target(byte: u8) -> bool {
    is(byte, TARGET)
}

/// The characters of a `reg-name` (RFC 3986 §3.2.2), except its escapes.
pub(crate) const fn is_reg_name(byte: u8) -> bool {
    is(byte, REG_NAME)
}

/// The characters of a request target that stand for themselves: all except `%` and `?`.
pub(crate) const fn is_plain(byte: u8) -> bool {
    is(byte, PLAIN)
}

// A byte indexes 256 entries: this cannot be out of bounds, and compiles to one load.
#[expect(clippy::indexing_slicing)]
const fn is(byte: u8, class: u8) -> bool {
    CLASS[byte as usize] & class != 0
}

const TCHAR: u8 = 1;
const VALUE: u8 = 2;
const TARGET: u8 = 4;
const REG_NAME: u8 = 8;
const PLAIN: u8 = 16;

static CLASS: [u8; 256] = classes();

// Evaluated at compile time: an index out of bounds or an overflow would not compile.
#[expect(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte: usize = 0;
    while byte < 256 {
        // The cast cannot truncate: the loop ends at 255.
        #[expect(clippy::cast_possible_truncation)]
        let b = byte as u8;
        // tchar = "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "." / "^" / "_" / "`" / "|" / "~"
        //       / DIGIT / ALPHA
        if b.is_ascii_alphanumeric() || in_set(b, b"!#$%&'*+-.^_`|~") {
            table[byte] |= TCHAR;
        }
        // field-vchar = VCHAR / obs-text; SP and HTAB stand between them
        if b == b'\t' || (b >= b' ' && b != 0x7f) {
            table[byte] |= VALUE;
        }
        if b.is_ascii_graphic() && b != b'#' {
            table[byte] |= TARGET;
            if b != b'?' && b != b'%' {
                table[byte] |= PLAIN;
            }
        }
        // reg-name = *( unreserved / pct-encoded / sub-delims )
        if b.is_ascii_alphanumeric() || in_set(b, b"-._~!$&'()*+,;=") {
            table[byte] |= REG_NAME;
        }
        byte += 1;
    }
    table
}

#[expect(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
const fn in_set(byte: u8, set: &[u8]) -> bool {
    let mut i = 0;
    while i < set.len() {
        if set[i] == byte {
            return true;
        }
        i += 1;
    }
    false
}

/// `1*DIGIT`; no sign, no space, no overflow.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// The value of one `HEXDIG`, either case.
#[expect(clippy::arithmetic_side_effects)] // Each arm's range keeps its result below 16.
pub(crate) const fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// `text` without the optional white space around it (`OWS = *( SP / HTAB )`, RFC 9110 §5.6.3).
pub(crate) fn trim_ows(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The non-empty elements of a comma-separated list (`#element`, RFC 9110 §5.6.1).
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim_ows).filter(|element| !element.is_empty())
}

/// `pct-encoded` of RFC 3986 §2.1: the byte that the leading escape stands for, and what follows the escape.
pub(crate) fn escape(text: &[u8]) -> Option<(u8, &[u8])> {
    match text {
        [b'%', high, low, after @ ..] => Some((hex_digit(*high)? << 4 | hex_digit(*low)?, after)),
        _ => None,
    }
}

/// The bytes that a percent-encoded text stands for. A `%` that is not an escape stands for itself.
pub(crate) fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = escape(rest).or_else(|| rest.split_first().map(|(byte, after)| (*byte, after))) {
        bytes.push(byte);
        rest = after;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_takes_digits_alone() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"007"), Some(7));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for wrong in ["", "+5", "-5", " 5", "5 ", "0x5", "5,5", "18446744073709551616", "\u{665}"] {
            assert_eq!(decimal(wrong.as_bytes()), None, "{wrong:?}");
        }
    }

    #[test]
    fn escapes() {
        assert_eq!(escape(b"%2Fb"), Some((b'/', &b"b"[..])));
        assert_eq!(escape(b"%e9"), Some((0xe9, &b""[..])));
        for wrong in ["", "a", "%", "%2", "%zz", "%2z", "%%20", "a%20"] {
            assert_eq!(escape(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(unescaped(b"a%20b%2f%"), b"a b/%");
    }

    #[test]
    fn lists_leave_out_what_is_empty() {
        assert_eq!(list(b", a ,,b,").collect::<Vec<_>>(), [b"a", b"b"]);
    }
}
