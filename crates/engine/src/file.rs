//! An open file: what users call.

use crate::engine::Engine;
use crate::error::Error;
use crate::world::World;
use std::ops::Range;
use std::sync::Arc;

/// A page's number within its file: byte offset / frame size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageNo(pub u64);

/// Names a file: device and inode. One id, one set of pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId {
    /// `st_dev`.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
}

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FileOptions {
    /// May be written.
    pub write: bool,
}

/// An open file. Clones share it.
pub struct File<W: World> {
    engine: Arc<Engine<W>>,
}

impl<W: World> Clone for File<W> {
    fn clone(&self) -> File<W> {
        File {
            engine: self.engine.clone(),
        }
    }
}

/// A page held for reading. Derefs to its bytes, always a whole frame; bytes beyond the end of the file are zero.
pub struct PageRef<'a, W: World> {
    file: &'a File<W>,
}

/// A page held for writing; dirty from the moment it is given out.
pub struct PageMut<'a, W: World> {
    file: &'a File<W>,
}

impl<W: World> std::ops::Deref for PageRef<'_, W> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        let _ = &self.file;
        todo!()
    }
}
impl<W: World> std::ops::Deref for PageMut<'_, W> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        let _ = &self.file;
        todo!()
    }
}
impl<W: World> std::ops::DerefMut for PageMut<'_, W> {
    fn deref_mut(&mut self) -> &mut [u8] {
        todo!()
    }
}

impl<W: World> File<W> {
    /// The engine.
    pub fn engine(&self) -> &Arc<Engine<W>> {
        &self.engine
    }
    /// Reads up to `buf.len()` bytes at `offset`; fewer at the end of the file, 0 beyond it. Atomic per page.
    ///
    /// # Errors
    /// `Io`, `OutOfMemory`, `AllPinned`, `Busy`, `TimedOut`.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, Error> {
        let _ = (buf, offset);
        todo!()
    }
    /// Writes all of `buf` at `offset`, extending the file. Atomic per page.
    ///
    /// # Errors
    /// `ReadOnly`, and those of `read_at`. On an error, pages before the failing one are written.
    pub fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), Error> {
        let _ = (buf, offset);
        todo!()
    }
    /// A page for reading, without a copy.
    ///
    /// # Errors
    /// `OutOfRange`, `TooManyHolders`, `SelfDeadlock`, and those of `read_at`.
    pub fn page(&self, page: PageNo) -> Result<PageRef<'_, W>, Error> {
        let _ = page;
        todo!()
    }
    /// A page for writing, without a copy.
    ///
    /// # Errors
    /// `ReadOnly`, and those of `page`.
    pub fn page_mut(&self, page: PageNo) -> Result<PageMut<'_, W>, Error> {
        let _ = page;
        todo!()
    }
    /// The file's length in bytes, unwritten growth included.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        todo!()
    }
    /// Sets the length. Shrinking drops the pages beyond it; growing reads as zeroes.
    ///
    /// # Errors
    /// `ReadOnly`, `Io`, `TimedOut`, `Busy`.
    pub fn set_len(&self, len: u64) -> Result<(), Error> {
        let _ = len;
        todo!()
    }
    /// Writes back and drops the pages of a byte range; returns how many were dropped. Held pages stay.
    ///
    /// # Errors
    /// `Io` when a write failed: that page stays dirty and in memory.
    pub fn evict(&self, range: Range<u64>) -> Result<u64, Error> {
        let _ = range;
        todo!()
    }
    /// Makes durable everything written before the call (`fdatasync`).
    ///
    /// # Errors
    /// `Io`, `DurabilityLost`, `TimedOut`.
    pub fn sync_data(&self) -> Result<(), Error> {
        todo!()
    }
    /// As `sync_data`, with the file's attributes (`fsync`).
    ///
    /// # Errors
    /// As `sync_data`.
    pub fn sync_all(&self) -> Result<(), Error> {
        todo!()
    }
    /// As `sync_data`, for the pages of a byte range.
    ///
    /// # Errors
    /// As `sync_data`.
    pub fn sync_range(&self, range: Range<u64>) -> Result<(), Error> {
        let _ = range;
        todo!()
    }
}
