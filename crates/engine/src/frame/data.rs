//! The bytes behind the frames: the arena, and the only ways to reach into it.
//!
//! The frames of a ghost arena ([`Arena::is_ghost`]) have addresses and no bytes of their own: here, and nowhere else,
//! copying and zeroing are then left out.
#![allow(unsafe_code)]

use crate::io::IoBuf;
use crate::world::Arena;
use std::sync::Arc;

/// Asks the CPU for the cache line of an address.
#[inline(always)]
pub(crate) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect that the program can see, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast::<i8>());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Which of the eight lanes of 16 bits equal `tag`: bit 2 i for lane i, whose first four are the first word's, from the
/// lowest bits up.
#[inline(always)]
pub(crate) fn same_lanes(words: [u64; 2], tag: u16) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{
            _mm_cmpeq_epi16, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi16,
        };
        // SAFETY: registers only, and every x86-64 CPU has SSE2.
        let bytes = unsafe {
            let lanes = _mm_set_epi64x(words[1].cast_signed(), words[0].cast_signed());
            _mm_movemask_epi8(_mm_cmpeq_epi16(lanes, _mm_set1_epi16(tag.cast_signed())))
        };
        bytes.cast_unsigned() & 0x5555
    }
    #[cfg(not(target_arch = "x86_64"))]
    same_lanes_by_words(words, tag)
}

/// The same without vectors.
#[cfg(any(all(test, not(loom)), not(target_arch = "x86_64")))]
fn same_lanes_by_words(words: [u64; 2], tag: u16) -> u32 {
    let lane = |i: u32| (words[(i / 4) as usize] >> (i % 4 * 16)) as u16;
    (0..8).fold(0, |same, i| same | u32::from(lane(i) == tag) << (2 * i))
}

/// The arena, cut into frames.
pub(crate) struct Memory<A: Arena> {
    arena: Arc<A>,
    base: *mut u8,
    frame_size: usize,
    shift: u32,
    frames: usize,
    /// Tells loom of each access, so that it finds two that are not ordered (FRAME-1).
    #[cfg(loom)]
    accesses: Vec<loom::cell::UnsafeCell<()>>,
}

// SAFETY: FRAME-1: the bytes of a frame are reached only with the rights that its state word gave out; the pointer
// itself is to memory that lives as long as `arena`, which is Send and Sync.
unsafe impl<A: Arena> Send for Memory<A> {}
// SAFETY: FRAME-1, as above.
unsafe impl<A: Arena> Sync for Memory<A> {}

impl<A: Arena> Memory<A> {
    pub(crate) fn new(arena: Arc<A>, frame_size: usize, frames: usize) -> Memory<A> {
        assert!(
            frames * frame_size <= arena.len(),
            "the arena holds all frames"
        );
        Memory {
            base: arena.base(),
            arena,
            frame_size,
            shift: frame_size.ilog2(),
            frames,
            #[cfg(loom)]
            accesses: (0..frames)
                .map(|_| loom::cell::UnsafeCell::new(()))
                .collect(),
        }
    }

    /// The arena itself.
    pub(crate) fn arena(&self) -> &Arc<A> {
        &self.arena
    }

    pub(crate) fn frame_size(&self) -> usize {
        self.frame_size
    }

    /// Do frames have no bytes of their own? A constant in every world but the lab.
    #[inline(always)]
    pub(crate) fn is_ghost(&self) -> bool {
        self.arena.is_ghost()
    }

    /// Makes frames resident.
    pub(crate) fn populate(&self, first: usize, frames: usize) {
        self.arena
            .populate(first * self.frame_size, frames * self.frame_size);
    }

    #[inline(always)]
    fn at(&self, frame: u32) -> *mut u8 {
        debug_assert!((frame as usize) < self.frames);
        // SAFETY: frame < frames (every FrameNo comes from the buddy, which has no other), and frames × frame_size lies
        // within the arena (asserted in `new`).
        unsafe { self.base.add((frame as usize) << self.shift) }
    }

    /// Asks the CPU for the line of a frame that holds byte `within`. Not for more: what a stream reads comes by itself,
    /// and sooner.
    #[inline(always)]
    pub(crate) fn prefetch(&self, frame: u32, within: usize) {
        debug_assert!(within < self.frame_size);
        if !self.is_ghost() {
            prefetch(self.at(frame).wrapping_add(within));
        }
    }

    /// The frame as a piece of a request.
    pub(crate) fn io_buf(&self, frame: u32, len: usize) -> IoBuf {
        debug_assert!(len <= self.frame_size);
        IoBuf {
            ptr: self.at(frame),
            len,
        }
    }

