//! Power failures of a journaled volume: seeds that write through a cache, images cut anywhere, each mounted and compared.
//!
//! A seed draws the volume, the cache, the tasks and what goes wrong; tasks write, change pages in place, shorten, lengthen,
//! punch holes and sync. Whenever the disk has carried out a write or a flush, a power failure may be photographed: the
//! durable bytes with any part of the writes since, torn at 512 bytes (`device/image.rs`), and beside it what is legal
//! (`versions.rs`). Afterwards each image is checked with `fsck`, mounted, read whole, written to and checked again
//! (`verify.rs`); the seed goes on from one of them.
//!
//! **Context.** One OS thread; worlds one after the other.
//! **Invariants.** CRASH-1, CRASH-2 (`versions.rs`).
//! - CRASH-3: `fsck` finds no fault on any image, before its mount and after.
//! - CRASH-4: without faults, no write fails at writeback: a full volume is the writer's error (RESERVE-1).
//! - CRASH-5: an image of which a superblock or a block of the log does not verify holds what sync promised all the same, or is
//!   refused at its mount.
//!
//! **Tests.** `tests/journaled.rs`; `highwater volume crash-test` runs it for as many images as one likes.

mod flip;
mod user;
mod verify;
mod versions;

pub use flip::{Flipped, flip_each_byte};

use crate::device::{FaultRates, LabQueue, Moment, QueueOptions, RamDevice, RamOptions};
use crate::rng::Rng;
use crate::world::{LabOptions, LabWorld};
use highwater_engine::backing::journaled::{FormatOptions, MountOptions, Volume, VolumeError};
use highwater_engine::{
    Config, Engine, Error, File, FileId, FileOptions, LendContext, Nanos, Preset, World,
};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use user::User;
use versions::Versions;

/// What a seed draws.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// The seed.
    pub seed: u64,
    /// Bytes of a page, and of a block.
    pub page_size: usize,
    /// Pages of the file, at most.
    pub pages: u64,
    /// Bytes of the device.
    pub device_bytes: u64,
    /// Blocks of the log.
    pub log_blocks: u64,
    /// The cache's budget in bytes.
    pub memory: u64,
    /// The policy.
    pub preset: Preset,
    /// Where the volume gets memory while it writes.
    pub lend: LendContext,
    /// Does it refuse writes from reclaim?
    pub refuse: bool,
    /// Tasks that use it.
    pub tasks: u64,
    /// Operations of all tasks between two mounts.
    pub ops: u64,
    /// Many operations, few of them syncs?
    pub lazy: bool,
    /// What goes wrong with the disk.
    pub faults: FaultRates,
    /// Does anything go wrong but power failures?
    pub faulty: bool,
    /// How often a moment is photographed, per million.
    pub image_ppm: u32,
    /// A bug in the engine, to be found.
    #[cfg(feature = "plant")]
    pub plant: Option<highwater_engine::plant::Plant>,
}

impl Drawn {
    /// The options of `seed`.
    pub fn draw(seed: u64) -> Drawn {
        let mut rng = Rng::new(seed, 70);
        let r = &mut rng;
        let page_size = r.pick(&[4096, 4096, 4096, 8192]);
        let pages = r.between(24, 200);
        let log_blocks = r.pick(&[8, 8, 12, 16, 40, 100]);
        let map = 2 * pages.div_ceil(500) + 2;
        // From much too small for the file to room enough for two copies.
        let data = pages * r.pick(&[30, 60, 105, 130, 150, 220]) / 100 + 16;
        let faulty = r.chance(600_000);
        let mut faults = FaultRates::default();
        if faulty {
            faults.write_error_ppm = r.pick(&[0, 10_000, 60_000]);
            faults.read_error_ppm = r.pick(&[0, 0, 10_000]);
            faults.flush_error_ppm = r.pick(&[0, 50_000, 200_000]);
            faults.flush_loss_ppm = r.pick(&[0, 500_000, 1_000_000]);
        }
        // A stream of its own, so that this leaves what the seed draws else as it is: several flushes in a row fail.
        let more = &mut Rng::new(seed, 71);
        if faulty && more.chance(700_000) {
            faults.flush_error_ppm = more.pick(&[200_000, 400_000, 600_000]);
            faults.flush_loss_ppm = 1_000_000;
        }
        let lazy = more.chance(150_000);
        Drawn {
            seed,
            page_size,
            pages,
            device_bytes: (log_blocks + map + data) * page_size as u64,
            log_blocks,
            memory: r.pick(&[100, 128, 200, 400]) * page_size as u64 + (256 << 10),
            preset: r.pick(&Preset::ALL),
            lend: r.pick(&[
                LendContext::Reserve,
                LendContext::Reserve,
                LendContext::Reclaim,
            ]),
            refuse: r.chance(250_000),
            tasks: r.between(1, 4),
            ops: r.between(100, 500) * if lazy { 8 } else { 1 },
            lazy,
            faults,
            faulty,
            image_ppm: r.pick(&[20_000, 80_000, 250_000]),
            #[cfg(feature = "plant")]
            plant: None,
        }
    }
}

