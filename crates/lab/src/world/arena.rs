//! Memory of an engine in the lab: real, or ghost frames behind which there are no bytes of their own.
//!
//! **Invariants.**
//! - ARENA-1: `base..base + len` stays mapped, readable and writable, from `new` or `ghost` to `drop`; `base` is a
//!   multiple of 2 MiB.
//! - GHOST-1: the bytes of a ghost frame mean nothing. All of them show one small window of shared memory, mapped again
//!   and again, so that a guard on any frame can be read and written, and finds there what anybody last wrote. The engine
//!   moves no byte of them, devices carry none, and no decision may rest on one.
//! - GHOST-2: the tables behind the frames are real memory: descriptors, index and shadows are the engine's own.
//!
//! **Tests.** Here; that ghosts change no schedule: `tests/ghost.rs`.
#![allow(unsafe_code)]

use highwater_engine::world::Arena;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const ALIGN: usize = 2 << 20;
/// The kernel gives a process 65,530 mappings (`vm.max_map_count`); an arena takes at most so many of them.
const WINDOWS_MAX: usize = 8 << 10;

/// Bytes of the arenas of a world: now, and the most at any one time.
#[derive(Debug, Default)]
pub(super) struct ArenaBytes {
    now: AtomicU64,
    max: AtomicU64,
}

impl ArenaBytes {
    /// The high-water mark.
    pub fn max(&self) -> u64 {
        // Relaxed, as all of them: one thread.
        self.max.load(Ordering::Relaxed)
    }

    fn add(&self, len: usize) {
        let before = self.now.fetch_add(len as u64, Ordering::Relaxed);
        self.max.fetch_max(before + len as u64, Ordering::Relaxed);
    }

    fn sub(&self, len: usize) {
        self.now.fetch_sub(len as u64, Ordering::Relaxed);
    }
}

/// One address range, given back on drop.
#[derive(Debug)]
pub struct LabArena {
    base: *mut u8,
    len: usize,
    origin: Origin,
    /// Where its bytes are counted.
    counted: Option<Arc<ArenaBytes>>,
}

/// Where an arena's addresses come from.
#[derive(Debug)]
enum Origin {
    /// The heap.
    Heap(Layout),
    /// A mapping of its own, from here, so long.
    Ghost(*mut u8, usize),
}

// SAFETY: the arena hands out an address only; who may touch which bytes is the engine's affair (IO-1).
unsafe impl Send for LabArena {}
// SAFETY: as above.
unsafe impl Sync for LabArena {}

impl LabArena {
    /// `len` zero bytes.
    ///
    /// # Errors
    /// When that length cannot be laid out.
    pub fn new(len: usize) -> std::io::Result<LabArena> {
        let layout = Layout::from_size_align(len.max(1), ALIGN).map_err(|_| Errno::NOMEM)?;
        // SAFETY: the layout's size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        if base.is_null() {
            handle_alloc_error(layout);
        }
        Ok(LabArena {
            base,
            len,
            origin: Origin::Heap(layout),
            counted: None,
        })
    }

    /// Counts it in `bytes` while it lives.
    pub(super) fn counted_in(mut self, bytes: &Arc<ArenaBytes>) -> LabArena {
        bytes.add(self.len);
        self.counted = Some(bytes.clone());
        self
    }

    /// `data` ghost bytes (GHOST-1), whole frames, and `tables` real, zero ones behind them (GHOST-2).
    ///
    /// # Errors
    /// When the operating system refuses a mapping.
    pub fn ghost(data: usize, tables: usize) -> std::io::Result<LabArena> {
        let len = data.checked_add(tables).ok_or(Errno::NOMEM)?;
        let total = len.checked_add(ALIGN).ok_or(Errno::NOMEM)?;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), total, prot, flags) }?;
        let start = start.cast::<u8>();
        let base = start.wrapping_add(start.addr().next_multiple_of(ALIGN) - start.addr());
        // From here on an early return unmaps.
        let arena = LabArena {
            base,
            len,
            origin: Origin::Ghost(start, total),
            counted: None,
        };
        // SAFETY: inside the mapping made above. Advice only: small pages work as well.
        let _ = unsafe { madvise(base.cast(), len, Advice::LinuxHugepage) };
        let window = data.div_ceil(WINDOWS_MAX).next_multiple_of(ALIGN);
        let memory = memfd_create("highwater-ghost", MemfdFlags::CLOEXEC)?;
        ftruncate(&memory, window as u64)?;
        for at in (0..data).step_by(window.max(ALIGN)) {
            let n = window.min(data - at);
            let flags = MapFlags::SHARED | MapFlags::FIXED;
            // SAFETY: ARENA-1: `at..at + n` is inside the arena's own mapping and ends with the data, which is whole
            // frames; nobody has seen the arena yet.
            unsafe { mmap(base.wrapping_add(at).cast(), n, prot, flags, &memory, 0) }?;
        }
        Ok(arena)
    }
}

