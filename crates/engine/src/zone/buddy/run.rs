//! Free frames in a row, of any number: for pages that will be read or written together.
//!
//! A run is not a block: it need not be aligned, nor a power of two, so that blocks which lie side by side are taken
//! together, and what one task gets in a row it can give back in a row.
//!
//! **Kernel.** Closest to the fallback of large folios from order to order (`page_cache_ra_order`); there a run ends where
//! its block does.

use super::{Buddy, NOT_A_HEAD};
use std::ops::Range;

impl Buddy {
    /// Takes up to `max` frames in a row for one that wants `wanted`, or `None` when no frame is free: those from `goal` on
    /// if it starts a free block; else of the smallest block that has all; else of the largest, with the free blocks beside
    /// it.
    pub fn alloc_run(&mut self, goal: u32, wanted: usize, max: usize) -> Option<Range<u32>> {
        let max = max.min(wanted);
        if max == 0 || self.orders == 0 {
            return None;
        }
        let mut run = goal..goal;
        self.widen(&mut run, max);
        if run.is_empty() {
            run = self.alloc_largest(wanted);
        }
        let end = run.end.min(run.start + max as u32);
        self.free_range(end, (run.end - end) as usize);
        Some(run.start..end)
    }

    fn alloc_largest(&mut self, wanted: usize) -> Range<u32> {
        let largest = self.orders.ilog2();
        let least = wanted.next_power_of_two().ilog2();
        let enough = self.orders.checked_shr(least).unwrap_or(0);
        let order = match enough {
            0 => largest,
            _ => least + enough.trailing_zeros(),
        };
        let start = self.pop(order);
        let mut run = start..start + (1 << order);
        while run.start > 0
            && let Some((head, order)) = self.free_block_of(run.start - 1)
            && run.len() + (1 << order) <= wanted
        {
            self.unlink(head, order);
            run.start = head;
        }
        self.widen(&mut run, wanted);
        run
    }

    /// Takes the free blocks behind a run until it has `wanted` frames or more.
    fn widen(&mut self, run: &mut Range<u32>, wanted: usize) {
        // The frame behind a run starts a block if it is free: the one before it is in use.
        while run.len() < wanted
            && let Some(&order) = self.state.get(run.end as usize)
            && order != NOT_A_HEAD
        {
            self.unlink(run.end, u32::from(order));
            run.end += 1 << order;
        }
    }
}
