//! What the hand-off's words and permits are made of. A model checker puts its own in this place.

pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Mutex, PoisonError};
