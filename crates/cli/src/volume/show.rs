//! What is printed of a volume, for people and as JSON.

use crate::units::{show_bytes, show_count};
use highwater::volume::{FsckReport, VolumeInfo};
use serde::Serialize;
use std::path::Path;

/// The shape of `info --json`.
#[derive(Debug, Serialize)]
pub(super) struct Info {
    format_version: u32,
    uuid: String,
    block_size: u32,
    /// The most bytes that the file may have, and how many it has.
    size_bytes: u64,
    len_bytes: u64,
    disk_bytes: u64,
    data_blocks: u64,
    used_blocks: u64,
    free_blocks: u64,
    extents: u64,
    map_blocks: u64,
    log_blocks: u64,
    log_blocks_used: u64,
    transactions: u64,
}

impl Info {
    pub(super) fn new(v: &VolumeInfo) -> Info {
        Info {
            format_version: v.version,
            uuid: uuid(&v.uuid),
            block_size: v.block_size,
            size_bytes: v.capacity,
            len_bytes: v.len,
            disk_bytes: v.blocks * u64::from(v.block_size),
            data_blocks: v.data_blocks,
            used_blocks: v.used,
            free_blocks: v.free,
            extents: v.extents,
            map_blocks: v.map_frames,
            log_blocks: v.log_blocks,
            log_blocks_used: v.log_used,
            transactions: v.transactions,
        }
    }
}

/// The shape of `fsck --json`.
#[derive(Debug, Serialize)]
pub(super) struct Fsck {
    clean: bool,
    blocks_checked: u64,
    faults: Vec<String>,
    notes: Vec<String>,
    info: Info,
}

impl Fsck {
    pub(super) fn new(report: &FsckReport) -> Fsck {
        Fsck {
            clean: report.is_clean(),
            blocks_checked: report.blocks_checked,
            faults: report.faults.iter().map(ToString::to_string).collect(),
            notes: report.notes.clone(),
            info: Info::new(&report.info),
        }
    }
}

fn uuid(bytes: &[u8; 16]) -> String {
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

/// As lines.
pub(super) fn info(path: &Path, v: &VolumeInfo) -> String {
    let block = u64::from(v.block_size);
    let bytes = |blocks: u64| show_bytes(blocks * block);
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<17}{value}\n"));
    line("volume", format!("{} ({})", path.display(), uuid(&v.uuid)));
    line(
        "file",
        format!(
            "{} long, {} at most",
            show_bytes(v.len),
            show_bytes(v.capacity)
        ),
    );
    line(
        "disk",
        format!(
            "{} in blocks of {}: {} hold data, {} are free",
            bytes(v.blocks),
            show_bytes(block),
            bytes(v.used),
            bytes(v.free)
        ),
    );
    line(
        "map",
        format!(
            "{} extents; {} when it is in memory",
            show_count(v.extents),
            bytes(v.map_frames)
        ),
    );
    line(
        "log",
        format!(
            "{}, of which a mount reads {}",
            bytes(v.log_blocks),
            bytes(v.log_used)
        ),
    );
    line(
        "transactions",
        format!(
            "{}, format version {}",
            show_count(v.transactions),
            v.version
        ),
    );
    text
}
