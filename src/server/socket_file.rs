//! The files of Unix sockets: whoever binds one removes it, even on a way out that drops nothing.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

static FILES: Files = Files::new();

/// All that this process has bound and not removed. `None` once they have all been removed: the process is about to
/// end, and a thread that is still binding must not leave another behind. Locked from before a file is there until it
/// is entered, so that none is missed.
#[derive(Debug)]
struct Files(Mutex<Option<Vec<File>>>);

/// A Unix socket's file. Dropping this removes it, if it is still the same file.
#[derive(Debug)]
pub(crate) struct SocketFile {
    file: File,
    of: &'static Files,
}

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
/// Those of [`UnixListener::bind`], and of looking at the file that it has made; and that the process is about to end.
pub(crate) fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    FILES.bind(path)
}

/// Removes them all, for good.
pub(crate) fn remove_all() {
    FILES.remove_all();
}

impl Files {
    const fn new() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }

    fn bind(&'static self, path: &Path) -> io::Result<(UnixListener, SocketFile)> {
        let mut files = self.lock();
        let Some(files) = &mut *files else {
            return Err(io::Error::other("the process is about to end"));
        };
        let socket = UnixListener::bind(path)?;
        // The working directory may change before the file is removed.
        let path = std::path::absolute(path)?;
        let file = File { identity: identity(&path)?, path };
        files.push(file.clone());
        Ok((socket, SocketFile { file, of: self }))
    }

    fn remove_all(&self) {
        self.lock().take().into_iter().flatten().for_each(|file| file.remove());
    }

    // Nothing panics while it is locked.
    fn lock(&self) -> MutexGuard<'_, Option<Vec<File>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let mut files = self.of.lock();
        let Some(files) = &mut *files else { return };
        if let Some(place) = files.iter().position(|file| *file == self.file) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_is_left_behind_by_whoever_binds_late() {
        static FILES: Files = Files::new();
        let path = |name: &str| std::env::temp_dir().join(format!("allout-{}-{name}", std::process::id()));
        let (early, late) = (path("early"), path("late"));
        let bound = FILES.bind(&early).unwrap();
        assert!(early.exists());
        FILES.remove_all();
        assert!(!early.exists());
        FILES.bind(&late).unwrap_err();
        assert!(!late.exists());
        drop(bound);
    }
}
