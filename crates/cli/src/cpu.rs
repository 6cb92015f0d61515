//! How many CPUs this process has, and how much of them its threads have had.

use rustix::time::ClockId;
use std::time::Duration;

/// Of kswapd's threads.
pub const KSWAPD: &str = "kswapd";
/// Of the flushers'.
pub const FLUSHER: &str = "flush-";

/// Names of the counters that an arm of the engine adds: all threads, kswapd, the flushers.
pub const COUNTERS: [(&str, &str); 3] = [
    ("cpu_all_ns", ""),
    ("cpu_kswapd_ns", KSWAPD),
    ("cpu_flusher_ns", FLUSHER),
];

/// How many CPUs this process may use.
pub fn count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn clock(id: ClockId) -> u64 {
    let t = rustix::time::clock_gettime(id);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32).as_nanos() as u64
}

/// CPU nanoseconds of the calling thread.
pub fn of_this_thread() -> u64 {
    clock(ClockId::ThreadCPUTime)
}

/// CPU nanoseconds of this process's threads whose name begins with `prefix` (`/proc/PID/task/TID/schedstat`); of threads
/// that have ended too where that is empty. 0 without `/proc`.
pub fn of_threads(prefix: &str) -> u64 {
    if prefix.is_empty() {
        return clock(ClockId::ProcessCPUTime);
    }
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return 0;
    };
    let of = |task: std::io::Result<std::fs::DirEntry>| -> Option<u64> {
        // A thread that has ended since counts nothing.
        let path = task.ok()?.path();
        let name = std::fs::read_to_string(path.join("comm")).ok()?;
        if !name.starts_with(prefix) {
            return None;
        }
        let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    tasks.filter_map(of).sum()
}

/// CPU nanoseconds that the machine's `cpus` CPUs were busy in the last `elapsed_ns`, when they have been idle for `idle_ns`.
pub fn busy_ns(elapsed_ns: f64, cpus: usize, idle_ns: f64) -> f64 {
    (elapsed_ns * cpus as f64 - idle_ns).max(0.0)
}

/// How long the machine's CPUs have been idle in all, in nanoseconds (`/proc/stat`, to 10 ms). None without it.
pub fn machine_idle_ns() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let mut fields = stat.lines().next()?.split_whitespace().skip(4);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let (idle, waiting) = (ticks()?, ticks()?);
    // USER_HZ is 100 on every architecture that this runs on.
    Some((idle + waiting) as f64 * 1e7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_shows_under_its_name_and_in_the_whole() {
        let work = || {
            let (before, begin) = (of_threads("worker-x"), of_threads(""));
            let at = std::time::Instant::now();
            let mut n = 0u64;
            while of_threads("worker-x") < before + 5_000_000 && at.elapsed().as_secs() < 60 {
                n = std::hint::black_box(n + 1);
            }
            (of_threads("worker-x") - before, of_threads("") - begin)
        };
        let thread = std::thread::Builder::new().name("worker-x1".into());
        let (own, all) = thread.spawn(work).unwrap().join().unwrap();
        assert!(own >= 5_000_000, "{own}");
        assert!(all >= own / 2, "{all} of the process, {own} of the thread");
        assert_eq!(of_threads("no such thread"), 0);
    }
}
