//! Writeback: nothing dirty is forgotten, nothing is called durable too early.

use super::{
    bounded,
    frame::complete,
    long_model, model,
    rig::{Disk, Rig, spawn},
};
use crate::frame::state::{DIRTY, EXCL, Latch};
use crate::sync::Ordering;
use crate::{IoError, IoErrorKind};

/// A change made beside the flusher is either in what it writes, or leaves the page dirty.
#[test]
fn clear_dirty_against_page_mut() {
    long_model(|| {
        let rig = Rig::new(Disk::default());
        rig.dirty(0, 7);
        let r = rig.clone();
        let flusher = spawn(&rig.world, 1, move || complete(&r, r.submit()));
        rig.write(0, 8);
        flusher.join().expect("no panic");
        let frame = rig.engine.find_frame(rig.m.id, 0).expect("resident");
        let dirty = rig.state(frame) & DIRTY != 0;
        assert!(
            dirty || rig.disk.on_disk(0) == Some(8),
            "WB-3: a change is in no write and the page is clean"
        );
        rig.check();
    });
}

/// A sync that returns Ok has on the device what was written before it, whoever was writing it back.
#[test]
fn end_of_writeback_against_sync() {
    long_model(|| {
        let disk = Disk {
            sync_at_once: true,
            ..Disk::default()
        };
        let rig = Rig::new(disk);
        rig.dirty(0, 7);
        let r = rig.clone();
        let flusher = spawn(&rig.world, 1, move || complete(&r, r.submit()));
        rig.file.sync_data().expect("nothing fails");
        let durable = rig.disk.durable.lock().expect("no panic").get(&0).copied();
        assert_eq!(durable, Some(7), "SYNC-A: an early sync");
        flusher.join().expect("no panic");
        rig.check();
    });
}

/// A submission that meets the turn of the sync epoch does not leave the sync asleep, even if it never ends itself.
#[test]
fn begin_of_writeback_against_sync() {
    model(|| {
        let rig = Rig::new(Disk::default());
        let r = rig.clone();
        let flusher = spawn(&rig.world, 1, move || {
            let parity = r.engine.begin_writeback_turn(&r.m);
            if parity == 0 {
                r.engine.end_writeback_turn(&r.m, parity);
            }
        });
        rig.engine.wait_submitted(&rig.m).expect("no deadline");
        flusher.join().expect("no panic");
        rig.check();
    });
}

/// A sync that gave up on a write still in flight does not let the next one return before that write.
#[test]
fn sync_after_a_sync_that_timed_out() {
    model(|| {
        let disk = Disk {
            sync_at_once: true,
            ..Disk::default()
        };
        let rig = Rig::new(disk);
        rig.dirty(0, 7);
        let requests = rig.submit();
        // The first sync turns the epoch, and its deadline fires.
        rig.m.turn_sync_epoch();
        let r = rig.clone();
        let device = spawn(&rig.world, 1, move || complete(&r, requests));
        rig.file.sync_data().expect("nothing fails");
        let durable = rig.disk.durable.lock().expect("no panic").get(&0).copied();
        assert_eq!(durable, Some(7), "SYNC-A: an early sync");
        device.join().expect("no panic");
        rig.check();
    });
}

/// A write fails while a writer moves to a copy: no sync is Ok before the page is on the device. One preemption is
/// enough for the writer to stop anywhere while the other task runs through.
#[test]
fn failed_write_against_copy() {
    bounded(1, || {
        let disk = Disk {
            sync_at_once: true,
            ..Disk::default()
        };
        let rig = Rig::new(disk);
        rig.dirty(0, 7);
        let requests = rig.submit();
        let r = rig.clone();
        let syncer = spawn(&rig.world, 1, move || {
            for request in requests {
                let error = IoError::new(IoErrorKind::Io, 0);
                r.disk.complete(&r, request, Err(error));
            }
            r.file.sync_data().expect_err("the write failed");
            r.file.sync_data().expect("writes succeed now");
            let durable = r.disk.durable.lock().expect("no panic").get(&0).copied();
            assert!(matches!(durable, Some(7 | 8)), "WB-4: an early sync");
        });
        rig.write(0, 8);
        syncer.join().expect("no panic");
        rig.check();
    });
}

