//! Claims about running out of memory, and what keeps a machine from it.
//!
//! This engine waits where the kernel gave up, so a run counts where the kernel's rule would have been out of memory
//! (`oom_unreclaimable`: a direct reclaim got nothing after the lists were scanned six times over without a page freed),
//! together with allocations that failed here. A *false* one is one that comes although pages could be written and freed.

use super::{count, ooms, p999, ratio, unclean_share, written_by_reclaim};
use crate::claims::claim::{Answer, Claim, Condition, Figures, Unit::*, Who};
use crate::claims::runs::{Run, Runs, both_sides};
use crate::claims::setting::{Disk, Limits, Setting, Work};
use crate::units::show_count;
use highwater_engine::Preset;

const MIXED: Setting = Setting::new(Work::Mixed);
/// On a disk of 50 MB/s, for long enough that stalls of tenths of seconds are seen.
const SLOW: Setting = MIXED.on(Disk::Slow).lasting(1_500);

/// The claims.
pub fn claims() -> Vec<Claim> {
    vec![
        Claim {
            name: "false-oom",
            who: Who::Andrea,
            quote: "if memory pressure is hard enough we should eventually enter direct reclaim full force including ->writepage to avoid false positive OOM failures",
            claim: "reclaim that may not write ends in OOM",
            measured: "2.6.35 against rfc-2010 on a disk of 50 MB/s: where the kernel would have been out of memory",
            rule_text: "holds if the side that does not write is out of memory more often; silent if neither met a dirty page",
            rule: false_oom,
            depends: "the dirty limit",
            headline: two_ooms,
            conditions: || {
                vec![
                    sides("the presets' own dirty limit", SLOW),
                    sides(
                        "dirty pages up to 80 % of memory",
                        SLOW.within(Limits::Machine),
                    ),
                    sides("writers not throttled", SLOW.within(Limits::None)),
                ]
            },
        },
        Claim {
            name: "early-oom",
            who: Who::Andrea,
            quote: "on heavy pressure it'll early-oom not to call ->writepage",
            claim: "not writing ends in OOM under heavy pressure",
            measured: "rfc-2010 with 2 and with 8 times as much data as memory, on a disk of 50 MB/s",
            rule_text: "holds if it is out of memory under heavy pressure, where writing is not; else it fails",
            rule: early_oom,
            depends: "the dirty limit",
            headline: two_ooms,
            conditions: || {
                vec![
                    sides("8 x, the presets' own dirty limit", SLOW.at(8.0)),
                    sides(
                        "8 x, dirty pages up to 80 %",
                        SLOW.at(8.0).within(Limits::Machine),
                    ),
                ]
            },
        },
        Claim {
            name: "no-new-oom",
            who: Who::Mel,
            quote: "I also haven't been able to trigger a new OOM as a result of the patch",
            claim: "the patch brings no new OOM",
            measured: "2.6.35 against rfc-2010 with writers throttled, on three disks",
            rule_text: "holds if the side that does not write is out of memory no more often; silent if neither met a dirty page",
            rule: no_new_oom,
            depends: "the disk",
            headline: two_ooms,
            conditions: || {
                let work = MIXED.within(Limits::Machine);
                vec![
                    sides("a quick disk", work),
                    sides("a disk of 50 MB/s", SLOW.within(Limits::Machine)),
                    sides(
                        "a spindle, 200 requests/s",
                        work.on(Disk::Spindle).lasting(1_500),
                    ),
                ]
            },
        },
        Claim {
            name: "oom-needs-dirty-lru",
            who: Who::Mel,
            quote: "To trigger an OOM, the bulk of the LRU would have to be dirty and the direct reclaimer making no further progress",
            claim: "no OOM unless most of the LRU is dirty",
            measured: "rfc-2010 on a disk of 50 MB/s: throttled within 20 %, within 80 %, and not at all",
            rule_text: "holds if every run that is out of memory had half of memory dirty, and there is such a run; fails if one had less",
            rule: oom_needs_dirty,
            depends: "the disk",
            headline: |f| {
                format!(
                    "OOM at {:.0} % dirty {}, {:.0} % {}, {:.0} % {}",
                    f.get("own_dirty") * 100.0,
                    show_count(f.get("own_ooms") as u64),
                    f.get("machine_dirty") * 100.0,
                    show_count(f.get("machine_ooms") as u64),
                    f.get("none_dirty") * 100.0,
                    show_count(f.get("none_ooms") as u64),
                )
            },
            conditions: || {
                vec![
                    dirty_lru("a disk of 50 MB/s", SLOW),
                    dirty_lru(
                        "a disk of 20 requests a second",
                        MIXED.on(Disk::Stuck).lasting(3_000),
                    ),
                ]
            },
        },
        Claim {
            name: "trouble-already",
            who: Who::Mel,
            quote: "if the bulk of the LRU has been dirtied like this, are we not already in trouble?",
            claim: "a mostly dirty LRU is trouble anyway",
            measured: "2.6.35, which writes from reclaim: the probe's p99.9 unthrottled against throttled within 20 %",
            rule_text: "holds if the side that writes is ten times slower once most of memory is dirty; silent if it never is",
            rule: |f| match f.get("dirty_share") {
                share if share < 0.5 => Answer::Silent,
                _ => Answer::of(f.get("slowdown") >= 10.0),
            },
            depends: "the disk",
            headline: |f| {
                format!(
                    "p99.9 {:.0} x as long with {:.0} % dirty",
                    f.get("slowdown"),
                    f.get("dirty_share") * 100.0
                )
            },
            conditions: || {
                vec![
                    trouble("a quick disk", MIXED),
                    trouble("a disk of 50 MB/s", SLOW),
                ]
            },
        },
        Claim {
            name: "refused-already",
            who: Who::Mel,
            quote: "on XFS and btrfs for example, this \"full force\" effect is not being reached",
            claim: "XFS and btrfs ignore reclaim's writes already",
            measured: "2.6.35 on files that refuse reclaim's writes: pages written by reclaim, and refusals",
            rule_text: "holds if reclaim asked and wrote nothing; fails if it wrote; silent if it never asked",
            rule: |f| match f.get("refused") > 0.0 {
                false => Answer::Silent,
                true => Answer::of(f.get("written_by_reclaim") == 0.0),
            },
            depends: "the disk",
            headline: |f| {
                format!(
                    "reclaim wrote {}, was refused {}",
                    show_count(f.get("written_by_reclaim") as u64),
                    show_count(f.get("refused") as u64)
                )
            },
            conditions: || {
                let work = MIXED.within(Limits::Machine);
                vec![
                    refusing("a quick disk", work),
                    refusing("a disk of 50 MB/s", SLOW.within(Limits::Machine)),
                ]
            },
        },
        Claim {
            name: "lost-already",
            who: Who::Mel,
            quote: "we've lost that particular reliability already on btrfs and xfs because they are ignoring the VM",
            claim: "refusing file systems lost that reliability already",
            measured: "2.6.35 on plain files against files that refuse: where the kernel would have been out of memory",
            rule_text: "holds if refusing brings more of them; silent if nothing was refused",
            rule: |f| match f.get("refused") > 0.0 {
                false => Answer::Silent,
                true => Answer::of(f.get("ooms_refusing") > f.get("ooms_plain")),
            },
            depends: "the throttle",
            headline: |f| {
                format!(
                    "OOM {} refusing, {} writing",
                    show_count(f.get("ooms_refusing") as u64),
                    show_count(f.get("ooms_plain") as u64)
                )
            },
            conditions: || {
                vec![
                    refusing("dirty pages up to 80 %", SLOW.within(Limits::Machine)),
                    refusing("writers not throttled", SLOW.within(Limits::None)),
                ]
            },
        },
        Claim {
            name: "fault-throttle",
            who: Who::Mel,
            quote: "The VM would lose a lot of reliability if we weren't throttling on pages being dirtied in the fault path",
            claim: "reliability rests on throttling those who dirty",
            measured: "rfc-2010 without throttle against with it: OOM by the kernel's rule, and the time spent waiting for memory",
            rule_text: "holds if it is out of memory more often without throttle, or waits for memory twice as long",
            rule: |f| {
                let more = f.get("ooms_without") > f.get("ooms_with");
                Answer::of(more || f.get("stall_ratio") >= 2.0)
            },
            depends: "the disk",
            headline: |f| {
                format!(
                    "OOM {}, throttled {}; waits x {:.1}",
                    show_count(f.get("ooms_without") as u64),
                    show_count(f.get("ooms_with") as u64),
                    f.get("stall_ratio")
                )
            },
            conditions: || {
                vec![
                    throttle("a quick disk", MIXED),
                    throttle("a disk of 50 MB/s", SLOW),
                ]
            },
        },
    ]
}

