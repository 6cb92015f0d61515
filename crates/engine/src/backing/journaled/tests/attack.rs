//! What an adversary tries: failures that nobody asked about, noise that repeats, space that is taken twice.

use super::*;
use crate::backing::journaled::format::{Geometry, LOG_FIRST};

/// Fills a volume with pages of version 1, as many as it takes, and flushes; how many there are.
fn fill(rig: &mut Rig) -> u64 {
    let mut pages = 0;
    while rig.reserve(&[(pages, 1)]).is_ok() {
        rig.submit(&[(pages, 1)], 1);
        pages += 1;
    }
    rig.volume.flush().unwrap();
    pages
}

fn crashed(rig: &Rig, keep: bool) -> Rig {
    let disk = Disk::new(rig.disk.crash(|| keep), false);
    clean(&disk);
    Rig::new(&disk)
}

/// A writer's commit for space whose flush fails loses what had completed; the cache has not asked, so its next flush tells.
#[test]
fn a_flush_that_failed_for_a_writer_fails_for_the_cache_too() {
    let mut rig = Rig::new(&Disk::formatted(120, 8, 200));
    let pages = fill(&mut rig);
    rig.volume.discard(0, 4 * BLOCK as u64).unwrap();
    rig.volume.flush().unwrap();
    let mut written = Vec::new();
    for page in 0..pages {
        rig.disk.fail_op(rig.disk.ops() + 1);
        let reserved = rig.reserve(&[(page, 1)]);
        rig.disk.heal();
        if reserved.is_err() {
            break;
        }
        rig.submit(&[(page, 1)], 2);
        written.push(page);
    }
    assert!(!written.is_empty() && (written.len() as u64) < pages);
    assert_eq!(rig.volume.info().failed_commits, 1);
    rig.volume.flush().unwrap_err();
    for page in &written {
        rig.volume.redirtied(*page);
    }
    for page in &written {
        rig.submit(&[(*page, 1)], 2);
    }
    rig.volume.flush().unwrap();
    let after = crashed(&rig, false);
    for page in 0..pages {
        let old = u64::from(page >= 4);
        after.expect(page, if written.contains(&page) { 2 } else { old });
    }
    rig.check();
}

/// The checkpoint behind a commit has flushes of its own. Pages that complete between the commit's flush and one that fails
/// are not covered by the commit, and may be lost.
#[test]
fn a_checkpoint_that_fails_behind_a_commit_hides_no_loss() {
    let mut untold = 0;
    for k in 1..12 {
        let formatted = Disk::formatted(300, 8, 200).image();
        let disk = Disk::new(formatted, true);
        let mut rig = Rig::new(&disk);
        for version in 1..=2 {
            rig.write(&[(0, 3)], version).unwrap();
            rig.volume.flush().unwrap();
        }
        assert_eq!(rig.volume.info().checkpoints, 0);
        rig.write(&[(0, 3)], 3).unwrap();
        rig.reserve(&[(10, 4)]).unwrap();
        let late = rig.submit(&[(10, 4)], 3);
        let g = rig.volume.geometry;
        // It ends when the leaves are written.
        disk.hold(g.byte(g.data_first()), 1);
        disk.fail_op(disk.ops() + k);
        let first = rig.volume.flush();
        disk.heal();
        disk.hold(0, 0);
        disk.run();
        if first.is_err() || rig.result(&late[0]) != Some(Ok(())) {
            continue;
        }
        untold += u64::from(rig.volume.info().checkpoints == 0);
        if rig.volume.flush().is_err() {
            rig.volume.redirtied(0);
            (10..14).for_each(|page| rig.volume.redirtied(page));
            let again = rig.submit(&[(0, 1), (10, 4)], 3);
            disk.run();
            assert!(again.iter().all(|w| rig.result(w) == Some(Ok(()))));
            rig.volume.flush().unwrap();
        }
        let after = crashed(&rig, false);
        (10..14).for_each(|page| after.expect(page, 3));
        (0..3).for_each(|page| after.expect(page, 3));
        rig.check();
    }
    assert!(untold > 0, "a checkpoint has failed behind a commit");
}

/// The cache's flush waits while a writer's commit for space fails: it has not asked for that one, and hears of it all the same.
#[test]
fn a_flush_hears_of_what_failed_while_it_waited() {
    let mut rig = Rig::new(&Disk::formatted(300, 16, 200));
    rig.write(&[(3, 1)], 1).unwrap();
    let (volume, disk) = (rig.volume.clone(), rig.disk.clone());
    let log = volume.try_turn().unwrap();
    *rig.heap.meanwhile.lock() = Some(Box::new(move || {
        disk.fail_op(disk.ops() + 1);
        volume.flush_device().unwrap_err();
        disk.heal();
        volume.end_turn(log);
    }));
    rig.volume.flush().unwrap_err();
    rig.volume.redirtied(3);
    rig.submit(&[(3, 1)], 1);
    rig.volume.flush().unwrap();
    crashed(&rig, false).expect(3, 1);
    rig.check();
}

