//! The flash disk: what occupies it, what requests cost each other, and how they wait for its ring.

use super::*;

const fn us(n: u64) -> Nanos {
    Nanos::from_micros(n)
}

fn access(op: IoOp, len: u64, segments: u32) -> Access {
    Access {
        op,
        offset: 0,
        len,
        segments,
        extra: 0,
        copying: 0,
    }
}

/// A server that takes 10 us for a read, 1 us a KiB, 2 us for each further piece; 50 us pass until 4 KiB are read alone.
fn disk() -> Ssd {
    Ssd {
        depth: 128,
        read: Latency::constant(us(50)),
        write: Latency::constant(us(50)),
        read_rate: Rate::ns_per_kib(1_000),
        write_rate: Rate::ns_per_kib(1_000),
        read_request_rate: Rate::ns_per_kib(1_000),
        read_segment: us(2),
        read_iops: 1_000_000 / 14,
        ..Ssd::default()
    }
}

fn load(op: IoOp, len: u64, segments: u32, depth: usize) -> Load {
    Load {
        op,
        len,
        depth,
        sequential: false,
        span: 1 << 30,
        segments,
        count: 4_000,
        copying: 0,
        beside: Beside::default(),
        hand_in: HandIn::default(),
    }
}

#[track_caller]
fn near(got: f64, want: f64, percent: f64) {
    assert!(
        (got / want - 1.0).abs() * 100.0 <= percent,
        "{got}, expected {want}"
    );
}

#[test]
fn copies_beside_it_slow_its_bytes_down_in_proportion() {
    let disk = Model::Ssd(Ssd {
        read_rate_beside_copies: Rate::ns_per_kib(1_500),
        // Quicker than without makes no sense, and nothing quicker.
        write_rate_beside_copies: Rate::ns_per_kib(500),
        ..disk()
    });
    for (op, copying, want) in [
        (IoOp::Read, 0, 74.0),
        (IoOp::Read, 10_000, 106.0),
        (IoOp::Read, 5_000, 90.0),
        (IoOp::Write, 10_000, 64.0),
    ] {
        let load = Load {
            copying,
            ..load(op, 64 << 10, 1, 32)
        };
        near(1e6 / disk.simulate(&load, 1).per_s(), want, 1.0);
    }
}

#[test]
fn a_write_that_begins_where_the_last_one_ended_costs_less() {
    let disk = Model::Ssd(Ssd {
        write_adjoining: us(6),
        write_iops: 50_000,
        ..disk()
    });
    let took = |op, sequential| {
        let load = Load {
            sequential,
            ..load(op, 4096, 1, 32)
        };
        1e6 / disk.simulate(&load, 1).per_s()
    };
    let apart = took(IoOp::Write, false);
    near(apart - took(IoOp::Write, true), 6.0, 2.0);
    near(took(IoOp::Read, true), took(IoOp::Read, false), 2.0);
}

#[test]
fn requests_bytes_and_pieces_add_up() {
    let disk = Model::Ssd(disk());
    for (kib, segments, want) in [(4, 1, 14.0), (16, 1, 26.0), (16, 4, 32.0), (64, 16, 104.0)] {
        let busy = disk.simulate(&load(IoOp::Read, kib << 10, segments, 32), 1);
        near(1e6 / busy.per_s(), want, 1.0);
        let alone = disk.simulate(&load(IoOp::Read, kib << 10, segments, 1), 1);
        near(alone.quantile(0.5).0 as f64 / 1e3, 50.0 + want - 14.0, 10.0);
    }
}

#[test]
fn a_crowd_costs_what_its_curve_says_and_further_bytes_come_on_top() {
    let crowd = Curve::points(vec![(1, us(7)), (31, us(318)), (127, us(1_059))]).unwrap();
    let disk = Model::Ssd(Ssd {
        read_crowd: crowd,
        read_iops: 140_000,
        ..disk()
    });
    let p50 = |len, depth| {
        let got = disk.simulate(&load(IoOp::Read, len, 1, depth), 1);
        got.quantile(0.5).0 as f64 / 1e3
    };
    for (depth, want) in [(1, 50.0), (2, 57.0), (32, 368.0), (128, 1_109.0)] {
        near(p50(4096, depth), want, 5.0);
    }
    // The further 12 KiB of each come on top.
    near(p50(16 << 10, 32), 368.0 + 32.0 * 12.0, 12.0);
}

