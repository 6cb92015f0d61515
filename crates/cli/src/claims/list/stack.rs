//! Claims about the stack: from the mail's own table, and from the deep chain here, measured to the word.
//!
//! Depths of this engine depend on the compiler and the profile; those of the table are 2.6.35's on x86-64.

use crate::claims::claim::{Answer, Claim, Condition, Figures, Unit::*, Who};
use crate::claims::mail_stack::{
    Subsystem, THREAD_SIZE, below_writepage, by_subsystem, rows, total,
};
use crate::claims::runs::{Run, Runs};
use crate::claims::setting::{Limits, Setting, Work};
use crate::report::ArmReport;
use crate::stack::{StackFrame, TaskStack};
use crate::units::show_count;
use highwater_engine::Preset;

/// "About 5K" is within a fifth of it.
const FIVE_K: f64 = 5.0 * 1024.0;
/// Dirty pages come to the tail of the LRU, where reclaim writes them.
const DEEP: Setting = Setting::new(Work::Deep).within(Limits::Machine);
const SHALLOW: Setting = Setting::new(Work::Shallow).within(Limits::Machine);

/// The claims.
pub fn claims() -> Vec<Claim> {
    vec![
        Claim {
            name: "splice",
            who: Who::Mel,
            quote: "it's direct reclaim calling writepage and splicing two potentially deep call chains",
            claim: "reclaim that writes within a writer overflows 8 KiB",
            measured: "the mail's table, with what lies below ->writepage once more; and the deepest stack of 2.6.35 on a journaled volume here",
            rule_text: "holds if more than the stack is needed",
            rule: |f| Answer::of(f.get("needed") > f.get("stack")),
            depends: "where it allocates",
            headline: |f| {
                format!(
                    "{} bytes of {}",
                    show_count(f.get("needed") as u64),
                    show_count(f.get("stack") as u64)
                )
            },
            conditions: || {
                vec![
                    computed("the mail's table, at its deepest frame", |_| {
                        splice("get_page_from_freelist")
                    }),
                    computed("the mail's table, where XFS looks for space", |_| {
                        splice("xfs_iomap_write_allocate")
                    }),
                    deep(
                        "here, memory from a reserve",
                        Run::new("run", DEEP, Preset::V2_6_35),
                    ),
                    deep(
                        "here, memory by reclaim",
                        Run::new("run", DEEP, Preset::V2_6_35).lending(),
                    ),
                    deep(
                        "here, by reclaim and without recursion guard",
                        Run::new("run", DEEP, Preset::V2_6_35).lending().unguarded(),
                    ),
                ]
            },
        },
        Claim {
            name: "too-small",
            who: Who::Dave,
            quote: "Got a report from Dave Chinner though and it's what kicked off this whole routine in the first place",
            claim: "8 KiB are too small for reclaim that writes",
            measured: "the deepest stack on a journaled volume that allocates by reclaim: 2.6.35 against rfc-2010",
            rule_text: "holds if the side that writes passes 8 KiB and the other does not; fails if it fits",
            rule: |f| {
                let stack = f.get("stack");
                Answer::of(f.get("deepest_writes") > stack && f.get("deepest_does_not") <= stack)
            },
            depends: "the file system",
            headline: |f| {
                format!(
                    "{} bytes, not writing {}",
                    show_count(f.get("deepest_writes") as u64),
                    show_count(f.get("deepest_does_not") as u64)
                )
            },
            conditions: || {
                vec![
                    both("a journaled volume", DEEP),
                    both("a plain file", SHALLOW),
                ]
            },
        },
        Claim {
            name: "five-k",
            who: Who::Mel,
            quote: "In reclaim I'm getting to about 5K deep but this was on simple storage",
            claim: "reclaim on simple storage takes about 5K of stack",
            measured: "the mail's table, its sizes added up again; and the deepest task of 2.6.35 on a plain file here",
            rule_text: "holds if it is within a fifth of 5 KiB",
            rule: |f| Answer::of((f.get("deepest") - FIVE_K).abs() <= 0.2 * FIVE_K),
            depends: "whose frames",
            headline: |f| {
                format!(
                    "{} bytes in {} frames",
                    show_count(f.get("deepest") as u64),
                    f.get("frames")
                )
            },
            conditions: || {
                vec![
                    computed("the mail's table", |_| Ok(table())),
                    Condition {
                        name: "here, a plain file",
                        runs: vec![Run::new("run", SHALLOW, Preset::V2_6_35)],
                        figures: |runs: &Runs| chain_of(deepest(runs.get("run")?)?),
                    },
                ]
            },
        },
        Claim {
            name: "xfs-deep",
            who: Who::Mel,
            quote: "XFS as you can see is quite deep there",
            claim: "the file system takes most of that stack",
            measured: "the mail's table, added up by module; and the record of 2.6.35 on a journaled volume here, by room",
            rule_text: "holds if no other part is larger",
            rule: |f| Answer::of(f.get("file_system") > f.get("largest_other")),
            depends: "the file system",
            headline: |f| {
                format!(
                    "{} of {} bytes; next {}",
                    show_count(f.get("file_system") as u64),
                    show_count(f.get("deepest") as u64),
                    show_count(f.get("largest_other") as u64)
                )
            },
            conditions: || {
                vec![
                    computed("the mail's table", |_| Ok(table())),
                    Condition {
                        name: "here, a journaled volume",
                        runs: vec![Run::new("run", DEEP, Preset::V2_6_35).lending()],
                        figures: |runs: &Runs| chain_of(deepest(runs.get("run")?)?),
                    },
                ]
            },
        },
    ]
}

