//! What a seed draws: one line that says what kind of run it is.

use super::arm::Arm;
use super::disks;
use super::trouble::{CrashPoint, Trouble, Troubles};
use super::volume::VolumeOptions;
use crate::device::{FaultRates, QueueOptions};
use crate::rng::Rng;
use highwater_engine::policy::{
    HighOrder, OnDirty, ReclaimWait, Throttle, WriteUnit, WritebackFrom,
};
use highwater_engine::{Nanos, Order, Policy, Preset};
use std::fmt;

/// Operations of all tasks of a run together.
const OPS: u64 = 20_000;

/// How often each operation is drawn, in shares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Mix {
    pub write_bytes: u32,
    pub write_pages: u32,
    pub page_mut: u32,
    pub append: u32,
    pub read: u32,
    pub read_on: u32,
    pub page: u32,
    pub set_len: u32,
    pub evict: u32,
    pub sync: u32,
    pub sync_range: u32,
    pub nap: u32,
    pub hoard: u32,
    /// A block of frames in a row, filled and held for a time.
    pub block: u32,
    /// Every page that may moves, to make room for blocks.
    pub compact: u32,
    /// A hole.
    pub discard: u32,
    /// One more handle of a file that is open, for a read or a sync.
    pub open: u32,
    /// Guards for writing on several pages in a row at one time.
    pub pages_mut: u32,
}

/// One seed's options.
#[derive(Clone, Debug)]
pub struct SoakOptions {
    /// The seed.
    pub seed: u64,
    /// Bytes of stack for each task but the one that watches; never drawn.
    pub stack_size: Option<usize>,
    /// Virtual CPUs.
    pub cpus: usize,
    /// Does the scheduler pre-empt tasks in the middle of most of what they do, and keep them off for long?
    pub rude: bool,
    /// The engine's budget in bytes.
    pub memory: u64,
    /// Bytes per frame.
    pub frame_size: usize,
    /// The policy: a preset's, or each knob drawn by itself.
    pub policy: Policy,
    /// The preset, unless the knobs were drawn.
    pub preset: Option<Preset>,
    /// Is memory populated in the background?
    pub populate: bool,
    /// How long a device's writes fail before its writers are told.
    pub fail_after: Nanos,
    /// How long a request may take. Short where requests hang: what times out leaves its writes in flight.
    pub io_timeout: Nanos,
    /// How long guards are held now and then.
    pub hold: Nanos,
    /// Bytes that are read ahead at most: more than a request's, or none.
    pub readahead_max: usize,
    /// The disks.
    pub disks: Vec<QueueOptions>,
    /// Is a disk among them whose arm stays with the writes of one file while others are read?
    pub arm: bool,
    /// Each file's disk and first length in bytes.
    pub files: Vec<(usize, u64)>,
    /// The volume that each file lies on, if it does.
    pub volumes: Vec<Option<VolumeOptions>>,
    /// Are the files sparse: do holes cost no disk time?
    pub sparse: bool,
    /// Do the files refuse writes from reclaim?
    pub refusing: bool,
    /// In which order pages are tried for reclaim.
    pub order: Order,
    /// Tasks that use the files.
    pub tasks: usize,
    /// Operations of all tasks together.
    pub ops: u64,
    /// What goes wrong.
    pub trouble: Troubles,
    /// The disk that nothing goes wrong with while another fails, by its place in `disks`.
    pub spared: Option<usize>,
    /// When the power fails.
    pub crash_points: Vec<CrashPoint>,
    /// A bug in the engine, to be found.
    #[cfg(feature = "plant")]
    pub plant: Option<highwater_engine::plant::Plant>,
    /// The operations.
    pub mix: Mix,
    /// How often a place is drawn from the hot eighth of a file, per million.
    pub hot_ppm: u32,
}

