//! Sequential reads and writes against 1 MiB `O_DIRECT` requests, eight in flight.

use super::{Bench, GIB, MIB, PAGE};
use crate::Outcome;
use crate::expect;
use crate::keys::touch;
use crate::raw::Sequential;
use crate::row::Row;
use highwater::{Cache, File, OpenOptions, PageNo};
use std::hint::black_box;
use std::time::{Duration, Instant};

const MEMORY: u64 = 256 * MIB;
const CHUNK: u64 = MIB;

/// Bytes a second of `step`, which does 1 MiB at an offset, in order and round after round; `end` counts, too.
fn pace(
    at: &mut u64,
    length: Duration,
    mut step: impl FnMut(u64) -> Outcome<()>,
    end: impl FnOnce() -> Outcome<()>,
) -> Outcome<f64> {
    let (begin, mut done) = (Instant::now(), 0);
    while begin.elapsed() < length {
        step(*at)?;
        *at = (*at + CHUNK) % GIB;
        done += CHUNK;
    }
    end()?;
    Ok(done as f64 / begin.elapsed().as_secs_f64())
}

fn by_page(file: &File, at: u64) -> Outcome<()> {
    let first = at / PAGE as u64;
    for n in first..first + CHUNK / PAGE as u64 {
        black_box(touch(&file.page(PageNo(n))?, 0));
    }
    Ok(())
}

fn mb(rates: Vec<f64>) -> Vec<f64> {
    rates.into_iter().map(|r| r / 1e6).collect()
}

fn reads(bench: &Bench, group: &str) -> Outcome<Vec<Row>> {
    let path = bench.place.file("data", GIB)?;
    let mut raw = Sequential::new(&path, GIB, false)?;
    let open = || -> Outcome<(Cache, File)> {
        let cache = Cache::builder().memory(MEMORY).build()?;
        let file = cache.open(&path, OpenOptions::new().read(true))?;
        Ok((cache, file))
    };
    let ((cache, copied), (_other, mapped)) = (open()?, open()?);
    let (rounds, length) = bench.args.disk_rounds();
    let mut buffer = vec![0; CHUNK as usize];
    let (mut copied_at, mut mapped_at) = (0, 0);
    let [mut read_at, mut page, mut direct] = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        let step = |at| {
            black_box(copied.read_at(&mut buffer, at)?);
            Ok(())
        };
        read_at.push(pace(&mut copied_at, length, step, || Ok(()))?);
        direct.push(raw.run(length)?);
        page.push(pace(
            &mut mapped_at,
            length,
            |at| by_page(&mapped, at),
            || Ok(()),
        )?);
    }
    let stats = cache.stats();
    let mean = stats.get("pages_read") * PAGE as u64 / 1024 / stats.get("read_requests").max(1);
    Ok(vec![
        Row::new(group, &expect::SEQUENTIAL_READ_AT, mb(read_at))
            .peer("raw", mb(direct.clone()))
            .note(format!("1 GiB again and again, budget 256 MiB, mean read {mean} KiB; raw: 1 MiB O_DIRECT, io_uring, depth 8")),
        Row::new(group, &expect::SEQUENTIAL_PAGE, mb(page))
            .peer("raw", mb(direct))
            .note("8 bytes of each page are read"),
    ])
}

fn writes(bench: &Bench, group: &str) -> Outcome<Row> {
    let own_path = bench.place.file("write-own", GIB)?;
    let raw_path = bench.place.file("write-raw", GIB)?;
    let mut raw = Sequential::new(&raw_path, GIB, true)?;
    let cache = Cache::builder().memory(MEMORY).build()?;
    let file = cache.open(&own_path, OpenOptions::new().write(true))?;
    let (rounds, length) = bench.args.disk_rounds();
    let buffer = vec![0x5A; CHUNK as usize];
    let mut at = 0;
    let [mut own, mut direct] = [const { Vec::new() }; 2];
    for _ in 0..rounds {
        let step = |at| Ok(file.write_at(&buffer, at)?);
        own.push(pace(&mut at, length, step, || Ok(file.sync_data()?))?);
        direct.push(raw.run(length)?);
    }
    let stats = cache.stats();
    let mean = stats.get("write_bytes") / 1024 / stats.get("write_requests").max(1);
    Ok(Row::new(group, &expect::SEQUENTIAL_WRITE, mb(own))
        .peer("raw", mb(direct))
        .note(format!(
            "1 GiB again and again, budget 256 MiB, mean write {mean} KiB; each round ends with a sync, raw with fdatasync, in its time"
        )))
}

/// The row.
pub fn run(bench: &mut Bench, group: &'static str) -> Outcome<Vec<Row>> {
    let mut rows = reads(bench, group)?;
    rows.push(writes(bench, group)?);
    Ok(rows)
}