/// A condition without runs.
fn computed(name: &'static str, figures: fn(&Runs) -> Result<Figures, String>) -> Condition {
    Condition {
        name,
        runs: Vec::new(),
        figures,
    }
}

/// What the deepest task of `run` needs.
fn deep(name: &'static str, run: Run) -> Condition {
    Condition {
        name,
        runs: vec![run],
        figures: |runs: &Runs| {
            let report = runs.get("run")?;
            let task = deepest(report)?;
            let calls = |what: &str| {
                let of = |f: &&StackFrame| f.location.contains(what);
                task.chain.iter().filter(of).count() as f64
            };
            Ok(Figures::default()
                .with("needed", task.deepest as f64, Bytes)
                .with("stack", THREAD_SIZE as f64, Bytes)
                .with("frames", task.chain.len() as f64, Count)
                .with("writes_in_chain", calls("::write_pages"), Count)
                .with("reclaims_in_chain", calls("::direct_reclaim"), Count))
        },
    }
}

/// Both sides, allocating by reclaim while they write.
fn both(name: &'static str, setting: Setting) -> Condition {
    Condition {
        name,
        runs: vec![
            Run::new("writes", setting, Preset::V2_6_35).lending(),
            Run::new("does-not", setting, Preset::Rfc2010).lending(),
        ],
        figures: |runs: &Runs| {
            let of = |label| deepest(runs.get(label)?).map(|t| t.deepest as f64);
            Ok(Figures::default()
                .with("deepest_writes", of("writes")?, Bytes)
                .with("deepest_does_not", of("does-not")?, Bytes)
                .with("stack", THREAD_SIZE as f64, Bytes))
        },
    }
}

/// The deepest task that is not the lab's own.
fn deepest(report: &ArmReport) -> Result<&TaskStack, String> {
    let none = || "stacks are measured on x86-64 Linux only".to_string();
    let stacks = report.stacks.as_ref().ok_or_else(none)?;
    let own = |t: &&TaskStack| !matches!(t.task.as_str(), "scenario" | "sampler");
    stacks
        .tasks
        .iter()
        .filter(own)
        .max_by_key(|t| t.deepest)
        .ok_or_else(none)
}

/// The bytes of a record's chain, by room.
fn chain_of(task: &TaskStack) -> Result<Figures, String> {
    if task.chain.is_empty() {
        return Err("the record did not come again, so that its chain is not known".into());
    }
    let mut parts: Vec<(&str, u64)> = Vec::new();
    for frame in &task.chain {
        let room = room(&frame.location);
        match parts.iter_mut().find(|(r, _)| *r == room) {
            Some((_, bytes)) => *bytes += frame.size,
            None => parts.push((room, frame.size)),
        }
    }
    let volume = parts
        .iter()
        .find(|(r, _)| *r == VOLUME)
        .map_or(0, |(_, b)| *b);
    let others = parts.iter().filter(|(r, _)| *r != VOLUME);
    Ok(Figures::default()
        .with("deepest", task.deepest as f64, Bytes)
        .with("frames", task.chain.len() as f64, Count)
        .with("file_system", volume as f64, Bytes)
        .with(
            "largest_other",
            others.map(|(_, b)| *b).max().unwrap_or(0) as f64,
            Bytes,
        ))
}

