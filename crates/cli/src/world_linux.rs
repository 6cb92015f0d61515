//! The same tasks on Linux's own page cache: `pread` and `pwrite` on threads, inside a memory cgroup.
//!
//! This file is the child's side; `linux/` is the parent's: cgroup, sysctls, tracepoints, loop device.

use crate::error::{CliError, Result};
use crate::linux::cgroup::Group;
use crate::linux::trace::{Trace, TraceSums};
use crate::measure::{Counters, measure};
use crate::plan::{Plan, PlanFile};
use crate::report::ArmReport;
use crate::samples::Reading;
use crate::target::{Handle, Host, OpError, TaskStall};
use highwater_engine::world::{Nanos, TaskBody};
use rustix::io::{Errno, ReadWriteFlags, pwritev2};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A file, or a piece of a block device, by `pread` and `pwrite`.
#[derive(Clone, Debug)]
pub struct PlainFile {
    file: Arc<File>,
    start: u64,
    len: u64,
    page_size: usize,
}

impl PlainFile {
    /// Opens the plan's file.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn open(file: &PlanFile, page_size: usize) -> Result<PlainFile> {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&file.path)
            .map_err(|e| {
                CliError::os(
                    file.path.display(),
                    e,
                    "--dir with a directory that you may write to",
                )
            })?;
        Ok(PlainFile {
            file: Arc::new(opened),
            start: file.start,
            len: file.len,
            page_size,
        })
    }

    fn at(&self, page: u64) -> u64 {
        self.start + page * self.page_size as u64
    }
}

fn failed(what: &str) -> impl Fn(std::io::Error) -> OpError + '_ {
    move |e| match e.raw_os_error() {
        Some(libc::ENOMEM) => OpError::Refused,
        _ => OpError::Failed(format!("{what}: {e}")),
    }
}

