//! The files of Unix sockets: whoever binds one removes it, even on a way out that drops nothing.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// All that this process has bound and not removed. It is locked from before the file is there until it is entered, so
/// that [`remove_all`] misses none.
static FILES: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A Unix socket's file. Dropping this removes it, if it is still the same file.
#[derive(Debug)]
pub(crate) struct SocketFile(File);

#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    path: PathBuf,
    /// Device and inode: another server may have put its own file in this place.
    identity: (u64, u64),
}

/// Binds a Unix socket.
///
/// # Errors
///
/// Those of [`UnixListener::bind`], and of looking at the file that it has made.
pub(crate) fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let mut files = files();
    let socket = UnixListener::bind(path)?;
    // The working directory may change before the file is removed.
    let path = std::path::absolute(path)?;
    let file = File { identity: identity(&path)?, path };
    files.push(file.clone());
    Ok((socket, SocketFile(file)))
}

/// Removes them all.
pub(crate) fn remove_all() {
    files().drain(..).for_each(|file| file.remove());
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let mut files = files();
        if let Some(place) = files.iter().position(|file| *file == self.0) {
            files.swap_remove(place).remove();
        }
    }
}

impl File {
    fn remove(&self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

// Nothing panics while it is locked.
fn files() -> MutexGuard<'static, Vec<File>> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}
