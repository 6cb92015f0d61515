//! Copies beside a measurement, as a cache makes them: a CPU copies a page that it holds into memory that it does not.

use crate::affinity::bind;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

const PAGE: usize = 4096;
/// More than CPUs have caches for.
const MEMORY: usize = 64 << 20;

/// Tells the copying thread to end, also when the measurement panics.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        // Relaxed: nothing else is handed over.
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What `measure` says while one thread copies all the time on `cpus`, and how many bytes a second that copied.
pub(super) fn beside<R>(cpus: &[usize], measure: impl FnOnce() -> R) -> (R, f64) {
    let ended = AtomicBool::new(false);
    let from = [0xC3u8; PAGE];
    let mut to = vec![1u8; MEMORY];
    std::thread::scope(|scope| {
        let ends = Ends(&ended);
        let copier = scope.spawn(|| {
            let _bound = bind(cpus);
            let begin = Instant::now();
            // Relaxed: as `Ends` has it.
            let (mut at, mut copied) = (0, 0);
            while !ended.load(Ordering::Relaxed) {
                to[at..at + PAGE].copy_from_slice(black_box(&from));
                at = (at + PAGE) % MEMORY;
                copied += PAGE;
            }
            black_box(&to);
            copied as f64 / begin.elapsed().as_secs_f64().max(1e-9)
        });
        let measured = measure();
        drop(ends);
        (measured, copier.join().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affinity::allowed;

    #[test]
    fn it_ends_with_the_measurement() {
        let (seven, copied) = beside(&allowed(), || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            7
        });
        assert!(seven == 7 && copied > 1e6, "{copied}");
        let panics =
            std::panic::catch_unwind(|| beside(&allowed(), || panic!("a measurement that fails")));
        assert!(panics.is_err());
    }
}
