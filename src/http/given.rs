//! Closures that come with a response: to call once it has left, or to write its body.
//!
//! A response may end anywhere: on an event loop, on a worker's thread, in a closed inbox, at the deadline. There its
//! closures are called, or dropped uncalled, and either may panic. So the values themselves catch panics: code that
//! drops one need not think of it.

use std::fmt;
use std::sync::Arc;

use crate::panics::{Panic, caught, is_unwinding};

/// What went wrong when a closure was called or dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault<'a> {
    Panicked(&'a Panic),
    /// It returned an error with this text.
    Failed(&'a str),
}

/// Receives faults. Must not panic itself.
pub(crate) type OnFault = Arc<dyn Fn(Fault<'_>) + Send + Sync>;

/// A closure of the embedder's.
pub(crate) struct Given<F> {
    /// `None` once it has been called.
    closure: Option<F>,
    /// `None` while the handler still holds the response: a panic is then the handler's own.
    on_fault: Option<OnFault>,
}

impl<F> Given<F> {
    pub(crate) fn new(closure: F) -> Self {
        Self { closure: Some(closure), on_fault: None }
    }

    /// From now on neither a call nor a drop unwinds.
    pub(crate) fn tell(&mut self, on_fault: &OnFault) {
        self.on_fault = Some(Arc::clone(on_fault));
    }

    /// Calls it. `None`: it panicked, and the panic has been reported.
    pub(crate) fn call<T>(mut self, call: impl FnOnce(F) -> T) -> Option<T> {
        let closure = self.closure.take()?;
        self.guard(|| call(closure))
    }

    /// Where its faults are reported.
    pub(crate) fn on_fault(&self) -> Option<OnFault> {
        self.on_fault.clone()
    }

    fn guard<T>(&self, code: impl FnOnce() -> T) -> Option<T> {
        match &self.on_fault {
            Some(on_fault) => caught(code).map_err(|panic| on_fault(Fault::Panicked(&panic))).ok(),
            // The handler is panicking already: a second panic would abort the process.
            None if is_unwinding() => caught(code).ok(),
            None => Some(code()),
        }
    }
}

impl<F> Drop for Given<F> {
    fn drop(&mut self) {
        if let Some(closure) = self.closure.take() {
            self.guard(|| drop(closure));
        }
    }
}

/// Closures to call once an answer has left or is lost. Dropping this calls each exactly once, in order. Boxed, so that
/// an answer without any is no larger, and needs no call to be dropped.
#[derive(Default)]
pub(crate) struct AfterAnswer(Option<Box<Closures>>);

#[derive(Default)]
struct Closures {
    given: Vec<Given<Box<dyn FnOnce() + Send>>>,
    /// Called last, with how many bytes of a streamed body have left, and whether the whole answer has. Must not panic.
    tell: Option<Box<dyn FnOnce(u64, bool) + Send>>,
    streamed: u64,
    is_whole: bool,
}

impl AfterAnswer {
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    pub(crate) fn push(&mut self, then: impl FnOnce() + Send + 'static) {
        self.0.get_or_insert_default().given.push(Given::new(Box::new(then)));
    }

    /// Has the end of the answer told, after all closures.
    pub(crate) fn tell_end(&mut self, tell: impl FnOnce(u64, bool) + Send + 'static) {
        self.0.get_or_insert_default().tell = Some(Box::new(tell));
    }

    /// The answer has left, with so many bytes of a streamed body. If this is dropped without it, the answer is lost.
    #[inline]
    pub(crate) fn end(self, streamed: u64, is_whole: bool) {
        if let Some(mut closures) = self.0 {
            (closures.streamed, closures.is_whole) = (streamed, is_whole);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn tell(&mut self, on_fault: &OnFault) {
        self.0.iter_mut().flat_map(|closures| &mut closures.given).for_each(|given| given.tell(on_fault));
    }
}

impl Drop for Closures {
    fn drop(&mut self) {
        if !self.given.is_empty() {
            let first = self.given.remove(0);
            // Dropped, and so called, after the first, even if that panics.
            let _others = std::mem::take(self);
            first.call(|then| then());
        } else if let Some(tell) = self.tell.take() {
            tell(self.streamed, self.is_whole);
        }
    }
}

impl fmt::Debug for AfterAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AfterAnswer")
    }
}
