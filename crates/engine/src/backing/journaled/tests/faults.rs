//! Writes and flushes that fail.

use super::*;

#[test]
fn a_failed_write_keeps_the_old_data_and_the_space_for_the_next_try() {
    let mut rig = Rig::new(&Disk::formatted(300, 16, 1000));
    rig.write(&[(7, 2)], 1).unwrap();
    let before = rig.volume.info();
    rig.disk.fail_writes(0..u64::MAX);
    let e = rig.write(&[(7, 2)], 2).unwrap_err();
    assert_eq!(e, IoError::new(IoErrorKind::Io, 7 * BLOCK as u64));
    rig.expect(7, 1);
    assert_eq!(rig.volume.reserved(), Some(2), "JRN-3");
    let after = rig.volume.info();
    assert_eq!(
        (after.free, after.used, after.pending),
        (before.free, before.used, before.pending)
    );
    rig.disk.heal();
    rig.submit(&[(7, 2)], 3);
    rig.expect(8, 3);
    assert_eq!(rig.volume.reserved(), Some(0));
    rig.volume.flush().unwrap();
    rig.check();
}

#[test]
fn a_request_fails_whole_when_a_part_of_it_does_and_its_neighbours_do_not() {
    // Two requests share the run; the bad sector is in a request to the device of its own.
    let mut rig = Rig::new(&Disk::formatted(2000, 16, 1000));
    let first = rig.volume.info();
    let data = (first.blocks - first.data_blocks) * BLOCK as u64;
    // 256 blocks are one request of 1 MiB at most; 254 segments.
    rig.disk
        .fail_writes(data + 300 * BLOCK as u64..data + 301 * BLOCK as u64);
    rig.reserve(&[(0, 200), (500, 200)]).unwrap();
    let all = rig.submit(&[(0, 200), (500, 200)], 1);
    assert_eq!(rig.result(&all[0]), Some(Ok(())));
    assert!(rig.result(&all[1]).unwrap().is_err());
    rig.expect(199, 1);
    rig.expect(500, 0);
    assert_eq!(rig.volume.reserved(), Some(200));
    rig.disk.heal();
    rig.submit(&[(500, 200)], 2);
    rig.expect(699, 2);
    rig.check();
}

/// What a cache does: keeps what it wrote until a flush that covers it has succeeded, and writes it again after one failed.
#[derive(Default)]
struct Cache {
    /// The newest version of each page, and the newest that is durable.
    versions: BTreeMap<u64, (u64, u64)>,
    unflushed: Vec<u64>,
}

impl Cache {
    fn write(&mut self, rig: &mut Rig, runs: &[(u64, u64)], version: u64) {
        if let Err(e) = rig.reserve(runs) {
            // Only while a flush has failed.
            assert_eq!(e.kind, IoErrorKind::NoSpace);
            panic!("the volume is large enough");
        }
        self.submit(rig, runs, version);
    }

    fn submit(&mut self, rig: &mut Rig, runs: &[(u64, u64)], version: u64) {
        let mut again = runs.to_vec();
        for _ in 0..10 {
            let all = rig.submit(&again, version);
            rig.disk.run();
            again.clear();
            for w in all {
                let pages = w.first..w.first + w.count;
                match rig.result(&w).unwrap() {
                    Err(_) => again.push((w.first, w.count)),
                    Ok(()) => {
                        for page in pages {
                            self.versions.entry(page).or_default().0 = version;
                            self.unflushed.push(page);
                        }
                    }
                }
            }
            if again.is_empty() {
                return;
            }
        }
        panic!("it fails for ever");
    }

    fn flush(&mut self, rig: &mut Rig) {
        for _ in 0..10 {
            self.unflushed.sort_unstable();
            self.unflushed.dedup();
            if rig.volume.flush().is_ok() {
                for page in self.unflushed.drain(..) {
                    let v = self.versions.get_mut(&page).unwrap();
                    v.1 = v.0;
                }
                return;
            }
            let pages = std::mem::take(&mut self.unflushed);
            for page in &pages {
                rig.volume.redirtied(*page);
            }
            // JRN-6: not even somebody else's flush commits what may be lost.
            if !pages.is_empty() {
                assert!(rig.volume.flush().is_err());
            }
            self.check_crash(rig);
            for page in pages {
                let version = self.versions[&page].0;
                self.submit(rig, &[(page, 1)], version);
            }
        }
        panic!("it fails for ever");
    }

