//! Memory lent to backings: counted, bounded by the budget, given back; and what an allocation inside a write may do.

mod common;

use common::{PAGE, Rig, lab, ms};
use highwater_engine::backing::{Backing, WriteContext};
use highwater_engine::io::{IoBuf, Lane, Request};
use highwater_engine::world::{Device, Queue};
use highwater_engine::{
    Config, Error, File, FileId, FileOptions, IoError, LendContext, LentFrame, PageSource, Preset,
    World,
};
use highwater_lab::{LabOptions, LabWorld, RamDevice};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

fn nothing(_: &mut Config) {}

#[test]
fn lent_frames_are_counted_reported_and_given_back() {
    lab(1, 512, nothing, |rig| {
        let source = rig.engine.page_source();
        assert_eq!(source.frame_size() as u64, PAGE);
        let mut lent = Vec::new();
        let error = loop {
            match source.alloc(LendContext::Reserve) {
                Ok(mut frame) => {
                    assert!(frame.iter().all(|b| *b == 0), "zeroed");
                    frame.fill(lent.len() as u8);
                    lent.push(frame);
                }
                Err(e) => break e,
            }
            assert!(lent.len() < 10_000, "the budget bounds it");
        };
        let n = lent.len() as u64;
        assert!(n > 400, "the reserve too, all of it: {n}");
        let Error::OutOfMemory(report) = &error else {
            panic!("{error:?}")
        };
        assert_eq!((report.lent, report.free), (n, 0));
        assert!(
            error.to_string().contains(&format!("{n} lent to backings")),
            "{error}"
        );
        assert_eq!(rig.stat("nr_lent"), n);
        rig.engine.check_invariants();
        for (i, frame) in lent.iter().enumerate() {
            assert!(frame.iter().all(|b| *b == i as u8), "LENT-2");
        }
        let (file, device) = rig.file(1, 8);
        lent.truncate(100);
        rig.works(&file, &device);
        drop(lent);
        assert_eq!(rig.stat("nr_lent"), 0);
        rig.at_rest();
        rig.engine.close().unwrap();
    });
}

#[test]
fn a_lent_frame_outlives_its_cache() {
    let world = LabWorld::new(LabOptions::new(3));
    let w = world.clone();
    world.run(move || {
        let engine = highwater_engine::Engine::new(w, Config::new(512 * PAGE)).unwrap();
        let source = engine.page_source();
        let mut frame = source.alloc(LendContext::Reserve).unwrap();
        frame.fill(7);
        engine.close().unwrap();
        let weak = Arc::downgrade(&engine);
        drop(engine);
        assert!(weak.upgrade().is_none(), "a lent frame keeps no engine");
        assert!(frame.iter().all(|b| *b == 7), "its bytes stay mapped");
        assert_eq!(
            source.alloc(LendContext::Reserve).map(drop),
            Err(Error::Closed)
        );
    });
}

/// A cache full of clean pages: the reserve does not reclaim, an ordinary allocation may.
#[test]
fn the_reserve_never_reclaims() {
    lab(
        2,
        512,
        |c| c.min_free = Some(64 << 10),
        |rig| {
            let (file, _device) = rig.file(1, 2_000);
            let mut buf = vec![0; PAGE as usize];
            for n in 0..2_000 {
                file.read_at(&mut buf, n * PAGE).unwrap();
            }
            let source = rig.engine.page_source();
            let stalls = rig.stat("allocstall");
            let lent: Vec<_> = (0..8)
                .map(|_| source.alloc(LendContext::Reserve).unwrap())
                .collect();
            assert_eq!(rig.stat("allocstall"), stalls);
            assert_eq!(rig.stat("nr_lent"), 8);
            // Far more than is free: each of these is reclaimed by somebody, and none fails.
            let more: Vec<_> = (0..300)
                .map(|_| source.alloc(LendContext::Reclaim).unwrap())
                .collect();
            assert_eq!(rig.stat("nr_lent"), 308);
            drop((lent, more));
            rig.at_rest();
            rig.engine.close().unwrap();
        },
    );
}

