//! Devices that fail: what each error does to the caller, to the pages, and to what was promised to be durable.

mod common;

use common::{PAGE, io, lab, ms, page_pattern, survives_crashes};
use highwater_engine::backing::PlainBacking;
use highwater_engine::io::{IoBuf, Lane, Request};
use highwater_engine::world::{Device, Queue};
use highwater_engine::{Error, FileId, FileOptions, IoError, IoErrorKind, Nanos, PageNo};
use highwater_lab::RamDevice;
use std::sync::Arc;

const FOR_EVER: Nanos = Nanos(u64::MAX);

fn nothing(_: &mut highwater_engine::Config) {}

#[test]
fn a_read_error_names_its_byte_and_harms_no_neighbour() {
    lab(1, 512, nothing, |rig| {
        let (file, device) = rig.file(1, 64);
        let bad = 20 * PAGE + 512;
        device.fail_reads(bad..bad + 512, IoErrorKind::Io, FOR_EVER);
        let mut buf = vec![0; PAGE as usize];
        for n in [19, 21] {
            assert_eq!(file.read_at(&mut buf, n * PAGE), Ok(buf.len()));
            assert!(buf == page_pattern(n), "neighbour {n}");
        }
        for _ in 0..2 {
            let by_copy = io(file.read_at(&mut buf, 20 * PAGE), "read");
            assert_eq!(by_copy, (IoErrorKind::Io, bad));
            let by_guard = io(file.page(PageNo(20)).map(drop), "read");
            assert_eq!(by_guard, (IoErrorKind::Io, bad));
            let by_writer = io(file.page_mut(PageNo(20)).map(drop), "read");
            assert_eq!(by_writer, (IoErrorKind::Io, bad));
        }
        // A write of a part needs the rest; on the error nothing has changed.
        assert_eq!(
            io(file.write_at(b"part", 20 * PAGE), "read"),
            (IoErrorKind::Io, bad)
        );
        assert_eq!(rig.stat("nr_dirty"), 0);
        // A write of the whole page needs nothing.
        file.write_at(&[9; 4096], 20 * PAGE).unwrap();
        assert_eq!(file.read_at(&mut buf, 20 * PAGE), Ok(4096));
        assert_eq!(buf, [9; 4096]);
        device.heal();
        rig.works(&file, &device);
        assert!(device.visible()[20 * 4096..21 * 4096] == [9; 4096]);
        rig.engine.close().unwrap();
    });
}

#[test]
fn a_read_error_under_readahead_is_the_reader_s_own_and_no_neighbour_s() {
    for seed in 0..8 {
        lab(seed, 512, nothing, |rig| {
            let (file, device) = rig.file(1, 128);
            let bad = 77 * PAGE + 3 * 512;
            device.fail_reads(bad..bad + 1, IoErrorKind::Io, FOR_EVER);
            let mut buf = vec![0; PAGE as usize];
            for n in 0..128 {
                let result = file.read_at(&mut buf, n * PAGE);
                if n == 77 {
                    assert_eq!(io(result, "read"), (IoErrorKind::Io, bad));
                } else {
                    assert_eq!(result, Ok(buf.len()), "page {n}");
                    assert!(buf == page_pattern(n), "page {n}");
                }
            }
            assert!(rig.stat("readahead_pages") > 0, "nothing was read ahead");
            // One call over the bad page: what lies before it is not claimed to be read.
            let mut long = vec![0; 8 * PAGE as usize];
            assert_eq!(
                io(file.read_at(&mut long, 72 * PAGE), "read"),
                (IoErrorKind::Io, bad)
            );
            device.heal();
            assert_eq!(file.read_at(&mut buf, 77 * PAGE), Ok(buf.len()));
            assert!(buf == page_pattern(77));
            rig.works(&file, &device);
            rig.engine.close().unwrap();
        });
    }
}

