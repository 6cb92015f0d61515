//! `page()` on resident frames: handle, range check, look-up, latch, 8 bytes, and the guard's drop.

use super::{Bench, GIB, MIB, PAGE, missed, misses, resident};
use crate::Outcome;
use crate::expect;
use crate::keys::{Keys, mix, offset_of, page_of, touch};
use crate::memory::Plain;
use crate::row::Row;
use crate::threads::ns_per_op;
use highwater::{File, PageNo};
use std::hint::black_box;
use std::time::Duration;

const PAGES: u64 = GIB / PAGE as u64;
/// Pages that, with their records, fit into a core's own cache: what the instructions cost.
const NEAR: u64 = 128;
/// Above 1 GiB by what the watermarks keep free and the metadata takes.
const MEMORY: u64 = GIB + 256 * MIB;

/// Independent keys: the CPU may begin the next page before this one's bytes have come.
fn independent(file: &File, pages: u64, mut keys: Keys) -> impl FnMut(usize) {
    move |n| {
        let mut sum = 0u64;
        for _ in 0..n {
            let k = keys.next();
            let page = file
                .page(PageNo(page_of(k, pages)))
                .expect("a resident page");
            sum = sum.wrapping_add(touch(&page, offset_of(k, PAGE)));
        }
        black_box(sum);
    }
}

/// Dependent keys: the next page follows from this one's bytes.
fn dependent(file: &File, mut keys: Keys) -> impl FnMut(usize) {
    let mut k = keys.next();
    move |n| {
        for _ in 0..n {
            let page = file
                .page(PageNo(page_of(k, PAGES)))
                .expect("a resident page");
            let word = touch(&page, offset_of(k, PAGE));
            k = mix(k ^ word);
        }
        black_box(k);
    }
}

fn plain_independent(memory: &[u8], mut keys: Keys) -> impl FnMut(usize) {
    move |n| {
        let mut sum = 0u64;
        for _ in 0..n {
            let k = keys.next();
            let at = page_of(k, PAGES) as usize * PAGE + offset_of(k, PAGE);
            sum = sum.wrapping_add(touch(memory, at));
        }
        black_box(sum);
    }
}

fn plain_dependent(memory: &[u8], mut keys: Keys) -> impl FnMut(usize) {
    let mut k = keys.next();
    move |n| {
        for _ in 0..n {
            let at = page_of(k, PAGES) as usize * PAGE + offset_of(k, PAGE);
            k = mix(k ^ touch(memory, at));
        }
        black_box(k);
    }
}

/// The keys alone.
fn generator(length: Duration, seed: u64) -> f64 {
    ns_per_op(1, length, |_| {
        let mut keys = Keys::new(seed, 0);
        move |n| {
            let mut sum = 0u64;
            for _ in 0..n {
                let k = keys.next();
                sum = sum.wrapping_add(page_of(k, PAGES) ^ offset_of(k, PAGE) as u64);
            }
            black_box(sum);
        }
    })
}

/// The row.
pub fn run(bench: &mut Bench, group: &'static str) -> Outcome<Vec<Row>> {
    let path = bench.place.file("data", GIB)?;
    let (cache, file) = resident(&path, MEMORY, GIB)?;
    let plain = Plain::new(GIB as usize)?;
    let (bytes, file) = (plain.bytes(), &file);
    let (rounds, length) = bench.args.memory_rounds();
    let before = misses(&cache);
    let mut own: [Vec<f64>; 4] = Default::default();
    let mut peer: [Vec<f64>; 4] = Default::default();
    let (mut keys_cost, mut near) = (Vec::new(), Vec::new());
    for round in 0..rounds as u64 {
        let seed = bench.args.seed ^ round << 32;
        let keys = |n: usize| Keys::new(seed, n as u64);
        keys_cost.push(generator(length / 4, seed));
        near.push(ns_per_op(1, length, |n| independent(file, NEAR, keys(n))));
        for threads in [1, 2] {
            let i = threads - 1;
            own[i].push(ns_per_op(threads, length, |n| {
                independent(file, PAGES, keys(n))
            }));
            peer[i].push(ns_per_op(threads, length, |n| {
                plain_independent(bytes, keys(n))
            }));
            own[i + 2].push(ns_per_op(threads, length, |n| dependent(file, keys(n))));
            peer[i + 2].push(ns_per_op(threads, length, |n| {
                plain_dependent(bytes, keys(n))
            }));
        }
    }
    let held = missed(&cache, before)?;
    let cost = crate::sample::Spread::of(&keys_cost).median;
    let expects = [
        &expect::HIT_1,
        &expect::HIT_2,
        &expect::HIT_DEPENDENT_1,
        &expect::HIT_DEPENDENT_2,
    ];
    let mut rows: Vec<Row> = (expects.into_iter().zip(own).zip(peer))
        .map(|((expect, own), peer)| Row::new(group, expect, own).peer("plain memory", peer))
        .collect();
    let note = format!(
        "1 GiB resident in a budget of {} MiB, {held}; 8 bytes at a random multiple of 8; the key costs {cost:.2} ns of it (not subtracted); threads pinned, time as each thread sees it, less its waits for a CPU that another program had; plain memory: the same 8 bytes of 1 GiB on huge pages, the bound",
        MEMORY / MIB
    );
    rows[0].notes.push(note);
    rows.push(Row::new(group, &expect::HIT_NEAR, near));
    Ok(rows)
}
