//! The advisory lock that keeps two caches from one file: `flock`, shared for readers, exclusive for writers.
//!
//! All opens of a file in one cache share one lock, which lives as long as any of their devices; the engine keeps the
//! device while pages of it are dirty. A cache in another process, or a second one in this process, is kept out.
//!
//! **State.** `exclusive` guards the strength of the lock.

use highwater_engine::Error;
use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};
use std::os::fd::OwnedFd;
use std::path::Path;

pub(crate) struct FileLock {
    fd: OwnedFd,
    exclusive: Mutex<bool>,
}

impl FileLock {
    /// Locks the file behind `fd`.
    pub(crate) fn new(path: &Path, fd: OwnedFd, exclusive: bool) -> Result<FileLock, Error> {
        lock(path, &fd, exclusive)?;
        Ok(FileLock {
            fd,
            exclusive: Mutex::new(exclusive),
        })
    }

    /// Makes a shared lock exclusive.
    pub(crate) fn upgrade(&self, path: &Path) -> Result<(), Error> {
        let mut exclusive = self.exclusive.lock();
        if !*exclusive {
            if let Err(e) = lock(path, &self.fd, true) {
                // flock gives up the old lock before it tries for the new one.
                return lock(path, &self.fd, false).and(Err(e));
            }
            *exclusive = true;
        }
        Ok(())
    }
}

fn lock(path: &Path, fd: &OwnedFd, exclusive: bool) -> Result<(), Error> {
    let how = if exclusive {
        FlockOperation::NonBlockingLockExclusive
    } else {
        FlockOperation::NonBlockingLockShared
    };
    match flock(fd, how) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Conflict(format!(
            "{} is open in another cache{}; close it there (`lslocks` names the process), or open it here {}",
            path.display(),
            if exclusive { "" } else { " for writing" },
            if exclusive {
                "and there for reading only"
            } else {
                "through the same Cache"
            }
        ))),
        // A file system without locks: nothing can be kept out.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOLCK | rustix::io::Errno::NOSYS) => {
            tracing::warn!(path = %path.display(), "the file system has no locks: other caches are not kept out");
            Ok(())
        }
        Err(e) => Err(Error::os(format!("lock {}", path.display()), &e.into())),
    }
}