/// EIO and ENOSPC: the page stays dirty and in memory, every sync fails, it is retried, and after the repair all is well.
#[test]
fn a_failed_write_stays_true_until_it_succeeds() {
    for kind in [IoErrorKind::Io, IoErrorKind::NoSpace] {
        lab(2, 512, nothing, move |rig| {
            let (file, device) = rig.file(1, 64);
            device.fail_writes(8 * PAGE..9 * PAGE, kind, FOR_EVER);
            for n in 7..10 {
                file.write_at(&[n as u8; 4096], n * PAGE).unwrap();
            }
            for _ in 0..3 {
                assert_eq!(io(file.sync_data(), "write").0, kind);
                rig.nap(ms(100));
            }
            assert_eq!(io(file.sync_all(), "write").0, kind);
            assert_eq!(io(file.sync_range(8 * PAGE..8 * PAGE + 1), "write").0, kind);
            assert_eq!(io(file.evict(0..u64::MAX), "write").0, kind);
            assert_eq!(io(rig.engine.close(), "write").0, kind);
            let mut buf = [0; 4096];
            file.read_at(&mut buf, 8 * PAGE).unwrap();
            assert_eq!(buf, [8; 4096], "the page stays in memory");
            assert!(rig.stat("nr_dirty") > 0, "and dirty");
            // Retried in the background, without any sync.
            let errors = rig.stat("write_errors");
            rig.nap(ms(8_000));
            assert!(rig.stat("write_errors") > errors, "nobody tried again");
            device.heal();
            rig.nap(ms(8_000));
            assert_eq!(rig.stat("nr_dirty"), 0, "written by the background");
            // The error that nobody has seen since is told once.
            assert_eq!(io(file.sync_data(), "write").0, kind);
            file.sync_data().unwrap();
            for n in 7..10 {
                survives_crashes(&device, n * PAGE, &[n as u8; 4096], "a synced page");
            }
            rig.works(&file, &device);
            rig.engine.close().unwrap();
        });
    }
}

/// Neighbours of a page that cannot be written become durable nevertheless.
#[test]
fn a_bad_page_does_not_keep_its_neighbours_from_the_device() {
    lab(3, 512, nothing, |rig| {
        let (file, device) = rig.file(1, 64);
        device.fail_writes(8 * PAGE..9 * PAGE, IoErrorKind::Io, FOR_EVER);
        for n in 0..32 {
            file.write_at(&[0x70 + n as u8; 4096], n * PAGE).unwrap();
        }
        rig.nap(ms(30_000));
        let image = device.visible();
        for n in (0..32u64).filter(|n| *n != 8) {
            let at = (n * PAGE) as usize;
            assert!(image[at..at + 4096] == [0x70 + n as u8; 4096], "page {n}");
        }
        assert_eq!(rig.stat("nr_dirty"), 1);
        device.heal();
        let _ = file.sync_data();
        rig.works(&file, &device);
        rig.engine.close().unwrap();
    });
}

#[test]
fn writers_of_a_device_that_keeps_failing_get_the_error_and_do_not_hang() {
    lab(4, 512, nothing, |rig| {
        let (file, device) = rig.file(1, 4096);
        device.fail_writes(0..u64::MAX, IoErrorKind::Io, FOR_EVER);
        let start = rig.now();
        let mut refused = None;
        for n in 0..4096 {
            let (result, took) = rig.timed(|| file.write_at(&[1; 4096], n * PAGE));
            assert!(took < ms(2_500), "write {n} took {took:?}");
            if let Err(e) = result {
                refused = Some(e);
                break;
            }
        }
        let Some(Error::Io { op, source }) = refused else {
            panic!("no writer was told: {refused:?}");
        };
        assert_eq!((op, source.kind), ("write", IoErrorKind::Io));
        let after = rig.now().since(start);
        assert!(
            after >= ms(900) && after < ms(3_000),
            "told after {after:?}"
        );
        // Told at once from now on, and readers go on.
        let (again, took) = rig.timed(|| file.page_mut(PageNo(4000)).map(drop));
        assert_eq!(io(again, "write").0, IoErrorKind::Io);
        assert!(took < ms(5), "{took:?}");
        let mut buf = [0; 4096];
        file.read_at(&mut buf, 4095 * PAGE).unwrap();
        device.heal();
        // Healed: a sync succeeds (after the error that nobody has seen), and writers write.
        let _ = file.sync_data();
        file.sync_data().unwrap();
        assert_eq!(rig.stat("nr_dirty"), 0);
        rig.works(&file, &device);
        rig.engine.close().unwrap();
    });
}

#[test]
fn after_a_failed_flush_pages_in_memory_are_dirty_again_and_the_next_sync_keeps_them() {
    for losing in [false, true] {
        lab(5, 512, nothing, move |rig| {
            let (file, device) = rig.file(1, 64);
            for n in 0..32 {
                file.write_at(&[0xC0 + n as u8; 4096], n * PAGE).unwrap();
            }
            device.fail_flush(1, losing);
            assert_eq!(io(file.sync_data(), "flush").0, IoErrorKind::Io);
            assert_eq!(rig.stat("nr_dirty"), 32, "dirtied again");
            file.sync_data().unwrap();
            for n in 0..32 {
                survives_crashes(&device, n * PAGE, &[0xC0 + n as u8; 4096], "synced");
            }
            rig.works(&file, &device);
            rig.engine.close().unwrap();
        });
    }
}

