//! The stacks of a traced world's threads: painted when they start, read when they end, and looked at where chains are
//! deep.
//!
//! **State.** `PROBE` belongs to its thread, and points to a record in the frame that started the thread's body. `ended`
//! has a lock of its own.
//! **Context.** `door` is called before a park, a submit and a transfer of the calling thread, never on a hit; it costs
//! one thread-local load where nothing is traced.
//!
//! **Invariants.** PROBE-1: `PROBE` is null, or points to the record of a frame that this thread is still in. PAINT-1 to
//! PAINT-3 of the engine's `stack`: a traced thread has a stack of `STACK` bytes, of which `WINDOW` are painted.
//!
//! **Kernel.** kernel/trace/trace_stack.c: the chain is taken at the places that look; the depth here is exact.
#![allow(unsafe_code)]

use highwater_engine::stack::{
    MEASURED, Snapshot, WORD, Window, deepest, paint_below, stack_pointer,
};
use parking_lot::Mutex;
use std::cell::{Cell, RefCell};

/// Bytes of a traced thread's stack.
pub(crate) const STACK: usize = 2 << 20;
/// Of these painted, from the frame on that starts the body.
const WINDOW: usize = 32 << 10;

thread_local! {
    static PROBE: Cell<*const Probe> = const { Cell::new(std::ptr::null()) };
}

/// One thread's, while it runs.
struct Probe {
    low: usize,
    top: usize,
    seen: Cell<u64>,
    /// The deepest stack pointer that a door has seen.
    deepest_door: Cell<usize>,
    record: RefCell<Snapshot>,
}

/// How deep a thread of a traced world used its stack, from the frame that started its body.
#[derive(Clone, Debug)]
pub struct ThreadStack {
    /// The thread's name.
    pub name: String,
    /// Bytes that were painted.
    pub painted: u64,
    /// Bytes from the top to the deepest word that was written.
    pub deepest: u64,
    /// All that was painted was used: it may have gone deeper.
    pub at_least: bool,
    /// Registers and stack at the deepest of the places that look (park, submit, transfer), if it came to one.
    pub record: Option<Snapshot>,
}

/// The threads that have ended.
#[derive(Default)]
pub(crate) struct Stacks {
    ended: Mutex<Vec<ThreadStack>>,
}

impl Stacks {
    /// Runs the body of the thread `name`, measured. `body` does not unwind.
    #[inline(never)]
    pub(crate) fn run(&self, name: &str, body: impl FnOnce()) {
        if !MEASURED {
            return body();
        }
        let top = stack_pointer() & !(WORD - 1);
        let low = top - WINDOW;
        let probe = Probe {
            low,
            top,
            seen: Cell::new(0),
            deepest_door: Cell::new(top),
            record: RefCell::new(Snapshot {
                bytes: Vec::with_capacity(WINDOW),
                ..Snapshot::default()
            }),
        };
        // SAFETY: PAINT-3: the thread has `STACK` bytes, and has used few of them.
        unsafe { paint_below(low) };
        PROBE.set(&probe);
        body();
        PROBE.set(std::ptr::null());
        // SAFETY: painted above; nothing runs below this frame.
        let at = unsafe { deepest(low, top) };
        let record = probe.record.into_inner();
        self.ended.lock().push(ThreadStack {
            name: name.to_owned(),
            painted: WINDOW as u64,
            deepest: probe.seen.get().max((top - at) as u64),
            at_least: at == low || probe.seen.get() >= WINDOW as u64,
            record: (!record.bytes.is_empty()).then_some(record),
        });
    }

    pub(crate) fn report(&self) -> Vec<ThreadStack> {
        self.ended.lock().clone()
    }
}

/// Keeps the chain of the caller if its stack is the deepest of its thread so far, where stacks are traced.
#[inline(always)]
pub(crate) fn door() {
    let probe = PROBE.get();
    if !probe.is_null() {
        look(probe);
    }
}

#[cold]
#[inline(never)]
fn look(probe: *const Probe) {
    // SAFETY: PROBE-1.
    let probe = unsafe { &*probe };
    let sp = stack_pointer();
    if sp >= probe.deepest_door.get() {
        return;
    }
    probe.deepest_door.set(sp);
    if let Ok(mut record) = probe.record.try_borrow_mut() {
        // SAFETY: `top` is of a frame that this thread is in, above this one.
        unsafe { record.here(sp, probe.top) };
    }
}

/// The window of the calling thread's stack, if it is a thread of a traced world: for [`Window::measure`].
pub fn stack_window() -> Option<Window<'static>> {
    // SAFETY: PROBE-1; the window is used by the caller, in frames below the record's.
    let probe = unsafe { PROBE.get().as_ref() }?;
    Some(Window {
        low: probe.low,
        top: probe.top,
        seen: &probe.seen,
    })
}

#[cfg(test)]
mod tests {
    use crate::world::OsWorld;
    use crate::{IoEngine, stack_window};
    use highwater_engine::World;
    use highwater_engine::stack::MEASURED;
    use highwater_engine::world::Nanos;

    #[inline(never)]
    fn dig(frames: u32, then: &dyn Fn()) -> u64 {
        let mut bytes = [frames as u8; 200];
        std::hint::black_box(&mut bytes);
        if frames == 0 {
            then();
            return u64::from(bytes[0]);
        }
        dig(frames - 1, then) + u64::from(bytes[100])
    }

    fn digger(frames: u32) -> super::ThreadStack {
        let world = OsWorld::tracing_stacks(IoEngine::Threads).unwrap();
        let w = world.clone();
        let body = move || {
            let park = || w.park(w.now().plus(Nanos(1_000)));
            std::hint::black_box(dig(frames, &park));
        };
        let id = world.spawn("digger", Box::new(body)).unwrap();
        assert!(world.join(id, world.now().plus(Nanos::from_secs(60))));
        let mut stacks = world.stacks();
        assert_eq!(stacks.len(), usize::from(MEASURED));
        stacks.pop().unwrap()
    }

    #[test]
    fn a_thread_s_depth_is_counted_and_its_record_is_near_it() {
        if !MEASURED {
            return;
        }
        let (shallow, deep) = (digger(10), digger(30));
        let each = (deep.deepest - shallow.deepest) / 20;
        assert!((200..400).contains(&each), "{each}");
        let record = deep.record.unwrap();
        assert!(record.depth() <= deep.deepest && record.depth() > 30 * each);
        assert!(!deep.at_least && digger(300).at_least);
    }

    #[test]
    fn nothing_is_measured_unless_it_is_asked_for() {
        let world = OsWorld::new(IoEngine::Threads).unwrap();
        let body = || assert!(stack_window().is_none());
        let id = world.spawn("plain", Box::new(body)).unwrap();
        assert!(world.join(id, world.now().plus(Nanos::from_secs(60))));
        assert!(world.stacks().is_empty() && world.panics().is_empty());
    }
}
