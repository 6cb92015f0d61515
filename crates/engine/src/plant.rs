//! Planted bugs: a lab that finds nothing must be shown to be able to.
//!
//! Each is one line of a room, switched by [`crate::Config::plant`] in builds with the feature `plant` only: elsewhere
//! `planted!` is `false` and the switch does not exist.
//! **Tests.** The lab's `tests/planted.rs`.

/// A bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plant {
    /// A copy made under writeback is not marked dirty.
    LostDirty,
    /// A page whose write failed is taken for clean.
    ForgottenError,
    /// Writeback takes a page that a writer has latched.
    NoLatch,
    /// The end of the last write wakes nobody.
    SkippedWake,
    /// Who lets go of the invalidate lock looks for waiters first, and lets go then.
    EarlyLook,
    /// Truncation leaves pages that are being read in the index.
    StaleFill,
    /// A sync that finds nothing dirty does not wait for the writes in flight.
    EarlySync,
    /// A sync flushes before its writes have ended.
    EarlyFlush,
    /// A copy is written while the write of the older one is in flight (WB-2).
    WriteOrder,
    /// Reclaim takes dirty pages.
    ReclaimDirty,
    /// A frame handed to a waiter goes back to the zone, too.
    GivenTwice,
    /// A task that holds guards waits for memory as long as any other.
    PinnedHang,
    /// The frame of a copy that is not needed any more is forgotten.
    LostSpare,
    /// The budget is spent on frames as if their descriptors cost nothing.
    OverBudget,
    /// The copy of a page under writeback goes through a buffer beside the budget, for a moment.
    BounceCopy,
    /// The pause of a throttled writer begins anew whenever it wakes.
    StuckWriter,
    /// A writer at the dirty limit looks again and again, and never sleeps.
    BusyWriter,
    /// The error of a device that has failed for a while goes to the writers of every device.
    SharedFailure,
    /// The pages that a failing device keeps dirty slow the writers of all devices.
    NoExcuse,
    /// A frame that is given back is marked dirty.
    DirtyFree,
    /// A dirty page that moves to another frame is clean there.
    MoveCleans,
    /// A page moves although somebody holds it.
    MoveHeld,
    /// A page moves whoever has its file's invalidate lock.
    MoveUnlocked,
    /// A page that moves forgets the epoch of its last write: a failed flush does not make it dirty again.
    MoveEpoch,
    /// A volume's commit mark is written before what it stands for is durable.
    EarlyMark,
    /// A volume's commit is acknowledged before its mark is durable.
    EarlyCommit,
    /// A block that no page of a volume has any more is free before the commit that says so.
    EarlyReuse,
    /// A write that makes a volume's file longer is committed without the length.
    LostLength,
    /// A hole leaves its pages in memory.
    StaleHole,
    /// A page that a writer takes for one beyond the end is not looked at once more, when he has waited for its frame.
    StaleEnd,
    /// The page that a truncation of a volume's file writes anew is not flushed.
    UnflushedTail,
    /// Blocks are freed behind a commit that failed, which is left on the disk.
    LeftCommit,
    /// A page in doubt stays so when a truncation or a hole has dropped it.
    KeptDoubt,
    /// A volume's superblock is written before the map that it names is durable.
    EarlySuperblock,
    /// The dirty list is looked through in steps, of which only the first is made.
    ShortCollect,
    /// The walk over the dirty list goes on from a page that has left it.
    StaleWalk,
    /// The bytes of a write that failed stay counted as in flight.
    LeakedBytes,
    /// A read that failed stays counted as under way.
    LeakedRead,
    /// A volume commits while pages are in doubt.
    CommittedDoubt,
    /// The cache does not hear of a flush that failed in a volume's own hands.
    UntoldFlush,
    /// A superblock whose write failed is taken for one that is not there.
    TrustedSuperblock,
    /// A checkpoint that stands for a commit is written under one superblock.
    OneSuperblock,
    /// The last block of a commit is written once.
    OneMark,
    /// Space that is not needed leaves its leaf of the map pinned.
    KeptPin,
    /// A file whose writes have failed is taken for one whose writes fail, however many end well.
    LastingFailure,
}

impl Plant {
    /// All of them.
    pub const ALL: &'static [Plant] = &[
        Plant::LostDirty,
        Plant::ForgottenError,
        Plant::NoLatch,
        Plant::SkippedWake,
        Plant::EarlyLook,
        Plant::StaleFill,
        Plant::EarlySync,
        Plant::EarlyFlush,
        Plant::WriteOrder,
        Plant::ReclaimDirty,
        Plant::GivenTwice,
        Plant::PinnedHang,
        Plant::LostSpare,
        Plant::OverBudget,
        Plant::BounceCopy,
        Plant::StuckWriter,
        Plant::BusyWriter,
        Plant::SharedFailure,
        Plant::NoExcuse,
        Plant::DirtyFree,
        Plant::MoveCleans,
        Plant::MoveHeld,
        Plant::MoveUnlocked,
        Plant::MoveEpoch,
        Plant::EarlyMark,
        Plant::EarlyCommit,
        Plant::EarlyReuse,
        Plant::LostLength,
        Plant::StaleHole,
        Plant::StaleEnd,
        Plant::UnflushedTail,
        Plant::LeftCommit,
        Plant::KeptDoubt,
        Plant::EarlySuperblock,
        Plant::ShortCollect,
        Plant::StaleWalk,
        Plant::LeakedBytes,
        Plant::LeakedRead,
        Plant::CommittedDoubt,
        Plant::UntoldFlush,
        Plant::TrustedSuperblock,
        Plant::OneSuperblock,
        Plant::OneMark,
        Plant::KeptPin,
        Plant::LastingFailure,
    ];

    /// The name as a command line has it: `lost-dirty`.
    pub fn name(self) -> String {
        let mut name = String::new();
        for c in format!("{self:?}").chars() {
            if c.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(c.to_ascii_lowercase());
        }
        name
    }

    /// The bug of that name.
    pub fn by_name(name: &str) -> Option<Plant> {
        Plant::ALL.iter().copied().find(|p| p.name() == name)
    }
}
