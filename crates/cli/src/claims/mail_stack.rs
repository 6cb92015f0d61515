//! The stack table of the mail, parsed and added up again: what it proves, and what it only suggests.
//!
//! A flusher of 2.6.35 writes a file of XFS; the trace is of its deepest moment. Every figure that is said about the table
//! is computed from `mail-stack.txt` here.

use std::collections::BTreeMap;

/// The table, in the format of the kernel's stack tracer.
const TEXT: &str = include_str!("mail-stack.txt");
/// THREAD_SIZE of x86-64 in 2010: two pages.
pub const THREAD_SIZE: u64 = 8192;
/// The function that reclaim would enter the file system by.
const WRITEPAGE: &str = "xfs_vm_writepage";

/// One call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Bytes from the stack's top to the end of this frame.
    pub depth: u64,
    /// Bytes of this frame.
    pub size: u64,
    /// The function, without offset.
    pub function: String,
    /// Its module; empty in the kernel itself.
    pub module: String,
}

/// Where the bytes of the table belong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Subsystem {
    /// The file system.
    Xfs,
    /// The flusher, and the thread it runs on.
    Writeback,
    /// Pages, slabs and mempools.
    Allocator,
    /// Requests and their queue.
    Block,
    /// The disk's driver.
    Scsi,
}

impl Subsystem {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Subsystem::Xfs => "XFS",
            Subsystem::Writeback => "writeback and kthread",
            Subsystem::Allocator => "allocator",
            Subsystem::Block => "block",
            Subsystem::Scsi => "SCSI",
        }
    }

    fn of(row: &Row) -> Subsystem {
        const ALLOCATOR: [&str; 8] = [
            "get_page_from_freelist",
            "__alloc_pages_nodemask",
            "kmem_getpages",
            "cache_grow",
            "cache_alloc_refill",
            "kmem_cache_alloc",
            "mempool_alloc_slab",
            "mempool_alloc",
        ];
        const BLOCK: [&str; 7] = [
            "blk_peek_request",
            "__blk_run_queue",
            "elv_insert",
            "__elv_add_request",
            "__make_request",
            "generic_make_request",
            "submit_bio",
        ];
        match (row.module.as_str(), row.function.as_str()) {
            ("xfs", _) => Subsystem::Xfs,
            // The scatter list is SCSI's, though its function is the library's.
            ("scsi_mod" | "sd_mod", _) | (_, "__sg_alloc_table") => Subsystem::Scsi,
            (_, f) if ALLOCATOR.contains(&f) => Subsystem::Allocator,
            (_, f) if BLOCK.contains(&f) => Subsystem::Block,
            _ => Subsystem::Writeback,
        }
    }
}

/// The rows, deepest first.
pub fn rows() -> Vec<Row> {
    parse(TEXT).expect("the table that comes with the command")
}

/// Reads a table of the stack tracer.
///
/// # Errors
/// The line that is no row.
fn parse(text: &str) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for line in text.lines().skip(2) {
        let bad = || format!("no row of a stack table: {line:?}");
        let (index, rest) = line.trim().split_once(')').ok_or_else(bad)?;
        if index.parse() != Ok(rows.len()) {
            return Err(bad());
        }
        let mut words = rest.split_whitespace();
        let mut number = || words.next()?.parse::<u64>().ok();
        let (depth, size) = (number().ok_or_else(bad)?, number().ok_or_else(bad)?);
        let location = words.next().ok_or_else(bad)?;
        let (function, _) = location.split_once("+0x").ok_or_else(bad)?;
        let module = words.next().unwrap_or("");
        rows.push(Row {
            depth,
            size,
            function: function.to_string(),
            module: module.trim_matches(['[', ']']).to_string(),
        });
    }
    Ok(rows)
}

/// Bytes of all frames together.
pub fn total(rows: &[Row]) -> u64 {
    rows.iter().map(|r| r.size).sum()
}

/// Bytes below `->writepage`: what a writer adds to the stack that it is called on.
pub fn below_writepage(rows: &[Row]) -> u64 {
    let at = rows.iter().position(|r| r.function == WRITEPAGE);
    // The row above is the caller's last frame; what is deeper is `->writepage` and what it calls.
    let caller = at.and_then(|i| rows.get(i + 1)).map_or(0, |r| r.depth);
    total(rows) - caller
}

/// Bytes of each subsystem, most first.
pub fn by_subsystem(rows: &[Row]) -> Vec<(Subsystem, u64)> {
    let mut sums: BTreeMap<Subsystem, u64> = BTreeMap::new();
    for row in rows {
        *sums.entry(Subsystem::of(row)).or_default() += row.size;
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_is_the_difference_of_two_depths() {
        let rows = rows();
        assert_eq!(rows.len(), 49);
        for (i, row) in rows.iter().enumerate() {
            let below = rows.get(i + 1).map_or(0, |r| r.depth);
            assert_eq!(row.size, row.depth - below, "row {i}: {row:?}");
        }
        assert_eq!(total(&rows), 5_064);
        assert_eq!(total(&rows), rows[0].depth);
    }

    #[test]
    fn the_bytes_belong_to_whom_the_modules_say() {
        use Subsystem::*;
        assert_eq!(
            by_subsystem(&rows()),
            [
                (Xfs, 1_808),
                (Writeback, 1_224),
                (Allocator, 992),
                (Block, 576),
                (Scsi, 464)
            ]
        );
    }

    #[test]
    fn what_lies_below_writepage_fills_most_of_a_stack() {
        let rows = rows();
        let below = below_writepage(&rows);
        assert_eq!(below, 3_776);
        // What is left to whoever enters reclaim, before reclaim's own frames.
        assert_eq!(THREAD_SIZE - below, 4_416);
    }

    #[test]
    fn a_damaged_table_is_refused() {
        assert!(parse(TEXT).is_ok());
        for (from, to) in [
            ("  7)", "  8)"),
            ("5064", "50x4"),
            ("+0x2e4/0x722", ""),
            (" 10)", " 10"),
        ] {
            assert!(
                parse(&TEXT.replacen(from, to, 1)).is_err(),
                "{from} -> {to}"
            );
        }
    }
}
