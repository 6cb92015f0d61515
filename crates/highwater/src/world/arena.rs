//! The arena: one anonymous mapping, aligned to 2 MiB, with huge pages asked for.
//!
//! **Invariants.** ARENA-1: `base..base + len` is mapped from `new` to `drop`; `base` is a multiple of 2 MiB.
//!
//! **Context.** `populate` may run at the same time as users of the same bytes: it never changes them.
#![allow(unsafe_code)]

use highwater_engine::sync::Ordering;
use highwater_engine::world::Arena;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use std::sync::atomic::AtomicU8;

const HUGE: usize = 2 << 20;
const PAGE: usize = 4096;

/// Anonymous memory of the OS world.
#[derive(Debug)]
pub struct OsArena {
    base: *mut u8,
    len: usize,
    mapped: (*mut u8, usize),
}

// SAFETY: ARENA-1; the arena only gives out addresses, and who may touch which bytes is the engine's matter.
unsafe impl Send for OsArena {}
// SAFETY: as above.
unsafe impl Sync for OsArena {}

impl OsArena {
    /// Maps `len` bytes.
    pub(crate) fn new(len: usize) -> std::io::Result<OsArena> {
        let total = len
            .checked_add(HUGE)
            .ok_or(std::io::ErrorKind::OutOfMemory)?;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), total, prot, flags) }?;
        let start = start.cast::<u8>();
        let base = start.wrapping_add(start.addr().next_multiple_of(HUGE) - start.addr());
        let arena = OsArena {
            base,
            len,
            mapped: (start, total),
        };
        // Advice only: a kernel without huge pages works with small ones.
        // SAFETY: inside the mapping made above.
        let _ = unsafe { madvise(base.cast(), len, Advice::LinuxHugepage) };
        // SAFETY: inside the mapping made above.
        unsafe { madvise(base.cast(), len, Advice::LinuxDontFork) }?;
        Ok(arena)
    }
}

impl Arena for OsArena {
    fn base(&self) -> *mut u8 {
        self.base
    }

    fn len(&self) -> usize {
        self.len
    }

    fn populate(&self, offset: usize, len: usize) {
        let end = offset.saturating_add(len).min(self.len);
        let start = offset.min(end) / PAGE * PAGE;
        if start == end {
            return;
        }
        let at = self.base.wrapping_add(start);
        for _ in 0..16 {
            // SAFETY: ARENA-1; the call makes pages resident and changes no byte.
            match unsafe { madvise(at.cast(), end - start, Advice::LinuxPopulateWrite) } {
                Ok(()) => return,
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => continue,
                Err(_) => break,
            }
        }
        touch(at, end - start);
    }
}

/// Writes each page without changing it (kernels before 5.14).
fn touch(at: *mut u8, len: usize) {
    for page in (0..len).step_by(PAGE) {
        // SAFETY: ARENA-1. An exchange of a value for itself keeps the byte whatever others do at the same time.
        let byte = unsafe { &*at.wrapping_add(page).cast::<AtomicU8>() };
        // Relaxed: only the page fault matters. Not `fetch_or(0)`: compilers make a load of it.
        let _ = byte.compare_exchange(0, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Drop for OsArena {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; nobody uses it after the arena.
        let _ = unsafe { munmap(self.mapped.0.cast(), self.mapped.1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident(arena: &OsArena) -> usize {
        let mut map = vec![0u8; arena.len() / PAGE];
        // SAFETY: the arena is mapped, and the vector has a byte for each page.
        let r = unsafe { libc::mincore(arena.base().cast(), arena.len(), map.as_mut_ptr()) };
        assert_eq!(r, 0);
        map.iter().filter(|b| **b & 1 == 1).count()
    }

    #[test]
    fn populate_makes_resident_and_keeps_bytes() {
        let arena = OsArena::new(6 << 20).unwrap();
        assert_eq!(arena.base().addr() % HUGE, 0, "ARENA-1");
        assert_eq!(resident(&arena), 0);
        // SAFETY: the first byte of the arena, used by this test alone.
        unsafe { arena.base().write(77) };
        arena.populate(0, 2 << 20);
        assert!(resident(&arena) >= 512);
        arena.populate(3 << 20, 1 << 40);
        assert!(resident(&arena) >= 512 + 768);
        // SAFETY: as above.
        assert_eq!(unsafe { arena.base().read() }, 77);
    }

    #[test]
    fn touching_does_what_populate_does() {
        let arena = OsArena::new(4 << 20).unwrap();
        touch(arena.base(), arena.len());
        assert_eq!(resident(&arena), 1024);
    }

    #[test]
    fn an_impossible_length_is_an_error() {
        assert!(OsArena::new(usize::MAX - 5).is_err());
        assert!(OsArena::new(1 << 60).is_err());
    }
}
