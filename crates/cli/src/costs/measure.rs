//! `highwater costs`: measures the table on the real engine, in this process, on threads and a temporary file.
//!
//! Each figure is the median of `ROUNDS` rounds, with its lowest and highest. CPU figures of work that others wait for
//! (scan, submit, complete) are CPU time of the thread that does it, over the engine's own counters; a figure is a rest
//! after the figures above it are taken off, and 0 where nothing is left.

use super::CostTable;
use super::wake::{cpus, late, ping_pong, unpark};
use crate::args::CostsArgs;
use crate::cpu::{self, of_threads as cpu_of};
use crate::error::{CliError, Result};
use crate::place;
use crate::plan::PlanTask;
use crate::rng::Rng;
use crate::scenario::Kind;
use crate::target::{Handle, OpError, WorldHost};
use crate::tasks::{self, Window};
use highwater::{
    BlockOptions, Cache, DirectIo, Error, Event, File, FileDevice, IoEngine, OpenOptions, OsWorld,
    PageNo,
};
use highwater_engine::io::IoBuf;
use highwater_engine::world::{Device, Nanos, World};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rounds of each figure.
const ROUNDS: usize = 9;
/// Budget of the cache in which pages are missed.
const MEMORY: u64 = 64 << 20;
/// Budget of the cache in which they are hit: large, so that its pages lie in memory and not in the CPU's caches.
const HOT_MEMORY: u64 = 256 << 20;
/// The file that fits into it, in pages; with all of them dirty the flusher still sleeps (25 % of the budget).
const HOT_PAGES: u64 = 15_000;
/// The file that does not.
const COLD_PAGES: u64 = 65_536;
/// Bytes of one write of a stream.
const STREAM_IO: u64 = 64 << 10;
const PAGE: u64 = 4_096;

/// A figure: the median of its rounds, and how far they went apart.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
struct Figure {
    median_ns: u64,
    min_ns: u64,
    max_ns: u64,
}

impl Figure {
    fn of(rounds: &mut [f64]) -> Figure {
        rounds.sort_by(f64::total_cmp);
        let at = |i: usize| rounds[i].round().max(0.0) as u64;
        Figure {
            median_ns: at(rounds.len() / 2),
            min_ns: at(0),
            max_ns: at(rounds.len() - 1),
        }
    }

    fn measure(mut round: impl FnMut() -> Result<f64>) -> Result<Figure> {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push(round()?);
        }
        Ok(Figure::of(&mut rounds))
    }
}

