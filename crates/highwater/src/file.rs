//! An open file, as users see it: the engine's, behind a check that this is still the process that opened it.
#![allow(unsafe_code)]

use crate::world::{ForkMark, OsWorld};
use highwater_engine::{Error, PageNo};
use std::mem::ManuallyDrop;
use std::ops::Range;

/// A page held for reading; see [`File::page`].
///
/// ```
/// fn checksum(page: &highwater::PageRef<'_>) -> u64 {
///     page.iter().map(|b| u64::from(*b)).sum()
/// }
/// ```
pub type PageRef<'a> = highwater_engine::PageRef<'a, OsWorld>;

/// A page held for writing; see [`File::page_mut`].
///
/// ```
/// fn wipe(page: &mut highwater::PageMut<'_>) {
///     page.fill(0);
/// }
/// ```
pub type PageMut<'a> = highwater_engine::PageMut<'a, OsWorld>;

/// An open file. Clones share it; threads may use it at the same time.
///
/// ```
/// # use highwater::{Cache, OpenOptions, PageNo};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("data");
/// # let cache = Cache::builder().memory(16 << 20).build()?;
/// let file = cache.open(&path, OpenOptions::new().write(true).create(true))?;
/// file.set_len(3 * 4096)?;
/// file.page_mut(PageNo(1))?[..5].copy_from_slice(b"hello");
/// let mut bytes = [0; 5];
/// assert_eq!(file.read_at(&mut bytes, 4096)?, 5);
/// assert_eq!(&bytes, b"hello");
/// # drop(file);
/// # cache.close()?;
/// # Ok::<(), highwater::Error>(())
/// ```
pub struct File {
    inner: ManuallyDrop<highwater_engine::File<OsWorld>>,
    fork: ForkMark,
    direct: bool,
    write: bool,
}

impl Clone for File {
    fn clone(&self) -> File {
        File {
            inner: self.inner.clone(),
            fork: self.fork,
            direct: self.direct,
            write: self.write,
        }
    }
}

impl Drop for File {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // In a forked child the parent's file is left as it is (CACHE-1).
        if !self.fork.forked() {
            // SAFETY: dropped once, here, and not used after.
            unsafe { ManuallyDrop::drop(&mut self.inner) };
        }
    }
}

impl File {
    pub(crate) fn new(
        inner: highwater_engine::File<OsWorld>,
        fork: ForkMark,
        direct: bool,
        write: bool,
    ) -> File {
        File {
            inner: ManuallyDrop::new(inner),
            fork,
            direct,
            write,
        }
    }

    #[inline(always)]
    fn check(&self) -> Result<&highwater_engine::File<OsWorld>, Error> {
        if self.fork.forked() {
            return Err(Error::Forked);
        }
        Ok(&self.inner)
    }

    #[inline(always)]
    fn check_write(&self) -> Result<&highwater_engine::File<OsWorld>, Error> {
        if !self.write {
            return Err(Error::ReadOnly);
        }
        self.check()
    }

    /// Does this file go past the kernel's page cache? Where it does not (tmpfs, some overlays), the kernel keeps pages
    /// of its own outside the budget.
    ///
    /// ```
    /// # use highwater::{Cache, DirectIo, OpenOptions};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("data");
    /// # let cache = Cache::builder().memory(16 << 20).build()?;
    /// let options = OpenOptions::new().write(true).create(true).direct(DirectIo::Never);
    /// assert!(!cache.open(&path, options)?.direct());
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn direct(&self) -> bool {
        self.direct
    }

