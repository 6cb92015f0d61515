//! Writeback: nothing dirty is forgotten, nothing is called durable too early.

use super::{
    frame::complete,
    long_model, model,
    rig::{Disk, Rig, spawn},
};
use crate::frame::state::DIRTY;

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
