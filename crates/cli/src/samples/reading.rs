//! The world at one time: the states of memory, the lists, and the counters so far.

use highwater_engine::Stats;
use serde::{Deserialize, Serialize};

/// The counters that are sampled, under their names in `vmstat`.
pub const COUNTS: [&str; 11] = [
    "written_direct",
    "written_kswapd",
    "written_flusher",
    "written_writer",
    "written_sync",
    "allocstall_ns",
    "balance_dirty_pause_ns",
    "workingset_refault_file",
    "pgscan_kswapd",
    "pgscan_direct",
    "pages_read",
];

/// The states of memory, as the page stacks them from below.
pub const STATES: [&str; 6] = [
    "writeback",
    "dirty",
    "other",
    "clean",
    "unpopulated",
    "free",
];

/// Lines that an arm's memory is held against, in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Pages in all.
    pub frames: u64,
    /// Free pages below which allocations wait; null where there is no such line.
    pub watermark_min: Option<u64>,
    /// Free pages below which kswapd wakes.
    pub watermark_low: Option<u64>,
    /// Free pages up to which kswapd works.
    pub watermark_high: Option<u64>,
    /// Dirty pages above which the flusher works.
    pub dirty_background: Option<u64>,
    /// Dirty pages that are never exceeded for long.
    pub dirty_limit: Option<u64>,
}

/// The world at one time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    /// Pages in each of [`STATES`].
    pub states: Option<[u64; STATES.len()]>,
    /// Pages on the inactive and on the active list.
    pub lists: Option<[u64; 2]>,
    /// Each of [`COUNTS`] so far.
    pub counts: [Option<u64>; COUNTS.len()],
    /// The lines.
    pub limits: Option<Limits>,
}

impl Reading {
    /// From an engine's counters.
    pub fn of_engine(stats: &Stats) -> Reading {
        let get = |name: &str| stats.get(name);
        let (inactive, active) = (get("nr_inactive_file"), get("nr_active_file"));
        let listed = inactive + active + get("nr_isolated_file");
        let (writeback, dirty) = (get("nr_writeback"), get("nr_dirty"));
        let some = |name: &str| Some(get(name));
        Reading {
            states: Some(share_out(
                stats.frames,
                &Gauges {
                    free: get("nr_free_pages"),
                    unpopulated: get("nr_unpopulated"),
                    writeback,
                    dirty,
                    clean: listed.saturating_sub(writeback + dirty),
                },
            )),
            lists: Some([inactive, active]),
            counts: COUNTS.map(some),
            limits: Some(Limits {
                page_bytes: stats.frame_size as u64,
                frames: stats.frames,
                watermark_min: some("watermark_min"),
                watermark_low: some("watermark_low"),
                watermark_high: some("watermark_high"),
                dirty_background: some("nr_dirty_background_threshold"),
                dirty_limit: some("nr_dirty_threshold"),
            }),
        }
    }

    /// From the `memory.stat` of a cgroup, of either version, whose cache may have `memory` bytes.
    pub fn of_cgroup(memory_stat: &str, memory: u64) -> Reading {
        const PAGE: u64 = 4096;
        let get = |names: [&str; 2]| {
            let line = |l: &str| {
                let (name, value) = l.split_once(' ')?;
                names.contains(&name).then(|| value.trim().parse().ok())?
            };
            memory_stat.lines().find_map(line)
        };
        let pages = |names| get(names).map(|bytes: u64| bytes / PAGE);
        let frames = memory / PAGE;
        let states = || {
            let file = pages(["cache", "file"])?;
            let dirty = pages(["dirty", "file_dirty"])?;
            let writeback = pages(["writeback", "file_writeback"])?;
            Some(share_out(
                frames,
                &Gauges {
                    free: frames.saturating_sub(file),
                    unpopulated: 0,
                    writeback,
                    dirty,
                    clean: file.saturating_sub(writeback + dirty),
                },
            ))
        };
        let lists = || Some([pages(["inactive_file"; 2])?, pages(["active_file"; 2])?]);
        Reading {
            states: states(),
            lists: lists(),
            counts: COUNTS.map(|name| get([name; 2])),
            limits: Some(Limits {
                page_bytes: PAGE,
                frames,
                ..Limits::default()
            }),
        }
    }
}

/// Gauges as they were read, one after the other.
struct Gauges {
    free: u64,
    unpopulated: u64,
    writeback: u64,
    dirty: u64,
    clean: u64,
}

/// The frames by state, in the order of [`STATES`] (SAMPLE-1). What is in none of the others is on its way: isolated,
/// being read, granted to a waiter, or an old copy under writeback.
fn share_out(frames: u64, g: &Gauges) -> [u64; STATES.len()] {
    let mut left = frames;
    let mut take = |n: u64| {
        let n = n.min(left);
        left -= n;
        n
    };
    let (free, unpopulated) = (take(g.free), take(g.unpopulated));
    let (writeback, dirty, clean) = (take(g.writeback), take(g.dirty), take(g.clean));
    let states = [writeback, dirty, left, clean, unpopulated, free];
    assert_eq!(states.iter().sum::<u64>(), frames, "SAMPLE-1");
    states
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_sum_to_all_frames_whatever_the_gauges_say() {
        let g = |free, unpopulated, writeback, dirty, clean| Gauges {
            free,
            unpopulated,
            writeback,
            dirty,
            clean,
        };
        assert_eq!(
            share_out(100, &g(10, 5, 20, 30, 25)),
            [20, 30, 10, 25, 5, 10]
        );
        // A frame counted twice, as it moved between two reads.
        for gauges in [g(90, 0, 20, 30, 0), g(0, 0, 60, 60, 60), g(200, 1, 1, 1, 1)] {
            assert_eq!(share_out(100, &gauges).iter().sum::<u64>(), 100);
        }
    }

    #[test]
    fn both_versions_of_a_cgroup_are_read() {
        let v1 =
            "cache 40960\ndirty 8192\nwriteback 4096\ninactive_file 20480\nactive_file 20480\n";
        let v2 = "anon 1\nfile 40960\nfile_dirty 8192\nfile_writeback 4096\ninactive_file 20480\nactive_file 20480\nworkingset_refault_file 3\n";
        for text in [v1, v2] {
            let r = Reading::of_cgroup(text, 81920);
            assert_eq!(r.states, Some([1, 2, 0, 7, 0, 10]));
            assert_eq!(r.lists, Some([5, 5]));
        }
        assert_eq!(Reading::of_cgroup(v2, 81920).counts[7], Some(3));
        assert_eq!(Reading::of_cgroup("", 81920).states, None);
    }
}
