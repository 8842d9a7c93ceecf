//! A handler that has been called: what for, and since when.

use std::borrow::Cow;
use std::time::Instant;

use super::streaming::Arriving;
use crate::http::Method;
use crate::sync::{self, Arc};

/// A handler that has been called, for the report of those that never returned.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// As it was sent; the beginning, if it is long.
    pub(crate) path: Vec<u8>,
    pub(crate) since: Instant,
    /// What had been read behind the request.
    pub(crate) behind: Vec<u8>,
    /// The body, if the handler reads it itself.
    pub(crate) body: Option<Arc<Arriving>>,
}

impl Call {
    /// As text. Where it was cut may have been in the middle of a character.
    pub(crate) fn path(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.path)
    }

    /// For how long, in seconds with one decimal. Without floating point, which takes its place in a small binary.
    pub(crate) fn age(&self) -> String {
        let tenths = (sync::now() - self.since).as_millis() / 100;
        format!("{}.{}", tenths / 10, tenths % 10)
    }

    pub(crate) fn nobody(now: Instant) -> Self {
        Self { method: Method::Get, path: Vec::new(), since: now, behind: Vec::new(), body: None }
    }

    /// The deadline has come: true if the request has too, wholly, so that its answer is owed.
    pub(crate) fn is_owed(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.has_come())
    }
}
