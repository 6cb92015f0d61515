//! A volume that is nearly full, on real threads: writers who are refused, holes, a length that changes, eviction and syncs of
//! ranges at once, on a cache much smaller than the file. Nobody waits for ever, no write fails at writeback, no page mixes.

use highwater::volume::{self, LendContext, MountOptions, VolumeOptions};
use highwater::{Cache, Error, File, IoErrorKind, OpenOptions};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

const PAGE: usize = 4096;
const PAGES: u64 = 12_000;
/// Each of these threads has a part of the file to itself; the last one's is the end, whose length changes.
const THREADS: u64 = 4;
const OPS: u64 = 2500;

fn bytes(page: u64, version: u64) -> Vec<u8> {
    (page << 32 | version).to_le_bytes().repeat(PAGE / 8)
}

fn full(e: &Error) -> bool {
    matches!(e, Error::Io { source, .. } if source.kind == IoErrorKind::NoSpace)
}

/// What a thread knows of its pages: the version of each, 0 for zeroes.
struct Part {
    first: u64,
    versions: Vec<u64>,
}

impl Part {
    fn check(&self, file: &File, page: u64) {
        let mut found = vec![0; PAGE];
        let n = file.read_at(&mut found, page * PAGE as u64).unwrap();
        let expected = match self.versions[(page - self.first) as usize] {
            0 => vec![0; PAGE],
            v => bytes(page, v),
        };
        assert!(found[..n] == expected[..n], "page {page}");
    }

    fn work(&mut self, file: &File, last: bool, refused: &AtomicU64) {
        let (first, n) = (self.first, self.versions.len() as u64);
        let mut x = first + 1;
        let mut draw = |n: u64| {
            x = x
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (x >> 33) % n
        };
        for version in 1..=OPS {
            let at = draw(n);
            let page = first + at;
            match draw(100) {
                0..=69 => {
                    if last && (page + 1) * PAGE as u64 > file.len() {
                        continue;
                    }
                    match file.write_at(&bytes(page, version), page * PAGE as u64) {
                        Ok(_) => self.versions[at as usize] = version,
                        Err(e) if full(&e) => drop(refused.fetch_add(1, Ordering::Relaxed)),
                        Err(e) => panic!("write: {e}"),
                    }
                }
                70..=79 => self.check(file, page),
                80..=89 => {
                    let end = (page + 1 + draw(20))
                        .min(first + n)
                        .min(file.len() / PAGE as u64);
                    if page < end {
                        file.discard(page * PAGE as u64..end * PAGE as u64).unwrap();
                        self.versions[at as usize..(end - first) as usize].fill(0);
                    }
                }
                90..=93 if last => {
                    // To a whole number of pages, so that a version says all; and in the middle of one that is zero.
                    let kept = first + draw(n);
                    file.set_len(kept * PAGE as u64).unwrap();
                    self.versions[(kept - first) as usize..].fill(0);
                    file.set_len(kept * PAGE as u64 + 1 + draw(4000)).unwrap();
                    file.set_len(PAGES * PAGE as u64).unwrap();
                }
                90..=95 => drop(file.sync_range(page * PAGE as u64..(page + 9) * PAGE as u64)),
                _ => drop(file.evict(0..u64::MAX)),
            }
        }
    }
}

fn stress(lend_context: LendContext) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let options = VolumeOptions {
        log_bytes: Some(12 * PAGE as u64),
        // Less than the writers want.
        disk_bytes: Some(3000 * PAGE as u64),
        ..VolumeOptions::new(PAGES * PAGE as u64)
    };
    volume::create(&path, &options).unwrap();
    let cache = Cache::builder().memory(4 << 20).build().unwrap();
    let mount = MountOptions {
        lend_context,
        ..MountOptions::default()
    };
    let write = OpenOptions::new().read(true).write(true);
    let (file, mounted) = cache.open_volume(&path, write, mount).unwrap();
    let share = PAGES / THREADS;
    let refused = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let parts: Vec<Part> = thread::scope(|s| {
        let workers: Vec<_> = (0..THREADS)
            .map(|t| {
                let (file, refused) = (&file, &refused);
                s.spawn(move || {
                    let mut part = Part {
                        first: t * share,
                        versions: vec![0; share as usize],
                    };
                    part.work(file, t == THREADS - 1, refused);
                    part
                })
            })
            .collect();
        let syncer = s.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                file.sync_data().unwrap();
            }
        });
        let parts = workers.into_iter().map(|w| w.join().unwrap()).collect();
        done.store(true, Ordering::Relaxed);
        syncer.join().unwrap();
        parts
    });
    file.sync_data().unwrap();
    mounted.check_invariants();
    assert_eq!(mounted.info().reserved, 0, "RESERVE-1");
    assert!(refused.load(Ordering::Relaxed) > 0, "it was never full");
    drop((file, mounted));
    cache.close().unwrap();
    let report = volume::fsck(&path, |_, _| ()).unwrap();
    assert!(report.is_clean(), "{:?}", report.faults);
    let cache = Cache::builder().memory(4 << 20).build().unwrap();
    let (file, _mounted) = cache
        .open_volume(&path, OpenOptions::new().read(true), mount)
        .unwrap();
    for part in &parts {
        (part.first..part.first + share).for_each(|page| part.check(&file, page));
    }
}

#[test]
fn a_full_volume_on_many_threads() {
    stress(LendContext::Reserve);
}

#[test]
fn a_full_volume_on_many_threads_whose_allocations_reclaim() {
    stress(LendContext::Reclaim);
}