pub(super) fn failed(e: Error) -> CliError {
    CliError::failed(
        format!("costs: {e}"),
        "another --dir, on a disk that takes O_DIRECT",
    )
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = values.collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Nanoseconds of each of `n` calls.
fn each(n: u64, mut f: impl FnMut(u64) -> std::result::Result<(), Error>) -> Result<f64> {
    let begin = Instant::now();
    for i in 0..n {
        f(i).map_err(failed)?;
    }
    Ok(begin.elapsed().as_nanos() as f64 / n as f64)
}

/// CPU time of the calling thread.
fn thread_cpu() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// What the rounds work on.
struct Bench {
    cache: Cache,
    _hot_cache: Cache,
    hot: File,
    cold: File,
    rng: Rng,
}

impl Bench {
    fn new(dir: &std::path::Path) -> Result<Bench> {
        let build = |memory| Cache::builder().memory(memory).build().map_err(failed);
        let (cache, hot_cache) = (build(MEMORY)?, build(HOT_MEMORY)?);
        let open = |cache: &Cache, name: &str, pages: u64| {
            let path = dir.join(name);
            place::lay_out(&path, pages * PAGE, false)?;
            let options = OpenOptions::new().read(true).write(true);
            cache.open(&path, options).map_err(failed)
        };
        let hot = open(&hot_cache, "hot.data", HOT_PAGES)?;
        let cold = open(&cache, "cold.data", COLD_PAGES)?;
        Ok(Bench {
            cache,
            _hot_cache: hot_cache,
            hot,
            cold,
            rng: Rng::new(1, 0),
        })
    }

    fn count(&self, event: Event) -> f64 {
        let events = self.cache.stats().events;
        let all: BTreeMap<&str, u64> = events.into_iter().collect();
        all.get(event.name()).copied().unwrap_or(0) as f64
    }

    /// Brings the small file into memory.
    fn warm(&self) -> Result<()> {
        let mut buf = vec![0; PAGE as usize];
        each(HOT_PAGES, |i| {
            self.hot.read_at(&mut buf, i * PAGE).map(drop)
        })
        .map(drop)
    }

    fn hit(&mut self) -> Result<f64> {
        self.warm()?;
        let (hot, rng) = (&self.hot, &mut self.rng);
        each(100_000, |_| {
            std::hint::black_box(&hot.page(PageNo(rng.below(HOT_PAGES)))?[0]);
            Ok(())
        })
    }

    fn read(&mut self) -> Result<f64> {
        self.warm()?;
        let (hot, rng) = (&self.hot, &mut self.rng);
        let mut buf = vec![0; PAGE as usize];
        each(50_000, |_| {
            hot.read_at(&mut buf, rng.below(HOT_PAGES) * PAGE).map(drop)
        })
    }

    /// Writes of pages in memory, each the first since the last sync or a later one; the throttle has no say.
    fn write(&mut self) -> Result<f64> {
        self.warm()?;
        let (hot, rng) = (&self.hot, &mut self.rng);
        let buf = vec![1; PAGE as usize];
        let ns = each(20_000, |_| hot.write_at(&buf, rng.below(HOT_PAGES) * PAGE))?;
        hot.sync_data().map_err(failed)?;
        Ok(ns)
    }

    /// Random reads of clean pages that are not in memory: CPU of the reader per miss, and of kswapd per page scanned.
    fn misses(&mut self) -> Result<[f64; 3]> {
        let events = [
            Event::Misses,
            Event::PgscanKswapd,
            Event::Allocstall,
            Event::AllocStallNs,
            Event::PgscanDirect,
        ];
        let before = events.map(|e| self.count(e));
        let (cpu, kswapd) = (thread_cpu(), cpu_of("kswapd"));
        let (cold, rng) = (&self.cold, &mut self.rng);
        let mut buf = vec![0; PAGE as usize];
        each(8_000, |_| {
            cold.read_at(&mut buf, rng.below(COLD_PAGES) * PAGE)
                .map(drop)
        })?;
        let (cpu, kswapd) = (thread_cpu() - cpu, cpu_of("kswapd") - kswapd);
        let mut n = events.map(|e| self.count(e));
        n.iter_mut().zip(before).for_each(|(n, b)| *n -= b);
        let [misses, scanned, stalls, stall_ns, scanned_direct] = n;
        let scan = kswapd as f64 / scanned.max(1.0);
        let own = cpu.as_nanos() as f64 / misses.max(1.0);
        let slow = (stall_ns - scanned_direct * scan) / stalls.max(1.0);
        Ok([own, scan, if stalls > 0.0 { slow } else { f64::NAN }])
    }

    /// Blocks of 2 MiB out of a cache full of single pages: the caller's CPU for each page that it moves.
    fn moves(&mut self, scan_ns: u64) -> Result<f64> {
        let events = [Event::PgmigrateSuccess, Event::PgscanDirect];
        let (mut cpu, mut n) = (Duration::ZERO, [0.0; 2]);
        for _ in 0..4 {
            // Memory is in pieces again.
            let (cold, rng) = (&self.cold, &mut self.rng);
            let mut buf = vec![0; PAGE as usize];
            each(2_000, |_| {
                cold.read_at(&mut buf, rng.below(COLD_PAGES) * PAGE)
                    .map(drop)
            })?;
            let before = events.map(|e| self.count(e));
            let begin = thread_cpu();
            let block = self.cache.alloc_block(9, BlockOptions::thp());
            cpu += thread_cpu() - begin;
            match block {
                Ok(_) | Err(Error::NoBlock { .. }) => {}
                Err(e) => return Err(failed(e)),
            }
            for ((n, e), b) in n.iter_mut().zip(events).zip(before) {
                *n += self.count(e) - b;
            }
        }
        let [moved, scanned] = n;
        Ok((cpu.as_nanos() as f64 - scanned * scan_ns as f64) / moved.max(1.0))
    }

    /// Writes in order of pages that are not in memory: the writer's CPU per page; the flusher's per page; pages in a
    /// request.
    fn stream(&mut self, scan_ns: u64) -> Result<Stream> {
        let events = [
            Event::WrittenFlusher,
            Event::WriteRequests,
            Event::PgscanDirect,
        ];
        let before = events.map(|e| self.count(e));
        let (cpu, flusher) = (thread_cpu(), cpu_of("flush-"));
        let cold = &self.cold;
        let buf = vec![1; STREAM_IO as usize];
        let writes = COLD_PAGES * PAGE / STREAM_IO;
        each(writes, |i| cold.write_at(&buf, i * STREAM_IO))?;
        let (cpu, flusher) = (thread_cpu() - cpu, cpu_of("flush-") - flusher);
        let mut n = events.map(|e| self.count(e));
        n.iter_mut().zip(before).for_each(|(n, b)| *n -= b);
        let [written, requests, scanned] = n;
        self.cold.sync_data().map_err(failed)?;
        Ok(Stream {
            writer: (cpu.as_nanos() as f64 - scanned * scan_ns as f64) / COLD_PAGES as f64,
            flusher: flusher as f64 / written.max(1.0),
            pages: written / requests.max(1.0),
        })
    }

    /// Random writes: the flusher's CPU per request it writes, and pages in a request.
    fn writes(&mut self) -> Result<[f64; 2]> {
        let (requests, cpu) = (self.count(Event::WriteRequests), cpu_of("flush-"));
        let pages = self.count(Event::WrittenFlusher);
        let (cold, rng) = (&self.cold, &mut self.rng);
        let buf = vec![1; PAGE as usize];
        each(32_000, |_| {
            cold.write_at(&buf, rng.below(COLD_PAGES) * PAGE)
        })?;
        let requests = (self.count(Event::WriteRequests) - requests).max(1.0);
        let cpu = cpu_of("flush-") - cpu;
        let pages = self.count(Event::WrittenFlusher) - pages;
        self.cold.sync_data().map_err(failed)?;
        Ok([cpu as f64 / requests, pages / requests])
    }
}

/// CPU of the machine that this process has not had: interrupts and the kernel's own threads, if nothing else runs.
struct Kernel {
    begin: Instant,
    idle_ns: Option<f64>,
    own_ns: u64,
}

impl Kernel {
    fn begin() -> Kernel {
        Kernel {
            begin: Instant::now(),
            idle_ns: cpu::machine_idle_ns(),
            own_ns: cpu::of_threads(""),
        }
    }

    /// Nanoseconds since; 0 where it cannot be known.
    fn since(&self) -> f64 {
        let (Some(before), Some(now)) = (self.idle_ns, cpu::machine_idle_ns()) else {
            return 0.0;
        };
        let elapsed = self.begin.elapsed().as_nanos() as f64;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let busy = cpu::busy_ns(elapsed, cpus, now - before);
        (busy - (cpu::of_threads("") - self.own_ns) as f64).max(0.0)
    }
}

/// What streams of writes cost, in nanoseconds of CPU.
struct Stream {
    writer: f64,
    flusher: f64,
    pages: f64,
}

/// A device of the OS world without a cache before it.
struct Raw {
    device: FileDevice,
    _world: Arc<OsWorld>,
}

impl Raw {
    fn new(path: &std::path::Path) -> Result<Raw> {
        let world = OsWorld::new(IoEngine::Auto).map_err(failed)?;
        let file = std::fs::File::open(path)
            .map_err(|e| CliError::os(path.display(), e, "another --dir"))?;
        let device = FileDevice::new(&world, path, file.into(), false, DirectIo::Auto);
        Ok(Raw {
            device: device.map_err(failed)?,
            _world: world,
        })
    }

    /// CPU of the calling thread for one read of a page.
    fn syscall(&self) -> Result<f64> {
        const READS: u64 = 1_000;
        let mut page = Aligned([0; PAGE as usize]);
        let cpu = thread_cpu();
        for i in 0..READS {
            let buf = IoBuf {
                ptr: page.0.as_mut_ptr(),
                len: page.0.len(),
            };
            let at = i * 7 % COLD_PAGES * PAGE;
            self.device.read_now(at, &[buf]).map_err(|e| {
                CliError::failed(format!("costs: {e}"), "another --dir, on another disk")
            })?;
        }
        Ok((thread_cpu() - cpu).as_nanos() as f64 / READS as f64)
    }
}

/// As O_DIRECT wants it.
#[repr(align(4096))]
struct Aligned([u8; PAGE as usize]);

/// A file that costs nothing.
#[derive(Clone)]
struct Nothing;

impl Handle for Nothing {
    fn len(&self) -> u64 {
        HOT_PAGES * PAGE
    }
    fn page_size(&self) -> usize {
        PAGE as usize
    }
    fn read_at(&self, buf: &mut [u8], _: u64) -> std::result::Result<(), OpError> {
        std::hint::black_box(buf);
        Ok(())
    }
    fn write_at(&self, _: &[u8], _: u64) -> std::result::Result<(), OpError> {
        Ok(())
    }
    fn touch(&self, page: u64) -> std::result::Result<u64, OpError> {
        Ok(page)
    }
    fn touch_mut(&self, _: u64, _: &[u8]) -> std::result::Result<(), OpError> {
        Ok(())
    }
    fn sync(&self) -> std::result::Result<(), OpError> {
        Ok(())
    }
}

/// What a scenario's task does itself for one operation.
fn task(world: &Arc<OsWorld>) -> Result<f64> {
    let task = PlanTask {
        name: "costs".into(),
        kind: Kind::RandomRead,
        file: 0,
        threads: 1,
        io: PAGE,
        rate: None,
        think_ns: 0,
        write_share: 0.0,
        exponent: 0.99,
        fsync_every: None,
        blocks: None,
        replay: None,
    };
    let start = world.now();
    let span = Nanos::from_millis(20);
    let window = Window {
        start,
        end: start.plus(span),
        ops: None,
        count: Arc::default(),
    };
    let host = WorldHost(world.clone());
    let tally = tasks::run(&host, &Nothing, &task, 1, 0, &window);
    Ok(span.0 as f64 / tally.ops.max(1) as f64)
}

/// All figures, by the table's names.
fn measure(dir: &std::path::Path) -> Result<Vec<(&'static str, Figure)>> {
    let progress = |what: &str| eprintln!("costs: {what}");
    let mut bench = Bench::new(dir)?;
    progress("hits and copies");
    let hit = Figure::measure(|| bench.hit())?;
    let read = Figure::measure(|| bench.read())?;
    let write = Figure::measure(|| bench.write())?;
    progress("the system call alone");
    let raw = Raw::new(&dir.join("cold.data"))?;
    let syscall = Figure::measure(|| raw.syscall())?;
    progress("reads that miss, and reclaim");
    let mut rounds = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (all, one) in rounds.iter_mut().zip(bench.misses()?) {
            all.push(one);
        }
    }
    let [mut own, mut scan, mut slow] = rounds;
    let scan = Figure::of(&mut scan);
    progress("blocks of frames, and compaction");
    let mut moves = Vec::new();
    for _ in 0..ROUNDS {
        moves.push(bench.moves(scan.median_ns)?);
    }
    progress("streams of writes");
    let mut streams = Vec::new();
    for _ in 0..ROUNDS {
        streams.push(bench.stream(scan.median_ns)?);
    }
    let mut new: Vec<f64> = streams
        .iter()
        .map(|s| s.writer - write.median_ns as f64)
        .collect();
    let install = Figure::of(&mut new);
    let rest = (syscall.median_ns + read.median_ns + install.median_ns) as f64;
    own.iter_mut().for_each(|ns| *ns -= rest);
    slow.retain(|ns| ns.is_finite());
    if slow.is_empty() {
        progress("no allocation was slow: alloc_slow_ns is a look-up's");
        slow.push(hit.median_ns as f64);
    }
    let submit = Figure::of(&mut own);
    progress("random writes and the flusher");
    let mut random = Vec::new();
    let mut interrupts = Vec::new();
    for _ in 0..ROUNDS {
        let kernel = Kernel::begin();
        let requests = bench.count(Event::WriteRequests);
        random.push(bench.writes()?);
        let requests = (bench.count(Event::WriteRequests) - requests).max(1.0);
        interrupts.push(kernel.since() / requests);
    }
    let interrupt = Figure::of(&mut interrupts);
    // A request costs the flusher `each + pages x writeback`: two kinds of requests, two unknowns.
    let of_random = |i: usize| median(random.iter().map(|r| r[i]));
    let (cost, few) = (of_random(0), of_random(1));
    let mut page: Vec<f64> = streams
        .iter()
        .map(|s| (s.flusher * s.pages - cost) / (s.pages - few).max(1.0))
        .collect();
    let writeback = Figure::of(&mut page);
    let mut complete: Vec<f64> = random
        .iter()
        .map(|[ns, pages]| ns - submit.median_ns as f64 - pages * writeback.median_ns as f64)
        .collect();
    let complete = Figure::of(&mut complete);
    bench.cache.close().map_err(failed)?;

    progress("wake-ups, timers, and the tasks themselves");
    let world = OsWorld::new(IoEngine::Auto).map_err(failed)?;
    let spin = Figure::measure(|| {
        each(50_000, |_| {
            world.relax();
            Ok(())
        })
    })?;
    let cpus = cpus();
    let other = cpus.get(1).copied().unwrap_or(cpus[0]);
    let switch = Figure::measure(|| ping_pong(&world, [cpus[0]; 2]))?;
    let wake = Figure::measure(|| ping_pong(&world, [cpus[0], other]))?;
    let unpark = Figure::measure(|| unpark(&world, [cpus[0], other]))?;
    let slack = Figure::measure(|| Ok(late(&world)? - wake.median_ns as f64))?;
    let task = Figure::measure(|| task(&world))?;
    Ok(vec![
        ("hit_ns", hit),
        ("read_page_ns", read),
        ("write_page_ns", write),
        ("install_page_ns", install),
        ("scan_page_ns", scan),
        ("move_page_ns", Figure::of(&mut moves)),
        ("alloc_slow_ns", Figure::of(&mut slow)),
        ("writeback_page_ns", writeback),
        ("submit_ns", submit),
        ("complete_ns", complete),
        ("interrupt_ns", interrupt),
        ("spin_ns", spin),
        ("syscall_ns", syscall),
        ("task_ns", task),
        ("unpark_ns", unpark),
        ("wake_ns", wake),
        ("switch_ns", switch),
        ("timer_slack_ns", slack),
    ])
}

