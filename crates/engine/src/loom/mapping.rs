//! Truncation beside everything else that holds or brings in pages.

use super::{
    model,
    rig::{Disk, Rig, spawn},
};
use crate::PageNo;

/// A page read while the file shrinks is not in the index afterwards.
#[test]
fn truncate_against_install() {
    model(|| {
        let rig = Rig::new(Disk::default());
        let before = rig.free();
        let r = rig.clone();
        let reader = spawn(&rig.world, 1, move || drop(r.file.page(PageNo(1))));
        rig.file.set_len(4096).expect("nothing fails");
        reader.join().expect("no panic");
        assert!(!rig.engine.is_resident(rig.m.id, 1), "MAP-3");
        assert_eq!(rig.free(), before, "FRAME-3: freed once");
        rig.check();
    });
}

/// The same, and the read fails: filler and truncation both find the page gone, and one of them frees it.
#[test]
fn truncate_against_failed_fill() {
    model(|| {
        let disk = Disk {
            bad_reads: true,
            ..Disk::default()
        };
        let rig = Rig::new(disk);
        let before = rig.free();
        let r = rig.clone();
        let reader = spawn(&rig.world, 1, move || drop(r.file.page(PageNo(1))));
        rig.engine.unlink_range(&rig.m, 1..2);
        reader.join().expect("no panic");
        assert_eq!(rig.free(), before, "FRAME-3: freed once");
        rig.check();
    });
}

/// Reclaim has claimed a page that truncation takes out of the index.
#[test]
fn truncate_against_evict() {
    model(|| {
        let rig = Rig::new(Disk::default());
        let before = rig.free();
        let frame = rig.resident(1, 7);
        let r = rig.clone();
        let reclaimer = spawn(&rig.world, 1, move || {
            r.engine.reclaim_one(frame);
        });
        rig.engine.unlink_range(&rig.m, 1..2);
        reclaimer.join().expect("no panic");
        assert_eq!(rig.free(), before, "FRAME-3: freed once");
        rig.check();
    });
}
