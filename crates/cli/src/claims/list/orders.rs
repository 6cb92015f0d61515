//! Claims about blocks of frames in a row: huge pages, what kswapd does for an order, and larger stacks.

use super::{count, operations};
use crate::claims::claim::{Answer, Claim, Condition, Figures, Unit::*, Who};
use crate::claims::runs::{Run, Runs};
use crate::claims::setting::{Blocks, Setting, Work};
use crate::report::ArmReport;
use crate::scenario::{HighOrderName, PolicyPatch};
use crate::units::show_count;
use highwater_engine::Preset;

/// A figure that is larger by this share is larger.
const MORE: f64 = 1.1;
/// Stacks of 16 KiB, half of memory in all, none of them ever given back.
const STACKS: Blocks = Blocks {
    order: 2,
    hold: 1_000,
    rate: 650,
    thp: false,
};
/// Buffers of 128 KiB.
const BUFFERS: Blocks = Blocks {
    order: 5,
    hold: 8,
    rate: 100,
    thp: false,
};
/// Huge pages, asked for as any block is: kswapd is woken, and it is tried again.
const HUGE: Blocks = Blocks {
    order: 9,
    hold: 2,
    rate: 20,
    thp: false,
};

/// The claims.
pub fn claims() -> Vec<Claim> {
    vec![
        Claim {
            name: "thp-kswapd",
            who: Who::Andrea,
            quote: "Transparent hugepage allocation in fact won't even wakeup kswapd that would be insist to create hugepages and shrink an excessive amount of memory",
            claim: "waking kswapd for huge pages frees too much",
            measured: "2.6.35: huge pages asked for with kswapd woken and without: pages reclaimed in all, by whomever",
            rule_text: "holds if waking kswapd reclaims a tenth more in all; silent if it was not woken",
            rule: |f| match f.get("kswapd_wakes") > 0.0 {
                false => Answer::Silent,
                true => Answer::of(f.get("reclaimed_woken") > MORE * f.get("reclaimed_alone")),
            },
            depends: "compaction",
            headline: |f| {
                format!(
                    "reclaimed {}, not woken {}",
                    show_count(f.get("reclaimed_woken") as u64),
                    show_count(f.get("reclaimed_alone") as u64)
                )
            },
            conditions: || {
                vec![
                    huge("lumpy reclaim, as before compaction", HighOrderName::Lumpy),
                    huge("compaction", HighOrderName::Compaction),
                ]
            },
        },
        Claim {
            name: "blind-order",
            who: Who::Andrea,
            quote: "kswapd order-awareness the blind way is surely detrimental and pointless",
            claim: "kswapd that reclaims for an order does harm",
            measured: "2.6.35 with lumpy reclaim against compaction: blocks that were had, and refaults of everybody else",
            rule_text: "holds if reclaiming for the order adds a tenth to refaults and gets no more blocks",
            rule: |f| {
                let harm = f.get("refaults_lumpy") > MORE * f.get("refaults_compaction");
                Answer::of(harm && f.get("got_lumpy") <= f.get("got_compaction"))
            },
            depends: "the order",
            headline: |f| {
                format!(
                    "refaults/op {:.3}, compaction {:.3}",
                    f.get("refaults_lumpy"),
                    f.get("refaults_compaction")
                )
            },
            conditions: each_order,
        },
        Claim {
            name: "lumpy-frees",
            who: Who::Mel,
            quote: "kswapd does end up freeing a lot of memory in response to lumpy reclaim because it also tries to restore watermarks for a high-order page",
            claim: "lumpy reclaim makes kswapd free a lot",
            measured: "2.6.35 with lumpy reclaim against compaction: pages that kswapd reclaimed",
            rule_text: "holds if kswapd frees a tenth more with lumpy reclaim",
            rule: |f| Answer::of(f.get("kswapd_lumpy") > MORE * f.get("kswapd_compaction")),
            depends: "the order",
            headline: |f| {
                format!(
                    "kswapd freed {}, compaction {}",
                    show_count(f.get("kswapd_lumpy") as u64),
                    show_count(f.get("kswapd_compaction") as u64)
                )
            },
            conditions: each_order,
        },
        Claim {
            name: "thread-size",
            who: Who::Mel,
            quote: "increasing THREAD_SIZE would increase the order used for stack allocations, which causes problems of its own",
            claim: "stacks of a higher order cause problems of their own",
            measured: "2.6.35: as many bytes of stacks of 16 KiB as of 8 KiB, in memory that is in pieces",
            rule_text: "holds if more are refused, or refaults rise by a tenth, or the p99.9 of getting one doubles beyond 10 µs",
            rule: |f| {
                let refused = f.get("refused_2") > f.get("refused_1");
                let refaults = f.get("refaults_2") > MORE * f.get("refaults_1");
                let slow = f.get("p999_2") > 10.0 && f.get("p999_2") > 2.0 * f.get("p999_1");
                Answer::of(refused || refaults || slow)
            },
            depends: "compaction",
            headline: |f| {
                format!(
                    "refaults/op {:.3}, order 1 {:.3}",
                    f.get("refaults_2"),
                    f.get("refaults_1")
                )
            },
            conditions: || {
                vec![
                    stacks("lumpy reclaim, as before compaction", HighOrderName::Lumpy),
                    stacks("compaction", HighOrderName::Compaction),
                ]
            },
        },
    ]
}