#[test]
fn requests_that_are_signalled_together_take_a_latency_and_all_occupancies() {
    let together = Ssd {
        completions: Completions::Together,
        ..disk()
    };
    let disk = Model::Ssd(together.clone());
    let p50 = |kib: u64, depth| {
        let got = disk.simulate(&load(IoOp::Read, kib << 10, 1, depth), 1);
        got.quantile(0.5).0 as f64 / 1e3
    };
    // 50 us alone, of which 14 occupy the disk.
    for (depth, want) in [(1, 50.0), (8, 36.0 + 8.0 * 14.0), (32, 36.0 + 32.0 * 14.0)] {
        near(p50(4, depth), want, 1.0);
    }
    near(p50(16, 32), 36.0 + 32.0 * 26.0, 1.0);
    // What a crowd costs beyond them comes on top.
    let crowd = Curve::points(vec![(7, us(140))]).unwrap();
    let crowded = Model::Ssd(Ssd {
        read_crowd: crowd,
        ..together
    });
    let got = crowded.simulate(&load(IoOp::Read, 4096, 1, 8), 1);
    near(got.quantile(0.5).0 as f64 / 1e3, 50.0 + 140.0, 1.0);
}

#[test]
fn who_was_signalled_together_stays_together() {
    let disk = Model::Ssd(Ssd {
        completions: Completions::Together,
        read: Latency::uniform(us(40), us(80)),
        ..disk()
    });
    for depth in [2, 8, 32] {
        let load = Load {
            count: 60_000,
            ..load(IoOp::Read, 4096, 1, depth)
        };
        let got = disk.simulate(&load, 1);
        let n = depth as f64;
        // The latest latency and the occupancies of the others, each time: nobody falls out of step and goes without them.
        let latest = Latency::uniform(us(40), us(80)).of_round(depth as u32);
        let us = |t: Nanos| t.0 as f64 / 1e3;
        near(
            n * 1e6 / got.per_s(),
            us(latest.mean()) + (n - 1.0) * 14.0,
            2.0,
        );
        let spread = us(got.quantile(0.99)) - us(got.quantile(0.01));
        near(spread, us(latest.at(990_000)) - us(latest.at(10_000)), 5.0);
    }
}

#[test]
fn an_idle_server_begins_late_and_who_comes_meanwhile_is_signalled_with_the_first() {
    let mut server = Model::Ssd(Ssd {
        completions: Completions::Together,
        wake: us(20),
        ..disk()
    })
    .server();
    let mut rng = Rng::new(1, 1);
    let read = access(IoOp::Read, 4096, 1);
    let mut first = server.serve(1_000, &read, &mut rng);
    assert_eq!(first.at, 35_000, "20 us of waking and 14 of reading");
    let mut second = server.serve(16_000, &read, &mut rng);
    assert_eq!(server.put_off(35_000, &mut first), Some(49_000));
    for served in [&mut first, &mut second] {
        assert_eq!(server.put_off(49_000, served), Some(65_000), "50 us alone");
        assert_eq!(server.put_off(65_000, served), None);
    }
    let third = server.serve(50_000, &read, &mut rng);
    assert_eq!(third.at, 84_000, "a round of its own");
}

#[test]
fn a_read_beside_small_writes_finds_the_disk_idle_or_waits_for_all_of_them() {
    let latency = |points: [(u32, u64); 4]| {
        Latency::quantiles(points.map(|(ppm, ns)| (ppm, Nanos(ns))).into()).unwrap()
    };
    // As a quiet virtio disk was measured; the writes are handed in at 3 us each. A read beside 16 writes took, at p10, p25, p75 and p90: 42, 46, 189, 204 us.
    let disk = Model::Ssd(Ssd {
        completions: Completions::Together,
        read: latency([
            (0, 30_005),
            (500_000, 42_484),
            (900_000, 50_196),
            (990_000, 62_804),
        ]),
        write: latency([
            (0, 31_860),
            (500_000, 50_147),
            (900_000, 60_547),
            (990_000, 75_171),
        ]),
        read_crowd: Curve::slope(Nanos(10_882)),
        write_crowd: Curve::points(vec![(1, us(6)), (7, us(60)), (15, us(135))]).unwrap(),
        read_rate: Rate::bytes_per_s(3_600_000_000),
        write_rate: Rate::bytes_per_s(7_000_000_000),
        read_iops: 100_753,
        write_iops: 137_800,
        ..ringed()
    });
    let beside = Beside {
        writes: 16,
        len: 4096,
        segments: 1,
    };
    let hand_in = HandIn {
        load: Nanos::ZERO,
        beside: us(3),
    };
    let load = Load {
        beside,
        hand_in,
        ..load(IoOp::Read, 4096, 1, 1)
    };
    let got = disk.simulate(&load, 1);
    for (q, want) in [(0.1, 42.0), (0.25, 46.0), (0.75, 189.0), (0.9, 204.0)] {
        near(got.quantile(q).0 as f64 / 1e3, want, 25.0);
    }
}

#[test]
fn flushes_pay_for_what_was_written() {
    let mut server = Model::Ssd(Ssd {
        flush: Latency::constant(us(20)),
        flush_rate: Rate::ns_per_kib(1_000),
        ..disk()
    })
    .server();
    let mut rng = Rng::new(1, 1);
    server.end_of(0, &access(IoOp::Write, 8192, 1), &mut rng);
    assert_eq!(server.flush_end(3_000_000, &mut rng), 3_028_000);
    assert_eq!(server.flush_end(4_000_000, &mut rng), 4_020_000);
}