/// A program that was killed by a power failure starts over and does the same again: its log blocks are equal to the byte,
/// and what follows them on the disk is of before. The last commit's first copy is lost; the second one is not.
#[test]
fn noise_that_repeats_itself_does_not_hide_a_commit() {
    let disk = Disk::formatted(3000, 16, 2000);
    let work = |rig: &mut Rig, writes: u64| {
        for i in 0..writes {
            rig.write(&[(100 + i * 7 % 1800, 1)], 2).unwrap();
        }
    };
    let mut rig = Rig::new(&disk);
    work(&mut rig, 900);
    assert!(rig.volume.info().log_writes_ahead > 2);
    let before = disk.crash(|| true);
    let again = Disk::new(before.clone(), false);
    let mut rig = Rig::new(&again);
    work(&mut rig, 300);
    let ahead = rig.volume.info().log_writes_ahead as usize;
    rig.volume.flush().unwrap();
    let mut image = again.image();
    let log = LOG_FIRST as usize * BLOCK;
    assert_eq!(image[log..log + BLOCK], before[log..log + BLOCK], "repeats");
    // The commit's block was not written, its copy was.
    let commit = log + ahead * BLOCK..log + (ahead + 1) * BLOCK;
    image[commit.clone()].copy_from_slice(&before[commit]);
    let disk = Disk::new(image, false);
    clean(&disk);
    let rig = Rig::new(&disk);
    for i in 0..300 {
        rig.expect(100 + i * 7 % 1800, 2);
    }
}

/// A truncation into the middle of a page needs a block; it takes none that a dirty page was promised.
#[test]
fn truncations_take_no_space_that_was_promised() {
    let mut rig = Rig::new(&Disk::formatted(120, 8, 400));
    rig.write(&[(300, 1)], 1).unwrap();
    rig.volume.flush().unwrap();
    let mut pages = 0;
    while rig.reserve(&[(pages, 1)]).is_ok() {
        pages += 1;
    }
    let b = BLOCK as u64;
    for cut in 1..200 {
        match rig.volume.truncate(301 * b - cut) {
            Ok(()) => {}
            Err(e) => assert_eq!(e.kind, IoErrorKind::NoSpace),
        }
    }
    for page in 0..pages {
        let w = rig.submit(&[(page, 1)], 2);
        assert_eq!(rig.result(&w[0]), Some(Ok(())), "RESERVE-1: page {page}");
    }
    rig.volume.flush().unwrap();
    let after = crashed(&rig, false);
    (0..pages).for_each(|page| after.expect(page, 2));
    rig.check();
}

/// A page that is dirty again when a flush fails: its last completed write may be lost, and the one before it is what the
/// disk's state has. Nothing is committed before the page is written.
#[test]
fn a_page_that_was_dirty_when_a_flush_failed_keeps_its_durable_block() {
    let mut rig = Rig::new(&Disk::formatted(300, 16, 1000));
    rig.write(&[(1, 1)], 1).unwrap();
    rig.volume.flush().unwrap();
    rig.write(&[(1, 1)], 2).unwrap();
    rig.reserve(&[(1, 1)]).unwrap();
    rig.disk.fail_op(rig.disk.ops() + 1);
    rig.volume.flush().unwrap_err();
    rig.volume.doubted(1);
    // Another part of the file is synced.
    rig.write(&[(7, 1)], 3).unwrap();
    rig.volume.flush().unwrap_err();
    for keep in [false, true] {
        crashed(&rig, keep).expect(1, 1);
    }
    rig.submit(&[(1, 1)], 4);
    rig.volume.flush().unwrap();
    let after = crashed(&rig, false);
    after.expect(1, 4);
    after.expect(7, 3);
    rig.check();
}

