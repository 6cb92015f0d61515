//! The soak: one seed, one run of the engine under many tasks, every byte compared.
//!
//! A seed draws its options ([`SoakOptions`]). Its tasks then do operations at random on a few files until all have
//! done `ops` together; the scenario's own task watches over them: it stops them now and then to check the engine's
//! invariants at rest, causes the drawn trouble, ends it, and at last syncs, compares the devices and closes.
//!
//! **Invariants.**
//! - SOAK-1: without trouble no operation fails.
//! - SOAK-2: every task goes on: none is in one operation for longer than `STUCK`, or `STUCK_STEPS` of the scheduler.
//! - SOAK-3: once trouble has ended, a sync succeeds within `HEAL` (unless the engine says `DurabilityLost`), and the
//!   files on the devices are the shadow.
//!   A file that has lost something is opened anew, and is as good as any other from its pages' next writes on.
//! - SOAK-4: no task is left after `close`.
//! - SOAK-5: a run goes on until memory was turned over [`TURNOVER`] times.
//! - SOAK-6: where nothing may fail, no operation takes longer than `LONGEST`: a wake-up that came late by luck is
//!   found, too.
//! - SOAK-7: the budget is never passed: what the engine takes of the world is within it, and at any moment the frames
//!   on lists, free and isolated are at most those that there are.
//! - SOAK-8: who writes to a disk that never fails gets no error of another's, and is not kept waiting by it: no write
//!   takes longer than `LONGEST_SPARED`. Where nothing bounds what a dead disk keeps dirty (`SoakOptions::draw`), that is
//!   not promised, and no disk is spared.
//! - SOAK-9: what a power failure leaves of a volume is a volume without a fault (`volume.rs`).
//! - SOAK-10: the error of a write is told by the file's next sync (`told.rs`).
//! - SOAK-11: once trouble has ended and a sync of a file that began later has succeeded, no operation on the file fails that
//!   begins then (but those that time out where the I/O deadline is short and a disk may be slow); once that is so of all files,
//!   none runs out of memory, or waits for a page in vain.
//!
//! Whatever happens, a run ends with a verdict: within `TIME_MAX` of virtual time and `STEPS_MAX` steps of the scheduler,
//! and no task goes round without time passing (SCHED-4 of the world).

mod arm;
mod disks;
mod options;
mod told;
mod trouble;
mod user;
mod volume;
mod watch;

pub use disks::kind_of;
pub use options::{Mix, SoakOptions};
pub use trouble::{CrashPoint, Trouble, Troubles};
pub use volume::VolumeOptions;

use crate::device::{FaultCounts, LabQueue, RamDevice, RamOptions};
use crate::rng::Rng;
use crate::shadow::{Mismatch, Shadow};
use crate::world::{LabOptions, LabWorld};
use highwater_engine::backing::journaled::Volume;
use highwater_engine::backing::{Backing, PlainBacking, RefusingBacking};
use highwater_engine::{
    Config, Engine, Error, Event, File, FileId, FileOptions, Nanos, Stats, World,
};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;

/// How often a run allocates as many frames as the engine has.
pub const TURNOVER: u64 = 4;
/// Operations, as a multiple of those asked for, in which memory must have been turned over.
const PATIENCE: u64 = 4;
/// The longest operation where nothing may fail. Policies that nap 100 ms at each of ten priorities need seconds.
const LONGEST: Nanos = Nanos::from_secs(8);
/// With volumes: a writer of a full one commits, a few times over, and others wait for what it holds.
const LONGEST_ON_VOLUMES: Nanos = Nanos::from_secs(16);
/// The longest write to a disk that never fails while another does.
const LONGEST_SPARED: Nanos = Nanos::from_secs(8);
/// How often a rude scheduler pre-empts a task where it charges work, and then keeps it off the CPU, per million: what lies
/// between two steps of one task is wide open to the others.
const RUDE: (u32, u32) = (200_000, 500_000);
/// Crash images of one run that are cut because a file has just been made durable after a failed flush.
const CUTS_AFTER_DOUBT: u64 = 16;
/// Eight times what the longest run of hundreds takes, after which it is stopped.
const TIME_MAX: Nanos = Nanos::from_secs(3_600);
/// The same in steps, of which they take up to 700,000: some seconds of real time.
const STEPS_MAX: u64 = 5_000_000;

