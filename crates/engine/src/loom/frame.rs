//! Frames: who may touch one, and who frees it.

use super::{
    long_model, model,
    rig::{Disk, Rig, spawn},
};
use crate::PageNo;
use crate::frame::FrameNo;
use crate::frame::state::{DIRTY, WRITEBACK};
use crate::io::Request;
use crate::lru::order::Reason;

/// A reader that has pinned a page reads that page; a frame that was evicted is never read by a pin of the old page.
#[test]
fn pin_against_evict() {
    model(|| {
        let rig = Rig::new(Disk::default());
        let frame = rig.resident(0, 7);
        let r = rig.clone();
        let evictor = spawn(&rig.world, 1, move || {
            if r.engine.reclaim_one(frame) {
                // The frame's next owner writes it, as another page.
                r.resident(1, 9);
            }
        });
        if let Some(byte) = rig.try_read(0) {
            assert_eq!(byte, 7, "FRAME-1: a pin of page 0 shows another page");
        }
        evictor.join().expect("no panic");
        rig.check();
    });
}

/// A page unlinked while readers look it up is found with its own bytes or not at all, and freed exactly once.
#[test]
fn unlink_against_lookup() {
    model(|| {
        let rig = Rig::new(Disk::default());
        let before = rig.free();
        rig.resident(1, 7);
        let r = rig.clone();
        let unlinker = spawn(&rig.world, 1, move || {
            r.engine.unlink_range(&r.m, 1..2);
            let next = r.engine.alloc_page().expect("frames are free");
            r.fill(next, 9);
            r.engine.free_page(next);
        });
        if let Some(byte) = rig.try_read(1) {
            assert_eq!(byte, 7, "FRAME-1: a pin of page 1 shows another page");
        }
        unlinker.join().expect("no panic");
        assert_eq!(rig.free(), before, "FRAME-3: freed once");
        rig.check();
    });
}

/// The last of two holders wakes the writer who waits for the page.
#[test]
fn last_release_against_waiter() {
    model(|| {
        let rig = Rig::new(Disk::default());
        let frame = rig.resident(0, 7);
        let held = rig.pin(0);
        assert_eq!(held, Some(frame));
        let r = rig.clone();
        let holder = spawn(&rig.world, 1, move || {
            assert_eq!(r.byte(frame), 7, "FRAME-2: written under a pin");
            r.engine.put_shared(frame);
        });
        // Waits, if it comes first; a wake-up that is lost is a deadlock here.
        rig.write(0, 8);
        holder.join().expect("no panic");
        assert_eq!(rig.try_read(0), Some(8));
        rig.check();
    });
}

/// Two holders of a truncated page: the last one out frees it, whoever that is, and only one does.
#[test]
fn last_release_of_an_orphan() {
    model(|| {
        let rig = Rig::new(Disk::default());
        let before = rig.free();
        let frame = rig.resident(1, 7);
        assert_eq!(rig.pin(1), Some(frame));
        let r = rig.clone();
        let unlinker = spawn(&rig.world, 1, move || {
            r.engine.unlink_range(&r.m, 1..2);
        });
        assert_eq!(rig.byte(frame), 7);
        rig.engine.put_shared(frame);
        unlinker.join().expect("no panic");
        assert_eq!(rig.free(), before, "FRAME-3: freed once");
        rig.check();
    });
}

/// A writer that meets writeback gets a copy; a reader sees the old bytes or the new ones; the device sees the old; the
/// old frame is freed once, after its write.
#[test]
fn frame_switch_against_holders() {
    long_model(|| {
        let rig = Rig::new(Disk::default());
        let old = rig.dirty(0, 7);
        let before = rig.free();
        let requests = rig.submit();
        assert_ne!(rig.state(old) & WRITEBACK, 0);
        let r = rig.clone();
        let reader = spawn(&rig.world, 1, move || {
            if let Some(byte) = r.try_read(0) {
                assert!(byte == 7 || byte == 8);
            }
        });
        let r = rig.clone();
        let device = spawn(&rig.world, 2, move || complete(&r, requests));
        rig.write(0, 8);
        reader.join().expect("no panic");
        device.join().expect("no panic");
        assert_eq!(rig.disk.on_disk(0), Some(7), "FRAME-4");
        assert_eq!(rig.try_read(0), Some(8));
        let now = rig.engine.find_frame(rig.m.id, 0).expect("resident");
        assert_ne!(rig.state(now) & DIRTY, 0, "WB-3");
        assert_eq!(rig.free(), before, "one frame holds the page");
        rig.check();
    });
}

pub(super) fn complete(rig: &Rig, requests: Vec<Request>) {
    for request in requests {
        rig.disk.complete(rig, request, Ok(()));
    }
}

/// A waiter whose frame has become another page's does not keep that page's readers out.
#[test]
fn waiter_against_reuse() {
    model(|| {
        let rig = Rig::new(Disk::default());
        let frame = rig.resident(0, 7);
        assert_eq!(rig.pin(0), Some(frame));
        let r = rig.clone();
        let writer = spawn(&rig.world, 1, move || drop(r.file.page_mut(PageNo(0))));
        // The page leaves, and its frame comes back as page 1, which is held at once.
        rig.engine.put_shared(frame);
        if rig.engine.reclaim_one(frame) {
            let next = rig.resident(1, 9);
            let held = rig.pin(1);
            if held == Some(next) {
                rig.engine.put_shared(next);
            }
        }
        writer.join().expect("no panic");
        if rig.engine.is_resident(rig.m.id, 1) {
            assert_eq!(rig.try_read(1), Some(9), "EXCL_WAIT left on another page");
        }
        rig.check();
    });
}

/// A truncated page that a reclaimer has isolated while a reader holds it: the last one out frees it, and only that one.
#[test]
fn last_release_of_an_isolated_orphan() {
    model(|| {
        let rig = Rig::new(Disk::default());
        let before = rig.free();
        let frame = rig.resident(1, 7);
        assert_eq!(rig.pin(1), Some(frame));
        let mut batch = [FrameNo(0)];
        let e = &rig.engine;
        let n = e.lru.isolate(&*rig.world, &e.frames, &mut batch).taken;
        assert_eq!((n, batch), (1, [FrameNo(frame)]));
        e.unlink_range(&rig.m, 1..2);
        let r = rig.clone();
        let reclaimer = spawn(&rig.world, 1, move || {
            let (e, back) = (&r.engine, [(FrameNo(frame), Reason::Gone)]);
            e.lru
                .putback(&*r.world, &e.frames, &back, |f| e.free_claimed(f));
        });
        rig.engine.put_shared(frame);
        reclaimer.join().expect("no panic");
        assert_eq!(rig.free(), before, "FRAME-3: freed once");
        rig.check();
    });
}
