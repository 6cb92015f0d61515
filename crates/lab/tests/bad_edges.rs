//! The edges: lengths, offsets, budgets, writers that never stop, disks that share a cache, power failures.

mod common;

use common::{PAGE, device_on, io, lab, ms, page_pattern, ssd, survives_crashes};
use highwater_engine::{Config, Engine, Error, IoErrorKind, Nanos, PageNo};
use highwater_lab::{LabOptions, LabQueue, LabWorld, QueueOptions, Rng};
use std::cell::Cell;
use std::rc::Rc;

fn nothing(_: &mut Config) {}

#[test]
fn reading_beyond_the_end_is_nothing_or_out_of_range() {
    lab(1, 256, nothing, |rig| {
        let device = rig.device(3 * PAGE + 10);
        let file = rig.open(1, &device);
        let len = 3 * PAGE + 10;
        let mut buf = [0; 64];
        for at in [len, len + 1, 4 * PAGE, 1 << 62, u64::MAX] {
            assert_eq!(file.read_at(&mut buf, at), Ok(0), "at {at}");
        }
        assert_eq!(file.read_at(&mut buf, len - 5), Ok(5));
        assert_eq!(file.read_at(&mut [], 0), Ok(0));
        for page in [4, 5, 1 << 50, u64::MAX >> 12, u64::MAX] {
            let out = Some(Error::OutOfRange { page, len });
            assert_eq!(file.page(PageNo(page)).err(), out);
            assert_eq!(file.page_mut(PageNo(page)).err(), out);
        }
        assert_eq!(file.len(), len);
        assert_eq!(file.evict(u64::MAX - 1..u64::MAX), Ok(0));
        #[allow(clippy::reversed_empty_ranges)]
        let reversed = 10 * PAGE..PAGE;
        file.sync_range(reversed.clone()).unwrap();
        assert_eq!(file.evict(reversed), Ok(0));
        rig.works(&file, &device);
        rig.engine.close().unwrap();
    });
}

#[test]
fn writes_end_at_two_to_the_63() {
    lab(2, 256, nothing, |rig| {
        let (file, device) = rig.file(1, 4);
        let last = i64::MAX as u64;
        for (at, n) in [
            (last, 1),
            (last - 3, 4),
            (u64::MAX, 1),
            (u64::MAX - 3, 4),
            (1 << 63, 1),
        ] {
            let result = file.write_at(&vec![1; n + 1], at);
            assert!(matches!(result, Err(Error::Config(_))), "{at}: {result:?}");
        }
        for len in [1 << 63, u64::MAX] {
            assert!(matches!(file.set_len(len), Err(Error::Config(_))), "{len}");
        }
        assert_eq!(file.len(), 4 * PAGE);
        assert_eq!(rig.stat("nr_dirty"), 0);
        // The very last byte that a file can have is written and read; cut off before the device must keep it.
        file.write_at(b"z", last - 1).unwrap();
        assert_eq!(file.len(), last);
        let mut one = [0];
        assert_eq!(file.read_at(&mut one, last - 1), Ok(1));
        assert_eq!(one, *b"z");
        file.set_len(4 * PAGE).unwrap();
        rig.works(&file, &device);
        rig.engine.close().unwrap();
    });
}

#[test]
fn shrink_then_grow_reads_zeroes() {
    for seed in 0..10 {
        lab(seed, 256, nothing, move |rig| {
            let (file, device) = rig.file(1, 64);
            let mut rng = Rng::new(seed, 3);
            let mut model: Vec<u8> = (0..64).flat_map(page_pattern).collect();
            for _ in 0..60 {
                if rng.chance(400_000) {
                    let at = rng.below(64 * PAGE - 5_000) as usize;
                    if model.len() < at + 5_000 {
                        model.resize(at + 5_000, 0);
                    }
                    model[at..at + 5_000].fill(0xB0);
                    file.write_at(&[0xB0; 5_000], at as u64).unwrap();
                }
                if rng.chance(200_000) {
                    file.evict(0..u64::MAX).unwrap();
                }
                let len = rng.below(64 * PAGE);
                file.set_len(len).unwrap();
                model.resize(len as usize, 0);
                file.set_len(64 * PAGE).unwrap();
                model.resize(64 * 4096, 0);
                let mut all = vec![1; 64 * 4096];
                assert_eq!(file.read_at(&mut all, 0), Ok(all.len()));
                assert!(all == model, "seed {seed}, cut to {len}");
            }
            file.sync_data().unwrap();
            assert!(device.visible() == model);
            survives_crashes(&device, 0, &model, "synced");
            rig.works(&file, &device);
            rig.engine.close().unwrap();
        });
    }
}