impl Handle for PlainFile {
    fn len(&self) -> u64 {
        self.len
    }
    fn page_size(&self) -> usize {
        self.page_size
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::result::Result<(), OpError> {
        self.file
            .read_exact_at(buf, self.start + offset)
            .map_err(failed("pread"))
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> std::result::Result<(), OpError> {
        self.file
            .write_all_at(buf, self.start + offset)
            .map_err(failed("pwrite"))
    }
    fn write_through(&self, buf: &[u8], offset: u64) -> std::result::Result<(), OpError> {
        let (mut rest, mut at) = (buf, self.start + offset);
        while !rest.is_empty() {
            let slices = [std::io::IoSlice::new(rest)];
            match pwritev2(&*self.file, &slices, at, ReadWriteFlags::DSYNC) {
                Ok(0) => return Err(OpError::Failed("pwritev2 wrote nothing".into())),
                Ok(n) => (rest, at) = (&rest[n..], at + n as u64),
                Err(Errno::INTR) => {}
                Err(e) => return Err(failed("pwritev2 (RWF_DSYNC)")(e.into())),
            }
        }
        Ok(())
    }
    fn touch(&self, page: u64) -> std::result::Result<u64, OpError> {
        let mut bytes = [0u8; 8];
        self.file
            .read_exact_at(&mut bytes, self.at(page))
            .map_err(failed("pread"))?;
        Ok(u64::from_le_bytes(bytes))
    }
    fn touch_mut(&self, page: u64, bytes: &[u8]) -> std::result::Result<(), OpError> {
        self.file
            .write_all_at(bytes, self.at(page))
            .map_err(failed("pwrite"))
    }
    fn sync(&self) -> std::result::Result<(), OpError> {
        self.file.sync_data().map_err(failed("fdatasync"))
    }
}

/// Plain threads and the monotonic clock.
pub struct ThreadHost(Instant);

impl ThreadHost {
    /// A clock that starts now.
    pub fn new() -> ThreadHost {
        ThreadHost(Instant::now())
    }
}

impl Host for ThreadHost {
    type Id = JoinHandle<()>;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
    fn sleep_until(&self, until: Nanos) {
        let now = self.now();
        if until > now {
            std::thread::sleep(Duration::from_nanos(until.0 - now.0));
        }
    }
    fn spawn(&self, name: &str, body: TaskBody) -> Result<Self::Id> {
        std::thread::Builder::new()
            .name(name.to_string())
            .spawn(body)
            .map_err(|e| {
                CliError::os(
                    format!("thread {name}"),
                    e,
                    "fewer threads in the scenario, or a higher `ulimit -u`",
                )
            })
    }
    fn join(&self, id: Self::Id, until: Nanos) -> bool {
        while !id.is_finished() {
            if self.now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        id.join().is_ok()
    }
    fn stall(&self) -> TaskStall {
        TaskStall::default()
    }
    fn reset_longest(&self) {}
}

/// The names of `/proc/vmstat` that a Linux arm reports. They are the whole machine's: little else should run.
const VMSTAT: [&str; 6] = [
    "nr_dirtied",
    "nr_written",
    "nr_vmscan_write",
    "nr_vmscan_immediate_reclaim",
    "balance_dirty_pause",
    "workingset_refault_file",
];

fn counters(group: &Group) -> Counters {
    let mut counters = Counters::new();
    let vmstat = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let pick = |line: &str| -> Option<(String, u64)> {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_string(), value.trim().parse().ok()?))
    };
    counters.extend(
        vmstat
            .lines()
            .filter_map(pick)
            .filter(|(n, _)| VMSTAT.contains(&n.as_str())),
    );
    for (name, value) in group.stat().lines().filter_map(pick) {
        let wanted = [
            "workingset_refault_file",
            "pgscan",
            "pgsteal",
            "pgscan_direct",
            "pgscan_kswapd",
            "pgsteal_direct",
            "pgsteal_kswapd",
            "pgmajfault",
        ];
        if wanted.contains(&name.as_str()) {
            counters.insert(name, value);
        }
    }
    counters
}

/// Runs the arm in this process, which moves into the plan's cgroup.
///
/// # Errors
/// A task's failure, or what the cgroup answers.
pub fn run(plan: &Plan, trace_dir: Option<&Path>) -> Result<ArmReport> {
    let Some(path) = &plan.cgroup else {
        return Err(CliError::failed(
            "a Linux arm without a cgroup",
            "`highwater run --world linux`",
        ));
    };
    let group = Group::existing(path);
    group.enter()?;
    let files: Vec<PlainFile> = plan
        .files
        .iter()
        .map(|f| PlainFile::open(f, 4096))
        .collect::<Result<_>>()?;
    let idle = group.usage();
    // The budget is the page cache's; what this process itself needs comes on top, as it does for the other arms.
    let own = 4 << 20;
    group.limit(plan.memory + idle + own)?;
    let mut trace = trace_dir.map(Trace::attach).transpose()?;
    let mut sums = TraceSums::default();
    let mut calls = 0;
    let (sampled, memory) = (group.clone(), plan.memory);
    let probe = Arc::new(move || Reading::of_cgroup(&sampled.stat(), memory));
    let snapshot = || {
        calls += 1;
        if let Some(trace) = &mut trace {
            match calls {
                1 => trace.start(),
                _ => sums = trace.stop(),
            }
        }
        counters(&group)
    };
    let host = Arc::new(ThreadHost::new());
    let mut report = measure(plan, &host, &files, snapshot, probe)?;
    fill(&mut report, trace.is_some().then_some(&sums));
    report.idle_rss_bytes = Some(idle + own);
    report.peak_rss_bytes = Some(group.peak()).filter(|n| *n > 0);
    Ok(report)
}

/// What the counters and the tracepoints say, in the report's fields; what cannot be known stays null.
fn fill(report: &mut ArmReport, sums: Option<&TraceSums>) {
    let count = |report: &ArmReport, name: &str| report.count(name);
    report.refaults = count(report, "workingset_refault_file");
    report.written_pages.flusher = count(report, "nr_written")
        .map(|n| n.saturating_sub(count(report, "nr_vmscan_write").unwrap_or(0)));
    report.written_pages.direct = count(report, "nr_vmscan_write");
    report.stall_s.longest = None;
    if let Some(sums) = sums {
        report.stall_s.alloc = Some(sums.reclaim_ns as f64 / 1e9);
        report.stall_s.throttle = Some(sums.pause_ns as f64 / 1e9);
        report.stall_s.longest = Some(sums.longest_ns as f64 / 1e9);
        report.vmstat.insert("pgscan_direct".into(), sums.scanned);
        report
            .vmstat
            .insert("pgsteal_direct".into(), sums.reclaimed);
        report.vmstat.insert("allocstall".into(), sums.reclaims);
        report
            .vmstat
            .insert("allocstall_ns".into(), sums.reclaim_ns);
        report
            .vmstat
            .insert("balance_dirty_pause_ns".into(), sums.pause_ns);
        report.vmstat.insert("trace_events_lost".into(), sums.lost);
    }
}
