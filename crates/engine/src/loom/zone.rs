//! The hand-off of free frames to those who wait.

use super::{
    model,
    rig::{Disk, LoomWorld, Rig, spawn},
};
use crate::world::{Nanos, World};
use crate::zone::watermark::Watermarks;
use crate::zone::{Run, Zone};
use std::sync::Arc;

/// Empties the zone; the frames.
fn exhaust(rig: &Rig) -> Vec<u32> {
    let frames = std::iter::from_fn(|| rig.engine.alloc_reserve().ok());
    frames.collect()
}

/// A frame handed to a waiter whose time runs out is taken or goes back: never lost, never given twice.
#[test]
fn hand_off_against_time_out() {
    model(|| {
        let rig = Rig::with_clock(Disk::default(), true);
        let frames = exhaust(&rig);
        let (r, all) = (rig.clone(), frames.clone());
        let waiter = spawn(&rig.world, 1, move || {
            if let Some(frame) = r.engine.wait_for_frame() {
                assert!(all.contains(&frame));
                r.fill(frame, 1);
                r.engine.free_page(frame);
            }
        });
        rig.engine.free_page(frames[0]);
        rig.world.time_out(1);
        rig.engine.free_page(frames[1]);
        waiter.join().expect("no panic");
        assert_eq!(rig.free(), 2, "ZONE-2: a frame is lost, or given twice");
        assert_eq!(rig.engine.zone.nr_waiters(&*rig.world), 0);
        rig.check_free(&frames[2..]);
    });
}

/// A frame that is freed while a task comes to wait reaches that task: it does not hide in a cache. The clock stands
/// still, so a hand-off that is lost is a deadlock.
#[test]
fn free_against_waiter() {
    model(|| {
        let rig = Rig::new(Disk::default());
        let frames = exhaust(&rig);
        let r = rig.clone();
        let waiter = spawn(&rig.world, 1, move || {
            let frame = r.engine.wait_for_frame().expect("no deadline");
            r.engine.free_page(frame);
        });
        rig.engine.free_page(frames[0]);
        rig.engine.free_page(frames[1]);
        waiter.join().expect("no panic");
        rig.check_free(&frames[2..]);
    });
}

/// As above, with a cache that the frame may hide in, which the rig's zone is too small for. Only this frame is freed.
#[test]
fn free_into_a_cache_against_waiter() {
    model(|| {
        let world = LoomWorld::new(false);
        let (min, low, high) = (0, 0, 0);
        let zone = Arc::new(Zone::new(64, 5, Watermarks { min, low, high }, 1));
        let (w, z) = (world.clone(), zone.clone());
        let waiter = spawn(&world, 1, move || {
            let ticket = z.queue(&*w);
            while z.granted(&*w, ticket).is_none() {
                w.park(Nanos(u64::MAX));
            }
        });
        zone.free_one(&*world, 7);
        waiter.join().expect("no panic");
        assert_eq!((zone.nr_free(), zone.nr_cached(&*world)), (0, 0));
        zone.check_invariants(&*world);
    });
}

/// A task takes a run, makes a page of one frame and gives the rest back, as before a sleep; another comes to wait. Whoever
/// is first, the waiter gets a frame, and none is lost. The clock stands still, so a hand-off that is lost is a deadlock.
#[test]
fn run_against_waiter() {
    model(|| {
        let rig = Rig::new(Disk::default());
        let mut frames = exhaust(&rig);
        frames.sort_unstable();
        let rest = frames.split_off(3);
        for frame in frames {
            rig.engine.free_page(frame);
        }
        let r = rig.clone();
        let waiter = spawn(&rig.world, 1, move || {
            let frame = r.engine.wait_for_frame().expect("no deadline");
            r.engine.free_page(frame);
        });
        let mut run = Run::single();
        run.want(3);
        // One of the three is below min, and the waiter may have another.
        let frame = rig.engine.alloc_of(&mut run).expect("above min");
        rig.fill(frame, 1);
        rig.engine.put_back(&mut run);
        rig.engine.free_page(frame);
        waiter.join().expect("no panic");
        assert_eq!(rig.free(), 3, "RUN-1: a frame is lost, or given twice");
        rig.check_free(&rest);
    });
}

impl Rig {
    /// Gives the rest back and checks everything.
    fn check_free(&self, rest: &[u32]) {
        for frame in rest {
            self.engine.free_page(*frame);
        }
        self.check();
    }
}
