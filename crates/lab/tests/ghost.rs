//! Ghost memory: frames without bytes take the very same course as real ones, and a machine of 64 GiB fits anywhere.

mod common;

use common::PAGE;
use highwater_engine::backing::PlainBacking;
use highwater_engine::{Config, Engine, File, FileId, FileOptions, Nanos, PageNo, Stats, World};
use highwater_lab::{LabOptions, LabQueue, LabWorld, QueueOptions, RamDevice, RamOptions, Rng};
use std::sync::Arc;

/// What a run leaves behind.
#[derive(PartialEq, Debug)]
struct Left {
    trace: u64,
    now: Nanos,
    steps: u64,
    stats: Stats,
}

/// A file of 8 x memory under readers, writers, guards, syncs and truncations. No step rests on a byte.
fn busy(seed: u64, ghost_memory: bool, ghost_disk: bool) -> Left {
    let world = LabWorld::new(LabOptions {
        ghost: ghost_memory,
        ..LabOptions::new(seed)
    });
    let w = world.clone();
    let run = world.run(move || {
        let disk = LabQueue::new(&w, QueueOptions::default());
        let mut config = Config::new(4 << 20);
        config.readahead_max = 128 << 10;
        let engine = Engine::new(w.clone(), config).unwrap();
        let options = RamOptions {
            len: 32 << 20,
            ghost: ghost_disk,
            ..RamOptions::default()
        };
        let backing = Arc::new(PlainBacking::new(RamDevice::new(&disk, options)));
        let id = FileId { dev: 1, ino: 1 };
        let file = engine
            .open(id, backing, FileOptions { write: true })
            .unwrap();
        let users: Vec<_> = (0..4)
            .map(|n| {
                let (file, seed) = (file.clone(), seed * 10 + n);
                w.spawn_local("user", move || use_file(&file, seed))
            })
            .collect();
        let mut rng = Rng::new(seed, 10);
        for user in users {
            // Frames are checked while users, kswapd and the flusher are inside.
            while !w.join(user, w.now().plus(Nanos::from_micros(200))) {
                let first = rng.below(900);
                w.uninterrupted(|| engine.check_frames(first, 100));
            }
            assert!(w.join(user, Nanos::from_secs(600)));
        }
        file.set_len(5 * PAGE + 17).unwrap();
        file.sync_data().unwrap();
        engine.check_invariants();
        let stats = engine.stats();
        drop(file);
        engine.close().unwrap();
        stats
    });
    assert!(run.leaked.is_empty(), "{:?}", run.leaked);
    Left {
        trace: run.trace,
        now: run.now,
        steps: run.steps,
        stats: run.value,
    }
}

fn use_file(file: &File<LabWorld>, seed: u64) {
    let mut rng = Rng::new(seed, 9);
    let mut buf = vec![seed as u8; 3 * PAGE as usize];
    for turn in 0..3_000 {
        let at = rng.below(8_000 * PAGE);
        let n = rng.between(1, buf.len() as u64) as usize;
        match rng.below(200) {
            0..50 => file.write_at(&buf[..n], at).unwrap(),
            50..150 => assert!(file.read_at(&mut buf[..n], at).unwrap() > 0),
            150..170 => {
                assert_eq!(file.page(PageNo(at / PAGE)).unwrap().len(), PAGE as usize);
            }
            170..199 => file.page_mut(PageNo(at / PAGE)).unwrap()[n % 4096] = turn as u8,
            _ => file.sync_data().unwrap(),
        }
    }
}

#[test]
fn two_runs_of_a_seed_are_the_same_with_ghosts_and_without() {
    for seed in 1..4 {
        for ghost in [false, true] {
            let first = busy(seed, ghost, ghost);
            assert_eq!(
                first,
                busy(seed, ghost, ghost),
                "seed {seed}, ghost {ghost}"
            );
            assert!(first.stats.get("pgsteal_kswapd") > 0, "memory was short");
            assert!(first.stats.get("written_flusher") > 0, "pages were written");
        }
    }
    assert_ne!(busy(1, true, true).trace, busy(2, true, true).trace);
}

/// GHOST-1: nothing rests on a byte, so that leaving them out changes no step, no counter and no time.
#[test]
fn ghost_1_a_ghost_takes_the_very_course_of_real_memory() {
    for seed in 1..6 {
        let real = busy(seed, false, false);
        assert_eq!(real, busy(seed, true, true), "seed {seed}");
        assert_eq!(real, busy(seed, false, true), "seed {seed}, a disk without");
    }
}

#[test]
#[should_panic(expected = "GHOST-1")]
fn ghost_1_a_disk_with_bytes_is_refused() {
    busy(1, true, false);
}

#[test]
fn sixty_four_gib_are_tables_only() {
    let world = LabWorld::new(LabOptions {
        ghost: true,
        ..LabOptions::calm(1)
    });
    let w = world.clone();
    world.run(move || {
        let disk = LabQueue::new(&w, QueueOptions::default());
        let engine = Engine::new(w.clone(), Config::new(64 << 30)).unwrap();
        assert!(engine.stats().frames > 16_000_000);
        let options = RamOptions {
            len: 1 << 40,
            ghost: true,
            ..RamOptions::default()
        };
        let backing = Arc::new(PlainBacking::new(RamDevice::new(&disk, options)));
        let id = FileId { dev: 1, ino: 1 };
        let file = engine
            .open(id, backing, FileOptions { write: true })
            .unwrap();
        for i in 0..1_000 {
            file.write_at(&[1; 4096], i << 30).unwrap();
            file.read_at(&mut [0; 4096], (i << 30) + 4096).unwrap();
        }
        file.sync_data().unwrap();
        assert!(file.len() == 1 << 40);
        drop(file);
        engine.close().unwrap();
    });
    let peak = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = peak.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    let kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 4 << 20, "{kib} KiB for a machine of 64 GiB");
}
