//! Each model does what its kind of device is known for.

use super::*;

/// `n` requests of `len` bytes with `depth` in flight from a sequence of offsets: nanoseconds for all of them.
fn closed_loop(
    model: &Model,
    op: IoOp,
    len: u64,
    depth: usize,
    n: usize,
    mut offset: impl FnMut(&mut Rng) -> u64,
) -> u64 {
    model.check().unwrap();
    let mut server = model.server();
    let (mut rng, mut places) = (Rng::new(1, 1), Rng::new(2, 2));
    let mut ends = vec![0u64; depth];
    for _ in 0..n {
        let slot = ends.iter_mut().min().unwrap();
        let access = Access {
            op,
            offset: offset(&mut places),
            len,
            segments: 1,
            extra: 0,
            copying: 0,
        };
        let end = server.end_of(*slot, &access, &mut rng);
        assert!(end > *slot, "MODEL-1");
        *slot = end;
    }
    ends.into_iter().max().unwrap()
}

fn per_s(n: usize, ns: u64) -> u64 {
    n as u64 * 1_000_000_000 / ns
}

fn random(places: &mut Rng) -> u64 {
    places.below(1 << 20) * 4096
}

fn sequential(len: u64) -> impl FnMut(&mut Rng) -> u64 {
    let mut at = 0;
    move |_| {
        at += len;
        at - len
    }
}

#[test]
fn hdd_reads_in_sequence_a_hundred_times_as_fast_as_at_random() {
    let hdd = Model::Hdd(Hdd::default());
    let whole = |places: &mut Rng| places.below(900_000_000) * 4096;
    let random = per_s(400, closed_loop(&hdd, IoOp::Read, 4096, 1, 400, whole));
    // 8.5 ms of seek, 4.2 ms of rotation: some 75 a second.
    assert!(
        (60..110).contains(&random),
        "{random} random reads a second"
    );
    let ns = closed_loop(&hdd, IoOp::Read, 1 << 20, 1, 400, sequential(1 << 20));
    let mb = per_s(400, ns) * (1 << 20) / 1_000_000;
    assert!((190..=215).contains(&mb), "{mb} MB/s in sequence");
}

#[test]
fn hdd_seeks_follow_the_data_sheet() {
    let hdd = Hdd::default();
    let third = seek_of(&hdd, hdd.capacity / 3);
    assert!(third.abs_diff(8_500_000) < 60_000, "{third}");
    assert!(seek_of(&hdd, hdd.capacity).abs_diff(18_000_000) < 60_000);
    let steps: Vec<u64> = (1..100)
        .map(|n| seek_of(&hdd, hdd.capacity / 100 * n))
        .collect();
    assert!(steps.is_sorted(), "{steps:?}");
    assert!(steps[0] > 800_000);
}

/// A seek over `distance` and less than 60 us of rotation.
fn seek_of(hdd: &Hdd, distance: u64) -> u64 {
    let quick = Hdd {
        rpm: 1_000_000,
        overhead: Nanos::ZERO,
        ..hdd.clone()
    };
    let access = Access {
        op: IoOp::Read,
        offset: distance,
        len: 1,
        segments: 1,
        extra: 0,
        copying: 0,
    };
    Model::Hdd(quick)
        .server()
        .end_of(0, &access, &mut Rng::new(1, 1))
}