const VOLUME: &str = "journaled";

/// The room of a function of the engine, or who else it belongs to.
fn room(location: &str) -> &str {
    if location.contains("backing::journaled") {
        return VOLUME;
    }
    if location.contains("highwater_lab::device") {
        return "device";
    }
    match location.split_once("highwater_engine::") {
        Some((_, rest)) => rest.split("::").next().unwrap_or(rest),
        None => "task",
    }
}

/// Memory is allocated in `function`, the allocation enters direct reclaim, and that writes a page.
fn splice(function: &str) -> Result<Figures, String> {
    let rows = rows();
    let row = |name: &str| {
        let row = rows.iter().find(|r| r.function == name);
        row.ok_or_else(|| format!("no row of the table is {name}"))
    };
    // An allocation goes through the page allocator, which is already there in the deepest row.
    let allocator = match function {
        "get_page_from_freelist" => 0,
        _ => row("get_page_from_freelist")?.size + row("__alloc_pages_nodemask")?.size,
    };
    let outer = row(function)?.depth + allocator;
    let below = below_writepage(&rows);
    Ok(Figures::default()
        .with("needed", (outer + below) as f64, Bytes)
        .with("stack", THREAD_SIZE as f64, Bytes)
        .with("outer", outer as f64, Bytes)
        .with("below_writepage", below as f64, Bytes))
}

fn table() -> Figures {
    let rows = rows();
    let parts = by_subsystem(&rows);
    let xfs = parts
        .iter()
        .find(|(p, _)| *p == Subsystem::Xfs)
        .map_or(0, |(_, b)| *b);
    let others = parts.iter().filter(|(p, _)| *p != Subsystem::Xfs);
    Figures::default()
        .with("deepest", total(&rows) as f64, Bytes)
        .with("frames", rows.len() as f64, Count)
        .with("file_system", xfs as f64, Bytes)
        .with(
            "largest_other",
            others.map(|(_, b)| *b).max().unwrap_or(0) as f64,
            Bytes,
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(size: u64, location: &str) -> StackFrame {
        StackFrame {
            size,
            location: location.into(),
            ..StackFrame::default()
        }
    }

    #[test]
    fn a_chain_is_added_up_by_room() {
        let task = TaskStack {
            deepest: 1500,
            chain: vec![
                frame(100, "highwater_lab::device::queue::State::add+0x8c/0x2e1"),
                frame(
                    700,
                    "<highwater_engine::backing::journaled::Volume as highwater_engine::backing::Backing>::write_pages+0x1/0x2",
                ),
                frame(
                    300,
                    "highwater_engine::writeback::writepages::<impl highwater_engine::engine::Engine<W>>::write_batch+0x1/0x2",
                ),
                frame(300, "highwater_engine::writeback::cluster::gather+0x1/0x2"),
                frame(100, "highwater::tasks::run+0x14c6/0x1a58"),
            ],
            ..TaskStack::default()
        };
        let f = chain_of(&task).unwrap();
        assert_eq!(
            (f.get("file_system"), f.get("largest_other")),
            (700.0, 600.0)
        );
        let no_chain = TaskStack::default();
        assert!(
            chain_of(&no_chain)
                .unwrap_err()
                .contains("did not come again")
        );
        assert!(
            deepest(&ArmReport::default())
                .unwrap_err()
                .contains("x86-64")
        );
    }

    #[test]
    fn the_splice_is_the_table_and_once_more_what_lies_below_writepage() {
        let f = splice("get_page_from_freelist").unwrap();
        assert_eq!(f.get("needed"), 5_064.0 + 3_776.0);
        let f = splice("xfs_iomap_write_allocate").unwrap();
        assert_eq!(f.get("outer"), 2_040.0 + 304.0 + 240.0);
        assert!(splice("nobody").is_err());
    }
}
