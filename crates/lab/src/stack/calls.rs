//! The deepest stack of each public entry point: what its caller must have free.
//!
//! **State.** Maxima, each an atomic of its own.
//! **Context.** Around a call, on the caller's stack: paints below it, calls, reads. Takes no lock and allocates nothing.
#![allow(unsafe_code)]

use super::Window;
use std::sync::atomic::{AtomicU64, Ordering};

/// A way into the engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Entry {
    /// `Engine::new`, or the builder's `build`.
    New,
    /// `Engine::open`.
    Open,
    /// `File::read_at`.
    ReadAt,
    /// `File::write_at`.
    WriteAt,
    /// `File::page`.
    Page,
    /// `File::page_mut`.
    PageMut,
    /// The end of a `PageRef` or `PageMut`.
    PageDrop,
    /// `File::set_len`.
    SetLen,
    /// `File::discard`.
    Discard,
    /// `File::evict`.
    Evict,
    /// `File::sync_data`.
    SyncData,
    /// `File::sync_all`.
    SyncAll,
    /// `File::sync_range`.
    SyncRange,
    /// The end of a `File`.
    FileDrop,
    /// `Engine::sync_all`.
    EngineSyncAll,
    /// `Engine::alloc_block`.
    AllocBlock,
    /// The end of a `Block`.
    BlockDrop,
    /// `Engine::stats`.
    Stats,
    /// `Engine::close`.
    Close,
    /// `Volume::format`.
    Format,
    /// `Volume::mount`.
    Mount,
    /// `File::write_at` of a file on a journaled volume.
    VolumeWriteAt,
    /// `File::read_at` of a file on a journaled volume.
    VolumeReadAt,
    /// `File::page` of a file on a journaled volume.
    VolumePage,
    /// `File::page_mut` of a file on a journaled volume.
    VolumePageMut,
    /// `File::set_len` of a file on a journaled volume.
    VolumeSetLen,
    /// `File::discard` of a file on a journaled volume.
    VolumeDiscard,
    /// `File::sync_data` of a file on a journaled volume.
    VolumeSyncData,
    /// `File::sync_all` of a file on a journaled volume.
    VolumeSyncAll,
}

impl Entry {
    /// All of them, in the order of the table.
    pub const ALL: [Entry; 29] = [
        Entry::New,
        Entry::Open,
        Entry::ReadAt,
        Entry::WriteAt,
        Entry::Page,
        Entry::PageMut,
        Entry::PageDrop,
        Entry::SetLen,
        Entry::Discard,
        Entry::Evict,
        Entry::SyncData,
        Entry::SyncAll,
        Entry::SyncRange,
        Entry::FileDrop,
        Entry::EngineSyncAll,
        Entry::AllocBlock,
        Entry::BlockDrop,
        Entry::Stats,
        Entry::Close,
        Entry::Format,
        Entry::Mount,
        Entry::VolumeWriteAt,
        Entry::VolumeReadAt,
        Entry::VolumePage,
        Entry::VolumePageMut,
        Entry::VolumeSetLen,
        Entry::VolumeDiscard,
        Entry::VolumeSyncData,
        Entry::VolumeSyncAll,
    ];

