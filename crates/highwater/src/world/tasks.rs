//! The table of tasks: one slot for each thread that calls the engine, with its [`Task`] record and its parker.
//!
//! A slot is allocated once and never freed (its memory is type-stable), so that an unpark of a thread that has just
//! ended touches valid memory and wakes, at worst, the slot's next user without cause. Slots are recycled at thread
//! exit; the smallest free id is taken first, so ids stay small.
//!
//! **State.** `CURRENT` belongs to its thread. `FREE` guards the free ids and the making of chunks. A slot's `word` is
//! the parker; its other fields are written by the thread that owns the slot.
//!
//! **Invariants.**
//! - TASKS-1: a slot has at most one owner: it leaves `FREE` under the lock and returns when its thread has ended.
//! - TASKS-2: chunks are never freed or moved, so `&'static Slot` is valid for ever.
//! - PARK-1: an unpark between the check of a condition and the park that follows it is remembered (`NOTIFIED`).
//!
//! **Kernel.** `current`, task_struct, try_to_wake_up().
//!
//! **Tests.** Below; the ping-pong for lost wake-ups in `tests/world.rs`.
#![allow(unsafe_code)]

use highwater_engine::sync::{AtomicU32, AtomicU64, Ordering};
use highwater_engine::world::{Nanos, Task, TaskId};
use parking_lot::Mutex;
use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::AtomicPtr;

use super::Clock;

const CHUNK: usize = 64;
const CHUNKS: usize = 1024;

/// The parker's word: nothing pending.
const EMPTY: u32 = 0;
/// An unpark is remembered.
const NOTIFIED: u32 = 1;
/// The owner sleeps on the word.
const PARKED: u32 = 2;
/// The owner sleeps in a ring; the descriptor in `ring` wakes it.
const IN_RING: u32 = 3;

/// A thread's place in the table.
#[repr(C)]
pub(crate) struct Slot {
    task: Task,
    word: AtomicU32,
    serial: AtomicU64,
    ring: Mutex<Option<Arc<OwnedFd>>>,
}

static TABLE: [AtomicPtr<Slot>; CHUNKS] = [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS];
static FREE: Mutex<Free> = Mutex::new(Free {
    ids: BinaryHeap::new(),
    next: 0,
});
static SERIAL: AtomicU64 = AtomicU64::new(1);

struct Free {
    ids: BinaryHeap<Reverse<u32>>,
    next: u32,
}

thread_local! {
    static CURRENT: Cell<*const Slot> = const { Cell::new(ptr::null()) };
    static EXIT: ExitGuard = const { ExitGuard(Cell::new(false)) };
}

struct ExitGuard(Cell<bool>);

impl Drop for ExitGuard {
    fn drop(&mut self) {
        let slot = CURRENT.replace(ptr::null());
        if self.0.get() && !slot.is_null() {
            // SAFETY: TASKS-2.
            release(unsafe { &*slot }.task.id());
        }
    }
}

/// The calling thread's slot; the first call of a thread takes one.
#[inline(always)]
pub(crate) fn current() -> &'static Slot {
    let slot = CURRENT.get();
    if slot.is_null() {
        return attach();
    }
    // SAFETY: TASKS-2; `CURRENT` is null or points into a chunk.
    unsafe { &*slot }
}

/// The calling thread's record.
#[inline(always)]
pub(crate) fn task() -> &'static Task {
    &current().task
}

#[cold]
#[inline(never)]
fn attach() -> &'static Slot {
    let slot = reserve();
    CURRENT.set(slot);
    // A thread that is past its destructors keeps its slot for ever: rare, and bounded by the number of such threads.
    let _ = EXIT.try_with(|e| e.0.set(true));
    slot
}

/// Takes a free slot for a thread that does not run yet.
pub(crate) fn reserve() -> &'static Slot {
    let mut free = FREE.lock();
    let id = match free.ids.pop() {
        Some(Reverse(id)) => id,
        None => {
            let id = free.next;
            assert!(
                (id as usize) < CHUNK * CHUNKS,
                "more than {} threads use Highwater at one time",
                CHUNK * CHUNKS
            );
            free.next += 1;
            if (id as usize).is_multiple_of(CHUNK) {
                let chunk: Box<[Slot]> = (0..CHUNK as u32).map(|i| Slot::new(id + i)).collect();
                // Release: pairs with the Acquire in `slot`, so that who finds the chunk finds its slots made.
                TABLE[id as usize / CHUNK].store(Box::leak(chunk).as_mut_ptr(), Ordering::Release);
            }
            id
        }
    };
    drop(free);
    let slot = slot(TaskId(id)).expect("reserved ids have a chunk");
    // Relaxed: the new owner gets the slot through a lock, a thread's start, or is this thread.
    slot.serial
        .store(SERIAL.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    slot
}

/// Makes `slot`, taken by [`reserve`], the calling thread's. Whoever joins the thread releases it.
pub(crate) fn adopt(slot: &'static Slot) {
    CURRENT.set(slot);
}

/// Gives a slot back. Its thread has ended, or is at its end.
pub(crate) fn release(id: TaskId) {
    if let Some(slot) = slot(id) {
        slot.reset();
        FREE.lock().ids.push(Reverse(id.0));
    }
}

fn slot(id: TaskId) -> Option<&'static Slot> {
    let chunk = TABLE
        .get(id.0 as usize / CHUNK)?
        // Acquire: pairs with the Release in `reserve`.
        .load(Ordering::Acquire);
    if chunk.is_null() {
        return None;
    }
    // SAFETY: TASKS-2: a chunk holds CHUNK slots and lives for ever.
    Some(unsafe { &*chunk.add(id.0 as usize % CHUNK) })
}