#[test]
fn hdd_elevators_choose_by_their_rule() {
    let waiting = |token, offset, since| Waiting {
        token,
        since,
        access: Access {
            op: IoOp::Read,
            offset,
            len: 4096,
            segments: 1,
            extra: 0,
            copying: 0,
        },
    };
    let gib = 1 << 30;
    let now = 1_000_000_000;
    let pending = [
        waiting(0, 900 * gib, now),
        waiting(1, 10 * gib, now),
        waiting(2, 300 * gib, now),
        waiting(3, 201 * gib, now),
    ];
    let arm = |elevator| {
        let mut arm = hdd::Arm::new(Hdd {
            elevator,
            ..Hdd::default()
        });
        arm.end_of(0, &waiting(9, 200 * gib, 0).access);
        arm
    };
    assert_eq!(arm(Elevator::Fifo).choose(now, &pending), 0);
    assert_eq!(
        arm(Elevator::CLook).choose(now, &pending),
        3,
        "the next higher"
    );
    assert_eq!(
        arm(Elevator::CLook).choose(now, &pending[1..2]),
        0,
        "back to the lowest"
    );
    let ncq = arm(Elevator::Ncq).choose(now, &pending);
    assert!(ncq == 3 || ncq == 2, "near ones first: {ncq}");
    let mut old = pending;
    old[0].since = now - 500_000_000;
    for elevator in [Elevator::CLook, Elevator::Ncq] {
        assert_eq!(
            arm(elevator).choose(now, &old),
            0,
            "none waits past its time"
        );
    }
}

#[test]
fn nvme_scales_with_depth_until_its_channels_are_busy() {
    let nvme = Model::Nvme(Nvme::default());
    let at = |depth| {
        per_s(
            20_000,
            closed_loop(&nvme, IoOp::Read, 4096, depth, 20_000, random),
        )
    };
    let (one, eight, deep, deeper) = (at(1), at(8), at(128), at(256));
    // The data sheet: 15,000 at depth 1, 500,000 deep.
    assert!((13_000..17_000).contains(&one), "{one}");
    assert!(eight > one * 5, "{one} {eight}");
    assert!((400_000..=500_000).contains(&deep), "{deep}");
    assert!(deeper < deep * 11 / 10, "{deep} {deeper}");
    let few = Model::Nvme(Nvme {
        channels: 4,
        ..Nvme::default()
    });
    let ns = closed_loop(&few, IoOp::Read, 4096, 128, 20_000, random);
    // 4 channels of 50 us.
    assert!((60_000..=80_000).contains(&per_s(20_000, ns)));
    let ns = closed_loop(&nvme, IoOp::Read, 1 << 20, 8, 2_000, sequential(1 << 20));
    let mb = per_s(2_000, ns) * (1 << 20) / 1_000_000;
    assert!((3_300..=3_500).contains(&mb), "{mb} MB/s");
}

#[test]
fn cloud_bursts_until_its_credits_are_spent_and_is_capped_then() {
    let cloud = Model::Cloud(Cloud {
        iops: Bucket {
            per_s: 300,
            burst_per_s: 3_000,
            credits: 10_000,
        },
        ..Cloud::default()
    });
    let burst = per_s(
        9_000,
        closed_loop(&cloud, IoOp::Read, 4096, 32, 9_000, random),
    );
    assert!((2_900..=3_000).contains(&burst), "{burst}");
    let (short, long) = (
        closed_loop(&cloud, IoOp::Read, 4096, 32, 12_000, random),
        closed_loop(&cloud, IoOp::Read, 4096, 32, 15_000, random),
    );
    let after = per_s(3_000, long - short);
    assert!((295..=305).contains(&after), "{after}");
    let gp3 = Model::Cloud(Cloud::default());
    let ns = closed_loop(&gp3, IoOp::Write, 1 << 20, 32, 1_000, sequential(1 << 20));
    let mib = per_s(1_000, ns);
    assert!((120..=126).contains(&mib), "{mib} MiB/s");
}

#[test]
fn a_rested_bucket_regains_no_more_than_its_credits() {
    let model = Cloud {
        iops: Bucket {
            per_s: 100,
            burst_per_s: 1_000_000,
            credits: 50,
        },
        read: Latency::constant(Nanos(1_000)),
        ..Cloud::default()
    };
    let mut server = Model::Cloud(model).server();
    let mut rng = Rng::new(1, 1);
    let access = Access {
        op: IoOp::Read,
        offset: 0,
        len: 512,
        segments: 1,
        extra: 0,
        copying: 0,
    };
    let hour = 3_600_000_000_000;
    let last = (0..60)
        .map(|_| server.end_of(hour, &access, &mut rng))
        .last();
    // 50 at once, ten more at 100 a second.
    assert_eq!(last.unwrap() - hour, 100_000_000);
}

