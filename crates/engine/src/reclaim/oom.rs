//! Out of memory: who holds what.
//!
//! **Kernel.** oom_kill.c's report. Nothing is killed: the caller gets a typed error.

use crate::engine::Engine;
use crate::error::{Error, OomReport};
use crate::frame::state::{
    BLOCK, DIRTY, ERROR, EXCL, FREE, HASHED, HOLDERS, LENT, LOADING, ORPHAN, WRITEBACK,
};
use crate::world::{Nanos, World};

impl<W: World> Engine<W> {
    /// Guards on all pages now, shared and exclusive; also on pages that a truncation has cut off.
    pub(crate) fn count_held(&self) -> u32 {
        self.frames
            .iter()
            .map(|(_, f)| f.state.peek())
            .filter(|s| s & (HASHED | ORPHAN) != 0 && s & FREE == 0)
            .map(|s| (s & HOLDERS) as u32 + u32::from(s & EXCL != 0))
            .sum()
    }

    /// The error, with the report.
    pub(crate) fn out_of_memory(&self, since: Nanos) -> Error {
        let mut r = OomReport {
            frames: self.frames.len() as u64,
            waited: self.world.now().since(since),
            ..OomReport::default()
        };
        for (_, f) in self.frames.iter() {
            let s = f.state.peek();
            if s & (HOLDERS | EXCL) != 0 && s & FREE == 0 {
                r.held += 1;
            }
            if s & BLOCK != 0 {
                r.blocks += 1;
            } else if s & FREE != 0 {
                r.free += 1;
            } else if s & LENT != 0 {
                r.lent += 1;
            } else if s & LOADING != 0 {
                r.loading += 1;
            } else if s & WRITEBACK != 0 {
                r.writeback += 1;
            } else if s & DIRTY != 0 {
                r.dirty += 1;
                r.failed += u64::from(s & ERROR != 0);
            } else if s & HASHED != 0 {
                r.clean += 1;
            }
        }
        Error::OutOfMemory(Box::new(r))
    }
}