fn two_ooms(f: &Figures) -> String {
    format!(
        "OOM {}, writing {}",
        show_count(f.get("ooms_does_not") as u64),
        show_count(f.get("ooms_writes") as u64)
    )
}

fn false_oom(f: &Figures) -> Answer {
    match f.get("dirty_met") > 0.0 {
        false => Answer::Silent,
        true => Answer::of(f.get("ooms_does_not") > f.get("ooms_writes")),
    }
}

fn early_oom(f: &Figures) -> Answer {
    Answer::of(f.get("ooms_does_not") > 0.0 && f.get("ooms_writes") == 0.0)
}

fn no_new_oom(f: &Figures) -> Answer {
    match false_oom(f) {
        Answer::Silent => Answer::Silent,
        Answer::Holds => Answer::Fails,
        Answer::Fails => Answer::Holds,
    }
}

fn oom_needs_dirty(f: &Figures) -> Answer {
    let runs = [
        (f.get("own_ooms"), f.get("own_dirty")),
        (f.get("machine_ooms"), f.get("machine_dirty")),
        (f.get("none_ooms"), f.get("none_dirty")),
    ];
    let out = |(ooms, _): &&(f64, f64)| *ooms > 0.0;
    match runs.iter().filter(out).count() {
        0 => Answer::Silent,
        _ => Answer::of(runs.iter().filter(out).all(|(_, dirty)| *dirty >= 0.5)),
    }
}

