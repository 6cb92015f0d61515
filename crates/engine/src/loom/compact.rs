//! A page that moves to another frame, beside everybody who may reach it.

use super::{
    bounded,
    frame::complete,
    long_model, model,
    rig::{Disk, Rig, spawn},
};
use crate::compact::Moved;
use crate::frame::FrameNo;
use crate::frame::state::{DIRTY, EXCL, UPTODATE};
use crate::lru::order::Reason;
use crate::sync::Ordering;
use std::sync::Arc;

/// A page with all bytes `value`, clean, and a free frame above its own to move it to, which is the caller's.
fn clean(rig: &Rig, page: u64, value: u8) -> (u32, u32) {
    let frame = || rig.engine.alloc_reserve().expect("a frame");
    let (a, b) = (frame(), frame());
    let (from, to) = (a.min(b), a.max(b));
    rig.fill(from, value);
    assert!(rig.engine.install(from, rig.key(page), EXCL));
    rig.engine.lru_enter(from, rig.key(page));
    rig.engine.release(from, EXCL, UPTODATE);
    (from, to)
}

/// Moves the page of `from`, and gives back the frame that is free afterwards.
fn migrate(rig: &Rig, from: u32, to: u32) -> Moved {
    let moved = rig.engine.migrate_page(from, to);
    match moved {
        Moved::No => rig.engine.free_page(to),
        Moved::Yes => rig.engine.zone.free_to_buddy(&*rig.world, &[from]),
        Moved::FreedByOther => {}
    }
    moved
}

/// The frame that page 0 is in now, and its state.
fn now(rig: &Rig) -> (u32, u64) {
    let frame = rig.engine.find_frame(rig.m.id, 0).expect("resident");
    (frame, rig.state(frame))
}

/// A reader finds the page's bytes in one frame or the other; what becomes of the old frame it never sees.
#[test]
fn move_against_reader() {
    model(|| {
        let rig = Rig::new(Disk::default());
        let (from, to) = clean(&rig, 0, 7);
        let r = rig.clone();
        let mover = spawn(&rig.world, 1, move || {
            if migrate(&r, from, to) == Moved::Yes {
                // The old frame's next owner writes it.
                let next = r.engine.alloc_page().expect("frames are free");
                r.fill(next, 9);
                r.engine.free_page(next);
            }
        });
        if let Some(byte) = rig.try_read(0) {
            assert_eq!(
                byte, 7,
                "COMPACT-1: read from a frame that has changed hands"
            );
        }
        mover.join().expect("no panic");
        assert_eq!(rig.try_read(0), Some(7));
        rig.check();
    });
}

/// A writer waits for the move or keeps it from happening; its change is not left behind in the old frame.
#[test]
fn move_against_writer() {
    long_model(|| {
        let rig = Rig::new(Disk::default());
        let (from, to) = clean(&rig, 0, 7);
        let r = rig.clone();
        let mover = spawn(&rig.world, 1, move || {
            let _ = migrate(&r, from, to);
        });
        rig.write(0, 8);
        mover.join().expect("no panic");
        assert_eq!(
            rig.try_read(0),
            Some(8),
            "COMPACT-1: a change stayed behind"
        );
        assert_ne!(
            now(&rig).1 & DIRTY,
            0,
            "COMPACT-1: a dirty page became clean"
        );
        rig.check();
    });
}

/// A dirty page that moves beside the flusher is written once from where it is, or stays dirty.
#[test]
fn move_against_flusher() {
    long_model(|| {
        let rig = Rig::new(Disk::default());
        let (from, to) = clean(&rig, 0, 0);
        rig.write(0, 7);
        let r = rig.clone();
        let flusher = spawn(&rig.world, 1, move || complete(&r, r.submit()));
        let _ = migrate(&rig, from, to);
        flusher.join().expect("no panic");
        let dirty = now(&rig).1 & DIRTY != 0;
        assert!(
            dirty || rig.disk.on_disk(0) == Some(7),
            "WB-3: in no write, and clean"
        );
        assert_eq!(rig.try_read(0), Some(7));
        rig.check();
    });
}

/// A flush fails while a page moves that was written since the last good one: it is dirty afterwards, wherever it is.
#[test]
fn move_against_failed_flush() {
    bounded(1, || {
        let disk = Disk {
            bad_flushes: true,
            sync_at_once: true,
            ..Disk::default()
        };
        let rig = Rig::new(disk);
        let (from, to) = clean(&rig, 0, 0);
        rig.write(0, 7);
        complete(&rig, rig.submit());
        let r = rig.clone();
        let syncer = spawn(&rig.world, 1, move || {
            r.file.sync_data().expect_err("the flush fails");
        });
        let _ = migrate(&rig, from, to);
        syncer.join().expect("no panic");
        assert_ne!(now(&rig).1 & DIRTY, 0, "COMPACT-2: a page was passed over");
        rig.check();
    });
}

/// A truncation and a move: no page beyond the end is left in the index, whichever frame it was in.
#[test]
fn move_against_truncate() {
    long_model(|| {
        let rig = Rig::new(Disk::default());
        let before = rig.free();
        let (from, to) = clean(&rig, 1, 7);
        let r = rig.clone();
        let mover = spawn(&rig.world, 1, move || {
            let _ = migrate(&r, from, to);
        });
        rig.file.set_len(4096).expect("nothing fails");
        mover.join().expect("no panic");
        assert!(!rig.engine.is_resident(rig.m.id, 1), "COMPACT-3, MAP-3");
        assert_eq!(rig.free(), before, "FRAME-3: freed once");
        rig.check();
    });
}

/// The last handle of a file goes while one of its pages moves: no page is left without its mapping.
#[test]
fn move_against_last_close() {
    model(|| {
        let rig = Rig::new(Disk::default());
        let (from, to) = clean(&rig, 0, 7);
        rig.m.handles.fetch_sub(1, Ordering::AcqRel);
        let r = rig.clone();
        let mover = spawn(&rig.world, 1, move || {
            let _ = migrate(&r, from, to);
        });
        let gone = rig.engine.drop_if_unused(&rig.m);
        mover.join().expect("no panic");
        if gone {
            assert!(!rig.engine.is_resident(rig.m.id, 0), "COMPACT-3, MAP-4");
        }
        rig.engine.check_invariants();
        rig.m.handles.fetch_add(1, Ordering::AcqRel);
    });
}

/// A reclaimer has isolated the frame that a page moves out of: one of the two frees it.
#[test]
fn move_against_isolation() {
    model(|| {
        let rig = Rig::new(Disk::default());
        let before = rig.free();
        let (from, to) = clean(&rig, 0, 7);
        let r: Arc<Rig> = rig.clone();
        let reclaimer = spawn(&rig.world, 1, move || {
            let e = &r.engine;
            let mut batch = [FrameNo(0)];
            let n = e.lru.isolate(&*r.world, &e.frames, &mut batch).taken;
            let back = batch.map(|f| (f, Reason::Busy));
            e.lru
                .putback(&*r.world, &e.frames, &back[..n], |f| e.free_claimed(f));
        });
        let _ = migrate(&rig, from, to);
        reclaimer.join().expect("no panic");
        assert_eq!(rig.try_read(0), Some(7));
        assert_eq!(rig.free() + 1, before, "FRAME-3: freed once");
        rig.check();
    });
}
