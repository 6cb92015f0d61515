//! An open file: what users call.
//!
//! **Context.** Any task without engine locks. `page` and `page_mut` give latches; everything else returns without one.
//! **Kernel.** filemap_read, generic_perform_write, the page lock of a caller who maps a page.

mod guard;
mod rw;

pub use guard::{PageMut, PageRef};

use crate::engine::Engine;
use crate::error::Error;
use crate::frame::state::{READAHEAD, TOUCH};
use crate::mapping::{Leaving, Mapping, Pinned, readahead::Readahead};
use crate::sync::Ordering;
use crate::world::{Task, World};
use crate::writeback::Scope;
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

pub(crate) struct Handle<W: World> {
    pub engine: Arc<Engine<W>>,
    pub mapping: Arc<Mapping>,
    pub readahead: Readahead,
    pub write: bool,
    /// Of the last handle, at its end. Dropped after `mapping`: fields are dropped in their order.
    leaving: Option<Leaving<W>>,
}

impl<W: World> Drop for Handle<W> {
    fn drop(&mut self) {
        // AcqRel: the flusher that sees no handle also sees what this one did.
        if self.mapping.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.leaving = self.engine.put_mapping(&self.mapping);
        }
    }
}

/// An open file. Clones share it; the last one that is dropped closes it. Dirty pages of a closed file are written back
/// in the background, and by `close` of the cache.
pub struct File<W: World> {
    handle: Arc<Handle<W>>,
}

impl<W: World> Clone for File<W> {
    fn clone(&self) -> File<W> {
        File {
            handle: self.handle.clone(),
        }
    }
}

impl<W: World> std::fmt::Debug for File<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File")
            .field("id", &self.handle.mapping.file)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl<W: World> File<W> {
    pub(crate) fn new(engine: Arc<Engine<W>>, mapping: Arc<Mapping>, write: bool) -> File<W> {
        File {
            handle: Arc::new(Handle {
                engine,
                mapping,
                readahead: Readahead::new(),
                write,
                leaving: None,
            }),
        }
    }

    /// The engine that keeps its pages.
    pub fn engine(&self) -> &Arc<Engine<W>> {
        &self.handle.engine
    }

    /// The file's length in bytes, growth that is not yet written included. Does not block.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.handle.mapping.len()
    }

    /// Sets the length. Shrinking drops the pages beyond it, dirty or not; growing reads as zeroes. Waits for writes of
    /// the file that are in flight.
    ///
    /// # Errors
    /// `ReadOnly`; `Config` beyond 2^63 - 1; `Io` and `Busy` (the new last page is held), after which nothing has changed;
    /// `TimedOut`.
    #[doc(alias = "ftruncate")]
    pub fn set_len(&self, len: u64) -> Result<(), Error> {
        self.writable()?;
        if len > i64::MAX as u64 {
            return Err(Error::Config(format!(
                "a file ends at 2^63 - 1 bytes: a length of {len} is too long"
            )));
        }
        self.engine().truncate(&self.handle.mapping, len)
    }

    /// Punches a hole: the whole pages within a byte range (the last one of the file counts as whole) read as zeroes from
    /// now on, unwritten changes to them are dropped, and the backing may use their space again. Bytes of pages that lie
    /// within the range only in part stay. Durable after the next sync; a crash before it leaves each page as it was, or
    /// zero. Waits for writes of the file that are in flight.
    ///
    /// # Errors
    /// `ReadOnly`; `Io`, after which nothing has changed; `TimedOut`.
    #[doc(alias("fallocate", "FALLOC_FL_PUNCH_HOLE"))]
    pub fn discard(&self, range: Range<u64>) -> Result<(), Error> {
        self.writable()?;
        self.engine().discard_range(&self.handle.mapping, range)
    }

    /// Writes back and drops the pages of a byte range; returns how many were dropped. Held pages stay, and are not waited
    /// for.
    ///
    /// # Errors
    /// `Io` when a write failed: that page stays dirty and in memory; `TimedOut`.
    #[doc(alias("posix_fadvise", "invalidate_mapping_pages"))]
    pub fn evict(&self, range: Range<u64>) -> Result<u64, Error> {
        let engine = self.engine();
        engine.usable()?;
        engine.evict_range(&self.handle.mapping, self.pages(&range))
    }

    /// Makes durable everything written before the call (`fdatasync`). What is dirtied meanwhile is not chased.
    ///
    /// # Errors
    /// `Io` while a page could not be written or the device could not be flushed, also for an earlier error of the
    /// background that nobody has seen; `DurabilityLost`; `Busy` naming a page whose latch somebody keeps; `TimedOut`.
    #[doc(alias = "fdatasync")]
    pub fn sync_data(&self) -> Result<(), Error> {
        self.sync(&(0..u64::MAX), Scope::Data)
    }

    /// As `sync_data`, with the file's attributes (`fsync`). The length is part of both.
    ///
    /// # Errors
    /// As `sync_data`.
    #[doc(alias = "fsync")]
    pub fn sync_all(&self) -> Result<(), Error> {
        self.sync(&(0..u64::MAX), Scope::All)
    }

    /// As `sync_data`, for the pages that a byte range touches.
    ///
    /// # Errors
    /// As `sync_data`.
    #[doc(alias = "sync_file_range")]
    pub fn sync_range(&self, range: Range<u64>) -> Result<(), Error> {
        self.sync(&self.pages(&range), Scope::Data)
    }

    fn sync(&self, pages: &Range<u64>, scope: Scope) -> Result<(), Error> {
        let engine = self.engine();
        engine.usable()?;
        engine.sync_mapping(&self.handle.mapping, pages, scope, true)
    }

    /// Counts a hit of `page`, and tells whoever wants to know of it.
    #[inline(always)]
    fn note_hit(&self, task: &Task, pinned: &Pinned<'_>, page: u64) {
        let handle = &*self.handle;
        handle.engine.count_hit(task);
        if pinned.before & (READAHEAD | TOUCH) != 0 {
            let (m, ra) = (&handle.mapping, &handle.readahead);
            handle.engine.hit_marked(m, ra, pinned.number, page);
        }
    }

    fn pages(&self, range: &Range<u64>) -> Range<u64> {
        let shift = self.engine().page_shift;
        range.start >> shift..self.engine().pages_of(range.end)
    }

    fn writable(&self) -> Result<(), Error> {
        self.engine().usable()?;
        if !self.handle.write {
            return Err(Error::ReadOnly);
        }
        Ok(())
    }
}
