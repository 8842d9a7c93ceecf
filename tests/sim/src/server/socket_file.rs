//! Unix sockets have no files here.

pub(crate) fn remove_all() {}