/// What a seed's run leaves.
#[derive(Debug)]
pub struct SoakReport {
    /// The trace hash: equal for equal runs.
    pub trace: u64,
    /// Operations done.
    pub ops: u64,
    /// Operations that failed, which trouble allows.
    pub failed: u64,
    /// Crash images checked.
    pub crashes: u64,
    /// What the devices did wrong, by kind.
    pub faults: Faults,
    /// The longest operation.
    pub longest: (Nanos, &'static str),
    /// The longest write to a disk that never fails, where another does.
    pub longest_spared: (Nanos, &'static str),
    /// Pages compared with the shadow.
    pub pages_checked: u64,
    /// Virtual time.
    pub took: Nanos,
    /// Scheduler steps.
    pub steps: u64,
    /// The engine's counters at the end.
    pub stats: Stats,
}

/// What the devices of a run did wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// By the files.
    pub files: FaultCounts,
    /// Requests that hung.
    pub hung: u64,
}

/// One file of a run.
struct Subject {
    id: FileId,
    backing: Arc<dyn Backing>,
    /// The handle that all tasks share, but while the file is opened anew.
    handle: RefCell<Option<File<LabWorld>>>,
    device: Arc<RamDevice>,
    /// What it lies on, if that is one.
    volume: Option<Arc<Volume>>,
    shadow: RefCell<Shadow>,
    /// Bytes that a sync said are lost (`DurabilityLost`): none succeeds any more.
    lost: RefCell<Vec<Range<u64>>>,
    /// A sync has failed, and none has succeeded since.
    doubtful: Cell<bool>,
    /// When a sync that began when trouble had ended has succeeded (SOAK-11).
    well: Cell<Option<Nanos>>,
    told: told::Told,
}

impl Subject {
    fn open(
        engine: &Arc<Engine<LabWorld>>,
        id: FileId,
        backing: &Arc<dyn Backing>,
    ) -> File<LabWorld> {
        engine
            .open(id, backing.clone(), FileOptions { write: true })
            .unwrap_or_else(|e| panic!("open of file {}: {e}", id.ino - 1))
    }

    /// The file, for one operation.
    fn file(&self) -> File<LabWorld> {
        let handle = self.handle.borrow();
        handle.clone().expect("closed only while nobody is at work")
    }

    fn has_lost(&self) -> bool {
        !self.lost.borrow().is_empty()
    }

