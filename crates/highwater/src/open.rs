//! How a file is opened: from a path to a locked device behind a backing.

use crate::device::{DirectIo, FileDevice, FileLock, RateLimited, Slot, describe};
use crate::world::OsWorld;
use highwater_engine::backing::journaled::Volume;
use highwater_engine::backing::{PlainBacking, RefusingBacking};
use highwater_engine::world::Device;
use highwater_engine::{Backing, Error, FileId};
use parking_lot::Mutex;
use rustix::fs::{FileType, Mode, OFlags};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Weak};

/// How [`crate::Cache::open`] opens a file. Starts with everything off; set at least `read` or `write`.
///
/// ```
/// use highwater::OpenOptions;
/// let options = OpenOptions::new().write(true).create(true);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use]
pub struct OpenOptions {
    read: bool,
    write: bool,
    create: bool,
    create_new: bool,
    truncate: bool,
    how: How,
}

/// The options that all opens of one file in one cache share.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct How {
    direct: DirectIo,
    limit: Option<(u64, u64)>,
    refuse_reclaim_writes: bool,
    /// It holds a volume, whose file is meant.
    volume: bool,
}

impl OpenOptions {
    /// All off.
    ///
    /// ```
    /// # use highwater::OpenOptions;
    /// assert_eq!(OpenOptions::new(), OpenOptions::default());
    /// ```
    pub fn new() -> OpenOptions {
        OpenOptions::default()
    }

    /// For reading.
    ///
    /// ```
    /// # use highwater::OpenOptions;
    /// let options = OpenOptions::new().read(true);
    /// # let _ = options;
    /// ```
    pub fn read(mut self, read: bool) -> OpenOptions {
        self.read = read;
        self
    }

    /// For reading and writing: a page that is written in part is read first.
    ///
    /// ```
    /// # use highwater::OpenOptions;
    /// let options = OpenOptions::new().write(true);
    /// # let _ = options;
    /// ```
    pub fn write(mut self, write: bool) -> OpenOptions {
        self.write = write;
        self
    }

    /// Makes the file when there is none. Needs `write`.
    ///
    /// ```
    /// # use highwater::OpenOptions;
    /// let options = OpenOptions::new().write(true).create(true);
    /// # let _ = options;
    /// ```
    pub fn create(mut self, create: bool) -> OpenOptions {
        self.create = create;
        self
    }

    /// Makes the file, and fails when there is one. Needs `write`.
    ///
    /// ```
    /// # use highwater::OpenOptions;
    /// let options = OpenOptions::new().write(true).create_new(true);
    /// # let _ = options;
    /// ```
    pub fn create_new(mut self, create_new: bool) -> OpenOptions {
        self.create_new = create_new;
        self
    }

    /// Empties the file. Needs `write`.
    ///
    /// ```
    /// # use highwater::OpenOptions;
    /// let options = OpenOptions::new().write(true).truncate(true);
    /// # let _ = options;
    /// ```
    pub fn truncate(mut self, truncate: bool) -> OpenOptions {
        self.truncate = truncate;
        self
    }

    /// Whether to go past the kernel's page cache. By default where the file system allows it.
    ///
    /// ```
    /// # use highwater::{DirectIo, OpenOptions};
    /// let options = OpenOptions::new().read(true).direct(DirectIo::Always);
    /// # let _ = options;
    /// ```
    pub fn direct(mut self, direct: DirectIo) -> OpenOptions {
        self.how.direct = direct;
        self
    }

    /// Makes the device slow: at most `bytes_per_s` bytes and `iops` requests a second, 0 for no limit of that kind.
    /// All files of a device that are limited alike share the limit. For experiments.
    ///
    /// ```
    /// # use highwater::OpenOptions;
    /// let slow_disk = OpenOptions::new().write(true).limit_rate(50_000_000, 5_000);
    /// # let _ = slow_disk;
    /// ```
    pub fn limit_rate(mut self, bytes_per_s: u64, iops: u64) -> OpenOptions {
        self.how.limit = (bytes_per_s > 0 || iops > 0).then_some((bytes_per_s, iops));
        self
    }

    /// Refuses writes that come from reclaim, as XFS and btrfs did in 2010. For experiments.
    ///
    /// ```
    /// # use highwater::OpenOptions;
    /// let like_xfs = OpenOptions::new().write(true).refuse_reclaim_writes(true);
    /// # let _ = like_xfs;
    /// ```
    pub fn refuse_reclaim_writes(mut self, refuse: bool) -> OpenOptions {
        self.how.refuse_reclaim_writes = refuse;
        self
    }

