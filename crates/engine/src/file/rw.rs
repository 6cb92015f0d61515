//! `read_at` and `write_at`: copies, page by page, atomic per page.
#![allow(unsafe_code)]

use super::File;
use crate::error::Error;
use crate::frame::state::{EXCL, UPTODATE};
use crate::mapping::Fill;
use crate::sync::Ordering;
use crate::world::{Work, World};
use crate::zone::Run;

/// So many pages before it is written, a page's place in the index and its shadow are fetched.
const FETCH_AHEAD: usize = 4;

impl<W: World> File<W> {
    /// Reads up to `buf.len()` bytes at `offset`; fewer at the end of the file, 0 beyond it. Atomic per page.
    ///
    /// # Errors
    /// `Io`, `OutOfMemory`, `AllPinned`, `Busy`, `TimedOut`.
    #[inline]
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, Error> {
        match self.read_hit(buf, offset) {
            Some(n) => Ok(n),
            None => self.read_pages(buf, offset),
        }
    }

    /// A read from one page that is in memory. `None`: anything else, and nothing was done.
    #[inline(always)]
    fn read_hit(&self, buf: &mut [u8], offset: u64) -> Option<usize> {
        let handle = &*self.handle;
        let engine = &*handle.engine;
        if engine.is_unusable() {
            return None;
        }
        let left = handle.mapping.len().checked_sub(offset)?;
        let n = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let size = engine.memory.frame_size();
        let within = (offset as usize) & (size - 1);
        if n == 0 || n > size - within {
            return None;
        }
        let page = offset >> engine.page_shift;
        #[cfg(debug_assertions)]
        self.check_not_held(page).ok()?;
        let task = engine.world.task();
        let this = self.place_of(page);
        // Relaxed: written by this task only.
        let pinned = if task.last_page.load(Ordering::Relaxed) == this {
            engine.find_near::<true>(handle.mapping.id, page, Some(within))
        } else {
            engine.find_near::<false>(handle.mapping.id, page, Some(within))
        }?;
        self.note_hit(task, &pinned, page);
        task.last_page.store(this, Ordering::Relaxed);
        // SAFETY: FRAME-1: pinned shared just above, let go just below.
        unsafe {
            engine.memory.copy_out(pinned.number, within, &mut buf[..n]);
        }
        // Here a reader may be pre-empted, with the page in hand.
        engine.world.charge(Work::Copy, 1);
        if pinned.frame.state.drop_shared() {
            engine.put_shared_slow(pinned.number);
        }
        Some(n)
    }

    /// Whatever `read_hit` does not do.
    #[inline(never)]
    fn read_pages(&self, buf: &mut [u8], offset: u64) -> Result<usize, Error> {
        let engine = &*self.handle.engine;
        engine.usable()?;
        let len = self.handle.mapping.len();
        if offset >= len {
            return Ok(0);
        }
        let size = engine.memory.frame_size();
        let n = buf
            .len()
            .min(usize::try_from(len - offset).unwrap_or(usize::MAX));
        let mut done = 0;
        while done < n {
            let at = offset + done as u64;
            let page = at >> engine.page_shift;
            let within = (at as usize) & (size - 1);
            let chunk = (size - within).min(n - done);
            if chunk < n - done {
                engine.fetch_entry(self.handle.mapping.id, page + 1);
            }
            match self.read_in_page(page, within, &mut buf[done..done + chunk], n - done) {
                Ok(()) => done += chunk,
                // The file became shorter meanwhile.
                Err(Error::OutOfRange { .. }) => return Ok(done),
                Err(e) => return Err(e),
            }
        }
        Ok(n)
    }

