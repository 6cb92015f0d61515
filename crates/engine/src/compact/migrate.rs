//! One page into another frame: the frame switch, for a page that nobody uses.
//!
//! It is the switch of a writer who meets writeback (`switch_to_copy`), with one difference: the old frame is idle, so it
//! is free at once, and the page's dirty state goes over as it is.
//!
//! ```text
//! EXCL by one try ─ invalidate shared by try ─ the mapping is in the table ─ copy ─┐
//!        under the dirty lock and the region's: index, HASHED, DIRTY, generation ◄─┘─► old frame off the LRU, free
//! ```
//! **Invariants.** COMPACT-1 to COMPACT-3, stated in the room's head.
//!
//! **Kernel.** `migrate_folio_move`, `folio_migrate_mapping`, `folio_migrate_flags`.

use crate::engine::Engine;
use crate::frame::state::{ACTIVE, EXCL, HASHED, HOLDERS, UPTODATE, WAITERS};
use crate::lru::Enter;
use crate::mapping::{Key, Mapping};
use crate::trace::Event;
use crate::world::{Work, World};
use std::sync::Arc;

/// What became of a page that was to move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Moved {
    /// It stays. The free frame is still the caller's.
    No,
    /// Its page has moved; the old frame is free and the caller's.
    Yes,
    /// Its page has moved; a reclaimer that looks at the old frame frees it.
    FreedByOther,
}

impl<W: World> Engine<W> {
    /// Moves the page of `from`, whatever page that is, to the free frame `to`, which the caller owns.
    #[doc(alias("migrate_pages", "migrate_folio"))]
    pub(crate) fn migrate_page(&self, from: u32, to: u32) -> Moved {
        assert!(from < to, "COMPACT-2: frame {from} to frame {to}");
        let moved = match self.claim_for_move(from) {
            Some((m, key)) => {
                let moved = self.move_claimed(&m, key, from, to);
                if !planted!(self, MoveUnlocked) {
                    self.invalidate_put(&m);
                }
                moved
            }
            None => Moved::No,
        };
        let event = match moved {
            Moved::No => Event::PgmigrateFail,
            Moved::Yes | Moved::FreedByOther => Event::PgmigrateSuccess,
        };
        self.count(event, 1);
        moved
    }

    /// EXCL on an idle page, and its mapping with `invalidate` held shared: all or nothing.
    fn claim_for_move(&self, from: u32) -> Option<(Arc<Mapping>, Key)> {
        let f = self.frames.get(from);
        if !f.state.try_isolate() {
            let held = f.state.peek() & (HASHED | UPTODATE | HOLDERS) > HASHED | UPTODATE;
            if !planted!(self, MoveHeld) || !held {
                return None;
            }
            f.state.set(EXCL);
        }
        let key = Key {
            mapping: f.mapping(),
            page: f.page(),
        };
        let mapping = self.mapping(key.mapping).filter(|m| {
            if planted!(self, MoveUnlocked) {
                self.world.charge(Work::Copy, 16);
                return f.state.load() & HASHED != 0;
            }
            if !m.invalidate.try_shared() {
                return false;
            }
            // COMPACT-3: looked up once more with the lock held. Who drops the mapping looks at the lock with the table
            // locked: either it sees our hold, or we see that the mapping has gone. A truncation before us has unhashed.
            let stays = self.mapping(key.mapping).is_some() && f.state.load() & HASHED != 0;
            if !stays {
                self.invalidate_put(m);
            }
            stays
        });
        if mapping.is_none() {
            self.release(from, EXCL, 0);
        }
        Some((mapping?, key))
    }

    fn move_claimed(&self, m: &Mapping, key: Key, from: u32, to: u32) -> Moved {
        self.memory.copy(from, to);
        self.world.charge(Work::Move, 1);
        let active = self.frames.get(from).state.peek() & ACTIVE != 0;
        self.switch_idle(m, key, from, to);
        let enter = Enter::Copy { active };
        self.lru.add(&*self.world, &self.frames, to, enter);
        self.release(to, EXCL, 0);
        // Who waits for the old frame's latch looks the page up again.
        let old = &self.frames.get(from).state;
        if old.peek() & WAITERS != 0 {
            self.wake_frame(from);
        }
        if !self.unlist_claimed(from) {
            return Moved::FreedByOther;
        }
        self.retire(from);
        Moved::Yes
    }
}
