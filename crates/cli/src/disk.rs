//! What a run's files lie on, in words: the figures of a table mean nothing without it.

use crate::plan::WorldName;
use crate::scenario::Scenario;
use crate::units::{show_bytes, show_count};

/// What the files lie on in each of `worlds`, and what it is held to. `probed`: the lab has the disk of the others, as it
/// was measured.
pub fn words(scenario: &Scenario, worlds: &[WorldName], probed: bool) -> String {
    let mut parts = Vec::new();
    let others = worlds.iter().any(|w| *w != WorldName::Lab);
    let os = worlds.contains(&WorldName::Os);
    if worlds.contains(&WorldName::Lab) {
        parts.push(match (&scenario.lab_device, probed, os) {
            (_, true, _) => "the lab's: the one under --dir, as measured between the runs".into(),
            (Some(device), ..) => format!("the lab's model {}", device.name),
            (None, _, true) => "the lab's model quick, as none was named (run --probe measures the one under --dir for it)".into(),
            (None, ..) => "the lab's model quick, as none was named (--device names one, `highwater probe` measures one)".into(),
        });
    }
    if others {
        parts.push("the disk under --dir".into());
    }
    if let Some(limit) = scenario.device {
        let (bytes, requests) = (show_bytes(limit.bytes_per_s), show_count(limit.iops));
        parts.push(format!("limited to {bytes}/s and {requests} requests/s"));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_named_for_each_world() {
        let (os, both) = ([WorldName::Os], [WorldName::Os, WorldName::Lab]);
        let mut scenario = crate::scenario::find("slow-disk").unwrap();
        let limited = "the disk under --dir; limited to 47.7 MiB/s and 5,000 requests/s";
        assert_eq!(words(&scenario, &os, false), limited);
        let unnamed = words(&scenario, &both, false);
        assert!(
            unnamed.starts_with("the lab's model quick, as none"),
            "{unnamed}"
        );
        assert!(unnamed.contains("run --probe measures"), "{unnamed}");
        let probed = words(&scenario, &both, true);
        assert!(!probed.contains("quick"), "{probed}");
        scenario.lab_device = Some(crate::device::find("hdd-7200").unwrap());
        scenario.device = None;
        assert_eq!(
            words(&scenario, &[WorldName::Lab], false),
            "the lab's model hdd-7200"
        );
        // Rows of raw requests lie on a real disk, whatever the other rows do.
        assert_eq!(
            words(&scenario, &[WorldName::Lab, WorldName::Raw], false),
            "the lab's model hdd-7200; the disk under --dir"
        );
        scenario.lab_device = None;
        let raw = words(&scenario, &[WorldName::Lab, WorldName::Raw], false);
        assert!(!raw.contains("--probe"), "it wants the world os: {raw}");
    }
}
