//! The journaled volume under power failures, damage and a full disk. `highwater volume crash-test` runs more of it.

use highwater_lab::crash::{self, CrashReport};

/// A few hundred images of a few seeds; the command does ten thousand.
#[test]
fn crash_images_hold_what_sync_promised_and_nothing_else() {
    let mut total = CrashReport::default();
    for seed in 8..16 {
        total += crash::run(seed, 60);
    }
    assert!(total.images > 200 && total.syncs > 50, "{total:?}");
    assert!(
        total.refused > 0 && total.faults > 0 && total.replayed > 100,
        "{total:?}"
    );
    // With a block spoiled some mounts are refused, and most find another copy of what it said, or did not need it.
    assert!(total.spoiled > 100, "{total:?}");
    assert!(total.refused_mounts > 0 && total.refused_mounts * 2 < total.spoiled);
}

/// The same seed does the same.
#[test]
fn a_seed_repeats() {
    assert_eq!(crash::run(3, 20), crash::run(3, 20));
}

/// With a commit in the log, and with nothing there. More than 210,000 volumes with one byte changed.
#[test]
fn each_byte_flipped_is_right_or_an_error_that_fsck_finds() {
    for syncs in 37..=38 {
        let flipped = crash::flip_each_byte(1, syncs, None);
        assert_eq!(flipped.tried, flipped.bytes, "each of them");
        assert!(flipped.refused_at_mount > 0 && flipped.refused_at_read > 0 && flipped.right > 0);
    }
}

/// Commits fail one after the other on volumes that are nearly full: writers hear that they are full, and no sync does once the
/// disk is well. (In 42 one did as long as what a writer's own commit had made durable was taken for lost,
/// too; in 68, when only one of a checkpoint's superblocks could be written; in 176, when dirty pages had their space once.)
#[test]
fn no_sync_finds_a_volume_full_after_commits_have_failed() {
    for seed in [42, 68, 176] {
        let report = crash::run(seed, 5);
        assert!(report.faults > 0, "{report:?}");
    }
}
