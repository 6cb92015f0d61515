//! Volumes: crash-safe, thin, checksummed virtual disks in a file or on a block device. One volume holds one file.
//!
//! [`create`] makes one, [`crate::Cache::open_volume`] opens the file in it, [`info`] and [`fsck`] look at one that nobody
//! has open. After a power failure or a kill the file is as it was at some moment since the last sync that returned; a
//! block that is not what was written is an error, and never wrong data. Blocks are chosen when pages are written, so that
//! random pages become long runs on the disk.

use crate::device::{DirectIo, FileDevice, FileLock, IoEngine};
use crate::world::OsWorld;
use highwater_engine::Error;
use highwater_engine::world::Device;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

pub use highwater_engine::LendContext;
pub use highwater_engine::backing::journaled::{
    Damage, FormatOptions, FsckReport, MountOptions, Volume, VolumeError, VolumeInfo,
};

/// Why a volume could not be made, opened or looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeFailure {
    /// The file that holds it, or the cache.
    #[error(transparent)]
    File(#[from] Error),
    /// The volume itself.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

/// How a volume is made.
///
/// ```
/// use highwater::volume::VolumeOptions;
/// let options = VolumeOptions {
///     disk_bytes: Some(1 << 30),
///     ..VolumeOptions::new(4 << 30) // thin: more than there is disk
/// };
/// assert_eq!(options.block_size, 4096);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VolumeOptions {
    /// The most bytes that the file in it may have.
    pub size: u64,
    /// Bytes on the disk. `None`: one and a half times `size`, and what log and map take; on a block device, all of it.
    pub disk_bytes: Option<u64>,
    /// Bytes of a block; the frames of the cache that opens it must be as large.
    pub block_size: u32,
    /// Bytes of the log. `None`: a 64th of `size`, from 1 MiB to 64 MiB, but no more than an eighth of the disk.
    pub log_bytes: Option<u64>,
    /// Makes the volume although the file holds something, which is lost.
    pub overwrite: bool,
}

impl VolumeOptions {
    /// A volume for a file of up to `size` bytes, in blocks of 4 KiB.
    pub fn new(size: u64) -> VolumeOptions {
        VolumeOptions {
            size,
            disk_bytes: None,
            block_size: 4096,
            log_bytes: None,
            overwrite: false,
        }
    }

    fn log(&self, disk: Option<u64>) -> u64 {
        let block = u64::from(self.block_size.max(1));
        let most = disk.map_or(u64::MAX, |d| d / 8).max(16 * block);
        let log = (self.size / 64).clamp(1 << 20, 64 << 20).min(most);
        self.log_bytes.unwrap_or(log / block * block)
    }

    /// Half as much again as the file, and what log, map and superblocks take.
    fn disk(&self) -> u64 {
        let block = u64::from(self.block_size.max(1));
        let leaves = (self.size / block).div_ceil(block / 16 + 1);
        let map = leaves.saturating_mul(2 * block);
        let all = [self.size / 2, self.log(None), map, 64 * block];
        let all = all.into_iter().fold(self.size, u64::saturating_add);
        // A size that is too large stays so, and is refused.
        all.checked_next_multiple_of(block).unwrap_or(all)
    }
}

/// Makes a volume at `path`: a file, which is made if there is none, or a block device. Waits for the disk.
///
/// ```
/// use highwater::volume::{self, VolumeOptions};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("disk");
/// let info = volume::create(&path, &VolumeOptions::new(64 << 20))?;
/// assert_eq!((info.capacity, info.used), (64 << 20, 0));
/// assert!(volume::create(&path, &VolumeOptions::new(1 << 20)).is_err(), "there is one");
/// # Ok::<(), volume::VolumeFailure>(())
/// ```
///
/// # Errors
/// `Config` for sizes that make no sense, and for a file that holds something, without `overwrite`; `Conflict` when a cache
/// has it open; `Os`, also for a block device that is mounted; those of [`Volume::format`].
pub fn create(
    path: impl AsRef<Path>,
    options: &VolumeOptions,
) -> Result<VolumeInfo, VolumeFailure> {
    let path = path.as_ref();
    let os = |what: &str, e: &std::io::Error| Error::os(format!("{what} {}", path.display()), e);
    let (file, new) = open_or_make(path).map_err(|e| os("open for writing", &e))?;
    let again = file.try_clone().map_err(|e| os("open", &e))?;
    let lock = Arc::new(FileLock::new(path, again.into(), true)?);
    if !is_at(path, &file) {
        return Err(Error::Conflict(format!(
            "{} was taken away, or replaced, while it was opened; try again",
            path.display()
        ))
        .into());
    }
    let result = create_in(path, file, lock.clone(), options);
    if result.is_err() && new {
        // Nobody else uses it: the lock is held still.
        let _ = std::fs::remove_file(path);
    }
    drop(lock);
    result
}