/// A backing that needs a frame for each request that it writes, and keeps it until the next one.
struct Hungry {
    device: Arc<RamDevice>,
    memory: Arc<dyn PageSource>,
    context: LendContext,
    /// Calls of `write_pages` that are on a stack now, by task; and the deepest nesting.
    inside: Mutex<Vec<highwater_engine::TaskId>>,
    deepest: AtomicU64,
    kept: Mutex<Vec<LentFrame>>,
    /// Needs nothing any more.
    fed: AtomicBool,
}

/// The recursion without a guard is ended here, or the stack would.
const DEEP_ENOUGH: usize = 6;

impl Backing for Hungry {
    fn queue(&self) -> Arc<dyn Queue> {
        self.device.queue()
    }
    fn read_pages(&self, lane: Lane, batch: &mut Vec<Request>) {
        self.device.submit(lane, batch);
    }
    fn read_now(&self, offset: u64, bufs: &[IoBuf]) -> Result<(), IoError> {
        self.device.read_now(offset, bufs)
    }
    fn write_pages(&self, context: WriteContext, batch: &mut Vec<Request>) {
        let me = self.memory.task().id();
        let depth = {
            let mut inside = self.inside.lock().unwrap();
            inside.push(me);
            inside.iter().filter(|t| **t == me).count()
        };
        self.deepest.fetch_max(depth as u64, Ordering::Relaxed);
        for _ in 0..batch.len().min(8) {
            if depth == DEEP_ENOUGH || self.fed.load(Ordering::Relaxed) {
                break;
            }
            let Ok(frame) = self.memory.alloc(self.context) else {
                break;
            };
            let old = {
                let mut kept = self.kept.lock().unwrap();
                kept.push(frame);
                let n = kept.len();
                kept.drain(..if n > 32 { 16 } else { 0 })
                    .collect::<Vec<_>>()
            };
            drop(old);
        }
        self.device.submit(context.lane(), batch);
        let mut inside = self.inside.lock().unwrap();
        let at = inside.iter().rposition(|t| *t == me).unwrap();
        inside.remove(at);
    }
    fn flush(&self) -> Result<(), IoError> {
        self.device.flush()
    }
    fn len(&self) -> Result<u64, IoError> {
        self.device.len()
    }
    fn truncate(&self, len: u64) -> Result<(), IoError> {
        self.device.truncate(len)
    }
    fn extents(&self, offset: u64, len: u64) -> Result<Vec<(u64, u64)>, IoError> {
        self.device.extents(offset, len)
    }
    fn discard(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.device.write_zeroes(offset, len)
    }
}

/// The file on `backing`, to be written.
fn open(rig: &Rig, backing: Arc<dyn Backing>) -> File<LabWorld> {
    let options = FileOptions { write: true };
    rig.engine
        .open(FileId { dev: 1, ino: 1 }, backing, options)
        .unwrap()
}

/// On a disk of 1,000 pages.
fn hungry(rig: &Rig, context: LendContext) -> Arc<Hungry> {
    Arc::new(Hungry {
        device: rig.device(1_000 * PAGE),
        memory: rig.engine.page_source(),
        context,
        inside: Mutex::new(Vec::new()),
        deepest: AtomicU64::new(0),
        kept: Mutex::new(Vec::new()),
        fed: AtomicBool::new(false),
    })
}