/// The zeroes of a hole are writes of the device, and nobody has them in memory. A flush that lost them was told as any other,
/// and the next sync succeeded with the old bytes on the disk.
/// Each failed flush ends two write epochs and a sync one dirty generation: numbers that must not be taken for each other.
#[test]
fn a_page_that_many_failed_flushes_made_dirty_again_belongs_to_the_next_sync() {
    lab(6, 300, nothing, |rig| {
        let (file, device) = rig.file(1, 8);
        file.write_at(&[7; PAGE as usize], PAGE).expect("a write");
        for _ in 0..6 {
            device.fail_flush(1, false);
            assert!(file.sync_data().is_err());
            assert_eq!(rig.stat("nr_dirty"), 1, "dirty again");
            let written = rig.stat("nr_written");
            file.sync_data().expect("the flush succeeds");
            assert_eq!(rig.stat("nr_written"), written + 1, "by this sync");
            assert_eq!(rig.stat("nr_dirty"), 0);
            file.write_at(&[7; PAGE as usize], PAGE).expect("a write");
            for _ in 0..4 {
                device.fail_flush(1, false);
                assert!(file.sync_data().is_err());
            }
        }
        file.sync_data().expect("the flush succeeds");
        assert_eq!(rig.stat("nr_dirty"), 0);
        rig.works(&file, &device);
    });
}

/// The same of a page whose write has failed: it keeps its dirty generation, and the next sync writes it.
#[test]
fn a_page_whose_write_failed_belongs_to_the_next_sync() {
    lab(6, 300, nothing, |rig| {
        let (file, device) = rig.file(1, 8);
        for n in 1..=6u8 {
            // Write epochs run ahead of dirty generations.
            file.write_at(&[n; PAGE as usize], PAGE).expect("a write");
            device.fail_flush(1, false);
            assert!(file.sync_data().is_err());
        }
        file.sync_data().expect("the flush succeeds");
        device.fail_writes(0..u64::MAX, IoErrorKind::Io, FOR_EVER);
        file.write_at(&[9; PAGE as usize], PAGE).expect("a write");
        assert!(file.sync_data().is_err());
        assert_eq!(rig.stat("nr_dirty"), 1, "dirty again");
        device.heal();
        file.sync_data().expect("it works again");
        assert_eq!(rig.stat("nr_dirty"), 0, "written by this sync");
        survives_crashes(&device, PAGE, &[9; PAGE as usize], "synced");
        rig.works(&file, &device);
    });
}

#[test]
fn a_hole_that_a_failed_flush_has_lost_is_reported() {
    lab(6, 512, nothing, |rig| {
        let (file, device) = rig.file(1, 64);
        for n in 0..8 {
            file.write_at(&[3; 4096], n * PAGE).unwrap();
        }
        file.sync_data().unwrap();
        file.discard(2 * PAGE..6 * PAGE).unwrap();
        device.fail_flush(1, true);
        for _ in 0..2 {
            let Err(Error::DurabilityLost { ranges }) = file.sync_data() else {
                panic!("a sync succeeds although a hole is lost");
            };
            let covered = |at: u64| ranges.iter().any(|r| r.contains(&at));
            assert!(covered(2 * PAGE) && covered(6 * PAGE - 1), "{ranges:?}");
            assert!(!covered(PAGE) && !covered(6 * PAGE), "{ranges:?}");
        }
        drop(file);
        let file = rig.open(1, &device);
        file.discard(2 * PAGE..6 * PAGE).unwrap();
        file.sync_data().unwrap();
        survives_crashes(&device, 2 * PAGE, &[0; 4 * 4096], "punched again");
        rig.works(&file, &device);
        rig.engine.close().unwrap();
    });
}

#[test]
fn a_page_that_left_memory_before_a_flush_failed_is_reported_until_reopened() {
    lab(6, 512, nothing, |rig| {
        let (file, device) = rig.file(1, 64);
        for n in 0..8 {
            file.write_at(&[3; 4096], n * PAGE).unwrap();
        }
        assert_eq!(file.evict(5 * PAGE..6 * PAGE), Ok(1));
        device.fail_flush(1, true);
        for _ in 0..3 {
            let Err(Error::DurabilityLost { ranges }) = file.sync_data() else {
                panic!("a sync succeeds although a page is lost");
            };
            let covered = |at: u64| ranges.iter().any(|r| r.contains(&at));
            assert!(covered(5 * PAGE) && covered(6 * PAGE - 1), "{ranges:?}");
            assert!(!covered(PAGE), "a page in memory is not lost: {ranges:?}");
            // Overwriting does not lift it.
            file.write_at(&[4; 4096], 5 * PAGE).unwrap();
        }
        assert!(matches!(
            rig.engine.close(),
            Err(Error::DurabilityLost { .. })
        ));
        drop(file);
        rig.nap(ms(3_000));
        let file = rig.open(1, &device);
        let _ = file.sync_data();
        file.sync_data().unwrap();
        survives_crashes(&device, 5 * PAGE, &[4; 4096], "written again");
        rig.works(&file, &device);
        rig.engine.close().unwrap();
    });
}

