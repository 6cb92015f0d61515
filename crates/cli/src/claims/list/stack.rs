//! Claims about the stack, from the mail's own table.

use crate::claims::claim::{Answer, Claim, Condition, Figures, Unit::*, Who};
use crate::claims::mail_stack::{
    Subsystem, THREAD_SIZE, below_writepage, by_subsystem, rows, total,
};
use crate::claims::runs::Runs;
use crate::units::show_count;

/// "About 5K" is within a tenth of it.
const FIVE_K: f64 = 5.0 * 1024.0;

/// The claims.
pub fn claims() -> Vec<Claim> {
    vec![
        Claim {
            name: "splice",
            who: Who::Mel,
            quote: "it's direct reclaim calling writepage and splicing two potentially deep call chains",
            claim: "reclaim that writes within a writer overflows 8 KiB",
            measured: "the mail's table: the chain down to its allocation, and once more what lies below ->writepage",
            rule_text: "holds if both together are more than the stack, before reclaim's own frames",
            rule: |f| Answer::of(f.get("outer") + f.get("below_writepage") > f.get("stack")),
            depends: "where it allocates",
            headline: |f| {
                format!(
                    "{} + {} bytes of {}",
                    show_count(f.get("outer") as u64),
                    show_count(f.get("below_writepage") as u64),
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
                ]
            },
        },
        Claim {
            name: "five-k",
            who: Who::Mel,
            quote: "In reclaim I'm getting to about 5K deep but this was on simple storage",
            claim: "simple storage takes about 5K of stack",
            measured: "the mail's table, its sizes added up again",
            rule_text: "holds if the sum is within a tenth of 5 KiB",
            rule: |f| Answer::of((f.get("deepest") - FIVE_K).abs() <= 0.1 * FIVE_K),
            depends: "the trace",
            headline: |f| {
                format!(
                    "{} bytes in {} frames",
                    show_count(f.get("deepest") as u64),
                    f.get("frames")
                )
            },
            conditions: || vec![computed("the mail's table", |_| Ok(table()))],
        },
        Claim {
            name: "xfs-deep",
            who: Who::Mel,
            quote: "XFS as you can see is quite deep there",
            claim: "XFS takes more of that stack than anything else",
            measured: "the mail's table, added up by module",
            rule_text: "holds if XFS has the largest part",
            rule: |f| Answer::of(f.get("xfs") > f.get("largest_other")),
            depends: "the trace",
            headline: |f| {
                format!(
                    "{} of {} bytes; next {}",
                    show_count(f.get("xfs") as u64),
                    show_count(f.get("deepest") as u64),
                    show_count(f.get("largest_other") as u64)
                )
            },
            conditions: || vec![computed("the mail's table", |_| Ok(table()))],
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

/// Memory is allocated in `function`, the allocation enters direct reclaim, and that writes a page.
fn splice(function: &str) -> Result<Figures, String> {
    let rows = rows();
    let depth_of = |name: &str| {
        let row = rows.iter().find(|r| r.function == name);
        row.ok_or_else(|| format!("no row of the table is {name}"))
    };
    // An allocation goes through the page allocator, which is already there in the deepest row.
    let size = |name: &str| depth_of(name).map(|r| r.size);
    let allocator = match function {
        "get_page_from_freelist" => 0,
        _ => size("get_page_from_freelist")? + size("__alloc_pages_nodemask")?,
    };
    Ok(Figures::default()
        .with(
            "outer",
            (depth_of(function)?.depth + allocator) as f64,
            Bytes,
        )
        .with("below_writepage", below_writepage(&rows) as f64, Bytes)
        .with("stack", THREAD_SIZE as f64, Bytes))
}

fn table() -> Figures {
    let rows = rows();
    let parts = by_subsystem(&rows);
    let of = |s: Subsystem| parts.iter().find(|(p, _)| *p == s).map_or(0, |(_, b)| *b);
    let xfs = of(Subsystem::Xfs);
    let other = parts.iter().filter(|(p, _)| *p != Subsystem::Xfs);
    Figures::default()
        .with("deepest", total(&rows) as f64, Bytes)
        .with("frames", rows.len() as f64, Count)
        .with("xfs", xfs as f64, Bytes)
        .with(
            "largest_other",
            other.map(|(_, b)| *b).max().unwrap_or(0) as f64,
            Bytes,
        )
}
