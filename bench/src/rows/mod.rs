//! The rows, by the name that selects them.

mod hit;
mod journaled;
mod miss;
mod peers;
mod read_at;
mod scenario;
mod sequential;

use crate::Outcome;
use crate::args::Args;
use crate::place::Place;
use crate::row::Row;
use highwater::{Cache, File, OpenOptions, PageNo};
use std::path::{Path, PathBuf};

/// Bytes of a page: the default frame.
const PAGE: usize = 4096;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Rows that are measured together.
pub struct Group {
    /// Selects it.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// Needs the command, and for the peer a cgroup.
    pub scenario: bool,
    /// Measures it; an error says why it could not be.
    pub run: fn(&mut Bench, &'static str) -> Outcome<Vec<Row>>,
}

const fn group(
    name: &'static str,
    about: &'static str,
    run: fn(&mut Bench, &'static str) -> Outcome<Vec<Row>>,
) -> Group {
    Group {
        name,
        about,
        scenario: false,
        run,
    }
}

const fn scenario(
    name: &'static str,
    about: &'static str,
    run: fn(&mut Bench, &'static str) -> Outcome<Vec<Row>>,
) -> Group {
    Group {
        name,
        about,
        scenario: true,
        run,
    }
}

/// All, in the order of the table.
pub const GROUPS: [Group; 12] = [
    group("hit", "page() on resident frames of 1 GiB", hit::run),
    group(
        "read-at",
        "read_at hits against pread of a cached file",
        read_at::run,
    ),
    group("miss", "random misses against O_DIRECT pread", miss::run),
    group(
        "sequential",
        "sequential I/O against 1 MiB O_DIRECT at depth 8",
        sequential::run,
    ),
    group(
        "journaled",
        "random writes on a journaled volume against a plain file",
        journaled::run,
    ),
    scenario(
        "random-write",
        "against Linux in a cgroup",
        scenario::against_linux,
    ),
    scenario(
        "zipf-mix",
        "against Linux in a cgroup",
        scenario::against_linux,
    ),
    scenario(
        "stream-write",
        "against Linux in a cgroup",
        scenario::against_linux,
    ),
    scenario("fits", "against Linux in a cgroup", scenario::against_linux),
    scenario(
        "slow-disk",
        "pages scanned per page reclaimed",
        scenario::slow_disk,
    ),
    scenario("rfc", "who writes pages, and peak memory", scenario::rfc),
    group("peers", "the hit path of other caches", peers::run),
];

/// What the rows share.
pub struct Bench<'a> {
    args: &'a Args,
    place: &'a Place,
    /// The command, once it is built.
    command: Option<PathBuf>,
}

impl<'a> Bench<'a> {
    /// Nothing built yet.
    pub fn new(args: &'a Args, place: &'a Place) -> Bench<'a> {
        Bench {
            args,
            place,
            command: None,
        }
    }
}

/// A cache of `memory` bytes and a file in it, with the first `len` bytes resident.
fn resident(path: &Path, memory: u64, len: u64) -> Outcome<(Cache, File)> {
    let cache = Cache::builder().memory(memory).build()?;
    let file = cache.open(path, OpenOptions::new().read(true))?;
    let mut buffer = vec![0; MIB as usize];
    for at in (0..len).step_by(buffer.len()) {
        file.read_at(&mut buffer, at)?;
    }
    // Twice by page: pages marked for readahead lose the mark, and what was evicted meanwhile comes back.
    for _ in 0..2 {
        for page in 0..len / PAGE as u64 {
            file.page(PageNo(page))?;
        }
    }
    Ok((cache, file))
}

/// Whether the pages stayed: says how often one was missed since `before`.
fn missed(cache: &Cache, before: u64) -> Outcome<String> {
    let misses = cache.stats().get("misses") - before;
    if misses > 0 {
        return Err(format!(
            "{misses} misses while hits were measured; give the cache more memory"
        )
        .into());
    }
    Ok("no miss while it was measured".into())
}

fn misses(cache: &Cache) -> u64 {
    cache.stats().get("misses")
}
