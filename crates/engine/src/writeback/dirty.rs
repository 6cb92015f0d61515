//! Setting and clearing DIRTY, with its list and its counts (MAP-2).
//!
//! **Kernel.** folio_account_dirtied, folio_clear_dirty_for_io, folio_cancel_dirty.

use crate::engine::Engine;
use crate::frame::state::{
    DIRTY, ERROR, EXCL, HASHED, Latch, READAHEAD, REF1, REF2, SUPERSEDED, UPTODATE, WRITEBACK,
};
use crate::mapping::{Key, Mapping};
use crate::sync::Ordering;
use crate::trace::Event;
use crate::wait::Channel;
use crate::world::World;

/// Why a page's writeback did not start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotStarted {
    /// Not dirty any more, or not this page any more.
    Clean,
    /// Latched: try again later.
    Busy,
    /// The write of an older copy, in this frame, is still in flight (WB-2).
    Superseding(u32),
}

impl<W: World> Engine<W> {
    /// Marks a page dirty. The caller holds EXCL on it and the invalidate lock shared; `reserved`: the backing has set
    /// space aside for it (RESERVE-1).
    pub(crate) fn set_dirty(&self, m: &Mapping, frame: u32, reserved: bool) {
        if self.became_dirty(m, frame) {
            debug_assert!(reserved || !m.reserves, "RESERVE-1: dirtied without space");
            self.count_dirtied(m);
        } else if reserved {
            m.backing.release(self.frames.get(frame).page());
        }
    }

    /// False when the page was dirty already.
    fn became_dirty(&self, m: &Mapping, frame: u32) -> bool {
        let f = self.frames.get(frame);
        if f.state.peek() & DIRTY != 0 {
            // Only a shared latch clears it, and we hold EXCL.
            return false;
        }
        let mut dirty = m.dirty.lock(&*self.world);
        if planted!(self, LostDirty) && dirty.superseded(f.page()).is_some() {
            return false;
        }
        if f.state.peek() & DIRTY != 0 {
            // By a failed flush.
            return false;
        }
        self.enter_dirty(m, &mut dirty, frame, DIRTY);
        f.set_generation(m.dirty_generation());
        true
    }

    /// Sets `flags` (with DIRTY) and lists the page. Under the dirty lock.
    pub(super) fn enter_dirty(
        &self,
        m: &Mapping,
        dirty: &mut crate::mapping::DirtyList,
        frame: u32,
        flags: u64,
    ) {
        debug_assert!(flags & DIRTY != 0);
        let old = self.frames.get(frame).state.set(flags);
        assert!(old & DIRTY == 0, "MAP-2: dirtied twice");
        if dirty.len() == 0 {
            m.note_first_dirty(self.world.now());
        }
        dirty.push(&self.frames, frame);
        m.set_nr_dirty(dirty.len());
        // Relaxed: counts for policy.
        self.dirty_pages.fetch_add(1, Ordering::Relaxed);
        m.dev.nr_dirty.fetch_add(1, Ordering::Relaxed);
    }

    /// Clears DIRTY and unlists the page. Under the dirty lock; DIRTY is set.
    fn leave_dirty(&self, m: &Mapping, dirty: &mut crate::mapping::DirtyList, frame: u32) {
        self.unlist_dirty(dirty, frame);
        self.count_undirtied(m, dirty, 1);
    }

    fn unlist_dirty(&self, dirty: &mut crate::mapping::DirtyList, frame: u32) {
        let old = self.frames.get(frame).state.clear(DIRTY | ERROR);
        assert!(old & DIRTY != 0, "MAP-2: unlisted twice");
        dirty.remove(&self.frames, frame);
    }

    fn count_undirtied(&self, m: &Mapping, dirty: &crate::mapping::DirtyList, pages: u64) {
        m.set_nr_dirty(dirty.len());
        // Relaxed: counts for policy.
        self.dirty_pages.fetch_sub(pages, Ordering::Relaxed);
        m.dev.nr_dirty.fetch_sub(pages, Ordering::Relaxed);
    }

    /// Forgets that a page is dirty: it is truncated, or a newer copy has its data.
    pub(crate) fn cancel_dirty(&self, m: &Mapping, frame: u32) {
        {
            let mut dirty = m.dirty.lock(&*self.world);
            if self.frames.get(frame).state.peek() & DIRTY == 0 {
                return;
            }
            self.leave_dirty(m, &mut dirty, frame);
        }
        if m.reserves {
            m.backing.release(self.frames.get(frame).page());
        }
        // Writers wait for fewer dirty pages, whatever made them fewer (WAIT-2).
        self.waits.wake(&*self.world, Channel::Dirty);
    }

    /// As `cancel_dirty`, for a frame whose mapping the caller does not have at hand.
    pub(crate) fn cancel_dirty_of(&self, frame: u32) {
        let id = self.frames.get(frame).mapping();
        if let Some(m) = self.mapping(id) {
            self.cancel_dirty(&m, frame);
        }
    }