#[test]
fn a_read_only_handle_changes_nothing() {
    lab(3, 256, nothing, |rig| {
        let device = rig.device(8 * PAGE);
        let reader = rig.try_open(1, &device, false).unwrap();
        assert_eq!(reader.write_at(b"x", 0), Err(Error::ReadOnly));
        assert_eq!(reader.page_mut(PageNo(0)).err(), Some(Error::ReadOnly));
        assert_eq!(reader.set_len(0), Err(Error::ReadOnly));
        assert!(*reader.page(PageNo(0)).unwrap() == page_pattern(0));
        reader.sync_data().unwrap();
        assert!(matches!(
            rig.try_open(1, &device, true),
            Err(Error::Conflict(_))
        ));
        assert_eq!(rig.stat("nr_dirtied"), 0);
        drop(reader);
        rig.nap(ms(10));
        let writer = rig.open(1, &device);
        let reader = rig.try_open(1, &device, false).unwrap();
        assert_eq!(reader.write_at(b"x", 0), Err(Error::ReadOnly));
        rig.works(&writer, &device);
        assert_eq!(reader.read_at(&mut [0; 8], 0), Ok(8));
        rig.engine.close().unwrap();
    });
}

#[test]
fn a_writer_that_never_stops_does_not_keep_a_sync_from_ending() {
    for seed in 0..6 {
        lab(seed, 512, nothing, move |rig| {
            let (file, device) = rig.file(1, 256);
            let stop = Rc::new(Cell::new(false));
            // Even seeds: everywhere; odd ones: one page, again and again.
            let pages = if seed % 2 == 0 { 256 } else { 1 };
            let writers: Vec<_> = (0..3)
                .map(|t| {
                    let (stop, file) = (stop.clone(), file.clone());
                    rig.spawn("writer", move || {
                        let mut rng = Rng::new(seed, 10 + t);
                        let mut n = 0u64;
                        while !stop.get() {
                            let page = rng.below(pages);
                            file.write_at(&[n as u8; 4096], page * PAGE).unwrap();
                            n += 1;
                        }
                        n
                    })
                })
                .collect();
            rig.nap(ms(20));
            for _ in 0..20 {
                let before = rig.stat("written_sync");
                let (result, took) = rig.timed(|| file.sync_data());
                result.unwrap();
                assert!(took < ms(500), "seed {seed}: a sync took {took:?}");
                let written = rig.stat("written_sync") - before;
                assert!(written <= pages, "seed {seed}: {written} of {pages} pages");
            }
            stop.set(true);
            for w in writers {
                assert!(rig.join(w, ms(1_000)) > 20);
            }
            rig.works(&file, &device);
            rig.engine.close().unwrap();
        });
    }
}

#[test]
fn the_throttle_lifts_again() {
    for preset in highwater_engine::Preset::ALL {
        lab(
            4,
            1024,
            |c| c.policy = preset.policy(),
            move |rig| {
                let (file, device) = rig.file(1, 4096);
                for n in 0..8_192 {
                    file.write_at(&[1; 4096], n % 4096 * PAGE).unwrap();
                }
                assert!(
                    rig.stat("balance_dirty_pause") > 0,
                    "{preset}: never throttled"
                );
                rig.nap(ms(5_000));
                assert_eq!(rig.stat("nr_dirty"), 0, "{preset}: not written back in 5 s");
                let before = rig.stat("balance_dirty_pause_ns");
                for n in 0..64 {
                    let ((), took) = rig.timed(|| file.write_at(&[2; 4096], n * PAGE).unwrap());
                    assert!(took < ms(1), "{preset}: write {n} took {took:?}");
                }
                assert_eq!(rig.stat("balance_dirty_pause_ns"), before, "{preset}");
                rig.works(&file, &device);
                rig.engine.close().unwrap();
            },
        );
    }
}

