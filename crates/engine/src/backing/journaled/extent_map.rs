//! The extent map: which data block holds a page of the file, and the CRC32C of its bytes.
//!
//! A leaf covers some 500 neighbouring pages and is one frame: a header's room, then eight bytes a page (block, CRC). The
//! checksums alone are half of that, and a tree of extents over randomly written pages, each an extent of its own, takes
//! three to five times as much; so extents are not stored but *read off*: neighbours in the file whose blocks are
//! neighbours on the disk merge into one [`Extent`], in look-ups, log records and reports. A leaf's bytes are also the
//! checkpoint's: it goes to the disk as it is, with its header filled in.
//!
//! A leaf is there as long as a page of it is mapped or pinned. A page is pinned from its reservation to the end of its
//! write, so that the completion, which cannot wait for memory, always finds the leaf.
//!
//! **Invariants.**
//! - MAP-JRN-1: `mapped` of a leaf is the number of its entries that are not zero; a leaf with neither pages nor pins is gone;
//!   at rest there is a pin for each reservation, and no other.
//!
//! **Tests.** Below: against a `BTreeMap`.

use super::format::{ENTRY, Geometry, LEAF_HEADER, put_u32, u32_at};
use std::ops::{DerefMut, Range};

/// Consecutive pages on consecutive blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extent {
    pub page: u64,
    pub block: u32,
    pub count: u64,
}

/// A page's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mapped {
    pub block: u32,
    pub crc: u32,
}

struct Leaf<F> {
    frame: F,
    mapped: u32,
    pins: u32,
}

pub(super) struct ExtentMap<F> {
    leaf_pages: u64,
    pages: u64,
    leaves: Vec<Option<Leaf<F>>>,
    mapped: u64,
    /// Pages that continue the extent of the page before.
    joined: u64,
}

impl<F: DerefMut<Target = [u8]>> ExtentMap<F> {
    pub(super) fn new(geometry: &Geometry) -> ExtentMap<F> {
        ExtentMap {
            leaf_pages: geometry.leaf_pages(),
            pages: geometry.pages(),
            leaves: (0..geometry.leaves()).map(|_| None).collect(),
            mapped: 0,
            joined: 0,
        }
    }

    fn place(&self, page: u64) -> (usize, usize) {
        let within = (page % self.leaf_pages) as usize;
        (
            (page / self.leaf_pages) as usize,
            LEAF_HEADER + within * ENTRY,
        )
    }

    /// Pages that are mapped.
    pub(super) fn mapped(&self) -> u64 {
        self.mapped
    }

    /// Extents, as `extents` would give them.
    pub(super) fn nr_extents(&self) -> u64 {
        self.mapped - self.joined
    }

    /// Does `page` continue the extent of the page before it?
    fn joins(&self, page: u64) -> bool {
        let before = page.checked_sub(1).and_then(|p| self.get(p));
        before.is_some_and(|b| {
            self.get(page)
                .is_some_and(|m| b.block.checked_add(1) == Some(m.block))
        })
    }

    /// The block of a page, or 0.
    fn block(&self, page: u64) -> u32 {
        self.get(page).map_or(0, |m| m.block)
    }

    /// Counts the extents that a page ends or begins when it moves from block `old` to `new`; 0: none.
    fn count_move(&mut self, page: u64, old: u32, new: u32) {
        let before = page.checked_sub(1).map_or(0, |p| self.block(p));
        let after = self.block(page + 1);
        let join = |a: u32, b: u32| u64::from(a != 0 && a.checked_add(1) == Some(b));
        self.joined += join(before, new) + join(new, after);
        self.joined -= join(before, old) + join(old, after);
    }

    /// Leaves that are there.
    pub(super) fn leaves(&self) -> usize {
        self.leaves.iter().flatten().count()
    }

    pub(super) fn has_leaf(&self, page: u64) -> bool {
        self.leaves[self.place(page).0].is_some()
    }

