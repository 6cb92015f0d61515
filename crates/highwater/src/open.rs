//! How a file is opened: what the caller asks for, up to the first descriptor. The rest is [`crate::opens`].

use crate::device::{DirectIo, describe};
use highwater_engine::Error;
use rustix::fs::{FileType, Mode, OFlags};
use std::os::fd::OwnedFd;
use std::path::Path;

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
pub(crate) struct How {
    pub(crate) direct: DirectIo,
    pub(crate) limit: Option<(u64, u64)>,
    pub(crate) refuse_reclaim_writes: bool,
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

    pub(crate) fn how(&self) -> How {
        self.how
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

    pub(crate) fn check(&self, path: &Path) -> Result<(), Error> {
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
    pub(crate) fn open_fd(&self, path: &Path) -> Result<OwnedFd, Error> {
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
