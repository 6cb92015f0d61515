//! Free blocks: which data blocks may be given to a page.
//!
//! A block is free, used, or *pending*: nothing maps it any more, but the state on the disk still does, so it is reused
//! only after the commit that unlinks it. The map on the disk says which blocks are used; nothing of this is written.
//!
//! Blocks are given out in runs, next-fit: the search goes on where the last run ended, so that what is written together lies
//! together. Runs shorter than a threshold are passed over. When a whole round finds nothing the threshold is halved; a commit
//! that frees blocks doubles it. So the longest runs go first, and a search costs a few rounds over the bitmap for each
//! commit, however the free blocks are scattered.
//!
//! **Invariants.**
//! - SPACE-1: free + used + pending blocks are all blocks; the counts are those of the bitmaps.
//! - SPACE-2: a block that the last durable commit maps is not free; nor one that a commit maps of which nobody knows whether
//!   it is durable.
//!
//! **Tests.** Below: against a `Vec` of states.

/// A run of so many blocks is as good as a longer one: with blocks of 4 KiB, the largest request of most devices.
const LONG: usize = 256;

pub(super) struct Space {
    /// The first data block; bit 0 of the bitmaps.
    first: u32,
    count: usize,
    /// Not to be given out: mapped, being written, or waiting for a commit.
    taken: Vec<u64>,
    /// Unlinked since the last commit began.
    pending: Vec<u64>,
    /// Unlinked by the commit that is under way.
    committing: Vec<u64>,
    /// Mapped since the last commit began, and before the one that is under way: what they hold may be lost.
    young: Vec<u64>,
    settling: Vec<u64>,
    /// What the disk's state may name. The rest of what is pending needs no commit to be free.
    named: Vec<u64>,
    /// What the checkpoint that is being written names; empty without one.
    leaves: Vec<u64>,
    free: u64,
    nr_pending: u64,
    nr_committing: u64,
    cursor: usize,
    /// Shorter runs are passed over.
    threshold: usize,
}

fn bit(map: &[u64], i: usize) -> bool {
    map[i / 64] >> (i % 64) & 1 != 0
}

impl Space {
    /// `count` blocks from `first` on, all free.
    pub(super) fn new(first: u32, count: u64) -> Space {
        let count = count as usize;
        let words = count.div_ceil(64);
        let mut taken = vec![0; words];
        if !count.is_multiple_of(64) {
            // Beyond the end there is nothing to give.
            taken[words - 1] = u64::MAX << (count % 64);
        }
        Space {
            first,
            count,
            taken,
            pending: vec![0; words],
            committing: vec![0; words],
            young: vec![0; words],
            settling: vec![0; words],
            named: vec![0; words],
            leaves: Vec::new(),
            free: count as u64,
            nr_pending: 0,
            nr_committing: 0,
            cursor: 0,
            threshold: LONG,
        }
    }

    /// Blocks that may be given out.
    pub(super) fn free(&self) -> u64 {
        self.free
    }
    /// Blocks that the next commits set free.
    pub(super) fn pending(&self) -> u64 {
        self.nr_pending + self.nr_committing
    }

    /// Marks a block that the map names as used. False when it is used already.
    pub(super) fn take(&mut self, block: u32) -> bool {
        let i = (block - self.first) as usize;
        if bit(&self.taken, i) {
            return false;
        }
        self.taken[i / 64] |= 1 << (i % 64);
        self.named[i / 64] |= 1 << (i % 64);
        self.free -= 1;
        true
    }

    /// A run of at most `want` free blocks, now used.
    pub(super) fn alloc(&mut self, want: u32) -> Option<(u32, u32)> {
        if self.free == 0 || want == 0 {
            return None;
        }
        let want = want as usize;
        let (at, len) = loop {
            let need = want.min(self.threshold);
            let found = self
                .search(self.cursor, self.count, need, want)
                .or_else(|| self.search(0, self.cursor, need, want));
            if let Some(run) = found {
                break run;
            }
            assert!(need > 1, "SPACE-1: a free block is found");
            self.threshold = need / 2;
        };
        for i in at..at + len {
            self.taken[i / 64] |= 1 << (i % 64);
        }
        self.free -= len as u64;
        self.cursor = at + len;
        Some((self.first + at as u32, len as u32))
    }

