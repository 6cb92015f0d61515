//! The signal handlers: an overflow becomes the coroutine's end, a line's first crossing is kept.
//!
//! SIGSEGV in the guard of the running coroutine's stack: registers and stack are copied, then the context is changed so
//! that the coroutine returns [`Ended::Overflow`] to the scheduler; it is never resumed. SIGSEGV in the page below a
//! line: if the depth asked for was touched, the same copy is made and the page opened; else the page is opened for one
//! instruction (trap flag, SIGTRAP) and closed again. Every other fault goes to the handler that was there before.
//!
//! A fault inside the C library is not cut: it may hold the heap's lock, which the report needs. The copy is made, the guard
//! is opened, and the coroutine ends where it next calls its world ([`end_if_overflowed`]).
//!
//! **Context.** Handlers run on the thread's alternate stack, never on a coroutine's. They make system calls (mmap,
//! mprotect) and copy; they allocate nothing on the heap and take no lock.
//! **State.** `RUNNING` is each thread's own; the handlers before ours are written once, before ours are installed.
//! **Invariants.**
//! - TRAP-1: `RUNNING` is null or points to the area of the coroutine that this thread is running.
//! - TRAP-2: what a cut-off coroutine had on its stack is never dropped nor used again.
//!
//! **Kernel.** handle_stack_overflow() of arch/x86: the vmapped stack's guard, on a stack of the fault's own.
#![allow(unsafe_code)]

use super::area::Area;
use crate::world::{Ended, Outcome};
use highwater_engine::stack::{Registers, Snapshot, WORD, paint};
use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::Once;

thread_local! {
    static RUNNING: Cell<*const Area> = const { Cell::new(std::ptr::null()) };
}

/// Says which coroutine's stack the thread runs on from now; null: its own. Returns who it was.
#[inline]
pub(crate) fn set_running(area: *const Area) -> *const Area {
    RUNNING.replace(area)
}

/// The stack of the coroutine that calls, if one does.
pub(crate) fn running() -> Option<&'static Area> {
    // SAFETY: TRAP-1. The area outlives the coroutine that asks.
    unsafe { RUNNING.get().as_ref() }
}

/// Ends the coroutine that calls if its stack has overflowed in the C library meanwhile.
#[inline]
pub(crate) fn end_if_overflowed() {
    let Some(area) = running() else {
        return;
    };
    if area.late.get() {
        end_late(area);
    }
}

#[cold]
fn end_late(area: &Area) {
    if area.open_guard(false).is_ok() {
        // SAFETY: none needed for the bytes: nobody can write there. The fault is the purpose: `cut` ends the coroutine.
        unsafe { std::ptr::write_volatile((area.low - WORD) as *mut usize, 0) };
    }
}

/// A copy of registers and stack, in pages of its own: what a handler can make.
pub(crate) struct Kept {
    registers: Registers,
    deepest: usize,
    low: usize,
    top: usize,
    bytes: *mut u8,
}

impl Kept {
    /// As a value of the heap.
    pub fn into_snapshot(self) -> Snapshot {
        let bytes = match self.bytes.is_null() {
            true => Vec::new(),
            // SAFETY: `copy` filled so many bytes of a mapping that is this value's alone.
            false => unsafe { std::slice::from_raw_parts(self.bytes, self.len()) }.to_vec(),
        };
        Snapshot {
            registers: self.registers,
            deepest: self.deepest,
            low: self.low,
            top: self.top,
            bytes,
        }
    }

