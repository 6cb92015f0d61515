//! From a page's number to a latched frame: look-up, fill on a miss, install, copy for a writer that meets writeback.
//!
//! ```text
//! get_shared ── hit ───────────────────────────────► pinned frame
//!     └─ slow: under the region lock ─ busy ─ wait ─┐
//!          └─ miss: allocate, install LOADING, read ┴► again
//! get_excl ─ as above; a page under WRITEBACK is copied into a new frame and the index switched (FRAME-4)
//! ```
//! Frames are allocated before any latch or lock is taken: an allocation may wait for writeback, and writeback needs
//! latches and the invalidate lock.
//!
//! **Kernel.** filemap.c: filemap_fault, filemap_get_pages, __filemap_add_folio.

use super::index::Region;
use super::readahead::Readahead;
use super::{Key, Mapping};
use crate::engine::Engine;
use crate::error::Error;
use crate::frame::Frame;
use crate::frame::state::{
    ACTIVE, DIRTY, EXCL, HASHED, LOADING, Latch, ORPHAN, READAHEAD, REF1, TOUCH, UPTODATE,
    WRITEBACK,
};
use crate::lru::Enter;
use crate::lru::order::Ghosts;
use crate::trace::Event;
use crate::wait::Waited;
use crate::world::{Nanos, Work, World};
use crate::zone::Run;

/// A page that a look-up has pinned.
pub(crate) struct Pinned<'a> {
    /// Its frame's number.
    pub number: u32,
    /// Its frame's descriptor.
    pub frame: &'a Frame,
    /// The state word before the pin.
    pub before: u64,
}

/// What a locked look-up found.
pub(super) enum Found {
    /// Latched.
    Held(u32),
    /// There, but not now.
    Busy(u32, u64),
    /// Too many holders.
    Full,
    /// Not there.
    Miss,
}

/// How a writer wants a page that is not in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fill {
    /// Read from the backing.
    Read,
    /// Not read: the whole page will be overwritten, or it lies beyond the end and is zero.
    Zero,
}

/// A page latched exclusively, its mapping's invalidate lock held shared.
pub(crate) struct Exclusive {
    pub frame: u32,
    /// The frame is new and not yet up to date.
    pub fresh: bool,
    /// The backing has set space aside for the page; `set_dirty` uses it up.
    pub reserved: bool,
}

/// What a writer brings to a page: got before any latch is taken, given back if it was not needed.
struct Provisions<'a> {
    /// Where frames come from.
    run: &'a mut Run,
    /// A frame, for a copy or a new page.
    spare: Option<u32>,
    /// Space in the backing (RESERVE-1).
    reserved: bool,
}

