//! The face of `ctrlc`, as far as `signals` needs it. A simulation calls the handler when its plan says so.

use std::fmt;
use std::sync::{Mutex, PoisonError};

type Handler = Box<dyn FnMut() + Send>;

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
pub fn set_handler(handler: impl FnMut() + Send + 'static) -> Result<(), Error> {
    *HANDLER.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(handler));
    Ok(())
}

/// A signal has come. One caller at a time, as the real one has one thread.
pub fn raise() {
    let handler = HANDLER.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(mut handler) = handler {
        handler();
        HANDLER.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(handler);
    }
}