/// Writers over three times the memory; the deepest nesting of writes on one stack, and the stalls of allocations.
fn write_hungrily(seed: u64, preset: Preset, context: LendContext, guard: bool) -> (u64, u64) {
    let out = Arc::new(Mutex::new((0, 0)));
    let theirs = out.clone();
    let tune = move |c: &mut Config| {
        c.policy = preset.policy();
        if preset == Preset::V2_6_35 {
            // Most of memory may be dirty, so that reclaim meets dirty pages.
            c.policy.limit_percent = 90;
            c.policy.background_percent = 80;
        }
        c.recursion_guard = guard;
        if !guard {
            // They give up soon.
            (c.alloc_timeout, c.io_timeout) = (ms(500), ms(500));
        }
    };
    lab(seed, 256, tune, move |rig: Rig| {
        let backing = hungry(&rig, context);
        let file = open(&rig, backing.clone());
        let jobs: Vec<_> = (0..4)
            .map(|task| {
                let file = file.clone();
                rig.spawn("writer", move || {
                    let mut rng = highwater_lab::Rng::new(seed, task);
                    for _ in 0..1_000 {
                        let page = rng.below(1_000);
                        match file.write_at(&[task as u8; 4096], page * PAGE) {
                            Ok(()) => {}
                            // Reclaimers that wait for memory inside reclaim keep what they have isolated.
                            Err(_) if !guard => return,
                            Err(e) => panic!("{e}"),
                        }
                    }
                })
            })
            .collect();
        for job in jobs {
            rig.join(job, ms(300_000));
        }
        if guard {
            file.sync_data().unwrap();
            backing.kept.lock().unwrap().clear();
            rig.at_rest();
            assert_eq!(rig.stat("nr_lent"), 0);
        } else {
            // Whoever sits in a recursion comes out of it.
            backing.fed.store(true, Ordering::Relaxed);
            rig.nap(ms(100_000));
        }
        *theirs.lock().unwrap() = (
            backing.deepest.load(Ordering::Relaxed),
            rig.stat("allocstall"),
        );
        drop(file);
        if guard {
            rig.engine.close().unwrap();
        }
    });
    *out.lock().unwrap()
}

/// The mail's case: an allocation inside a write that reclaims and writes a page. A reclaimer's own write gets the reserve,
/// so two writes are the most on one stack; without the guard they pile up, and reclaimers that wait for memory inside
/// reclaim may keep all of it.
#[test]
fn reclaim_1_the_guard_bounds_the_splice() {
    let mut deepest = [0; 4];
    for seed in 0..6 {
        for (i, (preset, context, guard)) in [
            (Preset::V2_6_35, LendContext::Reserve, true),
            (Preset::V2_6_35, LendContext::Reclaim, true),
            (Preset::V2_6_35, LendContext::Reclaim, false),
            (Preset::Highwater, LendContext::Reclaim, true),
        ]
        .into_iter()
        .enumerate()
        {
            let (deep, _) = write_hungrily(seed, preset, context, guard);
            deepest[i] = deep.max(deepest[i]);
        }
    }
    assert_eq!(deepest[0], 1, "the reserve splices nothing");
    assert_eq!(
        deepest[1], 2,
        "the flusher's chain, and the one spliced onto it"
    );
    assert!(deepest[2] > 2, "no guard, no bound: {deepest:?}");
    assert_eq!(
        deepest[3], 1,
        "reclaim does not write in the default policy"
    );
}

/// Nearly all of memory may be dirty, and only the flusher can make it clean: when the backing reclaims inside its write it
/// finds nothing, and must not wait for what it holds itself. Once it did, until the deadline of an allocation.
#[test]
fn a_flusher_that_reclaims_does_not_wait_for_itself() {
    let longest = Arc::new(AtomicU64::new(0));
    for seed in 0..4 {
        let theirs = longest.clone();
        let tune = |c: &mut Config| {
            c.policy.background_percent = 85;
            c.policy.limit_percent = 90;
        };
        lab(seed, 128, tune, move |rig: Rig| {
            let backing = hungry(&rig, LendContext::Reclaim);
            let file = open(&rig, backing.clone());
            let jobs: Vec<_> = (0..4)
                .map(|task| {
                    let (file, world, longest) = (file.clone(), rig.world.clone(), theirs.clone());
                    rig.spawn("writer", move || {
                        let mut rng = highwater_lab::Rng::new(seed, task);
                        for _ in 0..500 {
                            let (page, start) = (rng.below(1_000), world.now());
                            file.write_at(&[1; 4096], page * PAGE).expect("a write");
                            let took = world.now().since(start);
                            longest.fetch_max(took.0, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            for job in jobs {
                rig.join(job, ms(300_000));
            }
            file.sync_data().expect("a sync");
            backing.kept.lock().unwrap().clear();
            rig.at_rest();
            drop(file);
            rig.engine.close().unwrap();
        });
    }
    let longest = longest.load(Ordering::Relaxed);
    assert!(longest < ms(1_000).0, "a write took {longest} ns");
}