/// Wakes `id`, or makes its next park return at once. Unknown ids are ignored.
pub(crate) fn unpark(id: TaskId) {
    if let Some(slot) = slot(id) {
        slot.unpark();
    }
}

impl Slot {
    fn new(id: u32) -> Slot {
        Slot {
            task: Task::new(TaskId(id)),
            word: AtomicU32::new(EMPTY),
            serial: AtomicU64::new(0),
            ring: Mutex::new(None),
        }
    }

    /// Which task's slot this is.
    pub(crate) fn id(&self) -> TaskId {
        self.task.id()
    }

    /// A number that no other thread of this process ever had.
    pub(crate) fn serial(&self) -> u64 {
        // Relaxed: written before this thread started to use the slot.
        self.serial.load(Ordering::Relaxed)
    }

    /// As new, but for `hits`: what the last owner had not folded yet is folded by the next one.
    fn reset(&self) {
        let t = &self.task;
        // Relaxed: the owner has ended; the next one takes the slot through the lock of `FREE`.
        for counter in [
            &t.guards,
            &t.flags,
            &t.lock_ranks,
            &t.dirtied,
            &t.dirtied_pause,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
        for counter in [
            &t.stall_alloc_ns,
            &t.stall_throttle_ns,
            &t.stall_longest_ns,
            &t.throttled_at_ns,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
        self.word.store(EMPTY, Ordering::Relaxed);
    }

    /// Sleeps until an unpark, or until `until`. Called by the slot's owner only.
    pub(crate) fn park(&self, clock: &Clock, until: Nanos) {
        super::door();
        // Acquire on success of either exchange: what the unparker wrote before is seen after (PARK-1).
        if self
            .word
            .compare_exchange(EMPTY, PARKED, Ordering::Acquire, Ordering::Acquire)
            .is_err()
        {
            self.word.swap(EMPTY, Ordering::Acquire);
            return;
        }
        let deadline = clock.timespec(until);
        // SAFETY: the word lives for ever (TASKS-2); the timespec lives through the call.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.word.as_ptr(),
                libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG,
                PARKED,
                &raw const deadline,
                ptr::null::<u32>(),
                libc::FUTEX_BITSET_MATCH_ANY,
            );
        }
        // Acquire: as above. A time-out that races with an unpark consumes it: the caller looks again anyway.
        self.word.swap(EMPTY, Ordering::Acquire);
    }

    fn unpark(&self) {
        // Release: what this thread wrote before is seen by the one that wakes (PARK-1).
        match self.word.swap(NOTIFIED, Ordering::Release) {
            // SAFETY: the word lives for ever (TASKS-2).
            PARKED => unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    self.word.as_ptr(),
                    libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
                    1,
                );
            },
            IN_RING => {
                // The lock keeps the descriptor open while it is written to. None: the sleeper woke by itself.
                if let Some(fd) = self.ring.lock().as_ref() {
                    let _ = rustix::io::write(fd.as_fd(), &1u64.to_ne_bytes());
                }
            }
            _ => {}
        }
    }

    /// Announces a sleep in a ring that `wake` ends; false when an unpark was pending (it is consumed).
    pub(crate) fn begin_ring_wait(&self, wake: &Arc<OwnedFd>) -> bool {
        *self.ring.lock() = Some(wake.clone());
        // Acquire: as in `park`.
        if self
            .word
            .compare_exchange(EMPTY, IN_RING, Ordering::Acquire, Ordering::Acquire)
            .is_err()
        {
            self.end_ring_wait();
            return false;
        }
        true
    }

    /// Ends a sleep in a ring, and consumes an unpark that came meanwhile.
    pub(crate) fn end_ring_wait(&self) {
        // Acquire: as in `park`.
        self.word.swap(EMPTY, Ordering::Acquire);
        *self.ring.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_recycled_and_small() {
        let mine = task().id();
        let mut highest = 0;
        for _ in 0..500 {
            let id = std::thread::spawn(|| task().id().0).join().unwrap();
            assert_ne!(id, mine.0, "TASKS-1: one owner per slot");
            highest = highest.max(id);
        }
        assert!(
            highest < 300,
            "500 threads one after another used id {highest}"
        );
    }

    #[test]
    fn a_recycled_slot_is_reset() {
        let id = std::thread::spawn(|| {
            Task::bump(&task().guards, 3);
            task().set_flag(Task::MEMALLOC);
            task().id()
        })
        .join()
        .unwrap();
        let slot = slot(id).unwrap();
        assert_eq!(slot.task.guards.load(Ordering::Relaxed), 0);
        assert!(!slot.task.has(Task::MEMALLOC));
    }

    #[test]
    fn unpark_before_park_is_remembered_once() {
        let clock = Clock::new();
        unpark(task().id());
        let t = clock.now();
        current().park(&clock, t.plus(Nanos::from_secs(5)));
        assert!(clock.now().since(t) < Nanos::from_secs(1), "PARK-1");
        let t = clock.now();
        current().park(&clock, t.plus(Nanos::from_millis(20)));
        assert!(clock.now().since(t) >= Nanos::from_millis(19));
    }

    #[test]
    fn a_deadline_in_the_past_or_at_the_end_of_time_is_valid() {
        let clock = Clock::new();
        current().park(&clock, Nanos::ZERO);
        unpark(task().id());
        current().park(&clock, Nanos(u64::MAX));
    }
}
