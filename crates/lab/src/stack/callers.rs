//! The work behind the stack table: every public entry point, many times, by tasks that compete for memory a quarter of
//! their files' size, on a disk that fails now and then. Each call is measured.
//!
//! **Context.** A lab of its own. Its tasks have stacks far larger than what is measured.

use super::calls::{CallUse, Calls, Entry};
use super::{Chain, StackUse};
use crate::device::{FaultRates, LabQueue, QueueOptions, RamDevice, RamOptions};
use crate::rng::Rng;
use crate::world::{LabOptions, LabWorld};
use highwater_engine::backing::PlainBacking;
use highwater_engine::backing::journaled::{FormatOptions, MountOptions, Volume};
use highwater_engine::{
    BlockOptions, Config, Engine, Error, File, FileId, FileOptions, Nanos, PageNo, Policy, World,
};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

/// Runs for each column of the table.
pub const TABLE_SEEDS: u64 = 6;

const CALLER: &str = "caller";
const FRAME: u64 = 4096;
const MEMORY: u64 = 4 << 20;
const FILES: u64 = 2;
const FILE: u64 = 8 << 20;
const TASKS: u64 = 4;
const OPS: u64 = 1_500;
const STACK: usize = 64 << 10;

/// The deepest call of each entry point under `policy`, over `seeds` runs. The same on every run of one build, but for
/// the heap's slow paths, which depend on what was allocated before.
///
/// # Panics
/// When an operation fails although no disk does.
pub fn callers(policy: Policy, seeds: u64) -> Vec<CallUse> {
    let calls = Arc::new(Calls::new(super::window));
    for seed in 1..=seeds {
        one_run(policy, seed, &calls, BTreeMap::new());
    }
    calls.report()
}

/// The chain at the deepest place that any caller's stack reached in the runs of [`callers`], from the caller's own
/// frames on. `None` where it did not come again.
///
/// # Panics
/// As [`callers`].
pub fn deepest_chain(policy: Policy, seeds: u64) -> Option<Chain> {
    let unmeasured = Arc::new(Calls::new(|| None));
    let deepest = |seed: u64, records: BTreeMap<u32, u64>| -> Option<(u64, StackUse)> {
        let stacks = one_run(policy, seed, &unmeasured, records);
        let callers = stacks.into_iter().filter(|s| s.name == CALLER);
        callers
            .max_by_key(|s| (s.deepest, s.chain.is_some()))
            .map(|s| (seed, s))
    };
    let mut found = (1..=seeds)
        .filter_map(|seed| deepest(seed, BTreeMap::new()))
        .max_by_key(|(_, s)| s.deepest)?;
    // The heap's slow paths may make a record come not again: then the next.
    for _ in 0..3 {
        let (seed, stack) = found;
        found = deepest(seed, [(stack.task.0, stack.deepest?)].into())?;
        if found.1.chain.is_some() {
            break;
        }
    }
    found.1.chain
}