/// Where the table was measured.
fn machine() -> [(&'static str, String); 5] {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name"));
    let git = std::process::Command::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .output();
    let commit = git.ok().filter(|o| o.status.success());
    [
        (
            "machine",
            format!(
                "{} CPUs, {}",
                cpus().len(),
                model.map_or("unknown", |m| m.trim_start_matches([' ', '\t', ':']))
            ),
        ),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().into()),
        // Above the number of CPUs: others ran meanwhile, and wake-ups look slower than they are.
        ("load", read("/proc/loadavg").trim().into()),
        (
            "commit",
            commit.map_or("unknown".into(), |o| {
                String::from_utf8_lossy(&o.stdout).trim().into()
            }),
        ),
        ("version", env!("CARGO_PKG_VERSION").into()),
    ]
}

/// The table as a file.
fn to_toml(figures: &[(&str, Figure)]) -> String {
    let mut text = String::from(
        "# What the engine's work costs, in nanoseconds: measured by `highwater costs`, read by `--costs`.\n",
    );
    for (name, value) in machine() {
        let _ = writeln!(text, "# {name}: {value}");
    }
    let _ = writeln!(
        text,
        "# median of {ROUNDS} rounds; behind it the lowest and the highest\n"
    );
    for (name, f) in figures {
        let line = format!("{name} = {}", f.median_ns);
        let _ = writeln!(text, "{line:<24}# {}..{}", f.min_ns, f.max_ns);
    }
    text
}

