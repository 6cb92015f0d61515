//! The CPU to which a disk's interrupts come, as seen by reads.
//!
//! A reader that sleeps on another one is called by a second interrupt, which takes its time on a virtual machine, 12 us
//! where a read takes 45. A disk with a queue for each CPU has none that is nearer.

use super::{Job, Region, Work, work};
use crate::affinity::allowed;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

/// Each CPU's turns: what is slow for a moment does not decide.
const TURNS: u32 = 3;

/// What was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nearest {
    /// Where reads take the least.
    pub cpu: usize,
    /// What they take longer on the others, at the median.
    pub further: Duration,
}

/// Reads 4 KiB of the first `len` bytes of `file` for `each` on every CPU that there is.
///
/// # Errors
/// What the disk answers.
pub fn nearest(file: &File, len: u64, region: &Region, each: Duration) -> std::io::Result<Nearest> {
    let cpus = allowed();
    let mut all = vec![Vec::new(); cpus.len()];
    for _ in 0..TURNS {
        for (cpu, medians) in cpus.iter().zip(&mut all) {
            let job = Job {
                path: PathBuf::new(),
                start: 0,
                len,
                io: 4096,
                depth: 1,
                duration: each / TURNS,
                work: Work {
                    read: true,
                    sequential: false,
                },
                pieces: 1,
                cpus: vec![*cpu],
            };
            let (latency, _) = work(&job, file, region)?;
            medians.push(latency.value_at_quantile(0.5));
        }
    }
    let mut medians: Vec<(u64, usize)> = all.into_iter().map(median).zip(cpus).collect();
    medians.sort_unstable();
    let least = medians[0];
    let others = medians[1..].iter().map(|m| m.0 - least.0).collect();
    Ok(Nearest {
        cpu: least.1,
        further: Duration::from_nanos(median(others)),
    })
}

/// 0 for none.
fn median(mut all: Vec<u64>) -> u64 {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::OpenOptionsExt;

    #[test]
    fn one_of_the_cpus_is_the_nearest() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let path = dir.path().join("f");
        crate::place::lay_out(&path, 1 << 20, false).unwrap();
        let file = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path);
        let Ok(file) = file else {
            eprintln!("skipped: no O_DIRECT here");
            return;
        };
        let before = allowed();
        let region = Region::new().unwrap();
        let found = nearest(&file, 1 << 20, &region, Duration::from_millis(9)).unwrap();
        assert!(before.contains(&found.cpu));
        assert_eq!(allowed(), before, "free again");
        assert_eq!((median(vec![]), median(vec![3, 1, 2])), (0, 2));
    }
}
