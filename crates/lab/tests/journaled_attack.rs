//! The journaled volume under an adversary: maps of many leaves, syncs of ranges, failing and losing flushes, kills without a
//! power failure, and images cut at each flush and between. `HW_ATTACK=seed..seed` runs others than the few below.

use highwater_engine::backing::journaled::{Damage, FormatOptions, MountOptions, Volume, fsck};
use highwater_engine::{
    Config, Engine, Error, File, FileId, FileOptions, IoErrorKind, LendContext, Nanos, Preset,
    World,
};
use highwater_lab::{
    FaultRates, LabOptions, LabQueue, LabWorld, Moment, QueueOptions, RamDevice, RamOptions, Rng,
};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

const PAGE: u64 = 4096;
const FILE: FileId = FileId { dev: 9, ino: 1 };
/// Images of one seed.
const IMAGES: usize = 60;

/// A page: which write made it, and how many of its bytes a truncation has left.
type Content = (u64, u64);

fn bytes_of(page: u64, (version, kept): Content) -> Vec<u8> {
    let word =
        page.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ version.wrapping_mul(0xD1B5_4A32_D192_ED03);
    let mut bytes = word.to_le_bytes().repeat(PAGE as usize / 8);
    let kept = if version == 0 { 0 } else { kept as usize };
    bytes[kept..].fill(0);
    bytes
}

/// What a page has been since the last sync that covers it; the newest comes last.
#[derive(Clone)]
struct History {
    all: Vec<(u64, Content)>,
    returned: u64,
    lost: bool,
}

#[derive(Clone)]
struct Model {
    pages: Vec<History>,
    lens: Vec<(u64, u64)>,
    len_returned: u64,
    next: u64,
}

impl Model {
    fn new(pages: u64) -> Model {
        let page = History {
            all: vec![(0, (0, 0))],
            returned: 0,
            lost: false,
        };
        Model {
            pages: vec![page; pages as usize],
            lens: vec![(0, pages * PAGE)],
            len_returned: 0,
            next: 1,
        }
    }
    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }
    fn begin(&mut self, page: u64, content: Content) -> u64 {
        let id = self.id();
        self.pages[page as usize].all.push((id, content));
        id
    }
    fn end(&mut self, page: u64, id: u64) {
        let p = &mut self.pages[page as usize];
        p.returned = p.returned.max(id);
    }
    fn now(&self, page: u64) -> Content {
        self.pages[page as usize].all.last().unwrap().1
    }
    /// The newest operations that have returned: what a sync that begins now will promise.
    fn cut(&self) -> (Vec<u64>, u64) {
        (
            self.pages.iter().map(|p| p.returned).collect(),
            self.len_returned,
        )
    }
    fn promise(&mut self, (floors, len): &(Vec<u64>, u64), pages: Range<u64>, whole: bool) {
        for page in pages.start..pages.end.min(self.pages.len() as u64) {
            let floor = floors[page as usize];
            let all = &mut self.pages[page as usize].all;
            let older = all.iter().filter(|(id, _)| *id <= floor).count();
            all.drain(..older.saturating_sub(1));
        }
        if whole {
            let older = self.lens.iter().filter(|(id, _)| id <= len).count();
            self.lens.drain(..older.saturating_sub(1));
        }
    }
    fn lose(&mut self, ranges: &[Range<u64>]) {
        for r in ranges {
            for page in r.start / PAGE..r.end.div_ceil(PAGE).min(self.pages.len() as u64) {
                self.pages[page as usize].lost = true;
            }
        }
    }
    /// Is it legal that the page has these bytes?
    fn legal(&self, page: u64, bytes: &[u8]) -> bool {
        let p = &self.pages[page as usize];
        p.lost
            || p.all
                .iter()
                .any(|(_, c)| bytes_of(page, *c)[..bytes.len()] == *bytes)
    }
}

struct Drawn {
    pages: u64,
    hot: Vec<u64>,
    device_bytes: u64,
    log: u64,
    memory: u64,
    preset: Preset,
    lend: LendContext,
    faults: FaultRates,
    faulty: bool,
}

