//! A route's path: exact segments and `{captures}`.

use super::grammar::unescaped;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Exact(String),
    Capture(String),
}

/// A path to match against, `/users/{id}` for example. A capture matches one whole, non-empty segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    text: String,
    segments: Vec<Segment>,
    captures: usize,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// What is wrong with it, as a text for the programmer.
    pub(crate) fn new(text: &str) -> Result<Self, &'static str> {
        let path = text.strip_prefix('/').ok_or("must begin with `/`")?;
        let mut segments: Vec<Segment> = Vec::new();
        for part in path.split('/') {
            let name = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let segment = match name {
                Some("") => return Err("has a capture without a name"),
                Some(name) => Segment::Capture(name.to_owned()),
                None if part.contains(['{', '}']) => {
                    return Err("has a capture that is not a whole segment");
                }
                None => Segment::Exact(part.to_owned()),
            };
            if matches!(segment, Segment::Capture(_)) && segments.contains(&segment) {
                return Err("has two captures of one name");
            }
            segments.push(segment);
        }
        let captures = segments.iter().filter(|segment| matches!(segment, Segment::Capture(_))).count();
        Ok(Self { text: text.to_owned(), segments, captures })
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// How many captures it has: if two patterns match a path, the one with fewer wins.
    pub(crate) fn captures(&self) -> usize {
        self.captures
    }

    /// True if both match exactly the same paths, whatever the names of their captures.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(|pair| match pair {
                (Segment::Exact(one), Segment::Exact(two)) => one == two,
                (Segment::Capture(_), Segment::Capture(_)) => true,
                _ => false,
            })
    }

    /// True if `raw_path`, a path as sent, matches. Segments are compared decoded; `%2F` is no separator.
    pub(crate) fn matches(&self, raw_path: &[u8]) -> bool {
        if self.captures == 0 && raw_path == self.text.as_bytes() {
            return true;
        }
        let [b'/', path @ ..] = raw_path else {
            return false;
        };
        let mut parts = path.split(|byte| *byte == b'/');
        let fits = self.segments.iter().all(|segment| match (segment, parts.next()) {
            (_, None) => false,
            (Segment::Capture(_), Some(part)) => !part.is_empty(),
            (Segment::Exact(text), Some(part)) => {
                text.as_bytes() == part || (part.contains(&b'%') && unescaped(part) == text.as_bytes())
            }
        });
        fits && parts.next().is_none()
    }

    /// The part of a matching path that a capture matches, as sent.
    pub(crate) fn capture<'p>(&self, raw_path: &'p str, name: &str) -> Option<&'p str> {
        let parts = raw_path.strip_prefix('/')?.split('/');
        self.segments
            .iter()
            .zip(parts)
            .find(|(segment, _)| matches!(segment, Segment::Capture(have) if have == name))
            .map(|(_, part)| part)
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[track_caller]
    fn check(pattern: &str, path: &str, captured: Option<&str>) {
        let pattern = Pattern::new(pattern).expect("a good pattern");
        let found = pattern.matches(path.as_bytes()).then(|| pattern.capture(path, "x").unwrap_or(""));
        assert_eq!(found, captured);
    }

    #[test]
    fn paths() {
        check("/ping", "/ping", Some(""));
        check("/ping", "/%70ing", Some(""));
        check("/ping", "/ping/", None);
        check("/ping", "/pin", None);
        check("/ping", "/PING", None);
        check("/ping", "*", None);
        check("/", "/", Some(""));
        check("/a/{x}", "/a/b", Some("b"));
        check("/a/{x}", "/a/b%2Fc", Some("b%2Fc"));
        check("/a/{x}", "/a/", None);
        check("/a/{x}", "/a/b/c", None);
        check("/a/{x}", "/a", None);
        check("/a/b", "/a", None);
        check("/{x}/b", "/a/b", Some("a"));
        check("/{x}/b", "/a/c", None);
    }

    #[test]
    fn bad_patterns() {
        for wrong in ["", "ping", "/{}", "/a{b}", "/{a}b", "/{a}/{a}", "/}{"] {
            assert!(Pattern::new(wrong).is_err(), "{wrong:?}");
        }
    }
}
