//! Bugs planted in the engine: each is found by the seeds, and for the right reason. `tests/soak.rs` is the canary's
//! other half: with no bug planted the same seeds find nothing.

mod seeds;

use highwater_engine::plant::Plant;
use highwater_lab::soak::{SoakOptions, run_options};
use seeds::text_of;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seeds after which a bug counts as not found.
const SEEDS_MAX: u64 = 200;

/// Runs seeds with `bug` until one fails, which must be with one of the texts `signs`.
fn find(bug: Plant, signs: &[&str]) {
    for seed in 0..SEEDS_MAX {
        let mut options = SoakOptions::draw(seed);
        options.plant = Some(bug);
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| run_options(options))) else {
            continue;
        };
        let text = text_of(&*panic);
        println!("{bug:?}: found by the seed {seed}: {text:.160}");
        let right = signs.iter().any(|sign| text.contains(sign));
        assert!(right, "{bug:?} was found for a wrong reason: {text}");
        return;
    }
    panic!("{bug:?}: not found by {SEEDS_MAX} seeds");
}

#[test]
fn lost_dirty() {
    find(Plant::LostDirty, &["SHADOW-", "device after sync"]);
}

#[test]
fn forgotten_error() {
    find(Plant::ForgottenError, &["SHADOW-", "device after sync"]);
}

#[test]
fn writeback_without_the_latch() {
    find(Plant::NoLatch, &["DEV-1", "SHADOW-"]);
}

#[test]
fn skipped_wake() {
    find(Plant::SkippedWake, &["WAIT-2"]);
}

#[test]
fn early_look() {
    find(Plant::EarlyLook, &["WAIT-2"]);
}

#[test]
fn stale_fill() {
    find(Plant::StaleFill, &["SHADOW-1", "MAP-3"]);
}

#[test]
fn early_sync() {
    find(Plant::EarlySync, &["SHADOW-2", "device after sync"]);
}

#[test]
fn early_flush() {
    find(Plant::EarlyFlush, &["SHADOW-2"]);
}

#[test]
fn write_order() {
    find(Plant::WriteOrder, &["WB-2", "SHADOW-", "device after sync"]);
}

#[test]
fn reclaim_of_dirty_pages() {
    find(Plant::ReclaimDirty, &["SHADOW-"]);
}

#[test]
fn a_frame_given_twice() {
    find(
        Plant::GivenTwice,
        &["ZONE-1", "BUDDY", "SHADOW-1", "LIST-", "LRU-1"],
    );
}

#[test]
fn no_end_of_a_wait_with_guards() {
    find(Plant::PinnedHang, &["out of memory", "is busy"]);
}

#[test]
fn a_frame_forgotten() {
    find(Plant::LostSpare, &["ZONE-1", "out of memory"]);
}

#[test]
fn a_budget_passed() {
    find(Plant::OverBudget, &["SOAK-7"]);
}

#[test]
fn each_bug_has_a_test() {
    let tests = include_str!("planted.rs");
    for bug in Plant::ALL {
        assert!(
            tests.contains(&format!("Plant::{bug:?}, "))
                || tests.contains(&format!("Plant::{bug:?},\n")),
            "{bug:?}"
        );
    }
}
