//! Space for a page that is going to be dirty, on a backing that sets it aside (RESERVE-1).
//!
//! Where blocks are never overwritten in place, dirty pages that replace others hold space that is theirs only until they are
//! written: then the old blocks are free. So a writer who finds no space writes them, and looks again; only what is then
//! missing is missing.
//!
//! **Context.** The writer's task, with no latch and no lock; guards of other pages may be held, so no latch is waited for.
//! **Kernel.** xfs_flush_inodes after ENOSPC; ext4_nonda_switch.
//! **Tests.** The lab's `tests/reserve.rs` and `tests/journaled_space.rs`.

use crate::backing::WriteContext;
use crate::engine::Engine;
use crate::error::{Error, IoErrorKind};
use crate::mapping::Mapping;
use crate::sync::Ordering;
use crate::wait::Channel;
use crate::world::{Nanos, World};
use crate::writeback::wbt::Room;
use crate::zone::Run;

/// Without any page to write for so long, what is missing is missing.
const IDLE: Nanos = Nanos::from_millis(100);
/// Between two looks while others have pages half dirtied.
const LOOK: Nanos = Nanos::from_millis(1);
/// Pages collected at a time.
const BATCH: usize = 1024;

impl<W: World> Engine<W> {
    /// Sets space aside for a page that is going to be dirty. The caller holds neither its latch nor the invalidate lock;
    /// what it holds of a run is given back before this sleeps.
    ///
    /// # Errors
    /// `Io` with `NoSpace`, when writing what is dirty makes none either.
    pub(crate) fn reserve_space(&self, m: &Mapping, page: u64, run: &mut Run) -> Result<(), Error> {
        // A reservation may wait for a commit, or for memory (RUN-1).
        self.put_back(run);
        self.world.task().assert_may_sleep();
        let start = self.world.now();
        let mut progress_at = start;
        loop {
            let Err(e) = m.backing.reserve(page) else {
                return Ok(());
            };
            let now = self.world.now();
            let hope = e.kind == IoErrorKind::NoSpace && m.backing.writing_makes_space();
            // Others may take what we make, again and again: that has an end, too.
            let late = now >= start.plus(self.config().alloc_timeout);
            if !hope || late || now >= progress_at.plus(IDLE) {
                return Err(Error::io("reserve space for a write", e));
            }
            let errors = m.write_errors();
            let written = self.write_for_space(m)?;
            if m.write_errors() != errors {
                // Pages that cannot be written set nothing free; the flusher tries them again, at its own pace.
                return Err(Error::io("reserve space for a write", e));
            }
            if written > 0 || m.nr_writeback() > 0 || self.is_changing(m) {
                progress_at = self.world.now();
            }
            if written == 0 {
                // Somebody else is writing them, or about to dirty what it has space for.
                self.world.park(self.world.now().plus(LOOK));
            }
        }
    }

    /// A truncation or a hole has the file, perhaps while its disk is slow: nobody can write its pages now, and it may set some
    /// free itself.
    fn is_changing(&self, m: &Mapping) -> bool {
        let free = m.invalidate.try_shared();
        if free {
            self.invalidate_put(m);
        }
        !free
    }

    /// Writes the dirty pages that nobody has latched, and waits until as many have been written; how many there were.
    fn write_for_space(&self, m: &Mapping) -> Result<u64, Error> {
        let Some(m) = self.mapping(m.id) else {
            return Ok(0);
        };
        let most = m.nr_dirty();
        let errors = m.write_errors();
        // Relaxed: it only has to change while the device answers.
        let written = || m.dev.written.load(Ordering::Relaxed);
        let (mut batch, mut pages) = (Vec::new(), 0);
        while pages < most && m.write_errors() == errors {
            self.collect_dirty(&m, &mut batch, BATCH, |_| true);
            let target = written();
            let done = self.write_batch(&m, &batch, WriteContext::Writer, Room::UNLIMITED);
            if done.pages == 0 {
                break;
            }
            pages += done.pages;
            self.wait_progress(
                Channel::Progress,
                || written() + m.write_errors(),
                || written() >= target + done.pages || m.write_errors() != errors,
            )?;
        }
        Ok(pages)
    }
}
