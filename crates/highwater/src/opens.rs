//! The table of opens: which files one cache has open, with their locks, and how an open gets from a path to a locked device
//! behind a backing.
//!
//! Each open of a file takes the file's *turn*: it takes the entry out of the table and works on it without the table's lock,
//! through all that may take time (descriptors, `flock`, a mount), so that it delays no open of another file.
//!
//! **State.** `files` guards the entries. What stands in an [`OpenFile`] is changed by the open that has the turn. `changed`
//! wakes those who wait for a turn, or for a lock to be given back.
//!
//! **Lock order.** `files` comes last: nothing is called, and nothing but weak references dropped, while it is held.
//!
//! **Invariants.**
//! - OPENS-1: opens of one file come one after the other.
//! - OPENS-2: a file's lock is in the table until it has been given back. An open that finds its last user gone waits for
//!   that, so it never meets a lock of its own cache, and whoever refuses it the lock is another one.
//! - OPENS-3: all devices of a file share their descriptors, so each can write once the file is open for writing: the engine
//!   has one of them, that of any open, and of a reader no less.

use crate::device::{FileDevice, FileLock, RateLimited, Slot};
use crate::open::{How, OpenOptions};
use crate::world::{ForkMark, OsWorld};
use highwater_engine::backing::journaled::Volume;
use highwater_engine::backing::{PlainBacking, RefusingBacking};
use highwater_engine::world::{Device, Nanos};
use highwater_engine::{Backing, Error, FileId};
use parking_lot::{Condvar, Mutex};
use rustix::fs::FileType;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// A file that is ready for the engine.
pub(crate) struct Opened<B: ?Sized = dyn Backing> {
    pub(crate) id: FileId,
    pub(crate) backing: Arc<B>,
    pub(crate) direct: bool,
}

/// The files open in one cache.
pub(crate) struct Opens {
    table: Arc<Table>,
    /// An open waits for another one of the file, and for its lock, so long at the most.
    wait_max: Duration,
}

#[derive(Default)]
struct Table {
    files: Mutex<HashMap<FileId, Entry>>,
    changed: Condvar,
}

enum Entry {
    /// An open of it has the turn, and what the table knows of it.
    Opening,
    /// It is open. Once `lock` has no user any more, it is being given back; then the entry goes.
    Open(OpenFile),
}

struct OpenFile {
    lock: Weak<TableLock>,
    how: How,
    /// What it holds, mounted: once in a cache.
    volume: Weak<Volume>,
}

/// A file's lock, for as long as the file has a device. The fields are dropped in this order (OPENS-2).
struct TableLock {
    lock: FileLock,
    /// What the file's devices use (OPENS-3), and the lock is on (LOCK-3).
    slot: Arc<Slot>,
    _place: Place,
}

impl Drop for TableLock {
    fn drop(&mut self) {
        if self.slot.is_in_use() {
            // LOCK-1.
            self.lock.leave();
        }
    }
}

/// A lock's place in the table.
struct Place {
    table: Arc<Table>,
    id: FileId,
    fork: ForkMark,
}

impl Drop for Place {
    fn drop(&mut self) {
        // In a child made by fork, a thread that is not there may have the table's lock for ever.
        if self.fork.forked() {
            return;
        }
        let mut files = self.table.files.lock();
        // Else the open that made the lock has failed, and has the turn still.
        if let Some(Entry::Open(file)) = files.get(&self.id) {
            debug_assert_eq!(file.lock.strong_count(), 0, "OPENS-2: another lock's place");
            files.remove(&self.id);
        }
        drop(files);
        self.table.changed.notify_all();
    }
}

/// The turn of one open. Ends when it is dropped, on every way out.
struct Turn {
    table: Arc<Table>,
    id: FileId,
    /// What the file's other opens know of it: `None` of one that is not open.
    file: Option<(Arc<TableLock>, OpenFile)>,
}

