//! A disk that writes slowly for some processes: the block I/O controller of control groups, version 1 or 2.

use super::child::{ROLE, command};
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct SlowDisk {
    group: PathBuf,
}

impl SlowDisk {
    /// `bytes_per_s` for what is written to the disk under `dir`; `None` where that cannot be had.
    pub fn under(dir: &Path, bytes_per_s: u64) -> Option<SlowDisk> {
        let dev = std::fs::metadata(dir).ok()?.st_dev();
        let disk = format!("{}:{}", libc::major(dev), libc::minor(dev));
        let name = format!("highwater-slow-{}", std::process::id());
        let v1 = (
            "/sys/fs/cgroup/blkio",
            "blkio.throttle.write_bps_device",
            format!("{disk} {bytes_per_s}"),
        );
        let v2 = (
            "/sys/fs/cgroup",
            "io.max",
            format!("{disk} wbps={bytes_per_s}"),
        );
        [v1, v2].into_iter().find_map(|(root, file, line)| {
            let group = Path::new(root).join(&name);
            std::fs::create_dir(&group).ok()?;
            let slow = SlowDisk { group };
            // Else dropped, and taken away.
            std::fs::write(slow.group.join(file), line).ok()?;
            Some(slow)
        })
    }

    /// As `command`, on the slow disk.
    pub fn command(&self, role: &str) -> Command {
        let inner = command(role);
        let mut outer = Command::new("sh");
        outer
            .args(["-c", "echo 0 > \"$0\" && exec \"$@\""])
            .arg(self.group.join("cgroup.procs"))
            .arg(inner.get_program())
            .args(inner.get_args())
            .env(ROLE, role);
        outer
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        // A killed process leaves it a moment after it was waited for.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.group).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}