    /// Notes what an error says of lost bytes.
    fn note_lost(&self, error: &Error) {
        if let Error::DurabilityLost { ranges } = error {
            *self.lost.borrow_mut() = ranges.clone();
        }
    }
}

/// What all tasks of a run share.
struct Soak {
    options: SoakOptions,
    world: Arc<LabWorld>,
    engine: Arc<Engine<LabWorld>>,
    queues: Vec<Arc<LabQueue>>,
    subjects: Vec<Subject>,
    ops: Cell<u64>,
    /// Writes, flushes and syncs that ended well, of all files.
    writes: Cell<u64>,
    flushes: Cell<u64>,
    syncs: Cell<u64>,
    /// Requests that hung.
    hung: Cell<u64>,
    failed: Cell<u64>,
    crashes: Cell<u64>,
    /// Those of them that were cut after a doubtful time.
    cuts_after_doubt: Cell<u64>,
    longest: Cell<(Nanos, &'static str)>,
    /// The same of writes to disks that never fail.
    longest_spared: Cell<(Nanos, &'static str)>,
    /// Since when nothing can be written any more (`Trouble::Outage`).
    outage: Cell<Option<Nanos>>,
    /// Memory was turned over often enough.
    turned_over: Cell<bool>,
    /// Trouble has ended.
    healed: Cell<bool>,
    /// How often a file was opened anew because some of it was lost.
    reopened: Cell<u64>,
    /// The tasks are to stop where they are outside of the engine.
    pause: Cell<bool>,
    users: RefCell<Vec<UserState>>,
    crash_rng: RefCell<Rng>,
}

#[derive(Clone, Copy)]
struct UserState {
    since: Nanos,
    /// When it last went into the engine.
    began: Nanos,
    since_step: u64,
    doing: &'static str,
    outside: bool,
    ended: bool,
}

impl Soak {
    /// Panics with the file's name where the shadow disagrees.
    fn agree(&self, subject: usize, what: &str, verdict: Result<(), Mismatch>) {
        if let Err(e) = verdict {
            panic!(
                "file {subject}, {what} at operation {}: {e}",
                self.ops.get()
            );
        }
    }

    /// May this error of the file `n` be, in this run, of what began at `began`?
    fn tolerate(&self, n: usize, what: &str, began: Nanos, error: &Error) {
        self.failed.set(self.failed.get() + 1);
        let trouble = self.options.trouble;
        let spared = self.options.is_spared(n);
        let volume = &self.options.volumes[n];
        let is_well = |s: &Subject| s.well.get().is_some_and(|since| began >= since);
        let well = is_well(&self.subjects[n]);
        let all_well = self.subjects.iter().all(is_well);
        let fits = match error {
            // A full volume says so to its writers, and to nobody else.
            e if volume::is_full(what, e) && what != "sync" => {
                trouble.may_fail() || volume.is_some_and(|v| v.is_tight())
            }
            Error::Io { .. } => trouble.may_fail() && !spared && !well,
            // Memory is shared: what a failing disk keeps dirty, others cannot have.
            Error::OutOfMemory(_) => trouble.may_fail() && !all_well,
            // Only its own disk lets a write wait for so long. Who is impatient takes a slow disk for one that hangs.
            Error::TimedOut { .. } => {
                trouble.may_fail_writes() && !spared && (!well || self.options.is_impatient())
            }
            Error::Busy { .. } => trouble.may_fail_writes() && !all_well,
            // A volume's flush writes its log first.
            Error::DurabilityLost { .. } if volume.is_some() => {
                trouble.may_fail_writes() && !spared
            }
            Error::DurabilityLost { .. } => trouble.has(Trouble::Flushes) && !spared,
            _ => false,
        };
        let rule = match (spared, well) {
            (true, _) => "SOAK-8",
            (false, true) => "SOAK-11",
            (false, false) => "SOAK-1",
        };
        assert!(
            fits,
            "{rule}: {what} of file {n} failed under {trouble}: {error}; the others: {}",
            self.doing()
        );
    }

    /// What each task does, and for how long.
    fn doing(&self) -> String {
        let users = self.users.borrow();
        let text = users.iter().enumerate().map(|(n, u)| {
            let since = now(self).since(u.since);
            format!("user{n} {} for {since:?}", u.doing)
        });
        text.collect::<Vec<_>>().join(", ")
    }

    /// What the devices did wrong until now.
    fn faults(&self) -> Faults {
        let mut files = FaultCounts::default();
        for s in &self.subjects {
            files += s.device.fault_counts();
        }
        Faults {
            files,
            hung: self.hung.get(),
        }
    }

    /// Have the tasks done enough?
    fn enough(&self) -> bool {
        let (ops, asked) = (self.ops.get(), self.options.ops);
        if ops < asked || ops % 256 != 0 && !self.turned_over.get() {
            return false;
        }
        if !self.turned_over.get() {
            let stats = self.engine.stats();
            self.turned_over
                .set(stats.event(Event::Pgalloc) >= TURNOVER * stats.frames);
            assert!(
                ops < PATIENCE * asked,
                "SOAK-5: {ops} operations turn memory over less than {TURNOVER} times"
            );
        }
        self.turned_over.get()
    }

    /// Something of a kind that crash points count has happened.
    fn passed(&self, count: &Cell<u64>, point: fn(u64) -> CrashPoint) {
        count.set(count.get() + 1);
        if self.options.crash_points.contains(&point(count.get())) {
            self.cut();
        }
    }

    /// A sync of the file `n` has succeeded, of the `whole` file or a part; `healed`: trouble had ended when it began. If one has failed before: what the failed flush
    /// lost has been written anew, or is missing now, before other writes cover it up.
    fn synced(&self, n: usize, whole: bool, healed: bool) {
        if whole && healed {
            self.subjects[n].well.set(Some(now(self)));
        }
        let cuts = self.cuts_after_doubt.get();
        let doubtful = whole && self.subjects[n].doubtful.replace(false);
        if doubtful && self.options.trouble.cuts() && cuts < CUTS_AFTER_DOUBT {
            self.cuts_after_doubt.set(cuts + 1);
            self.cut();
        }
        self.passed(&self.syncs, CrashPoint::Sync);
    }

    /// Cuts the power, in a copy of the world: every file must be legal.
    fn cut(&self) {
        self.crashes.set(self.crashes.get() + 1);
        for (n, s) in self.subjects.iter().enumerate() {
            let image = s.device.crash_image(&mut self.crash_rng.borrow_mut());
            match self.options.volumes[n] {
                None => self.agree(n, "crash", s.shadow.borrow().check_crash(&image)),
                Some(on) => self.cut_volume(n, image, on),
            }
        }
    }

    fn cut_volume(&self, n: usize, image: Vec<u8>, on: VolumeOptions) {
        let s = &self.subjects[n];
        let size = self.options.frame_size;
        let found = volume::recover(image, on, size);
        let told = |page: u64| {
            let at = page * size as u64;
            s.lost.borrow().iter().any(|lost| lost.contains(&at))
        };
        for page in &found.damaged {
            assert!(
                told(*page),
                "SOAK-9: file {n}, crash at operation {}: page {page} is damaged",
                self.ops.get()
            );
        }
        let verdict = (s.shadow.borrow()).check_crash_but(&found.bytes, &found.damaged);
        self.agree(n, "crash", verdict);
    }
}

/// Runs `seed`.
///
/// # Panics
/// Where the engine is wrong, after the line that repeats the run.
pub fn run_seed(seed: u64) -> SoakReport {
    let options = SoakOptions::draw(seed);
    let line = options.to_string();
    catch_unwind(AssertUnwindSafe(|| run_options(options))).unwrap_or_else(|panic| {
        eprintln!("{line}\nrepeat with: highwater soak --seed {seed} --seeds 1");
        resume_unwind(panic)
    })
}

/// Runs one seed's options, perhaps changed: what was changed, and how to say so again, the caller knows.
///
/// # Panics
/// Where the engine is wrong.
pub fn run_options(options: SoakOptions) -> SoakReport {
    let calm = LabOptions::new(options.seed);
    let (preempt_ppm, steal_ppm) = match options.rude {
        true => RUDE,
        false => (calm.preempt_ppm, calm.steal_ppm),
    };
    let world = LabWorld::new(LabOptions {
        cpus: options.cpus,
        preempt_ppm,
        steal_ppm,
        time_max: TIME_MAX,
        steps_max: STEPS_MAX,
        ..calm
    });
    let w = world.clone();
    let may_fail = options.trouble.may_fail();
    let longest_may = match options.has_volumes() {
        true => LONGEST_ON_VOLUMES,
        false => LONGEST,
    };
    let run = world.run(move || {
        let soak = Rc::new(set_up(w, options));
        watch::watch(&soak);
        let pages = soak
            .subjects
            .iter()
            .map(|s| s.shadow.borrow().pages_checked);
        let numbers = (
            soak.ops.get(),
            soak.failed.get(),
            soak.crashes.get(),
            pages.sum::<u64>(),
            soak.longest.get(),
            soak.longest_spared.get(),
            soak.faults(),
        );
        (numbers, soak.engine.stats())
    });
    assert!(
        run.leaked.is_empty(),
        "SOAK-4: tasks left after close: {:?}",
        run.leaked
    );
    let ((ops, failed, crashes, pages_checked, longest, longest_spared, faults), stats) = run.value;
    assert!(
        longest_spared.0 < LONGEST_SPARED,
        "SOAK-8: {} to a disk that never fails took {:?}",
        longest_spared.1,
        longest_spared.0
    );
    assert!(
        may_fail || longest.0 < longest_may,
        "SOAK-6: {} took {:?}",
        longest.1,
        longest.0
    );
    SoakReport {
        trace: run.trace,
        ops,
        failed,
        crashes,
        faults,
        longest,
        longest_spared,
        pages_checked,
        took: run.now,
        steps: run.steps,
        stats,
    }
}

fn set_up(world: Arc<LabWorld>, options: SoakOptions) -> Soak {
    let mut config = Config::new(options.memory);
    config.frame_size = options.frame_size;
    config.policy = options.policy;
    config.order = options.order.clone();
    config.populate = options.populate;
    config.fail_after = options.fail_after;
    config.io_timeout = options.io_timeout;
    #[cfg(feature = "plant")]
    {
        config.plant = options.plant;
    }
    config.readahead_max = options.readahead_max;
    config.dirty_expire = Nanos::from_secs(2);
    config.writeback_interval = Nanos::from_millis(500);
    let engine = Engine::new(world.clone(), config)
        .unwrap_or_else(|e| panic!("the engine refuses {options}: {e}"));
    let queues: Vec<_> = options
        .disks
        .iter()
        .map(|o| LabQueue::new(&world, o.clone()))
        .collect();
    let subjects = (0..options.files.len())
        .map(|n| open(&engine, &queues, &options, n))
        .collect();
    let idle = UserState {
        since: Nanos::ZERO,
        began: Nanos(0),
        since_step: 0,
        doing: "start",
        outside: true,
        ended: false,
    };
    Soak {
        users: RefCell::new(vec![idle; options.tasks]),
        crash_rng: RefCell::new(Rng::new(options.seed, 11)),
        world,
        engine,
        queues,
        subjects,
        options,
        ops: Cell::new(0),
        writes: Cell::new(0),
        flushes: Cell::new(0),
        syncs: Cell::new(0),
        hung: Cell::new(0),
        failed: Cell::new(0),
        crashes: Cell::new(0),
        cuts_after_doubt: Cell::new(0),
        healed: Cell::new(false),
        reopened: Cell::new(0),
        longest: Cell::new((Nanos::ZERO, "nothing")),
        longest_spared: Cell::new((Nanos::ZERO, "nothing")),
        outage: Cell::new(None),
        turned_over: Cell::new(false),
        pause: Cell::new(false),
    }
}

/// Makes the file `n` of the options and opens it: some bytes, then a hole up to its length.
fn open(
    engine: &Arc<Engine<LabWorld>>,
    queues: &[Arc<LabQueue>],
    options: &SoakOptions,
    n: usize,
) -> Subject {
    let (disk, len) = options.files[n];
    if let Some(on) = &options.volumes[n] {
        return volume::open(engine, &queues[disk], options, n, on);
    }
    let cuts = options.trouble.cuts();
    let mut content = vec![0; 100_000.min(len as usize)];
    crate::shadow::fill(u64::MAX - n as u64, 0, &mut content);
    let mut shadow = Shadow::new(options.frame_size, &content, cuts);
    let device = RamDevice::new(
        &queues[disk],
        RamOptions {
            content,
            len,
            faults: options.rates(n),
            crashes: cuts,
            sparse: options.sparse,
            ..RamOptions::default()
        },
    );
    shadow.grow_before_use(len);
    let plain = PlainBacking::new(device.clone());
    let backing: Arc<dyn Backing> = if options.refusing {
        Arc::new(RefusingBacking::new(plain))
    } else {
        Arc::new(plain)
    };
    let id = FileId {
        dev: options.disks[disk].id,
        ino: n as u64 + 1,
    };
    let file = Subject::open(engine, id, &backing);
    assert_eq!(file.len(), len, "the length of file {n}");
    Subject {
        id,
        backing,
        handle: RefCell::new(Some(file)),
        device,
        volume: None,
        shadow: RefCell::new(shadow),
        lost: RefCell::default(),
        doubtful: Cell::new(false),
        well: Cell::new(None),
        told: told::Told::default(),
    }
}

/// The world's time, for those who hold the soak.
fn now(soak: &Soak) -> Nanos {
    soak.world.now()
}
