//! Page guards: latched pages that deref to their bytes.
//!
//! A guard belongs to the task that took it (it is not `Send`): each task counts its own guards.
#![allow(unsafe_code)]

use super::{File, PageNo};
use crate::engine::Engine;
use crate::error::Error;
use crate::frame::Frame;
use crate::frame::state::{EXCL, UPTODATE};
use crate::mapping::{Fill, Pinned};
use crate::sync::Ordering;
use crate::trace::Event;
use crate::world::{Task, Work, World};
use crate::zone::Run;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// A page held for reading. Derefs to its bytes, always a whole frame; bytes beyond the end of the file are zero.
///
/// While it lives nobody writes the page: other tasks' `page_mut` of it wait, bounded by `latch_timeout`.
pub struct PageRef<'a, W: World> {
    file: &'a File<W>,
    descriptor: &'a Frame,
    task: &'a Task,
    bytes: *const [u8],
    frame: u32,
    not_send: PhantomData<*const ()>,
}

/// A page held for writing; dirty from the moment it is given out.
///
/// While it lives nobody else reads or writes the page. Bytes beyond the end of the file are not kept.
pub struct PageMut<'a, W: World> {
    file: &'a File<W>,
    frame: u32,
    bytes: *mut u8,
    page: u64,
    not_send: PhantomData<*const ()>,
}

impl<W: World> File<W> {
    /// A page for reading, without a copy.
    ///
    /// # Errors
    /// `OutOfRange`, `Io`, `OutOfMemory`, `AllPinned`, `Busy`, `TimedOut`, `TooManyHolders`; `SelfDeadlock` (debug
    /// builds) when this task holds the page already.
    #[inline(always)]
    pub fn page(&self, page: PageNo) -> Result<PageRef<'_, W>, Error> {
        let task = self.handle.engine.world.task();
        let (number, frame) = match self.page_hit(task, page.0) {
            Some(pinned) => (pinned.number, pinned.frame),
            // A frame's number comes back, and not the guard: one that was written to memory, there or here, would be read
            // from there by its user, who could not begin to load the page's bytes before those writes are done.
            None => {
                let number = self.page_slow(page.0)?;
                (number, self.handle.engine.frames.get(number))
            }
        };
        Ok(self.page_ref(task, number, frame, page.0))
    }

    /// The plain hit.
    #[inline(always)]
    fn page_hit(&self, task: &Task, page: u64) -> Option<Pinned<'_>> {
        let handle = &*self.handle;
        let engine = &*handle.engine;
        let in_range = page < engine.pages_of(handle.mapping.len());
        if !in_range || engine.is_unusable() {
            return None;
        }
        #[cfg(debug_assertions)]
        self.check_not_held(page).ok()?;
        let pinned = engine.find_near::<false>(handle.mapping.id, page, None)?;
        self.note_hit(task, &pinned, page);
        engine.world.charge(Work::Hit, 1);
        Some(pinned)
    }

    #[inline(always)]
    fn page_ref<'a>(
        &'a self,
        task: &'a Task,
        number: u32,
        descriptor: &'a Frame,
        page: u64,
    ) -> PageRef<'a, W> {
        let engine = &*self.handle.engine;
        note_guard(engine, task, self.handle.mapping.id, page);
        // SAFETY: FRAME-1: the caller has pinned the frame; the guard keeps the pin.
        let bytes = unsafe { engine.memory.bytes(number) };
        PageRef {
            file: self,
            descriptor,
            task,
            bytes,
            frame: number,
            not_send: PhantomData,
        }
    }

    /// Whatever is not a plain hit; pinned.
    #[cold]
    #[inline(never)]
    fn page_slow(&self, page: u64) -> Result<u32, Error> {
        let handle = &*self.handle;
        let engine = &*handle.engine;
        engine.usable()?;
        let len = handle.mapping.len();
        if page >= engine.pages_of(len) {
            return Err(Error::OutOfRange { page, len });
        }
        #[cfg(debug_assertions)]
        self.check_not_held(page)?;
        let frame = match engine.find_shared::<false>(handle.mapping.id, page, None) {
            Some(pinned) => {
                self.note_hit(engine.world.task(), &pinned, page);
                pinned.number
            }
            None => engine.get_shared_slow(&handle.mapping, &handle.readahead, page, 1)?,
        };
        engine.world.charge(Work::Hit, 1);
        Ok(frame)
    }

    /// A page for writing, without a copy. The page must lie within the file: `set_len` or `write_at` extends it.
    /// May pause, as `write_at` does, when there are many dirty pages.
    ///
    /// # Errors
    /// `ReadOnly`, and those of `page`; the device's error when its writes have failed for `fail_after`.
    pub fn page_mut(&self, page: PageNo) -> Result<PageMut<'_, W>, Error> {
        self.writable()?;
        let handle = &*self.handle;
        let engine = &*handle.engine;
        let page = page.0;
        #[cfg(debug_assertions)]
        self.check_not_held(page)?;
        let len = handle.mapping.len();
        if page >= engine.pages_of(len) {
            return Err(Error::OutOfRange { page, len });
        }
        let mut alone = Run::single();
        engine.balance_dirty_pages(&handle.mapping, &mut alone)?;
        let excl = engine.get_excl(&handle.mapping, page, &mut alone, |_| Fill::Read)?;
        engine.set_dirty(&handle.mapping, excl.frame, excl.reserved);
        engine.invalidate_put(&handle.mapping);
        note_guard(engine, engine.world.task(), handle.mapping.id, page);
        engine.world.charge(Work::Hit, 1);
        // SAFETY: FRAME-1: `get_excl` holds EXCL on the frame; the guard keeps it.
        let bytes = unsafe { engine.memory.bytes_mut(excl.frame) }.as_mut_ptr();
        Ok(PageMut {
            file: self,
            frame: excl.frame,
            bytes,
            page,
            not_send: PhantomData,
        })
    }

    #[cfg(debug_assertions)]
    pub(super) fn check_not_held(&self, page: u64) -> Result<(), Error> {
        let engine = &*self.handle.engine;
        let key = (engine.id, self.handle.mapping.id, page);
        let held = engine.world.task().held.lock();
        if held.is_ok_and(|h| h.contains(&key)) {
            return Err(Error::SelfDeadlock { page });
        }
        Ok(())
    }
}

