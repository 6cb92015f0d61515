//! One io_uring with its table of requests: what the flusher's lane and the shared lane are made of.
//!
//! Requests beyond the depth stay in `pending` and go out as completions make room, so a submission never waits.
//! A turn of submission is one `io_uring_enter`; a turn of reaping takes every completion there is.
//!
//! **State.** `state` guards the table and both queues of the ring. Completions are collected under the lock and run
//! after it is let go, by the caller ([`complete_all`]).
//!
//! **Context.** `submit` and `take` never sleep; the waits are [`Ring::wait_owner`] and [`Ring::wait_shared`].
//!
//! **Invariants.**
//! - RING-1: `user_data` of an entry in the kernel is the index of an occupied slot of `slab`; the slot is emptied by
//!   its completion only, so the kernel never sees a buffer or a segment list that is gone (FLIGHT-1).
//! - RING-2: the ring's queues are touched only by the holder of `state`.
//! - RING-3: at most `DEPTH` entries are in the kernel, so the completion queue (2 × `ENTRIES`) cannot overflow.
#![allow(unsafe_code)]

use super::flight::{Flight, Piece, Step};
use highwater_engine::IoError;
use highwater_engine::io::IoOp;
use highwater_engine::world::Nanos;
use io_uring::{IoUring, opcode, squeue, types};
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

const ENTRIES: u32 = 256;
/// The most requests in the kernel at one time.
const DEPTH: usize = 240;
const _: () = assert!(
    DEPTH < ENTRIES as usize,
    "RING-3: room for the wake-up poll"
);
/// `user_data` of the poll that wakes a sleeper.
const WAKE: u64 = u64::MAX;
/// Flags of io_uring_enter.
const GETEVENTS: u32 = 1;
const EXT_ARG: u32 = 8;

/// Requests that are over and wait for their completion to be run.
pub(super) type Finished = Vec<(Flight, Result<(), IoError>)>;

pub(super) struct Ring {
    ring: IoUring,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    slab: Vec<Option<Flight>>,
    free: Vec<u32>,
    pending: VecDeque<Flight>,
    in_flight: usize,
    /// The kernel did not take all entries of the submission queue.
    stuck: bool,
    /// The wake-up poll is in the kernel.
    polling: bool,
}

impl Ring {
    /// A ring of the calling thread alone, as cheap as the kernel has them.
    pub(super) fn owned() -> io::Result<Ring> {
        let mut fast = IoUring::builder();
        fast.dontfork()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag();
        match fast.build(ENTRIES) {
            Ok(ring) => Ring::over(ring),
            // Kernels before 6.1 do not know the flags.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ring::shared(),
            Err(e) => Err(e),
        }
    }

    /// A ring for any thread.
    pub(super) fn shared() -> io::Result<Ring> {
        Ring::over(IoUring::builder().dontfork().build(ENTRIES)?)
    }

