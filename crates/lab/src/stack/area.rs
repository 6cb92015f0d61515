//! The memory of a coroutine's stack: exactly so many bytes, a guard below, and perhaps a line that tells when it is
//! first crossed.
//!
//! **State.** A `LabStack` belongs to the world of its thread; `running` of `trap.rs` points to the one that runs.
//!
//! **Invariants.**
//! - STACK-1: the byte below a stack's last is the first of the guard, which nobody can read or write: the mapping's top
//!   is placed so that the size need not be whole pages.
//! - STACK-2: the mapping lives as long as its `LabStack`, at one address; the handler touches no other.
//! - LINE-1: the page below a line is unreachable until the depth asked for has been touched, and is plain stack after.
#![allow(unsafe_code)]

use super::trap;
use crate::world::Outcome;
use corosensei::stack::{Stack, StackPointer};
use corosensei::trap::CoroutineTrapHandler;
use highwater_engine::stack::{Snapshot, deepest, paint};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use std::cell::Cell;
use std::ptr::null_mut;

const PAGE: usize = 4096;
/// Unreachable bytes below each stack: further than any frame reaches without touching a page of its own first.
const GUARD: usize = 16 * PAGE;
/// The smallest stack: what `corosensei` asks for.
pub const SIZE_MIN: usize = corosensei::stack::MIN_STACK_SIZE;
/// A stack's size is a multiple of this.
pub const ALIGN: usize = corosensei::stack::STACK_ALIGNMENT;

/// One stack, boxed, so that the handler can keep its address.
pub(crate) struct LabStack(Box<Area>);

/// What is known of a stack.
pub(crate) struct Area {
    map: *mut u8,
    len: usize,
    /// The lowest usable byte.
    pub low: usize,
    /// One past the highest.
    pub top: usize,
    /// The deepest use before its paint was renewed.
    pub seen: Cell<u64>,
    /// Who runs on it.
    pub name: Cell<Option<Box<str>>>,
    pub line: Option<Line>,
    /// Makes the coroutine return in the middle.
    pub handler: Cell<Option<CoroutineTrapHandler<Outcome>>>,
    /// It has overflowed inside the C library and goes on for a while, in the guard.
    pub late: Cell<bool>,
    /// What the handler kept.
    pub kept: Cell<Option<trap::Kept>>,
}

/// Where the handler waits for a depth that is known to come.
pub(crate) struct Line {
    /// The page that cannot be touched yet.
    pub page: usize,
    /// The depth whose first touch is wanted.
    pub depth: usize,
    /// It was touched.
    pub crossed: Cell<bool>,
}

