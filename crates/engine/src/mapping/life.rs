//! A file's mapping from the first open to the moment after the last close.
//!
//! **Context.** `open` and the drop of a handle: a user's task, without latches and engine locks.
//! **Invariants.** MAP-4, MAP-5 (the room's head).
//! **Kernel.** iget, iput, evict_inode.
//! **Tests.** `crates/lab/tests/bad_close.rs`; `loom/writeback.rs`.

use super::Mapping;
use crate::backing::Backing;
use crate::engine::Engine;
use crate::error::Error;
use crate::file::{File, FileId, FileOptions};
use crate::sync::{AtomicBool, Ordering};
use crate::wait::{Channel, Waited};
use crate::world::{Nanos, World};
use std::sync::Arc;

/// After a stop, the drop of a last handle waits so long, at the most, for those who are still inside.
const LEAVE_MAX: Nanos = Nanos::from_secs(5);

/// Tells, when it is dropped, that a mapping has gone.
pub(crate) struct Gone {
    flag: Arc<AtomicBool>,
    tell: Box<dyn Fn() + Send + Sync>,
}

impl Drop for Gone {
    fn drop(&mut self) {
        // Release: the mapping's backing has been dropped for who sees it.
        self.flag.store(true, Ordering::Release);
        (self.tell)();
    }
}

/// Waits, when it is dropped, until a mapping has gone: for the last handle, which has let it go before (MAP-5).
pub(crate) struct Leaving<W: World> {
    engine: Arc<Engine<W>>,
    mapping: u32,
    gone: Arc<AtomicBool>,
}

impl<W: World> Drop for Leaving<W> {
    fn drop(&mut self) {
        let e = &self.engine;
        let until = e.world.now().plus(LEAVE_MAX);
        // Acquire: pairs with the Release of `Gone`.
        let gone = || self.gone.load(Ordering::Acquire);
        let channel = Channel::Gone(self.mapping);
        if e.waits.wait(&*e.world, &e.stat, channel, until, gone) == Waited::TimedOut {
            tracing::error!("MAP-5: a task of a closed cache keeps a file that nobody has open");
        }
    }
}

impl<W: World> Engine<W> {
    /// Opens the file `id` that stands behind `backing`. A second open of the same id shares the first one's pages and
    /// backing.
    ///
    /// # Errors
    /// `Conflict` when the file is open for reading only and this open is for writing; `Io` when the length cannot be
    /// read; `Os` when no flusher can be started. Waits for reads of a file that was open for reading only.
    pub fn open(
        self: &Arc<Self>,
        id: FileId,
        backing: Arc<dyn Backing>,
        options: FileOptions,
    ) -> Result<File<W>, Error> {
        self.usable()?;
        if options.write {
            self.outlive_readers(id)?;
        }
        let mut known = self.take_handle(id, options)?;
        while known.is_none() {
            known = self.map(id, &backing, options)?;
        }
        let mapping = known.expect("the loop has ended");
        Ok(File::new(self.clone(), mapping, options.write))
    }

    /// A handle of the file's mapping, if it has one.
    fn take_handle(&self, id: FileId, options: FileOptions) -> Result<Option<Arc<Mapping>>, Error> {
        let table = self.mappings.lock(&*self.world);
        let Some(m) = table.by_file(id) else {
            return Ok(None);
        };
        if options.write && !m.writable {
            return Err(read_only_here());
        }
        // AcqRel: under the table's lock; pairs with `put_mapping`.
        if m.handles.fetch_add(1, Ordering::AcqRel) == 0 {
            m.durability.lock(&*self.world).reopen();
        }
        Ok(Some(m.clone()))
    }

    /// A handle of a new mapping, or of one that somebody else has made meanwhile. `None`: another one has come and gone,
    /// and the file may have another length than the one that was told.
    fn map(
        self: &Arc<Self>,
        id: FileId,
        backing: &Arc<dyn Backing>,
        options: FileOptions,
    ) -> Result<Option<Arc<Mapping>>, Error> {
        let dev = self.device(backing)?;
        let ticket = self.mappings.lock(&*self.world).begin_asking(id);
        let len = backing.len();
        let mut table = self.mappings.lock(&*self.world);
        let current = table.end_asking(ticket);
        let len = len.map_err(|e| Error::io("open", e))?;
        if table.by_file(id).is_some() {
            drop(table);
            return self.take_handle(id, options);
        }
        if !current {
            return Ok(None);
        }
        let number = table.next_id();
        let (backing, gone) = (backing.clone(), self.gone_of(number));
        let m = Mapping::new(number, id, backing, dev, len, options.write, gone);
        let m = Arc::new(m);
        // Relaxed: nobody else has it yet.
        m.handles.store(1, Ordering::Relaxed);
        table.insert(m.clone());
        Ok(Some(m))
    }

