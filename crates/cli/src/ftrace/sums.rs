//! What a trace adds up to, beside the engine's own counters of the same time.

use super::line::Who;
use highwater_engine::trace::{Event, IsolateMode, Stats, TraceEvent};

/// The counters that a trace can be checked by.
const CHECKED: [Event; 9] = [
    Event::Allocstall,
    Event::PgscanDirect,
    Event::PgstealDirect,
    Event::Pageoutrun,
    Event::PgscanKswapd,
    Event::PgstealKswapd,
    Event::Pgrefill,
    Event::NrVmscanWrite,
    Event::WakeupKswapd,
];

/// The sums of a trace, one for each counter of `CHECKED`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sums([u64; CHECKED.len()]);

impl Sums {
    fn add_to(&mut self, event: Event, n: u64) {
        let at = CHECKED.iter().position(|e| *e == event);
        self.0[at.expect("one of CHECKED")] += n;
    }

    /// Adds an event.
    pub fn add(&mut self, who: &Who, event: &TraceEvent) {
        let by = |kswapd, direct| if who.is_kswapd() { kswapd } else { direct };
        match event {
            TraceEvent::KswapdWake { .. } => self.add_to(Event::Pageoutrun, 1),
            TraceEvent::WakeupKswapd { .. } => self.add_to(Event::WakeupKswapd, 1),
            TraceEvent::DirectReclaimBegin { .. } => self.add_to(Event::Allocstall, 1),
            TraceEvent::LruIsolate {
                isolate_mode: IsolateMode::Active,
                nr_scanned,
                ..
            } => self.add_to(Event::Pgrefill, *nr_scanned),
            TraceEvent::LruIsolate { nr_scanned, .. } => {
                self.add_to(by(Event::PgscanKswapd, Event::PgscanDirect), *nr_scanned);
            }
            TraceEvent::LruShrinkInactive { nr_reclaimed, .. } => {
                self.add_to(
                    by(Event::PgstealKswapd, Event::PgstealDirect),
                    *nr_reclaimed,
                );
            }
            TraceEvent::WritePage { .. } => self.add_to(Event::NrVmscanWrite, 1),
            _ => {}
        }
    }

    /// The counters whose value is not the trace's: name, sum, counter.
    pub fn differences(&self, stats: &Stats) -> Vec<(&'static str, u64, u64)> {
        CHECKED
            .iter()
            .zip(self.0)
            .map(|(e, sum)| (e.name(), sum, stats.event(*e)))
            .filter(|(_, sum, counter)| sum != counter)
            .collect()
    }
}

/// The lines after the last event: the counters, as the engine has them. Readers of traces skip comments.
pub fn footer(stats: &Stats, events: u64, lost: u64) -> String {
    let mut out = format!(
        "#\n# events {events}\n# lost {lost}\n# counters from the build of the cache to its close:\n"
    );
    for event in CHECKED {
        out.push_str(&format!("# {} {}\n", event.name(), stats.event(event)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(of: &[(Event, u64)]) -> Stats {
        Stats {
            events: of.iter().map(|(e, n)| (e.name(), *n)).collect(),
            ..Stats::default()
        }
    }

    #[test]
    fn a_trace_is_equal_to_its_counters_and_to_no_others() {
        let (kswapd, user) = (Who::new("kswapd0", 1), Who::new("writer", 2));
        let scan = |isolate_mode, n| TraceEvent::LruIsolate {
            order: 0,
            isolate_mode,
            nr_requested: 32,
            nr_scanned: n,
            nr_skipped: 0,
            nr_taken: n,
        };
        let mut sums = Sums::default();
        sums.add(&kswapd, &scan(IsolateMode::Inactive, 3));
        sums.add(&user, &scan(IsolateMode::Inactive, 4));
        sums.add(&user, &scan(IsolateMode::Active, 5));
        sums.add(&user, &TraceEvent::WritePage { pfn: 1 });
        let mut counters = vec![
            (Event::PgscanKswapd, 3),
            (Event::PgscanDirect, 4),
            (Event::Pgrefill, 5),
            (Event::NrVmscanWrite, 1),
        ];
        assert_eq!(sums.differences(&stats(&counters)), []);
        counters[3].1 = 2;
        assert_eq!(
            sums.differences(&stats(&counters)),
            [("nr_vmscan_write", 1, 2)]
        );
        assert!(footer(&stats(&counters), 4, 0).contains("\n# nr_vmscan_write 2\n"));
    }
}
