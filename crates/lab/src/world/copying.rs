//! How much memory the CPUs copy: a disk whose host copies, too, has to share memory's bandwidth with them.
//!
//! Measured by `highwater probe` (AMD EPYC, virtual, Linux 6.18): beside one CPU that copies all the time, bytes of writes
//! took 1.3 to 1.5 times as long, bytes of reads 1.1 to 1.3 times; a CPU that only computes changed neither, nor did copies
//! change what a piece of memory costs.
//!
//! **State.** A mean over about a millisecond; deterministic: no more than the four operations of IEEE 754.

/// The mean's time.
const MEAN_NS: f64 = 1_000_000.0;
/// What one copy is, whatever the frames' size: `highwater costs` measures pages of 4 KiB.
const PAGE: f64 = 4096.0;

/// The copies of late.
#[derive(Debug, Default)]
pub(super) struct Copying {
    /// Bytes in the last `MEAN_NS`.
    recent: f64,
    at: u64,
}

impl Copying {
    /// At `now` so many pages are copied.
    pub fn add(&mut self, now: u64, pages: u32) {
        self.recent = self.recent_at(now) + f64::from(pages) * PAGE;
        self.at = now;
    }

    /// How many bytes a microsecond are copied at `now` (MB/s).
    pub fn mb_per_s(&self, now: u64) -> u32 {
        (self.recent_at(now) / (MEAN_NS / 1e3)) as u32
    }

    fn recent_at(&self, now: u64) -> f64 {
        self.recent / (1.0 + now.saturating_sub(self.at) as f64 / MEAN_NS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_in_each_microsecond_is_4_gb_a_second_and_it_is_forgotten() {
        let mut c = Copying::default();
        for n in 0..20_000 {
            c.add(n * 2_000, 2);
        }
        let now = 20_000 * 2_000;
        assert!(
            (4_000..=4_200).contains(&c.mb_per_s(now)),
            "{}",
            c.mb_per_s(now)
        );
        assert!(c.mb_per_s(now + 20_000_000) < 250);
        assert_eq!(Copying::default().mb_per_s(now), 0);
    }
}