    fn check_crash(&self, rig: &Rig) {
        for keep in [true, false] {
            let disk = Disk::new(rig.disk.crash(|| keep), false);
            self.check(&Rig::new(&disk));
            clean(&disk);
        }
    }

    /// Each page has its durable version, or a newer one.
    fn check(&self, rig: &Rig) {
        for (page, (newest, durable)) in &self.versions {
            let bytes = rig.read(*page).unwrap();
            let found = (*durable..=*newest).any(|v| bytes == page_bytes(*page, v));
            assert!(found, "page {page} is none of {durable}..={newest}");
        }
    }
}

fn script(rig: &mut Rig) -> Cache {
    let mut cache = Cache::default();
    for version in 1..=6 {
        let runs: Vec<_> = (0..90).map(|i| ((i * 17 + version * 5) % 600, 1)).collect();
        for part in runs.chunks(30) {
            cache.write(rig, part, version);
        }
        cache.flush(rig);
    }
    cache.check_crash(rig);
    cache
}

#[test]
fn every_single_write_and_flush_may_fail() {
    let formatted = Disk::formatted(1200, 8, 600).image();
    let total = {
        let mut rig = Rig::new(&Disk::new(formatted.clone(), false));
        script(&mut rig);
        assert!(rig.volume.info().checkpoints > 0);
        rig.disk.ops()
    };
    // The first is the mount's flush: see below.
    for op in 2..=total {
        let disk = Disk::new(formatted.clone(), false);
        disk.fail_op(op);
        let mut rig = Rig::new(&disk);
        let cache = script(&mut rig);
        rig.check();
        disk.heal();
        cache.check(&rig.remount());
        clean(&disk);
    }
}

#[test]
fn failures_in_pairs() {
    let formatted = Disk::formatted(1200, 8, 600).image();
    for op in 2..60 {
        for second in [op + 1, op + 2] {
            let disk = Disk::new(formatted.clone(), false);
            disk.fail_op(op);
            disk.fail_op(second);
            let mut rig = Rig::new(&disk);
            let cache = script(&mut rig);
            rig.check();
            disk.heal();
            cache.check(&rig.remount());
            clean(&disk);
        }
    }
}

#[test]
fn a_flush_that_failed_claims_nothing_and_the_next_one_does() {
    let mut rig = Rig::new(&Disk::formatted(300, 16, 1000));
    rig.write(&[(1, 1)], 1).unwrap();
    rig.volume.flush().unwrap();
    let fails = rig.disk.ops() + 2;
    rig.disk.fail_op(fails);
    rig.write(&[(1, 1)], 2).unwrap();
    rig.volume.flush().unwrap_err();
    assert_eq!(rig.volume.info().failed_commits, 1);
    Rig::new(&Disk::new(rig.disk.crash(|| true), false)).expect(1, 1);
    rig.volume.redirtied(1);
    // Space is not had by a commit either while a page is in doubt.
    rig.volume.flush().unwrap_err();
    rig.submit(&[(1, 1)], 2);
    rig.volume.flush().unwrap();
    Rig::new(&Disk::new(rig.disk.crash(|| false), false)).expect(1, 2);
    rig.check();
}

#[test]
fn a_mount_that_cannot_make_what_it_read_durable_is_none() {
    let disk = Disk::formatted(300, 16, 1000);
    disk.fail_op(disk.ops() + 1);
    let e = Rig::mount(&disk).map(drop).unwrap_err();
    assert!(matches!(e, VolumeError::Io { .. }), "{e}");
    assert!(Rig::mount(&disk).is_ok());
}