#[inline(always)]
fn note_guard<W: World>(engine: &Engine<W>, task: &Task, mapping: u32, page: u64) {
    Task::bump(&task.guards, 1);
    #[cfg(debug_assertions)]
    if let Ok(mut held) = task.held.lock() {
        held.push((engine.id, mapping, page));
    }
    let _ = (engine, mapping, page);
}

#[inline(always)]
fn forget_guard<W: World>(engine: &Engine<W>, mapping: u32, page: u64) {
    let task = engine.world.task();
    Task::bump(&task.guards, 1u32.wrapping_neg());
    #[cfg(debug_assertions)]
    forget_held(task, (engine.id, mapping, page));
    let _ = (mapping, page);
}

#[cfg(debug_assertions)]
fn forget_held(task: &Task, key: (u32, u32, u64)) {
    if let Ok(mut held) = task.held.lock()
        && let Some(at) = held.iter().position(|h| *h == key)
    {
        held.swap_remove(at);
    }
}

impl<W: World> PageRef<'_, W> {
    /// The page's number.
    pub fn number(&self) -> PageNo {
        PageNo(self.descriptor.page())
    }
}

impl<W: World> PageMut<'_, W> {
    /// The page's number.
    pub fn number(&self) -> PageNo {
        PageNo(self.page)
    }
}

impl<W: World> Deref for PageRef<'_, W> {
    type Target = [u8];
    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: FRAME-1: the guard holds a shared pin, so nobody writes; `bytes` is the whole frame.
        unsafe { &*self.bytes }
    }
}

impl<W: World> Deref for PageMut<'_, W> {
    type Target = [u8];
    #[inline(always)]
    fn deref(&self) -> &[u8] {
        let size = self.file.handle.engine.memory.frame_size();
        // SAFETY: FRAME-1: the guard holds EXCL; `bytes` points to a whole frame.
        unsafe { std::slice::from_raw_parts(self.bytes, size) }
    }
}

impl<W: World> DerefMut for PageMut<'_, W> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        let size = self.file.handle.engine.memory.frame_size();
        // SAFETY: FRAME-1: the guard holds EXCL, and `&mut self` makes the slice the only one.
        unsafe { std::slice::from_raw_parts_mut(self.bytes, size) }
    }
}

impl<W: World> Drop for PageRef<'_, W> {
    #[inline(always)]
    fn drop(&mut self) {
        #[cfg(debug_assertions)]
        let page = self.descriptor.page();
        if self.descriptor.state.drop_shared() {
            self.file.handle.engine.put_shared_slow(self.frame);
        }
        Task::bump(&self.task.guards, 1u32.wrapping_neg());
        #[cfg(debug_assertions)]
        forget_held(
            self.task,
            (
                self.file.handle.engine.id,
                self.file.handle.mapping.id,
                page,
            ),
        );
    }
}

impl<W: World> Drop for PageMut<'_, W> {
    fn drop(&mut self) {
        let handle = &*self.file.handle;
        let engine = &*handle.engine;
        let start = self.page << engine.page_shift;
        let size = engine.memory.frame_size() as u64;
        let kept = handle.mapping.len().saturating_sub(start);
        if kept < size {
            // What lies beyond the end reads as zero when the file grows.
            engine.memory.zero_from(self.frame, kept as usize);
        }
        engine.release(self.frame, EXCL, UPTODATE);
        forget_guard(engine, handle.mapping.id, self.page);
    }
}

impl<W: World> Engine<W> {
    /// Counts a hit on the task's own counter, folded every 256.
    #[inline(always)]
    pub(crate) fn count_hit(&self, task: &Task) {
        let n = Task::bump(&task.hits, 1);
        // Relaxed: written by this task only.
        if n >= 256 || task.hits_of.load(Ordering::Relaxed) != self.id {
            self.fold_hits(task, n);
        }
    }

    /// Counts those of the calling task's hits that were not counted yet, up to 255: for a task that ends. Who asks for
    /// [`Engine::stats`] has done so.
    pub fn count_own_hits(&self) {
        let task = self.world.task();
        // Relaxed: written by this task only.
        let n = task.hits.load(Ordering::Relaxed);
        if n > 0 && task.hits_of.load(Ordering::Relaxed) == self.id {
            self.fold_hits(task, n);
        }
    }

    #[cold]
    fn fold_hits(&self, task: &Task, n: u32) {
        // Relaxed: written by this task only. Hits of another cache are that cache's: they are lost to it, at most 255.
        let same = task.hits_of.load(Ordering::Relaxed) == self.id;
        self.count(Event::Hits, if same { u64::from(n) } else { 1 });
        task.hits.store(0, Ordering::Relaxed);
        task.hits_of.store(self.id, Ordering::Relaxed);
    }
}
