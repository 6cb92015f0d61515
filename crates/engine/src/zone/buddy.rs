//! The buddy allocator: free frames as aligned blocks of 2^order, split on demand and merged with their buddies.
//!
//! It deals in frame numbers 0..n and never touches the frames. Lists are LIFO: the frame freed last is the one most
//! likely to be in the CPU's cache.
//!
//! **State.** All of it by `&mut self`: the zone keeps it under its lock. 9 bytes a frame (two links, one state byte),
//! allocated once by `new`.
//!
//! **Context.** Anyone with the zone's lock. Never sleeps or allocates.
//!
//! **Invariants.**
//! - BUDDY-1: a frame is free or allocated, and only an allocated one is freed (else two owners would share it).
//! - BUDDY-2: a free block of order o starts at a multiple of 2^o and ends at or before n.
//! - BUDDY-3: two buddies are never both free below the top order: what can be merged is merged.
//! - BUDDY-4: `nr_free[o]` is the length of list o, and `free_frames` is the sum of `nr_free[o] << o`.
//!
//! **Kernel.** mm/page_alloc.c, without migrate types (a frame is movable unless it is pinned) and without zones'
//! memory maps of holes.
//!
//! **Tests.** Here, against a bitmap.

mod run;

/// The highest `max_order` that is accepted.
pub(crate) const ORDER_LIMIT: u32 = 20;

/// No frame: the end of a list.
const NONE: u32 = u32::MAX;
/// The state byte of a frame that does not start a free block.
const NOT_A_HEAD: u8 = u8::MAX;

const _: () = assert!(ORDER_LIMIT < NOT_A_HEAD as u32 && ORDER_LIMIT < u32::BITS);

/// Free blocks of one zone. See the module's head.
#[derive(Debug)]
pub(crate) struct Buddy {
    next: Vec<u32>,
    prev: Vec<u32>,
    /// The order of the free block that starts at this frame, or `NOT_A_HEAD`.
    state: Vec<u8>,
    heads: Vec<u32>,
    nr_free: Vec<u32>,
    /// Bit o is set while list o has a block.
    orders: u32,
    free_frames: usize,
}

impl Buddy {
    /// An allocator for the frames `0..frames`, all of them allocated, with blocks of up to 2^`max_order`.
    pub fn new(frames: usize, max_order: u32) -> Buddy {
        assert!(frames < NONE as usize, "BUDDY-2: too many frames");
        assert!(max_order <= ORDER_LIMIT, "BUDDY-2: order too high");
        let lists = max_order as usize + 1;
        Buddy {
            next: vec![NONE; frames],
            prev: vec![NONE; frames],
            state: vec![NOT_A_HEAD; frames],
            heads: vec![NONE; lists],
            nr_free: vec![0; lists],
            orders: 0,
            free_frames: 0,
        }
    }

    /// Bytes of memory an allocator for `frames` frames takes.
    pub fn bytes_for(frames: usize, max_order: u32) -> usize {
        size_of::<Buddy>() + frames * 9 + (max_order as usize + 1) * 8
    }

    /// The order of the largest block.
    pub fn max_order(&self) -> u32 {
        self.heads.len() as u32 - 1
    }

    /// Free frames in blocks of all orders.
    pub fn free_frames(&self) -> usize {
        self.free_frames
    }

    /// Free blocks of each order, 0 first.
    pub fn nr_free_all(&self) -> &[u32] {
        &self.nr_free
    }

    /// True when `frame` lies in a free block.
    #[cfg(test)]
    pub fn is_free(&self, frame: u32) -> bool {
        self.free_block_of(frame).is_some()
    }

    /// Takes a block of 2^`order` frames and returns its first frame, or `None` when none is large enough.
    pub fn alloc(&mut self, order: u32) -> Option<u32> {
        assert!(order <= self.max_order(), "BUDDY-2: order too high");
        let enough = self.orders >> order;
        if enough == 0 {
            return None;
        }
        let mut at = order + enough.trailing_zeros();
        let frame = self.pop(at);
        while at > order {
            at -= 1;
            self.push(frame + (1 << at), at);
        }
        Some(frame)
    }