/// 2.6.35 and rfc-2010 side by side.
fn sides(name: &'static str, setting: Setting) -> Condition {
    Condition {
        name,
        runs: both_sides(setting),
        figures: |runs: &Runs| {
            let (writes, does_not) = (runs.get("writes")?, runs.get("does-not")?);
            let dirty = |r| count(r, "pgscan_direct_dirty");
            Ok(Figures::default()
                .with("ooms_writes", ooms(writes), Count)
                .with("ooms_does_not", ooms(does_not), Count)
                .with("dirty_met", dirty(writes).max(dirty(does_not)), Count)
                .with("written_by_reclaim", written_by_reclaim(writes), Count)
                .with("stall_writes", writes.stall_s.alloc.unwrap_or(0.0), Seconds)
                .with(
                    "stall_does_not",
                    does_not.stall_s.alloc.unwrap_or(0.0),
                    Seconds,
                ))
        },
    }
}

/// The side that does not write, with dirty memory within 20 %, 80 %, and without bound.
fn dirty_lru(name: &'static str, setting: Setting) -> Condition {
    let run = |label, limits| Run::new(label, setting.within(limits), Preset::Rfc2010);
    Condition {
        name,
        runs: vec![
            run("own", Limits::Own),
            run("machine", Limits::Machine),
            run("none", Limits::None),
        ],
        figures: |runs: &Runs| {
            let (own, machine, none) = (runs.get("own")?, runs.get("machine")?, runs.get("none")?);
            Ok(Figures::default()
                .with("own_ooms", ooms(own), Count)
                .with("own_dirty", unclean_share(own)?, Share)
                .with("machine_ooms", ooms(machine), Count)
                .with("machine_dirty", unclean_share(machine)?, Share)
                .with("none_ooms", ooms(none), Count)
                .with("none_dirty", unclean_share(none)?, Share))
        },
    }
}

fn trouble(name: &'static str, setting: Setting) -> Condition {
    Condition {
        name,
        runs: vec![
            Run::new("calm", setting, Preset::V2_6_35),
            Run::new("dirty", setting.within(Limits::None), Preset::V2_6_35),
        ],
        figures: |runs: &Runs| {
            let (calm, dirty) = (
                p999(runs.get("calm")?, "probe"),
                p999(runs.get("dirty")?, "probe"),
            );
            Ok(Figures::default()
                .with("p999_calm", calm, Micros)
                .with("p999_dirty", dirty, Micros)
                .with("slowdown", ratio(dirty, calm), Ratio)
                .with("dirty_share", unclean_share(runs.get("dirty")?)?, Share)
                .with("ooms_dirty", ooms(runs.get("dirty")?), Count))
        },
    }
}

fn refusing(name: &'static str, setting: Setting) -> Condition {
    Condition {
        name,
        runs: vec![
            Run::new("plain", setting, Preset::V2_6_35),
            Run::new("refusing", setting, Preset::V2_6_35).refusing(),
        ],
        figures: |runs: &Runs| {
            let (plain, refusing) = (runs.get("plain")?, runs.get("refusing")?);
            Ok(Figures::default()
                .with("refused", count(refusing, "write_refused"), Count)
                .with("written_by_reclaim", written_by_reclaim(refusing), Count)
                .with("written_by_reclaim_plain", written_by_reclaim(plain), Count)
                .with("ooms_refusing", ooms(refusing), Count)
                .with("ooms_plain", ooms(plain), Count))
        },
    }
}

fn throttle(name: &'static str, setting: Setting) -> Condition {
    Condition {
        name,
        runs: vec![
            Run::new("with", setting, Preset::Rfc2010),
            Run::new("without", setting.within(Limits::None), Preset::Rfc2010),
        ],
        figures: |runs: &Runs| {
            let (with, without) = (runs.get("with")?, runs.get("without")?);
            let stall = |r: &crate::report::ArmReport| r.stall_s.alloc.unwrap_or(0.0);
            Ok(Figures::default()
                .with("ooms_with", ooms(with), Count)
                .with("ooms_without", ooms(without), Count)
                .with("stall_with", stall(with), Seconds)
                .with("stall_without", stall(without), Seconds)
                // A millisecond more, so that a run without any wait has a ratio.
                .with(
                    "stall_ratio",
                    (stall(without) + 1e-3) / (stall(with) + 1e-3),
                    Ratio,
                )
                .with("p999_with", p999(with, "probe"), Micros)
                .with("p999_without", p999(without, "probe"), Micros))
        },
    }
}
