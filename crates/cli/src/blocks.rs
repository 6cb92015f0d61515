//! Tasks that ask for blocks of frames (`kind = "alloc-block"`): their keys, what they do, and what the report says of them.
//!
//! **Invariants.** BLOCKS-1: the blocks that all tasks of a scenario hold are at most half of its memory.

use crate::plan::PlanTask;
use crate::report::{ArmReport, Latency, Report};
use crate::scenario::{Kind, Scenario, TaskSpec};
use crate::target::{Handle, OpError};
use crate::units::{show_bytes, show_count, show_us};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::ops::DerefMut;

/// A block in a task's hands.
pub type HeldBlock = Box<dyn DerefMut<Target = [u8]>>;

/// Bytes of the largest block: a huge page.
const BLOCK_BYTES_MAX: u64 = 2 << 20;

/// What a task of this kind asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlanBlocks {
    /// Blocks of 2^order frames.
    pub order: u32,
    /// How many each thread keeps: the oldest goes when there is one more.
    pub hold: u32,
    /// As a transparent huge page is asked for: one compaction, one reclaim, kswapd left alone.
    pub thp: bool,
}

impl PlanBlocks {
    /// What the scenario says.
    pub fn of(task: &TaskSpec) -> Option<PlanBlocks> {
        (task.kind == Kind::AllocBlock).then(|| PlanBlocks {
            order: task.order.unwrap_or(0),
            hold: task.hold.unwrap_or(1),
            thp: task.thp.unwrap_or(false),
        })
    }
}

/// What is wrong with a task's keys, if anything is.
pub fn problem(scenario: &Scenario, task: &TaskSpec) -> Option<String> {
    let keys = [
        ("order", task.order.is_some()),
        ("hold", task.hold.is_some()),
        ("thp", task.thp.is_some()),
    ];
    if task.kind != Kind::AllocBlock {
        let (key, _) = keys.iter().find(|(_, is)| *is)?;
        return Some(format!("{key} belongs to kind = \"alloc-block\""));
    }
    let frame = scenario.frame_size.0;
    let top = (BLOCK_BYTES_MAX / frame).ilog2();
    if !task.order.is_some_and(|o| (1..=top).contains(&o)) {
        return Some(format!(
            "kind = \"alloc-block\" needs order = N, from 1 to {top} with frames of {}: blocks of 2^N frames",
            show_bytes(frame)
        ));
    }
    if task.hold.is_some_and(|n| !(1..=65_536).contains(&n)) {
        return Some("hold: expected 1 to 65536 blocks kept by each thread".into());
    }
    if task.fsync_every.is_some() {
        return Some("fsync_every does not belong to kind = \"alloc-block\"".into());
    }
    // BLOCKS-1.
    let held: u64 = scenario.tasks.iter().map(|t| bytes_held(t, frame)).sum();
    (held > scenario.memory.0 / 2).then(|| {
        format!(
            "the blocks that all tasks hold are {}, more than half of memory ({}); expected a smaller hold, order or number of threads",
            show_bytes(held),
            show_bytes(scenario.memory.0)
        )
    })
}

fn bytes_held(task: &TaskSpec, frame: u64) -> u64 {
    PlanBlocks::of(task).map_or(0, |b| {
        (frame << b.order.min(20))
            .saturating_mul(u64::from(b.hold))
            .saturating_mul(u64::from(task.threads))
    })
}

/// The blocks of one thread.
#[derive(Default)]
pub struct Holder(VecDeque<HeldBlock>);

impl Holder {
    /// Asks for a block, writes into each of its pages, and gives up the oldest if there are more than are kept. What is
    /// given up lies free until the next request: others may have taken of it by then.
    pub fn step<F: Handle>(
        &mut self,
        file: &F,
        blocks: PlanBlocks,
        turn: u64,
    ) -> Result<u64, OpError> {
        let mut block = file.alloc_block(blocks.order, blocks.thp)?;
        for page in block.chunks_mut(file.page_size()) {
            page[..8].copy_from_slice(&turn.to_le_bytes());
        }
        let bytes = block.len() as u64;
        self.0.push_back(block);
        while self.0.len() > blocks.hold as usize {
            self.0.pop_front();
        }
        Ok(bytes)
    }
}

/// What one thread's refused requests took, in nanoseconds.
#[derive(Clone, Debug)]
pub struct BlockTally(pub Histogram<u64>);

impl BlockTally {
    /// None yet.
    pub fn new() -> BlockTally {
        BlockTally(Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("bounds"))
    }
}

/// A task's part of the report.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct BlocksReport {
    /// Blocks of 2^order frames.
    pub order: u32,
    /// Kept by each thread.
    pub hold: u32,
    /// As huge pages are asked for.
    pub thp: bool,
    /// Requests.
    pub asked: u64,
    /// Requests that got their block; `latency_us` of the task is theirs.
    pub got: u64,
    /// The share of those; null without a request.
    pub success: Option<f64>,
    /// How long a refusal took, in microseconds.
    pub refused_us: Latency,
}

/// The report of a task whose requests took so long when they were refused.
pub fn report(task: &PlanTask, got: u64, tally: Option<&BlockTally>) -> Option<BlocksReport> {
    let blocks = task.blocks?;
    let refused = tally.map_or(0, |t| t.0.len());
    let asked = got + refused;
    Some(BlocksReport {
        order: blocks.order,
        hold: blocks.hold,
        thp: blocks.thp,
        asked,
        got,
        success: (asked > 0).then(|| got as f64 / asked as f64),
        refused_us: tally.map_or_else(Latency::default, |t| crate::measure::percentiles_of(&t.0)),
    })
}