/// A flush fails while pages are being given up: the cache marks one dirty again whose data is gone from the map already,
/// and lets it go a moment later.
#[test]
fn a_page_is_marked_dirty_again_behind_its_discard() {
    let mut rig = Rig::new(&Disk::formatted(300, 16, 2000));
    rig.write(&[(1500, 2)], 1).unwrap();
    rig.disk.fail_op(rig.disk.ops() + 1);
    rig.volume.flush().unwrap_err();
    rig.volume
        .discard(1500 * BLOCK as u64, 2 * BLOCK as u64)
        .unwrap();
    rig.volume.redirtied(1500);
    // In the meantime the leaf is there again.
    rig.reserve(&[(1501, 1)]).unwrap();
    rig.volume.doubted(1501);
    assert_eq!(rig.volume.reserved(), Some(2));
    rig.volume.release(1500);
    rig.volume.flush().unwrap();
    rig.submit(&[(1501, 1)], 2);
    assert_eq!(rig.volume.reserved(), Some(0));
    rig.volume.flush().unwrap();
    let after = crashed(&rig, false);
    after.expect(1500, 0);
    after.expect(1501, 2);
    rig.check();
}

/// Checksums do not protect from somebody who computes them.
#[test]
fn numbers_that_make_no_sense_are_refused_before_they_are_used() {
    let good = Geometry {
        block_size: 4096,
        blocks: 4000,
        log_blocks: 16,
        capacity: 1 << 20,
    };
    good.check().unwrap();
    for log_blocks in [u64::MAX, u64::MAX - 2, 1 << 63, (1 << 32) - 100] {
        let bad = Geometry { log_blocks, ..good };
        assert!(bad.check().is_err(), "{log_blocks}");
        let bad = Geometry {
            blocks: (1 << 32) - 2,
            ..bad
        };
        assert!(bad.check().is_err(), "{log_blocks} of many");
    }
}

/// A format over an older volume, cut short anywhere: nothing, the new one, or the old one as it was; never the old one
/// without its newest commits.
#[test]
fn a_format_that_is_cut_short_leaves_nothing_half() {
    let disk = Disk::formatted(300, 16, 200);
    let mut rig = Rig::new(&disk);
    for version in 1..=3 {
        rig.write(&[(5, 20)], version).unwrap();
        rig.volume.flush().unwrap();
    }
    let old = disk.image();
    let mut seen = [0; 3];
    for op in 1..20 {
        for odds in 0..40u64 {
            let disk = Disk::new(old.clone(), false);
            disk.cut_at(op);
            let mut new = options(16, 200);
            new.uuid = *b"another of tests";
            let _ = Volume::format(&*disk, &new);
            let mut x = odds * 77 + op;
            let image = disk.crash(|| {
                x = x
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (x >> 33) % 40 < odds
            });
            match Rig::mount(&Disk::new(image, false)) {
                Err(_) => seen[0] += 1,
                Ok(rig) if rig.volume.info().uuid == new.uuid => {
                    seen[1] += 1;
                    rig.expect(5, 0);
                }
                Ok(rig) => {
                    seen[2] += 1;
                    rig.expect(5, 3);
                }
            }
        }
    }
    assert!(seen.iter().all(|n| *n > 0), "{seen:?}");
}

/// Writes that are in flight when a commit begins are not a part of it: when the next flush fails their pages need blocks
/// once more, and nobody has been given these meanwhile.
#[test]
fn space_is_kept_for_pages_in_flight_over_a_commit() {
    let disk = Disk::new(Disk::formatted(400, 16, 2000).image(), true);
    let mut rig = Rig::new(&disk);
    let mut pages = 0;
    while rig.reserve(&[(pages, 1)]).is_ok() {
        let w = rig.submit(&[(pages, 1)], 1);
        disk.run();
        assert_eq!(rig.result(&w[0]), Some(Ok(())));
        pages += 1;
    }
    // Room for some.
    rig.volume.discard(0, 95 * BLOCK as u64).unwrap();
    rig.volume.flush().unwrap();
    rig.volume.discard(95 * BLOCK as u64, BLOCK as u64).unwrap();
    let runs = [(100, 40)];
    rig.reserve(&runs).unwrap();
    let flying = rig.submit(&runs, 2);
    // The commit waits for its log, and they end.
    rig.volume.flush().unwrap();
    assert_eq!(rig.result(&flying[0]), Some(Ok(())));
    let mut more = Vec::new();
    disk.fail_op(disk.ops() + 1);
    for page in 200..300 {
        match rig.reserve(&[(page, 1)]) {
            Ok(()) => more.push((page, 1)),
            Err(_) => break,
        }
    }
    if rig.volume.info().failed_commits == 0 {
        rig.volume.flush().unwrap_err();
    } else {
        disk.heal();
        rig.volume.flush().unwrap_err();
    }
    disk.heal();
    (100..140).for_each(|page| rig.volume.redirtied(page));
    more.push((100, 40));
    let all = rig.submit(&more, 3);
    disk.run();
    for w in &all {
        assert_eq!(rig.result(w), Some(Ok(())), "RESERVE-1: page {}", w.first);
    }
    rig.volume.flush().unwrap();
    crashed(&rig, false).expect(120, 3);
    rig.check();
}

