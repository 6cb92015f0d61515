//! Files that are opened, closed, renamed, linked, unlinked, truncated and grown by several threads at once, each against a
//! shadow: whatever lives and dies meanwhile (devices, locks, mappings, descriptors), the bytes are those of the last write.

mod common;

use common::{disk_dir, engines};
use highwater::{Cache, Error, File, IoEngine, OpenOptions};
use parking_lot::Mutex;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

const FILES: u64 = 6;
const LEN_MAX: u64 = 40_000;

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A file, by two names, and what it holds.
struct Shadow {
    name: PathBuf,
    link: PathBuf,
    bytes: Vec<u8>,
    /// A handle that stays open for a while.
    kept: Option<(File, bool)>,
}

impl Shadow {
    fn new(dir: &Path, n: u64) -> Shadow {
        let (name, link) = (dir.join(format!("{n}")), dir.join(format!("{n}-link")));
        std::fs::write(&name, []).unwrap();
        std::fs::hard_link(&name, &link).unwrap();
        Shadow {
            name,
            link,
            bytes: Vec::new(),
            kept: None,
        }
    }

    fn open(&mut self, cache: &Cache, rng: &mut Rng) -> (File, bool) {
        if let Some(kept) = self.kept.take_if(|_| rng.one_in(2)) {
            return kept;
        }
        let write = rng.one_in(2);
        let mut options = OpenOptions::new().read(true).write(write);
        if write && rng.one_in(10) {
            options = options.truncate(true);
            self.bytes.clear();
        }
        let path = if rng.one_in(2) {
            &self.name
        } else {
            &self.link
        };
        (cache.open(path, options).unwrap(), write)
    }

    fn check(&self, file: &File, what: &str) {
        assert_eq!(file.len(), self.bytes.len() as u64, "{what}: length");
        let mut bytes = vec![0xEE; self.bytes.len()];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
        if let Some(at) = (0..bytes.len()).find(|i| bytes[*i] != self.bytes[*i]) {
            panic!("{what}: byte {at} of {}", bytes.len());
        }
    }

    fn change(&mut self, file: &File, rng: &mut Rng) {
        let at = rng.below(LEN_MAX);
        if rng.one_in(4) {
            file.set_len(at).unwrap();
            self.bytes.resize(at as usize, 0);
            return;
        }
        let (from, byte) = (at as usize, rng.below(255) as u8 + 1);
        let len = rng.below(9_000) as usize + 1;
        file.write_at(&vec![byte; len], at).unwrap();
        let end = self.bytes.len().max(from + len);
        self.bytes.resize(end, 0);
        self.bytes[from..from + len].fill(byte);
    }

    /// Both names go, and another file takes them.
    fn replace(&mut self) {
        std::fs::remove_file(&self.name).unwrap();
        std::fs::write(&self.link, b"another").unwrap_or_default();
        std::fs::remove_file(&self.link).unwrap();
        std::fs::write(&self.name, []).unwrap();
        std::fs::hard_link(&self.name, &self.link).unwrap();
        self.bytes.clear();
        self.kept = None;
    }

    fn turn(&mut self, cache: &Cache, rng: &mut Rng) {
        if rng.one_in(12) {
            self.replace();
        }
        if rng.one_in(6) {
            let (old, moved) = (self.name.clone(), self.name.with_extension("moved"));
            std::fs::rename(&old, &moved).unwrap();
            std::fs::rename(&moved, &old).unwrap();
        }
        let (file, write) = self.open(cache, rng);
        self.check(&file, "opened");
        for _ in 0..rng.below(4) {
            if write {
                self.change(&file, rng);
            } else {
                assert_eq!(file.write_at(b"x", 0), Err(Error::ReadOnly));
            }
        }
        if rng.one_in(3) {
            file.sync_data().unwrap();
            assert!(std::fs::read(&self.name).unwrap() == self.bytes, "synced");
        }
        if rng.one_in(4) {
            file.evict(0..u64::MAX).unwrap();
            self.check(&file, "evicted");
        }
        if rng.one_in(3) {
            self.kept = Some((file, write));
        }
    }
}

fn churn(engine: IoEngine, dir: &Path, seed: u64, turns: u32) {
    let cache = Cache::builder()
        .memory(4 << 20)
        .io_engine(engine)
        .build()
        .unwrap();
    let files: Vec<_> = (0..FILES)
        .map(|n| Mutex::new(Shadow::new(dir, n)))
        .collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        let workers: Vec<_> = (0..4)
            .map(|thread| {
                let (cache, files) = (&cache, &files);
                s.spawn(move || {
                    let mut rng = Rng(seed * 100 + thread);
                    for _ in 0..turns {
                        files[rng.below(FILES) as usize]
                            .lock()
                            .turn(cache, &mut rng);
                    }
                })
            })
            .collect();
        // Comes and goes in between, whatever the others do with the file.
        s.spawn(|| {
            let mut rng = Rng(seed);
            while !stop.load(Ordering::Relaxed) {
                let path = dir.join(format!("{}", rng.below(FILES)));
                let options = OpenOptions::new().read(true).write(rng.one_in(3));
                match cache.open(&path, options) {
                    Ok(file) => drop(file.read_at(&mut [0; 100], rng.below(LEN_MAX))),
                    Err(Error::Os { errno, .. }) => assert_eq!(errno, libc::ENOENT),
                    Err(e) => panic!("{e}"),
                }
            }
        });
        let ended: Vec<_> = workers.into_iter().map(|w| w.join()).collect();
        stop.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok), "seed {seed}");
    });
    for file in &files {
        file.lock().kept = None;
    }
    cache.close().unwrap();
    for file in files {
        let file = file.into_inner();
        assert!(std::fs::read(&file.name).unwrap() == file.bytes);
        assert_eq!(std::fs::metadata(&file.link).unwrap().nlink(), 2);
    }
}

#[test]
fn files_that_come_and_go_keep_their_bytes() {
    for engine in engines() {
        for seed in 0..3 {
            let dir = disk_dir();
            churn(engine, dir.path(), seed, 400);
        }
    }
}

#[test]
fn the_whole_suite_without_io_uring() {
    common::rerun_without_io_uring();
}
