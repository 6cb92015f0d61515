//! The lines: the text of ftrace, with the fields in the order in which the kernel's `trace-vmscan-postprocess.pl` (as of
//! Linux 6.1) expects them where it finds no formats under /sys/kernel/debug.
//!
//! **Kernel.** `trace_print_context`, and include/trace/events/vmscan.h of the 4.x series, the last that wrote pages as
//! `mm_vmscan_writepage`; the script says `classzone_idx` where those said `classzone`. What this engine does not have
//! (congested or referenced pages that are kept, unmapping) is 0.

use highwater_engine::trace::{GFP_FLAGS, IsolateMode, TraceEvent, TraceRecord};
use std::fmt::Write;

/// Where x86-64 maps `struct page`s: an event's `page` is a place there, so that it is the same in each run.
const VMEMMAP: u64 = 0xffff_ea00_0000_0000;
/// Bytes of one.
const STRUCT_PAGE: u64 = 64;

/// The lines before the first event.
pub const HEADER: &str = "\
# tracer: nop
#
#                              _-----=> irqs-off
#                             / _----=> need-resched
#                            | / _---=> hardirq/softirq
#                            || / _--=> preempt-depth
#                            ||| /     delay
#           TASK-PID   CPU#  ||||    TIMESTAMP  FUNCTION
#              | |       |   ||||       |         |
";

/// Bytes of a task's name that a trace shows (TASK_COMM_LEN without its end).
const COMM_MAX: usize = 15;

/// Who emitted an event: a task's name, as the kernel cuts it, and its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Who {
    comm: [u8; COMM_MAX],
    len: u8,
    pid: u32,
}

impl Who {
    /// The task `name` of the number `pid`. Blanks and control characters, at which a reader would split, become `_`.
    pub fn new(name: &str, pid: u32) -> Who {
        let mut end = name.len().min(COMM_MAX);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        let mut comm = [0; COMM_MAX];
        for (to, from) in comm.iter_mut().zip(name[..end].bytes()) {
            *to = if from <= b' ' || from == 0x7f {
                b'_'
            } else {
                from
            };
        }
        Who {
            comm,
            len: end as u8,
            pid,
        }
    }

    /// The name.
    pub fn comm(&self) -> &str {
        std::str::from_utf8(&self.comm[..usize::from(self.len)]).unwrap_or("?")
    }

    /// kswapd is known by its name, as in every reader of such traces.
    pub fn is_kswapd(&self) -> bool {
        self.comm().starts_with("kswapd")
    }
}

/// Appends the line of an event.
pub fn event(out: &mut String, who: &Who, record: &TraceRecord) {
    let us = record.now.0 / 1_000;
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "{:>16}-{:<5} [{:03}] .... {:5}.{:06}: {}: ",
        who.comm(),
        who.pid,
        record.cpu,
        us / 1_000_000,
        us % 1_000_000,
        record.event.name()
    );
    fields(out, &record.event);
    out.push('\n');
}

/// Appends the line of events that were lost.
pub fn lost(out: &mut String, cpu: usize, n: u64) {
    let _ = writeln!(out, "CPU:{cpu} [LOST {n} EVENTS]");
}