impl Drawn {
    fn draw(r: &mut Rng) -> Drawn {
        // Up to twelve leaves: more than there are buffers.
        let pages = r.pick(&[300, 1100, 2600, 6000]);
        // The corners of leaves, and a few places more.
        let mut hot: Vec<u64> = (0..pages)
            .filter(|p| p % 504 < 3 || p % 504 > 500)
            .collect();
        hot.extend((0..r.between(10, 60)).map(|_| r.below(pages)));
        hot.sort_unstable();
        hot.dedup();
        let log = r.pick(&[8, 9, 13, 40]);
        let data = hot.len() as u64 * r.pick(&[60, 103, 115, 160, 300]) / 100 + 12;
        let faulty = r.chance(600_000);
        let mut faults = FaultRates::default();
        if faulty {
            faults.write_error_ppm = r.pick(&[0, 0, 20_000]);
            faults.flush_error_ppm = r.pick(&[8_000, 30_000, 100_000]);
            faults.flush_loss_ppm = r.pick(&[500_000, 1_000_000]);
        }
        Drawn {
            pages,
            hot,
            device_bytes: (2 + log + 2 * pages.div_ceil(504) + data) * PAGE,
            log,
            memory: r.pick(&[96, 130, 300, 700]) * PAGE + (256 << 10),
            preset: r.pick(&Preset::ALL),
            lend: r.pick(&[LendContext::Reserve, LendContext::Reclaim]),
            faults,
            faulty,
        }
    }
}

#[derive(Clone, Copy, Default, Debug)]
struct Counts {
    images: u64,
    syncs: u64,
    failed: u64,
    stuck: u64,
    kills: u64,
}

struct Rig {
    world: Arc<LabWorld>,
    drawn: Drawn,
    model: RefCell<Model>,
    /// Pages that the cache has said are lost, in this life. A flush that fails knows before its caller does, and another
    /// task's sync may come between.
    lost: RefCell<Rc<RefCell<BTreeSet<u64>>>>,
    counts: RefCell<Counts>,
    what: String,
}

type Lab = Arc<Engine<LabWorld>>;

impl Rig {
    fn engine(&self) -> Lab {
        let mut config = Config::new(self.drawn.memory);
        config.policy = self.drawn.preset.policy();
        config.writeback_interval = Nanos::from_millis(10);
        config.dirty_expire = Nanos::from_millis(30);
        Engine::new(self.world.clone(), config).expect("the engine starts")
    }

    fn mount(&self, engine: &Lab, device: &Arc<RamDevice>) -> (Arc<Volume>, File<LabWorld>) {
        let options = MountOptions {
            lend_context: self.drawn.lend,
            refuse_reclaim: false,
        };
        let volume = Volume::mount(device.clone(), engine.page_source(), options)
            .unwrap_or_else(|e| panic!("{}: mount: {e}", self.what));
        let file = engine
            .open(FILE, volume.clone(), FileOptions { write: true })
            .expect("open");
        (volume, file)
    }

    fn device(&self, content: Vec<u8>, crashes: bool) -> Arc<RamDevice> {
        let queue = LabQueue::new(&self.world, QueueOptions::default());
        RamDevice::new(
            &queue,
            RamOptions {
                len: content.len() as u64,
                content,
                crashes,
                ..RamOptions::default()
            },
        )
    }

    fn failed(&self, what: &str, e: &Error) {
        let full = matches!(e, Error::Io { source, .. } if source.kind == IoErrorKind::NoSpace);
        let writer = matches!(e, Error::Io { op, .. } if *op == "reserve space for a write");
        assert!(
            self.drawn.faulty || (full && (writer || what == "set_len")),
            "{}: {what}: {e}",
            self.what
        );
        if let Error::DurabilityLost { ranges } = e {
            self.model.borrow_mut().lose(ranges);
            let lost = self.lost.borrow();
            let pages = ranges
                .iter()
                .flat_map(|r| r.start / PAGE..r.end.div_ceil(PAGE));
            lost.borrow_mut().extend(pages);
        }
        let mut c = self.counts.borrow_mut();
        c.failed += 1;
        c.stuck += u64::from(full && !writer);
    }

    fn write(&self, file: &File<LabWorld>, page: u64) {
        if (page + 1) * PAGE > file.len() {
            return;
        }
        let version = self.model.borrow().next;
        let id = self.model.borrow_mut().begin(page, (version, PAGE));
        match file.write_at(&bytes_of(page, (version, PAGE)), page * PAGE) {
            Ok(()) => self.model.borrow_mut().end(page, id),
            Err(e) => {
                // Nothing has changed.
                self.model.borrow_mut().pages[page as usize]
                    .all
                    .retain(|(i, _)| *i != id);
                self.failed("write", &e);
            }
        }
    }

    fn sync(&self, file: &File<LabWorld>, pages: Range<u64>) {
        let whole = pages.end == u64::MAX;
        let cut = self.model.borrow().cut();
        let result = match whole {
            true => file.sync_data(),
            false => file.sync_range(pages.start * PAGE..pages.end * PAGE),
        };
        match result {
            Ok(()) => {
                self.model.borrow_mut().promise(&cut, pages, whole);
                self.counts.borrow_mut().syncs += 1;
            }
            Err(e) => self.failed("sync", &e),
        }
    }

