//! The advisory lock that keeps two caches from one file: `flock`, shared for readers, exclusive for writers.
//!
//! All opens of a file in one cache share one lock, which lives as long as any of their devices; the engine keeps the
//! device while pages of it are dirty. A cache in another process, or a second one in this process, is kept out, and refused
//! at once: which locks this cache itself is just giving back the table of opens knows ([`crate::opens`]).
//!
//! **State.** `exclusive` guards the strength of the lock.
//!
//! **Invariants.**
//! - LOCK-1: the lock ends with the `FileLock` and not when the last reference to the open file goes: io_uring lets a
//!   request's go some time after its answer. A child made by fork leaves it to its parent.
//! - LOCK-2: a lock that was to be exclusive and cannot is still shared. `flock` gives up the old lock before it tries for
//!   the new one, so whoever wants an exclusive one claims the file first, by a lock on a byte that no file has. Of two
//!   caches that both read it and then want to write, none gets the other's out of the way, and nobody else comes between.

use super::sys::{self, Claim};
use crate::world::ForkMark;
use highwater_engine::Error;
use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

#[derive(Debug)]
pub(crate) struct FileLock {
    fd: OwnedFd,
    exclusive: Mutex<bool>,
    fork: ForkMark,
}

impl FileLock {
    /// Locks the file behind `fd`, which is open for writing where the lock is to be exclusive.
    pub(crate) fn new(path: &Path, fd: OwnedFd, exclusive: bool) -> Result<FileLock, Error> {
        let claim = exclusive.then(|| claim(path, &fd)).transpose()?;
        lock(path, &fd, exclusive)?;
        drop(claim);
        Ok(FileLock {
            fd,
            exclusive: Mutex::new(exclusive),
            fork: ForkMark::new(),
        })
    }

    /// Makes a shared lock exclusive. `writable` has the file open for writing.
    pub(crate) fn upgrade(&self, path: &Path, writable: &OwnedFd) -> Result<(), Error> {
        let mut exclusive = self.exclusive.lock();
        if !*exclusive {
            // LOCK-2: held until there is a lock again.
            let _claim = claim(path, writable)?;
            if let Err(e) = lock(path, &self.fd, true) {
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

/// LOCK-2. Where the file system has no such locks, nothing is claimed.
fn claim<'a>(path: &Path, fd: &'a OwnedFd) -> Result<Option<Claim<'a>>, Error> {
    match sys::claim(fd.as_fd()) {
        Ok(claim) => Ok(Some(claim)),
        Err(libc::EAGAIN | libc::EACCES) => Err(taken(path, true)),
        Err(_) => Ok(None),
    }
}

fn lock(path: &Path, fd: &OwnedFd, exclusive: bool) -> Result<(), Error> {
    let how = if exclusive {
        FlockOperation::NonBlockingLockExclusive
    } else {
        FlockOperation::NonBlockingLockShared
    };
    // A network file system asks its server, and a signal may interrupt that.
    match rustix::io::retry_on_intr(|| flock(fd, how)) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(taken(path, exclusive)),
        // A file system without locks: nothing can be kept out.
        Err(Errno::OPNOTSUPP | Errno::NOLCK | Errno::NOSYS) => {
            tracing::warn!(path = %path.display(), "the file system has no locks: other caches are not kept out");
            Ok(())
        }
        Err(e) => Err(Error::os(format!("lock {}", path.display()), &e.into())),
    }
}

fn taken(path: &Path, exclusive: bool) -> Error {
    Error::Conflict(format!(
        "{} is open in another cache{}; close it there (`lslocks` names the process), or open it here {}",
        path.display(),
        if exclusive { "" } else { " for writing" },
        if exclusive {
            "and there for reading only"
        } else {
            "through the same Cache"
        }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn writable(path: &Path) -> OwnedFd {
        let options = File::options().read(true).write(true).open(path);
        options.expect("open").into()
    }

    /// LOCK-1.
    #[test]
    fn the_lock_ends_before_the_last_reference_to_the_open_file() {
        let path = tempfile::NamedTempFile::new().expect("a file");
        let fd = writable(path.path());
        let reference = fd.try_clone().expect("dup");
        let first = FileLock::new(path.path(), fd, true).expect("lock");
        let second = FileLock::new(path.path(), writable(path.path()), false);
        assert!(matches!(second, Err(Error::Conflict(_))));
        drop(first);
        FileLock::new(path.path(), writable(path.path()), true).expect("lock again");
        drop(reference);
    }

    /// LOCK-2: while one that reads tries for more, and may have nothing for a moment, no other one gets the file.
    #[test]
    fn of_two_readers_that_want_to_write_none_takes_the_others_lock() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let path = file.path();
        let reader = || FileLock::new(path, writable(path), false).expect("lock");
        let (first, second) = (reader(), reader());
        let (fd, other_fd) = (writable(path), writable(path));
        first.upgrade(path, &fd).expect_err("beside a reader");
        let claimed = claim(path, &fd).expect("claimed by the first");
        drop(first);
        second.upgrade(path, &other_fd).expect_err("claimed");
        FileLock::new(path, writable(path), true).expect_err("claimed");
        drop(claimed);
        FileLock::new(path, writable(path), true).expect_err("the second still reads");
        second.upgrade(path, &other_fd).expect("alone");
        FileLock::new(path, writable(path), false).expect_err("written");
    }

    #[test]
    fn a_child_leaves_the_lock_to_its_parent() {
        let path = tempfile::NamedTempFile::new().expect("a file");
        let open = || writable(path.path());
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
