//! One seed: blocks of frames asked for beside readers, writers, guards, syncs, truncations and a failing disk; every byte
//! of the files, and of the blocks, is known.
//!
//! Each file has one writer, who knows its bytes (the shadow) and changes a page at a time, so that an operation that
//! fails has changed nothing; its other tasks only read through guards and compare with what the writer told them last.
#![allow(dead_code)]

use highwater_engine::backing::PlainBacking;
use highwater_engine::policy::HighOrder;
use highwater_engine::{
    Block, BlockOptions, Config, Engine, Error, Event, File, FileId, FileOptions, Nanos, Order,
    PageNo, Preset, Stats, World,
};
use highwater_lab::{
    FaultRates, LabOptions, LabQueue, LabWorld, QueueOptions, RamDevice, RamOptions, Rng,
};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

const PAGE: usize = 4096;
/// Pages of a file at most.
const PAGES: u64 = 900;

/// What a run leaves behind.
#[derive(PartialEq, Debug)]
pub struct Left {
    pub trace: u64,
    pub stats: Stats,
    /// Operations that failed, as the disk's faults let them.
    pub failed: u64,
    pub blocks: u64,
}

/// A file, its bytes, and whether its owner is at work.
struct Owned {
    file: File<LabWorld>,
    device: Arc<RamDevice>,
    shadow: RefCell<Vec<u8>>,
    /// The page that is being changed: readers know nothing of it.
    changing: Cell<Option<u64>>,
    /// Raised by each change of the length.
    lengths: Cell<u64>,
}

struct Run {
    world: Arc<LabWorld>,
    engine: Arc<Engine<LabWorld>>,
    files: Vec<Rc<Owned>>,
    end: Nanos,
    failed: Cell<u64>,
    blocks: Cell<u64>,
}

fn draw_config(rng: &mut Rng) -> Config {
    let pages = rng.pick(&[768, 1024, 1536]);
    let mut config = Config::new(pages * PAGE as u64);
    config.policy = rng.pick(&Preset::ALL).policy();
    config.policy.high_order = rng.pick(&[
        HighOrder::Lumpy,
        HighOrder::Compaction,
        HighOrder::Compaction,
        HighOrder::Both,
    ]);
    config.order = match rng.below(3) {
        0 => Order::S3Fifo,
        _ => Order::TwoList,
    };
    config.writeback_interval = Nanos::from_millis(200);
    config.dirty_expire = Nanos::from_millis(500);
    config.readahead_max = rng.pick(&[0, 64 << 10]);
    config.alloc_timeout = Nanos::from_secs(5);
    config
}

fn draw_faults(rng: &mut Rng) -> FaultRates {
    if rng.below(2) == 0 {
        return FaultRates::default();
    }
    FaultRates {
        read_error_ppm: 5_000,
        write_error_ppm: 50_000,
        flush_error_ppm: 300_000,
        flush_loss_ppm: 500_000,
        spike_ppm: 10_000,
        spike: Nanos::from_millis(20),
        ..FaultRates::default()
    }
}

/// Runs `seed`; `tune` changes what it has drawn.
pub fn run(seed: u64, tune: impl FnOnce(&mut Config)) -> Left {
    let mut rng = Rng::new(seed, 77);
    let world = LabWorld::new(LabOptions {
        time_max: Nanos::from_secs(600),
        steps_max: 20_000_000,
        ..LabOptions::new(seed)
    });
    let mut config = draw_config(&mut rng);
    tune(&mut config);
    let faults = draw_faults(&mut rng);
    println!(
        "seed {seed}: {} KiB, {:?}, {}, {faults:?}",
        config.memory >> 10,
        config.policy,
        config.order
    );
    let w = world.clone();
    let done = world.run(move || {
        let disk = LabQueue::new(&w, QueueOptions::default());
        let engine = Engine::new(w.clone(), config).expect("the engine starts");
        let files = (0..3).map(|i| open(&engine, &disk, i, faults)).collect();
        let run = Rc::new(Run {
            end: w.now().plus(Nanos::from_millis(400)),
            world: w,
            engine,
            files,
            failed: Cell::new(0),
            blocks: Cell::new(0),
        });
        play(&run, seed);
        finish(run)
    });
    assert!(done.leaked.is_empty(), "tasks left: {:?}", done.leaked);
    let (stats, failed, blocks) = done.value;
    Left {
        trace: world.trace_hash(),
        stats,
        failed,
        blocks,
    }
}

