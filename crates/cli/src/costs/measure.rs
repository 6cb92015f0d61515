//! `highwater costs`: measures the table on the real engine, in this process, on threads and a temporary file.
//!
//! Each figure is the median of `ROUNDS` rounds, with its lowest and highest. Figures of single calls are timed here, those
//! of work beside them (reclaim, the flusher) come from `round.rs`.

use super::CostTable;
use super::bench::{COLD_PAGES, Cold, Hot, PAGE, each, file_device};
use super::round::Round;
use super::spread::{Spread, Spreads};
use super::wake::{late, ping_pong, unpark};
use crate::affinity::allowed;
use crate::args::CostsArgs;
use crate::cpu::of_this_thread;
use crate::error::{CliError, Result};
use crate::place;
use crate::plan::PlanTask;
use crate::raw::{Region, nearest};
use crate::scenario::Kind;
use crate::target::{Handle, OpError, WorldHost};
use crate::tasks::{self, Window};
use highwater::{Error, FileDevice, IoEngine, OsWorld};
use highwater_engine::io::IoBuf;
use highwater_engine::world::{Device, Nanos, World};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::Duration;

/// Rounds of each figure.
const ROUNDS: usize = 9;
/// Reads on each CPU, in a round.
const IPI_EACH: Duration = Duration::from_millis(60);

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

/// A device of the OS world without a cache before it.
struct Raw {
    device: FileDevice,
    _world: Arc<OsWorld>,
}

impl Raw {
    fn new(path: &std::path::Path) -> Result<Raw> {
        let world = OsWorld::new(IoEngine::Auto).map_err(failed)?;
        Ok(Raw {
            device: file_device(&world, path)?,
            _world: world,
        })
    }

    /// CPU of the calling thread for one read of a page.
    fn syscall(&self) -> Result<f64> {
        const READS: u64 = 1_000;
        let mut page = Aligned([0; PAGE as usize]);
        let cpu = of_this_thread();
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
        Ok((of_this_thread() - cpu) as f64 / READS as f64)
    }
}

/// What a read takes longer on a CPU that the disk's interrupts do not come to.
fn ipi(path: &std::path::Path) -> Result<f64> {
    let about = |e| CliError::os(path.display(), e, "another --dir, on another disk");
    let file = std::fs::File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path);
    let file = match file {
        // No disk, and no interrupts.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => return Ok(0.0),
        file => file.map_err(about)?,
    };
    let region = Region::new().map_err(about)?;
    let found = nearest(&file, COLD_PAGES * PAGE, &region, IPI_EACH).map_err(about)?;
    Ok(found.further.as_nanos() as f64)
}

/// As O_DIRECT wants it.
#[repr(align(4096))]
struct Aligned([u8; PAGE as usize]);

/// A file that costs nothing.
#[derive(Clone)]
struct Nothing;

