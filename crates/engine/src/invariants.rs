//! Invariants that more than one room keeps: all of them while no task is inside (`check`), and those of single frames
//! whenever no engine lock is held (`check_some`).

use crate::engine::Engine;
use crate::frame::DirtyLinks;
use crate::frame::state::{
    BLOCK, DIRTY, EXCL, FREE, HASHED, HOLDERS, ISOLATED, LENT, LOADING, LRU, ORPHAN, UPTODATE,
    WRITEBACK,
};
use crate::mapping::{Key, Mapping};
use crate::sync::{AtomicU64, Ordering};
use crate::world::World;
use std::collections::HashMap;
use std::sync::Arc;

pub(crate) fn check<W: World>(e: &Engine<W>) {
    frames(e);
    dirty(e);
    free(e);
    blocks(e);
    reads(e);
    writes(e);
}

/// WBT-2, and MAP-4's count of reads.
fn reads<W: World>(e: &Engine<W>) {
    let devices = e.devices.lock(&*e.world).clone();
    let submitted: u64 = devices.iter().map(|d| d.reads.submitted()).sum();
    // Relaxed: nobody is inside.
    let loading = e.loading_requests.load(Ordering::Relaxed);
    assert_eq!(submitted, loading, "WBT-2: reads of all devices");
    let of_files: u64 = mappings(e).iter().map(|m| m.nr_loading()).sum();
    assert_eq!(of_files, loading, "MAP-4: reads of all files");
    for d in devices.iter() {
        d.reads.check_invariants();
    }
}

/// WBT-3: what each device has in flight, and the pages that are counted for it.
fn writes<W: World>(e: &Engine<W>) {
    let all = mappings(e);
    let under_writeback = (e.frames.iter())
        .filter(|(_, f)| f.state.peek() & WRITEBACK != 0)
        .count() as u64;
    // Relaxed: nobody is inside.
    let pages = |n: &AtomicU64| n.load(Ordering::Relaxed);
    assert_eq!(
        pages(&e.writeback_pages),
        under_writeback,
        "WBT-3: writeback"
    );
    let devices = e.devices.lock(&*e.world).clone();
    let of_devices: u64 = devices.iter().map(|d| pages(&d.nr_writeback)).sum();
    assert_eq!(of_devices, under_writeback, "WBT-3: writeback of devices");
    for d in devices.iter() {
        let dirty = (all.iter().filter(|m| Arc::ptr_eq(&m.dev, d)))
            .map(|m| m.nr_dirty())
            .sum::<u64>();
        assert_eq!(pages(&d.nr_dirty), dirty, "WBT-3: dirty pages of a device");
        let (requests, bytes) = (d.in_flight(), d.bytes_in_flight());
        assert!(
            (requests == 0) == (bytes == 0) && (pages(&d.nr_writeback) > 0 || requests == 0),
            "WBT-3: {requests} requests of {bytes} bytes in flight, with {} pages",
            pages(&d.nr_writeback)
        );
    }
}

fn mappings<W: World>(e: &Engine<W>) -> Vec<Arc<Mapping>> {
    e.mappings.lock(&*e.world).iter().cloned().collect()
}

/// MAP-1, MAP-3, LRU-3, DUR-3 and FRAME-3 for each frame.
fn frames<W: World>(e: &Engine<W>) {
    let files: HashMap<u32, (Arc<Mapping>, u64)> = (mappings(e).into_iter())
        .map(|m| {
            let epoch = m.durability.lock(&*e.world).epoch();
            (m.id, (m, epoch))
        })
        .collect();
    for (i, f) in e.frames.iter() {
        let s = f.state.peek();
        free_alone(i, s);
        assert!(
            s & (FREE | HASHED | ORPHAN | LENT | BLOCK) != 0,
            "ZONE-1: frame {i} is lost: no page, not free, {s:#x}"
        );
        if s & HASHED != 0 {
            assert_eq!(
                e.find_frame(f.mapping(), f.page()),
                Some(i),
                "MAP-1: frame {i} is hashed"
            );
            let (m, epoch) = (files.get(&f.mapping())).expect("MAP-4: a page has a mapping");
            assert!(
                f.page() < e.pages_of(m.len()),
                "MAP-3: page {} is beyond the end {}",
                f.page(),
                m.len()
            );
            assert!(
                s & (UPTODATE | LOADING) != 0,
                "a page without bytes: {s:#x}"
            );
            assert!(
                s & (LRU | ISOLATED) != 0,
                "LRU-3: reclaim never meets the page in frame {i}, {s:#x}"
            );
            let newest = match s & (DIRTY | WRITEBACK) {
                0 => *epoch,
                _ => m.dirty_generation(),
            };
            assert!(
                f.generation() <= newest,
                "DUR-3: frame {i} is of generation {}, its file of {newest}, {s:#x}",
                f.generation()
            );
        }
        dirty_somewhere(i, s);
        assert!(
            s & ORPHAN == 0 || s & (HOLDERS | EXCL | LOADING | WRITEBACK | ISOLATED) != 0,
            "FRAME-3: frame {i} is an orphan that nobody frees, {s:#x}"
        );
    }
    e.index.check_invariants(e.world.task(), |i| {
        let f = e.frames.get(i);
        e.index.hash(Key {
            mapping: f.mapping(),
            page: f.page(),
        })
    });
}

