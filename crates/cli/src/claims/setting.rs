//! Where a run of a claim takes place: a small work, a disk, limits of dirty memory, more or less data.

use crate::error::Result;
use crate::scenario::{BackingName, DeviceLimit, Kind, PolicyPatch, Scenario, load};
use crate::sweep::pressure;
use crate::units::Span;
use std::time::Duration;

/// What the tasks do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Writers, a stream and a probe (`work.toml`).
    Mixed,
    /// A cache that matters, beside a writer (`cached.toml`).
    Cached,
    /// A busy cache beside a task that asks for blocks (`blocks.toml`).
    Blocks(Blocks),
    /// Writers on a journaled volume (`deep.toml`).
    Deep,
    /// The same writers on a plain file.
    Shallow,
}

/// The blocks that a task asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blocks {
    /// Of 2^order frames.
    pub order: u32,
    /// How many it keeps.
    pub hold: u32,
    /// How many it asks for in a second.
    pub rate: u32,
    /// As a huge page is asked for: kswapd is left alone.
    pub thp: bool,
}

/// How much the disk serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disk {
    /// As the world has it: in the lab, a quick flash disk.
    Quick,
    /// 50 MB and 5,000 requests a second.
    Slow,
    /// 5 MB and 200 requests a second: one spindle, and random places.
    Spindle,
    /// 1 MB and 20 requests a second: next to no progress.
    Stuck,
}

/// How much memory may be dirty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limits {
    /// As the presets have it: 10 % and 20 % of the budget.
    Own,
    /// 50 % and 80 %: where the limit is the machine's and the memory a zone's or a group's.
    Machine,
    /// None: writers are not throttled, and the flusher starts late.
    None,
}

/// Where a run takes place.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Setting {
    /// The tasks.
    pub work: Work,
    /// The disk.
    pub disk: Disk,
    /// Dirty memory.
    pub limits: Limits,
    /// Data over memory; `None` leaves the files as the work has them.
    pub pressure: Option<f64>,
    /// How long it is measured.
    pub duration: Option<Duration>,
}

impl Setting {
    /// The work as it is written, on a quick disk, with the presets' own limits.
    pub const fn new(work: Work) -> Setting {
        Setting {
            work,
            disk: Disk::Quick,
            limits: Limits::Own,
            pressure: None,
            duration: None,
        }
    }

    /// On another disk.
    pub const fn on(self, disk: Disk) -> Setting {
        Setting { disk, ..self }
    }

    /// With other limits.
    pub const fn within(self, limits: Limits) -> Setting {
        Setting { limits, ..self }
    }

    /// With more or less data.
    pub const fn at(self, pressure: f64) -> Setting {
        Setting {
            pressure: Some(pressure),
            ..self
        }
    }

    /// Measured so long.
    pub const fn lasting(self, ms: u64) -> Setting {
        Setting {
            duration: Some(Duration::from_millis(ms)),
            ..self
        }
    }

    pub(super) fn scenario(&self) -> Result<Scenario> {
        let (name, text) = match self.work {
            Work::Mixed => ("work.toml", include_str!("work.toml")),
            Work::Cached => ("cached.toml", include_str!("cached.toml")),
            Work::Blocks(_) => ("blocks.toml", include_str!("blocks.toml")),
            Work::Deep | Work::Shallow => ("deep.toml", include_str!("deep.toml")),
        };
        let mut scenario = load(name, text)?;
        if let Work::Blocks(blocks) = self.work {
            for task in scenario
                .tasks
                .iter_mut()
                .filter(|t| t.kind == Kind::AllocBlock)
            {
                (task.order, task.hold) = (Some(blocks.order), Some(blocks.hold));
                (task.rate, task.thp) = (Some(f64::from(blocks.rate)), Some(blocks.thp));
            }
        }
        if self.work == Work::Shallow {
            for file in scenario.files.values_mut() {
                file.backing = BackingName::default();
            }
        }
        let limit = |bytes_per_s, iops| Some(DeviceLimit { bytes_per_s, iops });
        scenario.device = match self.disk {
            Disk::Quick => None,
            Disk::Slow => limit(50_000_000, 5_000),
            Disk::Spindle => limit(5_000_000, 200),
            Disk::Stuck => limit(1_000_000, 20),
        };
        if let Some(duration) = self.duration {
            scenario.duration = Span(duration);
        }
        match self.pressure {
            Some(pressure) => pressure::at(&scenario, pressure),
            None => Ok(scenario),
        }
    }

    pub(super) fn patch(&self) -> PolicyPatch {
        let (background, limit) = match self.limits {
            Limits::Own => (None, None),
            Limits::Machine | Limits::None => (Some(50), Some(80)),
        };
        PolicyPatch {
            background_percent: background,
            limit_percent: limit,
            throttle: (self.limits == Limits::None).then_some(crate::scenario::ThrottleName::Off),
            ..PolicyPatch::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_is_a_scenario_that_loads() {
        let blocks = Work::Blocks(Blocks {
            order: 2,
            hold: 9,
            rate: 7,
            thp: true,
        });
        let task = |s: &Scenario| {
            let task = s.tasks.iter().find(|t| t.kind == Kind::AllocBlock).cloned();
            task.map(|t| (t.order, t.hold, t.rate, t.thp))
        };
        let s = Setting::new(blocks).scenario().unwrap();
        assert_eq!(task(&s), Some((Some(2), Some(9), Some(7.0), Some(true))));
        let journaled = |work| {
            let s = Setting::new(work).scenario().unwrap();
            s.files["data"].backing == BackingName::Journaled
        };
        assert!(journaled(Work::Deep) && !journaled(Work::Shallow));
        for work in [Work::Mixed, Work::Cached, blocks, Work::Deep] {
            for disk in [Disk::Quick, Disk::Slow, Disk::Spindle, Disk::Stuck] {
                let setting = Setting::new(work).on(disk).at(3.0).lasting(70);
                let s = setting.scenario().unwrap();
                assert!((pressure::of(&s).unwrap() - 3.0).abs() < 0.05);
                assert_eq!(s.device.is_some(), disk != Disk::Quick);
                assert_eq!(s.duration.0.as_millis(), 70);
            }
        }
    }
}