#[test]
fn object_stores_want_large_requests_and_many_of_them() {
    let object = Model::Object(Object::default());
    let mb = |len: u64, depth, n| {
        let ns = closed_loop(&object, IoOp::Read, len, depth, n, sequential(len));
        per_s(n, ns) * len / 1_000_000
    };
    let (small, large) = (mb(64 << 10, 1, 500), mb(8 << 20, 1, 500));
    assert!(large > small * 20, "{small} {large} MB/s");
    assert!(large <= 85, "one connection: {large} MB/s");
    let many = mb(8 << 20, 32, 2_000);
    assert!(
        (1_000..=1_250).contains(&many),
        "{many} MB/s on 32 connections"
    );
    assert_eq!(object.request_bytes_max(), 8 << 20);
}

#[test]
fn impossible_parameters_are_named() {
    let name = |model: Model| model.check().expect_err("must not pass").0;
    let hdd = Hdd::default;
    assert_eq!(name(Model::Hdd(Hdd { rpm: 0, ..hdd() })), "rpm");
    assert_eq!(name(Model::Hdd(Hdd { depth: 0, ..hdd() })), "depth");
    assert_eq!(
        name(Model::Hdd(Hdd {
            capacity: 0,
            ..hdd()
        })),
        "capacity"
    );
    let slow_zone = Hdd {
        inner_bytes_per_s: 0,
        ..hdd()
    };
    assert_eq!(name(Model::Hdd(slow_zone)), "inner_bytes_per_s");
    let ssd = Ssd {
        depth: 0,
        ..Ssd::default()
    };
    assert_eq!(name(Model::Ssd(ssd)), "depth");
    let ssd = Ssd {
        ring: 2,
        ..Ssd::default()
    };
    assert_eq!(name(Model::Ssd(ssd)), "ring");
    let nvme = Nvme {
        channels: 0,
        ..Nvme::default()
    };
    assert_eq!(name(Model::Nvme(nvme)), "channels");
    let object = Object {
        connections: 0,
        ..Object::default()
    };
    assert_eq!(name(Model::Object(object)), "connections");
    let cloud = Cloud {
        depth: 0,
        ..Cloud::default()
    };
    assert_eq!(name(Model::Cloud(cloud)), "depth");
}

#[test]
fn a_simulated_load_repeats_and_knows_the_arm() {
    let load = Load {
        op: IoOp::Read,
        len: 4096,
        depth: 32,
        sequential: false,
        span: 1 << 40,
        count: 300,
        segments: 1,
        copying: 0,
        beside: Beside::default(),
        hand_in: HandIn::default(),
    };
    let hdd = |elevator| {
        Model::Hdd(Hdd {
            elevator,
            ..Hdd::default()
        })
    };
    let of = |elevator| hdd(elevator).simulate(&load, 1);
    let (fifo, clook, ncq) = (of(Elevator::Fifo), of(Elevator::CLook), of(Elevator::Ncq));
    assert!(
        clook.per_s() > fifo.per_s() * 1.3,
        "{} {}",
        clook.per_s(),
        fifo.per_s()
    );
    assert!(
        ncq.per_s() > clook.per_s(),
        "{} {}",
        ncq.per_s(),
        clook.per_s()
    );
    assert!(
        ncq.quantile(1.0) < Nanos::from_millis(1_500),
        "expire bounds the wait"
    );
    assert_eq!(ncq, of(Elevator::Ncq));
    let beside = Load {
        copying: 0,
        beside: Beside {
            writes: 8,
            len: 4096,
            segments: 1,
        },
        hand_in: HandIn::default(),
        depth: 1,
        ..load
    };
    let quiet = Load {
        copying: 0,
        beside: Beside::default(),
        hand_in: HandIn::default(),
        ..beside
    };
    let mean = |load| hdd(Elevator::Ncq).simulate(load, 1).per_s();
    assert!(mean(&beside) < mean(&quiet) / 1.5, "writes cost reads");
}
