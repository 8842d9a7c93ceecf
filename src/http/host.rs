//! The value of `Host`, and the authority of an absolute target: a host, with or without a port.

use std::net::Ipv6Addr;

use super::grammar::escape;
use super::scan::behind_reg_name;

/// `uri-host [ ":" port ]` of RFC 9110 §7.2. An empty host is allowed, as there; a port without a host is not. The only
/// literals in brackets that are accepted are IPv6 addresses: no other kind has ever been defined.
pub(crate) fn is_host(value: &[u8]) -> bool {
    let port = match value {
        [b':', ..] => return false,
        [b'[', rest @ ..] => {
            let (literal, after) = rest.split_at(rest.iter().position(|byte| *byte == b']').unwrap_or(rest.len()));
            let [b']', port @ ..] = after else {
                return false;
            };
            if !std::str::from_utf8(literal).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok()) {
                return false;
            }
            port
        }
        _ => behind_name(value),
    };
    match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// What follows the `reg-name` at the beginning of `text`.
fn behind_name(text: &[u8]) -> &[u8] {
    let mut rest = text;
    loop {
        rest = behind_reg_name(rest);
        match escape(rest) {
            Some((_, after)) => rest = after,
            None => return rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for right in [
            "",
            "a",
            "a.test:80",
            "a:",
            "127.0.0.1",
            "[::1]",
            "[::1]:8080",
            "[::ffff:1.2.3.4]",
            "a%2db",
            "x!$&'()*+,;=~",
        ] {
            assert!(is_host(right.as_bytes()), "{right:?}");
        }
        for wrong in [
            "a b",
            "a/b",
            "a@b",
            "::1",
            "[::1",
            "[]",
            "[::1]x",
            "[:::1]",
            "[1]",
            "[12345::]",
            "[::1%25lo]",
            ":",
            ":80",
            "a:8x",
            "a%2",
            "a%zz",
            "{a}",
            "a?b",
            "\u{e9}",
        ] {
            assert!(!is_host(wrong.as_bytes()), "{wrong:?}");
        }
    }
}
