//! What seeds have found, told as stories: one test each, with the seed's essence written out.

use highwater_engine::backing::PlainBacking;
use highwater_engine::{Config, Engine, File, FileId, FileOptions, Nanos, PageNo, World};
use highwater_lab::soak::run_seed;
use highwater_lab::{LabOptions, LabQueue, LabWorld, QueueOptions, RamDevice, RamOptions};
use std::sync::Arc;

const PAGE: u64 = 4096;

/// A file of 64 pages on a disk of its own, in a cache of 1 MiB.
fn cache(world: &Arc<LabWorld>) -> (Arc<Engine<LabWorld>>, File<LabWorld>) {
    let engine = Engine::new(world.clone(), Config::new(1 << 20)).unwrap();
    let queue = LabQueue::new(world, QueueOptions::default());
    let options = RamOptions {
        len: 64 * PAGE,
        ..RamOptions::default()
    };
    let backing = Arc::new(PlainBacking::new(RamDevice::new(&queue, options)));
    let id = FileId { dev: 1, ino: 1 };
    let file = engine.open(id, backing, FileOptions { write: true });
    (engine, file.unwrap())
}

fn after(world: &LabWorld, ms: u64) {
    world.sleep_until(world.now().plus(Nanos::from_millis(ms)));
}

/// `set_len` waited for the latch of the page that was to be the last while it kept everybody from installing pages;
/// who held that page and wanted another one waited for `set_len`: both for 10 s, until `Busy`.
#[test]
fn a_guard_of_the_last_page_does_not_stop_its_holder_from_reading_others() {
    let world = LabWorld::new(LabOptions::calm(1));
    let w = world.clone();
    world.run(move || {
        let (engine, file) = cache(&w);
        let guard = file.page(PageNo(10)).unwrap();
        let (theirs, their_world) = (file.clone(), w.clone());
        let shrinker = w.spawn_local("shrinker", move || {
            theirs.set_len(10 * PAGE + 100).unwrap();
            assert!(their_world.now() < Nanos::from_secs(1));
        });
        after(&w, 5);
        assert_eq!(file.page(PageNo(3)).unwrap()[0], 0);
        assert!(w.now() < Nanos::from_millis(50), "{:?}", w.now());
        drop(guard);
        assert!(w.join(shrinker, Nanos::from_secs(20)));
        assert_eq!(file.len(), 10 * PAGE + 100);
        engine.close().unwrap();
    });
}

/// A writer that met writeback allocated the copy's frame, looked again, found the write ended, and forgot the frame:
/// memory shrank by a frame each time, until `OutOfMemory` with frames that were nothing at all.
#[test]
fn the_frame_of_a_copy_that_is_not_needed_any_more_is_not_lost() {
    run_seed(0);
}