    fn discard(&self, file: &File<LabWorld>, first: u64, end: u64) {
        let end = end.min(file.len() / PAGE);
        if first >= end {
            return;
        }
        let ids: Vec<u64> = {
            let mut m = self.model.borrow_mut();
            (first..end).map(|p| m.begin(p, (0, 0))).collect()
        };
        match file.discard(first * PAGE..end * PAGE) {
            Ok(()) => {
                let mut m = self.model.borrow_mut();
                (first..end).zip(ids).for_each(|(p, id)| m.end(p, id));
            }
            Err(e) => {
                for (p, id) in (first..end).zip(ids) {
                    let mut m = self.model.borrow_mut();
                    m.pages[p as usize].all.retain(|(i, _)| *i != id);
                }
                self.failed("discard", &e);
            }
        }
    }

    /// Shortens the file, or makes it as long as it can be.
    fn set_len(&self, file: &File<LabWorld>, len: u64) {
        let cut = len / PAGE..self.drawn.pages;
        let shorter = len < file.len();
        let (ids, len_id) = {
            let mut m = self.model.borrow_mut();
            let mut ids = Vec::new();
            for p in cut.clone().filter(|_| shorter) {
                let (version, kept) = m.now(p);
                let kept = kept.min(len.saturating_sub(p * PAGE));
                ids.push((
                    p,
                    m.begin(p, if kept == 0 { (0, 0) } else { (version, kept) }),
                ));
            }
            let id = m.id();
            m.lens.push((id, len));
            (ids, id)
        };
        let result = file.set_len(len);
        let mut m = self.model.borrow_mut();
        match result {
            Ok(()) => {
                ids.iter().for_each(|(p, id)| m.end(*p, *id));
                m.len_returned = len_id;
            }
            Err(e) => {
                // The tail may be zeroed already, of a page that nobody has in memory: it is not, as the cache has it.
                for (p, id) in ids.iter().filter(|(p, _)| *p != len / PAGE) {
                    m.pages[*p as usize].all.retain(|(i, _)| i != id);
                }
                if let Some((p, _)) = ids.first().filter(|(p, _)| *p == len / PAGE) {
                    m.pages[*p as usize].lost = true;
                }
                m.lens.retain(|(i, _)| *i != len_id);
                drop(m);
                self.failed("set_len", &e);
            }
        }
    }

    fn work(&self, file: &File<LabWorld>, ops: u64, r: &mut Rng, mine: Range<usize>, last: bool) {
        let hot = &self.drawn.hot[mine];
        for _ in 0..ops {
            let page = hot[r.below(hot.len() as u64) as usize];
            match r.below(100) {
                0..=54 => self.write(file, page),
                55..=64 => {
                    let mut bytes = vec![0; PAGE as usize];
                    if let Ok(n) = file.read_at(&mut bytes, page * PAGE) {
                        let m = self.model.borrow();
                        let now = bytes_of(page, m.now(page));
                        let same = bytes[..n] == now[..n] || m.pages[page as usize].lost;
                        assert!(same, "{}: page {page} reads as something old", self.what);
                    }
                }
                65..=70 => self.sync(file, 0..u64::MAX),
                71..=80 => self.sync(file, page..page + r.between(1, 20)),
                81..=84 => {
                    // Only what is this task's.
                    let next = hot.iter().find(|p| **p > page).copied().unwrap_or(page + 1);
                    self.discard(file, page, next.min(page + 1 + r.below(3)));
                }
                85..=87 if last => {
                    let low = hot[0] * PAGE;
                    let high = self.drawn.pages * PAGE;
                    let len = match r.chance(400_000) {
                        true => high,
                        false => low + r.below(high - low),
                    };
                    self.set_len(file, len);
                }
                88..=90 => {
                    let _ = file.evict(0..u64::MAX);
                }
                _ => {
                    let span = Nanos(r.below(20_000_000));
                    self.world.sleep_until(self.world.now().plus(span));
                }
            }
        }
    }
}