    /// The first run of `need` free blocks that begins in `[from, to)`, at most `want` of it.
    fn search(&self, from: usize, to: usize, need: usize, want: usize) -> Option<(usize, usize)> {
        let mut at = self.next(from, false);
        while at < to {
            let end = self.next(at, true);
            if end - at >= need {
                return Some((at, want.min(end - at)));
            }
            at = self.next(end, false);
        }
        None
    }

    /// The first block from `i` on that is taken, or is not; `count` if there is none.
    fn next(&self, i: usize, taken: bool) -> usize {
        let flip = if taken { 0 } else { u64::MAX };
        let mut word = i / 64;
        let Some(bits) = self.taken.get(word) else {
            return self.count;
        };
        let mut bits = (bits ^ flip) & (u64::MAX << (i % 64));
        while bits == 0 {
            word += 1;
            match self.taken.get(word) {
                Some(b) => bits = b ^ flip,
                None => return self.count,
            }
        }
        // Beyond the end everything is taken.
        (word * 64 + bits.trailing_zeros() as usize).min(self.count)
    }

    /// Gives back a block that no commit has ever named: its write failed.
    pub(super) fn put(&mut self, block: u32) {
        let i = (block - self.first) as usize;
        debug_assert!(bit(&self.taken, i), "SPACE-1: block {block} freed twice");
        self.taken[i / 64] &= !(1 << (i % 64));
        self.free += 1;
    }

    /// A page is mapped to this block.
    pub(super) fn link(&mut self, block: u32) {
        let i = (block - self.first) as usize;
        debug_assert!(bit(&self.taken, i), "SPACE-1: block {block} is free");
        self.young[i / 64] |= 1 << (i % 64);
    }

    /// Has no commit made durable that a page is mapped to this block?
    pub(super) fn is_young(&self, block: u32) -> bool {
        let i = (block - self.first) as usize;
        bit(&self.young, i) || bit(&self.settling, i)
    }

    /// Nothing maps this block any more.
    pub(super) fn unlink(&mut self, block: u32) {
        let i = (block - self.first) as usize;
        debug_assert!(
            bit(&self.taken, i) && !bit(&self.pending, i) && !bit(&self.committing, i),
            "SPACE-1: block {block} unlinked twice"
        );
        self.pending[i / 64] |= 1 << (i % 64);
        self.nr_pending += 1;
    }

    /// What was unlinked until now belongs to the commit that begins.
    pub(super) fn begin_commit(&mut self) {
        for (c, p) in self.committing.iter_mut().zip(&mut self.pending) {
            *c |= std::mem::take(p);
        }
        self.nr_committing += std::mem::take(&mut self.nr_pending);
        for (s, y) in self.settling.iter_mut().zip(&mut self.young) {
            *s |= std::mem::take(y);
        }
    }

    /// The commit is durable: what it unlinked is free. Or it failed: the next one will say so.
    pub(super) fn end_commit(&mut self, durable: bool) {
        for (i, c) in self.committing.iter_mut().enumerate() {
            let (gone, here) = (std::mem::take(c), std::mem::take(&mut self.settling[i]));
            if durable {
                self.named[i] |= here;
                self.named[i] &= !gone;
                self.taken[i] &= !gone;
            } else {
                self.pending[i] |= gone;
                self.young[i] |= here;
            }
        }
        let n = std::mem::take(&mut self.nr_committing);
        if durable {
            self.free += n;
            if n > 0 {
                self.threshold = (self.threshold * 2).min(LONG);
            }
        } else {
            self.nr_pending += n;
        }
    }

    /// A checkpoint begins.
    pub(super) fn begin_leaves(&mut self) {
        self.leaves = vec![0; self.taken.len()];
    }

    /// It names this block.
    pub(super) fn in_leaf(&mut self, block: u32) {
        let i = (block - self.first) as usize;
        self.leaves[i / 64] |= 1 << (i % 64);
    }

    /// The checkpoint is durable: the disk's state is what it names, and nothing else. A commit that it stands for may fail yet.
    pub(super) fn end_leaves(&mut self) {
        self.named = std::mem::take(&mut self.leaves);
        self.settling.fill(0);
        for (young, named) in self.young.iter_mut().zip(&self.named) {
            *young &= !named;
        }
    }

