//! How much memory this process may have: control groups, version 1 and 2, and the machine.
//!
//! The limit is the smallest one on the way from the process's own group up to the root. Text is parsed by pure
//! functions; the tree is read below a root directory that tests replace.
//!
//! **Kernel.** memory.max, memory.limit_in_bytes, /proc/meminfo.

use std::path::{Path, PathBuf};

/// Version 1 writes "no limit" as 2^63 less a page; nobody means as much as this.
const UNLIMITED: u64 = 1 << 60;

/// The memory limit of the control groups that this process is in, in bytes; `None` without one.
///
/// ```
/// match highwater::memory_limit() {
///     Some(bytes) => println!("the container may use {bytes} bytes"),
///     None => println!("no container limit"),
/// }
/// ```
pub fn memory_limit() -> Option<u64> {
    limit_below(Path::new("/"))
}

/// The machine's memory.
///
/// ```
/// let machine = highwater::MemInfo::read()?;
/// assert!(machine.available <= machine.total);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemInfo {
    /// All memory, in bytes (`MemTotal`).
    pub total: u64,
    /// What could be had without swapping, in bytes (`MemAvailable`).
    pub available: u64,
}

impl MemInfo {
    /// Reads `/proc/meminfo`.
    ///
    /// # Errors
    /// When it cannot be read or lacks a line.
    pub fn read() -> std::io::Result<MemInfo> {
        let text = std::fs::read_to_string("/proc/meminfo")?;
        MemInfo::parse(&text).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
    }

    fn parse(text: &str) -> Option<MemInfo> {
        let field = |name: &str| -> Option<u64> {
            let line = text
                .lines()
                .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim()
                .strip_suffix(" kB")?
                .parse::<u64>()
                .ok()?
                .checked_mul(1024)
        };
        let total = field("MemTotal")?;
        // Kernels before 3.14 do not tell.
        let available = field("MemAvailable").or_else(|| field("MemFree"))?;
        Some(MemInfo { total, available })
    }
}

/// The limit as the tree below `root` has it.
fn limit_below(root: &Path) -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let groups = own_groups(&read("proc/self/cgroup")?);
    let mounts = cgroup_mounts(&read("proc/self/mountinfo").unwrap_or_default());
    let mut limit = None;
    for (version, group) in groups {
        let file = match version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        };
        for mount in mounts.iter().filter(|m| m.version == version) {
            for dir in mount.dirs(&group) {
                let dir = root.join(dir.strip_prefix("/").unwrap_or(&dir));
                let text = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
                limit = [limit, parse_limit(&text)].into_iter().flatten().min();
            }
        }
    }
    limit
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    V1,
    V2,
}

/// Where a hierarchy is mounted, and which group is at the mount point.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Mount {
    version: Version,
    root: String,
    point: String,
}

impl Mount {
    /// The directories of `group` and its ancestors, as far as the mount shows them.
    fn dirs(&self, group: &str) -> Vec<PathBuf> {
        let point = Path::new(&self.point);
        // A path that the mount does not show (no group namespace): the mount point is the nearest ancestor known.
        let inside = match self.root.as_str() {
            "/" => group,
            root => group.strip_prefix(root).unwrap_or(""),
        };
        let parts: Vec<&str> = inside
            .split('/')
            .filter(|p| !p.is_empty() && *p != "..")
            .collect();
        (0..=parts.len())
            .map(|n| point.join(parts[..n].join("/")))
            .collect()
    }
}

/// The groups in `/proc/self/cgroup` that may limit memory.
fn own_groups(text: &str) -> Vec<(Version, String)> {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            if id == "0" && controllers.is_empty() {
                Some((Version::V2, path.to_owned()))
            } else if controllers.split(',').any(|c| c == "memory") {
                Some((Version::V1, path.to_owned()))
            } else {
                None
            }
        })
        .collect()
}

