//! A memory cgroup for one child, v1 or v2.
//!
//! **Kernel.** Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst.

use super::{read, write};
use crate::cleanup::{Undo, undo};
use crate::error::{CliError, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// A hierarchy for each controller.
    V1,
    /// One hierarchy.
    V2,
}

/// A cgroup's folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// The folder.
    pub path: PathBuf,
    /// Its interface.
    pub version: Version,
}

/// From `/proc/self/mounts` and `/proc/self/cgroup`: the folder of this process's own memory cgroup.
fn own(mounts: &str, cgroup: &str) -> Option<(PathBuf, Version)> {
    let fields = |line: &str| line.split(' ').map(str::to_string).collect::<Vec<_>>();
    let mounted: Vec<Vec<String>> = mounts.lines().map(fields).filter(|f| f.len() > 3).collect();
    let relative = |matches: &dyn Fn(&str) -> bool| {
        cgroup.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let controllers = parts.next()?;
            let path = parts.next()?;
            matches(controllers).then(|| path.trim_start_matches('/').to_string())
        })
    };
    let v1 = mounted
        .iter()
        .find(|f| f[2] == "cgroup" && f[3].split(',').any(|o| o == "memory"));
    if let Some(mount) = v1 {
        let path = relative(&|c| c.split(',').any(|c| c == "memory"))?;
        return Some((Path::new(&mount[1]).join(path), Version::V1));
    }
    let v2 = mounted.iter().find(|f| f[2] == "cgroup2")?;
    let path = relative(&str::is_empty)?;
    Some((Path::new(&v2[1]).join(path), Version::V2))
}

fn remedy() -> String {
    "run as root, or in a delegated cgroup: `systemd-run --user --scope -p Delegate=yes highwater run --world linux`"
        .to_string()
}

impl Group {
    /// Makes a group for one child; removed when the guard goes, once it is empty.
    ///
    /// # Errors
    /// When there is no memory controller, or no right to make a group.
    pub fn create() -> Result<(Group, Undo)> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let Some((own, version)) = own(&mounts, &cgroup) else {
            return Err(CliError::failed(
                "Linux's page cache cannot be limited: no memory cgroup is mounted here",
                "mount one (`mount -t cgroup2 none /sys/fs/cgroup`) as root, or leave out --world linux",
            ));
        };
        let mut why = String::new();
        for parent in parents(&own, version) {
            let path = parent.join(format!("highwater-{}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => {
                    let group = Group { path, version };
                    let gone = group.path.clone();
                    let guard = undo(move || remove(&gone));
                    if group.limit_file().exists() {
                        return Ok((group, guard));
                    }
                    why = format!(
                        "{}: the memory controller is not enabled there",
                        parent.display()
                    );
                }
                Err(e) => why = format!("{}: {e}", parent.display()),
            }
        }
        Err(CliError::failed(
            format!("Linux's page cache cannot be limited: no memory cgroup can be made ({why})"),
            remedy(),
        ))
    }

    /// The group in a folder that another process made.
    pub fn existing(path: &Path) -> Group {
        let version = if path.join("memory.limit_in_bytes").exists() {
            Version::V1
        } else {
            Version::V2
        };
        Group {
            path: path.to_path_buf(),
            version,
        }
    }

    fn limit_file(&self) -> PathBuf {
        self.path.join(match self.version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        })
    }

    /// Moves the calling process in.
    ///
    /// # Errors
    /// Without the right to.
    pub fn enter(&self) -> Result<()> {
        write(
            &self.path.join("cgroup.procs"),
            &std::process::id().to_string(),
        )
    }

    /// Sets the hard limit in bytes.
    ///
    /// # Errors
    /// Without the right to.
    pub fn limit(&self, bytes: u64) -> Result<()> {
        write(&self.limit_file(), &bytes.to_string())
    }

    fn number(&self, v1: &str, v2: &str) -> u64 {
        let name = if self.version == Version::V1 { v1 } else { v2 };
        read(&self.path.join(name))
            .ok()
            .and_then(|t| t.parse().ok())
            .unwrap_or(0)
    }

    /// Bytes charged now.
    pub fn usage(&self) -> u64 {
        self.number("memory.usage_in_bytes", "memory.current")
    }

    /// The most bytes ever charged.
    pub fn peak(&self) -> u64 {
        self.number("memory.max_usage_in_bytes", "memory.peak")
    }

    /// The text of `memory.stat`.
    pub fn stat(&self) -> String {
        std::fs::read_to_string(self.path.join("memory.stat")).unwrap_or_default()
    }
}

/// Where a group may be made: under one's own, beside it, or at the root, the first that works.
fn parents(own: &Path, version: Version) -> Vec<PathBuf> {
    let mut parents = vec![own.to_path_buf()];
    if version == Version::V2 {
        // A v2 group with processes has no children with controllers.
        parents.extend(own.parent().map(Path::to_path_buf));
    }
    parents.retain(|p| p.join("cgroup.procs").exists());
    parents
}

/// Removes a group; its last process may take a moment to be gone.
fn remove(path: &Path) {
    for _ in 0..200 {
        match std::fs::remove_dir(path) {
            Ok(()) => return,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return,
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    say!(
        "highwater: could not remove the cgroup {}; try: rmdir it",
        path.display()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_in_both_versions() {
        let v1 = own(
            "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n",
            "4:memory:/a/b\n1:cpu:/\n0::/\n",
        );
        assert_eq!(
            v1,
            Some((PathBuf::from("/sys/fs/cgroup/memory/a/b"), Version::V1))
        );
        let v2 = own(
            "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n",
            "0::/user.slice/x.scope\n",
        );
        assert_eq!(
            v2,
            Some((
                PathBuf::from("/sys/fs/cgroup/user.slice/x.scope"),
                Version::V2
            ))
        );
        assert_eq!(own("proc /proc proc rw 0 0\n", "0::/\n"), None);
    }

    #[test]
    fn a_group_is_made_and_removed() {
        let (group, guard) = match Group::create() {
            Ok(made) => made,
            Err(e) => {
                eprintln!("skipped: {e}");
                return;
            }
        };
        assert!(group.path.join("cgroup.procs").exists());
        group.limit(64 << 20).unwrap();
        drop(guard);
        assert!(!group.path.exists());
    }
}
