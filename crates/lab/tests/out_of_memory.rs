//! The counters of reclaim that gets nowhere: the kernel's rule for out of memory, and the naps of direct reclaimers.

mod common;

use common::{PAGE, Rig, lab, ms};
use highwater_engine::io::IoOp;
use highwater_engine::policy::Throttle;
use highwater_engine::{Config, Error, Preset};

/// A budget of 256 pages; writers are not slowed down.
fn unthrottled(preset: Preset) -> impl FnOnce(&mut Config) {
    move |config| {
        config.policy = preset.policy();
        config.policy.throttle = Throttle::Off;
        (
            config.policy.background_percent,
            config.policy.limit_percent,
        ) = (50, 80);
        config.alloc_timeout = ms(2_000);
        config.io_timeout = ms(2_000);
    }
}

fn write_through(rig: &Rig, pages: u64) -> Result<(), Error> {
    let (file, _) = rig.file(1, 4096);
    (0..pages).try_for_each(|n| file.write_at(&[7; PAGE as usize], n * PAGE))
}

#[test]
fn a_disk_that_answers_is_never_out_of_memory() {
    for preset in [Preset::V2_6_35, Preset::Rfc2010, Preset::Highwater] {
        lab(1, 256, unthrottled(preset), move |rig| {
            write_through(&rig, 2_000).unwrap();
            assert!(rig.stat("allocstall") > 0, "{preset}: memory ran short");
            let (dirty, scanned) = (rig.stat("pgscan_direct_dirty"), rig.stat("pgscan_direct"));
            assert!(dirty < scanned, "{preset}: {dirty} of {scanned}");
            assert_eq!(rig.stat("oom_unreclaimable"), 0, "{preset}");
            // A run ends with the batch that brings it to a cluster of 32.
            let (runs, freed) = (rig.stat("allocstall"), rig.stat("pgsteal_direct"));
            assert!(freed < 64 * runs, "{preset}: {freed} freed by {runs} runs");
            let (naps, last) = (
                rig.stat("congestion_wait_direct"),
                rig.stat("congestion_wait_direct_last"),
            );
            assert!(
                last <= naps && naps <= rig.stat("congestion_wait"),
                "{preset}"
            );
        });
    }
}

/// Every page dirty, and no write that ends: the kernel's rule says so long before this engine gives up.
#[test]
fn the_kernel_s_rule_counts_when_nothing_can_be_freed() {
    for preset in [Preset::V2_6_35, Preset::Rfc2010] {
        lab(2, 256, unthrottled(preset), move |rig| {
            rig.disk.hang_next(IoOp::Write, u32::MAX);
            let error = write_through(&rig, 2_000).unwrap_err();
            assert!(matches!(error, Error::OutOfMemory(_)), "{preset}: {error}");
            assert!(rig.stat("oom_unreclaimable") > 0, "{preset}");
            // Down to the last priority, since no page is freed; most naps come before.
            let (naps, last) = (
                rig.stat("congestion_wait_direct"),
                rig.stat("congestion_wait_direct_last"),
            );
            assert!(last > 0 && last * 3 < naps, "{preset}: {last} of {naps}");
            assert!(rig.disk.release_hung() > 0);
            rig.nap(ms(1_000));
        });
    }
}