impl Turn {
    /// Waits until the file is nobody else's, for `wait_max` at the most.
    fn begin(table: &Arc<Table>, id: FileId, wait_max: Duration) -> Result<Turn, Error> {
        let start = Instant::now();
        let mut files = table.files.lock();
        loop {
            let what = match files.insert(id, Entry::Opening) {
                None => break,
                Some(Entry::Opening) => "another open of the file",
                Some(Entry::Open(file)) => {
                    if let Some(lock) = file.lock.upgrade() {
                        return Ok(Turn {
                            table: table.clone(),
                            id,
                            file: Some((lock, file)),
                        });
                    }
                    files.insert(id, Entry::Open(file));
                    "the lock of the file, which this cache gives back"
                }
            };
            let waited = start.elapsed();
            if waited >= wait_max {
                return Err(Error::TimedOut {
                    what,
                    waited: Nanos(waited.as_nanos() as u64),
                });
            }
            table.changed.wait_for(&mut files, wait_max - waited);
        }
        Ok(Turn {
            table: table.clone(),
            id,
            file: None,
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (lock, entry) = match self.file.take() {
            Some((lock, file)) => (Some(lock), Some(Entry::Open(file))),
            None => (None, None),
        };
        let mut files = self.table.files.lock();
        match entry {
            Some(entry) => files.insert(self.id, entry),
            None => files.remove(&self.id),
        };
        drop(files);
        self.table.changed.notify_all();
        // Only now: it may be the last one of the lock, which finds its place.
        drop(lock);
    }
}

impl Opens {
    pub(crate) fn new(wait_max: Nanos) -> Opens {
        Opens {
            table: Arc::default(),
            wait_max: Duration::from_nanos(wait_max.0),
        }
    }

    /// Opens and locks `path`, and puts the wrappers around it that `options` ask for.
    pub(crate) fn open(
        &self,
        world: &OsWorld,
        path: &Path,
        options: &OpenOptions,
    ) -> Result<Opened, Error> {
        self.open_as(world, path, options, |device, _| {
            let plain = PlainBacking::new(device);
            let backing: Arc<dyn Backing> = if options.how().refuse_reclaim_writes {
                Arc::new(RefusingBacking::new(plain))
            } else {
                Arc::new(plain)
            };
            Ok(backing)
        })
    }

    /// The same for a volume at `path`, which `mount` mounts if this cache has not yet.
    pub(crate) fn open_volume<E: From<Error>>(
        &self,
        world: &OsWorld,
        path: &Path,
        options: &OpenOptions,
        mount: impl FnOnce(Arc<dyn Device>) -> Result<Arc<Volume>, E>,
    ) -> Result<Opened<Volume>, E> {
        self.open_as(world, path, options, |device, file| {
            if let Some(volume) = file.volume.upgrade() {
                return Ok(volume);
            }
            let volume = mount(device)?;
            file.volume = Arc::downgrade(&volume);
            Ok(volume)
        })
    }

    fn open_as<B: ?Sized, E: From<Error>>(
        &self,
        world: &OsWorld,
        path: &Path,
        options: &OpenOptions,
        backing: impl FnOnce(Arc<dyn Device>, &mut OpenFile) -> Result<Arc<B>, E>,
    ) -> Result<Opened<B>, E> {
        options.check(path)?;
        let fd = options.open_fd(path)?;
        let id = id_of(path, &fd)?;
        // OPENS-1: held to the end.
        let mut turn = Turn::begin(&self.table, id, self.wait_max)?;
        let (lock, file) = match &mut turn.file {
            Some((lock, file)) => {
                file.share(lock, path, fd, options)?;
                (lock, file)
            }
            none => {
                let slot = Slot::new(path, fd, options.is_write(), options.how().direct)?;
                let lock = FileLock::new(path, slot.carrier(path)?, options.is_write())?;
                let (lock, file) = none.insert(self.first(id, lock, slot, options));
                (lock, file)
            }
        };
        let device = FileDevice::over(world, path, lock.slot.clone())?.with_lock(lock.clone());
        let direct = device.direct();
        let device: Arc<dyn Device> = match options.how().limit {
            None => Arc::new(device),
            Some((bytes_per_s, iops)) => {
                let limiter = world.limited(&device, bytes_per_s, iops);
                Arc::new(RateLimited::new(device, limiter))
            }
        };
        let backing = backing(device, file)?;
        Ok(Opened {
            id,
            backing,
            direct,
        })
    }

    /// What the table will know of a file whose first open has got `lock`.
    fn first(
        &self,
        id: FileId,
        lock: FileLock,
        slot: Slot,
        options: &OpenOptions,
    ) -> (Arc<TableLock>, OpenFile) {
        let place = Place {
            table: self.table.clone(),
            id,
            fork: ForkMark::new(),
        };
        let lock = Arc::new(TableLock {
            lock,
            slot: Arc::new(slot),
            _place: place,
        });
        let file = OpenFile {
            lock: Arc::downgrade(&lock),
            how: options.how(),
            volume: Weak::new(),
        };
        (lock, file)
    }
}

impl OpenFile {
    /// Opens the file once more: its devices can write if this open is to (OPENS-3).
    fn share(
        &mut self,
        open: &TableLock,
        path: &Path,
        fd: OwnedFd,
        options: &OpenOptions,
    ) -> Result<(), Error> {
        if self.how != options.how() {
            return Err(Error::Conflict(format!(
                "{} is open in this cache with other settings of direct, limit_rate or refuse_reclaim_writes, or once as a volume and once as a plain file; use the same, or close it first",
                path.display()
            )));
        }
        if options.is_write() && !open.slot.is_write() {
            (open.slot).upgrade(path, fd, self.how.direct, &open.lock)?;
        }
        Ok(())
    }
}

/// Names what `fd` has open. Each node of a block device names the same one; no file has inode 0.
fn id_of(path: &Path, fd: &OwnedFd) -> Result<FileId, Error> {
    let stat = rustix::fs::fstat(fd)
        .map_err(|e| Error::os(format!("stat {}", path.display()), &e.into()))?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => FileId {
            dev: stat.st_rdev,
            ino: 0,
        },
        _ => FileId {
            dev: stat.st_dev,
            ino: stat.st_ino,
        },
    })
}

#[cfg(test)]
mod tests;
