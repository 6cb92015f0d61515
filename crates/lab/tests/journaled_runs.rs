//! What delayed allocation is for: randomly written pages reach the disk in long runs. The same random writes of eight times
//! memory, on a plain file and on a journaled volume, in virtual time.

mod common;

use common::{PAGE, Rig, lab};
use highwater_engine::backing::journaled::{FormatOptions, MountOptions, Volume, VolumeInfo, fsck};
use highwater_engine::backing::{Backing, PlainBacking};
use highwater_engine::{FileId, FileOptions, LendContext, Nanos};
use highwater_lab::model::{Hdd, Nvme, Ssd};
use highwater_lab::{LabQueue, Model, QueueOptions, RamDevice, RamOptions, Rng};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

const MEMORY: u64 = 2048;
const WRITERS: u64 = 4;
/// One schedule is up to three in a hundred quicker or slower than another: medians are compared.
const SEEDS: [u64; 5] = [7, 1, 2, 3, 4];

/// How long the writes took, the last sync included, and what the volume says.
struct Outcome {
    took: Nanos,
    volume: Option<VolumeInfo>,
}

/// `pages` random pages of a file of `file_pages`, by some writers, a sync after each `sync_every` of one writer.
fn random_writes(
    seed: u64,
    model: Model,
    journaled: bool,
    file_pages: u64,
    pages: u64,
    sync_every: u64,
) -> Outcome {
    let outcome = Rc::new(RefCell::new(None));
    let slot = outcome.clone();
    lab(
        seed,
        MEMORY,
        |_| (),
        move |rig| {
            let disk = LabQueue::new(
                &rig.world,
                QueueOptions {
                    model,
                    ..QueueOptions::default()
                },
            );
            let len = if journaled {
                file_pages * 3 / 2 + 200
            } else {
                file_pages
            } * PAGE;
            let device = RamDevice::new(
                &disk,
                RamOptions {
                    len,
                    ..RamOptions::default()
                },
            );
            let volume = journaled.then(|| mount(&rig, &device, file_pages));
            let backing: Arc<dyn Backing> = match &volume {
                Some(v) => v.clone(),
                None => Arc::new(PlainBacking::new(device.clone())),
            };
            let id = FileId { dev: 9, ino: 1 };
            let file = rig
                .engine
                .open(id, backing, FileOptions { write: true })
                .unwrap();
            let start = rig.now();
            let jobs: Vec<_> = (0..WRITERS)
                .map(|n| {
                    let file = file.clone();
                    rig.spawn("writer", move || {
                        let mut rng = Rng::new(n + 1, 0);
                        let page = vec![n as u8 + 1; PAGE as usize];
                        for i in 1..=pages / WRITERS {
                            let at = rng.below(file_pages) * PAGE;
                            file.write_at(&page, at).expect("a write");
                            if i % sync_every == 0 {
                                file.sync_data().expect("a sync");
                            }
                        }
                    })
                })
                .collect();
            for job in jobs {
                rig.join(job, Nanos::from_secs(500));
            }
            file.sync_data().expect("the last sync");
            let took = rig.now().since(start);
            let info = volume.as_ref().map(|v| v.info());
            if let Some(v) = &volume {
                v.check_invariants();
                let report = fsck(&*device).expect("a volume");
                assert!(report.is_clean(), "{:?}", report.faults);
            }
            *slot.borrow_mut() = Some(Outcome { took, volume: info });
            drop(file);
        },
    );
    outcome.take().expect("it ran")
}

fn mount(rig: &Rig, device: &Arc<RamDevice>, file_pages: u64) -> Arc<Volume> {
    let options = FormatOptions {
        logical_bytes: file_pages * PAGE,
        block_size: PAGE as u32,
        log_bytes: 0,
        uuid: [7; 16],
    };
    Volume::format(&**device, &options).expect("format");
    let memory = rig.engine.page_source();
    let mount = MountOptions {
        lend_context: LendContext::Reserve,
        ..MountOptions::default()
    };
    Volume::mount(device.clone(), memory, mount).expect("mount")
}

/// How much quicker the volume is, and what it says after the first of the seeds.
fn compare(name: &str, model: &Model, pages: u64, sync_every: u64) -> (f64, VolumeInfo) {
    let mut pairs = SEEDS.map(|seed| {
        let of = |journaled| {
            random_writes(seed, model.clone(), journaled, 8 * MEMORY, pages, sync_every)
        };
        let (plain, volume) = (of(false), of(true));
        let ratio = plain.took.0 as f64 / volume.took.0 as f64;
        let info = volume.volume.expect("a volume's");
        println!(
            "{name}, seed {seed}: plain {:?}, journaled {:?}: {ratio:.2} x; mean write {} bytes, {} commits, {} checkpoints, {} log blocks",
            plain.took,
            volume.took,
            info.mean_write_bytes(),
            info.commits,
            info.checkpoints,
            info.log_writes
        );
        (ratio, Some(info))
    });
    let info = pairs[0].1.take().expect("the first seed's");
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    (pairs[SEEDS.len() / 2].0, info)
}

#[test]
fn random_writes_of_eight_times_memory_are_no_slower_than_on_a_plain_file() {
    for (name, model, at_least) in [
        ("ssd", Model::Ssd(Ssd::default()), 1.0),
        ("hdd", Model::Hdd(Hdd::default()), 4.0),
        // Takes single pages as quickly as runs: what is left is what the log and the map cost.
        ("nvme", Model::Nvme(Nvme::default()), 0.98),
    ] {
        let (ratio, info) = compare(name, &model, 8 * MEMORY, u64::MAX);
        assert!(ratio >= at_least, "{name}: {ratio:.2} x");
        assert!(info.mean_write_bytes() > 100 << 10, "{name}: {info:?}");
    }
}

/// When the free blocks are scattered, too: four times over a file that takes two thirds of the disk.
#[test]
fn scattered_free_blocks_still_make_runs() {
    for (name, model, at_least) in [
        ("ssd", Model::Ssd(Ssd::default()), 0.9),
        ("hdd", Model::Hdd(Hdd::default()), 1.5),
    ] {
        let (ratio, info) = compare(name, &model, 32 * MEMORY, u64::MAX);
        assert!(ratio >= at_least, "{name}: {ratio:.2} x");
        assert!(info.mean_write_bytes() > 10 << 10, "{name}: {info:?}");
    }
}

/// What it costs: a commit needs two flushes, one after the other, where a plain file needs one.
#[test]
fn many_syncs_cost_a_second_flush() {
    for (name, model, at_least) in [
        ("ssd", Model::Ssd(Ssd::default()), 0.5),
        ("hdd", Model::Hdd(Hdd::default()), 1.0),
    ] {
        let (ratio, info) = compare(name, &model, 4 * MEMORY, 64);
        assert!(ratio >= at_least, "{name}: {ratio:.2} x");
        assert!(info.commits > 40, "{name}: {info:?}");
    }
}
