//! A cache in the lab with one or two disks, for tests that make a bad day happen.
#![allow(dead_code)]

use highwater_engine::backing::PlainBacking;
use highwater_engine::{
    Config, Engine, Error, File, FileId, FileOptions, IoErrorKind, Nanos, TaskId, World,
};
use highwater_lab::model::Ssd;
use highwater_lab::{
    LabOptions, LabQueue, LabWorld, Model, QueueOptions, RamDevice, RamOptions, Rng,
};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

pub const PAGE: u64 = 4096;

pub fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}

/// The lab's quick disk with another depth and bus.
pub fn ssd(depth: usize, ns_per_kib: u64) -> Model {
    let us = Nanos::from_micros;
    Model::Ssd(Ssd::simple(
        depth,
        [us(60), us(20), us(200)],
        ns_per_kib,
        30,
    ))
}

pub type LabFile = File<LabWorld>;

/// One cache.
#[derive(Clone)]
pub struct Rig {
    pub world: Arc<LabWorld>,
    pub engine: Arc<Engine<LabWorld>>,
    pub disk: Arc<LabQueue>,
}

/// Runs `body` with a cache of `pages` pages of budget; no task may be left behind.
pub fn lab(
    seed: u64,
    pages: u64,
    tune: impl FnOnce(&mut Config),
    body: impl FnOnce(Rig) + 'static,
) {
    let world = LabWorld::new(LabOptions {
        time_max: Nanos::from_secs(600),
        steps_max: 20_000_000,
        ..LabOptions::new(seed)
    });
    let mut config = Config::new(pages * PAGE);
    config.writeback_interval = ms(500);
    config.dirty_expire = ms(2_000);
    config.readahead_max = 256 << 10;
    tune(&mut config);
    let w = world.clone();
    let run = world.run(move || {
        let engine = Engine::new(w.clone(), config).expect("the engine starts");
        let disk = LabQueue::new(&w, QueueOptions::default());
        let rig = Rig {
            world: w,
            engine,
            disk,
        };
        body(rig.clone());
        // A test that does not close its cache itself leaves that to us.
        rig.engine.abandon();
        assert_eq!(rig.engine.stats().get("lost_wakeups"), 0);
        assert!(rig.engine.is_quiet(), "somebody still sleeps in the engine");
    });
    assert!(run.leaked.is_empty(), "tasks left: {:?}", run.leaked);
}

impl Rig {
    pub fn now(&self) -> Nanos {
        self.world.now()
    }

    pub fn nap(&self, span: Nanos) {
        self.world.sleep_until(self.now().plus(span));
    }

    /// How long `f` takes, and what it returns.
    pub fn timed<R>(&self, f: impl FnOnce() -> R) -> (R, Nanos) {
        let start = self.now();
        let value = f();
        (value, self.now().since(start))
    }

    /// A device on the first disk whose byte at `i` is `pattern(i)`.
    pub fn device(&self, len: u64) -> Arc<RamDevice> {
        device_on(&self.disk, len)
    }

    pub fn open(&self, ino: u64, device: &Arc<RamDevice>) -> LabFile {
        self.try_open(ino, device, true).expect("open")
    }

    pub fn try_open(
        &self,
        ino: u64,
        device: &Arc<RamDevice>,
        write: bool,
    ) -> Result<LabFile, Error> {
        let backing = Arc::new(PlainBacking::new(device.clone()));
        self.engine
            .open(FileId { dev: 1, ino }, backing, FileOptions { write })
    }

    /// A new file of `pages` pages.
    pub fn file(&self, ino: u64, pages: u64) -> (LabFile, Arc<RamDevice>) {
        let device = self.device(pages * PAGE);
        (self.open(ino, &device), device)
    }

    /// Starts a task that returns a value.
    pub fn spawn<R: 'static>(&self, name: &str, body: impl FnOnce() -> R + 'static) -> Job<R> {
        let slot = Rc::new(RefCell::new(None));
        let theirs = slot.clone();
        let id = self
            .world
            .spawn_local(name, move || *theirs.borrow_mut() = Some(body()));
        Job { id, slot }
    }

    /// The value of a task that must end within `limit`.
    pub fn join<R>(&self, job: Job<R>, limit: Nanos) -> R {
        assert!(
            self.world.join(job.id, self.now().plus(limit)),
            "a task is still under way after {limit:?}"
        );
        job.slot.borrow_mut().take().expect("its value")
    }

    /// The cache works: bytes go in, are read back, and reach the device; then it comes to rest and is whole.
    pub fn works(&self, file: &LabFile, device: &RamDevice) {
        let page = vec![0xA5; PAGE as usize];
        file.write_at(&page, 0).expect("a write");
        let mut back = vec![0; PAGE as usize];
        assert_eq!(file.read_at(&mut back, 0), Ok(page.len()));
        assert!(back == page, "read back");
        file.sync_data().expect("a sync");
        assert!(device.visible()[..page.len()] == page, "on the device");
        self.at_rest();
    }

    /// Lets what is in flight end, then checks every invariant.
    pub fn at_rest(&self) {
        self.nap(ms(700));
        self.engine.check_invariants();
    }

    pub fn stat(&self, name: &str) -> u64 {
        self.engine.stats().get(name)
    }
}

/// A task and the place of its value.
pub struct Job<R> {
    id: TaskId,
    slot: Rc<RefCell<Option<R>>>,
}

impl<R> Job<R> {
    pub fn ended(&self) -> bool {
        self.slot.borrow().is_some()
    }
}

pub fn device_on(disk: &Arc<LabQueue>, len: u64) -> Arc<RamDevice> {
    let content = (0..len).map(pattern).collect();
    RamDevice::new(
        disk,
        RamOptions {
            content,
            len,
            crashes: true,
            ..RamOptions::default()
        },
    )
}

/// A file of `len` bytes on `disk` that is all holes.
pub fn open_sparse(
    engine: &Arc<Engine<LabWorld>>,
    disk: &Arc<LabQueue>,
    len: u64,
    write: bool,
) -> LabFile {
    let options = RamOptions {
        len,
        sparse: true,
        ..RamOptions::default()
    };
    let backing = Arc::new(PlainBacking::new(RamDevice::new(disk, options)));
    let id = FileId { dev: 1, ino: 1 };
    engine
        .open(id, backing, FileOptions { write })
        .expect("open")
}

/// What a device holds at byte `i` at first.
pub fn pattern(i: u64) -> u8 {
    (i / PAGE * 7 + i % 251) as u8
}

/// Page `n` as a device holds it at first.
pub fn page_pattern(n: u64) -> Vec<u8> {
    (n * PAGE..(n + 1) * PAGE).map(pattern).collect()
}

/// The kind and the byte of a device's error; anything else fails the test.
pub fn io<T: std::fmt::Debug>(result: Result<T, Error>, op: &str) -> (IoErrorKind, u64) {
    match result {
        Err(Error::Io { op: did, source }) => {
            assert_eq!(did, op);
            (source.kind, source.offset)
        }
        other => panic!("{op} ended in {other:?}, not in the device's error"),
    }
}

/// `image` holds `bytes` at `at` in each of a few power failures now.
pub fn survives_crashes(device: &RamDevice, at: u64, bytes: &[u8], what: &str) {
    let mut rng = Rng::new(7, 7);
    for _ in 0..8 {
        let image = device.crash_image(&mut rng);
        let (from, to) = (at as usize, at as usize + bytes.len());
        assert!(
            image.len() >= to && image[from..to] == *bytes,
            "{what}: lost in a power failure"
        );
    }
}
