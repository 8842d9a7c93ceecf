//! The header fields of a request, as a handler sees them.

use super::fields::Field;

/// The header fields of a request, in the order in which they came.
///
/// Names compare without regard to case (RFC 9110 §5.1). Values are bytes: nearly all are ASCII, but RFC 9110 §5.5
/// allows octets from 0x80 as opaque data.
#[derive(Clone, Copy)]
pub struct Headers<'a> {
    fields: &'a [Field],
    bytes: &'a [u8],
}

impl<'a> Headers<'a> {
    pub(crate) fn new(fields: &'a [Field], bytes: &'a [u8]) -> Self {
        Self { fields, bytes }
    }

    /// The value of the first field of this name, without surrounding white space.
    #[inline(never)]
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.get_all(name).next()
    }

    /// The value of the first field of this name, if it is UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&'a str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The values of all fields of this name.
    pub fn get_all<'b>(&self, name: &'b str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'b> {
        self.iter().filter(move |(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All fields: the name as sent, and the value.
    pub fn iter(&self) -> HeadersIter<'a> {
        HeadersIter { fields: self.fields.iter(), bytes: self.bytes }
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

impl<'a> IntoIterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);
    type IntoIter = HeadersIter<'a>;

    fn into_iter(self) -> HeadersIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &Headers<'a> {
    type Item = (&'a str, &'a [u8]);
    type IntoIter = HeadersIter<'a>;

    fn into_iter(self) -> HeadersIter<'a> {
        self.iter()
    }
}

/// What [`Headers::iter`] gives.
#[derive(Clone)]
pub struct HeadersIter<'a> {
    fields: std::slice::Iter<'a, Field>,
    bytes: &'a [u8],
}

impl<'a> Iterator for HeadersIter<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let field = self.fields.next()?;
        Some(self.read(field))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.fields.size_hint()
    }
}

impl DoubleEndedIterator for HeadersIter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let field = self.fields.next_back()?;
        Some(self.read(field))
    }
}

impl ExactSizeIterator for HeadersIter<'_> {}

impl std::iter::FusedIterator for HeadersIter<'_> {}

impl<'a> HeadersIter<'a> {
    fn read(&self, field: &Field) -> (&'a str, &'a [u8]) {
        // A name consists of tchar, which is ASCII, so it is always text.
        let name = std::str::from_utf8(field.name.of(self.bytes)).unwrap_or_default();
        (name, field.value.of(self.bytes))
    }
}

impl std::fmt::Debug for HeadersIter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.clone().map(|(name, _)| name)).finish()
    }
}

impl std::fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lossy = self.iter().map(|(name, value)| (name, String::from_utf8_lossy(value)));
        f.debug_map().entries(lossy).finish()
    }
}
