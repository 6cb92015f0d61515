//! A volume on real threads: writers, readers, a syncer and reclaim at once, on a cache much smaller than the file.

use highwater::volume::{self, LendContext, MountOptions, VolumeOptions};
use highwater::{Cache, OpenOptions};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

const PAGE: usize = 4096;
const PAGES: usize = 4096;
const WRITERS: usize = 4;
const WRITES: usize = 3000;

/// A page's bytes: who wrote it, and the how manieth write of this page it was.
fn bytes(page: usize, version: u32) -> Vec<u8> {
    let word = (page as u64) << 32 | u64::from(version);
    word.to_le_bytes().repeat(PAGE / 8)
}

fn version(page: usize, found: &[u8]) -> u32 {
    let word = u64::from_le_bytes(found[..8].try_into().unwrap());
    assert!(
        found.chunks_exact(8).all(|w| w == &found[..8]),
        "page {page} is torn"
    );
    if word == 0 {
        return 0;
    }
    assert_eq!(word >> 32, page as u64, "another page's bytes");
    word as u32
}

fn stress(lend_context: LendContext) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let options = VolumeOptions {
        log_bytes: Some(16 * PAGE as u64),
        ..VolumeOptions::new((PAGES * PAGE) as u64)
    };
    volume::create(&path, &options).unwrap();
    let cache = Cache::builder().memory(4 << 20).build().unwrap();
    let mount = MountOptions {
        lend_context,
        ..MountOptions::default()
    };
    let write = OpenOptions::new().read(true).write(true);
    let (file, mounted) = cache.open_volume(&path, write, mount).unwrap();
    // The version of each page: each page has one writer.
    let versions: Vec<AtomicU32> = (0..PAGES).map(|_| AtomicU32::new(0)).collect();

    let done = AtomicBool::new(false);
    thread::scope(|s| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|w| {
                let (file, versions) = (&file, &versions);
                s.spawn(move || {
                    let mut x = w as u64 + 1;
                    for _ in 0..WRITES {
                        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let page = (x >> 33) as usize % (PAGES / WRITERS) * WRITERS + w;
                        let next = versions[page].load(Ordering::Relaxed) + 1;
                        file.write_at(&bytes(page, next), (page * PAGE) as u64)
                            .unwrap();
                        versions[page].store(next, Ordering::Release);
                    }
                })
            })
            .collect();
        let others = [
            s.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    file.sync_data().unwrap();
                }
            }),
            s.spawn(|| {
                let (mut page, mut found) = (1, vec![0; PAGE]);
                while !done.load(Ordering::Relaxed) {
                    page = page * 5 % 4093;
                    let before = versions[page].load(Ordering::Acquire);
                    file.read_at(&mut found, (page * PAGE) as u64).unwrap();
                    assert!(version(page, &found) >= before, "page {page} went back");
                }
            }),
        ];
        for w in writers {
            w.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        for o in others {
            o.join().unwrap();
        }
    });
    file.sync_data().unwrap();
    assert_eq!(mounted.info().reserved, 0);
    drop((file, mounted));
    cache.close().unwrap();
    let report = volume::fsck(&path, |_, _| ()).unwrap();
    assert!(report.is_clean(), "{:?}", report.faults);
    assert!(report.info.transactions > 1 && report.blocks_checked > 1000);
    let cache = Cache::builder().memory(4 << 20).build().unwrap();
    let (file, _mounted) = cache
        .open_volume(&path, OpenOptions::new().read(true), mount)
        .unwrap();
    let mut found = vec![0; PAGE];
    for (page, v) in versions.iter().enumerate() {
        file.read_at(&mut found, (page * PAGE) as u64).unwrap();
        assert_eq!(
            version(page, &found),
            v.load(Ordering::Relaxed),
            "page {page}"
        );
    }
}

#[test]
fn many_threads_on_one_volume() {
    stress(LendContext::Reserve);
}

#[test]
fn many_threads_on_a_volume_whose_allocations_reclaim() {
    stress(LendContext::Reclaim);
}

/// Whoever is late is refused, and takes back nothing that is not his.
#[test]
fn of_two_that_make_one_volume_the_late_one_leaves_the_others_alone() {
    let dir = tempfile::tempdir().unwrap();
    let small = VolumeOptions::new(1 << 20);
    for round in 0..100 {
        let path = dir.path().join(format!("{round}"));
        let start = std::sync::Barrier::new(2);
        let make = || {
            start.wait();
            volume::create(&path, &small).is_ok()
        };
        let made = thread::scope(|s| {
            let other = s.spawn(make);
            [make(), other.join().unwrap()]
        });
        assert!(made[0] || made[1], "round {round}");
        assert!(!(made[0] && made[1]), "round {round}");
        volume::info(&path).unwrap_or_else(|e| panic!("round {round}: {e}"));
        std::fs::remove_file(&path).unwrap();
    }
}
