//! A scenario: memory, a device's limits, files, tasks and the arms to compare, as a TOML file says it.
//!
//! **Invariants.** SCEN-1: a `Scenario` that `load` returned is runnable: each task names a file that exists, each rate,
//! size and share is within its bounds, and there is at least one task.

mod builtin;
mod load;
mod names;
mod order;
mod policy;

pub use builtin::{BUILTIN, find, text};
pub use load::load;
pub use order::OrderName;
pub use policy::{
    HighOrderName, OnDirtyName, PolicyPatch, ThrottleName, WritebackFromName, shares_problem,
};

use crate::device::Named;
use crate::replay::{Beyond, Grown, Pace, PlanReplay};
use crate::units::{Bytes, Size, Span};
use highwater_engine::LendContext;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use toml::Spanned;

/// One scenario file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The name, as `highwater run NAME` has it.
    pub name: String,
    /// One sentence: what it shows.
    pub about: String,
    /// The budget.
    #[serde(default = "default_memory")]
    pub memory: Bytes,
    /// Bytes per frame.
    #[serde(default = "default_frame")]
    pub frame_size: Bytes,
    /// How many times memory is written through the cache before anything is measured.
    #[serde(default = "default_warm_up")]
    pub warm_up: f64,
    /// How long the tasks run before they are measured.
    #[serde(default = "default_settle")]
    pub settle: Span,
    /// How long they are measured.
    #[serde(default = "default_duration")]
    pub duration: Span,
    /// They end after so many measured operations, whatever `duration` says.
    #[serde(default)]
    pub ops: Option<u64>,
    /// The presets to compare; `all` stands for each of them.
    #[serde(default = "default_presets")]
    pub presets: Vec<Spanned<String>>,
    /// What every arm changes in its preset.
    #[serde(default)]
    pub policy: PolicyPatch,
    /// In which order every arm tries pages for reclaim.
    #[serde(default)]
    pub order: OrderName,
    /// A limit on the device under the files.
    #[serde(default)]
    pub device: Option<DeviceLimit>,
    /// The machine of the world `lab`.
    #[serde(default)]
    pub lab: LabSpec,
    /// What the lab's disk is: a built-in profile's name, or the path of one (`highwater devices` lists them).
    #[serde(default, deserialize_with = "named_device")]
    pub lab_device: Option<Named>,
    /// The files, by name.
    pub files: BTreeMap<String, FileSpec>,
    /// The tasks.
    pub tasks: Vec<TaskSpec>,
    /// Further arms: a preset with changes of its own.
    #[serde(default)]
    pub arms: Vec<ArmSpec>,
}

/// The virtual machine of the lab.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabSpec {
    /// Pages without bytes: tables, no data, so that the machine may be larger than the one it runs on.
    #[serde(default)]
    pub ghost: bool,
    /// Virtual CPUs.
    #[serde(default = "default_cpus")]
    pub cpus: usize,
}

/// The virtual machine has `cpus` CPUs, or what was expected.
///
/// # Errors
/// None, or more than any lab was tried with.
pub fn checked_cpus(cpus: usize) -> Result<usize, &'static str> {
    match cpus {
        1..=1024 => Ok(cpus),
        _ => Err("expected 1 to 1024 virtual CPUs"),
    }
}

/// `--cpus`, as [`checked_cpus`].
///
/// # Errors
/// As there.
pub fn parse_cpus(text: &str) -> Result<usize, String> {
    // A number that is too large for any type is too large.
    Ok(checked_cpus(text.parse().unwrap_or(0))?)
}

impl Default for LabSpec {
    fn default() -> LabSpec {
        LabSpec {
            ghost: false,
            cpus: default_cpus(),
        }
    }
}

/// The most a device serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceLimit {
    /// Bytes a second.
    #[serde(deserialize_with = "bytes_from_text", serialize_with = "bytes_to_text")]
    pub bytes_per_s: u64,
    /// Requests a second.
    pub iops: u64,
}

/// A file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// Its length.
    pub size: Size,
    /// True of a file without blocks: its pages are zeroes and reading them costs next to no device time.
    #[serde(default)]
    pub sparse: bool,
    /// What stands between the cache and the disk.
    #[serde(default)]
    pub backing: BackingName,
    /// The volume's size on the disk (`journaled` only); by default one and a half times the file's.
    #[serde(default)]
    pub capacity: Option<Size>,
    /// What traces need of it (`size = "trace"`), once they have been read.
    #[serde(skip)]
    pub trace: Option<Grown>,
}

/// What stands between the cache and a file's disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackingName {
    /// Page n at byte n times the page's size.
    #[default]
    Plain,
    /// A volume with delayed allocation and a log.
    Journaled,
}

/// Where a volume gets the memory that it needs while it writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LendName {
    /// From the reserve, without reclaim.
    #[default]
    Reserve,
    /// As any task that needs a page: it may enter direct reclaim, inside the write.
    Reclaim,
}

impl LendName {
    /// The engine's.
    pub fn context(self) -> LendContext {
        match self {
            LendName::Reserve => LendContext::Reserve,
            LendName::Reclaim => LendContext::Reclaim,
        }
    }
}

impl FileSpec {
    /// Bytes on the disk, with a budget of `memory`; for a file of a trace none are known.
    pub fn disk_bytes(&self, memory: u64) -> u64 {
        match (self.backing, self.capacity) {
            (BackingName::Plain, _) => self.size.bytes(memory),
            (BackingName::Journaled, Some(capacity)) => capacity.bytes(memory),
            (BackingName::Journaled, None) => {
                let size = self.size.bytes(memory);
                (size + size / 2).next_multiple_of(64 << 10)
            }
        }
    }
}