    /// Dirty becomes writeback (WB-3), for `pages`, each as it was seen in its frame, in order and up to one that cannot, under
    /// one hold of the dirty lock. How many did, and why the next did not.
    pub(super) fn start_writeback(
        &self,
        m: &Mapping,
        pages: &[(u64, u32)],
    ) -> (usize, Option<NotStarted>) {
        let mut started = 0;
        let mut refused = None;
        // Somebody waits for it, or it is an orphan: looked at without the lock, and the batch ends there.
        let mut put_slowly = None;
        {
            let mut dirty = m.dirty.lock(&*self.world);
            for (page, frame) in pages {
                let begun = self.begin_write(m, &mut dirty, *page, *frame, &mut put_slowly);
                match begun {
                    Ok(()) => started += 1,
                    Err(e) => refused = Some(e),
                }
                if refused.is_some() || put_slowly.is_some() {
                    break;
                }
            }
            if started > 0 {
                // Relaxed: counts for policy. Up before down: of a page that moves, both may be seen, and never neither.
                (self.writeback_pages).fetch_add(started as u64, Ordering::Relaxed);
                (m.dev.nr_writeback).fetch_add(started as u64, Ordering::Relaxed);
                self.count_undirtied(m, &dirty, started as u64);
            }
        }
        if let Some(frame) = put_slowly {
            self.put_shared_slow(frame);
        }
        (started, refused)
    }

    /// One page of `start_writeback`, under the dirty lock. A pin that the caller has to look after goes to `put_slowly`.
    fn begin_write(
        &self,
        m: &Mapping,
        dirty: &mut crate::mapping::DirtyList,
        page: u64,
        frame: u32,
        put_slowly: &mut Option<u32>,
    ) -> Result<(), NotStarted> {
        let f = self.frames.get(frame);
        match f.state.try_shared_quiet() {
            Latch::Held => {}
            Latch::Gone => return Err(NotStarted::Clean),
            Latch::Busy(_)
                if planted!(self, NoLatch) && f.page() == page && f.mapping() == m.id =>
            {
                return self.begin_write_of_latched(dirty, page, frame);
            }
            Latch::Busy(_) | Latch::Full => return Err(NotStarted::Busy),
        }
        let started = if f.page() == page && f.mapping() == m.id {
            self.begin_write_of_latched(dirty, page, frame)
        } else {
            Err(NotStarted::Clean)
        };
        if f.state.drop_shared() {
            *put_slowly = Some(frame);
        }
        started
    }

    fn begin_write_of_latched(
        &self,
        dirty: &mut crate::mapping::DirtyList,
        page: u64,
        frame: u32,
    ) -> Result<(), NotStarted> {
        let f = self.frames.get(frame);
        let s = f.state.peek();
        if s & (DIRTY | HASHED) != DIRTY | HASHED {
            return Err(NotStarted::Clean);
        }
        if s & WRITEBACK != 0 {
            // WB-1: the last write is just ending badly.
            return Err(NotStarted::Busy);
        }
        if let Some(old) = dirty.superseded(page)
            && !planted!(self, WriteOrder)
        {
            return Err(NotStarted::Superseding(old));
        }
        f.state.set(WRITEBACK);
        self.unlist_dirty(dirty, frame);
        Ok(())
    }

    /// `copy` takes the place of `frame`, both latched by the caller, and is dirty from here on. If the write of `frame` is
    /// in flight, no write of the copy starts before that one has ended (WB-2). If it has just failed, the copy inherits
    /// what is owed, with its dirty generation: a sync finds the page dirty at every moment (WB-4). True when it inherits,
    /// with what the backing has set aside for the page.
    pub(crate) fn supersede(&self, m: &Mapping, page: u64, frame: u32, copy: u32) -> bool {
        let f = self.frames.get(frame);
        let inherits;
        {
            let mut dirty = m.dirty.lock(&*self.world);
            let mut generation = m.dirty_generation();
            let s = f.state.peek();
            if s & WRITEBACK != 0 {
                f.state.set(SUPERSEDED);
                dirty.supersede(page, frame);
            }
            inherits = s & DIRTY != 0;
            if inherits {
                generation = f.generation();
                self.leave_dirty(m, &mut dirty, frame);
            }
            if !planted!(self, LostDirty) {
                self.enter_dirty(m, &mut dirty, copy, DIRTY);
                self.frames.get(copy).set_generation(generation);
            }
        }
        self.count_dirtied(m);
        inherits
    }

    /// `to` takes the place of `from`, an idle page that the caller has latched, with all that is owed for it: DIRTY and
    /// its generation, or the epoch of its last write; its age on the dirty list; a failed write (COMPACT-1). The caller
    /// holds `invalidate` shared, and EXCL on `to` afterwards; `from` is in no index and not dirty.
    #[doc(alias = "folio_migrate_mapping")]
    pub(crate) fn switch_idle(&self, m: &Mapping, key: Key, from: u32, to: u32) {
        let (old, new) = (self.frames.get(from), self.frames.get(to));
        let hash = self.index.hash(key);
        // The dirty lock around all of it: who looks for dirty pages, or makes pages dirty after a failed flush, finds the
        // page in one frame or the other.
        let mut dirty = m.dirty.lock(&*self.world);
        new.set_key(key.mapping, key.page);
        new.set_generation(if planted!(self, MoveEpoch) {
            0
        } else {
            old.generation()
        });
        let s = old.state.peek();
        {
            let mut region = self.index_region(hash);
            new.state
                .reset(HASHED | UPTODATE | EXCL | (s & (REF1 | REF2 | READAHEAD)));
            let switched = region.replace(hash, from, to);
            assert!(switched, "MAP-1: a latched page is in the index");
            old.state.clear(HASHED);
        }
        if s & DIRTY != 0 && planted!(self, MoveCleans) {
            return self.leave_dirty(m, &mut dirty, from);
        }
        if s & DIRTY != 0 {
            old.state.clear(DIRTY | ERROR);
            new.state.set(DIRTY | (s & ERROR));
            dirty.replace(&self.frames, from, to);
        }
    }

    fn count_dirtied(&self, m: &Mapping) {
        // Relaxed: statistics.
        m.dev.dirtied.fetch_add(1, Ordering::Relaxed);
        self.count(Event::NrDirtied, 1);
    }
}