/// How many writes of one page a writer gets done on a healthy disk in 50 ms, and its longest write.
fn beside(other: Option<&'static str>) -> (u64, Nanos) {
    let result = Rc::new(Cell::new((0, Nanos::ZERO)));
    let theirs = result.clone();
    lab(
        5,
        1024,
        |c| c.io_timeout = ms(5_000),
        move |rig| {
            let (good, good_device) = rig.file(1, 8192);
            let bad_disk = LabQueue::new(
                &rig.world,
                QueueOptions {
                    id: 2,
                    // 1 MiB/s, or as quick as the other.
                    model: ssd(
                        32,
                        if other == Some("slow") {
                            1_000_000
                        } else {
                            500
                        },
                    ),
                    ..QueueOptions::default()
                },
            );
            let bad_device = device_on(&bad_disk, 8192 * PAGE);
            let bad = rig.open(2, &bad_device);
            if other == Some("failing") {
                bad_device.fail_writes(0..u64::MAX, IoErrorKind::Io, Nanos(u64::MAX));
            }
            let stop = Rc::new(Cell::new(false));
            let (stop2, rig2, bad2) = (stop.clone(), rig.clone(), bad.clone());
            let noise = rig.spawn("noise", move || {
                let mut n = 0;
                while !stop2.get() && other.is_some() {
                    if bad2.write_at(&[1; 4096], n % 8192 * PAGE).is_err() {
                        rig2.nap(ms(10));
                    }
                    n += 1;
                }
            });
            rig.nap(ms(2_500));
            let end = rig.now().plus(ms(50));
            let (mut n, mut longest) = (0, Nanos::ZERO);
            while rig.now() < end {
                let (done, took) = rig.timed(|| good.write_at(&[2; 4096], n % 8192 * PAGE));
                done.expect("a healthy disk's writer gets no error");
                longest = longest.max(took);
                n += 1;
            }
            theirs.set((n, longest));
            stop.set(true);
            rig.join(noise, ms(20_000));
            bad_device.heal();
            let _ = bad.sync_data();
            bad.sync_data().unwrap();
            rig.works(&good, &good_device);
            rig.engine.close().unwrap();
        },
    );
    result.get()
}

/// A failing disk costs the writers of another nothing. A slow one still does: dirty pages are limited together, and a
/// slow disk's writers fill the limit; what is certain is that the healthy disk's writers go on without an error.
#[test]
fn a_slow_or_failing_disk_beside_a_healthy_one() {
    let (alone, _) = beside(None);
    let (failing, longest) = beside(Some("failing"));
    assert!(
        failing * 2 > alone,
        "beside a failing disk: {failing} of {alone}"
    );
    assert!(longest < ms(20), "beside a failing disk: {longest:?}");
    let (slow, longest) = beside(Some("slow"));
    println!(
        "writes in 50 ms: alone {alone}, beside a failing disk {failing}, beside a slow one {slow}, the longest {longest:?}"
    );
    assert!(
        slow > 0 && longest < ms(2_000),
        "beside a slow disk: {longest:?}"
    );
}

#[test]
fn crash_images_after_each_sync_hold_what_was_synced() {
    for seed in 0..6 {
        lab(seed, 256, nothing, move |rig| {
            let (file, device) = rig.file(1, 512);
            let mut rng = Rng::new(seed, 5);
            // What each page held at the last sync, and may hold since.
            let mut synced: Vec<Vec<u8>> = (0..512).map(|_| Vec::new()).collect();
            let mut now: Vec<Vec<u8>> = synced.clone();
            for round in 1..=12u8 {
                for _ in 0..100 {
                    let n = rng.below(512);
                    let byte = round.wrapping_mul(16).wrapping_add(rng.below(16) as u8);
                    file.write_at(&[byte; 4096], n * PAGE).unwrap();
                    now[n as usize].push(byte);
                }
                if rng.chance(500_000) {
                    file.sync_data().unwrap();
                    for (s, n) in synced.iter_mut().zip(&mut now) {
                        if let Some(last) = n.last().copied() {
                            *s = vec![last];
                        }
                        n.clear();
                    }
                }
                let image = device.crash_image(&mut rng);
                for (n, s) in synced.iter().enumerate() {
                    let (Some(kept), true) = (s.last(), now[n].is_empty()) else {
                        continue;
                    };
                    let at = n * 4096;
                    assert!(
                        image[at..at + 4096].iter().all(|b| b == kept),
                        "seed {seed}, round {round}: page {n} was synced as {kept:#x}"
                    );
                }
                for (n, pending) in now.iter().enumerate().filter(|(_, p)| !p.is_empty()) {
                    // Torn at most at 512 bytes, and each sector is the synced one or a later one.
                    for (i, sector) in image[n * 4096..][..4096].chunks(512).enumerate() {
                        let old = synced[n].last().map_or_else(
                            || page_pattern(n as u64)[i * 512..][..512].to_vec(),
                            |b| vec![*b; 512],
                        );
                        let later = pending.iter().any(|b| sector == [*b; 512]);
                        assert!(later || sector == old, "seed {seed}: page {n}, sector {i}");
                    }
                }
            }
            file.sync_data().unwrap();
            rig.works(&file, &device);
            rig.engine.close().unwrap();
        });
    }
}

