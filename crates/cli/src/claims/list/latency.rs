//! Claims about latency, and about what the order of reclaim does to the cache.

use super::{count, operations, p999, ratio};
use crate::claims::claim::{Answer, Claim, Condition, Figures, Unit::*, Who};
use crate::claims::runs::{Run, Runs, both_sides};
use crate::claims::setting::{Disk, Limits, Setting, Work};
use crate::scenario::{OnDirtyName, PolicyPatch};
use crate::units::show_us;
use highwater_engine::Preset;

/// Two latencies closer than this share are the same.
const SAME: f64 = 0.1;
/// Dirty pages come to the tail of the LRU only where the limit lets them: see `scenarios/rfc.toml`.
const MIXED: Setting = Setting::new(Work::Mixed).within(Limits::Machine);
const CACHED: Setting = Setting::new(Work::Cached).within(Limits::Machine);

/// The claims.
pub fn claims() -> Vec<Claim> {
    vec![
        Claim {
            name: "low-pressure-latency",
            who: Who::Andrea,
            quote: "When memory pressure is low, not going into ->writepage may be beneficial from latency prospective too",
            claim: "at low pressure, not writing is better for latency",
            measured: "2.6.35 against rfc-2010 with 1.2 x as much data as memory: p99.9 of a task that needs fresh pages",
            rule_text: "holds if the side that does not write is a tenth faster; silent if direct reclaim met no dirty page",
            rule: |f| match f.get("dirty_met") > 0.0 {
                false => Answer::Silent,
                true => Answer::of(faster(f.get("p999_does_not"), f.get("p999_writes"))),
            },
            depends: "the disk",
            headline: two_latencies,
            conditions: || {
                vec![
                    sides("a quick disk", MIXED.at(1.2)),
                    sides(
                        "a disk of 50 MB/s",
                        MIXED.at(1.2).on(Disk::Slow).lasting(1_500),
                    ),
                    sides(
                        "a spindle, 200 requests/s",
                        MIXED.at(1.2).on(Disk::Spindle).lasting(3_000),
                    ),
                ]
            },
        },
        Claim {
            name: "light-pressure-only",
            who: Who::Andrea,
            quote: "surely latency will improve but it's only safe approach on light memory pressure",
            claim: "not writing is only safe under light pressure",
            measured: "2.6.35 against rfc-2010 at 1.2 x and at 8 x memory: p99.9 of a task that needs fresh pages",
            rule_text: "holds if not writing is a tenth faster at 1.2 x and a tenth slower at 8 x",
            rule: |f| {
                let light = faster(f.get("light_does_not"), f.get("light_writes"));
                let heavy = faster(f.get("heavy_writes"), f.get("heavy_does_not"));
                Answer::of(light && heavy)
            },
            depends: "the disk",
            headline: |f| {
                format!(
                    "p99.9 x {:.2} at 1.2, x {:.2} at 8",
                    ratio(f.get("light_does_not"), f.get("light_writes")),
                    ratio(f.get("heavy_does_not"), f.get("heavy_writes")),
                )
            },
            conditions: || {
                vec![
                    light_and_heavy("a quick disk", MIXED),
                    light_and_heavy("a disk of 50 MB/s", MIXED.on(Disk::Slow).lasting(1_500)),
                ]
            },
        },
        Claim {
            name: "kick-and-sleep",
            who: Who::Mel,
            quote: "direct reclaimers kick the flusher threads when it counters dirty pages and goes to sleep but this will increase latency",
            claim: "kicking the flusher and sleeping increases latency",
            measured: "rfc-2010 that kicks and waits against rfc-2010 that kicks: p99.9 of a task that needs fresh pages",
            rule_text: "holds if waiting is a tenth slower; silent if direct reclaim met no dirty page",
            rule: |f| match f.get("dirty_met") > 0.0 {
                false => Answer::Silent,
                true => Answer::of(faster(f.get("p999_kick"), f.get("p999_wait"))),
            },
            depends: "the disk",
            headline: |f| {
                format!(
                    "p99.9 {} asleep, {} not",
                    show_us(f.get("p999_wait")),
                    show_us(f.get("p999_kick"))
                )
            },
            conditions: || {
                vec![
                    kick("a quick disk", MIXED),
                    kick("a disk of 50 MB/s", MIXED.on(Disk::Slow).lasting(1_500)),
                ]
            },
        },
        Claim {
            name: "lru-order",
            who: Who::Andrea,
            quote: "if cache is very important and system has little ram, not going in lru order may also screw fs-cache performance",
            claim: "leaving LRU order makes the cache less effective",
            measured: "2.6.35 against rfc-2010: refaults for each operation, and the share of hits, where the cache matters",
            rule_text: "holds if not writing loses a hundredth of the hits, or adds a tenth to refaults",
            rule: |f| {
                let hits = f.get("hits_does_not") < 0.99 * f.get("hits_writes");
                let refaults = f.get("refaults_does_not") > (1.0 + SAME) * f.get("refaults_writes");
                Answer::of(hits || refaults)
            },
            depends: "the work",
            headline: |f| {
                format!(
                    "hits {:.1} %, writing {:.1} %",
                    f.get("hits_does_not") * 100.0,
                    f.get("hits_writes") * 100.0
                )
            },
            conditions: || {
                vec![
                    cache("a Zipf reader beside a writer", CACHED),
                    cache(
                        "the same on a disk of 50 MB/s",
                        CACHED.on(Disk::Slow).lasting(2_000),
                    ),
                    cache("random writers and a stream", MIXED.at(4.0)),
                ]
            },
        },
    ]
}