fn fields(out: &mut String, event: &TraceEvent) {
    let _ = match event {
        TraceEvent::KswapdWake { order } => write!(out, "nid=0 order={order}"),
        TraceEvent::KswapdSleep => write!(out, "nid=0"),
        TraceEvent::WakeupKswapd { order } => {
            write!(out, "nid=0 zid=0 order={order} gfp_flags={GFP_FLAGS}")
        }
        TraceEvent::DirectReclaimBegin {
            order,
            may_writepage,
        } => write!(
            out,
            "order={order} may_writepage={} gfp_flags={GFP_FLAGS}",
            u8::from(*may_writepage)
        ),
        TraceEvent::DirectReclaimEnd { nr_reclaimed } => write!(out, "nr_reclaimed={nr_reclaimed}"),
        TraceEvent::LruIsolate {
            order,
            isolate_mode,
            nr_requested,
            nr_scanned,
            nr_skipped,
            nr_taken,
        } => write!(
            out,
            "isolate_mode={} classzone_idx=0 order={order} nr_requested={nr_requested} nr_scanned={nr_scanned} nr_skipped={nr_skipped} \
             nr_taken={nr_taken} lru={}",
            *isolate_mode as u32,
            match isolate_mode {
                IsolateMode::Inactive => "inactive_file",
                IsolateMode::Active => "active_file",
            }
        ),
        TraceEvent::LruShrinkInactive {
            nr_scanned,
            nr_reclaimed,
            nr_dirty,
            nr_writeback,
            nr_activate,
            priority,
        } => write!(
            out,
            "nid=0 nr_scanned={nr_scanned} nr_reclaimed={nr_reclaimed} nr_dirty={nr_dirty} \
             nr_writeback={nr_writeback} nr_congested=0 nr_immediate=0 nr_activate_anon=0 \
             nr_activate_file={nr_activate} nr_ref_keep=0 nr_unmap_fail=0 priority={priority} \
             flags=RECLAIM_WB_FILE|RECLAIM_WB_ASYNC"
        ),
        TraceEvent::WritePage { pfn } => write!(
            out,
            "page={:x} pfn={pfn} flags=RECLAIM_WB_FILE|RECLAIM_WB_ASYNC",
            VMEMMAP + u64::from(*pfn) * STRUCT_PAGE
        ),
        // An event that is newer than this format: its name says enough.
        _ => Ok(()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_engine::{Nanos, TaskId};

    fn text(name: &str, pid: u32, now: u64, event_: TraceEvent) -> String {
        let mut out = String::new();
        let record = TraceRecord {
            now: Nanos(now),
            cpu: 1,
            task: TaskId(pid),
            event: event_,
        };
        event(&mut out, &Who::new(name, pid), &record);
        out
    }

    /// Each as the kernel's `TP_printk` has it.
    #[test]
    fn every_event_has_the_kernel_s_format() {
        for (event, want) in [
            (
                TraceEvent::KswapdWake { order: 0 },
                "mm_vmscan_kswapd_wake: nid=0 order=0",
            ),
            (TraceEvent::KswapdSleep, "mm_vmscan_kswapd_sleep: nid=0"),
            (
                TraceEvent::WakeupKswapd { order: 0 },
                "mm_vmscan_wakeup_kswapd: nid=0 zid=0 order=0 gfp_flags=GFP_HIGHUSER_MOVABLE",
            ),
            (
                TraceEvent::DirectReclaimBegin {
                    order: 0,
                    may_writepage: true,
                },
                "mm_vmscan_direct_reclaim_begin: order=0 may_writepage=1 gfp_flags=GFP_HIGHUSER_MOVABLE",
            ),
            (
                TraceEvent::DirectReclaimEnd { nr_reclaimed: 32 },
                "mm_vmscan_direct_reclaim_end: nr_reclaimed=32",
            ),
            (
                TraceEvent::LruIsolate {
                    order: 3,
                    isolate_mode: IsolateMode::Active,
                    nr_requested: 32,
                    nr_scanned: 7,
                    nr_skipped: 0,
                    nr_taken: 7,
                },
                "mm_vmscan_lru_isolate: isolate_mode=2 classzone_idx=0 order=3 nr_requested=32 nr_scanned=7 nr_skipped=0 nr_taken=7 lru=active_file",
            ),
            (
                TraceEvent::LruShrinkInactive {
                    nr_scanned: 7,
                    nr_reclaimed: 5,
                    nr_dirty: 1,
                    nr_writeback: 2,
                    nr_activate: 3,
                    priority: 12,
                },
                "mm_vmscan_lru_shrink_inactive: nid=0 nr_scanned=7 nr_reclaimed=5 nr_dirty=1 nr_writeback=2 nr_congested=0 nr_immediate=0 nr_activate_anon=0 nr_activate_file=3 nr_ref_keep=0 nr_unmap_fail=0 priority=12 flags=RECLAIM_WB_FILE|RECLAIM_WB_ASYNC",
            ),
            (
                TraceEvent::WritePage { pfn: 3 },
                "mm_vmscan_writepage: page=ffffea00000000c0 pfn=3 flags=RECLAIM_WB_FILE|RECLAIM_WB_ASYNC",
            ),
        ] {
            let line = text("kswapd0", 42, 17_284_993_652_999, event);
            assert_eq!(
                line,
                format!("         kswapd0-42    [001] .... 17284.993652: {want}\n")
            );
        }
    }

    #[test]
    fn names_are_cut_and_have_no_blanks() {
        let who = |name: &str| Who::new(name, 1);
        assert_eq!(who("a-name-of-twenty-bytes").comm(), "a-name-of-twent");
        assert_eq!(who("two words\n").comm(), "two_words_");
        assert_eq!(who("fourteen-bytesé").comm(), "fourteen-bytes");
        assert_eq!(who("").comm(), "");
        assert!(who("kswapd0").is_kswapd() && !who("writer").is_kswapd());
    }
}