impl LabStack {
    /// A stack of `size` bytes; with `record`, a line for that depth, and at least `size` bytes.
    ///
    /// # Errors
    /// When the operating system refuses the mapping.
    pub fn new(size: usize, record: Option<usize>) -> std::io::Result<LabStack> {
        assert!(
            size.is_multiple_of(ALIGN) && size >= SIZE_MIN,
            "a stack of {size} bytes: expected a multiple of {ALIGN}, at least {SIZE_MIN}"
        );
        let slack = if record.is_some() { 3 * PAGE } else { 0 };
        let len = GUARD + size.next_multiple_of(PAGE) + slack;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let map = unsafe {
            mmap_anonymous(
                null_mut(),
                len,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        let map = map.cast::<u8>();
        let low = map.addr() + GUARD;
        let mut area = Area {
            map,
            len,
            low,
            // STACK-1.
            top: low + size,
            seen: Cell::new(0),
            name: Cell::new(None),
            line: None,
            handler: Cell::new(None),
            late: Cell::new(false),
            kept: Cell::new(None),
        };
        let flags = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: the mapping made above, above its guard; nobody has seen it.
        unsafe { mprotect(map.wrapping_add(GUARD).cast(), len - GUARD, flags) }?;
        if let Some(depth) = record {
            area.draw_line(depth)?;
        }
        Ok(LabStack(Box::new(area)))
    }

    pub fn area(&self) -> &Area {
        &self.0
    }
}

impl Area {
    /// Puts the top so that the last word before `depth` is the last before a page of its own.
    fn draw_line(&mut self, depth: usize) -> std::io::Result<()> {
        let before = (depth - 8) / ALIGN * ALIGN;
        let end = self.map.addr() + self.len;
        let line = (end - before) / PAGE * PAGE;
        self.top = line + before;
        self.line = Some(Line {
            page: line - PAGE,
            depth,
            crossed: Cell::new(false),
        });
        self.bar(true)
    }

    /// Makes the page below the line unreachable, or part of the stack.
    pub fn bar(&self, barred: bool) -> std::io::Result<()> {
        let Some(line) = &self.line else {
            return Ok(());
        };
        let flags = match barred {
            true => MprotectFlags::empty(),
            false => MprotectFlags::READ | MprotectFlags::WRITE,
        };
        let page = self.map.wrapping_add(line.page - self.map.addr());
        // SAFETY: STACK-2: a whole page of the mapping.
        unsafe { mprotect(page.cast(), PAGE, flags) }?;
        Ok(())
    }

    /// Makes the guard part of the stack, or unreachable again.
    pub fn open_guard(&self, open: bool) -> std::io::Result<()> {
        let flags = match open {
            true => MprotectFlags::READ | MprotectFlags::WRITE,
            false => MprotectFlags::empty(),
        };
        // SAFETY: STACK-2: whole pages of the mapping, below its stack.
        unsafe { mprotect(self.map.cast(), GUARD, flags) }?;
        Ok(())
    }

    /// Is this address below the last usable byte, in the guard?
    pub fn guards(&self, address: usize) -> bool {
        (self.map.addr()..self.low).contains(&address)
    }

    /// Is this address in the page below a line that was not crossed?
    pub fn lined(&self, address: usize) -> Option<&Line> {
        let line = self.line.as_ref()?;
        let inside = (line.page..line.page + PAGE).contains(&address);
        (inside && !line.crossed.get()).then_some(line)
    }

    /// Could this be the stack pointer of whoever runs here?
    pub fn holds(&self, sp: usize) -> bool {
        (self.map.addr()..=self.top).contains(&sp)
    }

    /// Paints it, but for the page below a line, which nobody can write: the handler paints that one.
    pub fn paint(&self) {
        self.seen.set(0);
        let line = self.line.as_ref().map_or(self.top, |l| l.page);
        // SAFETY: PAINT-1: nobody runs on it yet; STACK-2, LINE-1.
        unsafe {
            paint(self.low, line);
            paint((line + PAGE).min(self.top), self.top);
        }
    }

    /// Bytes from the top to the deepest word that lost its paint.
    pub fn deepest(&self) -> u64 {
        let line = self.line.as_ref().filter(|l| !l.crossed.get());
        let from = line.map_or(self.low, |l| l.page + PAGE);
        // SAFETY: STACK-2; painted before its coroutine began; LINE-1: what cannot be read was not used.
        let at = unsafe { deepest(from, self.top) };
        self.seen.get().max((self.top - at) as u64)
    }

    /// What the handler kept, if it kept anything since the last call.
    pub fn take_kept(&self) -> Option<Snapshot> {
        self.kept.take().map(trap::Kept::into_snapshot)
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        drop(self.take_kept());
        // SAFETY: STACK-2: mapped in `new`, unmapped once; no coroutine has it any more.
        let _ = unsafe { munmap(self.map.cast(), self.len) };
    }
}

// SAFETY: STACK-1: a guard that catches overflows lies below; at least `SIZE_MIN` bytes are usable; `top` and the
// mapping's start are multiples of 16.
unsafe impl Stack for LabStack {
    fn base(&self) -> StackPointer {
        StackPointer::new(self.0.top).unwrap_or(StackPointer::MIN)
    }

    fn limit(&self) -> StackPointer {
        StackPointer::new(self.0.map.addr()).unwrap_or(StackPointer::MIN)
    }
}