fn run(label: &'static str, blocks: Blocks, way: HighOrderName) -> Run {
    Run::new(label, Setting::new(Work::Blocks(blocks)), Preset::V2_6_35).with(PolicyPatch {
        high_order: Some(way),
        ..PolicyPatch::default()
    })
}

fn reclaimed(r: &ArmReport) -> f64 {
    count(r, "pgsteal_kswapd") + count(r, "pgsteal_direct")
}

fn refaults(r: &ArmReport) -> f64 {
    count(r, "workingset_refault_file") / operations(r)
}

/// Blocks that were asked for and not had, blocks that were had, and the p99.9 of getting one in microseconds.
fn blocks(r: &ArmReport) -> Result<(f64, f64, f64), String> {
    let task = r.tasks.iter().find(|t| t.blocks.is_some());
    let task = task.ok_or("the run asked for no blocks")?;
    let blocks = task.blocks.as_ref().ok_or("the run asked for no blocks")?;
    let refused = blocks.asked - blocks.got;
    Ok((refused as f64, blocks.got as f64, task.latency_us.p999))
}

fn huge(name: &'static str, way: HighOrderName) -> Condition {
    let alone = Blocks { thp: true, ..HUGE };
    Condition {
        name,
        runs: vec![run("woken", HUGE, way), run("alone", alone, way)],
        figures: |runs: &Runs| {
            let (woken, alone) = (runs.get("woken")?, runs.get("alone")?);
            Ok(Figures::default()
                .with("reclaimed_woken", reclaimed(woken), Count)
                .with("reclaimed_alone", reclaimed(alone), Count)
                .with("got_woken", blocks(woken)?.1, Count)
                .with("got_alone", blocks(alone)?.1, Count)
                .with("kswapd_wakes", count(woken, "wakeup_kswapd"), Count)
                .with("refaults_woken", refaults(woken), Ratio)
                .with("refaults_alone", refaults(alone), Ratio))
        },
    }
}

/// Each order that the scenario asks for, with both ways to make a block.
fn each_order() -> Vec<Condition> {
    vec![
        two_ways("order 2, stacks of 16 KiB", STACKS),
        two_ways("order 5, buffers of 128 KiB", BUFFERS),
        two_ways("order 9, huge pages", HUGE),
    ]
}

fn two_ways(name: &'static str, asked: Blocks) -> Condition {
    Condition {
        name,
        runs: vec![
            run("lumpy", asked, HighOrderName::Lumpy),
            run("compaction", asked, HighOrderName::Compaction),
        ],
        figures: |runs: &Runs| {
            let (lumpy, compaction) = (runs.get("lumpy")?, runs.get("compaction")?);
            let kswapd = |r| count(r, "pgsteal_kswapd");
            Ok(Figures::default()
                .with("got_lumpy", blocks(lumpy)?.1, Count)
                .with("got_compaction", blocks(compaction)?.1, Count)
                .with("refaults_lumpy", refaults(lumpy), Ratio)
                .with("refaults_compaction", refaults(compaction), Ratio)
                .with("kswapd_lumpy", kswapd(lumpy), Count)
                .with("kswapd_compaction", kswapd(compaction), Count)
                .with("hits_lumpy", lumpy.hit_ratio.unwrap_or(0.0), Share)
                .with(
                    "hits_compaction",
                    compaction.hit_ratio.unwrap_or(0.0),
                    Share,
                )
                .with("moved", count(compaction, "pgmigrate_success"), Count))
        },
    }
}

fn stacks(name: &'static str, way: HighOrderName) -> Condition {
    let small = Blocks {
        order: STACKS.order - 1,
        hold: STACKS.hold * 2,
        rate: STACKS.rate * 2,
        ..STACKS
    };
    Condition {
        name,
        runs: vec![run("order-1", small, way), run("order-2", STACKS, way)],
        figures: |runs: &Runs| {
            let (one, two) = (runs.get("order-1")?, runs.get("order-2")?);
            let ((refused_1, got_1, p999_1), (refused_2, got_2, p999_2)) =
                (blocks(one)?, blocks(two)?);
            Ok(Figures::default()
                .with("got_1", got_1, Count)
                .with("got_2", got_2, Count)
                .with("refused_1", refused_1, Count)
                .with("refused_2", refused_2, Count)
                .with("p999_1", p999_1, Micros)
                .with("p999_2", p999_2, Micros)
                .with("refaults_1", refaults(one), Ratio)
                .with("refaults_2", refaults(two), Ratio)
                .with("kswapd_1", count(one, "pgsteal_kswapd"), Count)
                .with("kswapd_2", count(two, "pgsteal_kswapd"), Count))
        },
    }
}