fn one_run(
    policy: Policy,
    seed: u64,
    calls: &Arc<Calls>,
    records: BTreeMap<u32, u64>,
) -> Vec<StackUse> {
    let world = LabWorld::new(LabOptions {
        stack_size: STACK,
        stack_trace: true,
        stack_records: records,
        ..LabOptions::new(seed)
    });
    // Every other run, so that what failures cost is known too.
    let fails = seed.is_multiple_of(2);
    let queue = LabQueue::new(&world, QueueOptions::default());
    let faults = if fails {
        FaultRates {
            read_error_ppm: 3_000,
            write_error_ppm: 3_000,
            no_space_ppm: 1_000,
            flush_error_ppm: 20_000,
            ..FaultRates::default()
        }
    } else {
        FaultRates::default()
    };
    let devices: Vec<Arc<RamDevice>> = (0..FILES)
        .map(|_| {
            let len = FILE;
            RamDevice::new(
                &queue,
                RamOptions {
                    len,
                    faults,
                    ..RamOptions::default()
                },
            )
        })
        .collect();
    let (w, calls) = (world.clone(), calls.clone());
    world.run(move || {
        let config = Config {
            policy,
            ..Config::new(MEMORY)
        };
        let engine = calls.measure(Entry::New, || Engine::new(w.clone(), config));
        let engine = engine.unwrap_or_else(|e| panic!("the engine refuses: {e}"));
        let mut files: Vec<File<LabWorld>> = (0..FILES)
            .map(|n| open(&engine, &devices[n as usize], n, &calls))
            .collect();
        files.push(open_volume(&engine, &queue, &calls));
        let tasks: Vec<_> = (0..TASKS)
            .map(|n| {
                let mut caller = Caller {
                    world: w.clone(),
                    engine: engine.clone(),
                    files: files.clone(),
                    rng: Rng::new(seed, 100 + n),
                    buf: vec![n as u8; 64 << 10],
                    calls: calls.clone(),
                    fails,
                };
                w.spawn_local(CALLER, move || (0..OPS).for_each(|_| caller.operate()))
            })
            .collect();
        for task in tasks {
            while !w.join(task, w.now().plus(Nanos::from_secs(1))) {}
        }
        for device in &devices {
            device.heal();
        }
        for file in files {
            calls.measure(Entry::FileDrop, || drop(file));
        }
        let closed = calls.measure(Entry::Close, || engine.close());
        assert!(fails || closed.is_ok(), "{closed:?}");
    });
    world.stacks()
}

fn open(
    engine: &Arc<Engine<LabWorld>>,
    device: &Arc<RamDevice>,
    n: u64,
    calls: &Calls,
) -> File<LabWorld> {
    let id = FileId { dev: 1, ino: n + 1 };
    let backing = Arc::new(PlainBacking::new(device.clone()));
    let options = FileOptions { write: true };
    let file = calls.measure(Entry::Open, || engine.open(id, backing, options));
    file.unwrap_or_else(|e| panic!("open of file {n}: {e}"))
}

/// A file on a volume of its own, on a disk that does not fail.
fn open_volume(
    engine: &Arc<Engine<LabWorld>>,
    queue: &Arc<LabQueue>,
    calls: &Calls,
) -> File<LabWorld> {
    let device = RamDevice::new(
        queue,
        RamOptions {
            len: 2 * FILE,
            ..RamOptions::default()
        },
    );
    let format = FormatOptions {
        logical_bytes: FILE,
        block_size: FRAME as u32,
        log_bytes: 0,
        uuid: [7; 16],
    };
    let formatted = calls.measure(Entry::Format, || Volume::format(&*device, &format));
    formatted.unwrap_or_else(|e| panic!("format: {e}"));
    let memory = engine.page_source();
    let volume = calls.measure(Entry::Mount, || {
        Volume::mount(device, memory, MountOptions::default())
    });
    let volume = volume.unwrap_or_else(|e| panic!("mount: {e}"));
    let id = FileId { dev: 2, ino: 1 };
    let file = engine.open(id, volume, FileOptions { write: true });
    file.unwrap_or_else(|e| panic!("open of the volume: {e}"))
}

struct Caller {
    world: Arc<LabWorld>,
    engine: Arc<Engine<LabWorld>>,
    files: Vec<File<LabWorld>>,
    rng: Rng,
    buf: Vec<u8>,
    calls: Arc<Calls>,
    fails: bool,
}

