//! The disks of a seed: every model, quick enough that a run of 20,000 operations has time to turn its memory over.

use crate::device::model::{
    Bucket, Cloud, Completions, Curve, Elevator, Hdd, Latency, Nvme, Object, Rate, Scheduler, Ssd,
};
use crate::device::{Cap, Model, QueueOptions};
use crate::rng::Rng;
use highwater_engine::Nanos;

fn us(r: &mut Rng, low: u64, high: u64) -> Nanos {
    Nanos::from_micros(r.between(low, high))
}

/// A range of latencies, the longest up to three times the shortest.
fn spread(r: &mut Rng, low: u64, high: u64) -> Latency {
    let least = us(r, low, high);
    Latency::uniform(least, Nanos(least.0 + r.below(2 * least.0)))
}

/// A flash disk in five numbers.
pub(super) fn ssd(r: &mut Rng, slow: u64) -> Model {
    Model::Ssd(Ssd::simple(
        r.pick(&[1, 8, 32]),
        [
            Nanos::from_micros(r.between(20, 120) * slow),
            Nanos::from_micros(r.between(10, 80) * slow),
            Nanos::from_micros(r.pick(&[5, 50, 300, 1_000])),
        ],
        r.pick(&[300, 1_000, 5_000]),
        r.pick(&[0, 20, 100]),
    ))
}

/// A model of another kind.
pub(super) fn other(r: &mut Rng) -> Model {
    match r.below(4) {
        // Files lie a GiB apart, so seeks between them are most of the stroke.
        0 => Model::Hdd(Hdd {
            capacity: 4 << 30,
            rpm: r.pick(&[15_000, 60_000]),
            seek_track: Nanos::from_micros(20),
            seek_average: us(r, 50, 400),
            seek_full: Nanos::from_micros(800),
            overhead: Nanos::from_micros(5),
            depth: r.pick(&[1, 8, 32]),
            elevator: r.pick(&[Elevator::Fifo, Elevator::CLook, Elevator::Ncq]),
            expire: Nanos::from_millis(r.pick(&[5, 500])),
            flush: us(r, 100, 2_000),
            ..Hdd::default()
        }),
        1 => Model::Nvme(Nvme {
            depth: r.pick(&[8, 64, 256]),
            channels: r.pick(&[1, 4, 32]),
            stripe: r.pick(&[4 << 10, 16 << 10, 128 << 10]),
            flush: us(r, 1, 500),
            ..Nvme::default()
        }),
        2 => Model::Cloud(Cloud {
            depth: r.pick(&[4, 64]),
            read: spread(r, 100, 600),
            write: spread(r, 100, 800),
            flush: us(r, 100, 1_000),
            iops: Bucket {
                per_s: r.pick(&[3_000, 10_000]),
                burst_per_s: r.pick(&[0, 20_000]),
                credits: r.pick(&[0, 500, 5_000]),
            },
            bytes: Bucket {
                per_s: r.pick(&[0, 125 << 20]),
                ..Bucket::default()
            },
            ..Cloud::default()
        }),
        _ => Model::Object(Object {
            connections: r.pick(&[4, 16, 64]),
            get: spread(r, 300, 3_000),
            put: spread(r, 500, 4_000),
            connection_rate: Rate::bytes_per_s(85_000_000),
            request_bytes_max: r.pick(&[64 << 10, 1 << 20, 8 << 20]),
            ..Object::default()
        }),
    }
}

/// A third of the flash disks are seen through a host's ring: few descriptors, an elevator for what finds no room, completions
/// that are heard of together, and a crowd that costs.
pub(super) fn front(r: &mut Rng, model: &mut Model) {
    if !r.chance(333_000) {
        return;
    }
    let ring = r.pick(&[0, 3, 16, 128, 256]);
    let elevator = r.pick(&[Scheduler::None, Scheduler::Deadline, Scheduler::Deadline]);
    let completions = r.pick(&[Completions::Each, Completions::Together]);
    let crowds = [(); 2].map(|()| Curve::slope(Nanos::from_micros(r.pick(&[0, 1, 20]))));
    if let Model::Ssd(ssd) = model {
        (ssd.ring, ssd.elevator, ssd.completions) = (ring, elevator, completions);
        [ssd.read_crowd, ssd.write_crowd] = crowds;
    }
}

/// A limit in front of a disk, now and then.
pub(super) fn cap(r: &mut Rng) -> Option<Cap> {
    r.chance(150_000).then(|| Cap {
        bytes_per_s: r.pick(&[0, 50 << 20, 200 << 20]),
        iops: r.pick(&[0, 5_000, 20_000]),
    })
}

/// The name of a model's kind.
pub fn kind_of(model: &Model) -> &'static str {
    match model {
        Model::Hdd(_) => "hdd",
        Model::Ssd(_) => "ssd",
        Model::Nvme(_) => "nvme",
        Model::Cloud(_) => "cloud",
        Model::Object(_) => "object",
    }
}

/// What `front` has drawn, if anything.
fn front_text(model: &Model) -> String {
    let Model::Ssd(ssd) = model else {
        return String::new();
    };
    let mut text = String::new();
    if ssd.ring > 0 {
        text += &format!(", ring {}", ssd.ring);
    }
    if ssd.elevator == Scheduler::Deadline {
        text += ", elevator deadline";
    }
    if ssd.completions == Completions::Together {
        text += ", completions together";
    }
    if !(ssd.read_crowd.is_free() && ssd.write_crowd.is_free()) {
        text += ", a crowd costs";
    }
    text
}

/// A disk as a line of options has it.
pub(super) fn text(disk: &QueueOptions) -> String {
    let cap = disk.cap.map_or(String::new(), |c| {
        format!(", cap {} bytes/s {} requests/s", c.bytes_per_s, c.iops)
    });
    let front = front_text(&disk.model);
    format!("({}{front}{cap})", disk.model.summary())
}