    /// Gives back the block of 2^`order` frames at `frame`, merging it with its free buddies.
    ///
    /// A block may be given back in other pieces than it was taken.
    pub fn free(&mut self, frame: u32, order: u32) {
        assert!(order <= self.max_order(), "BUDDY-2: order too high");
        let size = 1usize << order;
        assert!(
            (frame as usize).is_multiple_of(size) && frame as usize + size <= self.state.len(),
            "BUDDY-2: no block of order {order} at frame {frame}"
        );
        if let Some((head, of)) = self.free_block_of(frame) {
            panic!("BUDDY-1: frame {frame} is free already, in the block of order {of} at {head}");
        }
        assert!(
            self.state[frame as usize..frame as usize + size]
                .iter()
                .all(|&s| s == NOT_A_HEAD),
            "BUDDY-1: part of the block of order {order} at frame {frame} is free already"
        );
        let (mut frame, mut order) = (frame, order);
        while order < self.max_order() {
            let buddy = frame ^ (1 << order);
            if self.state.get(buddy as usize) != Some(&(order as u8)) {
                break;
            }
            self.unlink(buddy, order);
            frame &= !(1 << order);
            order += 1;
        }
        self.push(frame, order);
    }

    /// Gives back single frames; those that lie in a row together.
    pub fn free_batch(&mut self, frames: &[u32]) {
        for row in frames.chunk_by(|a, b| a + 1 == *b) {
            self.free_range(row[0], row.len());
        }
    }

    /// Gives back `len` frames from `start` on, in the largest aligned blocks.
    pub fn free_range(&mut self, start: u32, len: usize) {
        let (mut at, end) = (start as usize, start as usize + len);
        while at < end {
            let aligned = at.trailing_zeros().min(self.max_order());
            let order = aligned.min((end - at).ilog2());
            self.free(at as u32, order);
            at += 1 << order;
        }
    }

    /// Takes up to `max` single frames of the free blocks below `order` that start in `range`, and says how many frames it
    /// looked at. A block that is larger than what is wanted is split; what is left of it stays free.
    pub fn take_in(
        &mut self,
        range: std::ops::Range<u32>,
        order: u32,
        max: usize,
        out: &mut Vec<u32>,
    ) -> usize {
        let (mut at, mut taken) = (range.start, 0);
        while at < range.end && taken < max {
            let of = self.state[at as usize];
            if of == NOT_A_HEAD {
                at += 1;
                continue;
            }
            let size = 1u32 << of;
            if u32::from(of) < order {
                self.unlink(at, u32::from(of));
                let n = (max - taken).min(size as usize);
                out.extend(at..at + n as u32);
                self.free_range(at + n as u32, size as usize - n);
                taken += n;
            }
            at += size;
        }
        (at.min(range.end) - range.start) as usize
    }

    /// Panics unless BUDDY-1 to BUDDY-4 hold. Looks at every frame.
    pub fn check_invariants(&self) {
        let frames = self.state.len();
        let mut covered = vec![false; frames];
        let mut total = 0;
        for order in 0..=self.max_order() {
            let (mut at, mut before, mut blocks) = (self.heads[order as usize], NONE, 0);
            while at != NONE {
                let (first, size) = (at as usize, 1usize << order);
                assert!(
                    first.is_multiple_of(size) && first + size <= frames,
                    "BUDDY-2: block of order {order} at {at}"
                );
                assert_eq!(self.state[first], order as u8, "BUDDY-4: state of {at}");
                assert_eq!(self.prev[first], before, "BUDDY-4: link of {at}");
                let buddy = self.state.get(first ^ size);
                assert!(
                    order == self.max_order() || buddy != Some(&(order as u8)),
                    "BUDDY-3: {at} and its buddy of order {order} are both free"
                );
                for frame in &mut covered[first..first + size] {
                    assert!(
                        !*frame,
                        "BUDDY-1: a frame of the block at {at} is free twice"
                    );
                    *frame = true;
                }
                (before, at) = (at, self.next[first]);
                blocks += 1;
                total += size;
            }
            assert_eq!(
                self.nr_free[order as usize], blocks,
                "BUDDY-4: order {order}"
            );
            assert_eq!(self.orders >> order & 1 == 1, blocks > 0, "BUDDY-4: mask");
        }
        assert_eq!(self.free_frames, total, "BUDDY-4: free frames");
        let heads = self.state.iter().filter(|&&s| s != NOT_A_HEAD).count();
        let blocks: u32 = self.nr_free.iter().sum();
        assert_eq!(heads, blocks as usize, "BUDDY-4: a free block on no list");
    }

    /// The free block that holds `frame`, with its order.
    fn free_block_of(&self, frame: u32) -> Option<(u32, u32)> {
        (0..=self.max_order())
            .map(|order| (frame & !((1 << order) - 1), order))
            .find(|&(head, order)| self.state[head as usize] == order as u8)
    }

    fn push(&mut self, frame: u32, order: u32) {
        let (at, list) = (frame as usize, order as usize);
        let head = self.heads[list];
        self.next[at] = head;
        self.prev[at] = NONE;
        if head != NONE {
            self.prev[head as usize] = frame;
        }
        self.heads[list] = frame;
        self.state[at] = order as u8;
        self.nr_free[list] += 1;
        self.orders |= 1 << order;
        self.free_frames += 1 << order;
    }

