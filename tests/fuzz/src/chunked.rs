//! Chunked bodies: the decoder against itself, cut anywhere, and against one that is written to be read.

use crate::dice::Dice;
use crate::http::Progress;
use crate::reader::{DEFAULT, End, Limits, TIGHT, read, read_whole};

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

pub fn check(data: &[u8]) {
    let mut dice = Dice::of(data);
    let limits = if dice.once_in(2) { TIGHT } else { DEFAULT };
    let cuts = dice.cuts(data.len());
    check_cuts(data, &cuts, limits, &mut dice);
}

#[track_caller]
pub(crate) fn check_cuts(data: &[u8], cuts: &[usize], limits: Limits, dice: &mut Dice) {
    let input = [HEAD, data].concat();
    let cuts: Vec<usize> = std::iter::once(HEAD.len()).chain(cuts.iter().map(|at| HEAD.len() + at)).collect();
    let whole = read_whole(&input, limits);
    let cut = read(&input, &cuts, limits, || dice.once_in(2));
    assert_eq!(cut.requests, whole.requests, "cut at {cuts:?}");
    assert_eq!(cut.end, whole.end, "cut at {cuts:?}");

    let verdict = match (whole.requests.first(), whole.end) {
        (Some(seen), _) => Ok((seen.body.clone(), seen.end - HEAD.len())),
        (None, End::Waits(Progress::Body)) => Err(Stop::Ended),
        (None, End::Refused(_)) => Err(Stop::Broken),
        (None, End::Waits(other)) => panic!("the head is complete, but the progress is {other:?}"),
    };
    assert_eq!(verdict, decode(data, &limits), "by the plain decoder (right)");
}

// ---- The plain decoder ---------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The bytes end before the body does.
    Ended,
    Broken,
}

/// A chunked body from the front of `data`, and how many bytes it took: RFC 9112 §7.1 read aloud, with our limits.
fn decode(data: &[u8], limits: &Limits) -> Result<(Vec<u8>, usize), Stop> {
    let mut cursor = Cursor { data, at: 0 };
    let mut body = Vec::new();
    let mut extensions_left = 16 * 1024;
    loop {
        let size = size_line(&mut cursor, &mut extensions_left)?;
        if size > u128::from(limits.body.body_bytes) - body.len() as u128 {
            return Err(Stop::Broken);
        }
        if size == 0 {
            trailers(&mut cursor, limits)?;
            return Ok((body, cursor.at));
        }
        for _ in 0..size {
            body.push(cursor.next()?);
        }
        cursor.expect(b'\r')?;
        cursor.expect(b'\n')?;
    }
}

/// `1*HEXDIG *( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] ) CRLF`.
fn size_line(cursor: &mut Cursor<'_>, extensions_left: &mut usize) -> Result<u128, Stop> {
    let mut size: u128 = 0;
    let mut digits = 0;
    let mut byte = cursor.next()?;
    while let Some(digit) = char::from(byte).to_digit(16) {
        size = size * 16 + u128::from(digit);
        digits += 1;
        if digits > 16 {
            return Err(Stop::Broken);
        }
        byte = cursor.next()?;
    }
    if digits == 0 {
        return Err(Stop::Broken);
    }
    let mut socket = Extensions { cursor, byte, line_left: 1024, body_left: extensions_left };
    loop {
        let is_blank = socket.blanks()?;
        match socket.byte {
            b';' => socket.pass()?,
            b'\r' if !is_blank => break,
            _ => return Err(Stop::Broken),
        }
        socket.blanks()?;
        socket.token()?;
        let is_blank = socket.blanks()?;
        if socket.byte == b'=' {
            socket.pass()?;
            socket.blanks()?;
            if socket.byte == b'"' { socket.quoted_string()? } else { socket.token()? }
        } else if is_blank && socket.byte != b';' {
            return Err(Stop::Broken);
        }
    }
    cursor.expect(b'\n')?;
    Ok(size)
}

/// What stands between a size and the end of its socket, of which one byte is looked at.
struct Extensions<'c, 'a> {
    cursor: &'c mut Cursor<'a>,
    byte: u8,
    line_left: usize,
    body_left: &'c mut usize,
}

impl Extensions<'_, '_> {
    fn pass(&mut self) -> Result<(), Stop> {
        self.line_left = self.line_left.checked_sub(1).ok_or(Stop::Broken)?;
        *self.body_left = self.body_left.checked_sub(1).ok_or(Stop::Broken)?;
        self.byte = self.cursor.next()?;
        Ok(())
    }

    /// True if there are any.
    fn blanks(&mut self) -> Result<bool, Stop> {
        let is_blank = |byte| byte == b' ' || byte == b'\t';
        let begins = is_blank(self.byte);
        while is_blank(self.byte) {
            self.pass()?;
        }
        Ok(begins)
    }

    fn token(&mut self) -> Result<(), Stop> {
        if !is_of_token(self.byte) {
            return Err(Stop::Broken);
        }
        while is_of_token(self.byte) {
            self.pass()?;
        }
        Ok(())
    }

    fn quoted_string(&mut self) -> Result<(), Stop> {
        self.pass()?;
        while self.byte != b'"' {
            if self.byte == b'\\' {
                self.pass()?;
            }
            if !is_of_text(self.byte) {
                return Err(Stop::Broken);
            }
            self.pass()?;
        }
        self.pass()
    }
}

fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_of_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// `*( token ":" value CRLF ) CRLF`.
fn trailers(cursor: &mut Cursor<'_>, limits: &Limits) -> Result<(), Stop> {
    // All but what can be seen in fewer bytes than the limit is broken, whether or not it has ended.
    let room = cursor.data.len().min(cursor.at.saturating_add(limits.body.trailer_bytes));
    let is_cut_short = room - cursor.at == limits.body.trailer_bytes;
    let mut window = Cursor { data: &cursor.data[..room], at: cursor.at };
    let mut count = 0;
    let end = loop {
        match trailer(&mut window, count < limits.body.trailers) {
            Ok(true) => count += 1,
            Ok(false) => break Ok(()),
            Err(Stop::Ended) if is_cut_short => break Err(Stop::Broken),
            Err(stop) => break Err(stop),
        }
    };
    cursor.at = window.at;
    end
}

/// One trailer, or the empty socket: then false.
fn trailer(cursor: &mut Cursor<'_>, has_room: bool) -> Result<bool, Stop> {
    let mut byte = cursor.next()?;
    if byte == b'\r' {
        return cursor.expect(b'\n').map(|()| false);
    }
    if !has_room {
        return Err(Stop::Broken);
    }
    let mut name = 0;
    while is_of_token(byte) {
        name += 1;
        byte = cursor.next()?;
    }
    if name == 0 || byte != b':' {
        return Err(Stop::Broken);
    }
    byte = cursor.next()?;
    while is_of_text(byte) {
        byte = cursor.next()?;
    }
    if byte != b'\r' {
        return Err(Stop::Broken);
    }
    cursor.expect(b'\n').map(|()| true)
}

struct Cursor<'a> {
    data: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn next(&mut self) -> Result<u8, Stop> {
        let byte = *self.data.get(self.at).ok_or(Stop::Ended)?;
        self.at += 1;
        Ok(byte)
    }

    fn expect(&mut self, wanted: u8) -> Result<(), Stop> {
        if self.next()? == wanted { Ok(()) } else { Err(Stop::Broken) }
    }
}