fn open(
    engine: &Arc<Engine<LabWorld>>,
    disk: &Arc<LabQueue>,
    i: u64,
    faults: FaultRates,
) -> Rc<Owned> {
    let content: Vec<u8> = (0..PAGES * PAGE as u64)
        .map(|b| (b / 509 + b % 251 + i * 31) as u8)
        .collect();
    let device = RamDevice::new(
        disk,
        RamOptions {
            len: content.len() as u64,
            content: content.clone(),
            faults,
            crashes: true,
            ..RamOptions::default()
        },
    );
    let backing = Arc::new(PlainBacking::new(device.clone()));
    let id = FileId { dev: 1, ino: i + 1 };
    let file = engine.open(id, backing, FileOptions { write: true });
    Rc::new(Owned {
        file: file.expect("open"),
        device,
        shadow: RefCell::new(content),
        changing: Cell::new(None),
        lengths: Cell::new(0),
    })
}

fn play(run: &Rc<Run>, seed: u64) {
    let mut tasks = Vec::new();
    let mut spawn = |name: &str, body: Box<dyn FnOnce()>| {
        tasks.push(run.world.spawn_local(name, body));
    };
    for i in 0..run.files.len() {
        let (r, rng) = (run.clone(), Rng::new(seed, 100 + i as u64));
        spawn("writer", Box::new(move || write(&r, i, rng)));
        for n in 0..2 {
            let (r, rng) = (run.clone(), Rng::new(seed, 200 + 10 * n + i as u64));
            spawn("reader", Box::new(move || read(&r, i, rng)));
        }
    }
    for n in 0..5 {
        let (r, rng) = (run.clone(), Rng::new(seed, 300 + n));
        spawn("asker", Box::new(move || ask(&r, rng)));
    }
    // With it, whoever asks for a block finds one, and nobody else compacts.
    if seed.is_multiple_of(3) {
        let (r, mut rng) = (run.clone(), Rng::new(seed, 350));
        let body = move || {
            while r.goes_on() {
                r.engine.compact_memory(rng.between(1, 6) as u32);
                r.pause(rng.below(2_000));
            }
        };
        spawn("compactor", Box::new(body));
    }
    let mut rng = Rng::new(seed, 400);
    for task in tasks {
        // Frames are checked while everybody is inside.
        while !run
            .world
            .join(task, run.world.now().plus(Nanos::from_micros(500)))
        {
            let first = rng.below(2048);
            run.world
                .uninterrupted(|| run.engine.check_frames(first, 200));
        }
    }
}

impl Run {
    fn goes_on(&self) -> bool {
        self.world.now() < self.end
    }

    /// May the operation fail so? Then it has changed nothing.
    fn excuse(&self, e: &Error) {
        let fine = matches!(
            e,
            Error::Io { .. }
                | Error::OutOfMemory(_)
                | Error::AllPinned { .. }
                | Error::OutOfRange { .. }
                | Error::Busy { .. }
                | Error::DurabilityLost { .. }
        );
        assert!(fine, "an operation failed with {e}");
        let injected = matches!(e, Error::Io { .. } | Error::DurabilityLost { .. });
        self.failed.set(self.failed.get() + u64::from(injected));
    }

    fn pause(&self, micros: u64) {
        self.world
            .sleep_until(self.world.now().plus(Nanos::from_micros(micros)));
    }
}