impl Drop for LabArena {
    fn drop(&mut self) {
        if let Some(bytes) = &self.counted {
            bytes.sub(self.len);
        }
        match self.origin {
            // SAFETY: ARENA-1: made by `alloc_zeroed` with this layout, freed once.
            Origin::Heap(layout) => unsafe { dealloc(self.base, layout) },
            Origin::Ghost(start, total) => {
                // SAFETY: ARENA-1: the mapping made in `ghost`, its windows included; nobody uses it any more.
                let _ = unsafe { munmap(start.cast(), total) };
            }
        }
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
    #[inline(always)]
    fn is_ghost(&self) -> bool {
        matches!(self.origin, Origin::Ghost(..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ghost_1_every_frame_can_be_touched_and_a_terabyte_takes_no_memory() {
        let arena = LabArena::ghost(1 << 40, 1 << 20).unwrap();
        assert!(arena.is_ghost());
        assert_eq!(arena.base().addr() % ALIGN, 0, "ARENA-1");
        for offset in [0, 4096, (1 << 39) + 12_288, (1 << 40) - 1] {
            // SAFETY: ARENA-1; used by this test alone.
            unsafe {
                arena.base().add(offset).write(7);
                assert_eq!(arena.base().add(offset).read(), 7);
            }
        }
    }

    #[test]
    fn ghost_2_tables_are_bytes_of_their_own() {
        let (data, tables) = (100 << 20, 4 << 20);
        let arena = LabArena::ghost(data, tables).unwrap();
        // SAFETY: ARENA-1; used by this test alone.
        let tables = unsafe { std::slice::from_raw_parts_mut(arena.base().add(data), tables) };
        assert!(tables.iter().all(|b| *b == 0));
        for (i, byte) in tables.iter_mut().enumerate() {
            *byte = (i / 4096) as u8;
        }
        for frame in (0..data).step_by(4096) {
            // SAFETY: as above.
            unsafe { arena.base().add(frame).write(0xEE) };
        }
        assert!((0..tables.len()).all(|i| tables[i] == (i / 4096) as u8));
    }

    #[test]
    fn the_most_bytes_at_one_time_are_remembered() {
        let bytes = Arc::new(ArenaBytes::default());
        let arena = |len| LabArena::new(len).unwrap().counted_in(&bytes);
        let first = arena(5_000);
        drop(arena(300));
        drop(arena(200));
        assert_eq!(bytes.max(), 5_300);
        drop(first);
        let _next = arena(5_200);
        assert_eq!(bytes.max(), 5_300);
    }

    #[test]
    fn an_impossible_length_is_an_error() {
        assert!(LabArena::new(usize::MAX - 5).is_err());
        assert!(LabArena::ghost(usize::MAX - 5, 10).is_err());
        assert!(LabArena::ghost(1 << 60, 0).is_err());
    }
}
