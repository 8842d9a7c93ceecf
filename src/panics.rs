//! Catches panics of the embedder's code: none may end a thread of ours.
//!
//! ```text
//! caught(|| closure(…))   a call, with what it consumes      ──▶ Err(Panic) if it panicked, to be reported by its text
//! caught(|| drop(value))  a destructor, of one value a call  ──▶ the same
//! ```
//!
//! The value that a closure panics with is the embedder's too, and its destructor may panic in turn. A [`Panic`] holds
//! that value, so that its text can be reported first, and drops it safely.
//!
//! A second panic while the first unwinds aborts the process, and this module cannot prevent it. So one call never
//! drops two values of the embedder's: each gets its own call.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// True while a panic unwinds on this thread: a second panic that is not caught below would abort the process.
pub(crate) use crate::sync::panicking as is_unwinding;

/// How many destructors in a row may panic, each with the next one's value. They could do so for ever, and std cannot
/// free a value without running its destructor: a value that is left after that is leaked.
const ROUNDS_MAX: usize = 8;

/// Calls `code`. Nothing that it may leave half done may be visible to anybody else.
pub(crate) fn caught<T>(code: impl FnOnce() -> T) -> Result<T, Panic> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| Panic(Some(payload)))
}

/// A caught panic. Displays the panic's message, if it was text. Dropping it runs the destructor of the payload, which
/// may block.
pub(crate) struct Panic(Option<Box<dyn Any + Send>>);

impl Drop for Panic {
    // Once in the program, not wherever something is caught.
    #[inline(never)]
    fn drop(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let Some(payload) = self.0.take() else { return };
            self.0 = catch_unwind(AssertUnwindSafe(|| drop(payload))).err();
        }
        std::mem::forget(self.0.take());
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.as_ref().and_then(|payload| {
            let text = payload.downcast_ref::<&str>().copied();
            text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        });
        f.write_str(text.unwrap_or("(no text)"))
    }
}

impl fmt::Debug for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Panic({self})")
    }
}

#[cfg(test)]
mod tests {
    use crate::sync::Arc;
    use std::panic::panic_any;

    use super::*;

    /// Panics when it is dropped, with another of its kind while there are rounds left.
    struct Grenade(usize, Arc<()>);

    impl Drop for Grenade {
        fn drop(&mut self) {
            if self.0 > 0 {
                panic_any(Grenade(self.0 - 1, Arc::clone(&self.1)));
            }
        }
    }

    #[test]
    fn a_panic_says_its_text() {
        let (number, text) = (7, |code: fn(i32)| caught(move || code(7)).unwrap_err().to_string());
        assert_eq!(caught(|| number).unwrap(), 7);
        assert_eq!(text(|_| panic!("ouch")), "ouch");
        assert_eq!(text(|number| panic!("ouch {number}")), "ouch 7");
        assert_eq!(text(|number| panic_any(number)), "(no text)");
    }

    #[test]
    fn a_payload_is_dropped_although_its_destructor_panics() {
        for rounds in 0..ROUNDS_MAX {
            let held = Arc::new(());
            let grenade = Grenade(rounds, Arc::clone(&held));
            let panic = caught(|| panic_any(grenade)).unwrap_err();
            assert_eq!(panic.to_string(), "(no text)");
            assert_eq!(Arc::strong_count(&held), 2, "it is held until its text has been told");
            drop(panic);
            assert_eq!(Arc::strong_count(&held), 1, "{rounds} rounds");
        }
    }

    #[test]
    fn a_payload_that_never_stops_panicking_is_given_up() {
        let grenade = Grenade(usize::MAX, Arc::new(()));
        drop(caught(|| panic_any(grenade)));
    }

    #[test]
    fn a_destructor_is_caught_too() {
        let grenade = Grenade(1, Arc::new(()));
        assert!(caught(|| drop(grenade)).is_err());
    }
}