/// Runs a seed: two lives of one device, a kill between them, images all along; then checks the images.
fn attack(seed: u64) -> Counts {
    let world = LabWorld::new(LabOptions {
        steps_max: 100_000_000,
        ..LabOptions::new(seed)
    });
    let inner = world.clone();
    let run = world.run(move || {
        let mut r = Rng::new(seed, 300);
        let drawn = Drawn::draw(&mut r);
        let rig = Rc::new(Rig {
            what: format!(
                "seed {seed}: {} pages, {} hot, log {}, {}, {:?}, faults {:?}",
                drawn.pages,
                drawn.hot.len(),
                drawn.log,
                drawn.preset,
                drawn.lend,
                drawn.faults
            ),
            model: RefCell::new(Model::new(drawn.pages)),
            lost: RefCell::default(),
            counts: RefCell::default(),
            world: inner,
            drawn,
        });
        let photos = lives(&rig, seed, &mut r);
        let images = photos.len() as u64;
        for (i, (image, mut model, lost)) in photos.into_iter().enumerate() {
            for page in lost.borrow().iter().filter(|p| **p < rig.drawn.pages) {
                model.pages[*page as usize].lost = true;
            }
            verify(&rig, i, &image, &model);
        }
        let mut counts = *rig.counts.borrow();
        counts.images = images;
        counts
    });
    assert!(run.leaked.is_empty(), "tasks left: {:?}", run.leaked);
    run.value
}

type Photos = Vec<(Vec<u8>, Model, Rc<RefCell<BTreeSet<u64>>>)>;

fn lives(rig: &Rc<Rig>, seed: u64, r: &mut Rng) -> Photos {
    let mut device = rig.device(vec![0; rig.drawn.device_bytes as usize], true);
    Volume::format(
        &*device,
        &FormatOptions {
            block_size: PAGE as u32,
            logical_bytes: rig.drawn.pages * PAGE,
            log_bytes: rig.drawn.log * PAGE,
            uuid: u128::from(seed).to_le_bytes(),
        },
    )
    .unwrap_or_else(|e| panic!("{}: {e}", rig.what));
    let photos: Rc<RefCell<Photos>> = Rc::default();
    photograph(rig, &device, &photos, seed);
    for life in 0..3 {
        let engine = rig.engine();
        let (volume, file) = rig.mount(&engine, &device);
        device.set_faults(rig.drawn.faults);
        let tasks = r.between(1, 3);
        // The last one's pages are behind the others', so that it may cut the file there.
        let n = rig.drawn.hot.len();
        let share = n / tasks as usize;
        let needed = rig.drawn.hot[share * (tasks as usize - 1)] * PAGE;
        if file.len() < needed {
            rig.set_len(&file, rig.drawn.pages * PAGE);
        }
        let ids: Vec<_> = (0..tasks)
            .map(|t| {
                let (rig, file) = (rig.clone(), file.clone());
                let mut r = Rng::new(seed, 400 + life * 8 + t);
                let t = t as usize;
                let last = t as u64 == tasks - 1;
                let mine = t * share..if last { n } else { (t + 1) * share };
                let world = rig.world.clone();
                world.spawn_local("attacker", move || rig.work(&file, 160, &mut r, mine, last))
            })
            .collect();
        for id in ids {
            let until = rig.world.now().plus(Nanos::from_secs(3_000));
            assert!(
                rig.world.join(id, until),
                "{}: a task does not end",
                rig.what
            );
        }
        device.heal();
        // With faults always: what is lost must be told.
        if rig.drawn.faulty || r.chance(500_000) {
            settle(rig, &engine, &volume, &file);
        }
        // Killed: what is in the cache is gone, what the device has taken is not, durable or not.
        drop(file);
        engine.abandon();
        rig.world
            .sleep_until(rig.world.now().plus(Nanos::from_secs(1)));
        if rig.drawn.faulty {
            // Reads may see what a failed flush has dropped, and nobody could tell after a kill: the power fails, too.
            device = rig.device(device.crash_image(r), true);
            photograph(rig, &device, &photos, seed + life + 1);
        } else {
            rig.counts.borrow_mut().kills += 1;
        }
        after_kill(rig, &device);
        *rig.lost.borrow_mut() = Rc::default();
    }
    photos.take()
}

/// With the disk well again a sync succeeds, and the books balance.
fn settle(rig: &Rig, engine: &Lab, volume: &Volume, file: &File<LabWorld>) {
    for _ in 0..4 {
        let before = rig.counts.borrow().syncs;
        rig.sync(file, 0..u64::MAX);
        if rig.counts.borrow().syncs > before {
            rig.world
                .sleep_until(rig.world.now().plus(Nanos::from_millis(100)));
            engine.check_invariants();
            volume.check_invariants();
            assert_eq!(volume.info().reserved, 0, "RESERVE-1: {}", rig.what);
            return;
        }
    }
    let lost = rig.model.borrow().pages.iter().any(|p| p.lost);
    assert!(
        lost,
        "{}: no sync succeeds on a disk that is well",
        rig.what
    );
}