    /// A mapping for reading only, which nobody has open any more, stays while it is being read: waits until it is gone.
    fn outlive_readers(&self, id: FileId) -> Result<(), Error> {
        let until = self.world.now().plus(self.config().io_timeout);
        loop {
            let found = self.mappings.lock(&*self.world).by_file(id).cloned();
            let Some(m) = found.filter(|m| !m.writable) else {
                return Ok(());
            };
            if !m.is_unused() || self.world.now() >= until {
                return Err(read_only_here());
            }
            if !self.drop_if_unused(&m) {
                self.world
                    .park(self.world.now().plus(Nanos::from_millis(1)));
            }
        }
    }

    fn gone_of(&self, mapping: u32) -> Gone {
        let engine = self.me();
        Gone {
            flag: Arc::new(AtomicBool::new(false)),
            tell: Box::new(move || {
                if let Some(e) = engine.upgrade() {
                    e.waits.wake(&*e.world, Channel::Gone(mapping));
                }
            }),
        }
    }

    /// The last handle of a mapping is gone. What this returns the caller drops when it has let go of the mapping itself.
    pub(crate) fn put_mapping(self: &Arc<Self>, m: &Arc<Mapping>) -> Option<Leaving<W>> {
        if self.world.is_forked() {
            return None;
        }
        let gone = self.drop_if_unused(m);
        // After the table's lock in `drop_if_unused`: if this is not seen, `abandon` finds the mapping without handles.
        if !self.stopping() {
            if !gone {
                self.unpark_flusher(&m.dev);
            }
            return None;
        }
        // No flusher looks after it any more.
        let until = self.world.now().plus(LEAVE_MAX);
        while !self.drop_if_unused(m) && self.is_leaving(m) && self.world.now() < until {
            self.await_unused(m, until);
        }
        let left = self.mapping(m.id).is_none();
        left.then(|| Leaving {
            engine: self.clone(),
            mapping: m.id,
            gone: m.gone.flag.clone(),
        })
    }

    /// Waits for the end of what keeps a mapping without handles: a page that is moved or submitted, requests in flight.
    fn await_unused(&self, m: &Mapping, until: Nanos) {
        let lock = &m.invalidate;
        if lock.lock(&*self.world, &self.stat, &self.waits, until) == Waited::Ready {
            lock.unlock(&*self.world, &self.waits);
        }
        let idle = || m.nr_writeback() == 0 && m.nr_loading() == 0;
        let _ = (self.waits).wait(
            &*self.world,
            &self.stat,
            Channel::Writeback(m.id),
            until,
            idle,
        );
    }

    /// Is it in the table, and will it go as soon as nobody is inside? Dirty pages that were given up stay with their file
    /// until the engine goes.
    fn is_leaving(&self, m: &Mapping) -> bool {
        self.mapping(m.id).is_some() && m.is_unused() && m.nr_dirty() == 0
    }

    /// Drops every mapping that nobody uses; false when one of them may go in a moment. For a cache that has stopped
    /// (MAP-5).
    pub(crate) fn drop_unused_mappings(&self) -> bool {
        let unused: Vec<_> = {
            let table = self.mappings.lock(&*self.world);
            table.iter().filter(|m| m.is_unused()).cloned().collect()
        };
        let mut done = true;
        for m in &unused {
            done &= self.drop_if_unused(m) || !self.is_leaving(m);
        }
        done
    }

    /// Drops a mapping without handles, dirty pages, I/O or anything that is owed to its users, with its pages (MAP-4).
    pub(crate) fn drop_if_unused(&self, m: &Arc<Mapping>) -> bool {
        {
            let mut table = self.mappings.lock(&*self.world);
            // In this order: under the table's lock nobody opens the file, so once it is unused nothing more is dirtied.
            if !m.is_unused() || table.get(m.id).is_none() {
                return false;
            }
            // Under the dirty lock: a page that becomes clean for its write, or dirty by a failed one, is in one count or
            // the other.
            let busy = {
                let dirty = m.dirty.lock(&*self.world);
                dirty.len() > 0 || m.nr_writeback() > 0
            };
            // Once stopped, nothing is flushed any more, and nobody can open the file to be told.
            let owed = !self.stopping() && !m.durability.lock(&*self.world).is_settled();
            // A task that moves one of its pages holds this lock shared and has found the mapping in the table since
            // (COMPACT-3): after this look it finds it gone.
            let in_use = m.invalidate.is_held_shared();
            if busy || owed || in_use || m.nr_loading() > 0 {
                return false;
            }
            table.remove(m.id);
        }
        self.unlink_range(m, 0..u64::MAX);
        true
    }
}

fn read_only_here() -> Error {
    Error::Conflict(
        "the file is open for reading only in this cache; close that handle, or open it for writing first"
            .into(),
    )
}