    /// As the table has it.
    pub fn name(self) -> &'static str {
        match self {
            Entry::New => "Engine::new",
            Entry::Open => "Engine::open",
            Entry::ReadAt => "File::read_at",
            Entry::WriteAt => "File::write_at",
            Entry::Page => "File::page",
            Entry::PageMut => "File::page_mut",
            Entry::PageDrop => "PageRef/PageMut::drop",
            Entry::SetLen => "File::set_len",
            Entry::Discard => "File::discard",
            Entry::Evict => "File::evict",
            Entry::SyncData => "File::sync_data",
            Entry::SyncAll => "File::sync_all",
            Entry::SyncRange => "File::sync_range",
            Entry::FileDrop => "File::drop",
            Entry::EngineSyncAll => "Engine::sync_all",
            Entry::AllocBlock => "Engine::alloc_block",
            Entry::BlockDrop => "Block::drop",
            Entry::Stats => "Engine::stats",
            Entry::Close => "Engine::close",
            Entry::Format => "Volume::format",
            Entry::Mount => "Volume::mount",
            Entry::VolumeWriteAt => "File::write_at (volume)",
            Entry::VolumeReadAt => "File::read_at (volume)",
            Entry::VolumePage => "File::page (volume)",
            Entry::VolumePageMut => "File::page_mut (volume)",
            Entry::VolumeSetLen => "File::set_len (volume)",
            Entry::VolumeDiscard => "File::discard (volume)",
            Entry::VolumeSyncData => "File::sync_data (volume)",
            Entry::VolumeSyncAll => "File::sync_all (volume)",
        }
    }

    /// The same on a file that lies on a volume, where that is a row of its own.
    pub(super) fn on_volume(self) -> Entry {
        match self {
            Entry::WriteAt => Entry::VolumeWriteAt,
            Entry::ReadAt => Entry::VolumeReadAt,
            Entry::Page => Entry::VolumePage,
            Entry::PageMut => Entry::VolumePageMut,
            Entry::SetLen => Entry::VolumeSetLen,
            Entry::Discard => Entry::VolumeDiscard,
            Entry::SyncData => Entry::VolumeSyncData,
            Entry::SyncAll => Entry::VolumeSyncAll,
            other => other,
        }
    }
}

/// The deepest call of each entry point so far.
#[derive(Debug)]
pub struct Calls {
    window: fn() -> Option<Window<'static>>,
    calls: [AtomicU64; Entry::ALL.len()],
    deepest: [AtomicU64; Entry::ALL.len()],
}

/// What is known of one entry point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallUse {
    /// Which.
    pub entry: Entry,
    /// How often it was measured.
    pub calls: u64,
    /// Bytes below its caller's stack pointer, at most.
    pub deepest: u64,
}

impl Calls {
    /// None yet. `window` gives the window of the stack that it is called on: [`super::window`] in the lab.
    pub fn new(window: fn() -> Option<Window<'static>>) -> Calls {
        Calls {
            window,
            calls: [const { AtomicU64::new(0) }; Entry::ALL.len()],
            deepest: [const { AtomicU64::new(0) }; Entry::ALL.len()],
        }
    }

    /// Runs `f`, which calls `entry` and nothing else of weight. Not measured where there is no window.
    #[inline(always)]
    pub fn measure<R>(&self, entry: Entry, f: impl FnOnce() -> R) -> R {
        let Some(window) = (self.window)() else {
            return f();
        };
        // SAFETY: PAINT-3: `window` speaks of the stack that this runs on.
        let (value, depth) = unsafe { window.measure(f) };
        if let Some(depth) = depth {
            // Relaxed: maxima and counts, read after the tasks have ended.
            self.calls[entry as usize].fetch_add(1, Ordering::Relaxed);
            self.deepest[entry as usize].fetch_max(depth.call, Ordering::Relaxed);
        }
        value
    }

    /// Those that were called, in the order of the table.
    pub fn report(&self) -> Vec<CallUse> {
        let uses = Entry::ALL.map(|entry| CallUse {
            entry,
            calls: self.calls[entry as usize].load(Ordering::Relaxed),
            deepest: self.deepest[entry as usize].load(Ordering::Relaxed),
        });
        uses.into_iter().filter(|u| u.calls > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entry_has_its_place_and_a_name_of_its_own() {
        for (n, entry) in Entry::ALL.into_iter().enumerate() {
            assert_eq!(entry as usize, n);
            let same = Entry::ALL.iter().filter(|e| e.name() == entry.name());
            assert_eq!(same.count(), 1);
        }
    }

    #[test]
    fn without_a_window_the_call_is_made_and_not_measured() {
        let calls = Calls::new(super::super::window);
        assert_eq!(calls.measure(Entry::ReadAt, || 7), 7);
        assert_eq!(calls.report(), []);
    }
}