/// A volume that is nearly full, flushes that fail one after the other, and all pages dirty again after each: the blocks of
/// the writes in vain are had back without a commit, and never one that the disk's state may name.
#[test]
fn failure_upon_failure_does_not_use_a_volume_up() {
    // The flush before the commit's block fails, the block, its copy, or the flush behind it.
    for nth in [1, 2, 3, 4] {
        let mut rig = Rig::new(&Disk::formatted(500, 16, 400));
        let pages = 100;
        rig.write(&[(0, pages)], 1).unwrap();
        rig.volume.flush().unwrap();
        // So much that two copies of the pages and a little more are left.
        let more = rig.volume.info().free - 2 * pages - 40;
        rig.write(&[(200, more)], 1).unwrap();
        rig.volume.flush().unwrap();
        rig.write(&[(0, pages)], 2).unwrap();
        let mut short = 0;
        for round in 0..8 {
            let (now, flushed) = (rig.disk.ops(), rig.volume.info().failed_commits);
            // A commit by checkpoint has its first flush after the map's leaf.
            rig.disk.fail_op(now + if round == 0 { nth } else { 2 });
            rig.volume.flush().unwrap_err();
            assert!(rig.volume.info().failed_commits > flushed);
            rig.disk.heal();
            (0..pages).for_each(|page| rig.volume.redirtied(page));
            let left: Vec<(u64, u64)> = (0..pages).map(|p| (p, 1)).collect();
            short += u64::from(rig.volume.info().free < pages);
            let all = rig.submit(&left, 3 + round);
            let refused = (all.iter()).filter(|w| rig.result(w).unwrap().is_err());
            assert_eq!(refused.count(), 0, "failure {nth}, round {round}");
            for keep in [true, false] {
                let after = Rig::new(&Disk::new(rig.disk.crash(|| keep), false));
                (200..200 + more).for_each(|page| after.expect(page, 1));
                for page in 0..pages {
                    let bytes = after.read(page).unwrap();
                    let legal = (1..3 + round + 1).any(|v| bytes == page_bytes(page, v));
                    assert!(legal, "failure {nth}, round {round}: page {page}");
                }
            }
            rig.check();
        }
        assert!(short > 0, "there was always room");
        rig.volume.flush().unwrap();
        let after = Rig::new(&Disk::new(rig.disk.crash(|| false), false));
        (0..pages).for_each(|page| after.expect(page, 10));
        clean(&rig.disk);
    }
}

/// Writers who need blocks commit for themselves, and the cache knows nothing of it: when its own flush fails, what those commits
/// have made durable is neither in doubt nor written again, for which there would be no room.
#[test]
fn what_a_writers_commit_made_durable_is_not_in_doubt() {
    let mut rig = Rig::new(&Disk::formatted(400, 16, 400));
    let mut pages = 0;
    while rig.reserve(&[(pages, 1)]).is_ok() {
        rig.submit(&[(pages, 1)], 1);
        pages += 1;
    }
    rig.volume.flush().unwrap();
    let commits = rig.volume.info().commits;
    // Over and over, with one flush by the cache at the end.
    for version in 2..=3 {
        for page in 0..pages {
            rig.write(&[(page, 1)], version).unwrap();
        }
    }
    assert!(rig.volume.info().commits > commits + 3, "by writers");
    rig.disk.fail_op(rig.disk.ops() + 1);
    rig.volume.flush().unwrap_err();
    rig.disk.heal();
    let doubtful: Vec<(u64, u64)> = (0..pages)
        .filter(|page| !rig.volume.is_durable(*page))
        .map(|page| (page, 1))
        .collect();
    assert!(!doubtful.is_empty() && (doubtful.len() as u64) < pages / 2);
    let after = Rig::new(&Disk::new(rig.disk.crash(|| false), false));
    for page in 0..pages {
        let durable = !doubtful.contains(&(page, 1));
        after.expect(page, if durable { 3 } else { 2 });
    }
    doubtful
        .iter()
        .for_each(|(page, _)| rig.volume.redirtied(*page));
    for w in rig.submit(&doubtful, 3) {
        assert_eq!(rig.result(&w), Some(Ok(())), "page {}", w.first);
    }
    rig.volume.flush().unwrap();
    let after = Rig::new(&Disk::new(rig.disk.crash(|| false), false));
    (0..pages).for_each(|page| after.expect(page, 3));
    rig.check();
}

/// A losing flush, and a page that the cache has no more to write again: see the head of the module.
#[test]
fn a_page_that_had_left_memory_is_its_newest_or_an_error() {
    let mut rig = Rig::new(&Disk::formatted(300, 16, 1000));
    rig.write(&[(1, 1)], 1).unwrap();
    rig.volume.flush().unwrap();
    rig.write(&[(1, 1)], 2).unwrap();
    rig.disk.fail_op(rig.disk.ops() + 1);
    rig.volume.flush().unwrap_err();
    rig.disk.heal();
    let after = |rig: &Rig| Rig::new(&Disk::new(rig.disk.crash(|| false), false));
    after(&rig).expect(1, 1);
    if let Ok(bytes) = rig.read(1) {
        assert_eq!(bytes, page_bytes(1, 2));
    }
    rig.volume.flush().unwrap();
    if let Ok(bytes) = after(&rig).read(1) {
        assert_eq!(bytes, page_bytes(1, 2));
    }
}
