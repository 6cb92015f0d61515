//! `highwater probe PATH`: measures a disk the way the cache uses it, and writes a profile for the lab.
//!
//! A directory gets a temporary file that is removed at the end and on Ctrl-C. A file or a block device is only read,
//! unless `--write` is said: then it is overwritten. All requests are `O_DIRECT`: a single reader calls `pread` as a miss
//! does, everything deeper goes through io_uring as the flusher's requests do. A request's memory is in one piece on huge
//! pages, as the cache's frames may be, or scattered, as its worst. What stands before the disk the system says.

mod compare;
mod copies;
mod fit;
#[cfg(test)]
mod fit_tests;
mod front;
mod meter;
mod points;
mod profile;

pub use meter::Meter;

use crate::args::ProbeArgs;
use crate::cleanup::{Undo, undo};
use crate::error::{CliError, Result};
use crate::place;
use crate::table::{Group, Table};
use crate::units::{show_bytes, show_count, show_us};
use compare::Line;
use fit::Fit;
use front::Front;
use indicatif::{ProgressBar, ProgressStyle};
use points::{Point, Probe, Step};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, IsTerminal, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Less says nothing: every point would read the same few blocks.
const BYTES_MIN: u64 = 8 << 20;

/// What is measured, and how it is put back.
struct Subject {
    file: File,
    len: u64,
    front: Front,
    _undo: Option<Undo>,
    _place: Option<place::Place>,
}

#[derive(Serialize)]
struct Json<'a> {
    path: String,
    bytes: u64,
    writes: bool,
    points: &'a [Point],
    fit: &'a [Line],
    profile: &'a str,
}

/// Runs it.
///
/// # Errors
/// When the path cannot be measured, or the device answers with an error.
pub fn run(args: &ProbeArgs) -> Result<()> {
    crate::cleanup::watch_signals();
    // Before a file is laid out, or one is overwritten.
    let steps = points::steps(args.write || args.path.is_dir());
    let each = meter::share(&steps, args.duration, "--duration")?;
    let subject = open(args)?;
    let bar = bar(&steps);
    let front = subject.front;
    let probe =
        Probe::new(&subject.file, subject.len, each, front.pieces_max).map_err(not_begun)?;
    let mut points = Vec::new();
    for step in &steps {
        bar.set_message(step.name());
        points.push(
            probe
                .measure(step)
                .map_err(|e| failed(&args.path, step, e))?,
        );
        bar.inc(1);
        crate::cleanup::wait_if_ending();
    }
    bar.finish_and_clear();
    let fit = Fit::of(&points, subject.len, front);
    let lines = fit.compare(&points);
    let origin = format!("{}, {}", args.path.display(), show_bytes(subject.len));
    let profile = fit.toml(&origin, &lines);
    // What is written must load: PROFILE-1.
    crate::device::load("the fitted profile", &profile)?;
    drop(subject);
    publish(args, &points, &lines, &profile)
}

fn not_begun(e: std::io::Error) -> CliError {
    let remedy = "64 MiB of free memory, and a disk without errors (`dmesg`)";
    CliError::os("the probe cannot begin", e, remedy)
}

fn failed(path: &Path, step: &Step, e: std::io::Error) -> CliError {
    CliError::os(
        format!("{}: {}", path.display(), step.name()),
        e,
        "a directory on another disk, or check this one with `dmesg`",
    )
}

fn bar(steps: &[Step]) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(steps.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {wide_msg}") {
        bar.set_style(style);
    }
    bar
}

fn open(args: &ProbeArgs) -> Result<Subject> {
    let path = &args.path;
    let remedy = "a directory on the disk, a file of 8 MiB or more, or a block device";
    let about = |e: std::io::Error| CliError::os(path.display(), e, remedy);
    let kind = std::fs::metadata(path).map_err(about)?.file_type();
    if kind.is_dir() {
        return in_directory(path, args.size);
    }
    if !kind.is_file() && !kind.is_block_device() {
        return Err(CliError::usage(
            format!(
                "{} is neither a directory, a file nor a block device",
                path.display()
            ),
            remedy,
        ));
    }
    let file = direct(path, args.write, args.write && kind.is_block_device())?;
    let len = (&file).seek(SeekFrom::End(0)).map_err(about)?;
    let subject = subject(path, file, len)?;
    // What is refused has been neither read nor overwritten.
    if args.write {
        say!("warning: --write: {} is being overwritten", path.display());
    } else {
        say!(
            "note: {} is only read; writes in the profile are taken to cost what reads do (--write overwrites it)",
            path.display()
        );
    }
    Ok(subject)
}

/// Opens what is measured; `alone` a block device that nobody else may have: not a mounted one, nor one below another device.
fn direct(path: &Path, write: bool, alone: bool) -> Result<File> {
    let exclusive = if alone { libc::O_EXCL } else { 0 };
    OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(libc::O_DIRECT | exclusive)
        .open(path)
        .map_err(|e| {
            let remedy = match e.kind() {
                ErrorKind::ResourceBusy => {
                    "umount it, or what lies on it (`lsblk` shows that): --write would destroy it; without --write it is only read"
                }
                ErrorKind::PermissionDenied => {
                    "the same as root, or a directory on that disk that you may write to"
                }
                ErrorKind::ReadOnlyFilesystem => "without --write it is only read",
                _ => "a disk whose file system has O_DIRECT (not tmpfs)",
            };
            CliError::os(format!("open {} with O_DIRECT", path.display()), e, remedy)
        })
}