impl fmt::Display for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}: {} pages of {} on {} bytes, log {}; memory {}, {}, lend {:?}{}; {} tasks, {} operations{}; {}",
            self.seed,
            self.pages,
            self.page_size,
            self.device_bytes,
            self.log_blocks,
            self.memory,
            self.preset,
            self.lend,
            if self.refuse { ", refusing" } else { "" },
            self.tasks,
            self.ops,
            if self.lazy { ", few syncs" } else { "" },
            if self.faulty { "faults" } else { "no faults" },
        )
    }
}

/// What a seed did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CrashReport {
    /// Operations.
    pub operations: u64,
    /// Those that ended in an error that the seed allows.
    pub failed: u64,
    /// Those refused because the volume was full.
    pub refused: u64,
    /// Syncs that returned well.
    pub syncs: u64,
    /// Images cut, checked, mounted and compared.
    pub images: u64,
    /// Pages compared, live and on images.
    pub pages_checked: u64,
    /// Images looked at once more with a superblock or a block of the log spoiled.
    pub spoiled: u64,
    /// Those of them that were refused.
    pub refused_mounts: u64,
    /// Images whose recovery read a part of the log.
    pub replayed: u64,
    /// Times that a volume was mounted again and used on.
    pub mounts: u64,
    /// Requests and flushes that the disk failed.
    pub faults: u64,
}

impl std::ops::AddAssign for CrashReport {
    fn add_assign(&mut self, o: CrashReport) {
        self.operations += o.operations;
        self.failed += o.failed;
        self.refused += o.refused;
        self.syncs += o.syncs;
        self.images += o.images;
        self.pages_checked += o.pages_checked;
        self.spoiled += o.spoiled;
        self.refused_mounts += o.refused_mounts;
        self.replayed += o.replayed;
        self.mounts += o.mounts;
        self.faults += o.faults;
    }
}

/// An image, and what it may hold.
pub(crate) struct Photo {
    image: Vec<u8>,
    legal: Versions,
}

/// What the tasks of one mount share.
struct Shared {
    world: Arc<LabWorld>,
    drawn: Drawn,
    versions: RefCell<Versions>,
    counts: Cell<CrashReport>,
}

impl Shared {
    fn count(&self, f: impl FnOnce(&mut CrashReport)) {
        let mut counts = self.counts.get();
        f(&mut counts);
        self.counts.set(counts);
    }
}

/// How often a seed mounts what a crash has left and goes on.
const MOUNTS: u64 = 3;
/// Photos of one mount, half of them at most of moments like any other; each is as large as the device.
const PHOTOS_MAX: usize = 40;
/// The only file.
const FILE: FileId = FileId { dev: 7, ino: 1 };

/// Runs a seed with at most `images_max` images, 3 at the least.
///
/// # Panics
/// Where an invariant does not hold; the seed repeats it.
pub fn run(seed: u64, images_max: u64) -> CrashReport {
    run_drawn(&Drawn::draw(seed), images_max)
}

/// Runs what a seed has drawn, perhaps changed.
///
/// # Panics
/// As [`run`].
pub fn run_drawn(drawn: &Drawn, images_max: u64) -> CrashReport {
    let mut total = CrashReport::default();
    let of_a_mount = (images_max / MOUNTS).max(1);
    let mut image = fresh(drawn);
    let whole = drawn.pages * drawn.page_size as u64;
    let mut versions = Versions::new(drawn.page_size, drawn.pages, whole);
    for mount in 0..MOUNTS {
        let (counts, photos) = use_it(drawn, mount, image, versions);
        total += counts;
        // From the last one back, evenly.
        let step = photos.len().div_ceil(of_a_mount as usize);
        let photos: Vec<_> = photos.into_iter().rev().step_by(step).collect();
        total += verify::verify(drawn, mount, &photos);
        (image, versions) = verify::go_on(drawn, &photos[0]);
        total.mounts += 1;
    }
    total
}