/// The owner of a file: changes pages, whole and in part, by copy and in place; syncs, truncates, evicts.
fn write(run: &Run, i: usize, mut rng: Rng) {
    let own = run.files[i].clone();
    while run.goes_on() {
        let pages = own.file.len() / PAGE as u64;
        let n = rng.below(pages.max(1));
        match rng.below(100) {
            0..45 => {
                let (from, len) = match rng.below(2) {
                    0 => (0, PAGE),
                    _ => (rng.below(2048) as usize, rng.between(1, 2048) as usize),
                };
                let bytes = vec![rng.next_u64() as u8; len];
                change(run, &own, n, |own| {
                    own.file.write_at(&bytes, n * PAGE as u64 + from as u64)?;
                    Ok((from, bytes.clone()))
                });
            }
            45..75 => {
                let byte = rng.next_u64() as u8;
                let hold = rng.below(3) * 100;
                change(run, &own, n, |own| {
                    let mut page = own.file.page_mut(PageNo(n))?;
                    page[100..612].fill(byte);
                    run.pause(hold);
                    Ok((100, vec![byte; 512]))
                });
            }
            75..85 => {
                let mut buf = vec![0; PAGE];
                match own.file.read_at(&mut buf, n * PAGE as u64) {
                    Ok(len) => compare(&own, n, &buf[..len], "read by its writer"),
                    Err(e) => run.excuse(&e),
                }
            }
            85..90 => drop(own.file.sync_data().map_err(|e| run.excuse(&e))),
            90..93 => drop(own.file.evict(0..u64::MAX).map_err(|e| run.excuse(&e))),
            93..97 => resize(run, &own, &mut rng),
            _ => run.pause(rng.below(2_000)),
        }
    }
}

type Changed = Result<(usize, Vec<u8>), Error>;

