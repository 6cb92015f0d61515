//! Memory full of pages that a failing disk keeps dirty: what is clean is still found, and nobody spins.

mod common;

use common::{LabFile, PAGE, Rig, device_on, lab, ms};
use highwater_engine::io::IoOp;
use highwater_engine::policy::{OnDirty, ReclaimWait, WritebackFrom};
use highwater_engine::{Config, Error, IoErrorKind, Nanos, PageNo, Preset};
use highwater_lab::{LabQueue, QueueOptions};
use std::sync::Arc;

const PAGES: u64 = 200;

/// A file on the first disk, every write of which fails from now on, and a file on another disk.
fn files(rig: &Rig) -> (LabFile, LabFile) {
    let (dead, healthy, _) = files_and_disk(rig);
    (dead, healthy)
}

/// The same, and the other disk.
fn files_and_disk(rig: &Rig) -> (LabFile, LabFile, Arc<LabQueue>) {
    let dead = rig.device(PAGES * PAGE);
    dead.fail_writes(0..u64::MAX, IoErrorKind::Io, Nanos(u64::MAX));
    let queue = LabQueue::new(
        &rig.world,
        QueueOptions {
            id: 2,
            ..QueueOptions::default()
        },
    );
    let healthy = device_on(&queue, PAGES * PAGE);
    (rig.open(1, &dead), rig.open(2, &healthy), queue)
}

/// Dirties pages of `file` one after the other until its disk's error comes back.
fn fill(file: &LabFile) {
    let mut page = 0;
    while page < PAGES && file.write_at(&[7; PAGE as usize], page * PAGE).is_ok() {
        page += 1;
    }
    assert!(page > 10, "{page} pages are dirty");
}

fn tune(config: &mut Config) {
    config.policy.background_percent = 60;
    config.policy.limit_percent = 70;
    config.fail_after = ms(50);
    config.readahead_max = 0;
}

/// Pages that were used twice are on the active list, the shorter one. Reclaim looked at it only while it is the longer
/// one: an inactive list of nothing but dirty pages ended in `OutOfMemory` with a fifth of memory clean.
#[test]
fn clean_pages_are_found_behind_dirty_ones_that_nobody_can_write() {
    for wait in [
        ReclaimWait::Progress,
        ReclaimWait::IfCongested,
        ReclaimWait::Congestion,
    ] {
        let tuned = move |config: &mut Config| {
            tune(config);
            config.policy.on_dirty = OnDirty::Skip;
            config.policy.writeback_from = WritebackFrom::Kswapd;
            config.policy.wait = wait;
        };
        lab(1, 100, tuned, move |rig| {
            let (dead, healthy) = files(&rig);
            fill(&dead);
            let mut byte = [0];
            for page in 0..PAGES {
                let ((), took) = rig.timed(|| {
                    // Used twice, with another page between, as one task's reads of one page are one use.
                    for page in [page, page.saturating_sub(1), page] {
                        healthy.read_at(&mut byte, page * PAGE).expect("a read");
                    }
                });
                assert!(
                    took < Nanos::from_secs(2),
                    "{wait:?}: page {page}: {took:?}"
                );
            }
        });
    }
}

/// kswapd wrote a page, the write failed, its end woke kswapd, which wrote the page: 8,000 times a second, and while that
/// went on nobody who held guards was told that all other memory is held.
#[test]
fn kswapd_does_not_write_failing_pages_over_and_over() {
    let tuned = |config: &mut Config| {
        config.policy = Preset::V3_2.policy();
        tune(config);
        config.policy.writeback_from = WritebackFrom::Kswapd;
        // Fewer than make the disk's queue congested, which kswapd waits for.
        config.policy.background_percent = 15;
        config.policy.limit_percent = 25;
    };
    lab(1, 100, tuned, |rig| {
        let (dead, healthy) = files(&rig);
        fill(&dead);
        let mut guards = Vec::new();
        let error = loop {
            match healthy.page(PageNo(guards.len() as u64)) {
                Ok(guard) => guards.push(guard),
                Err(e) => break e,
            }
        };
        assert!(matches!(error, Error::AllPinned { .. }), "{error}");
        let runs = rig.stat("pageoutrun");
        let theirs = healthy.clone();
        let reader = rig.spawn("reader", move || {
            theirs.read_at(&mut [0], (PAGES - 1) * PAGE)
        });
        rig.nap(ms(1_000));
        let runs = rig.stat("pageoutrun") - runs;
        assert!(runs < 100, "{runs} runs of kswapd in a second");
        assert!(!reader.ended(), "all memory is held or dirty");
        drop(guards);
        assert_eq!(rig.join(reader, ms(1_000)), Ok(1));
    });
}

