//! One open file or block device as a [`Device`].
//!
//! Whole blocks go past the kernel's page cache where the file system allows it, the rest through a second descriptor
//! of the same inode; `fdatasync` covers both.
//!
//! **Tests.** `tests/device.rs`.
#![allow(unsafe_code)]

use super::flight::{Flight, Step};
use super::target::{Target, block_device_len};
use super::{DirectIo, FileLock, IoEngine, OsQueue, sys};
use crate::world::OsWorld;
use highwater_engine::io::{IoBuf, IoOp, IoSink, Lane, Request};
use highwater_engine::world::{Device, Queue};
use highwater_engine::{Error, IoError, IoErrorKind};
use parking_lot::RwLock;
use rustix::fs::{FileType, SeekFrom};
use std::cmp::Ordering;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;

/// An open file or block device.
///
/// ```
/// use highwater::{DirectIo, FileDevice, IoEngine, OsWorld};
/// use highwater::engine::world::Device;
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, [1; 100]).unwrap();
/// let world = OsWorld::new(IoEngine::Auto)?;
/// let file = std::fs::File::open(&path).unwrap();
/// let device = FileDevice::new(&world, &path, file.into(), false, DirectIo::Auto)?;
/// assert_eq!(device.len(), Ok(100));
/// # Ok::<(), highwater::Error>(())
/// ```
pub struct FileDevice {
    target: Arc<Slot>,
    queue: Arc<OsQueue>,
    block_device: bool,
    _lock: Option<Arc<dyn Send + Sync>>,
}

/// The descriptors that the devices of a file use now; an open for writing replaces those of an open for reading. Requests
/// on their way keep the ones they started with.
pub(crate) struct Slot(RwLock<Arc<Target>>);

impl Slot {
    /// Uses `fd`, and a direct descriptor beside it as `mode` asks.
    pub(crate) fn new(
        path: &Path,
        fd: OwnedFd,
        write: bool,
        mode: DirectIo,
    ) -> Result<Slot, Error> {
        let target = Target::new(path, fd, write, mode)?;
        Ok(Slot(RwLock::new(Arc::new(target))))
    }

    fn now(&self) -> Arc<Target> {
        self.0.read().clone()
    }

    /// Can it write?
    pub(crate) fn is_write(&self) -> bool {
        self.0.read().write
    }

    /// The open file that a lock belongs to (LOCK-3), by a descriptor of its own.
    pub(crate) fn carrier(&self, path: &Path) -> Result<OwnedFd, Error> {
        carrier(path, &self.now())
    }

    /// A request is under way.
    pub(crate) fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.0.read()) > 1
    }

    /// Replaces the descriptors by ones that can write: `fd`, opened for it. Once `lock` has the file by its carrier.
    pub(crate) fn upgrade(
        &self,
        path: &Path,
        fd: OwnedFd,
        mode: DirectIo,
        lock: &FileLock,
    ) -> Result<(), Error> {
        let target = Target::new(path, fd, true, mode)?;
        lock.upgrade(path, carrier(path, &target)?)?;
        *self.0.write() = Arc::new(target);
        Ok(())
    }
}

fn carrier(path: &Path, target: &Target) -> Result<OwnedFd, Error> {
    (target.carrier().try_clone()).map_err(|e| Error::os(format!("open {}", path.display()), &e))
}

impl FileDevice {
    /// A device over `fd`, which was opened for reading, and for writing where `write` says so. `path` is for messages.
    ///
    /// # Errors
    /// `Config` for what is neither a file nor a block device; `Os` when O_DIRECT is asked for and refused.
    pub fn new(
        world: &OsWorld,
        path: &Path,
        fd: OwnedFd,
        write: bool,
        mode: DirectIo,
    ) -> Result<FileDevice, Error> {
        let slot = Slot::new(path, fd, write, mode)?;
        FileDevice::over(world, path, Arc::new(slot))
    }

    /// A device over what another device of the file uses, too.
    pub(crate) fn over(world: &OsWorld, path: &Path, slot: Arc<Slot>) -> Result<FileDevice, Error> {
        let stat = rustix::fs::fstat(&slot.now().buffered)
            .map_err(|e| Error::os(format!("stat {}", path.display()), &e.into()))?;
        let (block_device, dev) = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => (false, stat.st_dev),
            FileType::BlockDevice => (true, stat.st_rdev),
            other => {
                return Err(Error::Config(format!(
                    "{} is {}, neither a file nor a block device; name a file",
                    path.display(),
                    describe(other)
                )));
            }
        };
        Ok(FileDevice {
            target: slot,
            queue: world.queue(dev),
            block_device,
            _lock: None,
        })
    }

    /// The same, holding `lock` as long as it lives.
    pub(crate) fn with_lock(mut self, lock: Arc<dyn Send + Sync>) -> FileDevice {
        self._lock = Some(lock);
        self
    }

    /// Does it go past the kernel's page cache?
    pub fn direct(&self) -> bool {
        self.target.now().direct.is_some()
    }

    /// What its queue works through: [`IoEngine::Uring`] or [`IoEngine::Threads`].
    pub fn io_engine(&self) -> IoEngine {
        self.queue.io_engine()
    }

    pub(crate) fn os_queue(&self) -> &Arc<OsQueue> {
        &self.queue
    }

    /// Reads or writes on the calling thread.
    fn transfer_now(&self, op: IoOp, offset: u64, bufs: Vec<IoBuf>) -> Result<(), IoError> {
        crate::world::door();
        let mut request = Request::new(op, offset, Arc::new(Nobody));
        request.bufs = bufs;
        let mut flight = Flight::new(request, self.target.now());
        while let Some(piece) = flight.next_piece() {
            if let Step::Done(result) = flight.advance(sys::transfer(&piece, flight.iov())) {
                return result;
            }
        }
        Ok(())
    }

    fn fallocate(&self, mode: i32, offset: u64, len: u64) -> Result<(), i32> {
        sys::fallocate(self.target.now().buffered.as_fd(), mode, offset, len)
    }

    /// Zeroes by writing, within the file's length, for where the file system has no call for it.
    fn write_zeroes_slowly(&self, offset: u64, len: u64) -> Result<(), IoError> {
        let end = offset.saturating_add(len).min(self.len()?);
        // Not of the caller's stack.
        static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
        let mut at = offset;
        while at < end {
            let n = (end - at).min(ZEROES.len() as u64);
            self.write_now(at, &ZEROES[..n as usize])?;
            at += n;
        }
        Ok(())
    }
}