impl SoakOptions {
    /// The options that `seed` draws.
    pub fn draw(seed: u64) -> SoakOptions {
        let mut rng = Rng::new(seed, 10);
        let r = &mut rng;
        let frame_size = r.pick(&[4096, 4096, 4096, 8192, 16384, 65536]);
        // A third of the seeds have as little memory as the engine takes: guards on all of it are within reach.
        let tiny = r.chance(330_000);
        let memory = if tiny {
            frame_size as u64 * 66 + (160 << 10)
        } else {
            (r.pick(&[1, 1, 2, 2, 3, 4, 8]) << 20).max(frame_size as u64 * 80)
        };
        let slow = r.pick(&[1, 1, 1, 4]);
        let mut disks: Vec<_> = (0..r.between(1, 2))
            .map(|n| QueueOptions {
                id: n + 1,
                model: disks::ssd(r, slow),
                cap: None,
            })
            .collect();
        let total = memory * r.between(3, 6) / 2;
        let count = r.between(1, 3);
        let mut files: Vec<_> = (0..count)
            .map(|_| {
                let len = total / count + r.below(frame_size as u64);
                (r.below(disks.len() as u64) as usize, len)
            })
            .collect();
        let trouble = if r.chance(500_000) {
            Trouble::None
        } else {
            r.pick(&[
                Trouble::Crash,
                Trouble::Crash,
                Trouble::Crash,
                Trouble::Reads,
                Trouble::Writes,
                Trouble::BadRange,
                Trouble::NoSpace,
                Trouble::Flushes,
                Trouble::Hangs,
                Trouble::Spikes,
            ])
        };
        let preset = r.chance(600_000).then(|| r.pick(&Preset::ALL));
        let mut policy = preset.map_or_else(|| draw_policy(r), Preset::policy);
        if preset.is_none() || r.chance(500_000) {
            policy.background_percent = r.pick(&[0, 0, 5, 10, 25, 40, 80]);
            policy.limit_percent = policy.background_percent + r.pick(&[1, 5, 10, 35, 50]);
            policy.limit_percent = policy.limit_percent.min(90);
            // With a limit of a page or two every write pauses for as long as may be.
            policy.pause_max = Nanos::from_millis(r.pick(&[1, 10]));
        }
        // A stream of its own, so that these leave what the seed draws above as it is.
        let more = &mut Rng::new(seed, 12);
        for disk in &mut disks {
            if more.chance(400_000) {
                disk.model = disks::other(more);
            }
            disk.cap = disks::cap(more);
        }
        let second = if trouble != Trouble::None && more.chance(300_000) {
            more.pick(&Trouble::ALL[1..])
        } else {
            Trouble::None
        };
        let worn = trouble == Trouble::Writes && more.chance(300_000);
        let trouble = Troubles(if worn { Trouble::Worn } else { trouble }, second);
        let spared = (disks.len() > 1 && trouble.may_fail() && more.chance(500_000)).then_some(1);
        let crash_points = if trouble.cuts() {
            CrashPoint::draw(more, OPS)
        } else {
            Vec::new()
        };
        let order = more.pick(&[0, 0, 1]);
        // And one for what was added later still.
        let late = &mut Rng::new(seed, 13);
        let trouble = if spared.is_some() && late.chance(400_000) {
            Troubles(trouble.0, Trouble::Outage)
        } else {
            trouble
        };
        // Nothing bounds what a dead disk keeps dirty where writers are not throttled: others' pages have no memory then.
        let unbounded = trouble.has(Trouble::Outage) && policy.throttle == Throttle::Off;
        let spared = spared.filter(|_| !unbounded);
        if spared.is_some() && trouble.has(Trouble::Outage) {
            // What the dead disk keeps dirty nobody else has: with nearly all of memory every operation takes seconds.
            policy.background_percent = policy.background_percent.min(30);
            policy.limit_percent = policy.limit_percent.min(50);
        }
        // The outage may have taken the place of what cuts the power.
        let crash_points = if trouble.cuts() {
            crash_points
        } else {
            Vec::new()
        };
        let fail_after = Nanos::from_millis(late.pick(&[50, 200, 1_000]));
        let sparse = late.chance(250_000);
        let block = late.pick(&[0, 0, 0, 10, 40]);
        if preset.is_none() {
            use HighOrder as H;
            policy.high_order = late.pick(&[H::Lumpy, H::Compaction, H::Both]);
        }
        let arm = Arm::draw(&mut Rng::new(seed, 19)).filter(|_| spared.is_none());
        if let Some(arm) = &arm {
            arm.take(&mut disks, &mut files);
        }
        let volumes = draw_volumes(&mut Rng::new(seed, 14), files.len());
        // Later than that.
        let last = &mut Rng::new(seed, 15);
        let compact = last.pick(&[0, 0, 20, 60]);
        // Files that shrink again and again while their pages move, or cannot be written.
        let shrinks = (compact > 0 || trouble.has(Trouble::Outage)) && last.chance(500_000);
        let rude = last.chance(250_000);
        let (mut trouble, mut crash_points) = (trouble, crash_points);
        let mut io_timeout = Nanos::from_secs(30);
        if trouble.has(Trouble::Hangs) && spared.is_none() && last.chance(700_000) {
            io_timeout = Nanos::from_millis(300);
            if trouble.1 == Trouble::None {
                trouble.1 = Trouble::Crash;
                crash_points = CrashPoint::draw(last, OPS);
            }
        }
        for disk in &mut disks {
            disks::front(last, &mut disk.model);
        }
        // What wears out does so beside other trouble, too: by itself it is one seed in fifty.
        let worn = &mut Rng::new(seed, 20);
        if trouble.any() && trouble.1 == Trouble::None && worn.chance(150_000) {
            trouble.1 = Trouble::Worn;
        }
        // What was added last.
        let newest = &mut Rng::new(seed, 16);
        let discard = newest.pick(&[0, 1, 3, 10, 40]);
        let appends = newest.chance(150_000);
        let open = newest.pick(&[0, 0, 1, 5]);
        let throttled = &mut Rng::new(seed, 17);
        if preset.is_none() || throttled.chance(250_000) {
            policy.wbt = throttled.chance(700_000);
        }
        // The newest.
        let youngest = &mut Rng::new(seed, 18);
        let readahead_max = youngest.pick(&[256, 256, 64, 1_024, 4_096, 0]) << 10;
        let pages_mut = youngest.pick(&[0, 2, 20]);
        if let Some(arm) = &arm {
            arm.set(&mut policy);
        }
        // What they borrow is not the pages'.
        let on_volumes = files.iter().zip(&volumes).filter(|(_, v)| v.is_some());
        let lent: u64 = on_volumes
            .map(|((_, len), _)| VolumeOptions::frames(*len, frame_size))
            .sum();
        SoakOptions {
            stack_size: None,
            seed,
            order: Order::BUILTIN[order].clone(),
            cpus: r.between(1, 4) as usize,
            rude,
            memory: memory + lent * frame_size as u64,
            frame_size,
            policy,
            preset,
            populate: r.chance(700_000),
            fail_after,
            io_timeout,
            hold: Nanos::from_micros(r.pick(&[100, 2_000, 50_000])),
            readahead_max,
            disks,
            arm: arm.is_some(),
            files,
            volumes,
            sparse,
            refusing: r.chance(150_000),
            tasks: r.between(2, 6) as usize,
            ops: OPS,
            trouble,
            spared,
            crash_points,
            #[cfg(feature = "plant")]
            plant: None,
            mix: {
                let mix = Mix::draw(r, tiny);
                let set_len = if shrinks || appends {
                    8 * mix.set_len.max(1)
                } else {
                    mix.set_len
                };
                // Several at one time, then.
                let append = if appends { 200 } else { mix.append };
                Mix {
                    append,
                    set_len,
                    block,
                    compact,
                    discard,
                    open,
                    pages_mut,
                    ..mix
                }
            },
            hot_ppm: r.pick(&[0, 300_000, 800_000]),
        }
    }

