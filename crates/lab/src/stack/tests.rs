use super::*;
use crate::{LabOptions, LabWorld};
use highwater_engine::{Nanos, World};

/// Uses `frames` frames, each with at least `N` bytes written.
#[inline(never)]
fn dig<const N: usize>(frames: u32) -> u64 {
    let mut bytes = [frames as u8; N];
    std::hint::black_box(&mut bytes);
    if frames == 0 {
        return u64::from(bytes[0]);
    }
    dig::<N>(frames - 1) + u64::from(bytes[N / 2])
}

fn options(stack_size: usize) -> LabOptions {
    LabOptions {
        stack_size,
        stack_trace: true,
        ..LabOptions::calm(1)
    }
}

/// One task of `frames` frames and one that waits; what is known of their stacks.
fn diggers(options: LabOptions, frames: u32) -> Vec<StackUse> {
    try_diggers(options, frames).unwrap_or_else(|overflow| panic!("{overflow}"))
}

fn try_diggers(options: LabOptions, frames: u32) -> Result<Vec<StackUse>, Box<Overflow>> {
    let world = LabWorld::new(options);
    let w = world.clone();
    world.try_run(move || {
        let w2 = w.clone();
        w.spawn_local("waits", move || w2.park(Nanos::from_secs(9)));
        let digger = w.spawn_local("digs", move || {
            std::hint::black_box(dig::<200>(frames));
        });
        w.join(digger, Nanos::from_secs(1));
    })?;
    Ok(world.stacks())
}

fn find<'a>(stacks: &'a [StackUse], name: &str) -> &'a StackUse {
    stacks.iter().find(|s| s.name == name).unwrap()
}

fn depth(frames: u32) -> u64 {
    find(&diggers(options(64 << 10), frames), "digs")
        .deepest
        .unwrap()
}

#[test]
fn the_deepest_use_is_exact_to_the_frame() {
    if !MEASURED {
        return;
    }
    let each = depth(11) - depth(10);
    assert!((200..400).contains(&each), "{each}");
    for frames in [20, 47, 150] {
        assert_eq!(depth(frames) - depth(10), each * u64::from(frames - 10));
    }
}

#[test]
fn tasks_that_live_are_measured_too_and_without_paint_nothing_is() {
    let stacks = diggers(options(16 << 10), 3);
    assert_eq!(find(&stacks, "waits").deepest.is_some(), MEASURED);
    assert_eq!(find(&stacks, "waits").size, 16 << 10);
    let plain = LabOptions {
        stack_trace: false,
        ..options(16 << 10)
    };
    assert!(diggers(plain, 3).iter().all(|s| s.deepest.is_none()));
}

#[test]
fn a_stack_that_is_used_again_is_painted_again() {
    if !MEASURED {
        return;
    }
    let world = LabWorld::new(options(16 << 10));
    let w = world.clone();
    world.run(move || {
        for frames in [40, 5, 20] {
            let task = w.spawn_local("digs", move || {
                std::hint::black_box(dig::<200>(frames));
            });
            assert!(w.join(task, Nanos::from_secs(1)));
        }
    });
    let depths: Vec<u64> = world.stacks()[1..]
        .iter()
        .map(|s| s.deepest.unwrap())
        .collect();
    assert_eq!(depths[2] - depths[1], (depths[0] - depths[1]) * 15 / 35);
}

/// Every size, whole pages or not, ends exactly where it says.
#[test]
fn stack_1_the_byte_below_the_last_is_guarded() {
    if !MEASURED {
        return;
    }
    let deepest = depth(30);
    let fits = deepest.next_multiple_of(ALIGN as u64) as usize;
    assert_eq!(
        find(&diggers(options(fits), 30), "digs").deepest,
        Some(deepest)
    );
    for short in [16, 32, 128, 1024] {
        let overflow = try_diggers(options(fits - short), 30).unwrap_err();
        assert_eq!(
            (&*overflow.task, overflow.size),
            ("digs", (fits - short) as u64)
        );
        assert!(overflow.fault > overflow.size && overflow.fault <= deepest);
        sums(&overflow.chain, overflow.fault);
        assert!(
            overflow.chain.frames[0].symbol.contains("dig"),
            "{overflow}"
        );
    }
}

/// CHAIN-1, and that each frame lies on its caller's.
fn sums(chain: &Chain, depth: u64) {
    assert_eq!(chain.depth(), depth, "{chain}");
    let mut left = depth;
    for frame in &chain.frames {
        assert_eq!(frame.depth, left, "{chain}");
        left -= frame.size;
    }
    assert_eq!(left, 0, "CHAIN-1: {chain}");
}