    /// Reads up to `buf.len()` bytes at byte `offset`; fewer at the end of the file, 0 beyond it. Atomic per page. A page
    /// that is not in memory is read on the calling thread.
    ///
    /// ```
    /// # use highwater::{Cache, OpenOptions};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, b"some bytes").unwrap();
    /// # let cache = Cache::builder().memory(16 << 20).build()?;
    /// let file = cache.open(&path, OpenOptions::new().read(true))?;
    /// let mut buf = [0; 64];
    /// let n = file.read_at(&mut buf, 5)?;
    /// assert_eq!(&buf[..n], b"bytes");
    /// # drop(file);
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Io`, `OutOfMemory`, `AllPinned`, `Busy`, `TimedOut`, `Closed`, `Forked`.
    #[inline]
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, Error> {
        // The engine looks for itself whether the process is a fork's child.
        self.inner.read_at(buf, offset)
    }

    /// Writes all of `buf` at byte `offset`, extending the file. Atomic per page. Goes to memory; a writer that is ahead
    /// of its device is paused (at most 1 ms at a time while the device is healthy).
    ///
    /// ```
    /// # use highwater::{Cache, OpenOptions};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("data");
    /// # let cache = Cache::builder().memory(16 << 20).build()?;
    /// let file = cache.open(&path, OpenOptions::new().write(true).create(true))?;
    /// file.write_at(b"hello", 10_000)?;
    /// file.sync_data()?;
    /// assert_eq!(std::fs::read(&path).unwrap()[10_000..], *b"hello");
    /// # drop(file);
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    ///
    /// # Errors
    /// `ReadOnly`, `Config` beyond 2^63 - 1 bytes, and those of `read_at`; the device's error (`Io`) when its writes have
    /// failed for `fail_after`. On an error, pages before the failing one are written.
    #[inline]
    pub fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), Error> {
        self.check_write()?.write_at(buf, offset)
    }

    /// A page for reading, without a copy: always a whole frame; bytes beyond the end of the file are zero. Others may
    /// hold it for reading at the same time; its writers wait.
    ///
    /// ```
    /// # use highwater::{Cache, OpenOptions, PageNo};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, b"some bytes").unwrap();
    /// # let cache = Cache::builder().memory(16 << 20).build()?;
    /// let file = cache.open(&path, OpenOptions::new().read(true))?;
    /// let page = file.page(PageNo(0))?;
    /// assert_eq!((&page[..4], page.len()), (&b"some"[..], 4096));
    /// # drop(page);
    /// # drop(file);
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    ///
    /// # Errors
    /// `OutOfRange`, `TooManyHolders`, and those of `read_at`. A thread that holds the page already, in a way that excludes
    /// this one, waits for itself: `SelfDeadlock` at once in debug builds, `Busy` after `latch_timeout` in others.
    #[inline(always)]
    pub fn page(&self, page: PageNo) -> Result<PageRef<'_>, Error> {
        // The engine looks for itself whether the process is a fork's child.
        self.inner.page(page)
    }

    /// A page for writing, without a copy. It is dirty from now on, and nobody else may hold it meanwhile.
    ///
    /// ```
    /// # use highwater::{Cache, OpenOptions, PageNo};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("data");
    /// # let cache = Cache::builder().memory(16 << 20).build()?;
    /// let file = cache.open(&path, OpenOptions::new().write(true).create(true))?;
    /// file.set_len(8192)?;
    /// file.page_mut(PageNo(1))?.fill(7);
    /// file.sync_data()?;
    /// assert_eq!(std::fs::read(&path).unwrap()[4096..], [7; 4096]);
    /// # drop(file);
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    ///
    /// # Errors
    /// `ReadOnly`, and those of `page`.
    #[inline]
    pub fn page_mut(&self, page: PageNo) -> Result<PageMut<'_>, Error> {
        self.check_write()?.page_mut(page)
    }

    /// The length in bytes, unwritten growth included. Waits for nothing.
    ///
    /// ```
    /// # use highwater::{Cache, OpenOptions};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, b"some bytes").unwrap();
    /// # let cache = Cache::builder().memory(16 << 20).build()?;
    /// assert_eq!(cache.open(&path, OpenOptions::new().read(true))?.len(), 10);
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.inner.len()
    }

    /// Sets the length. Shrinking drops the pages beyond it, and waits for what is in flight there; growing reads as
    /// zeroes.
    ///
    /// ```
    /// # use highwater::{Cache, OpenOptions};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("data");
    /// # let cache = Cache::builder().memory(16 << 20).build()?;
    /// let file = cache.open(&path, OpenOptions::new().write(true).create(true))?;
    /// file.set_len(5000)?;
    /// assert_eq!(std::fs::metadata(&path).unwrap().len(), 5000);
    /// # drop(file);
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    ///
    /// # Errors
    /// `ReadOnly`, `Config` beyond 2^63 - 1 bytes, `Io` and `Busy` (the new last page is held), after which nothing has
    /// changed; `TimedOut`, `Closed`, `Forked`.
    pub fn set_len(&self, len: u64) -> Result<(), Error> {
        self.check_write()?.set_len(len)
    }

    /// Punches a hole: the whole pages within a byte range (the last one of the file counts as whole) read as zeroes from
    /// now on, and their space may be used again. Bytes of pages that lie within the range only in part stay. Durable after
    /// the next sync. Waits for what is in flight in the file.
    ///
    /// ```
    /// # use highwater::{Cache, OpenOptions};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("data");
    /// # let cache = Cache::builder().memory(16 << 20).build()?;
    /// let file = cache.open(&path, OpenOptions::new().write(true).create(true))?;
    /// file.write_at(&[7; 3 * 4096], 0)?;
    /// file.discard(4096..8192)?;
    /// let mut page = [1; 4096];
    /// file.read_at(&mut page, 4096)?;
    /// assert_eq!(page, [0; 4096]);
    /// # drop(file);
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    ///
    /// # Errors
    /// `ReadOnly`, `Io` (nothing has changed then), `TimedOut`, `Closed`, `Forked`.
    pub fn discard(&self, range: Range<u64>) -> Result<(), Error> {
        self.check_write()?.discard(range)
    }

    /// Writes back and drops the pages of a byte range; returns how many were dropped. Held pages stay, and are not waited
    /// for.
    ///
    /// ```
    /// # use highwater::{Cache, OpenOptions};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("data");
    /// # let cache = Cache::builder().memory(16 << 20).build()?;
    /// let file = cache.open(&path, OpenOptions::new().write(true).create(true))?;
    /// file.write_at(&[1; 8192], 0)?;
    /// assert_eq!(file.evict(0..u64::MAX)?, 2);
    /// # drop(file);
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Io` when a write failed: that page stays dirty and in memory; `TimedOut`, `Closed`, `Forked`.
    pub fn evict(&self, range: Range<u64>) -> Result<u64, Error> {
        self.check()?.evict(range)
    }

    /// Makes durable everything written before the call (`fdatasync`); waits for the device.
    ///
    /// ```
    /// # use highwater::{Cache, OpenOptions};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("data");
    /// # let cache = Cache::builder().memory(16 << 20).build()?;
    /// let file = cache.open(&path, OpenOptions::new().write(true).create(true))?;
    /// file.write_at(b"precious", 0)?;
    /// file.sync_data()?;
    /// # drop(file);
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Io` while anything is not durable, also for an earlier error of the background that nobody has seen;
    /// `DurabilityLost`; `Busy` naming a page that a [`PageMut`] has held for `latch_timeout`; `TimedOut`, `Closed`, `Forked`.
    pub fn sync_data(&self) -> Result<(), Error> {
        self.check()?.sync_data()
    }

    /// As [`File::sync_data`], with the file's attributes (`fsync`).
    ///
    /// ```
    /// # use highwater::{Cache, OpenOptions};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("data");
    /// # let cache = Cache::builder().memory(16 << 20).build()?;
    /// let file = cache.open(&path, OpenOptions::new().write(true).create(true))?;
    /// file.write_at(b"precious", 0)?;
    /// file.sync_all()?;
    /// # drop(file);
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    ///
    /// # Errors
    /// As `sync_data`.
    pub fn sync_all(&self) -> Result<(), Error> {
        self.check()?.sync_all()
    }

    /// As [`File::sync_data`], for the pages of a byte range.
    ///
    /// ```
    /// # use highwater::{Cache, OpenOptions};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("data");
    /// # let cache = Cache::builder().memory(16 << 20).build()?;
    /// let file = cache.open(&path, OpenOptions::new().write(true).create(true))?;
    /// file.write_at(&[1; 8192], 0)?;
    /// file.sync_range(0..4096)?;
    /// assert_eq!(std::fs::read(&path).unwrap()[..4096], [1; 4096]);
    /// # drop(file);
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    ///
    /// # Errors
    /// As `sync_data`.
    pub fn sync_range(&self, range: Range<u64>) -> Result<(), Error> {
        self.check()?.sync_range(range)
    }
}