/// A device that does not fail, with a new volume on it.
fn formatted(world: &Arc<LabWorld>, drawn: &Drawn) -> Arc<RamDevice> {
    let zeroes = vec![0; drawn.device_bytes as usize];
    let device = device(world, zeroes, FaultRates::default(), false);
    Volume::format(&*device, &format_options(drawn)).expect("format");
    device
}

/// The bytes of a volume nobody has written to.
fn fresh(drawn: &Drawn) -> Vec<u8> {
    let drawn = drawn.clone();
    let world = LabWorld::new(LabOptions::calm(drawn.seed));
    let inner = world.clone();
    let run = world.run(move || {
        let device = formatted(&inner, &drawn);
        device.visible()
    });
    run.value
}

fn format_options(drawn: &Drawn) -> FormatOptions {
    FormatOptions {
        block_size: drawn.page_size as u32,
        logical_bytes: drawn.pages * drawn.page_size as u64,
        log_bytes: drawn.log_blocks * drawn.page_size as u64,
        uuid: u128::from(crate::rng::mix(drawn.seed)).to_le_bytes(),
    }
}

fn device(
    world: &Arc<LabWorld>,
    content: Vec<u8>,
    faults: FaultRates,
    crashes: bool,
) -> Arc<RamDevice> {
    let queue = LabQueue::new(world, QueueOptions::default());
    RamDevice::new(
        &queue,
        RamOptions {
            len: content.len() as u64,
            content,
            faults,
            crashes,
            ..RamOptions::default()
        },
    )
}

fn engine(world: &Arc<LabWorld>, drawn: &Drawn) -> Arc<Engine<LabWorld>> {
    let mut config = Config::new(drawn.memory);
    config.frame_size = drawn.page_size;
    config.policy = drawn.preset.policy();
    config.writeback_interval = Nanos::from_millis(20);
    config.dirty_expire = Nanos::from_millis(50);
    config.readahead_max = 64 << 10;
    #[cfg(feature = "plant")]
    {
        config.plant = drawn.plant;
    }
    Engine::new(world.clone(), config).expect("the engine starts")
}

fn mount(
    engine: &Arc<Engine<LabWorld>>,
    device: &Arc<RamDevice>,
    drawn: &Drawn,
) -> (Arc<Volume>, File<LabWorld>) {
    try_mount(engine, device, drawn).unwrap_or_else(|e| panic!("CRASH-1: mount: {e}"))
}

fn try_mount(
    engine: &Arc<Engine<LabWorld>>,
    device: &Arc<RamDevice>,
    drawn: &Drawn,
) -> Result<(Arc<Volume>, File<LabWorld>), VolumeError> {
    let options = MountOptions {
        lend_context: drawn.lend,
        refuse_reclaim: drawn.refuse,
    };
    let volume = Volume::mount(device.clone(), engine.page_source(), options)?;
    let file = engine
        .open(FILE, volume.clone(), FileOptions { write: true })
        .expect("open");
    Ok((volume, file))
}

/// Mounts the image and uses it; what happened, and the photos.
fn use_it(
    drawn: &Drawn,
    nth: u64,
    image: Vec<u8>,
    versions: Versions,
) -> (CrashReport, Vec<Photo>) {
    let drawn = drawn.clone();
    let world = LabWorld::new(LabOptions {
        time_max: Nanos::from_secs(3_600),
        steps_max: 50_000_000,
        ..LabOptions::new(drawn.seed.wrapping_mul(16).wrapping_add(nth))
    });
    let inner = world.clone();
    let run = world.run(move || {
        let device = device(&inner, image, FaultRates::default(), true);
        let engine = engine(&inner, &drawn);
        let (volume, file) = mount(&engine, &device, &drawn);
        let shared = Rc::new(Shared {
            world: inner,
            versions: RefCell::new(versions),
            counts: Cell::default(),
            drawn: drawn.clone(),
        });
        let photos = photograph(&shared, &device, nth);
        device.set_faults(drawn.faults);
        run_users(&shared, &file, nth);
        device.heal();
        settle(&shared, &engine, &volume, &file);
        let failures = device.failures();
        let mut counts = shared.counts.get();
        counts.faults += failures;
        let last = Photo {
            image: device.crash_image(&mut Rng::new(drawn.seed, 80 + nth)),
            legal: shared.versions.borrow().clone(),
        };
        drop(file);
        engine.abandon();
        let mut photos = photos.borrow_mut();
        photos.push(last);
        (counts, std::mem::take(&mut *photos))
    });
    assert!(run.leaked.is_empty(), "tasks left: {:?}", run.leaked);
    run.value
}

