//! Closures that come with a response, to be called once it has left, or to write its body.
//!
//! A response may end anywhere: on an event loop, on a worker's thread, in an inbox that is closed, at the deadline.
//! Wherever that is, its closures are called there, or dropped without having been called, and either may panic. So the
//! net is in the values themselves, and nobody who drops one needs to think of it.

use std::fmt;
use std::sync::Arc;

use crate::panics::{Panic, caught, is_unwinding};

/// What went wrong when it was called or dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault<'a> {
    Panicked(&'a Panic),
    /// It has returned an error, with this text.
    Failed(&'a str),
}

/// Told of faults. Must not panic itself.
pub(crate) type OnFault = Arc<dyn Fn(Fault<'_>) + Send + Sync>;

/// A closure of the embedder's.
pub(crate) struct Given<F> {
    /// `None` once it has been called.
    closure: Option<F>,
    /// `None` as long as its handler has the response: until then, a panic is the handler's own.
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

    /// Calls it. `None`: it has panicked, which has been told.
    pub(crate) fn call<T>(mut self, call: impl FnOnce(F) -> T) -> Option<T> {
        let closure = self.closure.take()?;
        self.guard(|| call(closure))
    }

    /// Who is told of what goes wrong.
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

/// What is called once an answer has left, or was lost: each exactly once, in order, by being dropped. In a box, so
/// that an answer without any is no larger for it, and dropped without a call.
#[derive(Default)]
pub(crate) struct AfterAnswer(Option<Box<Closures>>);

#[derive(Default)]
struct Closures(Vec<Given<Box<dyn FnOnce() + Send>>>);

impl AfterAnswer {
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    pub(crate) fn push(&mut self, then: impl FnOnce() + Send + 'static) {
        self.0.get_or_insert_default().0.push(Given::new(Box::new(then)));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn tell(&mut self, on_fault: &OnFault) {
        self.0.iter_mut().flat_map(|closures| &mut closures.0).for_each(|given| given.tell(on_fault));
    }
}

impl Drop for Closures {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            let first = self.0.remove(0);
            // Called behind the first, even if that panics.
            let _others = Self(std::mem::take(&mut self.0));
            first.call(|then| then());
        }
    }
}

impl fmt::Debug for AfterAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AfterAnswer")
    }
}
