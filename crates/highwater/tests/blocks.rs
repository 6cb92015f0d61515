//! Blocks of frames on real threads: made by moving pages, and by reclaim, under those who read and write them.

use highwater::{BlockOptions, Cache, Error, HighOrder, OpenOptions, PageNo, Preset};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const PAGE: usize = 4096;
/// Pages of the file: twice the memory.
const PAGES: u64 = 8192;
const WRITERS: u64 = 2;
const OPS: u64 = 15_000;

/// A small generator of its own: the same operations each time.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// What page `n` holds after its owner wrote it for the `stamp`th time: never written for 0.
fn bytes_of(n: u64, stamp: u64) -> Vec<u8> {
    if stamp == 0 {
        return vec![0; PAGE];
    }
    (0..PAGE as u64)
        .map(|i| (n * 31 + stamp * 7 + i / 64) as u8)
        .collect()
}

/// Owns the pages `n % WRITERS == me`: writes and reads them, and knows what they hold.
fn own(file: &highwater::File, me: u64) -> Vec<u64> {
    let mut draw = Draw(me * 77 + 5);
    let mut stamps = vec![0; (PAGES / WRITERS) as usize];
    for op in 1..=OPS {
        let i = draw.below(PAGES / WRITERS);
        let n = i * WRITERS + me;
        match draw.below(3) {
            0 => {
                file.write_at(&bytes_of(n, op), n * PAGE as u64).unwrap();
                stamps[i as usize] = op;
            }
            1 => {
                let mut page = file.page_mut(PageNo(n)).unwrap();
                page.copy_from_slice(&bytes_of(n, op));
                stamps[i as usize] = op;
            }
            _ => {
                let page = file.page(PageNo(n)).unwrap();
                assert!(page[..] == bytes_of(n, stamps[i as usize])[..], "page {n}");
            }
        }
    }
    stamps
}

/// Asks for blocks, fills them, and finds them as they were filled.
fn ask(cache: &Cache, done: &AtomicBool, got: &AtomicU64) {
    let mut draw = Draw(99);
    let mut held = Vec::new();
    while !done.load(Ordering::Acquire) {
        let order = 1 + draw.below(6) as u32;
        let options = match draw.below(3) {
            0 => BlockOptions::thp(),
            1 => BlockOptions::nowait(),
            _ => BlockOptions::patient(),
        };
        match cache.alloc_block(order, options) {
            Ok(mut block) => {
                let byte = draw.below(256) as u8;
                block.fill(byte);
                held.push((block, byte));
                got.fetch_add(1, Ordering::Relaxed);
            }
            Err(Error::NoBlock(_)) => {}
            Err(e) => panic!("{e}"),
        }
        if held.len() > 12 {
            for (block, byte) in held.drain(3..) {
                assert!(
                    block.iter().all(|b| *b == byte),
                    "somebody wrote into a block"
                );
            }
        }
    }
}

fn churn(high_order: HighOrder) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let mut policy = Preset::Highwater.policy();
    policy.high_order = high_order;
    let cache = Cache::builder()
        .memory(16 << 20)
        .policy(policy)
        .build()
        .unwrap();
    let options = OpenOptions::new().read(true).write(true).create(true);
    let file = cache.open(&path, options).unwrap();
    file.set_len(PAGES * PAGE as u64).unwrap();
    let (done, got) = (AtomicBool::new(false), AtomicU64::new(0));
    let stamps: Vec<Vec<u64>> = std::thread::scope(|s| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|me| {
                let file = &file;
                s.spawn(move || own(file, me))
            })
            .collect();
        s.spawn(|| ask(&cache, &done, &got));
        s.spawn(|| {
            while !done.load(Ordering::Acquire) {
                cache.compact_memory(4);
                std::thread::yield_now();
            }
        });
        let stamps = writers.into_iter().map(|w| w.join());
        let stamps: Vec<_> = stamps.collect();
        done.store(true, Ordering::Release);
        stamps.into_iter().map(|s| s.expect("no panic")).collect()
    });
    file.sync_data().unwrap();
    let stats = cache.stats();
    assert!(got.load(Ordering::Relaxed) > 0, "no block was got");
    assert!(stats.get("pgmigrate_success") > 0, "no page moved");
    assert_eq!(
        (stats.get("nr_block_pages"), stats.get("lost_wakeups")),
        (0, 0)
    );
    drop(file);
    cache.close().unwrap();
    let on_disk = std::fs::read(&path).unwrap();
    for (n, page) in on_disk.chunks(PAGE).enumerate() {
        let n = n as u64;
        let stamp = stamps[(n % WRITERS) as usize][(n / WRITERS) as usize];
        assert!(
            page == bytes_of(n, stamp),
            "page {n} of {high_order:?} on disk"
        );
    }
}

#[test]
fn pages_that_move_under_threads_keep_their_bytes() {
    churn(HighOrder::Compaction);
}

#[test]
fn lumpy_reclaim_under_threads_keeps_bytes() {
    churn(HighOrder::Both);
}

/// A block outlives the close that it refuses, and the cache that is dropped.
#[test]
fn a_block_keeps_its_memory() {
    let cache = Cache::builder().memory(16 << 20).build().unwrap();
    let mut block = cache.alloc_block(9, BlockOptions::patient()).unwrap();
    block.fill(3);
    assert_eq!(cache.close(), Err(Error::StillPinned(512)));
    let late = cache.alloc_block(1, BlockOptions::patient()).unwrap();
    drop(late);
    drop(cache);
    assert!(block.len() == 2 << 20 && block.iter().all(|b| *b == 3));
}
