//! Devices that do not answer, or take very long: every wait ends, and what was waited for is right in the end.

mod common;

use common::{LabFile, PAGE, Rig, device_on, io, lab, ms, page_pattern, ssd, survives_crashes};
use highwater_engine::io::IoOp;
use highwater_engine::{Config, Error, Nanos, PageNo};
use highwater_lab::{LabQueue, QueueOptions, RamDevice};
use std::sync::Arc;

fn impatient(c: &mut Config) {
    c.io_timeout = ms(1_000);
    c.latch_timeout = ms(500);
    c.alloc_timeout = ms(500);
}

/// The error of a wait that gave up, which took at most `limit`.
fn timed_out<T: std::fmt::Debug>(rig: &Rig, limit: Nanos, call: impl FnOnce() -> Result<T, Error>) {
    let (result, took) = rig.timed(call);
    assert!(matches!(result, Err(Error::TimedOut { .. })), "{result:?}");
    assert!(took <= limit, "after {took:?}");
}

/// The first reader of a page reads on its own thread, which no deadline can take back from the device; whoever else
/// wants the page is told in time.
#[test]
fn a_hung_read_holds_its_reader_only() {
    lab(1, 256, impatient, |rig| {
        let (file, device) = rig.file(1, 1024);
        rig.disk.hang_next(IoOp::Read, 1);
        let other = file.clone();
        let stuck = rig.spawn("stuck", move || {
            let guard = other.page(PageNo(500)).unwrap();
            assert!(*guard == page_pattern(500));
        });
        rig.nap(ms(10));
        timed_out(&rig, ms(1_010), || file.page(PageNo(500)).map(drop));
        timed_out(&rig, ms(1_010), || file.read_at(&mut [0; 9], 500 * PAGE));
        timed_out(&rig, ms(1_010), || file.write_at(b"x", 500 * PAGE));
        assert!(!stuck.ended());
        // All else goes on meanwhile.
        let mut buf = [0; 4096];
        for n in 0..400 {
            file.read_at(&mut buf, n * PAGE).unwrap();
            file.write_at(&buf, n * PAGE).unwrap();
        }
        file.sync_data().unwrap();
        assert_eq!(rig.disk.release_hung(), 1);
        rig.join(stuck, ms(100));
        rig.works(&file, &device);
        rig.engine.close().unwrap();
    });
}

#[test]
fn a_hung_readahead_request_times_out_and_is_right_after() {
    lab(2, 512, impatient, |rig| {
        let (file, device) = rig.file(1, 256);
        let mut buf = [0; 4096];
        file.read_at(&mut buf, 0).unwrap();
        rig.disk.hang_next(IoOp::Read, 1);
        // The second sequential miss starts a window, which hangs.
        timed_out(&rig, ms(1_010), || file.read_at(&mut [0; 4096], PAGE));
        timed_out(&rig, ms(1_010), || file.page(PageNo(1)).map(drop));
        // A truncation does not wait for a read: the late fill is thrown away.
        file.set_len(PAGE).unwrap();
        file.set_len(256 * PAGE).unwrap();
        assert_eq!(rig.disk.release_hung(), 1);
        rig.nap(ms(10));
        file.read_at(&mut buf, PAGE).unwrap();
        assert_eq!(
            buf, [0; 4096],
            "cut off, then grown: zeroes, not the late fill"
        );
        assert!(rig.stat("stale_fills") > 0);
        rig.works(&file, &device);
        rig.engine.close().unwrap();
    });
}