    /// Gives the map a zeroed frame for the leaf of `page`; gives it back if the leaf is there.
    pub(super) fn add_leaf(&mut self, page: u64, frame: F) -> Option<F> {
        let index = self.place(page).0;
        let leaf = &mut self.leaves[index];
        if leaf.is_some() {
            return Some(frame);
        }
        *leaf = Some(Leaf {
            frame,
            mapped: 0,
            pins: 0,
        });
        None
    }

    /// Puts a leaf of a checkpoint in place. False when it is empty, or its index not that of a
    /// leaf that is missing.
    pub(super) fn load_leaf(&mut self, index: u32, frame: F) -> bool {
        let Some(slot @ None) = self.leaves.get_mut(index as usize) else {
            return false;
        };
        let entries = frame[LEAF_HEADER..].chunks_exact(ENTRY);
        let mapped = entries.filter(|e| u32_at(e, 0) != 0).count() as u32;
        if mapped == 0 {
            return false;
        }
        self.mapped += u64::from(mapped);
        *slot = Some(Leaf {
            frame,
            mapped,
            pins: 0,
        });
        // The one before is there already, the one behind is not.
        let first = u64::from(index) * self.leaf_pages;
        let joined = (first..first + self.leaf_pages).filter(|page| self.joins(*page));
        self.joined += joined.count() as u64;
        true
    }

    /// The bytes of the next leaf from `index` on that has pages, header included, with its index.
    pub(super) fn next_leaf(&self, index: usize) -> Option<(usize, &[u8])> {
        let rest = self.leaves.get(index..)?.iter().enumerate();
        rest.filter_map(|(i, leaf)| Some((index + i, leaf.as_ref()?)))
            .find(|(_, leaf)| leaf.mapped > 0)
            .map(|(i, leaf)| (i, &*leaf.frame))
    }

    /// Is the leaf of `page` kept in place?
    pub(super) fn is_pinned(&self, page: u64) -> bool {
        let leaf = self.leaves.get(self.place(page).0);
        leaf.is_some_and(|l| l.as_ref().is_some_and(|l| l.pins > 0))
    }

    /// Keeps the leaf of `page` in place. It is there.
    pub(super) fn pin(&mut self, page: u64) {
        let index = self.place(page).0;
        let leaf = self.leaves[index].as_mut();
        leaf.expect("MAP-JRN-1: pinned where a leaf is").pins += 1;
    }

    /// Ends a `pin`; returns the frame of a leaf that is not needed any more.
    #[must_use = "a frame is given back outside of the lock"]
    pub(super) fn unpin(&mut self, page: u64) -> Option<F> {
        let index = self.place(page).0;
        let leaf = self.leaves[index].as_mut();
        let leaf = leaf.expect("MAP-JRN-1: a pinned leaf stays");
        leaf.pins -= 1;
        self.take_unused(index)
    }

    fn take_unused(&mut self, index: usize) -> Option<F> {
        let leaf = self.leaves[index].as_ref()?;
        if leaf.pins > 0 || leaf.mapped > 0 {
            return None;
        }
        self.leaves[index].take().map(|leaf| leaf.frame)
    }

    /// Where a page is.
    pub(super) fn get(&self, page: u64) -> Option<Mapped> {
        if page >= self.pages {
            return None;
        }
        let (index, at) = self.place(page);
        let frame = &self.leaves[index].as_ref()?.frame;
        let block = u32_at(frame, at);
        (block != 0).then(|| Mapped {
            block,
            crc: u32_at(frame, at + 4),
        })
    }

    /// Maps a page, whose leaf is there; returns the block that it had.
    pub(super) fn set(&mut self, page: u64, to: Mapped) -> Option<u32> {
        let (index, at) = self.place(page);
        let leaf = self.leaves[index].as_mut();
        let leaf = leaf.expect("MAP-JRN-1: a page is mapped where a leaf is");
        let old = u32_at(&leaf.frame, at);
        put_u32(&mut leaf.frame, at, to.block);
        put_u32(&mut leaf.frame, at + 4, to.crc);
        leaf.mapped += u32::from(old == 0);
        self.mapped += u64::from(old == 0);
        self.count_move(page, old, to.block);
        (old != 0).then_some(old)
    }

