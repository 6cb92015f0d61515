//! Random 4 KiB writes of eight times the memory: a journaled volume against a plain file.
//!
//! Each round is a pass of as many writes as the file has pages, by two threads, and a sync; the two files take turns. The
//! volume's disk has room for one and a half times the file; after the first rounds its free blocks are scattered.

use super::{Bench, MIB, PAGE};
use crate::Outcome;
use crate::expect;
use crate::keys::{Keys, page_of};
use crate::row::Row;
use highwater::volume::{self, MountOptions, VolumeOptions};
use highwater::{Cache, Error, File, OpenOptions};
use std::time::Instant;

const MEMORY: u64 = 64 * MIB;
const PAGES: u64 = 8 * MEMORY / PAGE as u64;
const THREADS: u64 = 2;

/// Writes a second of a pass, its sync included.
fn pass(file: &File, round: u64) -> Outcome<f64> {
    let begin = Instant::now();
    let one = |thread: u64| -> Result<(), Error> {
        let mut keys = Keys::new(round, thread);
        let page = vec![thread as u8; PAGE];
        for _ in 0..PAGES / THREADS {
            file.write_at(&page, page_of(keys.next(), PAGES) * PAGE as u64)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|t| scope.spawn(move || one(t))).collect();
        threads.into_iter().try_for_each(|t| match t.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    file.sync_data()?;
    Ok(PAGES as f64 / begin.elapsed().as_secs_f64())
}

/// The row.
pub fn run(bench: &mut Bench, group: &'static str) -> Outcome<Vec<Row>> {
    let bytes = PAGES * PAGE as u64;
    let plain_path = bench.place.file("plain", bytes)?;
    let cache = Cache::builder().memory(MEMORY).build()?;
    let other = Cache::builder().memory(MEMORY).build()?;
    let plain = other.open(&plain_path, OpenOptions::new().write(true))?;
    // Laid out as the plain file is: no block of either is new to the file system.
    let path = bench.place.file("volume", bytes * 3 / 2)?;
    let options = VolumeOptions {
        disk_bytes: Some(bytes * 3 / 2),
        overwrite: true,
        ..VolumeOptions::new(bytes)
    };
    volume::create(&path, &options)?;
    let write = OpenOptions::new().write(true);
    let (file, volume) = cache.open_volume(&path, write, MountOptions::default())?;
    let rounds = bench.args.disk_rounds().0.min(9) as u64;
    let [mut own, mut beside] = [const { Vec::new() }; 2];
    for round in 0..rounds {
        own.push(pass(&file, round)?);
        beside.push(pass(&plain, round)?);
    }
    let stats = other.stats();
    let mean = stats.get("write_bytes") / 1024 / stats.get("write_requests").max(1);
    let row = Row::new(group, &expect::JOURNALED, own)
        .peer("plain", beside)
        .note(format!(
            "mean write {} KiB, plain {mean} KiB; 2 threads, 131,072 writes a round and a sync, budget 64 MiB",
            volume.info().mean_write_bytes() / 1024
        ));
    Ok(vec![row])
}