    /// A volume's file is not made or emptied by an open.
    pub(crate) fn check_volume(&self, path: &Path) -> Result<(), Error> {
        if self.create || self.create_new || self.truncate {
            return Err(Error::Config(format!(
                "{}: create, create_new and truncate are for plain files; make a volume with volume::create, and shorten its file with set_len",
                path.display()
            )));
        }
        Ok(())
    }

    /// The same, for the file in a volume.
    pub(crate) fn of_volume(mut self) -> OpenOptions {
        self.how.volume = true;
        self
    }

    pub(crate) fn refuses_reclaim_writes(&self) -> bool {
        self.how.refuse_reclaim_writes
    }

    pub(crate) fn is_write(&self) -> bool {
        self.write
    }

    pub(crate) fn is_truncate(&self) -> bool {
        self.truncate
    }

    fn check(&self, path: &Path) -> Result<(), Error> {
        let path = path.display();
        if !self.read && !self.write {
            return Err(Error::Config(format!(
                "{path}: opened for nothing; set OpenOptions::read(true) or write(true)"
            )));
        }
        if !self.write && (self.create || self.create_new || self.truncate) {
            return Err(Error::Config(format!(
                "{path}: create, create_new and truncate change the file; set OpenOptions::write(true), too"
            )));
        }
        Ok(())
    }

    /// The first descriptor.
    fn open_fd(&self, path: &Path) -> Result<OwnedFd, Error> {
        // Before the open, which would wait for a pipe's other end or rewind a tape.
        if let Ok(stat) = rustix::fs::stat(path) {
            let kind = FileType::from_raw_mode(stat.st_mode);
            if !matches!(kind, FileType::RegularFile | FileType::BlockDevice) {
                return Err(Error::Config(format!(
                    "{} is {}; name a file or a block device",
                    path.display(),
                    describe(kind)
                )));
            }
        }
        let mut flags = OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        flags |= if self.write {
            OFlags::RDWR
        } else {
            OFlags::RDONLY
        };
        if self.create || self.create_new {
            flags |= OFlags::CREATE;
        }
        if self.create_new {
            flags |= OFlags::EXCL;
        }
        rustix::fs::open(path, flags, Mode::from_raw_mode(0o666)).map_err(|e| {
            use rustix::io::Errno;
            let how = if self.write {
                "for writing"
            } else {
                "for reading"
            };
            let remedy = match e {
                Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY if self.write => {
                    "; set OpenOptions::write(false) to read it only"
                }
                Errno::NOENT if !self.create => "; set OpenOptions::create(true) to make it",
                Errno::EXIST => {
                    "; set OpenOptions::create(true) instead of create_new to take the existing one"
                }
                _ => "",
            };
            Error::os(format!("open {} {how}{remedy}", path.display()), &e.into())
        })
    }
}

/// A file that is ready for the engine.
pub(crate) struct Opened<B: ?Sized = dyn Backing> {
    pub(crate) id: FileId,
    pub(crate) backing: Arc<B>,
    pub(crate) direct: bool,
}

/// The files open in one cache, with their locks. An entry is alive while the engine keeps a device of the file.
#[derive(Default)]
pub(crate) struct Opens {
    /// By device and inode.
    table: Mutex<HashMap<(u64, u64), Entry>>,
}

struct Entry {
    lock: Weak<FileLock>,
    /// Its devices, to be upgraded by an open for writing: the engine has one of them, and not always the first, which goes
    /// with the last handle.
    slots: Vec<Weak<Slot>>,
    write: bool,
    how: How,
    /// What it holds, mounted: once in a cache.
    volume: Weak<Volume>,
}

