//! Blocks of 2^order frames in the zone: which are free, whether an order may be taken above a mark, and taking free
//! frames from a place of memory (for compaction).
//!
//! **Context.** Anyone; takes the zone lock (`Rank::Zone`), never sleeps.
//! **Invariants.** ZONE-4: a block is taken only where `watermark::ok` holds of its order, so that big blocks never eat
//! the reserve of single frames. ZONE-5: `take_free_in` leaves *min* frames in the buddy.
//! **Kernel.** `get_page_from_freelist`, `zone_watermark_ok`, `isolate_freepages_block`.
//! **Tests.** Here; `tests` of `buddy.rs` and `watermark.rs`; `crates/lab/tests/high_order.rs`.

use super::buddy::ORDER_LIMIT;
use super::{Mark, Zone, watermark};
use crate::world::World;
use std::ops::Range;

/// The free blocks of a zone at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FreeAreas {
    /// Free frames in blocks of all orders.
    pub free: usize,
    nr_free: [u32; ORDER_LIMIT as usize + 1],
    orders: usize,
}

impl FreeAreas {
    /// From the number of free blocks of each order, 0 first.
    pub(crate) fn new(blocks: &[u32]) -> FreeAreas {
        let mut nr_free = [0; ORDER_LIMIT as usize + 1];
        nr_free[..blocks.len()].copy_from_slice(blocks);
        FreeAreas {
            free: (0..)
                .zip(blocks)
                .map(|(o, &n): (u32, _)| (n as usize) << o)
                .sum(),
            nr_free,
            orders: blocks.len(),
        }
    }

    /// Free blocks of each order, 0 first.
    pub(crate) fn nr_free(&self) -> &[u32] {
        &self.nr_free[..self.orders]
    }

    /// The order of the largest free block.
    pub(crate) fn largest(&self) -> Option<u32> {
        self.nr_free()
            .iter()
            .rposition(|&n| n > 0)
            .map(|o| o as u32)
    }

    /// Is there a block of `order` or above, with more than `mark` frames left for single ones?
    pub(crate) fn ok(&self, order: u32, mark: usize) -> bool {
        watermark::ok(order, self.free, self.nr_free(), mark)
    }
}

impl Zone {
    /// The highest order there is.
    pub(crate) fn top_order<W: World>(&self, world: &W) -> u32 {
        self.inner.lock(world).buddy.max_order()
    }

    /// The free blocks now.
    pub(crate) fn free_areas<W: World>(&self, world: &W) -> FreeAreas {
        FreeAreas::new(self.inner.lock(world).buddy.nr_free_all())
    }

    /// May a block of 2^order frames be taken above `mark`? A hint.
    pub(crate) fn order_ok<W: World>(&self, world: &W, order: u32, mark: Mark) -> bool {
        self.free_areas(world).ok(order, self.watermarks.at(mark))
    }

    /// Takes a block of 2^order frames if the watermarks let it go (ZONE-4). Its frames are still free for `claim_free`.
    pub(crate) fn alloc_order<W: World>(&self, world: &W, order: u32, mark: Mark) -> Option<u32> {
        if !self.may_pass(world) {
            return None;
        }
        let mut inner = self.inner.lock(world);
        let buddy = &inner.buddy;
        let mark = self.watermarks.at(mark);
        if !watermark::ok(order, buddy.free_frames(), buddy.nr_free_all(), mark) {
            return None;
        }
        let frame = inner.buddy.alloc(order);
        self.assert_left(&inner, usize::from(frame.is_some()) << order, mark);
        self.mirror(&inner);
        frame
    }

    /// Takes up to `max` free frames of `range` that lie in blocks below `order`, and says how many frames it looked at.
    /// Nobody has them then but the caller, who gives them back or makes pages of them.
    pub(crate) fn take_free_in<W: World>(
        &self,
        world: &W,
        range: Range<u32>,
        order: u32,
        max: usize,
        out: &mut Vec<u32>,
    ) -> usize {
        let mut inner = self.inner.lock(world);
        let spare = inner
            .buddy
            .free_frames()
            .saturating_sub(self.watermarks.at(Mark::Min));
        let before = out.len();
        let looked = inner.buddy.take_in(range, order, max.min(spare), out);
        self.assert_left(&inner, out.len() - before, self.watermarks.min);
        self.mirror(&inner);
        looked
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn areas_know_their_frames_and_their_largest_block() {
        let none = FreeAreas::new(&[0; 10]);
        assert_eq!((none.free, none.largest()), (0, None));
        let some = FreeAreas::new(&[3, 2, 0, 1, 0]);
        assert_eq!((some.free, some.largest()), (3 + 4 + 8, Some(3)));
        assert_eq!(some.nr_free(), [3, 2, 0, 1, 0]);
    }

    #[test]
    fn ok_wants_the_mark_and_a_block() {
        // 64 single frames: enough for any mark below, and no pair.
        let single = FreeAreas::new(&[64, 0, 0]);
        assert!(single.ok(0, 63) && !single.ok(0, 64));
        assert!(!single.ok(1, 0));
        // Three pairs are six frames, and no four of them in a row.
        let pairs = FreeAreas::new(&[0, 3, 0]);
        assert!(pairs.ok(1, 0) && !pairs.ok(2, 0));
        // One block of 4 and a mark of 8: 20 - 3 = 17 > 8, minus 16 single frames is not above 4.
        assert!(!FreeAreas::new(&[16, 0, 1]).ok(2, 8));
        assert!(FreeAreas::new(&[4, 0, 4]).ok(2, 8));
    }
}