    fn len(&self) -> usize {
        self.top - self.low
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if !self.bytes.is_null() {
            // SAFETY: the mapping made in `copy`, this value's alone.
            unsafe { libc::munmap(self.bytes.cast(), self.len()) };
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use linux::install;

/// Elsewhere an overflow ends the process, as the guard alone has it.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub(crate) fn install() {}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod linux {
    use super::*;
    use libc::{
        REG_EFL, REG_RBP, REG_RDI, REG_RIP, REG_RSI, REG_RSP, SIGSEGV, SIGTRAP, c_int, c_void,
        sigaction, siginfo_t, ucontext_t,
    };
    use std::cell::UnsafeCell;
    use std::mem::MaybeUninit;

    /// The trap flag: a SIGTRAP after the next instruction.
    const TF: i64 = 0x100;
    const PAGE: usize = 4096;
    /// Bytes of a signal stack, where the thread has none.
    const SIGNAL_STACK: usize = 64 << 10;
    /// Where the registers of DWARF's numbers 0 to 16 are in a context.
    const PLACES: [c_int; 17] = [
        libc::REG_RAX,
        libc::REG_RDX,
        libc::REG_RCX,
        libc::REG_RBX,
        REG_RSI,
        REG_RDI,
        REG_RBP,
        REG_RSP,
        libc::REG_R8,
        libc::REG_R9,
        libc::REG_R10,
        libc::REG_R11,
        libc::REG_R12,
        libc::REG_R13,
        libc::REG_R14,
        libc::REG_R15,
        REG_RIP,
    ];

    thread_local! {
        /// The stack whose page is open for one instruction.
        static STEPPING: Cell<*const Area> = const { Cell::new(std::ptr::null()) };
    }

    /// The handlers that were there before, for SIGSEGV and SIGTRAP.
    struct Before(UnsafeCell<[MaybeUninit<sigaction>; 2]>);
    // SAFETY: written once, in `install`, before a handler that reads it is there.
    unsafe impl Sync for Before {}
    static BEFORE: Before = Before(UnsafeCell::new([MaybeUninit::zeroed(); 2]));
    static INSTALLED: Once = Once::new();

    /// Installs the handlers of the process, and gives the calling thread a signal stack if it has none.
    pub(crate) fn install() {
        INSTALLED.call_once(|| {
            let before = BEFORE.0.get();
            for (n, (signal, handler)) in [
                (SIGSEGV, on_fault as *const () as usize),
                (SIGTRAP, on_step as *const () as usize),
            ]
            .into_iter()
            .enumerate()
            {
                // SAFETY: valid, zeroed structures; `BEFORE` is complete before the second call installs ours.
                unsafe {
                    let old = (*before)[n].as_mut_ptr();
                    libc::sigaction(signal, std::ptr::null(), old);
                    let mut new: sigaction = std::mem::zeroed();
                    new.sa_sigaction = handler;
                    new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                    libc::sigemptyset(&mut new.sa_mask);
                    libc::sigaction(signal, &new, null_mut());
                }
            }
        });
        // SAFETY: valid structures; a stack that is installed here lives as long as the process.
        unsafe {
            let mut has: libc::stack_t = std::mem::zeroed();
            libc::sigaltstack(std::ptr::null(), &mut has);
            if has.ss_flags & libc::SS_DISABLE != 0 {
                let memory = map(SIGNAL_STACK);
                if !memory.is_null() {
                    has.ss_sp = memory.cast();
                    has.ss_size = SIGNAL_STACK;
                    has.ss_flags = 0;
                    libc::sigaltstack(&has, null_mut());
                }
            }
        }
    }

    fn map(len: usize) -> *mut u8 {
        let (prot, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        match unsafe { libc::mmap(null_mut(), len, prot, flags, -1, 0) } {
            libc::MAP_FAILED => null_mut(),
            at => at.cast(),
        }
    }

    /// Copies the context and the stack from `deepest`, or from the stack pointer if that is in reach, to the top.
    fn copy(area: &Area, context: &ucontext_t, deepest: usize, reach: usize) -> Kept {
        let registers = PLACES.map(|r| context.uc_mcontext.gregs[r as usize] as u64);
        let sp = context.uc_mcontext.gregs[REG_RSP as usize] as usize;
        let low = sp.clamp(reach, area.top);
        let len = area.top - low;
        let bytes = if len == 0 { null_mut() } else { map(len) };
        if !bytes.is_null() {
            // SAFETY: `low..top` is usable stack of a coroutine that stands still; the mapping is as long.
            unsafe { std::ptr::copy_nonoverlapping(low as *const u8, bytes, len) };
        }
        Kept {
            registers,
            deepest,
            low,
            top: area.top,
            bytes,
        }
    }

    unsafe extern "C" fn on_fault(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
        // SAFETY: TRAP-1.
        let area = unsafe { RUNNING.get().as_ref() };
        // SAFETY: the kernel's own structures, for the time of the handler.
        let (address, ucontext) = unsafe {
            (
                (*info).si_addr() as usize,
                &mut *context.cast::<ucontext_t>(),
            )
        };
        if let Some(area) = area {
            let sp = ucontext.uc_mcontext.gregs[REG_RSP as usize] as usize;
            if area.lined(address).is_some() && area.holds(sp) {
                return cross(area, address, ucontext);
            }
            if area.guards(address) && area.holds(sp) {
                return cut(area, address, ucontext);
            }
        }
        // SAFETY: the arguments of this very signal.
        unsafe { hand_on(0, signal, info, context) };
    }

    /// Is this code of the program itself, and not of a shared library?
    fn in_program(at: usize) -> bool {
        unsafe extern "C" {
            static __executable_start: u8;
            static etext: u8;
        }
        let (start, end) = (&raw const __executable_start, &raw const etext);
        (start.addr()..end.addr()).contains(&at)
    }

    /// A stack has overflowed: its coroutine returns.
    fn cut(area: &Area, address: usize, context: &mut ucontext_t) {
        // The first copy counts: a second fault is that of `end_late`, or deeper in the library.
        let first = area.kept.take();
        let kept = first.unwrap_or_else(|| copy(area, context, address & !(WORD - 1), area.low));
        area.kept.set(Some(kept));
        let at = context.uc_mcontext.gregs[REG_RIP as usize] as usize;
        if !area.late.get() && !in_program(at) && area.open_guard(true).is_ok() {
            area.late.set(true);
            return;
        }
        let Some(handler) = area.handler.take() else {
            return;
        };
        // SAFETY: TRAP-2; the fault is of the coroutine that `handler` was made from (TRAP-1), whose stack pointer is
        // within it; the registers are set below.
        let registers =
            unsafe { handler.setup_trap_handler(|| -> Outcome { Err(Ended::Overflow) }) };
        for (place, value) in [
            (REG_RIP, registers.rip),
            (REG_RSP, registers.rsp),
            (REG_RBP, registers.rbp),
            (REG_RDI, registers.rdi),
            (REG_RSI, registers.rsi),
        ] {
            context.uc_mcontext.gregs[place as usize] = value as i64;
        }
    }

    /// The page below a line was touched.
    fn cross(area: &Area, address: usize, context: &mut ucontext_t) {
        let Some(line) = area.lined(address) else {
            return;
        };
        if area.bar(false).is_err() {
            return;
        }
        let word = address & !(WORD - 1);
        if area.top - word < line.depth {
            // Not deep enough: one instruction, and the page is closed again.
            STEPPING.set(area);
            context.uc_mcontext.gregs[REG_EFL as usize] |= TF;
            return;
        }
        line.crossed.set(true);
        // SAFETY: PAINT-1: nothing below the word was ever touched; LINE-1: the page is open.
        unsafe { paint(line.page, word) };
        area.kept
            .set(Some(copy(area, context, word, line.page.max(area.low))));
    }

    unsafe extern "C" fn on_step(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
        // SAFETY: set by `cross` on this thread, whose coroutine has not gone on since but for one instruction.
        if let Some(area) = unsafe { STEPPING.replace(std::ptr::null()).as_ref() } {
            // SAFETY: the kernel's own structure, for the time of the handler.
            let context = unsafe { &mut *context.cast::<ucontext_t>() };
            context.uc_mcontext.gregs[REG_EFL as usize] &= !TF;
            // A page that stays open tells no more; the run is still right.
            let _ = area.bar(true);
            return;
        }
        // SAFETY: the arguments of this very signal.
        unsafe { hand_on(1, signal, info, context) };
    }

    /// Calls the handler that was there before.
    unsafe fn hand_on(n: usize, signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
        // SAFETY: written before this handler was installed.
        let before = unsafe { (*BEFORE.0.get())[n].assume_init_ref() };
        match before.sa_sigaction {
            libc::SIG_DFL => {
                // SAFETY: the fault comes again on return, and does what it does by default.
                unsafe { libc::sigaction(signal, before, null_mut()) };
            }
            libc::SIG_IGN => {}
            handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
                // SAFETY: installed with SA_SIGINFO, so it takes three arguments.
                let handler: unsafe extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                    unsafe { std::mem::transmute(handler) };
                // SAFETY: the arguments of this very signal.
                unsafe { handler(signal, info, context) };
            }
            handler => {
                // SAFETY: installed without SA_SIGINFO, so it takes one argument.
                let handler: unsafe extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
                // SAFETY: as above.
                unsafe { handler(signal) };
            }
        }
    }

    const _: () = assert!(PAGE.is_multiple_of(WORD));
}
