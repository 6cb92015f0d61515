//! Claims about what reclaimers meet and do: dirty pages, naps, and kswapd's part.

use super::{count, p999, written_by_reclaim};
use crate::claims::claim::{Answer, Claim, Condition, Figures, Unit::*, Who};
use crate::claims::runs::{Run, Runs, both_sides};
use crate::claims::setting::{Disk, Limits, Setting, Work};
use crate::report::ArmReport;
use crate::units::show_count;
use highwater_engine::Preset;

const MIXED: Setting = Setting::new(Work::Mixed);
/// A share that is "small": one page in ten.
const SMALL: f64 = 0.1;

/// The claims.
pub fn claims() -> Vec<Claim> {
    vec![
        Claim {
            name: "few-dirty-pages",
            who: Who::Mel,
            quote: "considering the number of dirty pages direct reclaimers should be seeing, I'm not sure it's necessary",
            claim: "direct reclaimers see few dirty pages",
            measured: "rfc-2010: dirty pages among those that direct reclaim scanned",
            rule_text: "holds if they are less than one in ten; silent if direct reclaim never ran",
            rule: |f| match f.get("scanned") > 0.0 {
                false => Answer::Silent,
                true => Answer::of(f.get("dirty_share") < SMALL),
            },
            depends: "the dirty limit",
            headline: |f| {
                format!(
                    "dirty {:.1} % of {} scanned",
                    f.get("dirty_share") * 100.0,
                    show_count(f.get("scanned") as u64)
                )
            },
            conditions: || {
                let slow = MIXED.on(Disk::Slow).lasting(1_500);
                vec![
                    dirty_seen("within 20 %, a quick disk", MIXED),
                    dirty_seen("within 20 %, a disk of 50 MB/s", slow),
                    dirty_seen("within 80 %, a quick disk", MIXED.within(Limits::Machine)),
                    dirty_seen(
                        "within 80 %, a disk of 50 MB/s",
                        slow.within(Limits::Machine),
                    ),
                ]
            },
        },
        Claim {
            name: "kswapd-still-writes",
            who: Who::Mel,
            quote: "kswapd is still writing pages if the pressure is high enough that the flusher threads are not doing it",
            claim: "kswapd still writes if the flushers do not keep up",
            measured: "rfc-2010: pages that kswapd wrote, of all written, with dirty memory within 20 % and within 80 %",
            rule_text: "holds if kswapd writes more than one page in a hundred where dirty pages reach it, and a smaller share where they do not",
            rule: |f| {
                let (calm, hard) = (f.get("share_calm"), f.get("share_hard"));
                Answer::of(hard > 0.01 && hard > calm)
            },
            depends: "the disk",
            headline: |f| {
                format!(
                    "kswapd wrote {:.1} %, calm {:.1} %",
                    f.get("share_hard") * 100.0,
                    f.get("share_calm") * 100.0
                )
            },
            conditions: || {
                vec![
                    kswapd_writes("a quick disk", MIXED),
                    kswapd_writes("a disk of 50 MB/s", MIXED.on(Disk::Slow).lasting(1_500)),
                ]
            },
        },
        Claim {
            name: "naps-below-2",
            who: Who::Mel,
            quote: "a direct reclaimer will wait on congestion_wait() if the pressure gets high enough (PRIORITY < 2)",
            claim: "direct reclaimers nap only below priority 2",
            measured: "rfc-2010: naps of direct reclaimers between two priorities, and those of them at priority 1 and 0",
            rule_text: "holds if nine naps in ten are at a priority below 2; silent without naps",
            rule: |f| match f.get("naps") > 0.0 {
                false => Answer::Silent,
                true => Answer::of(f.get("naps_below_2") >= 0.9 * f.get("naps")),
            },
            depends: "the disk",
            headline: |f| {
                format!(
                    "{} of {} naps below priority 2",
                    show_count(f.get("naps_below_2") as u64),
                    show_count(f.get("naps") as u64)
                )
            },
            conditions: || {
                let work = MIXED.within(Limits::Machine);
                vec![
                    naps("a quick disk", work),
                    naps("a disk of 50 MB/s", work.on(Disk::Slow).lasting(1_500)),
                ]
            },
        },
        Claim {
            name: "kswapd-throttle",
            who: Who::Andrea,
            quote: "Throttling on kswapd is possible but it's probably less efficient",
            claim: "leaving the writing to kswapd is less efficient",
            measured: "2.6.35 against rfc-2010: pages freed for each page scanned, and the probe's p99.9",
            rule_text: "holds if leaving it to kswapd frees a tenth less for each page scanned; silent if kswapd had nothing to write",
            rule: |f| match f.get("written_by_kswapd") > 0.0 {
                false => Answer::Silent,
                true => Answer::of(f.get("efficiency_kswapd") < 0.9 * f.get("efficiency_direct")),
            },
            depends: "the disk",
            headline: |f| {
                format!(
                    "freed {:.1} % of scanned, else {:.1} %",
                    f.get("efficiency_kswapd") * 100.0,
                    f.get("efficiency_direct") * 100.0
                )
            },
            conditions: || {
                let work = MIXED.within(Limits::Machine);
                vec![
                    efficiency("a quick disk", work),
                    efficiency("a disk of 50 MB/s", work.on(Disk::Slow).lasting(1_500)),
                ]
            },
        },
    ]
}