/// What a mount finds now is the state from here on; a power failure may still take back what no flush has covered.
fn after_kill(rig: &Rig, device: &Arc<RamDevice>) {
    let engine = rig.engine();
    let (_volume, file) = rig.mount(&engine, device);
    let len = file.len();
    let mut m = rig.model.borrow_mut();
    assert!(
        m.lens.iter().any(|(_, l)| *l == len),
        "{}: length {len}",
        rig.what
    );
    let id = m.id();
    m.lens = vec![(id, len)];
    m.len_returned = id;
    for page in 0..rig.drawn.pages {
        let mut bytes = vec![0; PAGE as usize];
        let read = match page * PAGE < len {
            true => file.read_at(&mut bytes, page * PAGE),
            false => Ok(0),
        };
        let n = match read {
            Ok(n) => n,
            Err(e) => {
                let lost = m.pages[page as usize].lost;
                assert!(lost, "{}: kill: page {page}: {e}", rig.what);
                continue;
            }
        };
        assert!(
            m.legal(page, &bytes[..n]),
            "{}: kill: page {page}",
            rig.what
        );
        let found = m.pages[page as usize]
            .all
            .iter()
            .rev()
            .find(|(_, c)| bytes_of(page, *c) == bytes);
        match found.copied() {
            Some((_, c)) => {
                let id = m.id();
                m.pages[page as usize].all = vec![(id, c)];
                m.pages[page as usize].returned = id;
                m.pages[page as usize].lost = false;
            }
            None if page * PAGE >= len => {
                let id = m.id();
                m.pages[page as usize].all = vec![(id, (0, 0))];
                m.pages[page as usize].returned = id;
            }
            None => m.pages[page as usize].lost = true,
        }
    }
    drop(file);
    engine.abandon();
}

fn photograph(rig: &Rc<Rig>, device: &Arc<RamDevice>, photos: &Rc<RefCell<Photos>>, seed: u64) {
    let (out, rig, weak) = (photos.clone(), Rc::downgrade(rig), Arc::downgrade(device));
    let rng = RefCell::new(Rng::new(seed, 301));
    device.observe(move |moment| {
        let (Some(rig), Some(device)) = (rig.upgrade(), weak.upgrade()) else {
            return;
        };
        // In the middle of `after_kill` the model is being changed.
        let Ok(model) = rig.model.try_borrow() else {
            return;
        };
        let mut rng = rng.borrow_mut();
        let ppm = if moment == Moment::Flushed {
            300_000
        } else {
            20_000
        };
        if out.borrow().len() < IMAGES && rng.chance(ppm) {
            let image = device.crash_image(&mut rng);
            let lost = rig.lost.borrow().clone();
            out.borrow_mut().push((image, model.clone(), lost));
        }
    });
}

fn verify(rig: &Rig, i: usize, image: &[u8], model: &Model) {
    let device = rig.device(image.to_vec(), false);
    let what = format!("{}: image {i}", rig.what);
    let report = fsck(&*device).unwrap_or_else(|e| panic!("{what}: {e}"));
    for fault in &report.faults {
        let lost = matches!(fault, Damage::Data { page, .. } if model.pages[*page as usize].lost);
        assert!(lost, "{what}: {fault}");
    }
    let engine = rig.engine();
    let (_volume, file) = rig.mount(&engine, &device);
    let len = file.len();
    assert!(
        model.lens.iter().any(|(_, l)| *l == len),
        "{what}: length {len}"
    );
    let mut bytes = vec![0; PAGE as usize];
    for page in 0..len.div_ceil(PAGE) {
        match file.read_at(&mut bytes, page * PAGE) {
            Ok(n) => assert!(
                model.legal(page, &bytes[..n]),
                "{what}: page {page} is none of {:?}",
                model.pages[page as usize].all
            ),
            Err(e) => assert!(model.pages[page as usize].lost, "{what}: page {page}: {e}"),
        }
    }
    drop(file);
    engine.abandon();
}

#[test]
fn seeds_of_an_adversary() {
    let seeds = match std::env::var("HW_ATTACK") {
        Ok(range) => {
            let (from, to) = range.split_once("..").expect("from..to");
            from.parse().expect("a number")..to.parse().expect("a number")
        }
        Err(_) => 0..6,
    };
    let mut total = Counts::default();
    for seed in seeds {
        let c = attack(seed);
        total.images += c.images;
        total.syncs += c.syncs;
        total.failed += c.failed;
        total.stuck += c.stuck;
        total.kills += c.kills;
    }
    println!("{total:?}");
    assert!(
        total.images > 100 && total.syncs > 20 && total.kills > 0,
        "{total:?}"
    );
}
