//! What a client reads: one answer after another, each whole, and nothing else.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// As `Content-Length` has it.
    pub(crate) length: Option<usize>,
    pub(crate) closes: bool,
    /// How many bytes it took.
    pub(crate) bytes: usize,
}

/// The first answer in these bytes. `None`: it is not whole.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn first(bytes: &[u8], is_to_head: bool, has_ended: bool) -> Result<Option<Answer>, String> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() > 8192 { Err("a head without end".to_owned()) } else { Ok(None) };
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "a head that is no text".to_owned())?;
    let body = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    let Some(status) = status else { return Err(format!("a status line `{line}`")) };
    if status == 100 {
        return Ok(Some(Answer { status, body: Vec::new(), length: None, closes: false, bytes: end + 4 }));
    }
    let (mut length, mut is_chunked, mut closes, mut dates) = (None, false, false, 0);
    for line in lines {
        let Some((name, value)) = line.split_once(": ") else { return Err(format!("a field `{line}`")) };
        match name {
            "Content-Length" if length.is_none() => length = Some(value.parse().map_err(|_| format!("`{line}`"))?),
            "Transfer-Encoding" if value == "chunked" && !is_chunked => is_chunked = true,
            "Connection" => closes = value == "close",
            "Date" if value.len() == 29 && value.ends_with(" GMT") => dates += 1,
            "Content-Type" | "Retry-After" | "Allow" => {}
            _ => return Err(format!("a field `{line}`")),
        }
    }
    if dates != 1 || (is_chunked && length.is_some()) {
        return Err(format!("a head with {dates} dates: `{head}`"));
    }
    let is_bodiless = is_to_head || status == 204 || status == 304;
    let whole = |body: &[u8], taken: usize| {
        Ok(Some(Answer { status, body: body.to_vec(), length, closes, bytes: end + 4 + taken }))
    };
    match length {
        _ if is_bodiless => whole(&[], 0),
        Some(length) if body.len() >= length => whole(&body[..length], length),
        Some(_) => Ok(None),
        None if is_chunked => match chunks(body)? {
            Some((body, taken)) => whole(&body, taken),
            None => Ok(None),
        },
        None if has_ended => whole(body, body.len()),
        None => Ok(None),
    }
}

fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(length) = bytes[at..].windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
        let size =
            std::str::from_utf8(&bytes[at..at + length]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let Some(size) = size else { return Err(format!("a chunk's size {:?}", &bytes[at..at + length])) };
        at += length + 2;
        let Some(content) = bytes.get(at..at + size + 2) else { return Ok(None) };
        if !content.ends_with(b"\r\n") {
            return Err("a chunk without its end".to_owned());
        }
        body.extend_from_slice(&content[..size]);
        at += size + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}