    fn policy_text(&self) -> String {
        let p = &self.policy;
        match self.preset {
            Some(preset) => preset.to_string(),
            None => format!(
                "{:?}/{:?}/{:?}/{:?}/{:?}/{:?}",
                p.writeback_from, p.write_unit, p.on_dirty, p.wait, p.throttle, p.high_order
            ),
        }
    }

    /// Does any file lie on a volume?
    pub fn has_volumes(&self) -> bool {
        self.volumes.iter().any(Option::is_some)
    }

    /// Is the I/O deadline so short that a slow disk may pass it?
    pub(super) fn is_impatient(&self) -> bool {
        self.io_timeout < Nanos::from_secs(1)
    }

    /// Is the file `n` on a disk that nothing goes wrong with?
    pub fn is_spared(&self, n: usize) -> bool {
        self.spared == Some(self.files[n].0)
    }

    /// The rates of faults by which the file `n` starts.
    pub fn rates(&self, n: usize) -> FaultRates {
        if self.is_spared(n) {
            FaultRates::default()
        } else {
            self.trouble.rates()
        }
    }
}

/// In a third of the seeds some files lie on a volume each.
fn draw_volumes(r: &mut Rng, files: usize) -> Vec<Option<VolumeOptions>> {
    let any = r.chance(333_000);
    (0..files)
        .map(|n| (any && (n == 0 || r.chance(500_000))).then(|| VolumeOptions::draw(r)))
        .collect()
}

