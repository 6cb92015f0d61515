//! How deep a stack was used: painted before, read after, and copied with its registers where a chain is wanted.
//!
//! Decides what "used" means: a word of a painted stack that no longer holds its paint. Nothing here is called by the
//! engine itself, so tracing costs nothing where nobody asks for it; the worlds and the command call it.
//!
//! **Context.** Any task, on its own stack. Allocates nothing, but for `Snapshot::here`, which fills a buffer that its
//! caller gives.
//!
//! **Invariants.**
//! - PAINT-1: only memory below the running stack pointer, or of a stack that nobody runs on, is painted: it holds
//!   nothing that anybody reads.
//! - PAINT-2: a word's paint depends on its address, so paint that is copied to another place counts as use.
//! - PAINT-3: a window lies in mapped memory of its stack, above every guard, so that painting it never faults.
//!
//! **Kernel.** `CONFIG_DEBUG_STACK_USAGE` (stack_not_used()) and the stack tracer (kernel/trace/trace_stack.c). Linux
//! paints with zeroes and measures the tracer's depth at function entries; here the paint is read to the word.
//!
//! **Tests.** Below; on coroutines in the lab's `stack` room.
#![allow(unsafe_code)]

mod call;

pub use call::{CallDepth, Window};

/// Where the paint of a word comes from.
const KEY: usize = 0x9E37_79B9_7F4A_7C15u64 as usize;
/// Bytes of a word.
pub const WORD: usize = size_of::<usize>();

/// Can stacks be measured on this machine?
pub const MEASURED: bool = cfg!(all(target_arch = "x86_64", target_os = "linux"));

/// The running stack pointer; 0 where stacks are not measured.
#[inline(always)]
pub fn stack_pointer() -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        let sp: usize;
        // SAFETY: reads a register.
        unsafe {
            std::arch::asm!("mov {}, rsp", out(reg) sp, options(nomem, nostack, preserves_flags))
        };
        sp
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}

/// Paints the words of `low..high`, both multiples of 8.
///
/// # Safety
/// PAINT-1: the range is a stack's memory, and nobody runs on it.
pub unsafe fn paint(low: usize, high: usize) {
    let mut at = low;
    while at < high {
        // SAFETY: inside the range, which is the caller's to write.
        unsafe { std::ptr::write_volatile(at as *mut usize, at ^ KEY) };
        at += WORD;
    }
}

/// Paints the running stack from `low` up to the stack pointer of whoever this is inlined into.
///
/// # Safety
/// PAINT-1 and PAINT-3: `low..` up to the stack pointer is mapped memory of the running stack; `low` is a multiple of 8.
#[inline(always)]
pub unsafe fn paint_below(low: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: without `nostack` the compiler keeps nothing below the stack pointer here (no red zone), so that all the
    // words written are free (PAINT-1).
    unsafe {
        std::arch::asm!(
            "2:",
            "cmp {at}, rsp",
            "jae 3f",
            "mov {word}, {at}",
            "xor {word}, {key}",
            "mov [{at}], {word}",
            "add {at}, 8",
            "jmp 2b",
            "3:",
            at = inout(reg) low => _,
            word = out(reg) _,
            key = in(reg) KEY,
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = low;
}

/// The lowest word of `low..high` that has lost its paint, or `high`.
///
/// # Safety
/// `low..high` is mapped memory of a stack, both multiples of 8, and was painted.
pub unsafe fn deepest(low: usize, high: usize) -> usize {
    let mut at = low;
    // SAFETY: inside the range. Volatile, as what runs on a stack writes there behind the compiler's back.
    while at < high && unsafe { std::ptr::read_volatile(at as *const usize) } == at ^ KEY {
        at += WORD;
    }
    at
}

/// A register file by DWARF's numbers for x86-64: 6 is RBP, 7 RSP, 16 the instruction pointer.
pub type Registers = [u64; 17];
/// The stack pointer's place in [`Registers`].
pub const SP: usize = 7;
/// The instruction pointer's.
pub const IP: usize = 16;

/// Registers and the stack above them at one moment, to be unwound later and elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The registers.
    pub registers: Registers,
    /// The lowest address that counts as used.
    pub deepest: usize,
    /// The address of the first of `bytes`.
    pub low: usize,
    /// The stack's top: depth is counted from here.
    pub top: usize,
    /// The stack from `low` to `top`.
    pub bytes: Vec<u8>,
}

impl Snapshot {
    /// Takes the caller's registers and its stack up to `top` into `self`, whose buffer grows to the longest stack kept
    /// in it. `deepest` is where depth is read, at or below the stack pointer.
    ///
    /// # Safety
    /// `top` is at or below the highest mapped address of the running stack.
    #[inline(never)]
    pub unsafe fn here(&mut self, deepest: usize, top: usize) {
        self.registers = [0; 17];
        #[cfg(target_arch = "x86_64")]
        // SAFETY: reads registers into memory of `self`.
        unsafe {
            std::arch::asm!(
                "mov [{r} + 24], rbx",
                "mov [{r} + 48], rbp",
                "mov [{r} + 56], rsp",
                "mov [{r} + 96], r12",
                "mov [{r} + 104], r13",
                "mov [{r} + 112], r14",
                "mov [{r} + 120], r15",
                "lea {t}, [rip]",
                "mov [{r} + 128], {t}",
                r = in(reg) self.registers.as_mut_ptr(),
                t = out(reg) _,
                options(nostack, preserves_flags),
            );
        }
        let low = self.registers[SP] as usize;
        self.bytes.clear();
        if low == 0 || low > top {
            return;
        }
        (self.low, self.top, self.deepest) = (low, top, deepest.min(low));
        self.bytes.reserve(top - low);
        // SAFETY: `low..top` is the running stack above its pointer, mapped; the buffer has room and does not lie there.
        unsafe {
            std::ptr::copy_nonoverlapping(low as *const u8, self.bytes.as_mut_ptr(), top - low);
            self.bytes.set_len(top - low);
        }
    }

    /// The word at `address`, if it is of the stack that was kept.
    pub fn word(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address).ok()?.checked_sub(self.low)?;
        let bytes = self.bytes.get(at..at.checked_add(8)?)?;
        bytes.first_chunk().map(|b| u64::from_ne_bytes(*b))
    }

    /// Bytes from the top to the deepest address.
    pub fn depth(&self) -> u64 {
        (self.top - self.deepest) as u64
    }
}

#[cfg(test)]
mod tests;
