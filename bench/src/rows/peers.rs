//! The hit path of other caches, as a courtesy: each keeps the same 4 KiB pages by number and gives the same 8 bytes.
//!
//! **What each stores, so that none copies a page.** moka and quick_cache clone the value at a hit: they get
//! `Arc<[u8; 4096]>`. foyer hands out a counted entry: it gets `Box<[u8; 4096]>`, one pointer less to follow. page-db has
//! frames of its own: its pages are made in memory and stay there. Each holds 1 GiB in a capacity of twice that, with its
//! default settings, hash function included. None of them has dirty pages or a budget in bytes but page-db; they do
//! other things that this row does not use. Their pages lie on the heap, without huge pages unless the system gives
//! them to all; Highwater's arena asks for them, which is a part of the difference.

use super::{Bench, GIB, MIB, PAGE, missed, misses, resident};
use crate::Outcome;
use crate::expect::{Expect, PEERS};
use crate::keys::{Keys, offset_of, page_of, touch};
use crate::row::{Goal, Row, Unit};
use crate::threads::ns_per_op;
use highwater::PageNo;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

const PAGES: u64 = GIB / PAGE as u64;
/// Places for pages: twice as many, so that no shard overflows.
const CAPACITY: usize = 2 * PAGES as usize;
/// Offsets lie in a page's first half: page-db keeps a header of 32 bytes in each page.
const WITHIN: usize = PAGE / 2;
/// Five copies of the pages, their records, and Highwater's slack.
const NEEDED: u64 = 7 * GIB;

type Content = [u8; PAGE];

fn content(page: u64) -> Content {
    let mut bytes = [0; PAGE];
    let mut keys = Keys::new(page, 9);
    for word in bytes.chunks_exact_mut(8) {
        word.copy_from_slice(&keys.next().to_le_bytes());
    }
    bytes
}

/// Nanoseconds an operation of `get`, which gives 8 bytes of a page.
fn measure(
    threads: usize,
    length: Duration,
    seed: u64,
    get: impl Fn(u64, usize) -> u64 + Sync,
) -> f64 {
    let get = &get;
    ns_per_op(threads, length, |n| {
        let mut keys = Keys::new(seed, n as u64);
        move |ops| {
            let mut sum = 0u64;
            for _ in 0..ops {
                let k = keys.next();
                sum = sum.wrapping_add(get(page_of(k, PAGES), offset_of(k, WITHIN)));
            }
            black_box(sum);
        }
    })
}

fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    line.and_then(|l| l.trim().split(' ').next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

/// The peers, filled.
struct Peers {
    moka: moka::sync::Cache<u64, Arc<Content>>,
    quick: quick_cache::sync::Cache<u64, Arc<Content>>,
    foyer: foyer_memory::Cache<u64, Box<Content>>,
    page_db: page_db::BufferPool,
}

impl Peers {
    fn filled(bench: &Bench) -> Outcome<Peers> {
        let path = bench.place.dir().join("page-db");
        let peers = Peers {
            moka: moka::sync::Cache::new(CAPACITY as u64),
            quick: quick_cache::sync::Cache::new(CAPACITY),
            foyer: foyer_memory::CacheBuilder::new(CAPACITY).build(),
            // Room for all; its frames are made at once, so not for twice as many.
            page_db: page_db::BufferPool::open(&path, page_db::DEFAULT_PAGE_SIZE, PAGES as usize)?,
        };
        for page in 0..PAGES {
            let bytes = content(page);
            peers.moka.insert(page, Arc::new(bytes));
            peers.quick.insert(page, Arc::new(bytes));
            peers.foyer.insert(page, Box::new(bytes));
            let guard = peers.page_db.new_page(page_db::PageId::new(page))?;
            let mut frame = guard.write();
            let payload = frame.payload_mut();
            let n = payload.len();
            payload.copy_from_slice(&bytes[..n]);
        }
        peers.moka.run_pending_tasks();
        Ok(peers)
    }

    /// One round of each, in the order of `PEERS`.
    fn round(&self, threads: usize, length: Duration, seed: u64) -> [f64; 4] {
        [
            measure(threads, length, seed, |page, at| {
                touch(&*self.moka.get(&page).expect("kept by moka"), at)
            }),
            measure(threads, length, seed, |page, at| {
                touch(&*self.quick.get(&page).expect("kept by quick_cache"), at)
            }),
            measure(threads, length, seed, |page, at| {
                touch(&**self.foyer.get(&page).expect("kept by foyer"), at)
            }),
            measure(threads, length, seed, |page, at| {
                let guard = self
                    .page_db
                    .fetch(page_db::PageId::new(page))
                    .expect("kept by page-db");
                touch(guard.read().payload(), at)
            }),
        ]
    }
}

/// The row.
///
/// # Errors
/// With less than 7 GiB of memory available.
pub fn run(bench: &mut Bench, group: &'static str) -> Outcome<Vec<Row>> {
    if available() < NEEDED {
        return Err("five caches of 1 GiB need 7 GiB of available memory".into());
    }
    let path = bench.place.file("data", GIB)?;
    let (cache, file) = resident(&path, GIB + 256 * MIB, GIB)?;
    let peers = Peers::filled(bench)?;
    let (rounds, length) = bench.args.memory_rounds();
    let before = misses(&cache);
    let mut own: [Vec<f64>; 2] = Default::default();
    let mut others: [[Vec<f64>; 4]; 2] = Default::default();
    for round in 0..rounds as u64 {
        let seed = bench.args.seed ^ round << 32;
        for threads in [1, 2] {
            own[threads - 1].push(measure(threads, length, seed, |page, at| {
                touch(&file.page(PageNo(page)).expect("a resident page"), at)
            }));
            let round = peers.round(threads, length, seed);
            for (all, ns) in others[threads - 1].iter_mut().zip(round) {
                all.push(ns);
            }
        }
    }
    let held = missed(&cache, before)?;
    let mut rows = Vec::new();
    for (peer, (name, predictions)) in PEERS.iter().enumerate() {
        for threads in [1, 2] {
            let expect = Expect {
                what: "",
                unit: Unit::Ns,
                prediction: predictions[threads - 1],
                // Ahead of each.
                goal: Goal::Ratio(1.0),
            };
            let ns = others[threads - 1][peer].clone();
            let mut row = Row::new(group, &expect, own[threads - 1].clone()).peer(name, ns);
            let plural = if threads == 1 { "" } else { "s" };
            row.what = format!("hit path beside {name}, {threads} thread{plural}");
            rows.push(row);
        }
    }
    rows[0].notes.push(format!(
        "1 GiB of 4 KiB pages in each, {held}; moka and quick_cache keep Arc<[u8; 4096]>, foyer Box<[u8; 4096]>, page-db its own frames; default settings; peers' pages on the heap, without huge pages where these are `madvise`"
    ));
    Ok(rows)
}
