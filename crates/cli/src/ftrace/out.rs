//! From the tracepoint to the file.
//!
//! **State.** `Out` (the file, the sums) belongs to the writing thread on threads, and to a mutex in the lab, where it is
//! never contended. `lost` counts what found the buffer full, for each CPU.
//! **Context.** `Tracer::event` runs in the midst of reclaim: it makes no line on threads, and never waits there.
//! **Kernel.** The ring buffer and its reader, `trace_pipe`; there, too, a full buffer loses events and says how many.

use super::line::{self, Who};
use super::paths::try_create;
use super::sums::{Sums, footer};
use crate::error::{CliError, Result};
use highwater_engine::TaskId;
use highwater_engine::trace::{Stats, TraceRecord, Tracer};
use highwater_lab::LabWorld;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Events that wait for the writer at most: a burst of some 80 MiB. Memory is taken as they come.
const BUFFER: usize = 1 << 20;
/// Bytes of lines that are written at one time.
const CHUNK: usize = 64 << 10;

/// A trace that is being written.
pub struct Trace {
    path: PathBuf,
    kind: TraceKind,
}

enum TraceKind {
    Lab(Arc<LabTracer>),
    Os(Arc<OsTracer>, JoinHandle<Out>),
}

/// The file, and what went into it. After an error nothing more is written; the error is kept for the end.
#[derive(Debug)]
struct Out {
    file: File,
    text: String,
    sums: Sums,
    events: u64,
    lost: u64,
    failed: Option<std::io::Error>,
}

impl Out {
    fn new(path: &Path) -> Result<Out> {
        Ok(Out {
            file: try_create(path)?,
            text: line::HEADER.to_string(),
            sums: Sums::default(),
            events: 0,
            lost: 0,
            failed: None,
        })
    }

    fn event(&mut self, who: &Who, record: &TraceRecord) {
        self.events += 1;
        self.sums.add(who, &record.event);
        line::event(&mut self.text, who, record);
        if self.text.len() >= CHUNK {
            self.write();
        }
    }

    fn lost(&mut self, cpu: usize, n: u64) {
        self.lost += n;
        line::lost(&mut self.text, cpu, n);
    }

    fn write(&mut self) {
        if self.failed.is_none()
            && let Err(e) = self.file.write_all(self.text.as_bytes())
        {
            self.failed = Some(e);
        }
        self.text.clear();
    }
}

/// The lab's: each event at once.
struct LabTracer {
    world: Arc<LabWorld>,
    out: Mutex<Option<Out>>,
}

impl std::fmt::Debug for LabTracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LabTracer")
    }
}

impl Tracer for LabTracer {
    fn event(&self, record: &TraceRecord) {
        let TaskId(pid) = record.task;
        let who = Who::new(&self.world.task_name(record.task), pid);
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(out) = out.as_mut() {
            out.event(&who, record);
        }
    }
}

enum Message {
    Event(Who, TraceRecord),
    End,
}

/// The OS world's: through a buffer to a thread.
#[derive(Debug)]
struct OsTracer {
    send: Sender<Message>,
    /// So many may wait.
    room: usize,
    waiting: Arc<AtomicUsize>,
    lost: Arc<[AtomicU64]>,
}

thread_local! {
    /// The calling thread, asked for once.
    static WHO: Who = {
        let thread = std::thread::current();
        let tid = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        Who::new(thread.name().unwrap_or("highwater"), tid)
    };
}

