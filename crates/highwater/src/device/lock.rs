//! The advisory lock that keeps two caches from one file: `flock`, shared for readers, exclusive for writers.
//!
//! All opens of a file in one cache share one lock, which lives as long as any of their devices; the engine keeps the
//! device while pages of it are dirty. A cache in another process, or a second one in this process, is kept out.
//!
//! **State.** `exclusive` guards the strength of the lock.
//!
//! **Invariants.** LOCK-1: the lock ends with the `FileLock` and not when the last reference to the open file goes: io_uring
//! lets a request's go some time after its answer. A child made by fork leaves it to its parent.

use crate::world::ForkMark;
use highwater_engine::Error;
use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

/// A lock that is just being given back is waited for: this cache's flusher may drop a file's last device while the file is
/// opened again.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(1);

pub(crate) struct FileLock {
    fd: OwnedFd,
    exclusive: Mutex<bool>,
    fork: ForkMark,
}

impl FileLock {
    /// Locks the file behind `fd`.
    pub(crate) fn new(path: &Path, fd: OwnedFd, exclusive: bool) -> Result<FileLock, Error> {
        lock(path, &fd, exclusive)?;
        Ok(FileLock {
            fd,
            exclusive: Mutex::new(exclusive),
            fork: ForkMark::new(),
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

impl Drop for FileLock {
    fn drop(&mut self) {
        // LOCK-1.
        if !self.fork.forked()
            && let Err(e) = flock(&self.fd, FlockOperation::Unlock)
        {
            tracing::debug!("a file's lock was not given back: {e}");
        }
    }
}

fn lock(path: &Path, fd: &OwnedFd, exclusive: bool) -> Result<(), Error> {
    let how = if exclusive {
        FlockOperation::NonBlockingLockExclusive
    } else {
        FlockOperation::NonBlockingLockShared
    };
    let mut tries = 0;
    let mut result = flock(fd, how);
    while result == Err(rustix::io::Errno::WOULDBLOCK) && tries < TRIES {
        tries += 1;
        std::thread::sleep(PAUSE);
        result = flock(fd, how);
    }
    match result {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    /// LOCK-1.
    #[test]
    fn the_lock_ends_before_the_last_reference_to_the_open_file() {
        let path = tempfile::NamedTempFile::new().expect("a file");
        let open = || -> (OwnedFd, File) {
            let file = File::open(path.path()).expect("open");
            (file.try_clone().expect("dup").into(), file)
        };
        let (fd, reference) = open();
        let first = FileLock::new(path.path(), fd, true).expect("lock");
        let second = FileLock::new(path.path(), open().0, false);
        assert!(matches!(second, Err(Error::Conflict(_))));
        drop(first);
        FileLock::new(path.path(), open().0, true).expect("lock again");
        drop(reference);
    }

    #[test]
    fn a_lock_that_is_being_given_back_is_waited_for() {
        let path = tempfile::NamedTempFile::new().expect("a file");
        let open = || File::open(path.path()).expect("open").into();
        let held = FileLock::new(path.path(), open(), true).expect("lock");
        std::thread::scope(|s| {
            s.spawn(|| {
                std::thread::sleep(PAUSE);
                drop(held);
            });
            // The other one may be late; it is not later than several whole waits.
            let got = (0..1000).find_map(|_| FileLock::new(path.path(), open(), true).ok());
            assert!(got.is_some());
        });
    }

    #[test]
    fn a_child_leaves_the_lock_to_its_parent() {
        let path = tempfile::NamedTempFile::new().expect("a file");
        let open = || File::open(path.path()).expect("open").into();
        let mut mine = FileLock::new(path.path(), open(), true).expect("lock");
        mine.fork = ForkMark::Pid(0);
        // As a child has it: the parent's open file lives on.
        let parents = mine.fd.try_clone().expect("dup");
        drop(mine);
        assert!(FileLock::new(path.path(), open(), true).is_err());
        drop(parents);
        FileLock::new(path.path(), open(), true).expect("lock again");
    }
}
