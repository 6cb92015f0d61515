//! A disk whose arm is kept at one file by writes while a read of another waits: what `wbt`'s *overdue* is for.
//!
//! The arm has far to go from file to file, and next to nowhere within one; it takes what is near first, and is slow, so that
//! the dirty pages of one file keep it for longer than a read may wait. Two files at least lie on it, and the flusher has
//! work long before memory is short, which would lift its limits.
//!
//! **Tests.** `tests/soak.rs`: how often it is drawn, and that most of those seeds have a read that is overdue.

use crate::device::QueueOptions;
use crate::device::model::{Elevator, Hdd, Model};
use crate::rng::Rng;
use highwater_engine::{Nanos, Policy};

/// What a seed with such a disk draws.
pub(super) struct Arm {
    model: Hdd,
    /// Dirty limits in percent, background and hard, unless those of the policy stay.
    dirty: Option<(u8, u8)>,
}

impl Arm {
    /// In one seed of ten.
    pub fn draw(r: &mut Rng) -> Option<Arm> {
        if !r.chance(100_000) {
            return None;
        }
        let speed = r.pick(&[2_000_000, 5_000_000, 10_000_000]);
        let model = Hdd {
            capacity: 4 << 30,
            rpm: 15_000,
            seek_average: Nanos::from_micros(r.between(2_000, 8_000)),
            outer_bytes_per_s: speed,
            inner_bytes_per_s: speed,
            overhead: Nanos::from_micros(5),
            elevator: r.pick(&[Elevator::CLook, Elevator::Ncq]),
            flush: Nanos::from_micros(r.between(100, 2_000)),
            ..Hdd::default()
        };
        let dirty = r.chance(700_000).then(|| {
            let background = r.pick(&[0, 5, 10]);
            (background, r.pick(&[40, 60, 80]))
        });
        Some(Arm { model, dirty })
    }

    /// It is the first disk, and all files lie on it: of one file two are made.
    pub fn take(&self, disks: &mut [QueueOptions], files: &mut Vec<(usize, u64)>) {
        disks[0].model = Model::Hdd(self.model.clone());
        disks[0].cap = None;
        files.iter_mut().for_each(|(disk, _)| *disk = 0);
        if let [(disk, len)] = files[..] {
            *files = vec![(disk, len / 2); 2];
        }
    }

    /// Its flusher minds the reads.
    pub fn set(&self, policy: &mut Policy) {
        policy.wbt = true;
        if let Some((background, limit)) = self.dirty {
            (policy.background_percent, policy.limit_percent) = (background, limit);
        }
    }
}