    fn over(ring: IoUring) -> io::Result<Ring> {
        let p = ring.params();
        // 5.11 has all of them.
        if !(p.is_feature_ext_arg() && p.is_feature_nodrop() && p.is_feature_submit_stable()) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Ring {
            ring,
            state: Mutex::default(),
        })
    }

    /// Starts requests, or keeps them until there is room.
    pub(super) fn submit(&self, flights: impl Iterator<Item = Flight>) {
        let mut finished = Finished::new();
        let mut state = self.state.lock();
        state.pending.extend(flights);
        self.pump(&mut state, &mut finished);
        drop(state);
        complete_all(finished);
    }

    /// Moves what has come back to `finished`, and what waits into the kernel; returns how many came back.
    pub(super) fn take(&self, finished: &mut Finished) -> usize {
        let mut state = self.state.lock();
        self.take_locked(&mut state, finished)
    }

    /// As `take`, unless another thread is at it.
    pub(super) fn try_take(&self, finished: &mut Finished) -> usize {
        match self.state.try_lock() {
            Some(mut state) => self.take_locked(&mut state, finished),
            None => 0,
        }
    }

    /// Requests in the kernel or waiting for room.
    pub(super) fn load(&self) -> usize {
        let state = self.state.lock();
        state.in_flight + state.pending.len()
    }

    /// True when the kernel refused entries for want of memory: they are to be offered again soon.
    pub(super) fn stuck(&self) -> bool {
        self.state.lock().stuck
    }

    fn take_locked(&self, state: &mut MutexGuard<'_, State>, finished: &mut Finished) -> usize {
        let before = finished.len();
        // SAFETY: RING-2.
        let completions = unsafe { self.ring.completion_shared() };
        let mut again = 0;
        for entry in completions {
            if entry.user_data() == WAKE {
                state.polling = false;
                continue;
            }
            let index = entry.user_data() as usize;
            // RING-1.
            let Some(mut flight) = state.slab.get_mut(index).and_then(Option::take) else {
                debug_assert!(false, "RING-1: completion of an empty slot {index}");
                continue;
            };
            state.free.push(index as u32);
            state.in_flight -= 1;
            match flight.advance(i64::from(entry.result())) {
                Step::Done(result) => finished.push((flight, result)),
                Step::Again => {
                    again += 1;
                    state.pending.push_front(flight);
                }
            }
        }
        let done = finished.len() - before;
        if again > 0 || state.stuck || !state.pending.is_empty() {
            self.pump(state, finished);
        }
        done
    }

    /// Fills the submission queue from `pending` and enters the kernel once.
    fn pump(&self, state: &mut State, finished: &mut Finished) {
        // SAFETY: RING-2.
        let mut queue = unsafe { self.ring.submission_shared() };
        while state.in_flight < DEPTH && !queue.is_full() {
            let Some(mut flight) = state.pending.pop_front() else {
                break;
            };
            let Some(piece) = flight.next_piece() else {
                finished.push((flight, Ok(())));
                continue;
            };
            let index = state.free.pop().unwrap_or_else(|| {
                state.slab.push(None);
                (state.slab.len() - 1) as u32
            });
            let entry = entry_of(&piece, flight.iov()).user_data(u64::from(index));
            state.slab[index as usize] = Some(flight);
            state.in_flight += 1;
            // SAFETY: RING-1: the segments and the memory behind them stay until the completion.
            let pushed = unsafe { queue.push(&entry) };
            debug_assert!(pushed.is_ok(), "checked to have room");
        }
        let wanted = queue.len();
        drop(queue);
        state.stuck = wanted > 0 && !self.enter(wanted);
    }

    /// Hands `wanted` entries to the kernel; false when it did not take them all.
    fn enter(&self, wanted: usize) -> bool {
        let mut left = wanted;
        for _ in 0..64 {
            match self.ring.submitter().submit() {
                Ok(n) if n >= left => return true,
                Ok(n) => left -= n,
                Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
                // EBUSY, EAGAIN: no memory for more now. Offered again at the next completion, or in 1 ms.
                Err(_) => return false,
            }
        }
        false
    }

    /// Waits, on the thread that owns the ring, for a completion, for `wake` to be readable, or for `timeout`.
    pub(super) fn wait_owner(&self, wake: RawFd, timeout: Nanos) {
        let mut state = self.state.lock();
        if !state.polling {
            let poll = opcode::PollAdd::new(types::Fd(wake), libc::POLLIN as u32)
                .build()
                .user_data(WAKE);
            // SAFETY: RING-2; the entry names no memory.
            state.polling = unsafe { self.ring.submission_shared().push(&poll) }.is_ok();
        }
        let timeout = if state.stuck || !state.polling {
            timeout.min(Nanos::from_millis(1))
        } else {
            timeout
        };
        drop(state);
        let span = timespec(timeout);
        let args = types::SubmitArgs::new().timespec(&span);
        // ETIME and EINTR are the ordinary ends of a wait; whatever else it is, the caller looks again.
        let _ = self.ring.submitter().submit_with_args(1, &args);
    }

    /// Waits, on the thread that owns the ring, for a completion, a millisecond at most.
    pub(super) fn wait_owner_briefly(&self) {
        let span = timespec(Nanos::from_millis(1));
        let args = types::SubmitArgs::new().timespec(&span);
        let _ = self.ring.submitter().submit_with_args(1, &args);
    }

    /// Runs what the kernel has put off until the owner enters (DEFER_TASKRUN). Does not wait.
    pub(super) fn run_deferred(&self) {
        // SAFETY: submits nothing and passes no argument.
        let _ = unsafe {
            self.ring
                .submitter()
                .enter::<libc::sigset_t>(0, 0, GETEVENTS, None)
        };
    }

    /// Waits, on any thread, for a completion or for `timeout`.
    pub(super) fn wait_shared(&self, timeout: Nanos) {
        let span = timespec(timeout);
        let args = types::SubmitArgs::new().timespec(&span);
        // SAFETY: submits nothing; `args` and `span` live through the call, of the kind that EXT_ARG announces.
        let _ = unsafe {
            self.ring
                .submitter()
                .enter(0, 1, GETEVENTS | EXT_ARG, Some(&args))
        };
    }

    /// Makes a `wait_shared` return.
    pub(super) fn nudge(&self) {
        let state = self.state.lock();
        let nop = opcode::Nop::new().build().user_data(WAKE);
        // SAFETY: RING-2; the entry names no memory.
        let _ = unsafe { self.ring.submission_shared().push(&nop) };
        self.enter(1);
        drop(state);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if state.in_flight > 0 {
            // RING-1: the kernel may still use the memory of these requests; they are never given back.
            tracing::error!(
                "{} requests had no answer when their queue ended; their pages stay under I/O",
                state.in_flight
            );
            std::mem::forget(std::mem::take(&mut state.slab));
        }
    }
}

fn entry_of(piece: &Piece, iov: &[libc::iovec]) -> squeue::Entry {
    let fd = types::Fd(piece.fd);
    match (piece.op, iov) {
        (IoOp::Read, [one]) => opcode::Read::new(fd, one.iov_base.cast(), one.iov_len as u32)
            .offset(piece.offset)
            .build(),
        (IoOp::Write, [one]) => opcode::Write::new(fd, one.iov_base.cast(), one.iov_len as u32)
            .offset(piece.offset)
            .build(),
        (IoOp::Read, many) => opcode::Readv::new(fd, many.as_ptr(), many.len() as u32)
            .offset(piece.offset)
            .build(),
        (IoOp::Write, many) => opcode::Writev::new(fd, many.as_ptr(), many.len() as u32)
            .offset(piece.offset)
            .build(),
    }
}

fn timespec(span: Nanos) -> types::Timespec {
    types::Timespec::new()
        .sec(span.0 / 1_000_000_000)
        .nsec((span.0 % 1_000_000_000) as u32)
}

/// Runs completions. One that panics is reported; the others still run.
pub(super) fn complete_all(finished: Finished) {
    for (flight, result) in finished {
        let run = catch_unwind(AssertUnwindSafe(|| flight.complete(result)));
        if let Err(payload) = run {
            let text = crate::world::threads::panic_text(payload.as_ref());
            tracing::error!("a completion panicked: {text}");
        }
    }
}
