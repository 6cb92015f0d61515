//! Clustering: which dirty pages go out in one request.
//!
//! [`gather`] widens a batch by the dirty neighbours that a probe finds; [`run_len`] cuts it into runs of consecutive
//! pages that fit one request. A run costs one seek; a request costs the device one command for up to its limits.
//!
//! **State.** None. **Context.** The flusher, or who writes a range; allocates only by growing the caller's vector.
//!
//! **Invariants.**
//! - CLUSTER-1: a batch names each page once (two frames of one page would be two versions of it).
//! - CLUSTER-2: the runs, one after the other, are the batch in ascending order; nothing is lost or written twice.
//! - CLUSTER-3: a run is consecutive and within the limits, and could not be joined with the next.
//!
//! **Kernel.** `write_cache_pages` and a file system's `writepages`; `blk_rq_merge` for the segments.
//!
//! **Tests.** Here: a table, and a naive page list.

use std::collections::BinaryHeap;

/// What one request may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RunLimits {
    /// The most pages.
    pub pages_max: usize,
    /// The most pieces of contiguous memory.
    pub segments_max: usize,
}

impl RunLimits {
    /// The limits of a queue that takes requests of `request_bytes_max` bytes in `segments_max` segments, for frames of
    /// `frame_size` bytes. At least one page.
    pub fn new(request_bytes_max: usize, segments_max: usize, frame_size: usize) -> RunLimits {
        RunLimits {
            pages_max: (request_bytes_max / frame_size).max(1),
            segments_max: segments_max.max(1),
        }
    }
}

/// Sorts a batch. By a heap, in place: std's sorts keep a buffer of up to 4 KiB in each of their frames, and this runs at
/// the end of the chains that have the least stack left. A batch in order stays as it is.
pub(crate) fn sort_batch(batch: &mut Vec<(u64, u32)>) {
    if !batch.is_sorted() {
        *batch = BinaryHeap::from(std::mem::take(batch)).into_sorted_vec();
    }
}

/// Widens `batch` by neighbours up to `batch_max` pages in all, and leaves it sorted.
///
/// `probe` is asked for the page after, then the page before each stretch of consecutive pages, and on from there while
/// it answers with a frame. It must answer `None` for a page that is not to be written; a page it answered for belongs
/// to the batch. It is never asked for a page of the batch.
pub(crate) fn gather(
    batch: &mut Vec<(u64, u32)>,
    batch_max: usize,
    mut probe: impl FnMut(u64) -> Option<u32>,
) {
    sort_batch(batch);
    let given = batch.len();
    // The first page not below which a downward probe may go: the end of the stretch before, as widened.
    let mut floor = 0;
    let mut at = 0;
    while at < given && batch.len() < batch_max {
        let first = batch[at].0;
        let mut last = first;
        at += 1;
        loop {
            while at < given && last.checked_add(1) == Some(batch[at].0) {
                last += 1;
                at += 1;
            }
            if batch.len() >= batch_max || last == u64::MAX {
                break;
            }
            let Some(frame) = probe(last + 1) else { break };
            last += 1;
            batch.push((last, frame));
        }
        let mut low = first;
        while low > floor && batch.len() < batch_max {
            let Some(frame) = probe(low - 1) else { break };
            low -= 1;
            batch.push((low, frame));
        }
        floor = last.saturating_add(1);
    }
    sort_batch(batch);
}