/// `a` is below `b` by more than the same.
fn faster(a: f64, b: f64) -> bool {
    a < (1.0 - SAME) * b
}

fn two_latencies(f: &Figures) -> String {
    format!(
        "p99.9 {}, writing {}",
        show_us(f.get("p999_does_not")),
        show_us(f.get("p999_writes"))
    )
}

fn sides(name: &'static str, setting: Setting) -> Condition {
    Condition {
        name,
        runs: both_sides(setting),
        figures: |runs: &Runs| {
            let (writes, does_not) = (runs.get("writes")?, runs.get("does-not")?);
            let dirty = |r| count(r, "pgscan_direct_dirty");
            Ok(Figures::default()
                .with("p999_writes", p999(writes, "probe"), Micros)
                .with("p999_does_not", p999(does_not, "probe"), Micros)
                .with("dirty_met", dirty(writes).max(dirty(does_not)), Count)
                .with("ops_writes", writes.ops_per_s, Count)
                .with("ops_does_not", does_not.ops_per_s, Count))
        },
    }
}

fn light_and_heavy(name: &'static str, setting: Setting) -> Condition {
    let run = |label, pressure, preset| Run::new(label, setting.at(pressure), preset);
    Condition {
        name,
        runs: vec![
            run("light-writes", 1.2, Preset::V2_6_35),
            run("light-does-not", 1.2, Preset::Rfc2010),
            run("heavy-writes", 8.0, Preset::V2_6_35),
            run("heavy-does-not", 8.0, Preset::Rfc2010),
        ],
        figures: |runs: &Runs| {
            let of = |label| runs.get(label).map(|r| p999(r, "probe"));
            Ok(Figures::default()
                .with("light_writes", of("light-writes")?, Micros)
                .with("light_does_not", of("light-does-not")?, Micros)
                .with("heavy_writes", of("heavy-writes")?, Micros)
                .with("heavy_does_not", of("heavy-does-not")?, Micros))
        },
    }
}

fn kick(name: &'static str, setting: Setting) -> Condition {
    let run = |label, on_dirty| {
        Run::new(label, setting, Preset::Rfc2010).with(PolicyPatch {
            on_dirty: Some(on_dirty),
            ..PolicyPatch::default()
        })
    };
    Condition {
        name,
        runs: vec![
            run("kick", OnDirtyName::Kick),
            run("wait", OnDirtyName::KickAndWait),
            run("skip", OnDirtyName::Skip),
        ],
        figures: |runs: &Runs| {
            let (kick, wait, skip) = (runs.get("kick")?, runs.get("wait")?, runs.get("skip")?);
            Ok(Figures::default()
                .with("p999_kick", p999(kick, "probe"), Micros)
                .with("p999_wait", p999(wait, "probe"), Micros)
                .with("p999_skip", p999(skip, "probe"), Micros)
                .with("dirty_met", count(wait, "pgscan_direct_dirty"), Count)
                .with("scanned_kick", count(kick, "pgscan_direct"), Count)
                .with("scanned_wait", count(wait, "pgscan_direct"), Count))
        },
    }
}

fn cache(name: &'static str, setting: Setting) -> Condition {
    Condition {
        name,
        runs: both_sides(setting),
        figures: |runs: &Runs| {
            let (writes, does_not) = (runs.get("writes")?, runs.get("does-not")?);
            let refaults = |r| count(r, "workingset_refault_file") / operations(r);
            Ok(Figures::default()
                .with("hits_writes", writes.hit_ratio.unwrap_or(0.0), Share)
                .with("hits_does_not", does_not.hit_ratio.unwrap_or(0.0), Share)
                .with("refaults_writes", refaults(writes), Ratio)
                .with("refaults_does_not", refaults(does_not), Ratio))
        },
    }
}
