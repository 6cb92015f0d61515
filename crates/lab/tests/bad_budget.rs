//! The budget counts: what an engine allocates when it is built, frames and metadata, is at most what it was given. One
//! test program of its own: it counts every allocation of the process.
#![allow(unsafe_code)]

use highwater_engine::{Config, Engine};
use highwater_lab::{LabOptions, LabWorld};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

struct Counting;

static LIVE: AtomicU64 = AtomicU64::new(0);

// SAFETY: hands every call on to the system's allocator, unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's promise, handed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Frames of a cache of that budget, and what building it allocated.
fn build(memory: u64, frame_size: usize) -> (u64, u64) {
    let world = LabWorld::new(LabOptions::calm(1));
    let w = world.clone();
    world
        .run(move || {
            let mut config = Config::new(memory);
            config.frame_size = frame_size;
            let before = LIVE.load(Ordering::Relaxed);
            let engine = Engine::new(w, config).expect("a sensible budget");
            let after = LIVE.load(Ordering::Relaxed);
            let frames = engine.stats().frames;
            engine.close().unwrap();
            (frames, after - before)
        })
        .value
}

#[test]
fn frames_and_metadata_fit_the_budget() {
    for (frame_size, least) in [(4096, 512 << 10), (16_384, 2 << 20), (65_536, 6 << 20)] {
        for k in (0..60u64).step_by(3) {
            // From the smallest up to 64 MiB, at odd sizes too.
            let memory = least * (k / 6 + 1) + k * 12_345 + (k % 5) * 4_096 + (k / 50) * (40 << 20);
            let (frames, allocated) = build(memory, frame_size);
            assert!(
                frames * frame_size as u64 <= memory,
                "{frames} frames of {frame_size} in {memory}"
            );
            assert!(
                allocated <= memory,
                "a budget of {memory}, frames of {frame_size}: {allocated} bytes allocated"
            );
            // And it is used: nine tenths are pages.
            if memory > 16 << 20 {
                assert!(
                    frames * frame_size as u64 * 10 >= memory * 9,
                    "{memory}: {frames}"
                );
            }
        }
    }
}