#[test]
fn absurd_budgets_are_refused_and_small_ones_work() {
    let build = |memory: u64, frame_size: usize| {
        let world = LabWorld::new(LabOptions::new(1));
        let w = world.clone();
        world
            .run(move || {
                let mut config = Config::new(memory);
                config.frame_size = frame_size;
                Engine::new(w, config).map(|e| {
                    e.close().unwrap();
                    e.stats().frames
                })
            })
            .value
    };
    for frame_size in [4096, 65536] {
        for memory in [0, 1, 4095, 4096, 60 * 4096, u64::MAX, u64::MAX - 1, 1 << 63] {
            let result = build(memory, frame_size);
            assert!(
                matches!(result, Err(Error::Config(_))),
                "{memory}: {result:?}"
            );
        }
    }
    for frame_size in [0, 1, 512, 4095, 5000, 131_072, usize::MAX] {
        let result = build(1 << 20, frame_size);
        assert!(matches!(result, Err(Error::Config(_))), "{result:?}");
    }
    let Err(Error::Config(text)) = build(1, 4096) else {
        panic!("accepted")
    };
    // The remedy it names is true.
    let least: u64 = text
        .split_whitespace()
        .filter_map(|w| w.parse().ok())
        .next_back()
        .expect("a number");
    assert!(build(least, 4096).unwrap() >= 64, "{text}");
}

/// The smallest cache there is does everything.
#[test]
fn the_smallest_cache_works() {
    for seed in 0..4 {
        lab(
            seed,
            0,
            |c| c.memory = 400 << 10,
            move |rig| {
                assert!(rig.engine.stats().frames < 90);
                let (file, device) = rig.file(1, 512);
                let jobs: Vec<_> = (0..3)
                    .map(|t| {
                        let file = file.clone();
                        rig.spawn("user", move || {
                            let mut rng = Rng::new(seed, t);
                            let mut buf = [0; 4096];
                            for _ in 0..500 {
                                let n = rng.below(512);
                                if rng.chance(500_000) {
                                    file.write_at(&page_pattern(n), n * PAGE).unwrap();
                                } else {
                                    file.read_at(&mut buf, n * PAGE).unwrap();
                                    assert!(buf[..] == page_pattern(n)[..]);
                                }
                            }
                        })
                    })
                    .collect();
                for job in jobs {
                    rig.join(job, ms(60_000));
                }
                rig.works(&file, &device);
                rig.engine.close().unwrap();
            },
        );
    }
}

/// Settings that make a timer of zero length must not make a task spin in no time.
#[test]
fn intervals_of_zero_do_not_spin() {
    let zero = |c: &mut Config| {
        c.writeback_interval = Nanos::ZERO;
        c.dirty_expire = Nanos::ZERO;
        c.readahead_max = 0;
    };
    lab(6, 256, zero, |rig| {
        let (file, device) = rig.file(1, 64);
        rig.works(&file, &device);
        device.fail_writes(0..PAGE, IoErrorKind::Io, Nanos(u64::MAX));
        file.write_at(b"x", 0).unwrap();
        rig.nap(ms(1_000));
        assert_eq!(io(file.sync_data(), "write").0, IoErrorKind::Io);
        device.heal();
        let _ = file.sync_data();
        rig.works(&file, &device);
        rig.engine.close().unwrap();
    });
}