/// The chain at the record of `task` in a second run.
fn record(frames: u32) -> (u64, Chain) {
    let first = diggers(options(64 << 10), frames);
    let task = find(&first, "digs");
    let deepest = task.deepest.unwrap();
    let again = LabOptions {
        stack_records: [(task.task.0, deepest)].into(),
        ..options(64 << 10)
    };
    let second = diggers(again, frames);
    let task = find(&second, "digs");
    assert_eq!(task.deepest, Some(deepest), "the run repeats");
    (deepest, task.chain.clone().unwrap())
}

#[test]
fn chain_1_the_chain_at_the_record_adds_up_to_it() {
    if !MEASURED {
        return;
    }
    for frames in 10..30 {
        let (deepest, chain) = record(frames);
        sums(&chain, deepest);
        let digs: Vec<_> = chain
            .frames
            .iter()
            .filter(|f| f.symbol.ends_with("::dig"))
            .collect();
        assert_eq!(digs.len() as u32, frames + 1, "{chain}");
        let sizes: Vec<u64> = digs[1..].iter().map(|f| f.size).collect();
        assert!(sizes.iter().all(|s| *s == sizes[0]), "{chain}");
        assert!(
            digs.iter()
                .all(|f| f.symbol_size > 0 && f.offset <= f.symbol_size)
        );
    }
}

#[test]
fn a_chain_is_printed_as_linux_prints_it() {
    if !MEASURED {
        return;
    }
    let (deepest, chain) = record(10);
    let text = chain.to_string();
    let mut lines = text.lines();
    let n = chain.frames.len();
    let header = format!("        Depth    Size   Location    ({n} entries)");
    assert_eq!(lines.next(), Some(&*header));
    assert_eq!(lines.next(), Some("        -----    ----   --------"));
    let row = lines.next().unwrap();
    let frame = &chain.frames[0];
    let start = format!("  0) {deepest:8} {:5}   {}", frame.size, frame.symbol);
    assert_eq!(
        row,
        format!("{start}+{:#x}/{:#x}", frame.offset, frame.symbol_size)
    );
    assert_eq!(lines.count(), n - 1);
}

#[test]
fn a_panic_fits_on_a_small_stack() {
    let world = LabWorld::new(options(8 << 10));
    let w = world.clone();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.run(move || {
            w.spawn_local("t", || panic!("planted {}", std::hint::black_box(7)));
            w.park(Nanos::from_secs(1));
        })
    }));
    let panic = caught.err().unwrap();
    assert_eq!(
        panic.downcast_ref::<String>().map(String::as_str),
        Some("planted 7")
    );
}

#[test]
fn a_run_with_small_stacks_is_the_same_run() {
    let trace = |options: LabOptions| {
        let world = LabWorld::new(LabOptions {
            preempt_ppm: 300_000,
            ..options
        });
        let w = world.clone();
        let run = world.run(move || {
            for n in 0..5 {
                let w2 = w.clone();
                let t = w.spawn_local("t", move || {
                    for _ in 0..20 {
                        w2.charge(highwater_engine::world::Work::Copy, n);
                        w2.park(Nanos(w2.now().0 + w2.random() % 1_000));
                    }
                });
                w.join(t, Nanos(n.into()));
            }
        });
        run.trace
    };
    let plain = trace(LabOptions::calm(4));
    assert_eq!(
        plain,
        trace(LabOptions {
            stack_size: 8 << 10,
            stack_trace: true,
            ..LabOptions::calm(4)
        })
    );
    assert_eq!(
        plain,
        trace(LabOptions {
            stack_records: [(3, 500)].into(),
            ..LabOptions::calm(4)
        })
    );
}

/// `n` small frames, and then the heap: with `n` large enough the overflow is in the C library, under its lock.
#[inline(never)]
fn allocate_below(n: u32) -> usize {
    let frame = std::hint::black_box([n; 4]);
    match n {
        0 => (1..40).map(|i| vec![0u8; i * 700].capacity()).sum(),
        _ => allocate_below(n - 1) + frame[0] as usize,
    }
}

#[test]
fn an_overflow_inside_the_heap_is_a_finding_and_no_deadlock() {
    if !MEASURED {
        return;
    }
    let mut found = 0;
    for n in 0..120 {
        let world = LabWorld::new(options(4096));
        let w = world.clone();
        let run = world.try_run(move || {
            let task = w.spawn_local("allocates", move || {
                std::hint::black_box(allocate_below(n));
            });
            w.join(task, Nanos::from_secs(1));
        });
        if let Err(overflow) = run {
            // The report allocates.
            assert!(overflow.to_string().contains("allocates"), "{overflow}");
            found += 1;
        }
    }
    assert!(found > 10, "{found} of 120 overflowed");
}
