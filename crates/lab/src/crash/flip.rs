//! Damage: each byte of a small volume changed in turn. What is read then is right, or an error that says so.
//!
//! **Invariants.**
//! - FLIP-1: with one byte changed a mount gives the file's right length, and a read the right bytes, or either an error;
//!   never a panic.
//! - FLIP-2: where one of them is an error, `fsck` finds a fault, and it never panics.

use super::{Drawn, FILE, engine, formatted};
use crate::device::{FaultRates, LabQueue, Moment, QueueOptions, RamDevice, RamOptions};
use crate::rng::Rng;
use crate::world::{LabOptions, LabWorld};
use highwater_engine::backing::journaled::{MountOptions, Volume, fsck};
use highwater_engine::world::Device;
use highwater_engine::{Engine, FileId, FileOptions, LendContext, Nanos, Preset};
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// What became of the changed bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flipped {
    /// Bytes of the volume.
    pub bytes: u64,
    /// Bytes changed.
    pub tried: u64,
    /// The mount was refused.
    pub refused_at_mount: u64,
    /// A read was refused.
    pub refused_at_read: u64,
    /// All was right: nobody needs this byte, or there is another copy of what it says.
    pub right: u64,
}

/// The small volume: `pages` of file, on a log and a disk as small as can be used.
fn small(seed: u64) -> Drawn {
    Drawn {
        seed,
        page_size: 4096,
        pages: 6,
        device_bytes: (2 + 8 + 2 + 14) * 4096,
        log_blocks: 8,
        memory: 1 << 20,
        preset: Preset::Highwater,
        lend: LendContext::Reserve,
        refuse: false,
        tasks: 1,
        ops: 0,
        lazy: false,
        faults: FaultRates::default(),
        faulty: false,
        image_ppm: 0,
        #[cfg(feature = "plant")]
        plant: None,
    }
}

/// A volume with a history: its image after so many syncs, and what its file holds.
fn worn(drawn: &Drawn, syncs: u64) -> (Vec<u8>, Vec<u8>) {
    let drawn = drawn.clone();
    let world = LabWorld::new(LabOptions::calm(drawn.seed));
    let inner = world.clone();
    let run = world.run(move || {
        let device = formatted(&inner, &drawn);
        let engine = engine(&inner, &drawn);
        let (volume, file) = super::mount(&engine, &device, &drawn);
        let mut rng = Rng::new(drawn.seed, 110);
        let len = drawn.pages * 4096 - 1000;
        let mut expected = vec![0; len as usize];
        // Through all of the log more than once, with checkpoints of both areas.
        for round in 0..syncs {
            for _ in 0..rng.between(1, 3) {
                let page = rng.below(drawn.pages) as usize * 4096;
                let n = 4096.min(expected.len() - page);
                let bytes: Vec<u8> = (0..n).map(|_| rng.next_u64() as u8).collect();
                file.write_at(&bytes, page as u64).expect("a write");
                expected[page..page + n].copy_from_slice(&bytes);
            }
            if round == 0 {
                file.set_len(len).expect("a length");
            }
            if round % 13 == 5 {
                let page = rng.below(drawn.pages - 1) as usize * 4096;
                file.discard(page as u64..page as u64 + 4096)
                    .expect("a hole");
                expected[page..page + 4096].fill(0);
            }
            file.sync_data().expect("a sync");
        }
        assert!(volume.info().checkpoints > 2, "both areas are in use");
        engine.abandon();
        drop(volume);
        (device.visible(), expected)
    });
    run.value
}

