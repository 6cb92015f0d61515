//! Who has a file's `flock`: a process that lives, or one that has been killed and whose requests are still under way.
//!
//! `/proc/locks` names the process of each lock; of one that has gone it shows no line. Neither does it for one of another
//! PID namespace (a container), so "not alive" is a reason to wait for a moment, and no more.

use std::os::fd::OwnedFd;
use std::path::Path;

/// Is there a process that has the file behind `fd` locked, and that lives? Where that cannot be seen, it is taken for so.
pub(super) fn is_alive(fd: &OwnedFd) -> bool {
    let (Ok(stat), Ok(locks)) = (
        rustix::fs::fstat(fd),
        std::fs::read_to_string("/proc/locks"),
    ) else {
        return true;
    };
    holders(&locks, stat.st_ino).any(lives)
}

/// The processes that have a `flock` on an inode of that number. Of any file system: what `stat` calls a device and what the
/// kernel does here are two things for some.
fn holders(locks: &str, ino: u64) -> impl Iterator<Item = u32> {
    locks.lines().filter_map(move |line| {
        // 7: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF; one that waits for it has an arrow before its kind.
        let mut words = line.split_ascii_whitespace().skip(1);
        let (kind, pid) = (words.next()?, words.nth(2)?);
        let at = words.next()?.rsplit(':').next()?;
        let here = kind == "FLOCK" && at.parse() == Ok(ino);
        here.then(|| pid.parse().ok()).flatten()
    })
}

/// A process that has ended lives no more, though its parent may not have asked for it yet.
fn lives(pid: u32) -> bool {
    let proc = Path::new("/proc").join(pid.to_string());
    match std::fs::read_to_string(proc.join("stat")) {
        // 1234 (any) name) Z ...
        Ok(stat) => !matches!(
            stat.rsplit(") ").next().and_then(|s| s.chars().next()),
            Some('Z' | 'X')
        ),
        Err(_) => proc.exists(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_locks() {
        let locks = "1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 99 fe:00:5678 0 EOF\n\
                     2: POSIX  ADVISORY  READ 77 fe:00:5678 0 EOF\n\
                     3: FLOCK  ADVISORY  READ 55 00:2a:5678 0 EOF\n\
                     4: FLOCK  ADVISORY  READ 44 fe:00:56 0 EOF\n\
                     not a line\n";
        assert_eq!(holders(locks, 5678).collect::<Vec<_>>(), [1234, 55]);
        assert_eq!(holders(locks, 1).next(), None);
    }

    #[test]
    fn who_lives() {
        assert!(lives(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().expect("a child");
        let pid = child.id();
        while lives(pid) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.wait().expect("ended");
        assert!(!lives(pid), "nor once it has been waited for");
    }
}