/// Opens what is at `path`, or makes a file there. True when it is new: it is taken back then if there is an error. A block
/// device is claimed, so that one with a mounted file system on it, or another device above it, is refused (`EBUSY`).
fn open_or_make(path: &Path) -> std::io::Result<(std::fs::File, bool)> {
    use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true);
    if std::fs::metadata(path).is_ok_and(|m| m.file_type().is_block_device()) {
        let exclusive = rustix::fs::OFlags::EXCL.bits() as i32;
        return Ok((options.custom_flags(exclusive).open(path)?, false));
    }
    match options.clone().create_new(true).open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            let there = options.create(true).truncate(false).open(path)?;
            Ok((there, false))
        }
        made => Ok((made?, true)),
    }
}

/// Is `file` what is at `path` now?
fn is_at(path: &Path, file: &std::fs::File) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |m: std::fs::Metadata| (m.dev(), m.ino());
    let (at, open) = (std::fs::metadata(path), file.metadata());
    at.is_ok_and(|at| open.is_ok_and(|open| id(at) == id(open)))
}

fn create_in(
    path: &Path,
    file: std::fs::File,
    lock: Arc<FileLock>,
    options: &VolumeOptions,
) -> Result<VolumeInfo, VolumeFailure> {
    let os = |what: &str, e: &std::io::Error| Error::os(format!("{what} {}", path.display()), e);
    let regular = file.metadata().map_err(|e| os("stat", &e))?.is_file();
    let there = file.try_clone().map_err(|e| os("open", &e))?;
    let world = OsWorld::new(IoEngine::Threads)?;
    let device = FileDevice::new(&world, path, file.into(), true, DirectIo::Never)?.with_lock(lock);
    let len = device
        .len()
        .map_err(|e| Error::io("size of the device", e))?;
    if len > 0 && !options.overwrite && (regular || holds_something(&device)?) {
        return Err(Error::Config(format!(
            "{} holds {len} bytes, which a new volume would overwrite; name another file, or allow it (`overwrite`, --force)",
            path.display()
        ))
        .into());
    }
    let disk = match (regular, options.disk_bytes) {
        (true, Some(disk)) => disk,
        (true, None) => options.disk(),
        (false, None) => len,
        (false, Some(disk)) if disk == len => len,
        (false, Some(_)) => {
            return Err(Error::Config(format!(
                "{} is a block device of {len} bytes, and a volume takes all of it; leave the size on the disk out",
                path.display()
            ))
            .into());
        }
    };
    let format = FormatOptions {
        logical_bytes: options.size,
        block_size: options.block_size,
        log_bytes: options.log(Some(disk)),
        uuid: uuid(),
    };
    // Before anything is lost of what is there; the longer length, too, which the file system may refuse.
    format.check(disk)?;
    if regular && len != disk {
        // What was there is gone, and what is not written needs no blocks. A file of that length keeps those it has.
        there
            .set_len(disk.max(len))
            .and_then(|()| there.set_len(0))
            .and_then(|()| there.set_len(disk))
            .map_err(|e| os("set the length of", &e))?;
    }
    Volume::format(&device, &format)?;
    there.sync_all().map_err(|e| os("sync", &e))?;
    Ok(highwater_engine::backing::journaled::inspect(&device)?)
}

/// Is there anything in the first blocks of a block device?
fn holds_something(device: &FileDevice) -> Result<bool, Error> {
    let mut bytes = vec![0; 64 << 10];
    let buf = highwater_engine::io::IoBuf {
        ptr: bytes.as_mut_ptr(),
        len: bytes.len(),
    };
    device
        .read_now(0, &[buf])
        .map_err(|e| Error::io("read", e))?;
    Ok(bytes.iter().any(|b| *b != 0))
}