/// Where requests end that are made and finished by one call.
struct Nobody;

impl IoSink for Nobody {
    fn io_done(&self, _: &mut Request, _: Result<(), IoError>) {}
}

pub(crate) fn describe(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a directory",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::Symlink => "a symbolic link",
        _ => "of an unknown kind",
    }
}

/// Repeats a call that a signal interrupts.
fn uninterrupted(call: impl Fn() -> rustix::io::Result<()>) -> Result<(), IoError> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map_err(|e| IoError::from_errno(e.raw_os_error(), 0)),
        }
    }
}

impl Device for FileDevice {
    fn queue(&self) -> Arc<dyn Queue> {
        self.queue.clone()
    }

    fn submit(&self, lane: Lane, batch: &mut Vec<Request>) {
        self.queue.submit(lane, &self.target.now(), batch);
    }

    fn read_now(&self, offset: u64, bufs: &[IoBuf]) -> Result<(), IoError> {
        self.transfer_now(IoOp::Read, offset, bufs.to_vec())
    }

    fn write_now(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        let piece = IoBuf {
            // A write only reads the memory.
            ptr: buf.as_ptr().cast_mut(),
            len: buf.len(),
        };
        self.transfer_now(IoOp::Write, offset, vec![piece])
    }

    fn flush(&self) -> Result<(), IoError> {
        uninterrupted(|| rustix::fs::fdatasync(&self.target.now().buffered))
    }

    fn flush_all(&self) -> Result<(), IoError> {
        uninterrupted(|| rustix::fs::fsync(&self.target.now().buffered))
    }

    fn len(&self) -> Result<u64, IoError> {
        if self.block_device {
            return block_device_len(self.target.now().buffered.as_fd())
                .map_err(|e| IoError::from_errno(e.raw_os_error().unwrap_or(libc::EIO), 0));
        }
        rustix::fs::fstat(&self.target.now().buffered)
            .map(|s| s.st_size as u64)
            .map_err(|e| IoError::from_errno(e.raw_os_error(), 0))
    }

    fn truncate(&self, len: u64) -> Result<(), IoError> {
        if self.block_device {
            return match len.cmp(&self.len()?) {
                Ordering::Equal => Ok(()),
                Ordering::Greater => Err(IoError::new(IoErrorKind::NoSpace, len)),
                Ordering::Less => Err(IoError::from_errno(libc::EINVAL, len)),
            };
        }
        loop {
            match rustix::fs::ftruncate(&self.target.now().buffered, len) {
                Err(rustix::io::Errno::INTR) => {}
                other => return other.map_err(|e| IoError::from_errno(e.raw_os_error(), len)),
            }
        }
    }

    fn discard(&self, offset: u64, len: u64) -> Result<(), IoError> {
        match self.fallocate(PUNCH, offset, len) {
            // Nothing to gain there; the contents may stay.
            Ok(()) | Err(libc::EOPNOTSUPP) => Ok(()),
            Err(e) => Err(IoError::from_errno(e, offset)),
        }
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), IoError> {
        if len == 0 {
            return Ok(());
        }
        // A hole first: it gives the space back. The other call sets space aside, even where there was a hole.
        for mode in [PUNCH, ZERO] {
            match self.fallocate(mode, offset, len) {
                Ok(()) => return Ok(()),
                // EINVAL: a block device and a range that is no whole blocks.
                Err(libc::EOPNOTSUPP | libc::EINVAL) => {}
                Err(e) => return Err(IoError::from_errno(e, offset)),
            }
        }
        self.write_zeroes_slowly(offset, len)
    }

    fn extents(&self, offset: u64, len: u64) -> Result<Vec<(u64, u64)>, IoError> {
        if self.block_device {
            return Ok(vec![(offset, len)]);
        }
        let target = self.target.now();
        let fd = &target.buffered;
        let end = offset.saturating_add(len);
        let (mut at, mut found) = (offset, Vec::new());
        while at < end {
            let start = match rustix::fs::seek(fd, SeekFrom::Data(at)) {
                Ok(start) if start < end => start,
                Ok(_) => break,
                // No data from here to the end of the file.
                Err(rustix::io::Errno::NXIO) => break,
                Err(rustix::io::Errno::INVAL) => return Ok(vec![(offset, len)]),
                Err(e) => return Err(IoError::from_errno(e.raw_os_error(), at)),
            };
            let hole = rustix::fs::seek(fd, SeekFrom::Hole(start))
                .map_err(|e| IoError::from_errno(e.raw_os_error(), start))?
                .min(end);
            if hole <= start {
                break;
            }
            found.push((start, hole - start));
            at = hole;
        }
        Ok(found)
    }
}
