//! On which CPUs a thread may run.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPUs that the calling thread may use.
pub fn allowed() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else {
        return vec![0];
    };
    (0..CpuSet::MAX_CPU).filter(|&i| set.is_set(i)).collect()
}

/// The calling thread is bound while this lives; threads that it starts meanwhile are, too.
pub struct Bound(Option<CpuSet>);

/// Binds the calling thread to `cpus`; to none, it runs anywhere as before. Refused by a cpuset that has changed meanwhile, it
/// runs where it ran.
pub fn bind(cpus: &[usize]) -> Bound {
    if cpus.is_empty() {
        return Bound(None);
    }
    let home = sched_getaffinity(None).ok();
    let mut set = CpuSet::new();
    cpus.iter().for_each(|&cpu| set.set(cpu));
    let _ = sched_setaffinity(None, &set);
    Bound(home)
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(home) = &self.0 {
            let _ = sched_setaffinity(None, home);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_bound_and_free_again() {
        let before = allowed();
        assert!(!before.is_empty());
        let bound = bind(&before[..1]);
        assert_eq!(allowed(), before[..1]);
        let heir = std::thread::spawn(allowed).join().unwrap();
        assert_eq!(heir, before[..1]);
        drop(bound);
        assert_eq!(allowed(), before);
        let _anywhere = bind(&[]);
        assert_eq!(allowed(), before);
    }
}