/// Every knob by itself.
fn draw_policy(r: &mut Rng) -> Policy {
    use {OnDirty as D, ReclaimWait as W, Throttle as T, WriteUnit as U, WritebackFrom as F};
    Policy {
        writeback_from: r.pick(&[F::Direct, F::Kswapd, F::KswapdLate, F::Flusher]),
        write_unit: r.pick(&[U::Page, U::Range]),
        on_dirty: r.pick(&[D::Skip, D::Kick, D::KickAndWait]),
        wait: r.pick(&[W::Congestion, W::IfCongested, W::Progress]),
        throttle: r.pick(&[T::Off, T::DirtierWrites, T::IoLess]),
        pause_max: Nanos::from_millis(r.pick(&[1, 200])),
        ..Policy::default()
    }
}

impl Mix {
    fn draw(r: &mut Rng, tiny: bool) -> Mix {
        let mut share = |max: u64| r.between(max / 8, max) as u32;
        Mix {
            write_bytes: share(200),
            write_pages: share(300),
            page_mut: share(200),
            append: share(8),
            read: share(300),
            read_on: share(200),
            page: share(200),
            set_len: share(6),
            evict: share(8),
            sync: share(4).max(1),
            sync_range: share(8),
            nap: share(20),
            hoard: if tiny { share(3).max(1) } else { 0 },
            block: 0,
            compact: 0,
            discard: 0,
            open: 0,
            pages_mut: 0,
        }
    }

    /// The shares, in the order of the fields.
    pub fn shares(&self) -> [u32; 18] {
        [
            self.write_bytes,
            self.write_pages,
            self.page_mut,
            self.append,
            self.read,
            self.read_on,
            self.page,
            self.set_len,
            self.evict,
            self.sync,
            self.sync_range,
            self.nap,
            self.hoard,
            self.block,
            self.compact,
            self.discard,
            self.open,
            self.pages_mut,
        ]
    }
}

impl fmt::Display for SoakOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}: {}{} {} {}, memory {} KiB, frames {}, dirty {} to {} %, cpus {}{}, tasks {}, files {:?}{}, hot {} %, disks",
            self.seed,
            self.policy_text(),
            if self.policy.wbt { " wbt" } else { "" },
            self.order,
            self.trouble,
            self.memory >> 10,
            self.frame_size,
            self.policy.background_percent,
            self.policy.limit_percent,
            self.cpus,
            match (self.rude, self.is_impatient()) {
                (false, false) => "",
                (true, false) => " (rude)",
                (false, true) => " (impatient)",
                (true, true) => " (rude, impatient)",
            },
            self.tasks,
            self.files,
            match (self.refusing, self.sparse) {
                (false, false) => "",
                (true, false) => " (refusing)",
                (false, true) => " (sparse)",
                (true, true) => " (refusing, sparse)",
            },
            self.hot_ppm / 10_000,
        )?;
        for d in &self.disks {
            write!(f, " {}", disks::text(d))?;
        }
        if self.arm {
            write!(f, ", an arm kept from reads")?;
        }
        for (n, volume) in self.volumes.iter().enumerate() {
            if let Some(volume) = volume {
                write!(f, ", file {n} on a volume {volume}")?;
            }
        }
        if let Some(spared) = self.spared {
            write!(f, ", disk {spared} never fails")?;
        }
        if !self.crash_points.is_empty() {
            let points: Vec<_> = self
                .crash_points
                .iter()
                .map(CrashPoint::to_string)
                .collect();
            write!(f, ", cuts after {}", points.join(", "))?;
        }
        write!(f, ", mix {:?}", self.mix.shares())
    }
}
