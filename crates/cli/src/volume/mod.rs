//! `highwater volume`: make a volume, look at one, check every block of one, and cut the power to many.

mod args;
mod crash;
mod show;

pub use args::{EXAMPLES, VolumeCommand};

use crate::cleanup;
use crate::error::{CliError, Exit, Result};
use crate::outputs;
use crate::units::show_bytes;
use args::{VolumeCreate, VolumePath};
use highwater::volume::{
    self, Damage, FsckReport, VolumeError, VolumeFailure, VolumeInfo, VolumeOptions,
};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::Path;

/// Faults that are printed; all are counted, and all are in the JSON.
const FAULTS_SHOWN: usize = 20;
/// The remedy of what only looks at a volume.
const A_VOLUME: &str = "the PATH of a file or a block device that holds a volume";
const EBUSY: i32 = libc::EBUSY;

/// Runs a sub-command.
///
/// # Errors
/// What it says, with the remedy; exit code 1 for damage and failures, 2 for what is no volume that can be read.
pub fn run(what: &VolumeCommand) -> Result<()> {
    match what {
        VolumeCommand::Create(args) => create(args),
        VolumeCommand::Info(args) => info(args),
        VolumeCommand::Fsck(args) => fsck(args),
        VolumeCommand::CrashTest(args) => crash::run(args),
    }
}

/// A volume's error as the command's; `another` is the remedy where `path` will not do.
fn failed(path: &Path, e: &VolumeFailure, another: &str) -> CliError {
    let (exit, remedy) = match e {
        VolumeFailure::Volume(VolumeError::NotAVolume) => (
            Exit::Usage,
            format!("{A_VOLUME}: `highwater volume create NEW --size 1GiB` makes one"),
        ),
        VolumeFailure::Volume(VolumeError::NewerVersion { .. }) => (
            Exit::Usage,
            "a newer highwater: `highwater --version` is this one's".into(),
        ),
        VolumeFailure::Volume(VolumeError::Config(_)) => (
            Exit::Usage,
            "other sizes: `highwater volume create --help` explains them".into(),
        ),
        VolumeFailure::Volume(VolumeError::Shortened { .. }) => (
            Exit::Failed,
            "restore the end of the file or device, or a backup".into(),
        ),
        VolumeFailure::Volume(VolumeError::Damaged(_)) => (
            Exit::Failed,
            format!(
                "highwater volume fsck {}, and a backup for what it lists",
                path.display()
            ),
        ),
        VolumeFailure::File(highwater::Error::Conflict(_)) => (
            Exit::Failed,
            "close the cache that has it open; `lslocks` names the process".into(),
        ),
        VolumeFailure::File(highwater::Error::Os { errno: EBUSY, .. }) => (
            Exit::Failed,
            "umount it, or what lies on it (`lsblk` shows that): a volume would destroy it".into(),
        ),
        VolumeFailure::File(highwater::Error::Config(_)) => (Exit::Usage, another.into()),
        _ => (
            Exit::Failed,
            "a PATH that you may read (and write, to create it), on a disk that works".into(),
        ),
    };
    let named = |text: &str| text.contains(&*path.to_string_lossy());
    let message = match (e, e.to_string()) {
        // A short path may be part of any word, and a volume knows none.
        (VolumeFailure::File(_), text) if named(&text) => text,
        (_, text) => format!("{}: {text}", path.display()),
    };
    CliError {
        exit,
        message,
        remedy,
    }
}

/// What a cache can have as its frames, and so open.
fn block_size(bytes: u64) -> Result<u32> {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    if bytes.is_power_of_two() && (4 << 10..=64 << 10).contains(&bytes) {
        return Ok(bytes);
    }
    Err(CliError::usage(
        format!(
            "blocks of {}: a block is as large as a frame of the cache that opens the volume; expected a power of two from 4 KiB to 64 KiB",
            show_bytes(bytes.into())
        ),
        "--block 4KiB",
    ))
}

fn create(args: &VolumeCreate) -> Result<()> {
    let block = block_size(args.block)?;
    let options = VolumeOptions {
        disk_bytes: args.disk,
        block_size: block,
        log_bytes: args.log,
        overwrite: args.force,
        ..VolumeOptions::new(args.size)
    };
    let info = volume::create(&args.path, &options).map_err(|e| {
        let another = "another PATH; --force with one whose contents may go";
        failed(&args.path, &e, another)
    })?;
    say_of(&args.path, &info, args.json.as_deref())
}

/// What is there, for people and as JSON.
fn say_of(path: &Path, info: &VolumeInfo, json: Option<&Path>) -> Result<()> {
    outputs::publish(&show::info(path, info), &show::Info::new(info), json)
}

fn info(args: &VolumePath) -> Result<()> {
    let info = volume::info(&args.path).map_err(|e| failed(&args.path, &e, A_VOLUME))?;
    say_of(&args.path, &info, args.json.as_deref())
}

fn fsck(args: &VolumePath) -> Result<()> {
    cleanup::watch_signals();
    let bar = bar();
    let moved = bar.clone();
    let report = volume::fsck(&args.path, move |read, all| {
        if let Some(bar) = &moved {
            bar.set_length(all);
            bar.set_position(read.min(all));
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let report = report.map_err(|e| failed(&args.path, &e, A_VOLUME))?;
    let text = fsck_text(&args.path, &report);
    outputs::publish(&text, &show::Fsck::new(&report), args.json.as_deref())?;
    verdict(&args.path, &report)
}

fn fsck_text(path: &Path, report: &FsckReport) -> String {
    let mut text = show::info(path, &report.info);
    text.push_str(&format!(
        "checked          {} blocks of data, {}, against their checksums\n",
        report.blocks_checked,
        show_bytes(report.blocks_checked * u64::from(report.info.block_size))
    ));
    for note in &report.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    for fault in report.faults.iter().take(FAULTS_SHOWN) {
        text.push_str(&format!("FAULT: {fault}\n"));
    }
    if report.faults.len() > FAULTS_SHOWN {
        text.push_str(&format!(
            "… and {} faults more: --json - lists all\n",
            report.faults.len() - FAULTS_SHOWN
        ));
    }
    if report.is_clean() {
        text.push_str("clean\n");
    }
    text
}

fn verdict(path: &Path, report: &FsckReport) -> Result<()> {
    if report.is_clean() {
        return Ok(());
    }
    let data = (report.faults.iter())
        .filter(|f| matches!(f, Damage::Data { .. } | Damage::Unreadable { .. }))
        .count();
    let remedy = if data == report.faults.len() {
        "the pages named above from a backup: write each whole through a cache, and the volume is clean again"
    } else {
        "a backup of the volume: with its map or log damaged it is not mounted"
    };
    Err(CliError::failed(
        format!("{}: {} faults", path.display(), report.faults.len()),
        remedy,
    ))
}

fn bar() -> Option<ProgressBar> {
    std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template(
            "{bytes}/{total_bytes} {bar:30} {bytes_per_sec}, {eta} left",
        ) {
            bar.set_style(style);
        }
        bar
    })
}