    /// Unmaps the pages of `range`, calling `freed` with each block that they had; returns the frames of leaves that are
    /// not needed any more.
    #[must_use = "frames are given back outside of the lock"]
    pub(super) fn clear(&mut self, range: Range<u64>, mut freed: impl FnMut(u32)) -> Vec<F> {
        let mut unused = Vec::new();
        let mut page = range.start;
        let end = range.end.min(self.pages);
        while page < end {
            let (index, _) = self.place(page);
            let leaf_end = ((index as u64 + 1) * self.leaf_pages).min(end);
            let some = self.leaves[index].as_ref().is_some_and(|l| l.mapped > 0);
            for p in if some { page..leaf_end } else { 0..0 } {
                let block = self.block(p);
                if block != 0 {
                    self.count_move(p, block, 0);
                    self.mapped -= 1;
                    let (_, at) = self.place(p);
                    let leaf = self.leaves[index].as_mut();
                    let leaf = leaf.expect("MAP-JRN-1: a mapped page has a leaf");
                    leaf.frame[at..at + ENTRY].fill(0);
                    leaf.mapped -= 1;
                    freed(block);
                }
            }
            unused.extend(self.take_unused(index));
            page = leaf_end;
        }
        unused
    }

    /// The extent that begins at the first mapped page of `range`.
    pub(super) fn next_extent(&self, range: Range<u64>) -> Option<Extent> {
        let mut found: Option<Extent> = None;
        let mut page = range.start;
        let end = range.end.min(self.pages);
        while page < end {
            let (index, _) = self.place(page);
            let leaf_end = ((index as u64 + 1) * self.leaf_pages).min(end);
            let Some(leaf) = self.leaves[index].as_ref().filter(|l| l.mapped > 0) else {
                if found.is_some() {
                    return found;
                }
                page = leaf_end;
                continue;
            };
            for p in page..leaf_end {
                let at = LEAF_HEADER + (p % self.leaf_pages) as usize * ENTRY;
                let block = u32_at(&leaf.frame, at);
                match &mut found {
                    None if block != 0 => {
                        found = Some(Extent {
                            page: p,
                            block,
                            count: 1,
                        });
                    }
                    None => {}
                    Some(e) if block != 0 && u64::from(block) == u64::from(e.block) + e.count => {
                        e.count += 1;
                    }
                    Some(_) => return found,
                }
            }
            page = leaf_end;
        }
        found
    }

