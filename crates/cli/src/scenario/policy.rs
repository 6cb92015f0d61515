//! The knobs of the policy table under the names that a scenario file has for them.

use crate::units::Span;
use highwater_engine::policy::{
    HighOrder, OnDirty, Policy, ReclaimWait, Throttle, WriteUnit, WritebackFrom,
};
use serde::{Deserialize, Serialize};

macro_rules! knob {
    ($(#[$doc:meta])* $name:ident => $engine:ident { $($variant:ident),* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[allow(missing_docs)]
        pub enum $name { $($variant),* }

        impl $name {
            /// All values, in the order of the table.
            #[allow(dead_code)]
            pub const ALL: &'static [$name] = &[$($name::$variant),*];
            /// The engine's value.
            pub const fn engine(self) -> $engine {
                match self { $($name::$variant => $engine::$variant),* }
            }
        }
    };
}

knob!(
    /// Who writes a dirty page at the LRU's tail.
    WritebackFromName => WritebackFrom { Direct, Kswapd, KswapdLate, Flusher }
);
knob!(
    /// How much one such write writes.
    WriteUnitName => WriteUnit { Page, Range }
);
knob!(
    /// What else reclaim does about it.
    OnDirtyName => OnDirty { Skip, Kick, KickAndWait }
);
knob!(
    /// How reclaim waits.
    WaitName => ReclaimWait { Congestion, IfCongested, Progress }
);
knob!(
    /// How writers are slowed.
    ThrottleName => Throttle { Off, DirtierWrites, IoLess }
);
knob!(
    /// How blocks of frames are made.
    HighOrderName => HighOrder { Lumpy, Compaction, Both }
);

/// Changes to a preset: what is not named stays as the preset has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyPatch {
    /// Who writes a dirty page at the LRU's tail.
    pub writeback_from: Option<WritebackFromName>,
    /// How much one such write writes.
    pub write_unit: Option<WriteUnitName>,
    /// What else reclaim does about it.
    pub on_dirty: Option<OnDirtyName>,
    /// How reclaim waits.
    pub wait: Option<WaitName>,
    /// How writers are slowed.
    pub throttle: Option<ThrottleName>,
    /// How blocks of frames are made when none is free.
    pub high_order: Option<HighOrderName>,
    /// The flusher starts above this share of memory, in percent.
    pub background_percent: Option<u8>,
    /// Dirty memory is kept below this share, in percent.
    pub limit_percent: Option<u8>,
    /// The longest pause of a writer on a healthy device.
    pub pause_max: Option<Span>,
    /// Does the flusher keep the queue short while others read from the device?
    pub wbt: Option<bool>,
}

impl PolicyPatch {
    /// `policy` with these changes.
    pub fn apply(&self, mut policy: Policy) -> Policy {
        if let Some(v) = self.writeback_from {
            policy.writeback_from = v.engine();
        }
        if let Some(v) = self.write_unit {
            policy.write_unit = v.engine();
        }
        if let Some(v) = self.on_dirty {
            policy.on_dirty = v.engine();
        }
        if let Some(v) = self.wait {
            policy.wait = v.engine();
        }
        if let Some(v) = self.throttle {
            policy.throttle = v.engine();
        }
        if let Some(v) = self.high_order {
            policy.high_order = v.engine();
        }
        if let Some(v) = self.background_percent {
            policy.background_percent = v;
        }
        if let Some(v) = self.limit_percent {
            policy.limit_percent = v;
        }
        if let Some(v) = self.pause_max {
            policy.pause_max = v.0.into();
        }
        if let Some(v) = self.wbt {
            policy.wbt = v;
        }
        policy
    }

    /// What these changes leave, with `other`'s on top.
    pub fn then(self, other: PolicyPatch) -> PolicyPatch {
        PolicyPatch {
            writeback_from: other.writeback_from.or(self.writeback_from),
            write_unit: other.write_unit.or(self.write_unit),
            on_dirty: other.on_dirty.or(self.on_dirty),
            wait: other.wait.or(self.wait),
            throttle: other.throttle.or(self.throttle),
            high_order: other.high_order.or(self.high_order),
            background_percent: other.background_percent.or(self.background_percent),
            limit_percent: other.limit_percent.or(self.limit_percent),
            pause_max: other.pause_max.or(self.pause_max),
            wbt: other.wbt.or(self.wbt),
        }
    }
}

/// Why the shares of `policy`, a preset with `patch` on top, make no sense, if they do not.
pub fn shares_problem(policy: &Policy, patch: &PolicyPatch) -> Option<String> {
    let (background, limit) = (policy.background_percent, policy.limit_percent);
    if limit == 0 || limit > 90 {
        return Some("limit_percent is a share of memory: expected 1 to 90".into());
    }
    let whose = |said: Option<u8>| said.map_or(" (the preset's own)", |_| "");
    (background >= limit).then(|| {
        format!(
            "background_percent = {background}{} is not below limit_percent = {limit}{}: expected both, the flusher to start first",
            whose(patch.background_percent),
            whose(patch.limit_percent)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_engine::Preset;

    #[test]
    fn a_patch_changes_what_it_names_and_nothing_else() {
        let base = Preset::Highwater.policy();
        assert_eq!(PolicyPatch::default().apply(base), base);
        let patch = PolicyPatch {
            writeback_from: Some(WritebackFromName::Direct),
            throttle: Some(ThrottleName::Off),
            high_order: Some(HighOrderName::Both),
            limit_percent: Some(40),
            wbt: Some(false),
            ..PolicyPatch::default()
        };
        let got = patch.apply(base);
        assert_eq!(got.writeback_from, WritebackFrom::Direct);
        assert_eq!(got.throttle, Throttle::Off);
        assert_eq!(got.high_order, HighOrder::Both);
        assert_eq!(got.limit_percent, 40);
        assert!(base.wbt && !got.wbt);
        assert_eq!(got.wait, base.wait);
        let twice = patch.then(PolicyPatch {
            limit_percent: Some(50),
            ..Default::default()
        });
        assert_eq!(twice.limit_percent, Some(50));
        assert_eq!(twice.throttle, Some(ThrottleName::Off));
        assert_eq!(twice.high_order, Some(HighOrderName::Both));
    }

    #[test]
    fn shares_are_those_of_the_preset_and_its_changes_together() {
        let problem = |preset: Preset, background, limit| {
            let patch = PolicyPatch {
                background_percent: background,
                limit_percent: limit,
                ..PolicyPatch::default()
            };
            shares_problem(&patch.apply(preset.policy()), &patch).unwrap_or_default()
        };
        for preset in Preset::ALL {
            assert_eq!(problem(preset, None, None), "");
            assert_eq!(problem(preset, Some(0), Some(1)), "");
        }
        assert_eq!(problem(Preset::V3_2, None, Some(20)), "");
        let own = problem(Preset::Highwater, None, Some(20));
        assert!(
            own.contains("= 25 (the preset's own) is not below limit_percent = 20:"),
            "{own}"
        );
        assert!(problem(Preset::Highwater, Some(20), Some(20)).contains("= 20 is not below"));
        let late = problem(Preset::V3_2, Some(30), None);
        assert!(
            late.contains("= 30 is not below limit_percent = 20 (the preset's own)"),
            "{late}"
        );
        for limit in [0, 91] {
            assert!(problem(Preset::V3_2, None, Some(limit)).contains("1 to 90"));
        }
    }
}
