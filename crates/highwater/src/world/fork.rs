//! Fork detection: a page that the kernel wipes in the child.
//!
//! Threads, rings and the arena of a cache stay with the parent, so a child that used the cache would wait for ever or
//! touch unmapped memory. A word of a `MADV_WIPEONFORK` page holds the id of the process that wrote it and reads 0 in
//! every child, until the child marks itself; checking it is one load.
//!
//! **Invariants.** FORK-1: the page is mapped for the life of the process.
#![allow(unsafe_code)]

use highwater_engine::sync::Ordering;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;

/// Tells the process that made it from its children.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ForkMark {
    /// The word holds the process id in the process that made the mark, and another value in a child.
    Page(&'static AtomicU32, u32),
    /// A kernel before 4.14: compares process ids.
    Pid(u32),
}

impl ForkMark {
    /// Marks the calling process. All marks of one process share one page.
    pub(crate) fn new() -> ForkMark {
        static PAGE: OnceLock<Option<&'static AtomicU32>> = OnceLock::new();
        match PAGE.get_or_init(wiped_page) {
            Some(word) => {
                // Relaxed: threads get the mark through a lock; all threads of a process store the same.
                word.store(std::process::id(), Ordering::Relaxed);
                ForkMark::Page(word, std::process::id())
            }
            None => ForkMark::Pid(std::process::id()),
        }
    }

    /// Is this a child of the process that made the mark?
    #[inline(always)]
    pub(crate) fn forked(&self) -> bool {
        match self {
            // Relaxed: the kernel changes it, before the child's first instruction.
            ForkMark::Page(word, pid) => word.load(Ordering::Relaxed) != *pid,
            ForkMark::Pid(pid) => std::process::id() != *pid,
        }
    }
}

fn wiped_page() -> Option<&'static AtomicU32> {
    let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a fresh anonymous mapping of one page, at an address of the kernel's choice.
    let page = unsafe { mmap_anonymous(std::ptr::null_mut(), 4096, prot, flags) }.ok()?;
    // SAFETY: the page was mapped just now and is used by nobody else.
    unsafe { madvise(page, 4096, Advice::LinuxWipeOnFork) }.ok()?;
    // SAFETY: FORK-1: mapped, zeroed, never unmapped.
    Some(unsafe { &*page.cast::<AtomicU32>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_sees_that_it_is_one() {
        let mark = ForkMark::new();
        assert!(!mark.forked());
        // SAFETY: the child takes no lock, allocates nothing, and ends in `_exit`.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            let inherited = mark.forked();
            let own = ForkMark::new();
            let code = i32::from(inherited && mark.forked() && !own.forked());
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: waits for the child made above.
        unsafe { libc::waitpid(pid, &mut status, 0) };
        assert_eq!(
            libc::WEXITSTATUS(status),
            1,
            "the child read the parent's mark"
        );
        assert!(!mark.forked());
    }
}
