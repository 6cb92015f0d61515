//! Random misses of one page on one thread, against `pread` with `O_DIRECT`.

use super::{Bench, GIB, MIB, PAGE};
use crate::Outcome;
use crate::expect;
use crate::keys::{Tour, touch};
use crate::place::{Aligned, open_direct};
use crate::row::Row;
use crate::sample::{histogram, latencies};
use hdrhistogram::Histogram;
use highwater::{Cache, OpenOptions, PageNo};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// The file is 16 times as large, and each page is read once before any is read again: no hit by chance.
const MEMORY: u64 = 64 * MIB;

struct Side {
    latency: Histogram<u64>,
    rates: Vec<f64>,
}

impl Side {
    fn new() -> Side {
        Side {
            latency: histogram(),
            rates: Vec::new(),
        }
    }

    /// One round: operations a second.
    fn round(
        &mut self,
        tour: &mut Tour,
        length: Duration,
        mut read: impl FnMut(u64) -> Outcome<()>,
    ) -> Outcome<()> {
        let begin = Instant::now();
        let (mut last, mut ops) = (begin, 0u64);
        while last - begin < length {
            read(tour.next())?;
            let now = Instant::now();
            self.latency
                .saturating_record((now - last).as_nanos() as u64);
            (last, ops) = (now, ops + 1);
        }
        self.rates.push(ops as f64 / (last - begin).as_secs_f64());
        Ok(())
    }
}

/// The row.
pub fn run(bench: &mut Bench, group: &'static str) -> Outcome<Vec<Row>> {
    let path = bench.place.file("data", GIB)?;
    let raw = open_direct(&path, false)?;
    let cache = Cache::builder().memory(MEMORY).build()?;
    let file = cache.open(&path, OpenOptions::new().read(true))?;
    let (rounds, length) = bench.args.disk_rounds();
    let seed = bench.args.seed;
    let mut sides = [Side::new(), Side::new(), Side::new()];
    // One tour for both ways to read through the cache: neither may find what the other has just read.
    let mut own_tour = Tour::new(GIB / PAGE as u64, seed);
    let mut raw_tour = Tour::new(GIB / PAGE as u64, seed + 1);
    let mut buffer = Aligned::new(PAGE);
    let mut copy = vec![0; PAGE];
    // Memory is full, and reclaim at work, before anything is measured.
    for _ in 0..2 * MEMORY / PAGE as u64 {
        file.page(PageNo(own_tour.next()))?;
    }
    let (before, mut ops) = (cache.stats(), 0);
    for _ in 0..rounds {
        let [page, read_at, direct] = &mut sides;
        page.round(&mut own_tour, length, |n| {
            black_box(touch(&file.page(PageNo(n))?, 0));
            Ok(())
        })?;
        direct.round(&mut raw_tour, length, |n| {
            Ok(raw.read_exact_at(buffer.bytes(), n * PAGE as u64)?)
        })?;
        read_at.round(&mut own_tour, length, |n| {
            black_box(file.read_at(&mut copy, n * PAGE as u64)?);
            Ok(())
        })?;
    }
    let after = cache.stats();
    let delta = |name: &str| after.get(name) - before.get(name);
    let [page, read_at, direct] = sides;
    ops += page.latency.len() + read_at.latency.len();
    let note = format!(
        "1 GiB cold, budget 64 MiB, each page once a tour; {ops} operations, {} misses, {} pages read; raw: O_DIRECT pread",
        delta("misses"),
        delta("pages_read"),
    );
    Ok(vec![
        Row::new(group, &expect::MISS_PAGE, page.rates)
            .peer("raw", direct.rates.clone())
            .note(note)
            .note(latencies("page()", &page.latency))
            .note(latencies("raw", &direct.latency)),
        Row::new(group, &expect::MISS_READ_AT, read_at.rates)
            .peer("raw", direct.rates)
            .note(latencies("read_at", &read_at.latency)),
    ])
}