fn dirty_seen(name: &'static str, setting: Setting) -> Condition {
    Condition {
        name,
        runs: vec![Run::new("rfc", setting, Preset::Rfc2010)],
        figures: |runs: &Runs| {
            let r = runs.get("rfc")?;
            let scanned = count(r, "pgscan_direct");
            let dirty = count(r, "pgscan_direct_dirty");
            Ok(Figures::default()
                .with("scanned", scanned, Count)
                .with("dirty", dirty, Count)
                .with("dirty_share", dirty / scanned.max(1.0), Share))
        },
    }
}

fn kswapd_writes(name: &'static str, setting: Setting) -> Condition {
    Condition {
        name,
        runs: vec![
            Run::new("calm", setting, Preset::Rfc2010),
            Run::new("hard", setting.within(Limits::Machine), Preset::Rfc2010),
        ],
        figures: |runs: &Runs| {
            let (calm, hard) = (runs.get("calm")?, runs.get("hard")?);
            let all = |r: &ArmReport| {
                written_by_reclaim(r) + count(r, "written_flusher") + count(r, "written_writer")
            };
            let share = |r: &ArmReport| count(r, "written_kswapd") / all(r).max(1.0);
            Ok(Figures::default()
                .with("kswapd_calm", count(calm, "written_kswapd"), Count)
                .with("share_calm", share(calm), Share)
                .with("kswapd_hard", count(hard, "written_kswapd"), Count)
                .with("share_hard", share(hard), Share))
        },
    }
}

fn naps(name: &'static str, setting: Setting) -> Condition {
    Condition {
        name,
        runs: vec![Run::new("rfc", setting, Preset::Rfc2010)],
        figures: |runs: &Runs| {
            let r = runs.get("rfc")?;
            Ok(Figures::default()
                .with("naps", count(r, "congestion_wait_direct"), Count)
                .with(
                    "naps_below_2",
                    count(r, "congestion_wait_direct_last"),
                    Count,
                )
                .with("direct_reclaims", count(r, "allocstall"), Count))
        },
    }
}

fn efficiency(name: &'static str, setting: Setting) -> Condition {
    Condition {
        name,
        runs: both_sides(setting),
        figures: |runs: &Runs| {
            let (direct, kswapd) = (runs.get("writes")?, runs.get("does-not")?);
            let of = |r: &ArmReport| {
                let freed = count(r, "pgsteal_direct") + count(r, "pgsteal_kswapd");
                freed / (count(r, "pgscan_direct") + count(r, "pgscan_kswapd")).max(1.0)
            };
            Ok(Figures::default()
                .with("efficiency_direct", of(direct), Share)
                .with("efficiency_kswapd", of(kswapd), Share)
                .with("written_by_kswapd", count(kswapd, "written_kswapd"), Count)
                .with("p999_direct", p999(direct, "probe"), Micros)
                .with("p999_kswapd", p999(kswapd, "probe"), Micros))
        },
    }
}
