//! The advisory lock that keeps two caches from one file: `flock`, shared for readers, exclusive for writers.
//!
//! All opens of a file in one cache share one lock, which lives as long as any of their devices; the engine keeps the
//! device while pages of it are dirty. A cache in another process, or a second one in this process, is kept out, and refused
//! at once, but for a process that lives no more (LOCK-3): which locks this cache itself is just giving back the table of opens
//! knows ([`crate::opens`]).
//!
//! **State.** `exclusive` guards the strength of the lock.
//!
//! **Invariants.**
//! - LOCK-1: the lock ends with the `FileLock` and not when the last reference to the open file goes: io_uring lets a
//!   request's go some time after its answer. A child made by fork leaves it to its parent. One with a request still under
//!   way (a cache that was abandoned beside a hung disk) leaves it to the last reference.
//! - LOCK-2: a lock that was to be exclusive and cannot is still shared. `flock` gives up the old lock before it tries for
//!   the new one, so whoever wants an exclusive one claims the file first, by a lock on a byte that no file has. Of two
//!   caches that both read it and then want to write, none gets the other's out of the way, and nobody else comes between.
//! - LOCK-3: the lock is on the open file that io_uring's requests go through. Those of a process that is killed go on after
//!   its end; the kernel keeps their open file and the lock until then, so that none of them comes after the next cache's
//!   writes. Who finds such a lock, of no process that lives, waits for it, `ORPHAN_MAX` at the most.

use super::holder;
use super::sys::{self, Claim};
use crate::world::ForkMark;
use highwater_engine::Error;
use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long requests of a killed process are waited for.
const ORPHAN_MAX: Duration = Duration::from_secs(10);
/// The time between two looks.
const ORPHAN_LOOK: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(crate) struct FileLock {
    held: Mutex<Held>,
    fork: ForkMark,
    /// Left to the last reference to the open file.
    left: bool,
}

#[derive(Debug)]
struct Held {
    fd: OwnedFd,
    exclusive: bool,
}

impl FileLock {
    /// Locks the file behind `fd`, which is open for writing where the lock is to be exclusive, and which requests go through
    /// (LOCK-3).
    pub(crate) fn new(path: &Path, fd: OwnedFd, exclusive: bool) -> Result<FileLock, Error> {
        let claim = exclusive.then(|| claim(path, &fd)).transpose()?;
        lock(path, &fd, exclusive)?;
        drop(claim);
        Ok(FileLock {
            held: Mutex::new(Held { fd, exclusive }),
            fork: ForkMark::new(),
            left: false,
        })
    }

    /// Makes a shared lock exclusive, by `writable`, which has the file open for writing and which requests go through from now
    /// on (LOCK-3).
    pub(crate) fn upgrade(&self, path: &Path, writable: OwnedFd) -> Result<(), Error> {
        let mut held = self.held.lock();
        if !held.exclusive {
            // LOCK-2: held until there is a lock again.
            let claim = claim(path, &writable)?;
            give_back(&held.fd);
            if let Err(e) = lock(path, &writable, true) {
                return lock(path, &held.fd, false).and(Err(e));
            }
            drop(claim);
            *held = Held {
                fd: writable,
                exclusive: true,
            };
        }
        Ok(())
    }

    /// Requests are under way still: the last of them takes the lock with it.
    pub(crate) fn leave(&mut self) {
        self.left = true;
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // LOCK-1.
        if !self.fork.forked() && !self.left {
            give_back(&self.held.get_mut().fd);
        }
    }
}

fn give_back(fd: &OwnedFd) {
    if let Err(e) = flock(fd, FlockOperation::Unlock) {
        tracing::debug!("a file's lock was not given back: {e}");
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
    let start = Instant::now();
    // A network file system asks its server, and a signal may interrupt that.
    let mut answer = rustix::io::retry_on_intr(|| flock(fd, how));
    while answer == Err(Errno::WOULDBLOCK) && start.elapsed() < ORPHAN_MAX && !holder::is_alive(fd)
    {
        // LOCK-3.
        std::thread::sleep(ORPHAN_LOOK);
        answer = rustix::io::retry_on_intr(|| flock(fd, how));
    }
    match answer {
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

    /// LOCK-1, with a request under way.
    #[test]
    fn a_lock_that_is_left_ends_with_the_last_reference() {
        let path = tempfile::NamedTempFile::new().expect("a file");
        let fd = writable(path.path());
        let reference = fd.try_clone().expect("dup");
        let mut first = FileLock::new(path.path(), fd, true).expect("lock");
        first.leave();
        drop(first);
        FileLock::new(path.path(), writable(path.path()), true).expect_err("a request goes on");
        drop(reference);
        FileLock::new(path.path(), writable(path.path()), true).expect("lock again");
    }

    /// LOCK-2: while one that reads tries for more, and may have nothing for a moment, no other one gets the file.
    #[test]
    fn of_two_readers_that_want_to_write_none_takes_the_others_lock() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let path = file.path();
        let reader = || FileLock::new(path, writable(path), false).expect("lock");
        let (first, second) = (reader(), reader());
        let fd = writable(path);
        first
            .upgrade(path, writable(path))
            .expect_err("beside a reader");
        let claimed = claim(path, &fd).expect("claimed by the first");
        drop(first);
        second.upgrade(path, writable(path)).expect_err("claimed");
        FileLock::new(path, writable(path), true).expect_err("claimed");
        drop(claimed);
        FileLock::new(path, writable(path), true).expect_err("the second still reads");
        second.upgrade(path, writable(path)).expect("alone");
        FileLock::new(path, writable(path), false).expect_err("written");
    }

    #[test]
    fn a_child_leaves_the_lock_to_its_parent() {
        let path = tempfile::NamedTempFile::new().expect("a file");
        let open = || writable(path.path());
        let mut mine = FileLock::new(path.path(), open(), true).expect("lock");
        mine.fork = ForkMark::Pid(0);
        // As a child has it: the parent's open file lives on.
        let parents = mine.held.get_mut().fd.try_clone().expect("dup");
        drop(mine);
        assert!(FileLock::new(path.path(), open(), true).is_err());
        drop(parents);
        FileLock::new(path.path(), open(), true).expect("lock again");
    }
}