fn subject(path: &Path, file: File, len: u64) -> Result<Subject> {
    enough(path.display(), len, "a larger file, or a directory")?;
    // Whole MiB, so that each request's size divides it.
    let len = len & !((1 << 20) - 1);
    Ok(Subject {
        front: front(&file).map_err(|e| CliError::os(path.display(), e, "check its disk"))?,
        file,
        len,
        _undo: None,
        _place: None,
    })
}

/// Refuses fewer bytes than tell anything.
fn enough(what: impl std::fmt::Display, bytes: u64, remedy: &str) -> Result<()> {
    if bytes >= BYTES_MIN {
        return Ok(());
    }
    let (has, needs) = (show_bytes(bytes), show_bytes(BYTES_MIN));
    Err(CliError::usage(
        format!("{what} has {has}; a probe needs {needs}"),
        remedy,
    ))
}

/// What stands before the disk of `file`, or the disk that it is.
fn front(file: &File) -> std::io::Result<Front> {
    let meta = file.metadata()?;
    let dev = match meta.file_type().is_block_device() {
        true => meta.rdev(),
        false => meta.dev(),
    };
    let name = format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev));
    Ok(Front::of(Path::new("/sys/dev/block"), &name))
}

fn in_directory(dir: &Path, size: u64) -> Result<Subject> {
    enough("the temporary file", size, "--size 512MiB")?;
    let place = place::make(Some(dir)).map_err(|e| CliError {
        remedy: "a directory on the disk that you may write to".into(),
        ..e
    })?;
    if let Some(room) = place::room(dir)
        && size > room.files
    {
        let [free, kept, size] = [room.free, room.kept, size].map(show_bytes);
        return Err(CliError::failed(
            format!(
                "{} has {free} free, of which {kept} stay so, and the temporary file has {size}",
                dir.display(),
            ),
            "a smaller --size, or a directory on a larger disk",
        ));
    }
    if place.in_memory {
        say!(
            "note: {} is in memory (tmpfs): there is no disk below it, and the profile is that of a copy; name a directory on the disk",
            dir.display()
        );
    }
    let path = place.dir.join("probe.data");
    say!("laying out {} in {}", show_bytes(size), dir.display());
    place::lay_out(&path, size.next_multiple_of(1 << 20), false)?;
    crate::cleanup::wait_if_ending();
    let file = direct(&path, true, false)?;
    let gone = path.clone();
    let undo = undo(move || {
        let _ = std::fs::remove_file(&gone);
    });
    Ok(Subject {
        _undo: Some(undo),
        _place: Some(place),
        ..subject(&path, file, size)?
    })
}

fn publish(args: &ProbeArgs, points: &[Point], lines: &[Line], profile: &str) -> Result<()> {
    let mut text = format!("\n{}\n", table(points, lines).render(crate::console::WIDTH));
    text.push_str(&compare::verdict(lines));
    if let Some(out) = &args.out {
        std::fs::write(out, profile).map_err(|e| {
            CliError::os(out.display(), e, "--out with a file that you may write to")
        })?;
        text.push_str(&format!(
            "\nNext: highwater run rfc --world os,lab --device {}\n",
            crate::command_line::quoted(&out.to_string_lossy())
        ));
    } else {
        let said = crate::command_line::CommandLine::here().without(&["json"]);
        let next = said.with("out", "mine.toml");
        text.push_str(&format!("\n{profile}\nNext: {next}\n"));
    }
    let json = Json {
        path: args.path.display().to_string(),
        bytes: points.first().map_or(0, |p| p.span),
        writes: points.iter().any(|p| p.step.writes()),
        points,
        fit: lines,
        profile,
    };
    crate::outputs::publish(&text, &json, args.json.as_deref())
}

fn table(points: &[Point], lines: &[Line]) -> Table {
    let columns = |names: &[&str]| names.iter().map(|n| (*n).to_string()).collect();
    let mut table = Table {
        corner: "point".into(),
        groups: vec![
            Group {
                title: "measured".into(),
                columns: columns(&["a second", "MB/s", "p1", "p50", "p99", "p99.9"]),
            },
            Group {
                title: "the profile's, in % of measured".into(),
                columns: columns(&["a second", "p50", "p99"]),
            },
        ],
        ..Table::default()
    };
    for point in points {
        let mut cells = vec![
            show_count(point.per_s as u64),
            match point.bytes_per_s() {
                // A flush moves none.
                0.0 => "-".into(),
                bytes => format!("{:.1}", bytes / 1e6),
            },
        ];
        cells.extend([0.01, 0.5, 0.99, 0.999].map(|q| show_us(point.us(q))));
        let line = lines.iter().find(|l| l.point == point.step.name());
        let percent =
            |share: Option<f64>| share.map_or("-".into(), |s| format!("{:.0}", s * 100.0));
        cells.push(percent(line.map(|l| l.throughput)));
        cells.push(percent(line.map(|l| l.p50)));
        cells.push(percent(line.map(|l| l.p99)));
        table.labels.push(point.step.name());
        table.cells.push(cells);
    }
    table
}
