//! Errors of the background, and who is told of them.
//!
//! **Invariants.** SOAK-10: a sync that begins when a write of the file has failed since the last error that a sync returned
//! fails. Where two syncs of a file overlap, either may be the one that is told: then nothing is asked.

use super::Subject;
use highwater_engine::Error;
use std::cell::Cell;

/// What the syncs of a file have told.
#[derive(Default)]
pub(super) struct Told {
    /// Writes that had failed when a sync last returned an error.
    failures: Cell<u64>,
    /// Syncs begun, and those under way.
    begun: Cell<u64>,
    under_way: Cell<u64>,
}

impl Subject {
    /// Does `sync`, and looks whether it tells what it must.
    pub(super) fn telling(&self, sync: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let failures = || {
            let counts = self.device.fault_counts();
            counts.writes + counts.no_space
        };
        let told = &self.told;
        // A volume tries again, by itself, to write what is its own.
        let owed = self.volume.is_none() && failures() > told.failures.get();
        let owed = owed && told.under_way.get() == 0;
        told.begun.set(told.begun.get() + 1);
        told.under_way.set(told.under_way.get() + 1);
        let mine = told.begun.get();
        let result = sync();
        told.under_way.set(told.under_way.get() - 1);
        match &result {
            Ok(()) => assert!(
                !owed || told.begun.get() != mine,
                "SOAK-10: a sync succeeds, and nobody has been told of a write that failed"
            ),
            Err(_) => told.failures.set(failures()),
        }
        result
    }
}
