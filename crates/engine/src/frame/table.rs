//! The descriptors: one for each frame, never freed.

use super::metadata::{Carver, Table};
use super::state::{FREE, State};
use crate::lru::list::Links;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use std::fmt;

/// A frame's number, from 0 to the cache's frames - 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct FrameNo(pub u32);

impl FrameNo {
    /// The number as an index: for what an order keeps for each frame.
    #[inline(always)]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for FrameNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A link to no frame.
const NONE: u32 = u32::MAX;

fn frame_of(link: u32) -> Option<FrameNo> {
    (link != NONE).then_some(FrameNo(link))
}

fn link_to(frame: Option<FrameNo>) -> u32 {
    frame.map_or(NONE, |f| f.0)
}

/// One frame's descriptor. See the room's head for who may touch which field.
#[doc(alias("struct page", "folio"))]
#[repr(align(64))]
pub(crate) struct Frame {
    pub state: State,
    page: AtomicU64,
    mapping: AtomicU32,
    lru_prev: AtomicU32,
    lru_next: AtomicU32,
    dirty_prev: AtomicU32,
    dirty_next: AtomicU32,
    generation: AtomicU64,
    /// First and last log sequence number of the page's changes: the place that write-ahead logging will use.
    _lsn: [u64; 2],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Frame>() == 64, "at most 64 bytes a frame");

impl Frame {
    fn new() -> Frame {
        Frame {
            state: State::new(FREE),
            page: AtomicU64::new(0),
            mapping: AtomicU32::new(0),
            lru_prev: AtomicU32::new(NONE),
            lru_next: AtomicU32::new(NONE),
            dirty_prev: AtomicU32::new(NONE),
            dirty_next: AtomicU32::new(NONE),
            generation: AtomicU64::new(0),
            _lsn: [0; 2],
        }
    }

    /// The page's number. Stable while the frame is pinned.
    #[inline(always)]
    pub(crate) fn page(&self) -> u64 {
        // Relaxed: ordered by the pin's Acquire.
        self.page.load(Ordering::Relaxed)
    }

    /// The page's mapping.
    #[inline(always)]
    pub(crate) fn mapping(&self) -> u32 {
        // Relaxed: as `page`.
        self.mapping.load(Ordering::Relaxed)
    }

    /// Gives the frame a key. The caller owns it alone and it is not HASHED.
    pub(crate) fn set_key(&self, mapping: u32, page: u64) {
        // Relaxed: published by the Release of `State::reset` or of the index.
        self.page.store(page, Ordering::Relaxed);
        self.mapping.store(mapping, Ordering::Relaxed);
    }

    /// The dirty generation (DIRTY) or the write epoch (clean).
    pub(crate) fn generation(&self) -> u64 {
        // Relaxed: read under the dirty lock, or after an Acquire look at the state.
        self.generation.load(Ordering::Relaxed)
    }

    pub(crate) fn set_generation(&self, generation: u64) {
        // Relaxed: as above; the writer then changes the state by a Release.
        self.generation.store(generation, Ordering::Relaxed);
    }
}

/// All descriptors.
pub(crate) struct FrameTable {
    frames: Table<Frame>,
}

impl FrameTable {
    pub(crate) fn new(carver: &mut Carver, frames: usize) -> FrameTable {
        FrameTable {
            frames: carver.carve(frames, |_| Frame::new()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    #[inline(always)]
    pub(crate) fn get(&self, frame: u32) -> &Frame {
        &self.frames[frame as usize]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Frame)> {
        self.frames.iter().enumerate().map(|(i, f)| (i as u32, f))
    }
}

/// The links of the LRU lists, guarded by the LRU lock.
pub(crate) struct LruLinks<'a>(pub &'a FrameTable);
/// The links of a mapping's dirty list, guarded by its dirty lock.
pub(crate) struct DirtyLinks<'a>(pub &'a FrameTable);

macro_rules! links {
    ($name:ident, $prev:ident, $next:ident) => {
        // Relaxed throughout: the list's lock orders all access.
        impl Links for $name<'_> {
            fn next(&self, f: FrameNo) -> Option<FrameNo> {
                frame_of(self.0.get(f.0).$next.load(Ordering::Relaxed))
            }
            fn prev(&self, f: FrameNo) -> Option<FrameNo> {
                frame_of(self.0.get(f.0).$prev.load(Ordering::Relaxed))
            }
            fn set_next(&self, f: FrameNo, to: Option<FrameNo>) {
                self.0.get(f.0).$next.store(link_to(to), Ordering::Relaxed);
            }
            fn set_prev(&self, f: FrameNo, to: Option<FrameNo>) {
                self.0.get(f.0).$prev.store(link_to(to), Ordering::Relaxed);
            }
        }
    };
}
links!(LruLinks, lru_prev, lru_next);
links!(DirtyLinks, dirty_prev, dirty_next);
