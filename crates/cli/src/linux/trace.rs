//! The kernel's own account of reclaim and throttling: tracepoints of vmscan and writeback, in an instance of our own.
//!
//! The parent makes the instance (its buffers are then not charged to the group); the child that is measured turns it
//! on for the measured time, for its own threads only, and adds the events up afterwards.
//!
//! **Kernel.** include/trace/events/vmscan.h, writeback.h; Documentation/trace/ftrace.rst.

use super::read;
use crate::cleanup::{Undo, undo};
use crate::error::{CliError, Result};
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// What the tracepoints add up to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TraceSums {
    /// Time inside reclaim, all threads.
    pub reclaim_ns: u64,
    /// Time paused by the writers' throttle.
    pub pause_ns: u64,
    /// The longest single one of either.
    pub longest_ns: u64,
    /// Entries into reclaim.
    pub reclaims: u64,
    /// Pages scanned.
    pub scanned: u64,
    /// Pages reclaimed.
    pub reclaimed: u64,
    /// Events that the buffer had no room for: above 0, the sums are lower bounds.
    pub lost: u64,
}

const EVENTS: [&str; 6] = [
    "vmscan/mm_vmscan_memcg_reclaim_begin",
    "vmscan/mm_vmscan_memcg_reclaim_end",
    "vmscan/mm_vmscan_direct_reclaim_begin",
    "vmscan/mm_vmscan_direct_reclaim_end",
    "vmscan/mm_vmscan_lru_shrink_inactive",
    "writeback/balance_dirty_pages",
];

/// Makes an instance with the events enabled and tracing off; mounts tracefs if nobody has.
pub fn create() -> std::result::Result<(PathBuf, Vec<Undo>), String> {
    let mut guards = Vec::new();
    let root = match ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .iter()
        .find(|d| Path::new(d).join("events/vmscan").exists())
    {
        Some(root) => PathBuf::from(root),
        None => {
            let root = PathBuf::from("/sys/kernel/tracing");
            rustix::mount::mount(
                "none",
                &root,
                "tracefs",
                rustix::mount::MountFlags::empty(),
                None,
            )
            .map_err(|e| format!("tracefs is not mounted and cannot be: {e}"))?;
            let mounted = root.clone();
            guards.push(undo(move || {
                let _ = rustix::mount::unmount(&mounted, rustix::mount::UnmountFlags::DETACH);
            }));
            root
        }
    };
    let dir = root
        .join("instances")
        .join(format!("highwater-{}", std::process::id()));
    std::fs::create_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let gone = dir.clone();
    guards.push(undo(move || {
        let _ = std::fs::remove_dir(&gone);
    }));
    let set = |name: &str, text: &str| {
        std::fs::write(dir.join(name), text).map_err(|e| format!("{name}: {e}"))
    };
    set("tracing_on", "0")?;
    set("trace_clock", "mono")?;
    set("buffer_size_kb", "16384")?;
    set("options/event-fork", "1")?;
    for event in EVENTS {
        set(&format!("events/{event}/enable"), "1")?;
    }
    Ok((dir, guards))
}

/// The child's hold on the instance.
pub struct Trace {
    dir: PathBuf,
}

impl Trace {
    /// Restricts the instance to this process and the threads it starts from now on.
    ///
    /// # Errors
    /// Without the right to.
    pub fn attach(dir: &Path) -> Result<Trace> {
        super::write(&dir.join("set_event_pid"), &std::process::id().to_string())?;
        Ok(Trace {
            dir: dir.to_path_buf(),
        })
    }

    fn switch(&self, on: &str) {
        if let Err(e) = std::fs::write(self.dir.join("tracing_on"), on) {
            say!(
                "highwater: {}: {e}",
                CliError::os("tracing_on", &e, "run as root")
            );
        }
    }

    /// From now on.
    pub fn start(&mut self) {
        self.switch("1");
    }

    /// Until now; the sums.
    pub fn stop(&mut self) -> TraceSums {
        self.switch("0");
        let mut sums = match std::fs::File::open(self.dir.join("trace")) {
            Ok(file) => add_up(BufReader::new(file)),
            Err(_) => TraceSums::default(),
        };
        sums.lost = self.lost();
        sums
    }

    fn lost(&self) -> u64 {
        let Ok(cpus) = std::fs::read_dir(self.dir.join("per_cpu")) else {
            return 0;
        };
        let overrun = |text: String| -> u64 {
            let line = text
                .lines()
                .find_map(|l| l.strip_prefix("overrun:").map(str::to_string));
            line.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
        };
        cpus.flatten()
            .filter_map(|cpu| read(&cpu.path().join("stats")).ok())
            .map(overrun)
            .sum()
    }
}

