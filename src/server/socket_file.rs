//! The files of Unix sockets: the process that binds one removes it, even on an exit that drops nothing.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
#[cfg(target_os = "linux")]
use std::time::Duration;

#[cfg(target_os = "linux")]
use crate::sync;
use crate::sync::{Mutex, MutexGuard};

/// How long others may take to bind: longer than any of them waits for a server that does not answer.
#[cfg(target_os = "linux")]
const CLAIM_TIMEOUT: Duration = Duration::from_secs(2);
#[cfg(target_os = "linux")]
const CLAIM_PAUSE: Duration = Duration::from_millis(1);

static FILES: Files = Files::new();

/// All files that this process has bound and not removed. `None` once all have been removed: the process is about to
/// end, and a thread that is still binding must not leave another file behind. Locked from before a file exists until
/// it is entered here, so that none is missed.
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
    /// Device and inode: another server may have put its own file at this path.
    identity: (u64, u64),
}

/// Binds a Unix socket.
///
/// # Errors
///
/// Those of [`UnixListener::bind`], and of examining the file that it made; or the process is about to end.
pub(crate) fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    FILES.bind(path)
}

/// The right to examine the sockets of a folder, and to bind there. Only one process has it at a time.
#[derive(Debug)]
pub(crate) struct Claim {
    _name: Option<UnixDatagram>,
}

/// Waits for the right to bind a socket at this path. Without it, two processes that find a stale file at the same time
/// would both remove it, and the second would remove the first one's own.
///
/// On Linux the right is an abstract socket's name, made from the folder: only one process in a network namespace can
/// have it, it leaves nothing in the file system, and it ends with the process, however that ends. On other systems, or
/// where the name cannot be bound for another reason, everybody may go on at once.
///
/// # Errors
///
/// Somebody else has had it for too long; or the folder cannot be examined.
#[cfg(target_os = "linux")]
pub(crate) fn claim(path: &Path) -> io::Result<Claim> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = std::fs::metadata(folder)?;
    let name = SocketAddr::from_abstract_name(format!("allout binds in {}:{}", folder.dev(), folder.ino()))?;
    let started = sync::now();
    loop {
        match UnixDatagram::bind_addr(&name) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && sync::now() - started < CLAIM_TIMEOUT => {
                sync::sleep(CLAIM_PAUSE);
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(io::Error::new(error.kind(), "another process is binding a socket in its folder"));
            }
            claimed => return Ok(Claim { _name: claimed.ok() }),
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn claim(_: &Path) -> io::Result<Claim> {
    Ok(Claim { _name: None })
}

/// Removes all files, for good.
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
        // Absolute, since the working directory may change before the file is removed.
        let absolute = std::path::absolute(path)?;
        let socket = UnixListener::bind(path)?;
        let identity = identity(&absolute).inspect_err(|_| _ = std::fs::remove_file(&absolute))?;
        let file = File { identity, path: absolute };
        files.push(file.clone());
        Ok((socket, SocketFile { file, of: self }))
    }

    fn remove_all(&self) {
        self.lock().take().into_iter().flatten().for_each(|file| file.remove());
    }

    // Nothing panics while this is locked.
    fn lock(&self) -> MutexGuard<'_, Option<Vec<File>>> {
        self.0.lock()
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
