//! Whether compaction can help: the fragmentation index, and how much room it needs.
//!
//! **Context.** Plain functions of what is free.
//! **Kernel.** vmstat.c: `__fragmentation_index`; compaction.c: `compaction_suitable`, `compact_gap`;
//! `sysctl_extfrag_threshold`.

use crate::zone::FreeAreas;

/// Up to this index a failure is for want of free frames (`vm.extfrag_threshold`).
const EXTFRAG_THRESHOLD: i32 = 500;

/// Is compaction worth a try?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Suitable {
    /// Too few frames are free: reclaim first.
    NoRoom,
    /// What is free is short, not in pieces: reclaim.
    NotFragmented,
    /// A block is free already.
    Done,
    /// Yes.
    Yes,
}

/// Frames that must be free beside the watermark: the block's pages once more, and as many that lie in the wrong place.
pub(crate) fn compact_gap(order: u32) -> u64 {
    2 << order
}

/// Why an allocation of 2^`order` frames would fail, per thousand: towards 0 for want of free frames, towards 1,000 because
/// they lie apart; -1,000 when it would not fail, for there is such a block. 0 without any free frame.
pub(crate) fn fragmentation_index(order: u32, areas: &FreeAreas) -> i32 {
    let blocks: u64 = areas.nr_free().iter().map(|&n| u64::from(n)).sum();
    if blocks == 0 {
        return 0;
    }
    if areas.largest().is_some_and(|largest| largest >= order) {
        return -1000;
    }
    let requests = (areas.free as u64 * 1000) >> order;
    1000 - ((1000 + requests) / blocks) as i32
}

/// Is compaction for 2^`order` frames worth a try, with the low watermark at `low`?
pub(crate) fn suitable(order: u32, areas: &FreeAreas, low: usize) -> Suitable {
    if !has_room(order, areas, low) {
        return Suitable::NoRoom;
    }
    match fragmentation_index(order, areas) {
        -1000 if areas.ok(order, low) => Suitable::Done,
        0..=EXTFRAG_THRESHOLD => Suitable::NotFragmented,
        _ => Suitable::Yes,
    }
}

/// Are there frames to move pages to?
pub(crate) fn has_room(order: u32, areas: &FreeAreas, low: usize) -> bool {
    areas.ok(0, low + compact_gap(order) as usize)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_index_worked_by_hand() {
        // order, free blocks of each order, the index
        let table: &[(u32, &[u32], i32)] = &[
            (3, &[0, 0, 0, 0], 0),
            // A block of 8 is there.
            (3, &[5, 0, 0, 1], -1000),
            (2, &[0, 0, 0, 1], -1000),
            // 64 single frames, 8 wanted: 64 × 1000 / 8 = 8,000; (1,000 + 8,000) / 64 = 140; 860: in pieces.
            (3, &[64, 0, 0, 0], 860),
            // 4 single frames: 500; (1,000 + 500) / 4 = 375; 625.
            (3, &[4, 0, 0, 0], 625),
            // One frame: 125; 1,125 / 1; below 0, for one frame is not in pieces.
            (3, &[1, 0, 0, 0], -125),
            // Two pairs of 2: 4 × 1000 / 8 = 500; 1,500 / 2 = 750; 250: short, not in pieces.
            (3, &[0, 2, 0, 0], 250),
            // 16 blocks of 4: 64 frames, 8,000; 9,000 / 16 = 562; 438.
            (3, &[0, 0, 16, 0], 438),
            // 100 pairs, 512 wanted: 200,000 / 512 = 390; 1,390 / 100 = 13; 987.
            (9, &[0, 100, 0, 0, 0, 0, 0, 0, 0, 0], 987),
        ];
        for &(order, blocks, want) in table {
            let areas = FreeAreas::new(blocks);
            assert_eq!(
                fragmentation_index(order, &areas),
                want,
                "{order} {blocks:?}"
            );
        }
    }

    #[test]
    fn room_first_then_the_index() {
        // Order 3 needs more than low + 16 single frames.
        let low = 20;
        let single = |n| FreeAreas::new(&[n, 0, 0, 0, 0]);
        assert_eq!(suitable(3, &single(36), low), Suitable::NoRoom);
        assert_eq!(suitable(3, &single(37), low), Suitable::Yes);
        // The same in blocks of 4: (1,000 + 40 × 125) / 10 = 600; 400.
        let fours = FreeAreas::new(&[0, 0, 10, 0, 0]);
        assert_eq!(suitable(3, &fours, low), Suitable::NotFragmented);
        let eights = FreeAreas::new(&[0, 0, 0, 6, 0]);
        assert_eq!(suitable(3, &eights, low), Suitable::Done);
        // One block of 8 among single frames: there, but not above the mark of its order (44 - 7 - 36 = 1, not above 10).
        let below = FreeAreas::new(&[36, 0, 0, 1, 0]);
        assert_eq!(suitable(3, &below, low), Suitable::Yes);
    }
}