#[test]
fn an_error_of_the_background_passes_to_the_next_sync_once() {
    lab(7, 512, nothing, |rig| {
        let (file, device) = rig.file(1, 64);
        file.write_at(&[1; 4096], 0).unwrap();
        device.fail_writes(0..PAGE, IoErrorKind::Io, rig.now().plus(ms(4_000)));
        rig.nap(ms(10_000));
        assert!(rig.stat("write_errors") > 0, "the background has tried");
        assert_eq!(rig.stat("nr_dirty"), 0, "and succeeded");
        assert_eq!(io(file.sync_data(), "write").0, IoErrorKind::Io);
        file.sync_data().unwrap();
        rig.works(&file, &device);
        rig.engine.close().unwrap();
    });
}

#[test]
fn an_error_nobody_saw_passes_to_close() {
    lab(8, 512, nothing, |rig| {
        let (file, device) = rig.file(1, 64);
        file.write_at(&[1; 4096], 0).unwrap();
        device.fail_writes(0..PAGE, IoErrorKind::Io, rig.now().plus(ms(4_000)));
        drop(file);
        rig.nap(ms(10_000));
        assert_eq!(rig.stat("nr_dirty"), 0, "the background has succeeded");
        assert_eq!(io(rig.engine.close(), "write").0, IoErrorKind::Io);
        rig.engine.close().unwrap();
        survives_crashes(&device, 0, &[1; 4096], "closed");
    });
}

#[test]
fn an_error_nobody_saw_passes_to_the_next_open() {
    lab(9, 512, nothing, |rig| {
        let (file, device) = rig.file(1, 64);
        file.write_at(&[1; 4096], 0).unwrap();
        device.fail_writes(0..PAGE, IoErrorKind::NoSpace, rig.now().plus(ms(4_000)));
        drop(file);
        rig.nap(ms(10_000));
        let file = rig.open(1, &device);
        assert_eq!(io(file.sync_data(), "write").0, IoErrorKind::NoSpace);
        file.sync_data().unwrap();
        rig.works(&file, &device);
        rig.engine.close().unwrap();
    });
}

/// Written back by the flusher, its last handle dropped, never synced: `close` promises that it is durable.
#[test]
fn close_flushes_files_that_nobody_has_open_any_more() {
    lab(10, 512, nothing, |rig| {
        let (file, device) = rig.file(1, 64);
        file.write_at(&[0xD1; 4096], 3 * PAGE).unwrap();
        rig.nap(ms(4_000));
        assert_eq!(rig.stat("nr_dirty"), 0, "written back");
        drop(file);
        rig.engine.close().unwrap();
        survives_crashes(&device, 3 * PAGE, &[0xD1; 4096], "closed");
    });
}

/// The same with the flush failing after the last handle is gone.
#[test]
fn a_flush_that_fails_without_a_handle_is_not_forgotten() {
    lab(11, 512, nothing, |rig| {
        let (file, device) = rig.file(1, 64);
        file.write_at(&[0xD2; 4096], 3 * PAGE).unwrap();
        rig.nap(ms(4_000));
        device.fail_flush(3, true);
        drop(file);
        let mut tries = 0;
        while let Err(e) = rig.engine.close() {
            assert!(matches!(e, Error::Io { op: "flush", .. }), "{e}");
            tries += 1;
            assert!(tries < 10);
            rig.nap(ms(100));
        }
        assert!(tries > 0, "close never heard of the failed flush");
        survives_crashes(&device, 3 * PAGE, &[0xD2; 4096], "closed");
    });
}