impl Scenario {
    /// Has it a file on a volume?
    pub fn journaled(&self) -> Option<&str> {
        let mut volumes = (self.files.iter()).filter(|(_, f)| f.backing == BackingName::Journaled);
        volumes.next().map(|(name, _)| name.as_str())
    }
}

/// What a task does, over and over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `write_at` at random places.
    RandomWrite,
    /// `page_mut` of random pages, 64 bytes changed in each. On Linux: `pwrite` of the 64 bytes.
    PageMutWrite,
    /// `read_at` at random places.
    RandomRead,
    /// `page` of random pages, 8 bytes read. On Linux: `pread` of the 8 bytes.
    PageRead,
    /// `read_at` from the start to the end, again and again.
    StreamRead,
    /// `write_at` from the start to the end, again and again.
    StreamWrite,
    /// Reads and writes of pages by Zipf's law.
    Zipf,
    /// Pages of a sparse file, one after the other: each needs a page of memory and nothing else.
    FreshPage,
    /// The requests of a trace.
    Replay,
    /// Blocks of frames in a row, held for a while: no file, memory only.
    AllocBlock,
}

impl Kind {
    /// True when the task dirties pages.
    pub fn writes(self) -> bool {
        matches!(
            self,
            Kind::RandomWrite | Kind::PageMutWrite | Kind::StreamWrite | Kind::Zipf | Kind::Replay
        )
    }
}

/// A task: one or more threads that do the same.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// The name in the table.
    pub name: String,
    /// What it does.
    pub kind: Kind,
    /// The file it does it to; empty for `alloc-block`, which needs none.
    #[serde(default = "no_file")]
    pub file: Spanned<String>,
    /// How many do it.
    #[serde(default = "one")]
    pub threads: u32,
    /// Bytes of one operation (whole pages for `page` and `page_mut`).
    #[serde(default = "default_io")]
    pub io: Bytes,
    /// Operations a second and thread, at most.
    #[serde(default)]
    pub rate: Option<f64>,
    /// Time between two operations.
    #[serde(default)]
    pub think: Option<Span>,
    /// The share of writes (`zipf` only).
    #[serde(default)]
    pub write_share: Option<f64>,
    /// The exponent (`zipf` only).
    #[serde(default)]
    pub exponent: Option<f64>,
    /// `sync_data` after so many operations.
    #[serde(default)]
    pub fsync_every: Option<u64>,
    /// Asks for blocks of 2^order frames (`alloc-block` only, as the next two).
    #[serde(default)]
    pub order: Option<u32>,
    /// How many each thread keeps; 1 unless it is said.
    #[serde(default)]
    pub hold: Option<u32>,
    /// Asks as for transparent huge pages.
    #[serde(default)]
    pub thp: Option<bool>,
    /// The trace (`replay` only, as all that follow), relative to the scenario's file or the current directory.
    #[serde(default)]
    pub trace: Option<String>,
    /// Its format, if it is not to be found by content.
    #[serde(default)]
    pub format: Option<String>,
    /// When requests are made.
    #[serde(default)]
    pub pace: Option<Pace>,
    /// How many times as fast as the trace's own times.
    #[serde(default)]
    pub speed: Option<f64>,
    /// What becomes of requests beyond the file's end.
    #[serde(default)]
    pub beyond: Option<Beyond>,
    /// From the start again at the trace's end.
    #[serde(default)]
    pub repeat: Option<bool>,
    /// Only this disk's requests.
    #[serde(default)]
    pub disk: Option<String>,
    /// Which action's lines are requests (`blkparse`).
    #[serde(default)]
    pub action: Option<String>,
    /// The trace as it was found.
    #[serde(skip)]
    pub replay: Option<PlanReplay>,
}

/// A further arm.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmSpec {
    /// The name in the table.
    pub name: String,
    /// The preset it starts from.
    pub preset: Spanned<String>,
    /// What it changes.
    #[serde(default)]
    pub policy: PolicyPatch,
    /// In which order it tries pages, if not in the scenario's.
    #[serde(default)]
    pub order: Option<OrderName>,
    /// The files' backing refuses writes from reclaim, as XFS and btrfs did.
    #[serde(default)]
    pub refuse: bool,
    /// Where volumes get memory while they write.
    #[serde(default)]
    pub lend: LendName,
    /// A reclaimer never reclaims again; false in the lab only.
    #[serde(default = "yes")]
    pub recursion_guard: bool,
}

fn bytes_from_text<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    Bytes::deserialize(d).map(|b| b.0)
}
fn named_device<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Named>, D::Error> {
    let name = String::deserialize(d)?;
    crate::device::find(&name)
        .map(Some)
        .map_err(|e| serde::de::Error::custom(e.message))
}
fn bytes_to_text<S: serde::Serializer>(bytes: &u64, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(&format_args!("{bytes}B"))
}
fn no_file() -> Spanned<String> {
    Spanned::new(0..0, String::new())
}
fn default_memory() -> Bytes {
    Bytes(64 << 20)
}
fn default_frame() -> Bytes {
    Bytes(4096)
}
fn default_io() -> Bytes {
    Bytes(4096)
}
fn default_warm_up() -> f64 {
    2.0
}
fn default_settle() -> Span {
    Span(std::time::Duration::from_millis(500))
}
fn default_duration() -> Span {
    Span(std::time::Duration::from_secs(5))
}
fn default_presets() -> Vec<Spanned<String>> {
    vec![Spanned::new(0..0, "highwater".to_string())]
}
fn default_cpus() -> usize {
    2
}
fn yes() -> bool {
    true
}
fn one() -> u32 {
    1
}
