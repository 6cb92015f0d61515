//! The command line of `volume`.

use crate::jobs::parse_jobs;
use crate::units::{parse_bytes, parse_seed};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// What `--help` ends with.
pub const EXAMPLES: &str = "\
A volume holds one file. Space on the disk is chosen when pages are written, so that random pages become long runs; every \
block has a checksum; after a power failure or a kill the file is as it was at some moment since its last sync. Programs open \
it with Cache::open_volume; a scenario with backing = \"journaled\" runs on one (`highwater run deep-chain`).

Examples:
  highwater volume create disk.hwv --size 1GiB              a sparse file of 1.5 GiB and its log
  highwater volume create disk.hwv --size 4GiB --disk 1GiB  thin: who finds it full gets an error,
                                                            when it writes
  highwater volume info disk.hwv
  highwater volume fsck disk.hwv --json - | jq .faults
  highwater volume crash-test --images 10000                power failures in the lab, all compared

Exit codes: 0 done, or clean; 1 damage was found, or the disk failed; 2 the command line makes no sense, or PATH is no volume \
that this program can read.";

/// What to do with volumes.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Make a volume
    Create(VolumeCreate),
    /// Print its sizes and counts
    Info(VolumePath),
    /// Check superblocks, map, log and the checksum of every block; nothing is changed
    Fsck(VolumePath),
    /// Cut the power to volumes in the lab, and compare what each mount finds with what sync promised
    CrashTest(CrashTestArgs),
}

/// Arguments of `volume create`.
#[derive(Clone, Debug, Args)]
pub struct VolumeCreate {
    /// A file, which is made if there is none, or a block device
    pub path: PathBuf,
    /// The most bytes that the file in it may have
    #[arg(long, value_parser = parse_bytes)]
    pub size: u64,
    /// Bytes on the disk [default: one and a half times --size and the log; on a block device all of it]
    #[arg(long, value_parser = parse_bytes)]
    pub disk: Option<u64>,
    /// The size of a block, 4KiB to 64KiB; the cache that opens it has frames of this size
    #[arg(long, value_parser = parse_bytes, default_value = "4KiB")]
    pub block: u64,
    /// The size of the log [default: a 64th of --size, 1 MiB to 64 MiB]
    #[arg(long, value_parser = parse_bytes)]
    pub log: Option<u64>,
    /// Overwrite what PATH holds
    #[arg(long)]
    pub force: bool,
    /// Write what was made as JSON to a file, or to standard output with -
    #[arg(long, value_name = "FILE|-")]
    pub json: Option<PathBuf>,
}

/// Arguments of `volume info` and `volume fsck`.
#[derive(Clone, Debug, Args)]
pub struct VolumePath {
    /// The file or block device that holds the volume; no cache may have it open for writing
    pub path: PathBuf,
    /// Write it as JSON to a file, or to standard output with -
    #[arg(long, value_name = "FILE|-")]
    pub json: Option<PathBuf>,
}

/// Arguments of `volume crash-test`.
#[derive(Clone, Debug, Args)]
pub struct CrashTestArgs {
    /// End after so many images
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub images: u64,
    /// End after so many seeds, however few images they gave
    #[arg(long, value_name = "N")]
    pub seeds: Option<u64>,
    /// The first seed
    #[arg(long, value_name = "S", default_value_t = 0, allow_hyphen_values = true, value_parser = parse_seed)]
    pub seed: u64,
    /// Seeds at one time, at most 1024 [default: one for each CPU]
    #[arg(long, value_name = "J", value_parser = parse_jobs)]
    pub jobs: Option<usize>,
    /// Write the summary as JSON to a file, or to standard output with -
    #[arg(long, value_name = "FILE|-")]
    pub json: Option<PathBuf>,
}