/// A file without handles whose last write fails keeps its page: the mapping does not go while something is owed.
#[test]
fn failed_write_against_last_close() {
    model(|| {
        let rig = Rig::new(Disk::default());
        rig.dirty(0, 7);
        let requests = rig.submit();
        rig.m.handles.fetch_sub(1, Ordering::AcqRel);
        let r = rig.clone();
        let flusher = spawn(&rig.world, 1, move || {
            r.engine.drop_if_unused(&r.m);
        });
        for request in requests {
            let error = IoError::new(IoErrorKind::Io, 0);
            rig.disk.complete(&rig, request, Err(error));
        }
        flusher.join().expect("no panic");
        assert_eq!(rig.m.nr_dirty(), 1, "WB-4: dropped with its mapping");
        assert!(rig.engine.mapping(rig.m.id).is_some(), "MAP-4");
        rig.m.handles.fetch_add(1, Ordering::AcqRel);
        rig.check();
    });
}

/// A flush fails while the page it was for is latched, or claimed by reclaim: the page is dirty again, or reported lost.
#[test]
fn failed_flush_against_latch_and_evict() {
    for evict in [false, true] {
        model(move || {
            let disk = Disk {
                sync_at_once: true,
                bad_flushes: true,
                ..Disk::default()
            };
            let rig = Rig::new(disk);
            let frame = rig.dirty(0, 7);
            complete(&rig, rig.submit());
            let r = rig.clone();
            let other = spawn(&rig.world, 1, move || {
                if evict {
                    r.engine.reclaim_one(frame);
                } else if r.engine.frames.get(frame).state.try_excl() == Latch::Held {
                    // As truncation latches the last page, and does not change it.
                    r.engine.release(frame, EXCL, 0);
                }
            });
            rig.file.sync_data().expect_err("the flush fails");
            other.join().expect("no panic");
            let lost = !rig.m.durability.lock(&*rig.world).lost().is_empty();
            assert!(lost || rig.m.nr_dirty() == 1, "WB-4: forgotten");
            rig.check();
        });
    }
}

/// A write that was in flight when a flush failed is not taken for good: that flush may have lost it.
#[test]
fn failed_flush_against_write_in_flight() {
    long_model(|| {
        let disk = Disk {
            bad_flushes: true,
            ..Disk::default()
        };
        let rig = Rig::new(disk);
        rig.dirty(0, 7);
        let requests = rig.submit();
        rig.m.durability.lock(&*rig.world).note_changed();
        let r = rig.clone();
        let flusher = spawn(&rig.world, 1, move || {
            r.engine
                .flush_mapping(&r.m, crate::writeback::Scope::Data, true)
                .expect_err("the flush fails");
        });
        complete(&rig, requests);
        flusher.join().expect("no panic");
        assert_eq!(rig.m.nr_dirty(), 1, "DUR-1");
        rig.check();
    });
}

/// Space is set aside for each dirty page and for no more, whoever is first: a writer, the flusher that makes the page clean,
/// the end of its write, good or bad, or a hole that drops it. `Rig::check` compares the counts.
#[test]
fn reserve_against_writeback_and_its_end() {
    for fails in [false, true] {
        bounded(2, move || {
            let rig = Rig::new(Disk {
                reserves: true,
                ..Disk::default()
            });
            rig.dirty(0, 7);
            let r = rig.clone();
            let flusher = spawn(&rig.world, 1, move || {
                for request in r.submit() {
                    let error = IoError::new(IoErrorKind::Io, 0);
                    let result = if fails { Err(error) } else { Ok(()) };
                    r.disk.complete(&r, request, result);
                }
            });
            rig.write(0, 8);
            flusher.join().expect("no panic");
            rig.check();
        });
    }
}

/// Two writers of one clean page: one of the two reservations goes back.
#[test]
fn reserve_against_reserve() {
    bounded(2, || {
        let rig = Rig::new(Disk {
            reserves: true,
            ..Disk::default()
        });
        rig.resident(0, 1);
        let r = rig.clone();
        let other = spawn(&rig.world, 1, move || r.write(0, 7));
        rig.write(0, 8);
        other.join().expect("no panic");
        rig.check();
    });
}
