//! What threads share state by, and threads themselves: std's. A model checker puts its own in this place, and runs the
//! group, the stop and the hand-off, unchanged, through every order that it can think of (`tests/model`).

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::mpsc::{SyncSender, sync_channel};
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
pub(crate) use std::thread::{Builder, JoinHandle};