/// The power fails between a commit that fills the log to its last block and the checkpoint that would empty it. The next
/// commit has no place in the log, and does not run over its beginning.
#[test]
fn a_full_log_takes_no_commit_after_a_power_failure() {
    let disk = Disk::formatted(5000, 8, 4000);
    let mut rig = Rig::new(&disk);
    // Scattered, so that each page is a record: six blocks ahead of the commit.
    let mut pages = (0..4000).map(|i| i * 1237 % 4000);
    while rig.volume.info().log_writes_ahead < 6 {
        let page = pages.next().unwrap();
        rig.write(&[(page, 1)], 1).unwrap();
    }
    let written: Vec<u64> = (0..4000)
        .map(|i| i * 1237 % 4000)
        .take_while(|p| Some(*p) != pages.clone().next())
        .collect();
    let area = rig.volume.geometry;
    rig.disk
        .fail_writes(area.byte(area.area_first(0))..area.byte(area.data_first()));
    rig.volume.flush().unwrap();
    rig.disk.heal();
    let disk = Disk::new(rig.disk.crash(|| true), false);
    clean(&disk);
    let mut rig = Rig::new(&disk);
    assert_eq!(rig.volume.info().log_used, 8, "full");
    for version in 2..5 {
        rig.write(&[(3, 1)], version).unwrap();
        rig.volume.flush().unwrap();
        for keep in [false, true] {
            let after = crashed(&rig, keep);
            after.expect(3, version);
            written
                .iter()
                .filter(|p| **p != 3)
                .for_each(|p| after.expect(*p, 1));
        }
    }
    rig.check();
}

/// Writes the checksum that block `b` should have at `at`.
fn reseal(b: &mut [u8], at: usize) -> u32 {
    b[at..at + 4].fill(0);
    let crc = crc32c::crc32c(b);
    b[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// Somebody who computes checksums changes numbers of superblocks, log and map: an error, or a volume that can be used; never
/// a panic, and nothing outside of the device.
#[test]
fn numbers_with_good_checksums_may_be_anything() {
    let disk = Disk::formatted(120, 8, 1100);
    let mut rig = Rig::new(&disk);
    for version in 1..=10 {
        rig.write(&[(version * 60, 3), (1090, 5)], version).unwrap();
        rig.volume.flush().unwrap();
    }
    let g = rig.volume.geometry;
    assert!(rig.volume.info().checkpoints > 0 && rig.volume.info().log_used > 0);
    drop(rig);
    let good = disk.image();
    let mut x = 7u64;
    let mut draw = move |n: u64| {
        x = x
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (x >> 33) % n
    };
    let (mut mounted, mut refused) = (0, 0);
    for _ in 0..1500 {
        let mut image = good.clone();
        let block = draw(g.data_first()) as usize;
        let (at, len, crc) = match block {
            0 | 1 => (block * BLOCK, 512, 12),
            _ => (block * BLOCK, BLOCK, 4),
        };
        let used = if block < 2 { 112 } else { 160 };
        for _ in 0..=draw(3) {
            let place = at + 8 + draw(used - 8) as usize;
            let width = [1, 2, 4, 8][draw(4) as usize];
            let value = match draw(4) {
                0 => u64::MAX,
                1 => draw(300),
                2 => u64::MAX >> draw(60),
                _ => draw(1 << 31) << draw(33),
            };
            image[place..place + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
        reseal(&mut image[at..at + len], crc);
        if block == 0 && draw(2) == 0 {
            // Both say the same.
            let first = image[..512].to_vec();
            image[BLOCK..BLOCK + 512].copy_from_slice(&first);
        }
        let disk = Disk::new(image, false);
        let faults = fsck(&*disk).map(|r| r.is_clean());
        let Ok(mut rig) = Rig::mount(&disk) else {
            refused += 1;
            assert_ne!(faults.ok(), Some(true), "refused, and clean");
            continue;
        };
        mounted += 1;
        for page in (0..1100).step_by(37).chain([1090]) {
            let _ = rig.read(page);
        }
        for version in 20..24 {
            let _ = rig.write(&[(draw(1090), 2)], version);
            let _ = rig.volume.truncate(draw(1100 * BLOCK as u64));
            let _ = rig.volume.flush();
        }
        rig.check();
    }
    assert!(mounted > 50 && refused > 50, "{mounted} and {refused}");
}
