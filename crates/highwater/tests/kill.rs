//! kill -9 in a loop: what a killed process was told to be synced is there, byte by byte. And a child's peak memory.
//!
//! The children are this same test program, told by an environment variable what to do.

mod common;

use common::child::{ROLE, command, kill_after, mix, run_and_kill};
use common::slow_disk::SlowDisk;
use common::{disk_dir, engines};
use highwater::{Cache, File, IoEngine, OpenOptions, PageNo};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

const PAGES: u64 = 3_000;
const SECTOR: usize = 512;
const BUDGET: u64 = 4 << 20;
const ROUNDS: u64 = 36;
const LIMIT: Duration = Duration::from_secs(20);

/// The pages that batch `v` writes.
fn pages_of(v: u64) -> Vec<u64> {
    (0..1 + mix(v) % 40)
        .map(|k| mix(v * 64 + k + 1) % PAGES)
        .collect()
}

/// What sector `s` of page `page` holds when batch `v` wrote it: the batch first, then bytes that follow from all three.
fn sector(page: u64, s: usize, v: u64) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    let words = bytes.as_chunks_mut::<8>().0;
    for (i, word) in words.iter_mut().enumerate() {
        let n = if i == 0 {
            v
        } else {
            mix(v ^ (page << 20) ^ ((s * 64 + i) as u64))
        };
        *word = n.to_le_bytes();
    }
    bytes
}

/// Not a test by itself: what the children do.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let words: Vec<_> = role.split('|').collect();
    let engine = match words[1] {
        "Uring" => IoEngine::Uring,
        _ => IoEngine::Threads,
    };
    match words[0] {
        "write" => write_for_ever(engine, Path::new(words[2]), words[3].parse().unwrap()),
        "load" => load(engine, Path::new(words[2])),
        "scatter" => scatter_for_ever(engine, Path::new(words[2])),
        other => panic!("{other}"),
    }
}

/// A file to write, in a small cache.
fn opened(engine: IoEngine, path: &Path) -> (Cache, File) {
    let cache = Cache::builder()
        .memory(BUDGET)
        .io_engine(engine)
        .build()
        .unwrap();
    let options = OpenOptions::new().write(true).create(true);
    let file = cache.open(path, options).unwrap();
    (cache, file)
}