impl<W: World> Engine<W> {
    /// Pins a page if it is in memory and its entry is where it is looked for first, as 99 of 100 are: the hit in as few
    /// instructions as can be. How many look-ups of independent pages the CPU overlaps depends on how many fit into its
    /// window. `AGAIN`: by the task that touched it last, which does not count as a reference. `within`: the byte of the
    /// page that the caller reads next, if it knows.
    #[inline(always)]
    pub(crate) fn find_near<const AGAIN: bool>(
        &self,
        mapping: u32,
        page: u64,
        within: Option<usize>,
    ) -> Option<Pinned<'_>> {
        let key = Key { mapping, page };
        self.index
            .find_home(self.index.hash(key), |f| self.pin::<AGAIN>(f, key, within))
    }

    /// Pins a page if it is in memory, as `find_near`, wherever its entry is.
    pub(crate) fn find_shared<const AGAIN: bool>(
        &self,
        mapping: u32,
        page: u64,
        within: Option<usize>,
    ) -> Option<Pinned<'_>> {
        let key = Key { mapping, page };
        self.index
            .find_map(self.index.hash(key), |f| self.pin::<AGAIN>(f, key, within))
    }

    #[inline(always)]
    fn pin<const AGAIN: bool>(
        &self,
        number: u32,
        key: Key,
        within: Option<usize>,
    ) -> Option<Pinned<'_>> {
        if let Some(within) = within {
            // The bytes and the descriptor are fetched side by side.
            self.memory.prefetch(number, within);
        }
        let frame = self.frames.get(number);
        let before = frame.state.pin::<AGAIN>().ok()?;
        if frame.page() == key.page && frame.mapping() == key.mapping {
            return Some(Pinned {
                number,
                frame,
                before,
            });
        }
        self.put_shared(number);
        None
    }

    /// Is the page in memory? A hint.
    pub(crate) fn is_resident(&self, mapping: u32, page: u64) -> bool {
        self.peek_frame(mapping, page).is_some()
    }

    /// The frame of a page, found without a lock. A hint.
    pub(crate) fn peek_frame(&self, mapping: u32, page: u64) -> Option<u32> {
        let hash = self.index.hash(Key { mapping, page });
        self.index.find(hash, |f| {
            let frame = self.frames.get(f);
            frame.page() == page && frame.mapping() == mapping
        })
    }

    /// Finds a page under the region lock and tries `latch` on it. The answer is exact.
    pub(super) fn find_locked(&self, key: Key, latch: impl Fn(u32) -> Latch) -> Found {
        let hash = self.index.hash(key);
        let region = self.index_region(hash);
        let found = region.find(hash, |f| {
            let frame = self.frames.get(f);
            frame.page() == key.page && frame.mapping() == key.mapping
        });
        let Some(f) = found else { return Found::Miss };
        match latch(f) {
            Latch::Held => Found::Held(f),
            Latch::Busy(s) => Found::Busy(f, s),
            Latch::Full => Found::Full,
            // In the index but not HASHED: its owner is taking it out. It looks busy until the region lock is free.
            Latch::Gone => Found::Busy(f, self.frames.get(f).state.peek() | EXCL),
        }
    }

    /// Locks the region of the index that `hash` is in.
    pub(crate) fn index_region(&self, hash: u64) -> Region<'_> {
        self.world.about_to_lock();
        self.index.lock(self.world.task(), hash)
    }

    /// The frame of a page, whatever its state. A hint after the lock is let go.
    pub(crate) fn find_frame(&self, mapping: u32, page: u64) -> Option<u32> {
        let key = Key { mapping, page };
        let hash = self.index.hash(key);
        let region = self.index_region(hash);
        region.find(hash, |f| {
            let frame = self.frames.get(f);
            frame.page() == page && frame.mapping() == mapping
        })
    }

    /// A page that `find_shared` did not get: waits for it, or reads it on this thread.
    ///
    /// # Errors
    /// `OutOfRange`, `Io`, `Busy`, `TimedOut`, `TooManyHolders`, and those of an allocation.
    #[cold]
    pub(crate) fn get_shared_slow(
        &self,
        m: &Mapping,
        ra: &Readahead,
        page: u64,
        count: u64,
    ) -> Result<u32, Error> {
        let key = Key {
            mapping: m.id,
            page,
        };
        let mut busy_since = None;
        let mut tried_ahead = false;
        loop {
            self.world.charge(Work::Hit, 1);
            match self.find_locked(key, |f| self.frames.get(f).state.try_shared()) {
                Found::Held(f) => {
                    if !tried_ahead {
                        self.count_hit(self.world.task());
                    }
                    self.touch_if_wanted(f);
                    return Ok(f);
                }
                Found::Full => return Err(too_many(page)),
                Found::Busy(f, s) => {
                    if s & READAHEAD != 0 {
                        // Before the wait: the device shall have the next window while this one is on its way.
                        self.readahead_mark(m, ra, f, page);
                    }
                    self.wait_busy(f, s, page, &mut busy_since, false)?;
                }
                Found::Miss => {
                    if !tried_ahead {
                        tried_ahead = true;
                        self.count(Event::Misses, 1);
                        if self.readahead_miss(m, ra, page, count) {
                            continue;
                        }
                    }
                    if let Some(f) = self.fill_now(m, page)? {
                        return Ok(f);
                    }
                }
            }
        }
    }

    /// Sleeps until a busy page may be tried again.
    /// `since`: when the caller first found it busy.
    fn wait_busy(
        &self,
        f: u32,
        s: u64,
        page: u64,
        since: &mut Option<Nanos>,
        excl: bool,
    ) -> Result<(), Error> {
        let now = self.world.now();
        let start = *since.get_or_insert(now);
        if s & LOADING != 0 {
            let until = start.plus(self.config().io_timeout);
            let waited = self.wait_frame(f, s, until, |s| s & HASHED == 0 || s & LOADING == 0);
            if waited == Waited::TimedOut {
                return Err(Error::TimedOut {
                    what: "read",
                    waited: self.world.now().since(start),
                });
            }
            return Ok(());
        }
        let until = start.plus(self.config().latch_timeout);
        let waited = if now >= until {
            if excl {
                self.stop_waiting_exclusive(f);
            }
            Waited::TimedOut
        } else if excl {
            self.wait_exclusive(f, s, until)
        } else {
            self.wait_sharable(f, s, until)
        };
        if waited == Waited::TimedOut {
            return Err(Error::Busy {
                page,
                waited: self.world.now().since(start),
            });
        }
        Ok(())
    }

    /// Takes the invalidate lock shared, waiting for a truncation to end.
    pub(crate) fn invalidate_shared(&self, m: &Mapping) -> Result<(), Error> {
        if m.invalidate.try_shared() {
            return Ok(());
        }
        self.wait_while_written(m, "set_len or discard of another task", |until| {
            let wait = || {
                m.invalidate
                    .wait_shared(&*self.world, &self.stat, &self.waits, until)
            };
            loop {
                if wait() == Waited::TimedOut {
                    return Waited::TimedOut;
                }
                if m.invalidate.try_shared() {
                    return Waited::Ready;
                }
            }
        })
    }

    pub(crate) fn invalidate_put(&self, m: &Mapping) {
        #[cfg(feature = "plant")]
        if planted!(self, EarlyLook) {
            return m.invalidate.drop_shared_late(&*self.world, &self.waits);
        }
        m.invalidate.drop_shared(&*self.world, &self.waits);
    }

    /// Puts an owned frame into the index with `flags`. False (and nothing done) when the page is there already.
    /// The caller holds the invalidate lock shared.
    pub(crate) fn install(&self, frame: u32, key: Key, flags: u64) -> bool {
        let f = self.frames.get(frame);
        let hash = self.index.hash(key);
        let mut region = self.index_region(hash);
        let there = region.find(hash, |f| {
            let frame = self.frames.get(f);
            frame.page() == key.page && frame.mapping() == key.mapping
        });
        if there.is_some() {
            return false;
        }
        f.set_key(key.mapping, key.page);
        f.set_generation(0);
        f.state.reset(HASHED | flags);
        region.insert(hash, frame);
        true
    }

    /// Enters an installed page into the LRU.
    pub(crate) fn lru_enter(&self, frame: u32, key: Key) {
        self.lru_enter_run(key.mapping, key.page, &[frame]);
    }

    /// Enters installed pages, `first` and those after it, into the LRU, and tells it of each how long ago it was evicted if
    /// that is remembered.
    pub(crate) fn lru_enter_run(&self, mapping: u32, first: u64, frames: &[u32]) {
        self.world.charge(Work::Install, frames.len() as u32);
        let mut refaulted = 0;
        let activated = self.lru.add_run(&*self.world, &self.frames, frames, |i| {
            let page = first + i as u64;
            let hash = self.index.hash(Key { mapping, page });
            let gone = match self.lru.ghosts {
                Ghosts::None => None,
                _ => self.shadows.refault(hash, self.age.now()),
            };
            refaulted += u64::from(gone.is_some());
            gone.map_or(Enter::New, Enter::Refault)
        });
        if refaulted > 0 {
            self.count(Event::WorkingsetRefaultFile, refaulted);
        }
        if activated > 0 {
            self.count(Event::WorkingsetActivateFile, activated);
            if self.lru.ghosts == Ghosts::All {
                self.age.advance(activated);
            }
        }
    }

    /// Fetches into the CPU's cache what the look-up of a page will touch first.
    #[inline(always)]
    pub(crate) fn fetch_entry(&self, mapping: u32, page: u64) {
        self.index.prefetch(self.index.hash(Key { mapping, page }));
    }

    /// Fetches into the CPU's cache what entering a page, or evicting it, will touch.
    #[inline]
    pub(crate) fn fetch_place(&self, mapping: u32, page: u64) {
        let hash = self.index.hash(Key { mapping, page });
        self.index.prefetch(hash);
        self.shadows.prefetch(hash);
    }

    /// A hit on a frame that the caller holds and that carries READAHEAD or TOUCH.
    #[cold]
    pub(crate) fn hit_marked(&self, m: &Mapping, ra: &Readahead, frame: u32, page: u64) {
        self.touch_if_wanted(frame);
        self.readahead_mark(m, ra, frame, page);
    }

    /// Tells the order of a hit, if it wants to know. The caller holds the frame.
    #[inline]
    pub(crate) fn touch_if_wanted(&self, frame: u32) {
        if self.frames.get(frame).state.peek() & TOUCH != 0 {
            self.lru.touch(&*self.world, &self.frames, frame);
        }
    }

    /// Reads a missing page on the calling thread; pinned shared. `None`: somebody else was first, look again.
    #[doc(alias = "filemap_fault")]
    fn fill_now(&self, m: &Mapping, page: u64) -> Result<Option<u32>, Error> {
        let key = Key {
            mapping: m.id,
            page,
        };
        let frame = self.alloc_page()?;
        if let Err(e) = self.invalidate_shared(m) {
            self.free_page(frame);
            return Err(e);
        }
        let len = m.len();
        let in_range = page < self.pages_of(len);
        // The first access counts as a reference (mark_page_accessed).
        let installed = in_range && self.install(frame, key, LOADING | REF1);
        self.invalidate_put(m);
        if !installed {
            self.free_page(frame);
            return if in_range {
                Ok(None)
            } else {
                Err(Error::OutOfRange { page, len })
            };
        }
        self.lru_enter(frame, key);
        self.count(Event::Pgmajfault, 1);
        self.count(Event::PagesRead, 1);
        self.count(Event::ReadRequests, 1);
        self.count(Event::ReadSegments, 1);
        let size = self.memory.frame_size();
        let buf = self.memory.io_buf(frame, size);
        let reading = m.dev.reads.begin(self.world.now());
        let read = m.backing.read_now(page * size as u64, &[buf]);
        if read.is_ok() || !planted!(self, LeakedRead) {
            m.dev.reads.end(reading, self.world.now());
        }
        let result = read.and_then(|()| self.check_read(m, page, frame));
        match result {
            Ok(()) => {
                if self.end_fill_shared(frame) {
                    return Ok(Some(frame));
                }
                self.count(Event::StaleFills, 1);
                Ok(None)
            }
            Err(e) => {
                self.count(Event::ReadErrors, 1);
                self.fail_fill(m, frame);
                Err(Error::io("read", e))
            }
        }
    }

    /// Runs the backing's hook on a page that was read. What lies beyond the end is zero from here on, whatever is there: somebody
    /// else may have made the file longer.
    pub(crate) fn check_read(
        &self,
        m: &Mapping,
        page: u64,
        frame: u32,
    ) -> Result<(), crate::IoError> {
        if self.memory.is_ghost() {
            return Ok(());
        }
        #[allow(unsafe_code)]
        // SAFETY: FRAME-1: LOADING is set and the device has finished, so this task alone may touch the bytes.
        let bytes = unsafe { self.memory.bytes(frame) };
        m.backing.after_read(page, bytes)?;
        // The length is at least that of the moment when the page was installed: no byte that was written lies behind it.
        let left = m.len().saturating_sub(page << self.page_shift);
        if left < self.memory.frame_size() as u64 {
            self.memory.zero_from(frame, left as usize);
        }
        Ok(())
    }

    /// LOADING ends well, and the caller becomes a holder. False when the page was truncated meanwhile (a stale fill).
    fn end_fill_shared(&self, frame: u32) -> bool {
        let (released, pinned) = self.frames.get(frame).state.end_fill();
        self.after_release(frame, released);
        pinned
    }

    /// LOADING ends badly: the page leaves the index; who waits looks again and gets an error of its own.
    pub(crate) fn fail_fill(&self, m: &Mapping, frame: u32) {
        // FRAME-3: the one that unhashed it makes it an orphan. Were a filler that came second to set ORPHAN as well, it
        // could free the frame before truncation is done with it.
        let orphan = if self.unhash(m, frame) { ORPHAN } else { 0 };
        self.release(frame, LOADING, orphan);
    }

    /// Takes a frame out of the index. True for the one caller that did it; that one then sets ORPHAN or frees the frame.
    pub(crate) fn unhash(&self, m: &Mapping, frame: u32) -> bool {
        let page = self.frames.get(frame).page();
        let hash = self.index.hash(Key {
            mapping: m.id,
            page,
        });
        let mut region = self.index_region(hash);
        let removed = region.remove(hash, frame);
        if removed {
            self.frames.get(frame).state.clear(HASHED);
        }
        removed
    }

    /// Latches a page for writing and takes the invalidate lock shared. `fill` says what to do on a miss; a new frame is
    /// of `run`, whose frames are given back before it sleeps (RUN-1).
    ///
    /// # Errors
    /// As `get_shared_slow`.
    pub(crate) fn get_excl(
        &self,
        m: &Mapping,
        page: u64,
        run: &mut Run,
        fill: impl Fn(u64) -> Fill,
    ) -> Result<Exclusive, Error> {
        let mut with = Provisions {
            run,
            spare: None,
            reserved: false,
        };
        let result = self.get_excl_with(m, page, fill, &mut with);
        if let Some(frame) = with.spare
            && !planted!(self, LostSpare)
        {
            self.free_page(frame);
        }
        if with.reserved && result.is_err() {
            m.backing.release(page);
        }
        result.map(|frame| Exclusive {
            reserved: with.reserved,
            ..frame
        })
    }

    fn get_excl_with(
        &self,
        m: &Mapping,
        page: u64,
        fill: impl Fn(u64) -> Fill,
        with: &mut Provisions<'_>,
    ) -> Result<Exclusive, Error> {
        let key = Key {
            mapping: m.id,
            page,
        };
        let mut busy_since = None;
        let mut missed = false;
        loop {
            self.world.charge(Work::Hit, 1);
            match self.find_locked(key, |f| self.frames.get(f).state.try_excl()) {
                Found::Full => return Err(too_many(page)),
                Found::Busy(f, s) => {
                    self.put_back(with.run);
                    self.wait_busy(f, s, page, &mut busy_since, true)?;
                }
                Found::Held(f) => {
                    if let Some(e) = self.settle_excl(m, key, f, with)? {
                        if !missed {
                            self.count_hit(self.world.task());
                            self.touch_if_wanted(e.frame);
                        }
                        return Ok(e);
                    }
                }
                Found::Miss => {
                    if !missed {
                        self.count(Event::Misses, 1);
                    }
                    missed = true;
                    match fill(m.len()) {
                        Fill::Read => {
                            self.put_back(with.run);
                            if let Some(f) = self.fill_now(m, page)? {
                                self.put_shared(f);
                            }
                        }
                        Fill::Zero => {
                            if let Some(e) = self.install_fresh(m, key, &fill, with)? {
                                return Ok(e);
                            }
                        }
                    }
                }
            }
        }
    }

    /// An existing page, just latched: takes the invalidate lock and moves to a copy if the page is under writeback.
    /// `None`: look again (the latch is let go).
    fn settle_excl(
        &self,
        m: &Mapping,
        key: Key,
        frame: u32,
        with: &mut Provisions<'_>,
    ) -> Result<Option<Exclusive>, Error> {
        let s = self.frames.get(frame).state.load();
        let writeback = s & WRITEBACK != 0;
        if writeback && with.spare.is_none() {
            // The copy's frame is allocated without the latch.
            self.release(frame, EXCL, 0);
            with.spare = Some(self.alloc_of(with.run)?);
            return Ok(None);
        }
        // A page that is dirty stays so while we hold EXCL, and has its space.
        if m.reserves && s & DIRTY == 0 && !with.reserved {
            self.release(frame, EXCL, 0);
            self.reserve_space(m, key.page, with.run)?;
            with.reserved = true;
            return Ok(None);
        }
        if !m.invalidate.try_shared() {
            self.release(frame, EXCL, 0);
            self.put_back(with.run);
            self.invalidate_shared(m)?;
            self.invalidate_put(m);
            return Ok(None);
        }
        if self.frames.get(frame).state.load() & HASHED == 0 {
            self.invalidate_put(m);
            self.release(frame, EXCL, 0);
            return Ok(None);
        }
        if let Err(e) = self.may_change() {
            self.invalidate_put(m);
            self.release(frame, EXCL, 0);
            return Err(e);
        }
        if writeback && let Some(copy) = with.spare.take() {
            // The copy is dirty now: unless it inherits, with our space.
            with.reserved &= self.switch_to_copy(m, key, frame, copy);
            return Ok(Some(Exclusive::of(copy, false)));
        }
        Ok(Some(Exclusive::of(frame, false)))
    }

    /// Puts `copy` in the place of `frame`, which is latched and under writeback: the one frame switch, for writers that
    /// meet writeback. `frame` is freed when its write ends. The caller then holds EXCL on `copy`. True when the copy
    /// inherits that the page is dirty (`supersede`).
    pub(crate) fn switch_to_copy(&self, m: &Mapping, key: Key, frame: u32, copy: u32) -> bool {
        let old = &self.frames.get(frame).state;
        #[cfg(feature = "plant")]
        let _bounce =
            planted!(self, BounceCopy).then(|| self.world.arena(self.config().frame_size, 0));
        self.memory.copy(frame, copy);
        self.world.charge(Work::Copy, 1);
        self.world.charge(Work::Install, 1);
        let f = self.frames.get(copy);
        f.set_key(key.mapping, key.page);
        f.set_generation(0);
        let active = old.peek() & ACTIVE != 0;
        f.state.reset(HASHED | UPTODATE | EXCL | REF1);
        let inherits = self.supersede(m, key.page, frame, copy);
        {
            let hash = self.index.hash(key);
            let mut region = self.index_region(hash);
            let switched = region.replace(hash, frame, copy);
            assert!(switched, "MAP-1: a latched page is in the index");
        }
        let enter = Enter::Copy { active };
        self.lru.add(&*self.world, &self.frames, copy, enter);
        self.count(Event::WritebackCopies, 1);
        // Readers who wait for the latch of the old frame look the page up again.
        self.release(frame, EXCL | HASHED, ORPHAN);
        inherits
    }

    /// Installs a new frame for a page that need not be read, zeroed if it lies beyond the end.
    fn install_fresh(
        &self,
        m: &Mapping,
        key: Key,
        fill: impl Fn(u64) -> Fill,
        with: &mut Provisions<'_>,
    ) -> Result<Option<Exclusive>, Error> {
        if m.reserves && !with.reserved {
            self.reserve_space(m, key.page, with.run)?;
            with.reserved = true;
        }
        let frame = match with.spare.take() {
            Some(frame) => frame,
            None => {
                self.aim(with.run, m.id, key.page);
                self.alloc_of(with.run)?
            }
        };
        with.spare = Some(frame);
        if !m.invalidate.try_shared() {
            self.put_back(with.run);
            self.invalidate_shared(m)?;
        }
        if let Err(e) = self.may_change() {
            self.invalidate_put(m);
            return Err(e);
        }
        if !self.install(frame, key, EXCL | REF1) {
            self.invalidate_put(m);
            return Ok(None);
        }
        with.spare = None;
        // Looked at with the page in hand. The length may have changed while we waited; and at any moment before, somebody may
        // have written this very page beyond the end, and it have been written back and evicted.
        if fill(m.len()) != Fill::Zero && !planted!(self, StaleEnd) {
            let ours = self.unhash(m, frame);
            debug_assert!(ours, "MAP-1: a latched page is in the index");
            self.invalidate_put(m);
            self.release(frame, EXCL, ORPHAN);
            return Ok(None);
        }
        self.lru_enter(frame, key);
        Ok(Some(Exclusive::of(frame, true)))
    }
}

impl Exclusive {
    fn of(frame: u32, fresh: bool) -> Exclusive {
        Exclusive {
            frame,
            fresh,
            reserved: false,
        }
    }
}

pub(super) fn too_many(page: u64) -> Error {
    Error::TooManyHolders {
        page,
        max: crate::frame::state::HOLDERS_MAX,
    }
}
