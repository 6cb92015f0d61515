//! A few free frames for each CPU, so that most allocations do not touch the zone lock.
//!
//! **Kernel.** struct per_cpu_pages.

use crate::sync::{Lock, Rank};
use crate::world::World;

/// Most frames in one cache.
pub(super) const SLOTS: usize = 64;
/// Most frames fetched at one time.
pub(super) const BATCH: usize = 16;

struct Slots {
    frames: [u32; SLOTS],
    len: usize,
}

#[repr(align(128))]
pub(super) struct FrameCache {
    slots: Lock<Slots>,
    capacity: usize,
}

impl FrameCache {
    pub(super) fn new(capacity: usize) -> FrameCache {
        assert!(capacity <= SLOTS);
        FrameCache {
            slots: Lock::new(
                Rank::FrameCache,
                Slots {
                    frames: [0; SLOTS],
                    len: 0,
                },
            ),
            capacity,
        }
    }

    pub(super) fn pop<W: World>(&self, world: &W) -> Option<u32> {
        let mut s = self.slots.lock(world);
        s.len = s.len.checked_sub(1)?;
        Some(s.frames[s.len])
    }

    /// False when the cache is full.
    pub(super) fn push<W: World>(&self, world: &W, frame: u32) -> bool {
        let mut s = self.slots.lock(world);
        if s.len >= self.capacity {
            return false;
        }
        let at = s.len;
        s.frames[at] = frame;
        s.len += 1;
        true
    }

    /// How many frames a refill should fetch, the one for the caller included.
    pub(super) fn refill_batch(&self) -> usize {
        (self.capacity / 2).clamp(1, BATCH)
    }

    pub(super) fn len<W: World>(&self, world: &W) -> u64 {
        self.slots.lock(world).len as u64
    }

    pub(super) fn drain<W: World>(&self, world: &W, out: &mut Vec<u32>) {
        let mut s = self.slots.lock(world);
        out.extend_from_slice(&s.frames[..s.len]);
        s.len = 0;
    }
}