/// From now on, power failures are photographed now and then.
fn photograph(shared: &Rc<Shared>, device: &Arc<RamDevice>, nth: u64) -> Rc<RefCell<Vec<Photo>>> {
    let photos = Rc::new(RefCell::new(Vec::new()));
    let (out, shared, weak) = (
        photos.clone(),
        Rc::downgrade(shared),
        Arc::downgrade(device),
    );
    let rng = RefCell::new(Rng::new(shared_seed(&shared), 90 + nth));
    device.observe(move |moment| {
        let (Some(shared), Some(device)) = (shared.upgrade(), weak.upgrade()) else {
            return;
        };
        let mut rng = rng.borrow_mut();
        // Flushes are few, and what follows one is where a promise is new; writes of a superblock are few, too, and
        // rely on what was written before.
        let superblocks = 2 * shared.drawn.page_size as u64;
        let (ppm, most) = match moment {
            Moment::Written(at) if at >= superblocks => (shared.drawn.image_ppm, PHOTOS_MAX / 2),
            _ => (500_000, PHOTOS_MAX),
        };
        if out.borrow().len() < most && rng.chance(ppm) {
            let photo = Photo {
                image: device.crash_image(&mut rng),
                legal: shared.versions.borrow().clone(),
            };
            out.borrow_mut().push(photo);
        }
    });
    photos
}

fn shared_seed(shared: &std::rc::Weak<Shared>) -> u64 {
    shared.upgrade().map_or(0, |s| s.drawn.seed)
}

/// Runs the tasks to their end.
fn run_users(shared: &Rc<Shared>, file: &File<LabWorld>, nth: u64) {
    let drawn = &shared.drawn;
    let share = drawn.pages / drawn.tasks;
    // The last task's pages begin where the file ends at least, so that the others' are there for good.
    let last_start = share * (drawn.tasks - 1);
    let size = drawn.page_size as u64;
    if file.len() < last_start * size {
        shared.versions.borrow_mut().begin_len(last_start * size);
        file.set_len(last_start * size).expect("no fault yet");
        shared.versions.borrow_mut().end_len();
    }
    let ids: Vec<_> = (0..drawn.tasks)
        .map(|n| {
            let last = n == drawn.tasks - 1;
            let user = User {
                file: file.clone(),
                shared: shared.clone(),
                rng: Rng::new(drawn.seed, 100 + nth * 8 + n),
                pages: n * share..if last { drawn.pages } else { (n + 1) * share },
                last,
                size: drawn.page_size,
            };
            let ops = drawn.ops / drawn.tasks;
            shared.world.spawn_local("user", move || user.work(ops))
        })
        .collect();
    for id in ids {
        let until = shared.world.now().plus(Nanos::from_secs(1_800));
        assert!(shared.world.join(id, until), "a task does not end");
    }
}

/// The disk is well again: what is dirty becomes durable, and the books balance.
fn settle(
    shared: &Rc<Shared>,
    engine: &Arc<Engine<LabWorld>>,
    volume: &Arc<Volume>,
    file: &File<LabWorld>,
) {
    let mut last = Ok(());
    // The first syncs may still tell of old errors.
    for _ in 0..4 {
        let cut = shared.versions.borrow().cut();
        last = file.sync_data();
        match &last {
            Ok(()) => {
                shared.versions.borrow_mut().promise(&cut);
                break;
            }
            Err(Error::DurabilityLost { ranges }) => {
                // At once: the next sync may commit what is left of it.
                let mut versions = shared.versions.borrow_mut();
                ranges.iter().for_each(|r| versions.lose(r));
            }
            Err(_) => {}
        }
    }
    match last {
        Ok(()) => {}
        Err(Error::DurabilityLost { .. }) if shared.drawn.faulty => return,
        Err(e) => panic!(
            "the disk is well, and a sync fails: {e}; {:?}",
            volume.info()
        ),
    }
    let stats = engine.stats();
    if !shared.drawn.faulty {
        assert_eq!(stats.get("write_errors"), 0, "CRASH-4");
        assert_eq!(stats.get("flush_errors"), 0, "CRASH-4");
    }
    assert_eq!(stats.get("lost_wakeups"), 0);
    let now = shared.world.now();
    shared.world.sleep_until(now.plus(Nanos::from_millis(200)));
    engine.check_invariants();
    assert_eq!(volume.info().reserved, 0, "RESERVE-1");
}
