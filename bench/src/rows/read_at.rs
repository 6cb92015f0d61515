//! `read_at` of resident pages against `pread` of a file in the kernel's page cache.

use super::{Bench, GIB, MIB, PAGE, missed, misses, resident};
use crate::Outcome;
use crate::expect::{self, Expect};
use crate::keys::{Keys, page_of};
use crate::row::Row;
use crate::threads::ns_per_op;
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes that this process has read from disks.
fn bytes_from_disk() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("read_bytes: "));
    line.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// The file, all of it in the kernel's page cache.
fn cached(path: &Path, len: u64) -> Outcome<File> {
    let file = File::open(path)?;
    let mut buffer = vec![0; MIB as usize];
    for _ in 0..2 {
        for at in (0..len).step_by(buffer.len()) {
            file.read_exact_at(&mut buffer, at)?;
        }
    }
    Ok(file)
}

/// Where to read `size` bytes: a random multiple of `size`, so that both sides read one page.
fn place(keys: &mut Keys, len: u64, size: usize) -> u64 {
    page_of(keys.next(), len / size as u64) * size as u64
}

fn size_of_file(
    bench: &Bench,
    group: &str,
    len: u64,
    works: [(&Expect, usize); 2],
) -> Outcome<Vec<Row>> {
    let path = bench.place.file("data", GIB)?;
    let (cache, own_file) = resident(&path, len + len / 4, len)?;
    let kernel_file = cached(&path, len)?;
    let (own_file, kernel_file) = (&own_file, &kernel_file);
    let (rounds, length) = bench.args.memory_rounds();
    let (before, disk) = (misses(&cache), bytes_from_disk());
    let mut sides: [[Vec<f64>; 2]; 2] = Default::default();
    for round in 0..rounds as u64 {
        let seed = bench.args.seed ^ round << 32;
        for (sides, (_, size)) in sides.iter_mut().zip(works) {
            sides[0].push(ns_per_op(1, length, |n| {
                let (mut keys, mut buffer) = (Keys::new(seed, n as u64), vec![0; size]);
                move |ops| {
                    for _ in 0..ops {
                        let at = place(&mut keys, len, size);
                        own_file.read_at(&mut buffer, at).expect("a resident page");
                        black_box(&buffer);
                    }
                }
            }));
            sides[1].push(ns_per_op(1, length, |n| {
                let (mut keys, mut buffer) = (Keys::new(seed, n as u64), vec![0; size]);
                move |ops| {
                    for _ in 0..ops {
                        let at = place(&mut keys, len, size);
                        kernel_file.read_at(&mut buffer, at).expect("a cached page");
                        black_box(&buffer);
                    }
                }
            }));
        }
    }
    let held = missed(&cache, before)?;
    let from_disk = bytes_from_disk() - disk;
    Ok((works.into_iter().zip(sides))
        .map(|((expect, size), [own, peer])| {
            let row = Row::new(group, expect, own).peer("pread", peer);
            if size == PAGE {
                row.note(format!("{held}; the process read {from_disk} bytes from disk meanwhile; random multiples of the size; 1 pinned thread; both sides copy into the same kind of buffer"))
            } else {
                row
            }
        })
        .collect())
}

/// The row.
pub fn run(bench: &mut Bench, group: &'static str) -> Outcome<Vec<Row>> {
    let small = [(&expect::READ_4K_256M, PAGE), (&expect::READ_64_256M, 64)];
    let large = [(&expect::READ_4K_1G, PAGE), (&expect::READ_64_1G, 64)];
    let mut rows = size_of_file(bench, group, 256 * MIB, small)?;
    rows.extend(size_of_file(bench, group, GIB, large)?);
    Ok(rows)
}
