//! Files of a soak that lie on a journaled volume each, and what a power failure leaves of them.
//!
//! An image of the disk is checked, mounted, read whole, written to and checked again, in a world of its own on a thread of
//! its own: so it may be looked at in the middle of a request's end, where nobody may wait.
//!
//! **Invariants.** SOAK-9: `fsck` finds nothing on any image, before its mount and after; but a page that the cache has
//! said is lost may be damaged.

use super::told::Told;
use super::{SoakOptions, Subject};
use crate::device::{FaultRates, LabQueue, QueueOptions, RamDevice, RamOptions};
use crate::rng::{Rng, mix};
use crate::shadow::Shadow;
use crate::world::{LabOptions, LabWorld};
use highwater_engine::backing::Backing;
use highwater_engine::backing::journaled::{Damage, FormatOptions, MountOptions, Volume, fsck};
use highwater_engine::{
    Config, Engine, Error, File, FileId, FileOptions, IoErrorKind, LendContext, Nanos,
};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::resume_unwind;
use std::sync::Arc;

/// The file of a volume that is looked at after a power failure.
const FILE: FileId = FileId { dev: 99, ino: 1 };
/// Frames that a volume borrows for its log and its zeroes, and two leaves more than its map needs.
const LENT: u64 = 12;

/// The volume that one file lies on.
#[derive(Clone, Copy, Debug)]
pub struct VolumeOptions {
    /// Room for data, in percent of the longest that the file may become.
    pub data_percent: u64,
    /// Blocks of the log.
    pub log_blocks: u64,
    /// Where it gets memory while it writes.
    pub lend: LendContext,
}

impl VolumeOptions {
    pub(super) fn draw(r: &mut Rng) -> VolumeOptions {
        VolumeOptions {
            data_percent: r.pick(&[60, 105, 130, 160, 250, 250]),
            log_blocks: r.pick(&[8, 12, 16, 40, 100]),
            lend: r.pick(&[
                LendContext::Reserve,
                LendContext::Reserve,
                LendContext::Reclaim,
            ]),
        }
    }

    /// Has it less room than the file may want, so that a writer may hear that it is full?
    pub fn is_tight(&self) -> bool {
        self.data_percent < 130
    }

    /// Pages of a file that starts with `len` bytes, at its longest: see `User::append`.
    fn pages(len: u64, frame_size: usize) -> u64 {
        (len * 5 / 4).div_ceil(frame_size as u64) + 1
    }

    /// Blocks of one copy of the map, at the most.
    fn map(len: u64, frame_size: usize) -> u64 {
        Self::pages(len, frame_size).div_ceil(frame_size as u64 / 8 - 12)
    }

    /// Frames that it borrows while it is mounted.
    pub(super) fn frames(len: u64, frame_size: usize) -> u64 {
        LENT + 2 * Self::map(len, frame_size)
    }

    fn device_bytes(&self, len: u64, frame_size: usize) -> u64 {
        let pages = Self::pages(len, frame_size);
        let map = 2 * Self::map(len, frame_size) + 2;
        let data = pages * self.data_percent / 100 + 16;
        (self.log_blocks + map + data) * frame_size as u64
    }

    fn format(&self, seed: u64, len: u64, frame_size: usize) -> FormatOptions {
        FormatOptions {
            logical_bytes: Self::pages(len, frame_size) * frame_size as u64,
            block_size: frame_size as u32,
            log_bytes: self.log_blocks * frame_size as u64,
            uuid: u128::from(mix(seed)).to_le_bytes(),
        }
    }
}

impl fmt::Display for VolumeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "(data {} %, log {}, {:?})",
            self.data_percent, self.log_blocks, self.lend
        )
    }
}

/// Makes the volume of the file `n` and opens it: a hole of the file's length, durable. Nothing has gone wrong until then.
pub(super) fn open(
    engine: &Arc<Engine<LabWorld>>,
    queue: &Arc<LabQueue>,
    options: &SoakOptions,
    n: usize,
    on: &VolumeOptions,
) -> Subject {
    let (disk, len) = options.files[n];
    let cuts = options.trouble.cuts();
    let device = RamDevice::new(
        queue,
        RamOptions {
            len: on.device_bytes(len, options.frame_size),
            crashes: cuts,
            sparse: options.sparse,
            ..RamOptions::default()
        },
    );
    let seed = options.seed.wrapping_mul(8).wrapping_add(n as u64);
    Volume::format(&*device, &on.format(seed, len, options.frame_size)).expect("format");
    let mount = MountOptions {
        lend_context: on.lend,
        refuse_reclaim: options.refusing,
    };
    let volume = Volume::mount(device.clone(), engine.page_source(), mount)
        .unwrap_or_else(|e| panic!("mount of file {n}: {e}"));
    let id = FileId {
        dev: options.disks[disk].id,
        ino: n as u64 + 1,
    };
    let backing: Arc<dyn Backing> = volume.clone();
    let file = Subject::open(engine, id, &backing);
    file.set_len(len).expect("nothing goes wrong yet");
    file.sync_all().expect("nothing goes wrong yet");
    device.set_faults(options.rates(n));
    let mut shadow = Shadow::new(options.frame_size, &[], cuts);
    shadow.grow_before_use(len);
    Subject {
        id,
        backing,
        handle: RefCell::new(Some(file)),
        device,
        volume: Some(volume),
        shadow: RefCell::new(shadow),
        lost: RefCell::default(),
        doubtful: Cell::new(false),
        well: Cell::new(None),
        told: Told::default(),
    }
}

