//! What stands before a disk: the places and the ring of its driver, and the elevator; read from sysfs.
//!
//! The block layer hands a driver as many requests as it has tags. A virtio disk without indirect descriptors has a ring
//! of twice as many, for which its requests' pieces of memory compete (`virtblk_probe` makes half the ring tags); where a
//! request does not fit, the elevator holds it back. Other drivers have room for what they have tags for. Of several
//! hardware queues the first stands for all.

use std::path::Path;

/// Bit of a virtio device's features: VIRTIO_RING_F_INDIRECT_DESC.
const INDIRECT: usize = 28;
/// What Linux gives a disk that says nothing.
const PIECES: u32 = 254;

/// What is known of a disk's front.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Front {
    /// The driver's tags, if they are known.
    pub tags: Option<u32>,
    /// Descriptors that requests compete for; 0: none.
    pub ring: u32,
    /// Is the elevator mq-deadline?
    pub deadline: bool,
    /// The most pieces of memory of one request.
    pub pieces_max: u32,
}

impl Front {
    /// Of the disk `name` (major:minor) below `root`, or the disk that it is a partition of.
    pub fn of(root: &Path, name: &str) -> Front {
        let device = root.join(name);
        let read = |file: &str| -> Option<String> {
            let all = [device.join(file), device.join("..").join(file)];
            all.iter().find_map(|f| std::fs::read_to_string(f).ok())
        };
        let number = |file: &str| read(file)?.trim().parse::<u32>().ok();
        let tags = number("mq/0/nr_tags").filter(|n| *n > 0);
        let indirect = read("device/features").and_then(|f| has_bit(&f, INDIRECT));
        Front {
            tags,
            ring: match (indirect, tags) {
                (Some(false), Some(tags)) => tags.saturating_mul(2).min(1 << 16),
                _ => 0,
            },
            deadline: read("queue/scheduler").is_some_and(|s| s.contains("[mq-deadline]")),
            pieces_max: number("queue/max_segments").map_or(PIECES, |n| n.clamp(1, PIECES)),
        }
    }
}

/// Of a virtio device's features, as digits from bit 0 on; None where they are something else.
fn has_bit(features: &str, bit: usize) -> Option<bool> {
    let digits = features.trim().as_bytes();
    let virtio = digits.len() >= 32 && digits.iter().all(|d| matches!(d, b'0' | b'1'));
    virtio.then(|| digits[bit] == b'1')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("254:0/254:1")).unwrap();
        for (file, text) in files {
            let path = dir.path().join("254:0").join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    fn features(indirect: bool) -> String {
        let bit = |i| match i {
            2 | 6 | 9 | 29 | 32 => '1',
            INDIRECT if indirect => '1',
            _ => '0',
        };
        (0..64).map(bit).collect::<String>() + "\n"
    }

    #[test]
    fn a_virtio_disk_without_indirect_descriptors_has_a_ring() {
        let of = |features: &str| {
            disk(&[
                ("mq/0/nr_tags", "128\n"),
                ("device/features", features),
                ("queue/scheduler", "none [mq-deadline] kyber\n"),
                ("queue/max_segments", "126\n"),
            ])
        };
        let want = Front {
            tags: Some(128),
            ring: 256,
            deadline: true,
            pieces_max: 126,
        };
        let dir = of(&features(false));
        assert_eq!(Front::of(dir.path(), "254:0"), want);
        let partition = Front::of(&dir.path().join("254:0"), "254:1");
        assert_eq!(partition, want, "a partition has its disk's");
        let dir = of(&features(true));
        assert_eq!(Front::of(dir.path(), "254:0"), Front { ring: 0, ..want });
    }

    #[test]
    fn other_disks_have_their_tags() {
        let dir = disk(&[
            ("mq/0/nr_tags", "1023\n"),
            ("device/features", "something else\n"),
            ("queue/scheduler", "[none] mq-deadline\n"),
        ]);
        let want = Front {
            tags: Some(1023),
            ring: 0,
            deadline: false,
            pieces_max: PIECES,
        };
        assert_eq!(Front::of(dir.path(), "254:0"), want);
        let unknown = Front { tags: None, ..want };
        assert_eq!(Front::of(dir.path(), "0:42"), unknown);
    }
}