impl Tracer for OsTracer {
    fn event(&self, record: &TraceRecord) {
        // Relaxed: a bound of memory, which a few events more or less do not matter to. Counted before it is sent, so that
        // the writer never takes one that is not counted yet.
        let room = self.waiting.load(Ordering::Relaxed) < self.room;
        let sent = room && {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            let message = Message::Event(WHO.with(|w| *w), *record);
            self.send.send(message).is_ok()
        };
        if !sent {
            // Relaxed: a statistic, read by the writer at its leisure and at the end, after all tasks were joined.
            self.lost[record.cpu as usize % self.lost.len()].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The writing thread's body: until the end is announced.
fn drain(
    receive: &Receiver<Message>,
    waiting: &AtomicUsize,
    lost: &[AtomicU64],
    mut out: Out,
) -> Out {
    while let Ok(Message::Event(who, record)) = receive.recv() {
        // Relaxed: see `OsTracer::event`.
        waiting.fetch_sub(1, Ordering::Relaxed);
        take_lost(lost, &mut out);
        out.event(&who, &record);
    }
    take_lost(lost, &mut out);
    out
}

fn take_lost(lost: &[AtomicU64], out: &mut Out) {
    for (cpu, counter) in lost.iter().enumerate() {
        // Relaxed: see `OsTracer::event`. Looked at first, since it is nearly always zero.
        if counter.load(Ordering::Relaxed) != 0 {
            out.lost(cpu, counter.swap(0, Ordering::Relaxed));
        }
    }
}

impl Trace {
    /// A trace of the lab, to the file `path`.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn lab(path: &Path, world: &Arc<LabWorld>) -> Result<Trace> {
        let tracer = LabTracer {
            world: world.clone(),
            out: Mutex::new(Some(Out::new(path)?)),
        };
        Ok(Trace {
            path: path.to_path_buf(),
            kind: TraceKind::Lab(Arc::new(tracer)),
        })
    }

    /// A trace of the OS world, to the file `path`.
    ///
    /// # Errors
    /// When the file cannot be created, or no thread be started.
    pub fn os(path: &Path) -> Result<Trace> {
        let out = Out::new(path)?;
        let cpus = crate::cpu::count();
        let lost: Arc<[AtomicU64]> = (0..cpus).map(|_| AtomicU64::new(0)).collect();
        let (send, receive) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let (counters, taken) = (lost.clone(), waiting.clone());
        let writer = std::thread::Builder::new()
            .name("ftrace".into())
            .spawn(move || drain(&receive, &taken, &counters, out))
            .map_err(|e| {
                CliError::os(
                    "start the thread that writes the trace",
                    e,
                    "raise `ulimit -u`",
                )
            })?;
        Ok(Trace {
            path: path.to_path_buf(),
            kind: TraceKind::Os(
                Arc::new(OsTracer {
                    send,
                    room: BUFFER,
                    waiting,
                    lost,
                }),
                writer,
            ),
        })
    }

    /// For the engine's config.
    pub fn tracer(&self) -> Arc<dyn Tracer> {
        match &self.kind {
            TraceKind::Lab(tracer) => tracer.clone(),
            TraceKind::Os(tracer, _) => tracer.clone(),
        }
    }

    /// Ends the trace of a cache that was closed with the counters `stats`; a line for people about it.
    ///
    /// # Errors
    /// When the file could not be written, or when nothing was lost and the trace does not add up to the counters.
    pub fn finish(self, stats: &Stats) -> Result<String> {
        let path = self.path.display();
        let bug = |what: String| CliError::failed(what, "report this as a bug, with the scenario");
        let out = match self.kind {
            TraceKind::Lab(tracer) => tracer
                .out
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
            TraceKind::Os(tracer, writer) => {
                // Fails when the writer is gone, which the join says.
                let _ = tracer.send.send(Message::End);
                writer.join().ok()
            }
        };
        let mut out = out.ok_or_else(|| bug(format!("--ftrace {path}: the writer is gone")))?;
        out.text.push_str(&footer(stats, out.events, out.lost));
        out.write();
        if let Some(e) = out.failed {
            let remedy = "--ftrace with a file on a disk with room; a trace takes about 160 bytes for each event";
            return Err(CliError::os(format!("--ftrace {path}"), e, remedy));
        }
        let (events, lost) = (out.events, out.lost);
        if lost > 0 {
            return Ok(format!(
                "{path}: {events} events, {lost} lost as the disk was slower than they came; sums fall short of the counters"
            ));
        }
        if let Some((name, sum, counter)) = out.sums.differences(stats).first() {
            return Err(bug(format!(
                "--ftrace {path}: the trace has {sum} of {name} and the engine counted {counter}"
            )));
        }
        Ok(format!(
            "{path}: {events} events from the build of the cache to its close, none lost; sums equal the counters"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_engine::Nanos;
    use highwater_engine::trace::TraceEvent;

    const WRITE: TraceRecord = TraceRecord {
        now: Nanos(5_000),
        cpu: 0,
        task: TaskId(0),
        event: TraceEvent::WritePage { pfn: 9 },
    };

    fn counted(written: u64) -> Stats {
        Stats {
            events: vec![("nr_vmscan_write", written)],
            ..Stats::default()
        }
    }

    fn in_temp() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir_in(".").unwrap();
        let path = dir.path().join("t");
        (dir, path)
    }

    #[test]
    fn what_is_emitted_is_in_the_file_and_adds_up() {
        let (_dir, path) = in_temp();
        let trace = Trace::os(&path).unwrap();
        let tracer = trace.tracer();
        for _ in 0..3_000 {
            tracer.event(&WRITE);
        }
        let note = trace.finish(&counted(3_000)).unwrap();
        assert!(
            note.contains("3000 events") && note.contains("none lost"),
            "{note}"
        );
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches("mm_vmscan_writepage: ").count(), 3_000);
        assert!(text.contains("# lost 0\n"));
        // An event after the end is nobody's.
        tracer.event(&WRITE);
    }

    #[test]
    fn a_trace_that_does_not_add_up_is_an_error() {
        let (_dir, path) = in_temp();
        let trace = Trace::os(&path).unwrap();
        trace.tracer().event(&WRITE);
        let e = trace.finish(&counted(2)).unwrap_err();
        assert!(e.message.contains("1 of nr_vmscan_write"), "{e}");
    }

    /// Events that come before there is a writer, and what the file says of them.
    fn burst(room: usize, events: u64) -> (Out, String) {
        let (_dir, path) = in_temp();
        let out = Out::new(&path).unwrap();
        let (send, receive) = channel();
        let lost: Arc<[AtomicU64]> = Arc::new([AtomicU64::new(0)]);
        let waiting = Arc::new(AtomicUsize::new(0));
        let tracer = OsTracer {
            send,
            room,
            waiting: waiting.clone(),
            lost: lost.clone(),
        };
        for _ in 0..events {
            tracer.event(&WRITE);
        }
        drop(tracer);
        let mut out = drain(&receive, &waiting, &lost, out);
        out.write();
        assert_eq!(waiting.load(Ordering::Relaxed), 0);
        let text = std::fs::read_to_string(&path).unwrap();
        (out, text)
    }

    #[test]
    fn a_full_buffer_loses_events_and_says_how_many() {
        let (out, text) = burst(2, 5);
        assert_eq!((out.events, out.lost), (2, 3));
        assert!(text.contains("CPU:0 [LOST 3 EVENTS]\n"), "{text}");
    }

    #[test]
    fn a_second_of_reclaim_waits_for_a_writer_that_gets_no_cpu() {
        let (out, _) = burst(BUFFER, 400_000);
        assert_eq!((out.events, out.lost), (400_000, 0));
    }

    #[test]
    fn a_full_disk_is_an_error_with_a_remedy() {
        if !Path::new("/dev/full").exists() {
            eprintln!("skipped: no /dev/full");
            return;
        }
        let trace = Trace::os(Path::new("/dev/full")).unwrap();
        trace.tracer().event(&WRITE);
        let e = trace.finish(&counted(1)).unwrap_err();
        assert!(e.message.contains("/dev/full"), "{e}");
        assert!(e.remedy.contains("room"), "{e}");
    }
}