/// How many of the first pages of `sorted`, pairs of page and frame, make one run: consecutive pages within the limits.
/// Frames f and f + 1 are neighbours in memory: pages in them share a segment.
pub(crate) fn run_len(sorted: &[(u64, u32)], limits: RunLimits) -> usize {
    let mut segments = 1;
    for (i, pair) in sorted.windows(2).enumerate() {
        let ((page, frame), (next_page, next_frame)) = (pair[0], pair[1]);
        assert!(
            page < next_page,
            "CLUSTER-1: page {page} is twice in a batch"
        );
        segments += usize::from(frame.checked_add(1) != Some(next_frame));
        if next_page - page > 1 || i + 1 >= limits.pages_max || segments > limits.segments_max {
            return i + 1;
        }
    }
    sorted.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn limits(pages_max: usize, segments_max: usize) -> RunLimits {
        RunLimits {
            pages_max,
            segments_max,
        }
    }

    /// Cuts a whole batch into runs.
    fn runs(batch: &mut [(u64, u32)], limits: RunLimits, mut out: impl FnMut(&[(u64, u32)])) {
        batch.sort_unstable();
        let mut rest: &[(u64, u32)] = batch;
        while !rest.is_empty() {
            let (run, after) = rest.split_at(run_len(rest, limits));
            out(run);
            rest = after;
        }
    }

    fn cut(batch: &[(u64, u32)], limits: RunLimits) -> Vec<Vec<u64>> {
        let mut all = Vec::new();
        runs(&mut batch.to_vec(), limits, |run| {
            all.push(run.iter().map(|&(page, _)| page).collect());
        });
        all
    }

    #[test]
    fn runs_worked_by_hand() {
        let none: [Vec<u64>; 0] = [];
        assert_eq!(cut(&[], limits(8, 8)), none);
        assert_eq!(
            cut(&[(5, 9), (3, 2), (4, 7)], limits(8, 8)),
            [vec![3, 4, 5]]
        );
        assert_eq!(
            cut(&[(5, 9), (3, 2), (7, 7)], limits(8, 8)),
            [[3], [5], [7]]
        );
        // Two pages at most.
        assert_eq!(
            cut(&[(1, 1), (2, 2), (3, 3)], limits(2, 8)),
            [vec![1, 2], vec![3]]
        );
        // Frames 4, 5 | 9, 10 | 2: three segments.
        let batch = [(1, 4), (2, 5), (3, 9), (4, 10), (5, 2)];
        assert_eq!(cut(&batch, limits(8, 3)), [vec![1, 2, 3, 4, 5]]);
        assert_eq!(cut(&batch, limits(8, 2)), [vec![1, 2, 3, 4], vec![5]]);
        assert_eq!(cut(&batch, limits(8, 1)), [vec![1, 2], vec![3, 4], vec![5]]);
        // The last page and the last frame have no neighbour.
        let edge = [(u64::MAX, 0), (u64::MAX - 1, u32::MAX)];
        assert_eq!(cut(&edge, limits(8, 1)), [[u64::MAX - 1], [u64::MAX]]);
    }

    #[test]
    fn limits_come_from_the_queue() {
        assert_eq!(RunLimits::new(1 << 20, 254, 4096), limits(256, 254));
        assert_eq!(RunLimits::new(512, 0, 4096), limits(1, 1));
    }

    #[test]
    #[should_panic(expected = "CLUSTER-1")]
    fn a_page_twice_is_a_bug() {
        cut(&[(1, 4), (1, 5)], limits(8, 8));
    }

    #[test]
    fn gathers_neighbours() {
        let dirty = |page: u64| (page != 10 && page < 14).then_some(page as u32);
        let mut batch = vec![(12, 12), (7, 7), (8, 8)];
        gather(&mut batch, 100, dirty);
        let pages: Vec<u64> = batch.iter().map(|&(p, _)| p).collect();
        assert_eq!(pages, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13]);
        // Page 6 becomes dirty between the two looks at it: page 5 is not asked for again.
        let (mut batch, mut asked) = (vec![(5, 5), (7, 7)], Vec::new());
        gather(&mut batch, 100, |p| {
            asked.push(p);
            (p == 6 && asked.iter().filter(|&&a| a == 6).count() > 1).then_some(6)
        });
        assert_eq!(asked, [6, 4, 8, 6]);
        assert_eq!(batch, [(5, 5), (6, 6), (7, 7)]);
        let mut batch = vec![(u64::MAX, 1)];
        gather(&mut batch, 3, |p| Some(p as u32));
        assert_eq!(batch.len(), 3);
        let mut batch = vec![(5, 5), (9, 9)];
        gather(&mut batch, 4, |p| Some(p as u32));
        assert_eq!(batch, [(5, 5), (6, 6), (7, 7), (9, 9)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_batch_is_sorted_as_std_sorts_it(pairs in prop::collection::vec((0u64..90, 0u32..9), 0..300)) {
            let mut sorted = pairs.clone();
            sorted.sort();
            let mut batch = pairs;
            sort_batch(&mut batch);
            prop_assert_eq!(batch, sorted);
        }

        /// CLUSTER-2 and CLUSTER-3, counted page by page.
        #[test]
        fn runs_are_the_batch_cut_as_late_as_can_be(
            pages in prop::collection::btree_map(0u64..120, 0u32..40, 0..100),
            pages_max in 1usize..20, segments_max in 1usize..8, turn in 0usize..100,
        ) {
            let limits = limits(pages_max, segments_max);
            let mut batch: Vec<(u64, u32)> = pages.iter().map(|(&p, &f)| (p, f)).collect();
            let turn = turn.checked_rem(batch.len()).unwrap_or(0);
            batch.rotate_left(turn);
            let mut all: Vec<Vec<(u64, u32)>> = Vec::new();
            runs(&mut batch, limits, |run| all.push(run.to_vec()));
            let fits = |run: &[(u64, u32)]| {
                let consecutive = run.windows(2).all(|w| w[1].0 == w[0].0 + 1);
                let breaks = run.windows(2).filter(|w| w[1].1 != w[0].1 + 1).count();
                consecutive && run.len() <= pages_max && breaks < segments_max
            };
            prop_assert!(all.iter().all(|run| !run.is_empty() && fits(run)), "CLUSTER-3");
            for pair in all.windows(2) {
                let mut longer = pair[0].clone();
                longer.push(pair[1][0]);
                prop_assert!(!fits(&longer), "CLUSTER-3: cut too early after {:?}", pair[0]);
            }
            let flat: Vec<(u64, u32)> = all.concat();
            prop_assert_eq!(flat, pages.into_iter().collect::<Vec<_>>(), "CLUSTER-2");
        }

        /// With room for all, `gather` finds the whole dirty stretch around each page, and asks for no page it has.
        #[test]
        fn gathers_whole_stretches(
            dirty in prop::collection::btree_map(0u64..100, any::<u32>(), 1..80),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 1..10),
            room in 0usize..100,
        ) {
            let all: Vec<(u64, u32)> = dirty.iter().map(|(&p, &f)| (p, f)).collect();
            let given: BTreeMap<u64, u32> = picks.iter().map(|i| *i.get(&all)).collect();
            let mut batch: Vec<(u64, u32)> = given.iter().rev().map(|(&p, &f)| (p, f)).collect();
            let mut answered = given.clone();
            gather(&mut batch, given.len() + room, |page| {
                let frame = dirty.get(&page).copied();
                if let Some(frame) = frame {
                    assert!(answered.insert(page, frame).is_none(), "asked for a page of the batch");
                }
                frame
            });
            prop_assert!(batch.len() <= given.len() + room);
            prop_assert_eq!(&batch, &answered.into_iter().collect::<Vec<_>>());
            let in_reach = |page: u64| {
                let up = (page..).take_while(|p| dirty.contains_key(p));
                let down = (0..=page).rev().take_while(|p| dirty.contains_key(p));
                up.chain(down).any(|p| given.contains_key(&p))
            };
            let reached: Vec<_> = all.iter().copied().filter(|&(p, _)| in_reach(p)).collect();
            prop_assert!(batch.iter().all(|b| reached.contains(b)));
            prop_assert_eq!(batch.len(), reached.len().min(given.len() + room));
        }
    }
}