    /// The bytes of a frame, to read.
    ///
    /// # Safety
    /// The caller holds a shared pin, EXCL or WRITEBACK on the frame (FRAME-1) for as long as it uses the slice.
    #[inline(always)]
    pub(crate) unsafe fn bytes(&self, frame: u32) -> &[u8] {
        #[cfg(loom)]
        self.accesses[frame as usize].with(|_| ());
        // SAFETY: in bounds by `at`; initialised, as an arena is zeroed memory; no writer by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.at(frame), self.frame_size) }
    }

    /// The bytes of a frame, to write.
    ///
    /// # Safety
    /// The caller holds EXCL or LOADING on the frame, or owns it outside of the index (FRAME-1), for as long as it uses
    /// the slice, and makes no second slice of it meanwhile.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub(crate) unsafe fn bytes_mut(&self, frame: u32) -> &mut [u8] {
        #[cfg(loom)]
        self.accesses[frame as usize].with_mut(|_| ());
        // SAFETY: in bounds by `at`; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.at(frame), self.frame_size) }
    }

    /// The bytes of `count` frames in a row, to read.
    ///
    /// # Safety
    /// The caller owns all of them (BLOCK-1), and nobody writes them for as long as it uses the slice.
    pub(crate) unsafe fn block(&self, first: u32, count: usize) -> &[u8] {
        #[cfg(loom)]
        (0..count).for_each(|i| self.accesses[first as usize + i].with(|_| ()));
        assert!(first as usize + count <= self.frames);
        // SAFETY: in bounds by the assertion; frames lie in a row; no writer by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.at(first), count << self.shift) }
    }

    /// The bytes of `count` frames in a row, to write.
    ///
    /// # Safety
    /// The caller owns all of them (BLOCK-1) and makes no second slice of them meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn block_mut(&self, first: u32, count: usize) -> &mut [u8] {
        #[cfg(loom)]
        (0..count).for_each(|i| self.accesses[first as usize + i].with_mut(|_| ()));
        assert!(first as usize + count <= self.frames);
        // SAFETY: as in `block`; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.at(first), count << self.shift) }
    }

    /// Fills `out` with the frame's bytes from `within` on.
    ///
    /// # Safety
    /// As `bytes`, until this returns.
    #[inline(always)]
    pub(crate) unsafe fn copy_out(&self, frame: u32, within: usize, out: &mut [u8]) {
        if !self.is_ghost() {
            // SAFETY: FRAME-1 by the caller's promise.
            out.copy_from_slice(unsafe { &self.bytes(frame)[within..within + out.len()] });
        }
    }

    /// Puts `bytes` at `within` of the frame; zeroes the rest of it if it is `fresh`.
    ///
    /// # Safety
    /// As `bytes_mut`, until this returns.
    #[inline(always)]
    pub(crate) unsafe fn copy_in(&self, frame: u32, within: usize, bytes: &[u8], fresh: bool) {
        if self.is_ghost() {
            return;
        }
        // SAFETY: FRAME-1 by the caller's promise.
        let page = unsafe { self.bytes_mut(frame) };
        if fresh && bytes.len() < self.frame_size {
            page[..within].fill(0);
            page[within + bytes.len()..].fill(0);
        }
        page[within..within + bytes.len()].copy_from_slice(bytes);
    }

    /// Zeroes `frame` from byte `from` on. The caller has the right to write it (FRAME-1).
    pub(crate) fn zero_from(&self, frame: u32, from: usize) {
        if self.is_ghost() {
            return;
        }
        // SAFETY: FRAME-1 by the caller, who holds EXCL, LOADING or owns the frame; the slice ends here.
        unsafe { self.bytes_mut(frame)[from..].fill(0) }
    }

    /// Copies a page. The caller may read `from` and write `to` (FRAME-1).
    pub(crate) fn copy(&self, from: u32, to: u32) {
        assert_ne!(from, to);
        if self.is_ghost() {
            return;
        }
        // SAFETY: FRAME-1 by the caller: EXCL on `from`, alone with `to`; two frames do not overlap.
        unsafe {
            self.bytes_mut(to).copy_from_slice(self.bytes(from));
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_compared_alike_with_vectors_and_without() {
        let mut random = 1u64;
        let mut next = || {
            random = random.wrapping_mul(0xD6E8_FEB8_6659_FD93).wrapping_add(1);
            random ^ random >> 32
        };
        for _ in 0..10_000 {
            // Few values, so that lanes are often equal, and differ in one bit only.
            let mask = [0x8001_8001_8001_8001, u64::MAX][(next() & 1) as usize];
            let (words, tag) = ([next() & mask, next() & mask], (next() & mask) as u16);
            let same = same_lanes(words, tag);
            assert_eq!(same, same_lanes_by_words(words, tag), "{words:x?} {tag:x}");
        }
        assert_eq!(same_lanes([0x0007_0000_0000_0000, 7], 7), 1 << 6 | 1 << 8);
    }
}
