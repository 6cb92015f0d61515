//! Memory of an engine in the lab: zeroed heap memory, 2 MiB-aligned.
#![allow(unsafe_code)]

use highwater_engine::world::Arena;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

const ALIGN: usize = 2 << 20;

/// One allocation, freed on drop. ARENA-1: `base` is valid for `layout` until then.
#[derive(Debug)]
pub struct LabArena {
    base: *mut u8,
    layout: Layout,
    len: usize,
}

// SAFETY: the arena hands out an address only; who may touch which bytes is the engine's affair (IO-1).
unsafe impl Send for LabArena {}
// SAFETY: as above.
unsafe impl Sync for LabArena {}

impl LabArena {
    /// `len` zero bytes; `None` when that length cannot be laid out.
    pub fn new(len: usize) -> Option<LabArena> {
        let layout = Layout::from_size_align(len.max(1), ALIGN).ok()?;
        // SAFETY: the layout's size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        if base.is_null() {
            handle_alloc_error(layout);
        }
        Some(LabArena { base, layout, len })
    }
}

impl Drop for LabArena {
    fn drop(&mut self) {
        // SAFETY: ARENA-1: made by `alloc_zeroed` with this layout, freed once.
        unsafe { dealloc(self.base, self.layout) };
    }
}

impl Arena for LabArena {
    fn base(&self) -> *mut u8 {
        self.base
    }
    fn len(&self) -> usize {
        self.len
    }
    fn populate(&self, offset: usize, len: usize) {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "populate outside of the arena"
        );
    }
}