    /// Frees what was unlinked and the disk's state does not name; how many blocks. Only while no commit is under way, and
    /// none of which nobody knows whether it is durable.
    pub(super) fn free_unnamed(&mut self) -> u64 {
        debug_assert_eq!(self.nr_committing, 0, "SPACE-2: a commit is under way");
        let before = self.free;
        for i in 0..self.taken.len() {
            let blocks = self.pending[i] & !self.named[i];
            self.pending[i] &= !blocks;
            self.young[i] &= !blocks;
            self.taken[i] &= !blocks;
            let n = u64::from(blocks.count_ones());
            self.nr_pending -= n;
            self.free += n;
        }
        self.free - before
    }

    /// SPACE-1.
    pub(super) fn check_invariants(&self) {
        let ones = |map: &[u64]| map.iter().map(|w| u64::from(w.count_ones())).sum::<u64>();
        let beyond = (self.taken.len() * 64 - self.count) as u64;
        assert_eq!(
            self.free,
            self.count as u64 + beyond - ones(&self.taken),
            "SPACE-1: free"
        );
        assert_eq!(self.nr_pending, ones(&self.pending), "SPACE-1: pending");
        assert_eq!(
            self.nr_committing,
            ones(&self.committing),
            "SPACE-1: committing"
        );
        for (i, taken) in self.taken.iter().enumerate() {
            let waiting = self.pending[i] | self.committing[i];
            assert_eq!(waiting & !taken, 0, "SPACE-1: waiting and free");
            let known = self.young[i] | self.settling[i] | self.named[i];
            assert_eq!(known & !taken, 0, "SPACE-1: known to somebody and free");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Is {
        Free,
        Used,
        Pending,
        Committing,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Alloc(u32),
        Put(usize),
        Unlink(usize),
        Begin,
        End(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1..40u32).prop_map(Step::Alloc),
            1 => any::<usize>().prop_map(Step::Put),
            6 => any::<usize>().prop_map(Step::Unlink),
            1 => Just(Step::Begin),
            1 => any::<bool>().prop_map(Step::End),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn does_what_a_vec_of_states_does(
            count in 1..300u64,
            steps in prop::collection::vec(step(), 1..80),
        ) {
            let mut space = Space::new(1000, count);
            let mut model = vec![Is::Free; count as usize];
            for s in steps {
                let used = |model: &[Is], n: usize| {
                    let all: Vec<usize> =
                        (0..model.len()).filter(|i| model[*i] == Is::Used).collect();
                    (!all.is_empty()).then(|| all[n % all.len()])
                };
                match s {
                    Step::Alloc(want) => {
                        let got = space.alloc(want);
                        prop_assert_eq!(got.is_some(), model.contains(&Is::Free));
                        if let Some((first, n)) = got {
                            prop_assert!(n <= want);
                            for b in first..first + n {
                                let s = &mut model[(b - 1000) as usize];
                                prop_assert_eq!(*s, Is::Free);
                                *s = Is::Used;
                            }
                            // Not cut short without need.
                            let next = model.get((first + n - 1000) as usize);
                            prop_assert!(n == want || next != Some(&Is::Free));
                        }
                    }
                    Step::Put(n) => if let Some(i) = used(&model, n) {
                        model[i] = Is::Free;
                        space.put(1000 + i as u32);
                    }
                    Step::Unlink(n) => if let Some(i) = used(&model, n) {
                        model[i] = Is::Pending;
                        space.unlink(1000 + i as u32);
                    }
                    Step::Begin => {
                        space.begin_commit();
                        for s in model.iter_mut().filter(|s| **s == Is::Pending) {
                            *s = Is::Committing;
                        }
                    }
                    Step::End(ok) => {
                        space.end_commit(ok);
                        for s in model.iter_mut().filter(|s| **s == Is::Committing) {
                            *s = if ok { Is::Free } else { Is::Pending };
                        }
                    }
                }
                space.check_invariants();
                let n = |is: Is| model.iter().filter(|s| **s == is).count() as u64;
                prop_assert_eq!(space.free(), n(Is::Free));
                prop_assert_eq!(space.pending(), n(Is::Pending) + n(Is::Committing));
            }
        }
    }

    #[test]
    fn runs_follow_each_other_and_wrap_round() {
        let mut s = Space::new(10, 100);
        assert_eq!(s.alloc(30), Some((10, 30)));
        assert_eq!(s.alloc(30), Some((40, 30)));
        for b in 10..40 {
            s.put(b);
        }
        assert_eq!(s.alloc(30), Some((70, 30)), "goes on, does not go back");
        assert_eq!(s.alloc(30), Some((10, 30)), "10 are left at the end");
        assert_eq!(s.alloc(30), Some((100, 10)));
        assert_eq!(s.alloc(1), None);
    }

    /// A space where `n` blocks are mapped.
    fn mapped(s: &mut Space, n: u32) {
        let (first, got) = s.alloc(n).expect("room");
        assert_eq!(got, n);
        (first..first + n).for_each(|b| s.link(b));
    }

    #[test]
    fn what_no_commit_has_named_may_be_freed_without_one() {
        let mut s = Space::new(0, 8);
        mapped(&mut s, 2);
        s.begin_commit();
        mapped(&mut s, 2);
        s.end_commit(true);
        assert!(!s.is_young(1) && s.is_young(2));
        (0..4).for_each(|b| s.unlink(b));
        assert_eq!(s.free_unnamed(), 2);
        assert_eq!((s.free(), s.pending()), (6, 2), "0 and 1 are the commit's");
        s.check_invariants();
        mapped(&mut s, 2);
        mapped(&mut s, 2);
        s.begin_commit();
        s.end_commit(false);
        assert!(s.is_young(4), "it failed");
        (4..6).for_each(|b| s.unlink(b));
        assert_eq!(s.free_unnamed(), 2, "it has named nothing");
        assert_eq!(s.pending(), 2);
        s.begin_leaves();
        [0, 1, 6, 7].iter().for_each(|b| s.in_leaf(*b));
        assert!(s.is_young(6), "not durable yet");
        s.end_leaves();
        assert!(!s.is_young(6));
        (6..8).for_each(|b| s.unlink(b));
        assert_eq!(s.free_unnamed(), 0, "a checkpoint names them");
        s.check_invariants();
    }

    #[test]
    fn a_block_in_flight_over_a_commit_is_no_part_of_it() {
        let mut s = Space::new(0, 4);
        assert_eq!(s.alloc(1), Some((0, 1)));
        s.begin_commit();
        s.begin_leaves();
        s.end_leaves();
        s.end_commit(true);
        s.link(0);
        assert!(s.is_young(0));
        s.unlink(0);
        assert_eq!(s.free_unnamed(), 1);
        s.check_invariants();
    }

    #[test]
    fn a_commit_that_is_on_the_disk_and_failed_has_let_go_of_what_it_unlinked() {
        let mut s = Space::new(0, 4);
        mapped(&mut s, 2);
        s.begin_commit();
        s.end_commit(true);
        mapped(&mut s, 2);
        s.unlink(0);
        s.begin_commit();
        s.begin_leaves();
        (1..4).for_each(|b| s.in_leaf(b));
        s.unlink(1);
        s.end_leaves();
        s.end_commit(false);
        assert!(!s.is_young(2));
        assert_eq!(s.free_unnamed(), 1, "1 is in a leaf");
        assert_eq!(s.alloc(4), Some((0, 1)));
        s.check_invariants();
    }

    #[test]
    fn long_runs_go_first_and_short_ones_last() {
        let mut s = Space::new(0, 1000);
        while s.alloc(1000).is_some() {}
        // Free: 500 singles, and between them runs of 20 and of 60.
        (0..1000).step_by(2).for_each(|b| s.put(b));
        (301..320).step_by(2).for_each(|b| s.put(b));
        (701..760).step_by(2).for_each(|b| s.put(b));
        assert_eq!(s.alloc(300).map(|(_, n)| n), Some(61));
        assert_eq!(s.alloc(300).map(|(_, n)| n), Some(21));
        assert_eq!(s.alloc(300).map(|(_, n)| n), Some(1));
        assert_eq!(s.threshold, 1);
        s.begin_commit();
        s.end_commit(true);
        assert_eq!(s.threshold, 1, "nothing was freed");
        s.unlink(701);
        s.begin_commit();
        s.end_commit(true);
        assert_eq!(s.threshold, 2);
        s.check_invariants();
    }

    #[test]
    fn a_block_of_the_disks_state_is_kept_until_a_commit_unlinks_it() {
        let mut s = Space::new(0, 4);
        mapped(&mut s, 4);
        s.unlink(2);
        assert_eq!(s.alloc(1), None, "SPACE-2");
        s.begin_commit();
        s.unlink(3);
        s.end_commit(false);
        assert_eq!(s.alloc(1), None, "SPACE-2: the commit failed");
        s.begin_commit();
        s.unlink(1);
        s.end_commit(true);
        assert_eq!((s.free(), s.pending()), (2, 1));
        assert_eq!(s.alloc(4), Some((2, 2)));
    }
}