impl Handle for Nothing {
    fn len(&self) -> u64 {
        COLD_PAGES * PAGE
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

/// What a clock adds to the time of a call between two.
fn clock() -> Result<u64> {
    let mut times = Vec::new();
    each(10_000, Some(&mut times), |_| Ok(()))?;
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// All figures, by the table's names.
fn measure(dir: &std::path::Path) -> Result<(Vec<(&'static str, Figure)>, Spreads)> {
    let progress = |what: &str| say!("costs: {what}");
    let mut hot = Hot::new(dir)?;
    progress("hits and copies");
    let hit = Figure::measure(|| hot.hit(None))?;
    let read = Figure::measure(|| hot.read(None))?;
    let write = Figure::measure(|| hot.write(None))?;
    let clock = clock()?;
    let mut spread = |calls: fn(&mut Hot, &mut Vec<u64>) -> Result<f64>| {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            calls(&mut hot, &mut times)?;
        }
        Ok(Spread::of(&mut times, clock))
    };
    let spreads = Spreads {
        hit: spread(|hot, times| hot.hit(Some(times)))?,
        read_page: spread(|hot, times| hot.read(Some(times)))?,
        write_page: spread(|hot, times| hot.write(Some(times)))?,
    };
    hot.close()?;
    progress("the system call alone");
    let path = dir.join("cold.data");
    Cold::lay_out(&path)?;
    let raw = Raw::new(&path)?;
    let syscall = Figure::measure(|| raw.syscall())?;
    progress("interrupts");
    let ipi = Figure::measure(|| ipi(&path))?;
    progress("wake-ups, timers, and the tasks themselves");
    let world = OsWorld::new(IoEngine::Auto).map_err(failed)?;
    let spin = Figure::measure(|| {
        each(50_000, None, |_| {
            world.relax();
            Ok(())
        })
    })?;
    let cpus = allowed();
    let other = cpus.get(1).copied().unwrap_or(cpus[0]);
    let switch = Figure::measure(|| ping_pong(&world, [cpus[0]; 2]))?;
    let wake = Figure::measure(|| ping_pong(&world, [cpus[0], other]))?;
    let unpark = Figure::measure(|| unpark(&world, [cpus[0], other]))?;
    let slack = Figure::measure(|| Ok(late(&world)? - wake.median_ns as f64))?;
    let task = Figure::measure(|| task(&world))?;
    progress("streams of writes, reads that miss, random writes, blocks of frames");
    let mut rounds = Vec::new();
    for i in 0..ROUNDS as u64 {
        rounds.push(Round::new(Cold::new(&path, i)?)?);
    }
    let of = |f: &dyn Fn(&Round) -> f64| {
        let mut all: Vec<f64> = rounds.iter().map(f).collect();
        Figure::of(&mut all)
    };
    let scan = of(&|r| r.scan());
    let install = of(&|r| r.install(write.median_ns, scan.median_ns, unpark.median_ns));
    let [submit, segment, writeback] = [0, 1, 2].map(|i| of(&|r| r.submit()[i]));
    let [complete, _, end] = [0, 1, 2].map(|i| of(&|r| r.complete()[i]));
    let interrupt = of(&|r| r.interrupt);
    let figures = vec![
        ("hit_ns", hit),
        ("read_page_ns", read),
        ("write_page_ns", write),
        ("install_page_ns", install),
        ("scan_page_ns", scan),
        ("move_page_ns", of(&|r| r.moving(scan.median_ns))),
        ("alloc_slow_ns", of(&|r| r.alloc_slow(scan.median_ns))),
        ("writeback_page_ns", writeback),
        ("submit_ns", submit),
        ("segment_ns", segment),
        ("complete_ns", complete),
        ("end_page_ns", end),
        ("interrupt_ns", interrupt),
        ("spin_ns", spin),
        ("syscall_ns", syscall),
        ("task_ns", task),
        ("unpark_ns", unpark),
        ("wake_ns", wake),
        ("switch_ns", switch),
        ("resched_ipi_ns", ipi),
        ("timer_slack_ns", slack),
    ];
    Ok((figures, spreads))
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
                allowed().len(),
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
fn to_toml(figures: &[(&str, Figure)], spreads: &Spreads) -> String {
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
    text.push_str("\n# How single ones lie about their mean, in % of it.\n[spread]\n");
    for (name, spread) in spreads.rows() {
        let _ = writeln!(text, "{name} = {}", spread.show());
    }
    text
}

/// The table as `--json` has it.
#[derive(Serialize)]
struct Published<'a> {
    #[serde(flatten)]
    figures: BTreeMap<&'a str, Figure>,
    spread: Spreads,
}

/// Measures, and prints the table.
///
/// # Errors
/// What the disk or the engine answers.
pub fn run(args: &CostsArgs) -> Result<()> {
    crate::cleanup::watch_signals();
    let place = place::make(args.dir.as_deref())?;
    let (figures, spreads) = measure(&place.dir)?;
    let text = to_toml(&figures, &spreads);
    // What is written can be read.
    CostTable::load("the measured table", &text)?;
    let out = if args.json {
        let published = Published {
            figures: figures.into_iter().collect(),
            spread: spreads,
        };
        let json = serde_json::to_string_pretty(&published)
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
        let spreads = Spreads {
            read_page: Spread::of(&mut [5, 7, 9], 1),
            ..Spreads::default()
        };
        let names = CostTable::default().rows().map(|(name, _)| name);
        let figures: Vec<(&str, Figure)> = names
            .iter()
            .enumerate()
            .map(|(i, name)| (*name, Figure::of(&mut [i as f64 + 1.0])))
            .collect();
        let back = CostTable::load("t", &to_toml(&figures, &spreads)).unwrap();
        assert_eq!(back.spread, spreads);
        let values = back.rows().map(|(_, ns)| ns);
        assert_eq!(values, std::array::from_fn(|i| i as u64 + 1));
    }
}
