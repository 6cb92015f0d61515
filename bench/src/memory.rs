//! Plain memory on huge pages: the bound of everything that reads bytes.
#![allow(unsafe_code)]

use crate::Outcome;
use crate::keys::Keys;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use std::ffi::c_void;
use std::ptr::null_mut;

/// An anonymous mapping, filled with random bytes.
pub struct Plain {
    base: *mut c_void,
    len: usize,
}

// SAFETY: the mapping is written in `new` only, and unmapped when nobody has a reference.
unsafe impl Sync for Plain {}

impl Plain {
    /// `len` bytes, huge pages asked for.
    ///
    /// # Errors
    /// When there is not so much memory.
    pub fn new(len: usize) -> Outcome<Plain> {
        // SAFETY: a new mapping at an address of the kernel's choice; the advice is given for just that.
        let base = unsafe {
            let base = mmap_anonymous(
                null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )?;
            let _ = madvise(base, len, Advice::LinuxHugepage);
            base
        };
        // SAFETY: the mapping is `len` bytes, readable and writable, and nobody else knows it.
        let words = unsafe { std::slice::from_raw_parts_mut(base.cast::<u64>(), len / 8) };
        let mut keys = Keys::new(len as u64, 1);
        words.fill_with(|| keys.next());
        Ok(Plain { base, len })
    }

    /// Where `[at, at + len)` of it begins, for a device to read or write; nobody has its `bytes` meanwhile.
    ///
    /// # Panics
    /// When that is not within it.
    pub fn part(&mut self, at: usize, len: usize) -> *mut u8 {
        assert!(at + len <= self.len, "a part lies within the whole");
        self.base.cast::<u8>().wrapping_add(at)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped as long as `self` lives, written before `new` returned and since only by a device
        // that had them from `part`, whose `&mut` nobody's slice outlives.
        unsafe { std::slice::from_raw_parts(self.base.cast(), self.len) }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`; `&mut self` says that no slice of it is left.
        let _ = unsafe { munmap(self.base, self.len) };
    }
}