/// What was found on an image.
pub(super) struct Found {
    /// The file's bytes; zeroes where a page is damaged.
    pub bytes: Vec<u8>,
    /// Pages that are damaged.
    pub damaged: Vec<u64>,
}

/// What a mount finds on `image`.
///
/// # Panics
/// SOAK-9. Pages that are damaged are the caller's to judge.
pub(super) fn recover(image: Vec<u8>, on: VolumeOptions, frame_size: usize) -> Found {
    let thread = std::thread::Builder::new().name("recovery".into());
    let thread = thread.spawn(move || {
        let world = LabWorld::new(LabOptions {
            steps_max: u64::MAX,
            time_max: Nanos::from_secs(3_600),
            ..LabOptions::calm(1)
        });
        let inner = world.clone();
        let run = world.run(move || look(&inner, image, on, frame_size));
        assert!(run.leaked.is_empty(), "tasks left: {:?}", run.leaked);
        run.value
    });
    let joined = thread.expect("a thread for a recovery").join();
    joined.unwrap_or_else(|panic| resume_unwind(panic))
}

fn look(world: &Arc<LabWorld>, image: Vec<u8>, on: VolumeOptions, frame_size: usize) -> Found {
    let queue = LabQueue::new(world, QueueOptions::default());
    let bytes = image.len();
    let device = RamDevice::new(
        &queue,
        RamOptions {
            len: bytes as u64,
            content: image,
            faults: FaultRates::default(),
            ..RamOptions::default()
        },
    );
    let damaged = check(&device, "before its mount");
    let map = (bytes / frame_size).div_ceil(frame_size / 8 - 12);
    let mut config = Config::new((frame_size * (100 + 4 * map) + (256 << 10)) as u64);
    config.frame_size = frame_size;
    config.populate = false;
    let engine = Engine::new(world.clone(), config).expect("the engine starts");
    let mount = MountOptions {
        lend_context: on.lend,
        ..MountOptions::default()
    };
    let volume = Volume::mount(device.clone(), engine.page_source(), mount)
        .unwrap_or_else(|e| panic!("SOAK-9: mount: {e}"));
    let file = engine
        .open(FILE, volume.clone(), FileOptions { write: true })
        .expect("open");
    let found = read(&file, frame_size, damaged);
    use_on(&file, frame_size);
    drop(file);
    engine
        .close()
        .unwrap_or_else(|e| panic!("SOAK-9: close: {e}"));
    drop(volume);
    let after = check(&device, "after its use");
    let known = after.iter().all(|page| found.damaged.contains(page));
    assert!(known, "SOAK-9: damaged by a mount: {after:?}");
    found
}

/// SOAK-9; the damaged pages.
fn check(device: &RamDevice, when: &str) -> Vec<u64> {
    let report = fsck(device).unwrap_or_else(|e| panic!("SOAK-9: fsck {when}: {e}"));
    let page = |fault: &Damage| match fault {
        Damage::Data { page, .. } => *page,
        fault => panic!("SOAK-9: fsck {when}: {fault}"),
    };
    report.faults.iter().map(page).collect()
}

fn read(file: &File<LabWorld>, frame_size: usize, damaged: Vec<u64>) -> Found {
    let mut bytes = vec![0; file.len() as usize];
    for (page, piece) in (0..).zip(bytes.chunks_mut(frame_size)) {
        match file.read_at(piece, page * frame_size as u64) {
            Ok(n) => {
                assert!(!damaged.contains(&page), "SOAK-9: page {page} is read");
                assert_eq!(n, piece.len());
            }
            Err(e) => {
                assert!(damaged.contains(&page), "SOAK-9: page {page}: {e}");
                piece.fill(0);
            }
        }
    }
    Found { bytes, damaged }
}

/// The volume takes a write, and keeps it.
fn use_on(file: &File<LabWorld>, frame_size: usize) {
    if file.len() < frame_size as u64 {
        return;
    }
    match file.write_at(&vec![0xA7; frame_size], 0) {
        Ok(()) => {
            file.sync_data()
                .unwrap_or_else(|e| panic!("SOAK-9: sync: {e}"));
            file.evict(0..u64::MAX)
                .unwrap_or_else(|e| panic!("SOAK-9: evict: {e}"));
            let mut back = vec![0; frame_size];
            file.read_at(&mut back, 0)
                .unwrap_or_else(|e| panic!("SOAK-9: read: {e}"));
            assert!(back.iter().all(|b| *b == 0xA7), "SOAK-9: a write is lost");
        }
        Err(e) => assert!(is_full("write", &e), "SOAK-9: write: {e}"),
    }
}

/// Did a writer hear that the volume is full, or who cut a page that has to be written anew?
pub(super) fn is_full(what: &str, error: &Error) -> bool {
    matches!(error, Error::Io { op, source } if source.kind == IoErrorKind::NoSpace
        && (*op == "reserve space for a write" || what == "set_len"))
}