#[test]
fn a_hung_write_times_out_every_waiter_and_is_right_after() {
    lab(3, 256, impatient, |rig| {
        let (file, device) = rig.file(1, 64);
        file.write_at(&[0x5A; 4096], 9 * PAGE).unwrap();
        rig.disk.hang_next(IoOp::Write, 1);
        timed_out(&rig, ms(1_010), || file.sync_data());
        timed_out(&rig, ms(1_010), || file.sync_range(0..PAGE));
        timed_out(&rig, ms(1_010), || file.evict(0..u64::MAX));
        timed_out(&rig, ms(2_010), || file.set_len(PAGE));
        timed_out(&rig, ms(1_110), || rig.engine.close());
        assert_eq!(file.len(), 64 * PAGE);
        // Readers and writers of the page go on: a writer gets a copy.
        let mut buf = [0; 4096];
        file.read_at(&mut buf, 9 * PAGE).unwrap();
        assert_eq!(buf, [0x5A; 4096]);
        file.write_at(&[0x5B; 4096], 9 * PAGE).unwrap();
        assert_eq!(rig.stat("writeback_copies"), 1);
        timed_out(&rig, ms(1_010), || file.sync_data());
        assert_eq!(rig.disk.release_hung(), 1);
        file.sync_data().unwrap();
        survives_crashes(&device, 9 * PAGE, &[0x5B; 4096], "the newer copy");
        rig.works(&file, &device);
        rig.engine.close().unwrap();
    });
}

#[test]
fn a_hung_write_that_fails_in_the_end_leaves_the_page_dirty() {
    for rewritten in [false, true] {
        lab(4, 256, impatient, move |rig| {
            let (file, device) = rig.file(1, 64);
            file.write_at(&[0x5A; 4096], 9 * PAGE).unwrap();
            rig.disk.hang_next(IoOp::Write, 1);
            timed_out(&rig, ms(1_010), || file.sync_data());
            if rewritten {
                file.write_at(&[0x5B; 4096], 9 * PAGE).unwrap();
            }
            device.fail_writes(
                9 * PAGE..10 * PAGE,
                highwater_engine::IoErrorKind::Io,
                Nanos(u64::MAX),
            );
            rig.disk.release_hung();
            assert_eq!(
                io(file.sync_data(), "write").0,
                highwater_engine::IoErrorKind::Io
            );
            assert_eq!(rig.stat("nr_dirty"), 1);
            device.heal();
            let _ = file.sync_data();
            file.sync_data().unwrap();
            let byte = if rewritten { 0x5B } else { 0x5A };
            survives_crashes(&device, 9 * PAGE, &[byte; 4096], "healed");
            rig.works(&file, &device);
            rig.engine.close().unwrap();
        });
    }
}

/// Memory full of pages whose writes hang: readers find clean pages or are told; nobody hangs; all comes back.
#[test]
fn every_write_hangs_and_nobody_waits_for_ever() {
    for seed in 0..4 {
        lab(seed, 256, impatient, |rig| {
            let (file, device) = rig.file(1, 1024);
            rig.disk.hang_next(IoOp::Write, 1_000);
            let jobs: Vec<_> = (0..4u64)
                .map(|t| {
                    let (rig2, file) = (rig.clone(), file.clone());
                    rig.spawn("writer", move || {
                        let mut refused = 0;
                        for i in 0..100u64 {
                            let n = t * 256 + i;
                            let (result, took) =
                                rig2.timed(|| file.write_at(&[n as u8; 4096], n * PAGE));
                            assert!(took <= ms(2_100), "{took:?}");
                            match result {
                                Ok(()) => {}
                                Err(Error::TimedOut { .. } | Error::OutOfMemory(_)) => refused += 1,
                                Err(e) => panic!("{e}"),
                            }
                        }
                        refused
                    })
                })
                .collect();
            for job in jobs {
                assert!(rig.join(job, ms(250_000)) > 0, "memory never ran out");
            }
            assert!(rig.disk.release_hung() > 0);
            file.sync_data().unwrap();
            assert_eq!(rig.stat("nr_dirty") + rig.stat("nr_writeback"), 0);
            rig.works(&file, &device);
            rig.engine.close().unwrap();
        });
    }
}

/// A file on a disk of 10 MB/s: a request of 1 MiB in 100 ms.
fn slow_file(rig: &Rig) -> (LabFile, Arc<RamDevice>) {
    let slow = LabQueue::new(
        &rig.world,
        QueueOptions {
            id: 9,
            model: ssd(4, 100_000),
            ..QueueOptions::default()
        },
    );
    let device = device_on(&slow, 1024 * PAGE);
    (rig.open(1, &device), device)
}

