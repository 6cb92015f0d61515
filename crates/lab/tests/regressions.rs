//! What seeds have found, told as stories: one test each, with the seed's essence written out.

use highwater_engine::backing::PlainBacking;
use highwater_engine::backing::journaled::{FormatOptions, MountOptions, Volume};
use highwater_engine::{
    Config, Engine, Error, File, FileId, FileOptions, LendContext, Nanos, PageNo, World,
};
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

/// A volume's `set_len` allocated a frame, for the page that it cut, with the file's invalidate lock in hand. All memory was held
/// by a task that waited for that lock: both for 10 s, and a third task got `Busy` for a page of the second.
#[test]
fn set_len_on_a_volume_does_not_wait_for_memory_that_is_held_by_who_waits_for_it() {
    const PAGES: u64 = 400;
    let world = LabWorld::new(LabOptions::calm(1));
    let w = world.clone();
    world.run(move || {
        let engine = Engine::new(w.clone(), Config::new(1 << 20)).unwrap();
        let queue = LabQueue::new(&w, QueueOptions::default());
        let options = RamOptions {
            len: 2 * PAGES * PAGE,
            ..RamOptions::default()
        };
        let device = RamDevice::new(&queue, options);
        let format = FormatOptions {
            logical_bytes: PAGES * PAGE,
            block_size: PAGE as u32,
            log_bytes: 32 * PAGE,
            uuid: [1; 16],
        };
        Volume::format(&*device, &format).unwrap();
        let mount = MountOptions {
            lend_context: LendContext::Reclaim,
            ..MountOptions::default()
        };
        let volume = Volume::mount(device, engine.page_source(), mount).unwrap();
        let id = FileId { dev: 1, ino: 1 };
        let file = engine.open(id, volume, FileOptions { write: true });
        let file = file.unwrap();
        for page in 0..PAGES {
            file.write_at(&[7; PAGE as usize], page * PAGE).unwrap();
        }
        file.sync_data().unwrap();
        let mut guards = Vec::new();
        let full = loop {
            match file.page(PageNo(guards.len() as u64)) {
                Ok(guard) => guards.push(guard),
                Err(e) => break e,
            }
        };
        assert!(matches!(full, Error::AllPinned { .. }), "{full}");
        // One page that nobody holds, dirty: reclaim does not get it, and its flusher wants the lock.
        guards.pop();
        file.write_at(&[8], (PAGES - 30) * PAGE).unwrap();
        let theirs = file.clone();
        let shrinker = w.spawn_local("shrinker", move || {
            theirs.set_len((PAGES - 20) * PAGE + 100).unwrap();
        });
        after(&w, 5);
        let start = w.now();
        file.write_at(&[9], (PAGES - 30) * PAGE).unwrap();
        assert!(w.now().since(start) < Nanos::from_secs(1));
        drop(guards);
        assert!(w.join(shrinker, Nanos::from_secs(20)));
        engine.close().unwrap();
    });
}