impl Caller {
    /// One operation, of those that wait for a disk fewer.
    fn operate(&mut self) {
        let chosen = self.rng.below(FILES + 1);
        let file = self.files[chosen as usize].clone();
        let of = |entry: Entry| match chosen == FILES {
            true => entry.on_volume(),
            false => entry,
        };
        let len = file.len().max(1);
        let page = PageNo(self.rng.below(len.div_ceil(FRAME)));
        let offset = self.rng.below(len);
        let n = self.rng.pick(&[16, FRAME, 3 * FRAME, 64 << 10]) as usize;
        let calls = self.calls.clone();
        let result = match self.rng.below(1_000) {
            0..300 => {
                let buf = &self.buf[..n.min((FILE - offset.min(FILE - 1)) as usize)];
                calls.measure(of(Entry::WriteAt), || file.write_at(buf, offset))
            }
            300..500 => {
                let buf = &mut self.buf[..n];
                let read = calls.measure(of(Entry::ReadAt), || file.read_at(buf, offset));
                read.map(|n| {
                    black_box(n);
                })
            }
            500..650 => {
                let page = calls.measure(of(Entry::Page), || file.page(page));
                page.map(|p| calls.measure(Entry::PageDrop, || drop(p)))
            }
            650..900 => {
                let page = calls.measure(of(Entry::PageMut), || file.page_mut(page));
                page.map(|mut p| {
                    p[0] = p[0].wrapping_add(1);
                    calls.measure(Entry::PageDrop, || drop(p));
                })
            }
            900..905 => {
                let range = offset..offset + n as u64;
                calls.measure(of(Entry::Discard), || file.discard(range))
            }
            905..920 => {
                let len = FILE - self.rng.below(FILE / 8);
                calls.measure(of(Entry::SetLen), || file.set_len(len))
            }
            920..940 => {
                let range = offset..offset + n as u64;
                let evicted = calls.measure(Entry::Evict, || file.evict(range));
                evicted.map(|n| {
                    black_box(n);
                })
            }
            940..945 => calls.measure(of(Entry::SyncData), || file.sync_data()),
            945..950 => calls.measure(of(Entry::SyncAll), || file.sync_all()),
            950..960 => {
                let range = offset..offset + n as u64;
                calls.measure(Entry::SyncRange, || file.sync_range(range))
            }
            960..963 => {
                let engine = &self.engine;
                calls.measure(Entry::EngineSyncAll, || engine.sync_all())
            }
            963..967 => {
                let engine = &self.engine;
                let options = match self.rng.chance(500_000) {
                    true => BlockOptions::patient(),
                    false => BlockOptions::thp(),
                };
                let order = 1 + self.rng.below(4) as u32;
                let block = calls.measure(Entry::AllocBlock, || engine.alloc_block(order, options));
                block.map(|b| calls.measure(Entry::BlockDrop, || drop(b)))
            }
            967..970 => {
                let engine = &self.engine;
                black_box(calls.measure(Entry::Stats, || engine.stats()).frames);
                Ok(())
            }
            _ => {
                let nap = Nanos(self.rng.below(200_000));
                self.world.sleep_until(self.world.now().plus(nap));
                Ok(())
            }
        };
        calls.measure(Entry::FileDrop, || drop(file));
        self.judge(result);
    }

    /// Without failing disks only a page beyond an end that has just moved may be refused.
    fn judge(&self, result: Result<(), Error>) {
        match result {
            Ok(()) | Err(Error::OutOfRange { .. } | Error::OutOfMemory(_) | Error::NoBlock(_)) => {}
            Err(e) => assert!(self.fails, "{e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_engine::Preset;

    #[test]
    fn every_entry_point_is_reached_and_a_run_repeats() {
        let policy = Preset::Highwater.policy();
        let uses = callers(policy, 2);
        for (a, b) in uses.iter().zip(callers(policy, 2)) {
            assert_eq!((a.entry, a.calls), (b.entry, b.calls));
            // The heap is not of the lab: its slow paths come when they come.
            assert!(a.deepest.abs_diff(b.deepest) <= 256, "{a:?}, {b:?}");
        }
        if super::super::MEASURED {
            let missing: Vec<_> = Entry::ALL
                .iter()
                .filter(|e| !uses.iter().any(|u| u.entry == **e))
                .collect();
            assert!(missing.is_empty(), "{missing:?}");
            assert!(
                uses.iter()
                    .all(|u| u.deepest > 0 && u.deepest < STACK as u64)
            );
        }
    }
}