/// A disk that is slow but answers is not a disk that hangs: a sync longer than the limit for one request succeeds.
#[test]
fn a_sync_may_take_longer_than_one_request_may() {
    lab(
        5,
        2048,
        |c| c.io_timeout = ms(200),
        |rig| {
            let (file, device) = slow_file(&rig);
            for n in 0..800 {
                file.write_at(&[7; 4096], n * PAGE).unwrap();
            }
            let (result, took) = rig.timed(|| file.sync_data());
            result.expect("the disk makes progress all the time");
            assert!(took > ms(250), "the test's disk is too quick: {took:?}");
            for n in 0..800 {
                file.write_at(&[8; 4096], n * PAGE).unwrap();
            }
            file.evict(0..u64::MAX).expect("evict waits for progress");
            for n in 0..800 {
                file.write_at(&[9; 4096], n * PAGE).unwrap();
            }
            rig.nap(ms(1));
            rig.engine.close().expect("close waits for progress");
            survives_crashes(&device, 799 * PAGE, &[9; 4096], "closed");
        },
    );
}

/// The same disk, and whoever waits for another task's call on the file: the disk answers all the time, so that nobody's wait
/// is too long.
#[test]
fn nobody_is_told_that_a_slow_disk_hangs() {
    lab(
        5,
        2048,
        |c| c.io_timeout = ms(200),
        |rig| {
            let (file, device) = slow_file(&rig);
            let dirty = |value| {
                for n in 0..800 {
                    file.write_at(&[value; 4096], n * PAGE).unwrap();
                }
            };
            let beside = |name: &str, call: fn(&LabFile) -> Result<(), Error>| {
                let other = file.clone();
                let job = rig.spawn(name, move || call(&other));
                rig.nap(ms(1));
                job
            };
            // Another sync of the file.
            dirty(1);
            let job = beside("first", |file| file.sync_data());
            let (result, took) = rig.timed(|| file.sync_data());
            result.expect("a sync beside a sync");
            assert!(took > ms(250), "the test's disk is too quick: {took:?}");
            rig.join(job, ms(1_000)).unwrap();
            // A truncation that waits for what is in flight, and those who wait for it.
            dirty(2);
            let sync = beside("sync", |file| file.sync_data());
            let shorter = beside("set_len", |file| file.set_len(900 * PAGE));
            let hole = beside("discard", |file| file.discard(850 * PAGE..860 * PAGE));
            let (result, took) = rig.timed(|| file.write_at(&[3; 4096], 799 * PAGE));
            result.expect("a write beside a truncation");
            assert!(took > ms(250), "the test's disk is too quick: {took:?}");
            for job in [sync, shorter, hole] {
                rig.join(job, ms(1_000)).unwrap();
            }
            // A page that was rewritten while its write is in flight.
            dirty(4);
            let sync = beside("sync", |file| file.sync_range(0..800 * PAGE - 1));
            file.write_at(&[5; 4096], 799 * PAGE).unwrap();
            assert!(rig.stat("writeback_copies") > 0);
            let (result, took) = rig.timed(|| file.sync_data());
            result.expect("a sync that waits for the write of an older copy");
            assert!(took > ms(250), "the test's disk is too quick: {took:?}");
            rig.join(sync, ms(1_000)).unwrap();
            survives_crashes(&device, 799 * PAGE, &[5; 4096], "synced");
            rig.engine.close().unwrap();
        },
    );
}

/// A cache is dropped with a request that never ends: bounded, and its memory is not touched by anybody else.
#[test]
fn abandoning_with_a_hung_request_is_bounded() {
    lab(6, 256, impatient, |rig| {
        let (file, _device) = rig.file(1, 64);
        file.write_at(&[1; 4096], 0).unwrap();
        rig.disk.hang_next(IoOp::Write, 1);
        timed_out(&rig, ms(1_010), || file.sync_data());
        let ((), took) = rig.timed(|| rig.engine.abandon());
        assert!(took <= ms(6_100), "after {took:?}");
        rig.disk.release_hung();
        rig.nap(ms(10));
        assert_eq!(rig.disk.in_flight(), 0);
    });
}
