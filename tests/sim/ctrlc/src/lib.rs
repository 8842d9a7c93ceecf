//! The face of `ctrlc`, as far as `signals` needs it. A simulation calls the handler when its plan says so.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The real one takes any `FnMut`. One that is never left, since it ends the process, must not be lost here.
type Handler = Arc<dyn Fn() + Send + Sync>;

static HANDLER: Mutex<Option<Handler>> = Mutex::new(None);

#[derive(Debug)]
pub enum Error {
    NoSuchSignal,
    MultipleHandlers,
    System(std::io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Error {}

/// # Errors
///
/// None.
pub fn set_handler(handler: impl Fn() + Send + Sync + 'static) -> Result<(), Error> {
    *HANDLER.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(handler));
    Ok(())
}

/// A signal has come. One caller at a time, as the real one has one thread.
pub fn raise() {
    let handler = HANDLER.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(handler) = handler {
        handler();
    }
}