    #[inline(always)]
    fn read_in_page(
        &self,
        page: u64,
        within: usize,
        out: &mut [u8],
        rest: usize,
    ) -> Result<(), Error> {
        let handle = &*self.handle;
        let engine = &*handle.engine;
        #[cfg(debug_assertions)]
        self.check_not_held(page)?;
        let id = handle.mapping.id;
        let task = engine.world.task();
        let this = self.place_of(page);
        // Relaxed: written by this task only.
        let found = if task.last_page.load(Ordering::Relaxed) == this {
            engine.find_shared::<true>(id, page, Some(within))
        } else {
            engine.find_shared::<false>(id, page, Some(within))
        };
        let frame = match found {
            Some(pinned) => {
                self.note_hit(task, &pinned, page);
                pinned.number
            }
            None => {
                let size = engine.memory.frame_size();
                let count = (within + rest).div_ceil(size) as u64;
                engine.get_shared_slow(&handle.mapping, &handle.readahead, page, count)?
            }
        };
        task.last_page.store(this, Ordering::Relaxed);
        // SAFETY: FRAME-1: pinned shared just above, let go just below.
        unsafe { engine.memory.copy_out(frame, within, out) };
        // Here a reader may be pre-empted, with the page in hand.
        engine.world.charge(Work::Copy, 1);
        engine.put_shared(frame);
        Ok(())
    }

    /// A page of this file, as `Task::last_page` names it.
    #[inline(always)]
    fn place_of(&self, page: u64) -> u64 {
        (u64::from(self.handle.mapping.id) << 40) ^ page
    }

    /// Writes all of `buf` at `offset`, extending the file. Atomic per page. A whole page, and what lies past the end, is
    /// not read first. Pauses when there are many dirty pages.
    ///
    /// # Errors
    /// `ReadOnly`, `Config` beyond 2^63 - 1 bytes, those of `read_at`, and the device's error when its writes have failed for
    /// `fail_after`. On an error the pages before the failing one are written, that one and those after it are unchanged.
    pub fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), Error> {
        self.writable()?;
        let engine = &*self.handle.engine;
        let size = engine.memory.frame_size();
        if offset
            .checked_add(buf.len() as u64)
            .is_none_or(|e| e > i64::MAX as u64)
        {
            return Err(Error::Config(format!(
                "a file ends at 2^63 - 1 bytes: {} bytes at {offset} do not fit",
                buf.len()
            )));
        }
        let mut run = Run::single();
        let mut done = 0;
        let mut result = Ok(());
        while done < buf.len() && result.is_ok() {
            let at = offset + done as u64;
            let within = (at as usize) & (size - 1);
            let left = buf.len() - done;
            let chunk = (size - within).min(left);
            let pages = (within + left).div_ceil(size);
            run.want(pages);
            if pages > FETCH_AHEAD {
                let page = at >> engine.page_shift;
                engine.fetch_place(self.handle.mapping.id, page + FETCH_AHEAD as u64);
            }
            result = self.write_in_page(at, within, &buf[done..done + chunk], &mut run);
            done += chunk;
        }
        engine.put_back(&mut run);
        result
    }

    fn write_in_page(
        &self,
        at: u64,
        within: usize,
        bytes: &[u8],
        run: &mut Run,
    ) -> Result<(), Error> {
        let handle = &*self.handle;
        let engine = &*handle.engine;
        let m = &handle.mapping;
        let page = at >> engine.page_shift;
        let start = page << engine.page_shift;
        let end = at + bytes.len() as u64;
        #[cfg(debug_assertions)]
        self.check_not_held(page)?;
        engine.balance_dirty_pages(m, run)?;
        let excl = engine.get_excl(m, page, run, |len| {
            let whole = within == 0 && (bytes.len() == engine.memory.frame_size() || end >= len);
            if whole || start >= len {
                Fill::Zero
            } else {
                Fill::Read
            }
        })?;
        // SAFETY: FRAME-1: `get_excl` holds EXCL; let go below.
        unsafe {
            engine.memory.copy_in(excl.frame, within, bytes, excl.fresh);
        }
        // Here a writer may be pre-empted, with the page latched: the flusher passes it by, readers wait.
        engine.world.charge(Work::CopyIn, 1);
        m.grow(end);
        engine.set_dirty(m, excl.frame, excl.reserved);
        engine.invalidate_put(m);
        engine.release(excl.frame, EXCL, UPTODATE);
        Ok(())
    }
}