/// One change of page `n`, which is in the shadow afterwards if it succeeded.
fn change(run: &Run, own: &Owned, n: u64, f: impl FnOnce(&Owned) -> Changed) {
    if n * PAGE as u64 + PAGE as u64 > own.file.len() {
        return;
    }
    own.changing.set(Some(n));
    match f(own) {
        Ok((from, bytes)) => {
            let at = n as usize * PAGE + from;
            own.shadow.borrow_mut()[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        Err(e) => run.excuse(&e),
    }
    own.changing.set(None);
}

fn resize(run: &Run, own: &Owned, rng: &mut Rng) {
    let len = rng.between(PAGES / 2, PAGES) * PAGE as u64 + rng.pick(&[0, 0, 17, 2000]);
    let len = len.min(PAGES * PAGE as u64);
    own.lengths.set(own.lengths.get() + 1);
    match own.file.set_len(len) {
        Ok(()) => own.shadow.borrow_mut().resize(len as usize, 0),
        Err(e) => run.excuse(&e),
    }
    own.lengths.set(own.lengths.get() + 1);
}

fn compare(own: &Owned, n: u64, bytes: &[u8], what: &str) {
    let shadow = own.shadow.borrow();
    let at = n as usize * PAGE;
    let end = (at + bytes.len()).min(shadow.len());
    assert!(
        bytes[..end - at] == shadow[at..end],
        "SHADOW: page {n} {what} is not what was written"
    );
}

/// A reader: holds pages for a while and looks at them again.
fn read(run: &Run, i: usize, mut rng: Rng) {
    let own = run.files[i].clone();
    while run.goes_on() {
        let n = rng.below(PAGES);
        let lengths = own.lengths.get();
        match own.file.page(PageNo(n)) {
            Ok(page) => {
                // Between two looks without a sleep nothing else runs.
                let known = own.changing.get() != Some(n) && own.lengths.get() == lengths;
                if known && lengths.is_multiple_of(2) {
                    compare(&own, n, &page, "read");
                }
                let before = page.to_vec();
                run.pause(rng.below(4) * 150);
                let whole = own.lengths.get() == lengths;
                assert!(
                    !whole || page[..] == before[..],
                    "FRAME-1: page {n} changed while it was held"
                );
            }
            Err(e) => run.excuse(&e),
        }
        run.pause(rng.below(300));
    }
}

/// Asks for blocks, keeps some, and looks at their bytes before it gives them back.
fn ask(run: &Run, mut rng: Rng) {
    let mut held: Vec<(Block<LabWorld>, u8)> = Vec::new();
    while run.goes_on() {
        let rare = if rng.below(8) == 0 { 9 } else { 4 };
        let order = rng.pick(&[2, 3, 4, 4, 5, 5, 5, 6, 6, 7, rare]);
        let mut options = rng.pick(&[
            BlockOptions::patient(),
            BlockOptions::thp(),
            BlockOptions::nowait(),
        ]);
        options.timeout = Nanos::from_millis(rng.pick(&[5, 500]));
        match run.engine.alloc_block(order, options) {
            Ok(mut block) => {
                let byte = rng.next_u64() as u8;
                block.fill(byte);
                held.push((block, byte));
                run.blocks.set(run.blocks.get() + 1);
            }
            Err(Error::NoBlock(report)) => assert_eq!(report.order, order),
            Err(e) => run.excuse(&e),
        }
        let most = run.engine.stats().frames / 10;
        if held.iter().map(|(b, _)| 1 << b.order()).sum::<u64>() > most {
            // Most of them at once, and then nothing for a while: pages come to lie where they were.
            let keep = rng.below(3) as usize;
            for (block, byte) in held.drain(keep.min(held.len())..) {
                check(&block, byte);
            }
            run.pause(rng.between(1_000, 30_000));
        }
        run.pause(rng.below(100));
    }
    for (block, byte) in held {
        check(&block, byte);
    }
}

fn check(block: &Block<LabWorld>, byte: u8) {
    assert!(
        block.iter().all(|b| *b == byte),
        "BLOCK-1: somebody wrote into a block"
    );
}

/// The disks are repaired: every byte is in memory and, after a sync, on the device.
fn finish(run: Rc<Run>) -> (Stats, u64, u64) {
    run.files.iter().for_each(|f| f.device.heal());
    for own in &run.files {
        let mut synced = own.file.sync_data();
        for _ in 0..20 {
            if synced.is_ok() {
                break;
            }
            run.pause(300_000);
            synced = own.file.sync_data();
        }
        let lost = matches!(synced, Err(Error::DurabilityLost { .. }));
        assert!(synced.is_ok() || lost, "a repaired disk fails: {synced:?}");
        let len = own.file.len() as usize;
        assert_eq!(len, own.shadow.borrow().len(), "length");
        for n in 0..own.file.len().div_ceil(PAGE as u64) {
            let mut buf = vec![0; PAGE];
            let got = own.file.read_at(&mut buf, n * PAGE as u64).expect("a read");
            compare(own, n, &buf[..got], "at the end");
        }
        let visible = own.device.visible();
        assert!(
            visible[..len] == own.shadow.borrow()[..],
            "SHADOW: the device after sync"
        );
        if !lost {
            let image = own.device.crash_image(&mut Rng::new(1, 1));
            assert!(
                image[..len] == own.shadow.borrow()[..],
                "SHADOW: a power failure after sync"
            );
        }
    }
    run.pause(700_000);
    run.engine.check_invariants();
    let stats = run.engine.stats();
    assert_eq!(stats.get("nr_block_pages"), 0);
    assert_eq!(stats.event(Event::LostWakeups), 0);
    let left = (stats, run.failed.get(), run.blocks.get());
    let run = Rc::try_unwrap(run).ok().expect("all tasks have ended");
    drop(run.files);
    run.engine.abandon();
    assert!(run.engine.is_quiet(), "somebody still sleeps in the engine");
    left
}
