//! A mapping's dirty pages, oldest first. Guarded by the mapping's dirty lock.

use crate::frame::{DirtyLinks, FrameNo, FrameTable};
use crate::lru::list::List;
use std::collections::BTreeMap;

/// The list. Its links are in the frames.
pub(crate) struct DirtyList {
    list: List,
    /// Pages whose older copy is still being written, with that copy's frame (WB-2). At most as many as in flight.
    superseded: BTreeMap<u64, u32>,
    /// How many have left their place.
    left: u64,
}

impl DirtyList {
    pub(crate) fn new() -> DirtyList {
        DirtyList {
            list: List::new(),
            superseded: BTreeMap::new(),
            left: 0,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.list.len() as u64
    }

    pub(crate) fn push(&mut self, frames: &FrameTable, frame: u32) {
        self.list.push_head(&DirtyLinks(frames), FrameNo(frame));
    }

    pub(crate) fn remove(&mut self, frames: &FrameTable, frame: u32) {
        self.list.remove(&DirtyLinks(frames), FrameNo(frame));
        self.left += 1;
    }

    /// Puts `to`, which is not listed, in the place of `from`.
    pub(crate) fn replace(&mut self, frames: &FrameTable, from: u32, to: u32) {
        self.list
            .replace(&DirtyLinks(frames), FrameNo(from), FrameNo(to));
        self.left += 1;
    }

    /// A copy has taken the place of `frame`, which is under writeback as `page`.
    pub(crate) fn supersede(&mut self, page: u64, frame: u32) {
        let old = self.superseded.insert(page, frame);
        assert!(old.is_none(), "WB-2: two writes of page {page} in flight");
    }

    /// The write of the older copy has ended.
    pub(crate) fn end_supersede(&mut self, page: u64) {
        self.superseded.remove(&page);
    }

    /// The frame of the older copy of `page` that is still being written.
    pub(crate) fn superseded(&self, page: u64) -> Option<u32> {
        if self.superseded.is_empty() {
            return None;
        }
        self.superseded.get(&page).copied()
    }

    /// Panics where the links are broken.
    pub(crate) fn check(&self, links: &DirtyLinks<'_>) {
        self.list.check_invariants(links);
    }

    /// How many have left their place so far: with none in between, a frame that was on the list is where it was.
    pub(crate) fn nr_left(&self) -> u64 {
        self.left
    }

    /// Oldest first.
    pub(crate) fn iter<'a>(&self, links: &'a DirtyLinks<'a>) -> impl Iterator<Item = u32> + 'a {
        self.iter_after(links, None)
    }

    /// Oldest first, from the one after `frame` on, which is on the list.
    pub(crate) fn iter_after<'a>(
        &self,
        links: &'a DirtyLinks<'a>,
        frame: Option<u32>,
    ) -> impl Iterator<Item = u32> + 'a {
        self.list.iter_after(links, frame.map(FrameNo)).map(|f| f.0)
    }
}