/// The disk with a ring of 256 and mq-deadline.
fn ringed() -> Ssd {
    Ssd {
        ring: 256,
        elevator: Scheduler::Deadline,
        ..disk()
    }
}

fn waiting(token: u64, op: IoOp, offset: u64, segments: u32) -> Waiting {
    Waiting {
        token,
        access: Access {
            offset,
            ..access(op, u64::from(segments) * 4096, segments)
        },
        since: 0,
    }
}

#[test]
fn the_ring_takes_what_fits_and_the_chosen_one_stays_the_next() {
    let mut server = Model::Ssd(ringed()).server();
    assert!(server.has_front() && server.hung_stays());
    let mut all = vec![
        waiting(0, IoOp::Write, 0, 150),
        waiting(1, IoOp::Write, 1 << 20, 150),
    ];
    assert_eq!(server.take(0, &all), Some(0));
    all.remove(0);
    assert_eq!(server.take(0, &all), None, "152 + 152 descriptors");
    // The write was chosen before the read came: the read does not pass it, and does not pass the full ring.
    all.push(waiting(2, IoOp::Read, 0, 1));
    assert_eq!(server.take(0, &all), None);
    server.leave(150);
    assert_eq!(server.take(0, &all), Some(0));
    all.remove(0);
    assert_eq!(server.take(0, &all), Some(0), "3 more fit");
    all.remove(0);
    assert_eq!(server.take(0, &all), None);
    // One that is larger than the ring goes when the ring is empty.
    server.leave(150);
    server.leave(1);
    assert_eq!(server.take(0, &[waiting(3, IoOp::Read, 0, 400)]), Some(0));
}

#[test]
fn without_an_elevator_requests_wait_as_they_came() {
    let mut server = Model::Ssd(Ssd {
        elevator: Scheduler::None,
        ..ringed()
    })
    .server();
    let all: Vec<_> = (0..100)
        .map(|n| waiting(n, IoOp::Read, (100 - n) << 12, 1))
        .collect();
    let mut left = all;
    let mut went = 0;
    while let Some(next) = server.take(0, &left) {
        assert_eq!(next, 0);
        left.remove(next);
        went += 1;
    }
    assert_eq!(went, 85, "three descriptors each");
    let plain = Model::Ssd(disk()).server();
    assert!(!plain.has_front(), "nothing waits where there is no ring");
}

#[test]
fn the_depth_bounds_what_is_in_the_ring() {
    let mut server = Model::Ssd(Ssd {
        depth: 2,
        ring: 0,
        ..ringed()
    })
    .server();
    let all: Vec<_> = (0..3).map(|n| waiting(n, IoOp::Read, n << 12, 1)).collect();
    assert_eq!(server.take(0, &all), Some(0));
    assert_eq!(server.take(0, &all[1..]), Some(0));
    assert_eq!(server.take(0, &all[2..]), None);
}

#[test]
fn requests_in_the_ring_are_served_in_order_and_those_before_it_by_address() {
    let disk = Model::Ssd(ringed());
    let spread = |segments| {
        let s = disk.simulate(&load(IoOp::Read, 1 << 20, segments, 32), 1);
        s.quantile(0.99).0 as f64 / s.quantile(0.5).0 as f64
    };
    assert!(spread(1) < 1.2, "{}", spread(1));
    assert!(spread(254) > 3.0, "{}", spread(254));
}

#[test]
fn who_is_passed_over_waits_for_the_end_of_the_load_at_most() {
    let disk = Model::Ssd(ringed());
    let of = |count| {
        let load = Load {
            count,
            ..load(IoOp::Read, 1 << 20, 254, 32)
        };
        let s = disk.simulate(&load, 1);
        assert_eq!(s.latency.len(), count, "those in flight at the end, too");
        s
    };
    let (short, long) = (of(64), of(4_000));
    assert!(short.quantile(1.0) <= short.elapsed);
    assert!(long.quantile(0.99).0 > short.quantile(0.99).0 * 3 / 2);
}

#[test]
fn a_read_waits_behind_all_writes_in_the_ring_but_passes_most_of_those_before_it() {
    let p50 = |segments| {
        let beside = Beside {
            writes: 32,
            len: 1 << 20,
            segments,
        };
        let load = Load {
            beside,
            ..load(IoOp::Read, 4096, 1, 1)
        };
        let s = Model::Ssd(ringed()).simulate(&load, 1);
        s.quantile(0.5).0 as f64 / 1e6
    };
    let (contiguous, scattered) = (p50(1), p50(254));
    // A write occupies the disk for a millisecond. Before the ring, the read waits for the rest of a batch.
    assert!(contiguous > 30.0, "{contiguous} ms");
    assert!(scattered < 18.0, "{scattered} ms");
}