/// One line of `trace`: ` name-tid [cpu] flags seconds.micros: event: fields`.
struct Line<'a> {
    tid: u32,
    at_ns: u64,
    event: &'a str,
    fields: &'a str,
}

fn parse(line: &str) -> Option<Line<'_>> {
    // A thread's name may hold anything; the CPU has three digits or more.
    let is_cpu = |at: usize| {
        let digits = line[at + 2..]
            .bytes()
            .take_while(u8::is_ascii_digit)
            .count();
        digits >= 3 && line[at + 2 + digits..].starts_with(']')
    };
    let bracket = line
        .match_indices(" [")
        .map(|(at, _)| at)
        .find(|at| is_cpu(*at))?;
    let tid = line[..bracket]
        .trim_end()
        .rsplit('-')
        .next()?
        .parse()
        .ok()?;
    let mut rest = line[bracket..].split_whitespace().skip(2);
    let at = rest.next()?.trim_end_matches(':');
    let (seconds, micros) = at.split_once('.')?;
    let at_ns = seconds.parse::<u64>().ok()? * 1_000_000_000 + micros.parse::<u64>().ok()? * 1_000;
    let event = rest.next()?.trim_end_matches(':');
    let fields = line.split_once(event)?.1;
    Some(Line {
        tid,
        at_ns,
        event,
        fields,
    })
}

fn field(fields: &str, name: &str) -> Option<i64> {
    let word = fields
        .split_whitespace()
        .find_map(|w| w.strip_prefix(name)?.strip_prefix('='))?;
    word.trim_end_matches(',').parse().ok()
}

/// Adds the events up. A reclaim without its beginning or its end in the buffer is left out.
fn add_up(lines: impl BufRead) -> TraceSums {
    let mut sums = TraceSums::default();
    let mut began: HashMap<u32, u64> = HashMap::new();
    for line in lines.lines().map_while(std::result::Result::ok) {
        let Some(line) = parse(&line) else { continue };
        let positive = |name: &str| field(line.fields, name).map_or(0, |n| n.max(0) as u64);
        match line.event {
            "mm_vmscan_memcg_reclaim_begin" | "mm_vmscan_direct_reclaim_begin" => {
                began.insert(line.tid, line.at_ns);
            }
            "mm_vmscan_memcg_reclaim_end" | "mm_vmscan_direct_reclaim_end" => {
                if let Some(start) = began.remove(&line.tid) {
                    let took = line.at_ns.saturating_sub(start);
                    sums.reclaims += 1;
                    sums.reclaim_ns += took;
                    sums.longest_ns = sums.longest_ns.max(took);
                }
            }
            "mm_vmscan_lru_shrink_inactive" => {
                sums.scanned += positive("nr_scanned");
                sums.reclaimed += positive("nr_reclaimed");
            }
            "balance_dirty_pages" => {
                // In milliseconds; negative when the task is let go.
                let pause = positive("pause") * 1_000_000;
                sums.pause_ns += pause;
                sums.longest_ns = sums.longest_ns.max(pause);
            }
            _ => {}
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_add_up_per_thread() {
        let text = "\
# tracer: nop
           write_at-4711    [000] .....   100.000100: mm_vmscan_memcg_reclaim_begin: order=0 gfp_flags=GFP_NOFS
           my [0] x-4712    [001] .....   100.000150: mm_vmscan_memcg_reclaim_begin: order=0 gfp_flags=GFP_NOFS
           write_at-4711    [000] .....   100.000160: mm_vmscan_lru_shrink_inactive: nid=0 nr_scanned=32 nr_reclaimed=30 nr_dirty=2 priority=12 flags=RECLAIM_WB_FILE
           write_at-4711    [000] .....   100.000300: mm_vmscan_memcg_reclaim_end: nr_reclaimed=30
           page_mut-4712    [001] .....   100.001150: mm_vmscan_memcg_reclaim_end: nr_reclaimed=0
           page_mut-4712    [001] .....   100.002000: balance_dirty_pages: bdi 254:0: limit=1 setpoint=1 dirtied=32 paused=0 pause=12 period=12 think=0 cgroup_ino=1
           page_mut-4712    [001] .....   100.003000: balance_dirty_pages: bdi 254:0: limit=1 setpoint=1 dirtied=32 paused=0 pause=-3 period=12 think=0 cgroup_ino=1
           write_at-4711    [000] .....   100.004000: mm_vmscan_memcg_reclaim_end: nr_reclaimed=9
";
        let sums = add_up(text.as_bytes());
        assert_eq!(sums.reclaims, 2, "an end without its beginning is left out");
        assert_eq!(sums.reclaim_ns, 200_000 + 1_000_000);
        assert_eq!((sums.scanned, sums.reclaimed), (32, 30));
        assert_eq!(sums.pause_ns, 12_000_000);
        assert_eq!(sums.longest_ns, 12_000_000);
    }
}
