//! The world's own threads: started with a name, joined with a deadline, their panics reported.
//!
//! **State.** `table` guards the list of threads. A thread's slot in the table of tasks is taken before it starts, so
//! that `spawn` can return its id, and is released by the join: an id is not reused while it can still be joined.
//!
//! **Kernel.** kthread_run(), kthread_stop().
#![allow(unsafe_code)]

use super::Clock;
use super::stack::{STACK, Stacks, ThreadStack};
use super::tasks;
use highwater_engine::Error;
use highwater_engine::world::{Nanos, TaskBody, TaskId};
use parking_lot::{Condvar, Mutex};
use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The threads of one world.
#[derive(Default)]
pub(crate) struct Threads {
    shared: Arc<Shared>,
    /// What is known of their stacks, where these are traced.
    stacks: Option<Arc<Stacks>>,
}

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    ended: Condvar,
}

#[derive(Default)]
struct Table {
    threads: HashMap<TaskId, Thread>,
    panics: Vec<String>,
}

struct Thread {
    handle: JoinHandle<()>,
    ended: bool,
}

impl Threads {
    /// Threads whose stacks are measured.
    pub(crate) fn traced() -> Threads {
        Threads {
            stacks: Some(Arc::default()),
            ..Threads::default()
        }
    }

    /// What is known of the stacks of those that have ended.
    pub(crate) fn stacks(&self) -> Vec<ThreadStack> {
        self.stacks.as_ref().map_or(Vec::new(), |s| s.report())
    }

    /// Starts a thread.
    pub(crate) fn spawn(&self, name: &str, body: TaskBody) -> Result<TaskId, Error> {
        let slot = tasks::reserve();
        let id = slot.id();
        let shared = self.shared.clone();
        let name = name.to_owned();
        let stacks = self.stacks.clone();
        let mut builder = thread_builder(&name);
        if stacks.is_some() {
            builder = builder.stack_size(STACK);
        }
        // Held across the start, so that a thread that ends at once finds its own entry.
        let mut table = self.shared.table.lock();
        let made = builder.spawn(move || {
            tasks::adopt(slot);
            own_thread();
            let run = || catch_unwind(AssertUnwindSafe(body));
            let result = match &stacks {
                None => run(),
                Some(stacks) => {
                    let mut result = Ok(());
                    stacks.run(&name, || result = run());
                    result
                }
            };
            let mut table = shared.table.lock();
            if let Err(payload) = result {
                let text = panic_text(payload.as_ref());
                tracing::error!(thread = %name, "a thread of the cache panicked: {text}");
                table.panics.push(format!("{name}: {text}"));
            }
            if let Some(thread) = table.threads.get_mut(&id) {
                thread.ended = true;
            }
            drop(table);
            shared.ended.notify_all();
        });
        match made {
            Ok(handle) => {
                let ended = false;
                table.threads.insert(id, Thread { handle, ended });
                Ok(id)
            }
            Err(e) => {
                tasks::release(id);
                Err(Error::os("start a thread of the cache", &e))
            }
        }
    }

    /// Waits for `id`; true when it has ended (or was joined before).
    pub(crate) fn join(&self, id: TaskId, clock: &Clock, until: Nanos) -> bool {
        if tasks::current().id() == id {
            return false;
        }
        let span = Duration::from_nanos(until.since(clock.now()).0);
        let deadline = Instant::now().checked_add(span);
        let mut table = self.shared.table.lock();
        loop {
            match table.threads.get(&id) {
                None => return true,
                Some(t) if t.ended => break,
                Some(_) => {}
            }
            match deadline {
                Some(d) if Instant::now() >= d => return false,
                Some(d) => drop(self.shared.ended.wait_until(&mut table, d)),
                None => self.shared.ended.wait(&mut table),
            }
        }
        let thread = table.threads.remove(&id).expect("looked up above");
        drop(table);
        // The body is over: this waits for the thread's last instructions only.
        let _ = thread.handle.join();
        tasks::release(id);
        true
    }

    /// Joins every thread but the calling one, until `until`; returns how many still run.
    pub(crate) fn join_all(&self, clock: &Clock, until: Nanos) -> usize {
        let me = tasks::current().id();
        let ids: Vec<TaskId> = self.shared.table.lock().threads.keys().copied().collect();
        ids.into_iter()
            .filter(|id| *id != me && !self.join(*id, clock, until))
            .count()
    }

    /// The panics of threads so far, as `name: message`.
    pub(crate) fn panics(&self) -> Vec<String> {
        self.shared.table.lock().panics.clone()
    }
}

/// A builder for a thread of the cache. Linux shows 15 bytes of the name.
pub(crate) fn thread_builder(name: &str) -> std::thread::Builder {
    let mut end = name.len().min(15);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    std::thread::Builder::new().name(name[..end].replace('\0', "?"))
}

/// What each thread of the cache does first: asks for exact timers (by default Linux may add 50 µs to a sleep).
pub(crate) fn own_thread() {
    // SAFETY: an integer argument; changes this thread's timer slack only.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1, 0, 0, 0) };
}

/// The message of a panic.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}