/// Changes each byte of `range` (of all, where it is `None`) of a small volume in turn, and looks at what is read then. The
/// volume has been synced so many times: how much of its state is in the log depends on that.
///
/// # Panics
/// Where FLIP-1 or FLIP-2 does not hold, with the byte.
pub fn flip_each_byte(seed: u64, syncs: u64, range: Option<Range<u64>>) -> Flipped {
    let drawn = small(seed);
    let (image, expected) = worn(&drawn, syncs);
    let world = LabWorld::new(LabOptions {
        steps_max: u64::MAX,
        time_max: Nanos(u64::MAX / 2),
        ..LabOptions::calm(seed)
    });
    let inner = world.clone();
    let run = world.run(move || {
        let engine = engine(&inner, &drawn);
        let queue = LabQueue::new(&inner, QueueOptions::default());
        let mut bench = Bench::new(&queue, image);
        let mut rng = Rng::new(seed, 120);
        let all = 0..bench.image.len() as u64;
        let mut out = Flipped {
            bytes: all.end,
            ..Flipped::default()
        };
        // Unharmed, it is right.
        assert_eq!(look(&engine, &bench.device, &expected, 0), Seen::Right);
        for at in range.unwrap_or(all) {
            let mask = 1 + rng.below(255) as u8;
            bench.set(at, bench.image[at as usize] ^ mask);
            let seen = look(&engine, &bench.device, &expected, at);
            let found = fsck(&*bench.device).map_or(1, |r| r.faults.len());
            assert!(
                seen == Seen::Right || found > 0,
                "FLIP-2: byte {at}: {seen:?}, and fsck finds nothing"
            );
            bench.set(at, bench.image[at as usize]);
            bench.renew(&queue);
            out.tried += 1;
            match seen {
                Seen::Right => out.right += 1,
                Seen::MountRefused => out.refused_at_mount += 1,
                Seen::ReadRefused => out.refused_at_read += 1,
            }
        }
        engine.abandon();
        out
    });
    run.value
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    Right,
    MountRefused,
    ReadRefused,
}

/// FLIP-1.
fn look(engine: &Arc<Engine<LabWorld>>, device: &Arc<RamDevice>, expected: &[u8], at: u64) -> Seen {
    let Ok(volume) = Volume::mount(
        device.clone(),
        engine.page_source(),
        MountOptions::default(),
    ) else {
        return Seen::MountRefused;
    };
    let id = FileId {
        ino: at + 2,
        ..FILE
    };
    let file = engine
        .open(id, volume, FileOptions { write: false })
        .expect("open");
    assert_eq!(
        file.len(),
        expected.len() as u64,
        "FLIP-1: byte {at}: the length"
    );
    let mut seen = Seen::Right;
    let mut bytes = [0; 4096];
    for (page, want) in expected.chunks(4096).enumerate() {
        match file.read_at(&mut bytes, page as u64 * 4096) {
            Ok(n) => assert!(
                bytes[..n] == *want,
                "FLIP-1: byte {at}: page {page} is wrong"
            ),
            Err(_) => seen = Seen::ReadRefused,
        }
    }
    seen
}

/// The device, which is made anew when somebody has written to it.
struct Bench {
    image: Vec<u8>,
    device: Arc<RamDevice>,
    written: Rc<Cell<bool>>,
}

impl Bench {
    fn new(queue: &Arc<LabQueue>, image: Vec<u8>) -> Bench {
        let device = Bench::device(queue, &image);
        let mut bench = Bench {
            image,
            device,
            written: Rc::default(),
        };
        bench.watch();
        bench
    }

    fn device(queue: &Arc<LabQueue>, image: &[u8]) -> Arc<RamDevice> {
        RamDevice::new(
            queue,
            RamOptions {
                content: image.to_vec(),
                ..RamOptions::default()
            },
        )
    }

    fn watch(&mut self) {
        self.written = Rc::default();
        let written = self.written.clone();
        self.device.observe(move |moment| {
            if matches!(moment, Moment::Written(_)) {
                written.set(true);
            }
        });
    }

    fn set(&mut self, at: u64, byte: u8) {
        let written = self.written.get();
        self.device.write_now(at, &[byte]).expect("no faults");
        self.written.set(written);
    }

    fn renew(&mut self, queue: &Arc<LabQueue>) {
        if self.written.take() {
            self.device = Bench::device(queue, &self.image);
            self.watch();
        }
    }
}