/// A name for the volume that no other has: 122 random bits, as RFC 9562 has them.
fn uuid() -> [u8; 16] {
    use std::hash::{BuildHasher, Hasher};
    // The standard library's hasher is keyed by the operating system's random numbers.
    let random = || {
        std::collections::hash_map::RandomState::new()
            .build_hasher()
            .finish()
    };
    let mut uuid = (u128::from(random()) << 64 | u128::from(random())).to_be_bytes();
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

/// The device at `path`, for reading, while no cache writes to it.
fn device_at(path: &Path) -> Result<FileDevice, VolumeFailure> {
    let file =
        std::fs::File::open(path).map_err(|e| Error::os(format!("open {}", path.display()), &e))?;
    let again: OwnedFd = file
        .try_clone()
        .map_err(|e| Error::os(format!("open {}", path.display()), &e))?
        .into();
    let lock = Arc::new(FileLock::new(path, again, false)?);
    let world = OsWorld::new(IoEngine::Threads)?;
    Ok(FileDevice::new(&world, path, file.into(), false, DirectIo::Never)?.with_lock(lock))
}

/// Sizes and counts of a volume that no cache has open for writing.
///
/// # Errors
/// `Conflict` while a cache has it open; `Os`; those of the volume, damage included.
pub fn info(path: impl AsRef<Path>) -> Result<VolumeInfo, VolumeFailure> {
    let device = device_at(path.as_ref())?;
    Ok(highwater_engine::backing::journaled::inspect(&device)?)
}

/// Checks every block of a volume that no cache has open for writing, and changes nothing. `progress` hears of bytes read
/// and bytes in all.
///
/// ```
/// use highwater::volume::{self, VolumeOptions};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("disk");
/// volume::create(&path, &VolumeOptions::new(64 << 20))?;
/// let report = volume::fsck(&path, |read, all| assert!(read > 0 && all > 0))?;
/// assert!(report.is_clean());
/// # Ok::<(), volume::VolumeFailure>(())
/// ```
///
/// # Errors
/// `Conflict` while a cache has it open; `Os`; when there is no volume to check. Damage is in the report.
pub fn fsck(
    path: impl AsRef<Path>,
    progress: impl Fn(u64, u64) + Send + Sync + 'static,
) -> Result<FsckReport, VolumeFailure> {
    let device = device_at(path.as_ref())?;
    let watched = watched::Watched::new(device, progress);
    Ok(highwater_engine::backing::journaled::fsck(&watched)?)
}

/// A device that tells how much was read of it.
mod watched {
    use crate::device::FileDevice;
    use highwater_engine::IoError;
    use highwater_engine::io::{IoBuf, Lane, Request};
    use highwater_engine::sync::{AtomicU64, Ordering};
    use highwater_engine::world::{Device, Queue};
    use std::sync::Arc;

    pub(super) struct Watched<F> {
        inner: FileDevice,
        read: AtomicU64,
        progress: F,
    }

    impl<F: Fn(u64, u64)> Watched<F> {
        pub(super) fn new(inner: FileDevice, progress: F) -> Watched<F> {
            Watched {
                inner,
                read: AtomicU64::new(0),
                progress,
            }
        }
    }

    impl<F: Fn(u64, u64) + Send + Sync + 'static> Device for Watched<F> {
        fn queue(&self) -> Arc<dyn Queue> {
            self.inner.queue()
        }
        fn submit(&self, lane: Lane, batch: &mut Vec<Request>) {
            self.inner.submit(lane, batch);
        }
        fn read_now(&self, offset: u64, bufs: &[IoBuf]) -> Result<(), IoError> {
            let n: u64 = bufs.iter().map(|b| b.len as u64).sum();
            // Relaxed: a number for people.
            let read = self.read.fetch_add(n, Ordering::Relaxed) + n;
            (self.progress)(read, self.inner.len().unwrap_or(0));
            self.inner.read_now(offset, bufs)
        }
        fn write_now(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
            self.inner.write_now(offset, buf)
        }
        fn flush(&self) -> Result<(), IoError> {
            self.inner.flush()
        }
        fn len(&self) -> Result<u64, IoError> {
            self.inner.len()
        }
        fn truncate(&self, len: u64) -> Result<(), IoError> {
            self.inner.truncate(len)
        }
        fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), IoError> {
            self.inner.write_zeroes(offset, len)
        }
    }
}
