//! The journaled volume under power failures, damage and a full disk. `highwater volume crash-test` runs more of it.

use highwater_lab::crash::{self, CrashReport};

/// A few hundred images of a few seeds; the command does ten thousand.
#[test]
fn crash_images_hold_what_sync_promised_and_nothing_else() {
    let mut total = CrashReport::default();
    for seed in 0..8 {
        total += crash::run(seed, 60);
    }
    assert!(total.images > 200 && total.syncs > 50, "{total:?}");
    assert!(
        total.refused > 0 && total.faults > 0 && total.replayed > 100,
        "{total:?}"
    );
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

/// Commits have failed one after the other on a volume that is nearly full, and its dirty pages find no block: a writer hears
/// that it is full after one try at writing them, and does not try for as long as an allocation may take.
#[test]
fn a_writer_does_not_write_over_and_over_what_cannot_be_written() {
    let report = crash::run(42, 5);
    assert!(report.stuck > 0 && report.refused > 100, "{report:?}");
}