/// What a block cost, all tasks and kswapd together: counters over the blocks that were got.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct PerBlock {
    /// Blocks.
    pub blocks: u64,
    /// Pages reclaimed by those who asked.
    pub reclaimed: f64,
    /// Pages that lumpy reclaim freed, whoever ran it.
    pub lumpy: f64,
    /// Pages moved to another frame.
    pub moved: f64,
    /// Refaults of the whole arm.
    pub refaults: f64,
    /// Time that those who asked spent beyond taking a free block, in microseconds.
    pub stall_us: f64,
}

impl PerBlock {
    /// From an arm's counters; `None` when it got no block.
    pub fn of(arm: &ArmReport) -> Option<PerBlock> {
        let blocks = arm.count("block_alloc").filter(|n| *n > 0)?;
        let each = |name: &str| arm.count(name).unwrap_or(0) as f64 / blocks as f64;
        Some(PerBlock {
            blocks,
            reclaimed: each("block_reclaimed"),
            lumpy: each("pgreclaim_lumpy"),
            moved: each("pgmigrate_success"),
            refaults: each("workingset_refault_file"),
            stall_us: each("block_stall_ns") / 1e3,
        })
    }
}

/// A line for each arm and task that asked for blocks, for below the table.
pub fn sentences(report: &Report) -> Vec<String> {
    let mut out = Vec::new();
    for arm in &report.arms {
        for task in &arm.tasks {
            if let Some(b) = &task.blocks {
                out.push(sentence(&arm.title(), &task.name, b));
            }
        }
    }
    out
}

fn sentence(arm: &str, task: &str, b: &BlocksReport) -> String {
    let what = if b.thp { " as huge pages are" } else { "" };
    let refused = match b.asked - b.got {
        0 => "none was refused".to_string(),
        n => format!(
            "{} refused after {} (median)",
            show_count(n),
            show_us(b.refused_us.p50)
        ),
    };
    format!(
        "{arm}: {task} got {} of {} blocks of 2^{} frames asked for{what} ({:.1} %); {refused}.",
        show_count(b.got),
        show_count(b.asked),
        b.order,
        b.success.unwrap_or(0.0) * 100.0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::load;

    fn scenario(keys: &str) -> crate::error::Result<Scenario> {
        let text = format!(
            "name = 't'\nabout = 't'\nmemory = '64MiB'\nfiles.d.size = '2x'\n[[tasks]]\nname = 'b'\nkind = 'alloc-block'\n{keys}"
        );
        load("t.toml", &text)
    }

    #[test]
    fn keys_are_checked_and_no_file_is_needed() {
        let s = scenario("order = 4\nhold = 8\nthp = true\nthreads = 2").unwrap();
        let blocks = PlanBlocks::of(&s.tasks[0]).unwrap();
        assert_eq!((blocks.order, blocks.hold, blocks.thp), (4, 8, true));
        let s = scenario("order = 9").unwrap();
        let blocks = PlanBlocks::of(&s.tasks[0]).unwrap();
        assert_eq!((blocks.hold, blocks.thp), (1, false));
        for (keys, says) in [
            ("", "needs order = N, from 1 to 9 with frames of 4"),
            ("order = 0", "needs order = N"),
            ("order = 10", "from 1 to 9"),
            ("order = 4\nhold = 0", "hold: expected 1 to 65536"),
            ("order = 4\nfsync_every = 2", "fsync_every does not belong"),
            (
                "order = 9\nhold = 9\nthreads = 2",
                "more than half of memory (64",
            ),
            ("order = 4\nfile = 'dd'", "did you mean `d`?"),
        ] {
            let e = scenario(keys).expect_err(keys);
            assert!(e.message.contains(says), "{keys:?}: {}", e.message);
        }
    }

    #[test]
    fn other_kinds_have_no_such_keys_and_need_a_file() {
        for (keys, says) in [
            (
                "file = 'd'\norder = 3",
                "order belongs to kind = \"alloc-block\"",
            ),
            ("file = 'd'\nthp = true", "thp belongs to"),
            ("", "needs file = \"NAME\""),
        ] {
            let text = format!(
                "name = 't'\nabout = 't'\nfiles.d.size = '2x'\n[[tasks]]\nname = 'r'\nkind = 'page-read'\n{keys}"
            );
            let e = load("t.toml", &text).expect_err(keys);
            assert!(e.message.contains(says), "{keys:?}: {}", e.message);
        }
    }

    #[test]
    fn counters_become_cost_per_block() {
        let mut arm = ArmReport::default();
        assert_eq!(PerBlock::of(&arm), None);
        for (name, n) in [
            ("block_alloc", 4),
            ("block_reclaimed", 10),
            ("pgmigrate_success", 6),
            ("workingset_refault_file", 100),
            ("block_stall_ns", 8_000_000),
        ] {
            arm.vmstat.insert(name.into(), n);
        }
        let p = PerBlock::of(&arm).unwrap();
        assert_eq!((p.blocks, p.reclaimed, p.lumpy), (4, 2.5, 0.0));
        assert_eq!((p.moved, p.refaults, p.stall_us), (1.5, 25.0, 2_000.0));
    }

    #[test]
    fn the_sentence_names_what_was_got_and_what_a_refusal_cost() {
        let b = BlocksReport {
            order: 9,
            thp: true,
            asked: 4,
            got: 3,
            success: Some(0.75),
            refused_us: Latency {
                p50: 120.0,
                ..Latency::default()
            },
            ..BlocksReport::default()
        };
        assert_eq!(
            sentence("lab 6.16", "huge", &b),
            "lab 6.16: huge got 3 of 4 blocks of 2^9 frames asked for as huge pages are (75.0 %); 1 refused after 120 µs (median)."
        );
    }
}