/// The mounts of hierarchies that may limit memory, from `/proc/self/mountinfo`.
fn cgroup_mounts(text: &str) -> Vec<Mount> {
    text.lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut left = left.split(' ').skip(3);
            let (root, point) = (unescape(left.next()?), unescape(left.next()?));
            let mut right = right.split(' ');
            let (kind, options) = (right.next()?, right.nth(1).unwrap_or(""));
            let version = match kind {
                "cgroup2" => Version::V2,
                "cgroup" if options.split(',').any(|o| o == "memory") => Version::V1,
                _ => return None,
            };
            Some(Mount {
                version,
                root,
                point,
            })
        })
        .collect()
}

/// mountinfo writes a space as `\040`.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\134", "\\")
}

/// A limit file's content; `None` for "no limit".
fn parse_limit(text: &str) -> Option<u64> {
    let n = text.trim().parse::<u64>().ok()?;
    (n < UNLIMITED).then_some(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "24 1 0:22 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n\
        33 24 0:29 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n\
        36 24 0:31 / /sys/fs/cgroup/memory rw shared:12 - cgroup cgroup rw,memory\n";

    #[test]
    fn v2_takes_the_smallest_ancestor() {
        let t = tree(&[
            ("proc/self/cgroup", "0::/user.slice/app\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/user.slice/memory.max", "1000000\n"),
            ("sys/fs/cgroup/user.slice/app/memory.max", "max\n"),
        ]);
        assert_eq!(limit_below(t.path()), Some(1_000_000));
        std::fs::write(
            t.path().join("sys/fs/cgroup/user.slice/app/memory.max"),
            "5000\n",
        )
        .unwrap();
        assert_eq!(limit_below(t.path()), Some(5000));
    }

    #[test]
    fn v1_ignores_its_huge_no_limit() {
        let t = tree(&[
            ("proc/self/cgroup", "7:cpu:/x\n4:memory:/docker/abc\n0::/\n"),
            ("proc/self/mountinfo", V1),
            (
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
            (
                "sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
        ]);
        assert_eq!(limit_below(t.path()), None);
        let own = t.path().join("sys/fs/cgroup/memory/docker/abc");
        std::fs::create_dir_all(&own).unwrap();
        std::fs::write(own.join("memory.limit_in_bytes"), "268435456\n").unwrap();
        assert_eq!(limit_below(t.path()), Some(256 << 20));
    }

    #[test]
    fn a_container_that_sees_its_group_at_the_mount_point() {
        let mounts = "36 24 0:31 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        for group in ["4:memory:/docker/abc\n", "4:memory:/kubepods/pod1\n"] {
            let t = tree(&[
                ("proc/self/cgroup", group),
                ("proc/self/mountinfo", mounts),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1048576\n"),
            ]);
            assert_eq!(limit_below(t.path()), Some(1 << 20), "{group}");
        }
    }

    #[test]
    fn without_groups_there_is_no_limit() {
        assert_eq!(limit_below(tree(&[]).path()), None);
        let t = tree(&[
            ("proc/self/cgroup", "garbage\n0::/\n"),
            ("proc/self/mountinfo", "x\n - \n"),
        ]);
        assert_eq!(limit_below(t.path()), None);
    }

    #[test]
    fn mount_points_with_spaces_and_paths_that_climb() {
        let mounts = cgroup_mounts("1 2 0:3 / /mnt/a\\040b rw - cgroup2 none rw\n");
        assert_eq!(mounts[0].point, "/mnt/a b");
        let dirs = mounts[0].dirs("/../x");
        assert_eq!(
            dirs,
            [PathBuf::from("/mnt/a b/"), PathBuf::from("/mnt/a b/x")]
        );
    }

    #[test]
    fn meminfo() {
        let text = "MemTotal:       24684092 kB\nMemFree:  10 kB\nMemAvailable:   24446328 kB\n";
        let info = MemInfo::parse(text).unwrap();
        assert_eq!(
            (info.total, info.available),
            (24684092 << 10, 24446328 << 10)
        );
        assert_eq!(
            MemInfo::parse("MemTotal: 5 kB\nMemFree: 3 kB\n")
                .unwrap()
                .available,
            3 << 10
        );
        assert_eq!(MemInfo::parse("MemTotal: 5\n"), None);
    }

    #[test]
    fn this_machine() {
        assert!(MemInfo::read().unwrap().total > 1 << 20);
        assert!(memory_limit().is_none_or(|b| b > 1 << 20));
    }
}