/// Measures, and prints the table.
///
/// # Errors
/// What the disk or the engine answers.
pub fn run(args: &CostsArgs) -> Result<()> {
    crate::cleanup::watch_signals();
    let place = place::make(args.dir.as_deref())?;
    let figures = measure(&place.dir)?;
    let text = to_toml(&figures);
    // What is written can be read.
    CostTable::load("the measured table", &text)?;
    let out = if args.json {
        let map: BTreeMap<&str, Figure> = figures.into_iter().collect();
        let json = serde_json::to_string_pretty(&map)
            .map_err(|e| CliError::failed(e.to_string(), "report this as a bug"))?;
        json + "\n"
    } else {
        text.clone()
    };
    crate::print(&out);
    if let Some(path) = &args.out {
        std::fs::write(path, &text).map_err(|e| {
            CliError::os(path.display(), e, "--out with a file that you may write to")
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_its_median_and_never_below_nothing() {
        let f = Figure::of(&mut [5.0, -3.0, 4.6]);
        assert_eq!((f.median_ns, f.min_ns, f.max_ns), (5, 0, 5));
    }

    #[test]
    fn each_row_of_the_table_is_written_and_read_back() {
        let names = CostTable::default().rows().map(|(name, _)| name);
        let figures: Vec<(&str, Figure)> = names
            .iter()
            .enumerate()
            .map(|(i, name)| (*name, Figure::of(&mut [i as f64 + 1.0])))
            .collect();
        let back = CostTable::load("t", &to_toml(&figures)).unwrap();
        let values = back.rows().map(|(_, ns)| ns);
        assert_eq!(values, std::array::from_fn(|i| i as u64 + 1));
    }
}
