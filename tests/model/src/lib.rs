//! See Cargo.toml.

mod http;
#[cfg_attr(not(test), expect(unused_imports))]
mod server;
mod sync;

#[path = "../../../src/group.rs"]
mod group;
#[path = "../../../src/helpers.rs"]
mod helpers;
#[path = "../../../src/outcome.rs"]
mod outcome;
#[expect(unused_imports)] // What the real `http` needs of it.
#[path = "../../../src/panics.rs"]
mod panics;
#[path = "../../../src/stop.rs"]
mod stop;

#[cfg(test)]
mod tests;