    /// All extents, in the order of the file.
    pub(super) fn extents(&self) -> impl Iterator<Item = Extent> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let extent = self.next_extent(next..self.pages)?;
            next = extent.page + extent.count;
            Some(extent)
        })
    }

    /// Pins of all leaves.
    pub(super) fn pins(&self) -> u64 {
        let leaves = self.leaves.iter().flatten();
        leaves.map(|leaf| u64::from(leaf.pins)).sum()
    }

    /// MAP-JRN-1.
    pub(super) fn check_invariants(&self) {
        let mut all = 0;
        for leaf in self.leaves.iter().flatten() {
            let entries = leaf.frame[LEAF_HEADER..].chunks_exact(ENTRY);
            let mapped = entries.filter(|e| u32_at(e, 0) != 0).count() as u32;
            assert_eq!(leaf.mapped, mapped, "MAP-JRN-1: a leaf's count");
            assert!(leaf.mapped + leaf.pins > 0, "MAP-JRN-1: an unused leaf");
            all += u64::from(mapped);
        }
        assert_eq!(self.mapped, all, "MAP-JRN-1: the map's count");
        let extents = self.extents().count() as u64;
        assert_eq!(self.nr_extents(), extents, "MAP-JRN-1: extents");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const GEOMETRY: Geometry = Geometry {
        block_size: 4096,
        blocks: 100_000,
        log_blocks: 16,
        capacity: 1200 * 4096,
    };

    fn map() -> ExtentMap<Vec<u8>> {
        ExtentMap::new(&GEOMETRY)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set { page: u64, block: u32, count: u64 },
        Clear { page: u64, count: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        // The corner between two leaves (page 504) is met often.
        let page = prop_oneof![0..1200u64, 480..520u64];
        prop_oneof![
            3 => (page.clone(), 50..5000u32, 1..20u64)
                .prop_map(|(page, block, count)| Step::Set { page, block, count }),
            1 => (page, 1..600u64).prop_map(|(page, count)| Step::Clear { page, count }),
        ]
    }

    fn naive_extents(model: &BTreeMap<u64, Mapped>) -> Vec<Extent> {
        let mut all: Vec<Extent> = Vec::new();
        for (page, m) in model {
            match all.last_mut() {
                Some(e)
                    if e.page + e.count == *page
                        && u64::from(e.block) + e.count == u64::from(m.block) =>
                {
                    e.count += 1;
                }
                _ => all.push(Extent {
                    page: *page,
                    block: m.block,
                    count: 1,
                }),
            }
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn does_what_a_btree_does(steps in prop::collection::vec(step(), 1..60)) {
            let mut map = map();
            let mut model: BTreeMap<u64, Mapped> = BTreeMap::new();
            for s in steps {
                match s {
                    Step::Set { page, block, count } => for i in 0..count.min(1200 - page) {
                        let to = Mapped { block: block + i as u32, crc: (page + i) as u32 };
                        if !map.has_leaf(page + i) {
                            prop_assert!(map.add_leaf(page + i, vec![0; 4096]).is_none());
                        }
                        let old = map.set(page + i, to);
                        prop_assert_eq!(old, model.insert(page + i, to).map(|m| m.block));
                    }
                    Step::Clear { page, count } => {
                        let mut freed = Vec::new();
                        let _ = map.clear(page..page + count, |b| freed.push(b));
                        let gone: Vec<u64> =
                            model.range(page..page + count).map(|(p, _)| *p).collect();
                        let expected: Vec<u32> =
                            gone.iter().map(|p| model.remove(p).unwrap().block).collect();
                        prop_assert_eq!(freed, expected);
                    }
                }
                map.check_invariants();
            }
            for page in 0..1300 {
                prop_assert_eq!(map.get(page), model.get(&page).copied());
            }
            prop_assert_eq!(map.mapped(), model.len() as u64);
            let extents: Vec<Extent> = map.extents().collect();
            prop_assert_eq!(extents, naive_extents(&model));
        }
    }

    #[test]
    fn a_leaf_stays_while_it_is_pinned_and_goes_with_its_last_use() {
        let mut map = map();
        assert!(map.add_leaf(600, vec![0; 4096]).is_none());
        map.pin(600);
        let m = Mapped { block: 70, crc: 1 };
        assert_eq!(map.set(601, m), None);
        assert!(map.clear(0..1200, |_| ()).is_empty(), "pinned");
        assert!(map.unpin(600).is_some(), "the last use");
        assert!(!map.has_leaf(600));
        assert!(map.add_leaf(0, vec![0; 4096]).is_none());
        assert!(map.add_leaf(1, vec![0; 4096]).is_some(), "there already");
    }

    #[test]
    fn leaves_of_a_checkpoint_are_taken_once_and_within_bounds() {
        let mut map = map();
        let mut leaf = vec![0; 4096];
        put_u32(&mut leaf, LEAF_HEADER + 3 * ENTRY, 99);
        assert!(map.load_leaf(1, leaf.clone()));
        assert!(!map.load_leaf(1, leaf.clone()), "twice");
        assert!(!map.load_leaf(3, leaf), "beyond the file");
        let page = 504 + 3;
        assert_eq!(map.get(page), Some(Mapped { block: 99, crc: 0 }));
        assert_eq!(map.next_leaf(0).map(|(i, _)| i), Some(1));
        assert!(map.next_leaf(2).is_none());
        map.check_invariants();
    }
}