/// A flush fails while another task keeps the page latched for a moment: it must not be forgotten.
#[test]
fn a_page_latched_while_a_flush_fails_is_dirtied_again() {
    for seed in 0..100 {
        let delay = seed % 20;
        lab(seed, 512, nothing, move |rig| {
            let (file, device) = rig.file(1, 64);
            file.write_at(&[0xE1; 4096], 63 * PAGE).unwrap();
            rig.nap(ms(4_000));
            assert_eq!(rig.stat("nr_dirty"), 0, "written back, not yet flushed");
            device.fail_flush(1, true);
            let (theirs, mine) = (file.clone(), rig.clone());
            // Cuts the last page in half: it is latched while the device truncates.
            let cut = rig.spawn("cut", move || {
                mine.nap(Nanos::from_micros(delay * 20));
                theirs.set_len(63 * PAGE + 2048)
            });
            assert_eq!(io(file.sync_data(), "flush").0, IoErrorKind::Io);
            rig.join(cut, ms(1_000)).unwrap();
            file.sync_data().unwrap();
            survives_crashes(&device, 63 * PAGE, &[0xE1; 2048], "synced");
            rig.works(&file, &device);
            rig.engine.close().unwrap();
        });
    }
}

/// A sync that times out must not swallow an error that nobody has seen.
#[test]
fn a_sync_that_fails_otherwise_leaves_the_unseen_error_for_the_next() {
    lab(
        13,
        512,
        |c| c.latch_timeout = ms(50),
        |rig| {
            let (file, device) = rig.file(1, 64);
            file.write_at(&[1; 4096], 0).unwrap();
            device.fail_writes(0..PAGE, IoErrorKind::Io, rig.now().plus(ms(4_000)));
            rig.nap(ms(10_000));
            assert_eq!(rig.stat("nr_dirty"), 0, "the background has succeeded");
            let guard = file.page_mut(PageNo(9)).unwrap();
            let theirs = file.clone();
            let busy = rig.spawn("sync", move || theirs.sync_data());
            match rig.join(busy, ms(1_000)) {
                Err(Error::Busy { page: 9, .. }) => {
                    drop(guard);
                    assert_eq!(io(file.sync_data(), "write").0, IoErrorKind::Io);
                }
                // Or it tells the older error first.
                told => {
                    drop(guard);
                    assert_eq!(io(told, "write").0, IoErrorKind::Io);
                }
            }
            file.sync_data().unwrap();
            rig.works(&file, &device);
            rig.engine.close().unwrap();
        },
    );
}

/// A full disk says so at once: its writes have failed before the call that submits them returns.
struct FullAtOnce(Arc<RamDevice>);

impl Device for FullAtOnce {
    fn queue(&self) -> Arc<dyn Queue> {
        self.0.queue()
    }
    fn submit(&self, _: Lane, batch: &mut Vec<Request>) {
        for request in batch.drain(..) {
            let e = IoError::new(IoErrorKind::NoSpace, request.offset);
            request.complete(Err(e));
        }
    }
    fn read_now(&self, offset: u64, bufs: &[IoBuf]) -> Result<(), IoError> {
        self.0.read_now(offset, bufs)
    }
    fn write_now(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.0.write_now(offset, buf)
    }
    fn flush(&self) -> Result<(), IoError> {
        self.0.flush()
    }
    fn len(&self) -> Result<u64, IoError> {
        self.0.len()
    }
    fn truncate(&self, len: u64) -> Result<(), IoError> {
        self.0.truncate(len)
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.0.write_zeroes(offset, len)
    }
}

/// Each page of a sync gets its try: not as many tries as the file has dirty pages elsewhere.
#[test]
fn a_sync_of_a_range_tries_its_pages_once() {
    lab(
        3,
        4096,
        |c| {
            c.dirty_expire = ms(600_000);
            c.writeback_interval = ms(600_000);
        },
        |rig| {
            let device = rig.device(1024 * PAGE);
            let full = PlainBacking::new(Arc::new(FullAtOnce(device.clone())));
            let id = FileId { dev: 1, ino: 1 };
            let file = (rig.engine)
                .open(id, Arc::new(full), FileOptions { write: true })
                .unwrap();
            for n in 0..300 {
                file.write_at(&[9; 4096], n * PAGE).unwrap();
            }
            assert_eq!(rig.stat("write_errors"), 0, "nothing is written so far");
            let range = 8 * PAGE..11 * PAGE;
            assert_eq!(
                io(file.sync_range(range.clone()), "write").0,
                IoErrorKind::NoSpace
            );
            // Three pages in one request, then none again, or each alone.
            let tries = rig.stat("write_errors");
            assert!(tries <= 3, "{tries} tries for 3 pages");
            assert_eq!(io(file.evict(range), "write").0, IoErrorKind::NoSpace);
            let tries = rig.stat("write_errors") - tries;
            assert!(tries <= 3, "{tries} tries for 3 pages");
            assert_eq!(io(file.sync_data(), "write").0, IoErrorKind::NoSpace);
            let tries = rig.stat("write_errors");
            assert!(tries <= 310, "{tries} tries for 300 pages");
            rig.engine.check_invariants();
        },
    );
}