impl Opens {
    /// Opens and locks `path`, and puts the wrappers around it that `options` ask for.
    pub(crate) fn open(
        &self,
        world: &OsWorld,
        path: &Path,
        options: &OpenOptions,
    ) -> Result<Opened, Error> {
        self.open_as(world, path, options, |device, _| {
            let plain = PlainBacking::new(device);
            let backing: Arc<dyn Backing> = if options.how.refuse_reclaim_writes {
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
        self.open_as(world, path, options, |device, entry| {
            if let Some(volume) = entry.volume.upgrade() {
                return Ok(volume);
            }
            let volume = mount(device)?;
            entry.volume = Arc::downgrade(&volume);
            Ok(volume)
        })
    }

    fn open_as<B: ?Sized, E: From<Error>>(
        &self,
        world: &OsWorld,
        path: &Path,
        options: &OpenOptions,
        backing: impl FnOnce(Arc<dyn Device>, &mut Entry) -> Result<Arc<B>, E>,
    ) -> Result<Opened<B>, E> {
        options.check(path)?;
        let fd = options.open_fd(path)?;
        let stat = rustix::fs::fstat(&fd)
            .map_err(|e| Error::os(format!("stat {}", path.display()), &e.into()))?;
        // Each node of a block device names the same one. No file has inode 0.
        let id = match FileType::from_raw_mode(stat.st_mode) {
            FileType::BlockDevice => FileId {
                dev: stat.st_rdev,
                ino: 0,
            },
            _ => FileId {
                dev: stat.st_dev,
                ino: stat.st_ino,
            },
        };
        // Held to the end, so that two opens of one file come one after the other.
        let mut table = self.table.lock();
        table.retain(|_, entry| entry.lock.strong_count() > 0);
        let known = table.get_mut(&(id.dev, id.ino));
        let lock = match known.and_then(|entry| Some((entry.lock.upgrade()?, entry))) {
            Some((lock, entry)) => {
                entry.share(&lock, path, &fd, options)?;
                lock
            }
            None => Arc::new(FileLock::new(path, another(path, &fd)?, options.write)?),
        };
        let device = FileDevice::new(world, path, fd, options.write, options.how.direct)?
            .with_lock(lock.clone());
        let entry = table.entry((id.dev, id.ino)).or_insert(Entry {
            lock: Arc::downgrade(&lock),
            slots: Vec::new(),
            write: options.write,
            how: options.how,
            volume: Weak::new(),
        });
        entry.slots.retain(|slot| slot.strong_count() > 0);
        entry.slots.push(Arc::downgrade(device.slot()));
        let direct = device.direct();
        let device: Arc<dyn Device> = match options.how.limit {
            None => Arc::new(device),
            Some((bytes_per_s, iops)) => {
                let limiter = world.limited(&device, bytes_per_s, iops);
                Arc::new(RateLimited::new(device, limiter))
            }
        };
        let backing = backing(device, entry)?;
        Ok(Opened {
            id,
            backing,
            direct,
        })
    }
}

impl Entry {
    /// Opens the file once more.
    fn share(
        &mut self,
        lock: &FileLock,
        path: &Path,
        fd: &OwnedFd,
        options: &OpenOptions,
    ) -> Result<(), Error> {
        if self.how != options.how {
            return Err(Error::Conflict(format!(
                "{} is open in this cache with other settings of direct, limit_rate or refuse_reclaim_writes, or once as a volume and once as a plain file; use the same, or close it first",
                path.display()
            )));
        }
        if options.write && !self.write {
            lock.upgrade(path)?;
            for slot in self.slots.iter().filter_map(Weak::upgrade) {
                slot.upgrade(path, another(path, fd)?, self.how.direct)?;
            }
            self.write = true;
        }
        Ok(())
    }
}

/// A second descriptor of what `fd` has open.
fn another(path: &Path, fd: &OwnedFd) -> Result<OwnedFd, Error> {
    fd.try_clone()
        .map_err(|e| Error::os(format!("open {}", path.display()), &e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::IoEngine;

    #[test]
    fn an_open_for_writing_upgrades_whichever_device_the_cache_has() {
        let world = OsWorld::new(IoEngine::Threads).expect("a world");
        let file = tempfile::NamedTempFile::new().expect("a file");
        let opens = Opens::default();
        let open = |write| {
            let options = OpenOptions::new().read(true).write(write);
            opens
                .open_as(&world, file.path(), &options, |device, _| {
                    Ok::<_, Error>(Arc::new(device))
                })
                .expect("open")
        };
        // The first is closed just when the file is opened again: the cache has the second.
        let first = open(false);
        let second = open(false);
        drop(first);
        let third = open(true);
        second.backing.write_now(0, &[7; 4096]).expect("upgraded");
        third.backing.write_now(4096, &[7; 4096]).expect("a write");
    }
}
