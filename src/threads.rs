//! How the binary starts a thread.

use std::thread::{Builder, JoinHandle};

/// Starts a thread. Not generic: with each closure would come all the code that starts one.
///
/// # Errors
///
/// The system has no thread to give.
pub(crate) fn start(name: &str, body: Box<dyn FnOnce() + Send>) -> std::io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(body)
}