    /// The block freed last of a list that has one.
    fn pop(&mut self, order: u32) -> u32 {
        let frame = self.heads[order as usize];
        self.unlink(frame, order);
        frame
    }

    fn unlink(&mut self, frame: u32, order: u32) {
        let (at, list) = (frame as usize, order as usize);
        let (next, prev) = (self.next[at], self.prev[at]);
        match prev {
            NONE => self.heads[list] = next,
            prev => self.next[prev as usize] = next,
        }
        if next != NONE {
            self.prev[next as usize] = prev;
        }
        self.state[at] = NOT_A_HEAD;
        self.nr_free[list] -= 1;
        if self.heads[list] == NONE {
            self.orders &= !(1 << order);
        }
        self.free_frames -= 1 << order;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The model: one bit a frame.
    struct Bitmap(Vec<bool>);

    impl Bitmap {
        fn has_block(&self, order: u32) -> bool {
            self.0
                .chunks_exact(1 << order)
                .any(|b| b.iter().all(|&f| f))
        }
        fn set(&mut self, start: u32, len: usize, free: bool) {
            for f in &mut self.0[start as usize..start as usize + len] {
                assert_ne!(*f, free, "the allocator gave or took a frame twice");
                *f = free;
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Alloc(u32),
        Free(usize),
        FreeInPieces(usize),
        TakeIn(u32, u32, u32, usize),
        AllocRun(u32, usize, usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (0u32..5).prop_map(Op::Alloc),
            3 => any::<usize>().prop_map(Op::Free),
            1 => any::<usize>().prop_map(Op::FreeInPieces),
            1 => (0u32..300, 0u32..64, 0u32..5, 0usize..40).prop_map(|(a, n, o, m)| Op::TakeIn(a, n, o, m)),
            2 => (0u32..300, 0usize..100, 0usize..40).prop_map(|(g, w, m)| Op::AllocRun(g, w, m)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn same_as_a_bitmap(frames in 1usize..300, max in 0u32..7, ops in prop::collection::vec(op(), 0..300)) {
            let mut buddy = Buddy::new(frames, max);
            buddy.check_invariants();
            prop_assert_eq!(buddy.alloc(0), None);
            buddy.free_range(0, frames);
            let mut model = Bitmap(vec![true; frames]);
            let mut held: Vec<(u32, u32)> = Vec::new();
            for op in ops {
                match op {
                    Op::Alloc(order) => {
                        let order = order.min(max);
                        // BUDDY-3: merged as far as can be, the allocator finds a block whenever there is one.
                        let there = model.has_block(order);
                        let got = buddy.alloc(order);
                        prop_assert_eq!(got.is_some(), there);
                        if let Some(frame) = got {
                            prop_assert_eq!(frame % (1 << order), 0);
                            model.set(frame, 1 << order, false);
                            held.push((frame, order));
                        }
                    }
                    Op::Free(n) if !held.is_empty() => {
                        let (frame, order) = held.swap_remove(n % held.len());
                        buddy.free(frame, order);
                        model.set(frame, 1 << order, true);
                    }
                    Op::FreeInPieces(n) if !held.is_empty() => {
                        let (frame, order) = held.swap_remove(n % held.len());
                        let mut frames: Vec<u32> = (frame..frame + (1 << order)).collect();
                        if n % 2 == 0 {
                            frames.reverse();
                        }
                        buddy.free_batch(&frames);
                        model.set(frame, 1 << order, true);
                    }
                    Op::TakeIn(start, len, below, most) => {
                        let start = start.min(frames as u32);
                        let end = (start + len).min(frames as u32);
                        let (before, mut out) = (model.0.clone(), Vec::new());
                        buddy.take_in(start..end, below, most, &mut out);
                        prop_assert!(out.len() <= most);
                        for &frame in &out {
                            model.set(frame, 1, false);
                            held.push((frame, 0));
                            // Below the order: its aligned block was not free as a whole.
                            let block = (frame >> below << below) as usize;
                            let whole = before.get(block..block + (1 << below));
                            prop_assert!(below > max || whole.is_none_or(|b| !b.iter().all(|&f| f)));
                        }
                        if out.len() < most {
                            // Nothing was left that starts there: single frames at the least are all taken.
                            let left = (start..end).filter(|&f| buddy.state[f as usize] < below as u8);
                            prop_assert_eq!(left.count(), 0);
                        }
                    }
                    Op::AllocRun(goal, wanted, most) => {
                        let aimed = buddy.state.get(goal as usize).is_some_and(|&s| s != NOT_A_HEAD);
                        let largest = (0..=max).rev().find(|o| model.has_block(*o));
                        let run = buddy.alloc_run(goal, wanted, most);
                        let most = most.min(wanted);
                        prop_assert_eq!(run.is_some(), largest.is_some() && most > 0);
                        let Some(run) = run else { continue };
                        // As long as it may be, or as the largest block, and it ends where free memory does.
                        let least = if aimed { 1 } else { largest.map_or(0, |o| 1 << o) };
                        prop_assert!(run.len() <= most && run.len() >= least.min(most));
                        prop_assert!(!aimed || run.start == goal);
                        let behind = model.0.get(run.end as usize);
                        prop_assert!(run.len() == most || behind != Some(&true));
                        model.set(run.start, run.len(), false);
                        held.extend(run.map(|frame| (frame, 0)));
                    }
                    Op::Free(_) | Op::FreeInPieces(_) => {}
                }
                buddy.check_invariants();
                for (frame, &free) in model.0.iter().enumerate() {
                    prop_assert_eq!(buddy.is_free(frame as u32), free);
                }
            }
            for (frame, order) in held {
                buddy.free(frame, order);
            }
            buddy.check_invariants();
            prop_assert_eq!(buddy.free_frames(), frames);
            prop_assert_eq!(buddy.nr_free_all()[max as usize] as usize, frames >> max);
        }
    }

    #[test]
    fn splits_and_merges() {
        let mut buddy = Buddy::new(12, 3);
        buddy.free_range(0, 12);
        assert_eq!(buddy.nr_free_all(), [0, 0, 1, 1]);
        assert_eq!(buddy.alloc(0), Some(8));
        assert_eq!(buddy.nr_free_all(), [1, 1, 0, 1]);
        assert_eq!(buddy.alloc(3), Some(0));
        assert_eq!(buddy.alloc(2), None);
        buddy.free(8, 0);
        assert_eq!(buddy.nr_free_all(), [0, 0, 1, 0]);
        buddy.free(0, 3);
        assert_eq!(buddy.free_frames(), 12);
    }

    #[test]
    fn the_frame_freed_last_is_taken_first() {
        let mut buddy = Buddy::new(8, 0);
        buddy.free_batch(&[1, 5, 3]);
        assert_eq!((buddy.alloc(0), buddy.alloc(0)), (Some(3), Some(5)));
    }

    #[test]
    fn a_run_goes_over_the_edges_of_blocks() {
        let mut buddy = Buddy::new(64, 5);
        // Blocks of 2, 4 and 8 side by side, and one frame apart.
        buddy.free_range(6, 18);
        buddy.free(40, 0);
        assert_eq!(buddy.alloc_run(NONE, 100, 10), Some(6..16));
        assert_eq!(buddy.alloc_run(16, 90, 100), Some(16..24));
        assert_eq!(buddy.alloc_run(NONE, 100, 100), Some(40..41));
        assert_eq!(buddy.alloc_run(NONE, 100, 100), None);
        buddy.free_range(0, 64);
        // The smallest block that is enough, and what is not wanted of it stays.
        assert_eq!(buddy.alloc_run(NONE, 3, 8), Some(32..35));
        assert_eq!(buddy.alloc_run(NONE, 4, 8), Some(36..40));
        assert_eq!(buddy.alloc_run(NONE, 32, 32), Some(0..32));
        // Where the last one ended, however little is there.
        assert_eq!(buddy.alloc_run(35, 4, 8), Some(35..36));
        assert_eq!(buddy.alloc_run(40, 9, 64), Some(40..49));
        buddy.check_invariants();
    }

    fn freed(frames: &[(u32, u32)]) {
        let mut buddy = Buddy::new(16, 3);
        for &(frame, order) in frames {
            buddy.free(frame, order);
        }
    }

    #[test]
    #[should_panic(expected = "BUDDY-1: frame 3 is free already, in the block of order 0")]
    fn a_frame_freed_twice_is_a_bug() {
        freed(&[(3, 0), (3, 0)]);
    }

    #[test]
    #[should_panic(expected = "BUDDY-1: frame 6 is free already, in the block of order 2 at 4")]
    fn a_frame_of_a_free_block_is_not_freed() {
        freed(&[(4, 2), (6, 0)]);
    }

    #[test]
    #[should_panic(expected = "BUDDY-1: part of the block")]
    fn a_block_with_a_free_frame_is_not_freed() {
        freed(&[(6, 0), (4, 2)]);
    }

    #[test]
    #[should_panic(expected = "BUDDY-2")]
    fn a_block_is_aligned() {
        freed(&[(2, 2)]);
    }

    #[test]
    #[should_panic(expected = "BUDDY-2")]
    fn a_block_ends_within_the_zone() {
        let mut buddy = Buddy::new(6, 2);
        buddy.free(4, 2);
    }
}