fn write_for_ever(engine: IoEngine, path: &Path, first: u64) {
    let (_cache, file) = opened(engine, path);
    let mut out = std::io::stdout();
    for v in first.. {
        for (k, page) in pages_of(v).into_iter().enumerate() {
            let bytes: Vec<u8> = (0..8).flat_map(|s| sector(page, s, v)).collect();
            if k % 3 == 0 && (page << 12) < file.len() {
                file.page_mut(PageNo(page)).unwrap().copy_from_slice(&bytes);
                // The guard of the last page keeps only what lies within the file.
                file.write_at(&bytes, page << 12).unwrap();
            } else {
                file.write_at(&bytes, page << 12).unwrap();
            }
        }
        match v % 4 {
            0 => file.sync_all().unwrap(),
            1 => file.sync_range(0..u64::MAX).unwrap(),
            2 => file.sync_data().unwrap(),
            // Not every batch is synced by itself.
            _ => continue,
        }
        writeln!(out, "\nSYNCED {v}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn what_was_reported_synced_survives_kill_9() {
    let started = Instant::now();
    let engines = engines();
    let dir = disk_dir();
    let path = dir.path().join("records");
    // For each sector, the batch whose bytes it holds; 0: never written.
    let mut held = vec![[0u64; 8]; PAGES as usize];
    let (mut reported, mut rounds) = (0, 0);
    for round in 0..ROUNDS {
        if started.elapsed() > LIMIT {
            break;
        }
        rounds += 1;
        let first = round * 1_000_000 + 1;
        let engine = engines[round as usize % engines.len()];
        let role = format!("write|{engine:?}|{}|{first}", path.display());
        let after = Duration::from_millis(30 + mix(round + 77) % 450);
        let last = run_and_kill(&role, after).unwrap_or(first - 1);
        for v in first..=last {
            for page in pages_of(v) {
                held[page as usize] = [v; 8];
                reported += 1;
            }
        }
        check(&path, &mut held, last, first + 1_000_000, round);
    }
    println!(
        "{rounds} rounds, {reported} synced page writes checked, {:?}",
        started.elapsed()
    );
    assert!(rounds >= 20, "only {rounds} rounds in {LIMIT:?}");
    assert!(reported > 1_000, "only {reported} synced writes");
}

/// Reads all pages through a new cache. A sector holds what was synced last, or a later batch's write of that page.
fn check(path: &Path, held: &mut [[u64; 8]], last: u64, end: u64, round: u64) {
    if !path.exists() {
        return;
    }
    let cache = Cache::builder().memory(BUDGET).build().unwrap();
    let file = cache.open(path, OpenOptions::new().read(true)).unwrap();
    let mut bytes = vec![0; 4096];
    for page in 0..PAGES {
        bytes.fill(0);
        file.read_at(&mut bytes, page << 12).unwrap();
        for (s, got) in bytes.chunks(SECTOR).enumerate() {
            let v = u64::from_le_bytes(got[..8].try_into().unwrap());
            let known = &mut held[page as usize][s];
            let later = v > last && v < end && pages_of(v).contains(&page);
            assert!(
                v == *known || later,
                "round {round}: page {page}, sector {s}: batch {v}, synced was {known}, last reported {last}"
            );
            let wanted = if v == 0 {
                [0; SECTOR]
            } else {
                sector(page, s, v)
            };
            assert!(
                got == wanted,
                "round {round}: page {page}, sector {s} of batch {v}"
            );
            *known = v;
        }
    }
    drop(file);
    cache.close().unwrap();
}

/// A file that is written in no order, each page with a stamp.
const SCATTERED: u64 = 8 << 20;

fn scatter_for_ever(engine: IoEngine, path: &Path) {
    let (_cache, file) = opened(engine, path);
    file.set_len(SCATTERED).unwrap();
    for n in 1u64.. {
        let page = mix(n) % (SCATTERED >> 12);
        file.write_at(&n.to_le_bytes().repeat(512), page << 12)
            .unwrap();
    }
}

/// LOCK-3: requests of a process that has been killed are under way for some time, here more than half a second. Whoever opens
/// the file then must not meet them: they would come after what he writes.
#[test]
fn no_write_of_a_killed_process_comes_after_the_next_open() {
    let dir = disk_dir();
    let Some(slow) = SlowDisk::under(dir.path(), 200_000) else {
        eprintln!(
            "SKIPPED: no block I/O controller of cgroups that this user may set for this disk"
        );
        return;
    };
    for engine in engines() {
        let path = dir.path().join(format!("{engine:?}"));
        let role = format!("scatter|{engine:?}|{}", path.display());
        kill_after(slow.command(&role), Duration::from_millis(700));
        let cache = Cache::builder().memory(BUDGET).build().unwrap();
        let file = cache.open(&path, OpenOptions::new().write(true)).unwrap();
        let stamps = || -> Vec<u8> {
            let mut bytes = vec![0; SCATTERED as usize];
            file.evict(0..u64::MAX).unwrap();
            file.read_at(&mut bytes, 0).unwrap();
            bytes
                .chunks(4096)
                .flat_map(|page| &page[..8])
                .copied()
                .collect()
        };
        let first = stamps();
        assert!(
            first.iter().any(|b| *b != 0),
            "{engine:?}: nothing was written"
        );
        std::thread::sleep(Duration::from_millis(300));
        assert!(first == stamps(), "{engine:?}: a write after the open");
        drop(file);
        cache.close().unwrap();
    }
}

fn status_kib(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

const LOAD_BUDGET: u64 = 48 << 20;

/// Readers, writers, guards, syncs and evictions over four times the budget; prints how far memory rose.
fn load(engine: IoEngine, dir: &Path) {
    let idle = status_kib("VmHWM");
    let cache = Cache::builder()
        .memory(LOAD_BUDGET)
        .io_engine(engine)
        .build()
        .unwrap();
    let files: Vec<_> = (0..2)
        .map(|n| {
            let options = OpenOptions::new().write(true).create(true);
            let file = cache.open(dir.join(format!("{n}")), options).unwrap();
            file.set_len(2 * LOAD_BUDGET).unwrap();
            file
        })
        .collect();
    let end = Instant::now() + Duration::from_secs(3);
    std::thread::scope(|scope| {
        for t in 0..8u64 {
            let files = &files;
            scope.spawn(move || {
                let mut n = t << 32;
                let mut buf = vec![t as u8; 256 << 10];
                while Instant::now() < end {
                    n += 1;
                    let file = &files[(mix(n) % 2) as usize];
                    let at = mix(n + 1) % (2 * LOAD_BUDGET - (256 << 10));
                    match t {
                        0 | 1 => file.write_at(&buf, at).unwrap(),
                        2 => file.write_at(&buf[..100], at).unwrap(),
                        3 => file.page_mut(PageNo(at >> 12)).unwrap().fill(1),
                        4 | 5 => drop(file.read_at(&mut buf, at).unwrap()),
                        6 => {
                            let guards: Vec<_> = (0..16)
                                .map(|k| file.page(PageNo((at >> 12) + k)).unwrap())
                                .collect();
                            assert_eq!(guards.len(), 16);
                        }
                        _ => {
                            file.sync_data().unwrap();
                            file.evict(at..at + (8 << 20)).unwrap();
                        }
                    }
                }
            });
        }
    });
    let peak = status_kib("VmHWM");
    println!("\nROSE {}", peak - idle);
    drop(files);
    cache.close().unwrap();
}

#[test]
fn peak_memory_stays_within_the_budget_and_8_mib() {
    for engine in engines() {
        let dir = disk_dir();
        let output = command(&format!("load|{engine:?}|{}", dir.path().display()))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let rose: u64 = text
            .lines()
            .find_map(|l| l.strip_prefix("ROSE ")?.parse().ok())
            .expect("the child's report");
        let limit = (LOAD_BUDGET >> 10) + (8 << 10);
        println!("{engine:?}: {rose} KiB above idle, limit {limit} KiB");
        assert!(
            rose > LOAD_BUDGET >> 11,
            "the load does not fill memory: {rose} KiB"
        );
        assert!(
            rose <= limit,
            "{engine:?}: {rose} KiB above idle, limit {limit} KiB"
        );
    }
}