/// Nor does it, or who reclaims for himself, for each page that others read: it is tried again when its time has come.
#[test]
fn reclaim_does_not_write_failing_pages_for_every_page_that_is_read() {
    let tuned = |config: &mut Config| {
        config.policy = Preset::V2_6_35.policy();
        tune(config);
        config.policy.background_percent = 15;
        config.policy.limit_percent = 25;
    };
    lab(1, 100, tuned, |rig| {
        let (dead, healthy) = files(&rig);
        fill(&dead);
        rig.nap(ms(1_000));
        let errors = rig.stat("write_errors");
        for page in 0..4_000 {
            let at = page % PAGES * PAGE;
            healthy.read_at(&mut [0], at).expect("a read");
        }
        let errors = rig.stat("write_errors") - errors;
        assert!(errors < 200, "{errors} writes failed during 4,000 reads");
    });
}

/// Half of memory may be dirty, and who hangs is told soon.
fn tune_roomy(config: &mut Config) {
    tune(config);
    config.policy.background_percent = 40;
    config.policy.limit_percent = 60;
    config.io_timeout = ms(1_000);
}

/// What cannot be written is excused, lest it slow others, but for a quarter of memory: the rest has room for what is read.
#[test]
fn no_more_than_a_quarter_of_memory_is_excused() {
    lab(1, 100, tune_roomy, |rig| {
        let (dead, healthy, disk) = files_and_disk(&rig);
        fill(&dead);
        rig.nap(ms(100));
        disk.hang_next(IoOp::Write, u32::MAX);
        let write = |page: u64| healthy.write_at(&[7; PAGE as usize], page * PAGE).err();
        let refused = (0..PAGES).find_map(write);
        assert!(
            matches!(refused, Some(Error::TimedOut { .. })),
            "{refused:?}"
        );
        let unclean = rig.stat("nr_dirty") + rig.stat("nr_writeback");
        let limit = rig.stat("nr_dirty_threshold");
        let most = limit + rig.engine.stats().frames / 4;
        assert!(
            (limit + 1..=most).contains(&unclean),
            "{unclean} of {limit} to {most}"
        );
        disk.release_hung();
        rig.nap(ms(100));
    });
}

/// A disk that has failed and works again is not excused any more, although it is slow.
#[test]
fn a_disk_that_works_again_counts_again() {
    lab(1, 100, tune_roomy, |rig| {
        let (_, healthy, disk) = files_and_disk(&rig);
        let device = rig.device(PAGES * PAGE);
        let repaired = rig.open(3, &device);
        device.fail_writes(0..u64::MAX, IoErrorKind::Io, Nanos(u64::MAX));
        fill(&repaired);
        rig.nap(ms(100));
        device.heal();
        // The error that nobody has seen is told once.
        let _ = repaired.sync_data();
        repaired.sync_data().expect("it works again");
        rig.disk.hang_next(IoOp::Write, u32::MAX);
        disk.hang_next(IoOp::Write, u32::MAX);
        for file in [&repaired, &healthy] {
            let write = |page: u64| file.write_at(&[7; PAGE as usize], page * PAGE).err();
            let refused = (0..PAGES).find_map(write);
            assert!(
                matches!(refused, Some(Error::TimedOut { .. })),
                "{refused:?}"
            );
        }
        let unclean = rig.stat("nr_dirty") + rig.stat("nr_writeback");
        let limit = rig.stat("nr_dirty_threshold");
        assert!(unclean <= limit + 2, "{unclean} of {limit}");
        rig.disk.release_hung();
        disk.release_hung();
        rig.nap(ms(100));
    });
}