/// FRAME-3 of one frame.
fn free_alone(frame: u32, s: u64) {
    assert!(
        s & FREE == 0
            || s & (HASHED | DIRTY | WRITEBACK | LOADING | HOLDERS | EXCL | LRU | ORPHAN | BLOCK)
                == 0,
        "FRAME-3: frame {frame} is free and in use, {s:#x}"
    );
}

/// MAP-2 and WB-1 of one frame.
fn dirty_somewhere(frame: u32, s: u64) {
    if s & DIRTY != 0 {
        assert!(
            s & (HASHED | ORPHAN) != 0,
            "MAP-2: frame {frame} is dirty and nowhere"
        );
        assert!(s & WRITEBACK == 0, "WB-1: frame {frame}");
    }
}

/// FRAME-3, MAP-1, MAP-2 and WB-1 of some frames, while tasks may be inside. What takes more than one step to become
/// true again (a frame between the allocator and the index, a page beyond a new end) is left to `check`.
pub(crate) fn check_some<W: World>(e: &Engine<W>, first: u64, count: u64) {
    let frames = e.frames.len() as u64;
    for i in first..first + count.min(frames) {
        let i = (i % frames) as u32;
        let f = e.frames.get(i);
        let s = f.state.load();
        free_alone(i, s);
        dirty_somewhere(i, s);
        if s & HASHED != 0 {
            let found = e.find_frame(f.mapping(), f.page());
            assert_eq!(found, Some(i), "MAP-1: frame {i} is hashed");
            // A page that is written whole has none until its writer lets go of it.
            assert!(
                s & (UPTODATE | LOADING | EXCL) != 0,
                "a page without bytes: {s:#x}"
            );
        }
    }
    let free = e.zone.nr_free() + e.zone.nr_unpopulated();
    assert!(free <= frames, "ZONE-1: {free} free frames of {frames}");
    assert!(e.nr_dirty() <= frames, "MAP-2: {} dirty", e.nr_dirty());
}

/// MAP-2: lists, flags and counts agree.
fn dirty<W: World>(e: &Engine<W>) {
    let all = mappings(e);
    let mut listed = 0;
    for m in &all {
        let list = m.dirty.lock(&*e.world);
        let links = DirtyLinks(&e.frames);
        list.check(&links);
        for frame in list.iter(&links) {
            let f = e.frames.get(frame);
            assert!(f.state.peek() & DIRTY != 0, "MAP-2: listed and clean");
            assert_eq!(f.mapping(), m.id, "MAP-2: listed by another mapping");
        }
        assert_eq!(list.len(), m.nr_dirty(), "MAP-2: mirror");
        if m.reserves
            && let Some(reserved) = m.backing.reserved()
        {
            assert_eq!(reserved, list.len(), "RESERVE-1: space for dirty pages");
        }
        listed += list.len();
    }
    let flagged = e
        .frames
        .iter()
        .filter(|(_, f)| f.state.peek() & DIRTY != 0)
        .count() as u64;
    assert_eq!(listed, flagged, "MAP-2: flags");
    assert_eq!(listed, e.nr_dirty(), "MAP-2: count");
}

/// BLOCK-1: the frames that carry BLOCK are those of the live blocks, and they are nothing else.
fn blocks<W: World>(e: &Engine<W>) {
    let mut flagged = 0;
    for (i, f) in e.frames.iter() {
        let s = f.state.peek();
        if s & BLOCK != 0 {
            flagged += 1;
            assert!(
                s & (HASHED | ORPHAN | LRU | DIRTY | EXCL | LOADING | WRITEBACK | HOLDERS) == 0,
                "BLOCK-1: frame {i} is in a block and a page, {s:#x}"
            );
        }
    }
    assert_eq!(flagged, e.nr_block_frames(), "BLOCK-1: frames in blocks");
}

/// ZONE-1 and LENT-1.
fn free<W: World>(e: &Engine<W>) {
    let flagged = e
        .frames
        .iter()
        .filter(|(_, f)| f.state.peek() & FREE != 0)
        .count() as u64;
    e.zone.check_invariants(&*e.world);
    let known = e.zone.nr_free() + e.zone.nr_cached(&*e.world) + e.zone.nr_unpopulated();
    assert_eq!(flagged, known, "ZONE-1: free frames");
    let lent = e.frames.iter().filter(|(_, f)| f.state.peek() & LENT != 0);
    assert_eq!(lent.count() as u64, e.nr_lent(), "LENT-1: lent frames");
}
