//! A fitted profile's text: TOML that `highwater run --device` reads, with what is known of its fit as comments.

use super::compare::{Line, verdict};
use super::fit::{Direction, Fit};
use crate::quantile;
use highwater_lab::model::Completions;
use std::fmt::Write;

impl Fit {
    /// The profile's text, with the measured points' fit as comments.
    pub fn toml(&self, origin: &str, lines: &[Line]) -> String {
        let mut t = format!("# Measured by `highwater probe`: {origin}.\n");
        if !self.writes_measured {
            t.push_str("# Nothing was written: writes are taken to cost what reads do, and flushes nothing.\n");
        }
        if !lines.is_empty() {
            let _ = write!(t, "# {}", verdict(lines));
        }
        let about = origin.replace(['"', '\\'], "'");
        let _ = writeln!(t, "model = \"ssd\"\nabout = \"Measured: {about}\"\n");
        let _ = writeln!(t, "# Requests at one time.\ndepth = {}", self.depth());
        if self.front.ring > 0 {
            t.push_str("# Descriptors: one for each piece of a request's memory, and two more.\n");
            let _ = writeln!(t, "ring = {}", self.front.ring);
        }
        if self.front.deadline {
            t.push_str("# How requests wait that find no room.\nelevator = \"deadline\"\n");
        }
        if self.completions == Completions::Together {
            t.push_str("# Signalled when nothing is left to serve; how late an idle disk begins.\ncompletions = \"together\"\n");
            let _ = writeln!(t, "wake = \"{}ns\"", self.wake_ns);
        }
        t.push_str("# 4 KiB at depth 1.\n");
        let mut latency = |name: &str, points: &[(u32, u64)]| {
            let _ = writeln!(t, "{name} = {}", quantiles(points));
        };
        latency("read", &self.read.quantiles);
        latency("write", &self.write.quantiles);
        latency("flush", &self.flush);
        t.push_str("# What the others add to 4 KiB when so many requests are under way.\n");
        let both = [("read", &self.read), ("write", &self.write)];
        for (name, d) in both.iter().filter(|(_, d)| !d.crowd.is_empty()) {
            let _ = writeln!(t, "{name}_crowd = {}", crowd(d));
        }
        t.push_str(
            "# What occupies the disk: requests of 4 KiB a second, further bytes (also while CPUs copy 10 GB/s),\n# and each further piece of memory.\n",
        );
        for (name, d) in both {
            let _ = writeln!(t, "{name}_iops = {}", d.iops);
            let _ = writeln!(t, "{name}_rate = \"{}B/s\"", d.bytes_per_s);
            if d.bytes_per_s_beside_copies > 0 {
                let rate = d.bytes_per_s_beside_copies;
                let _ = writeln!(t, "{name}_rate_beside_copies = \"{rate}B/s\"");
            }
            let _ = writeln!(t, "{name}_segment = \"{}ns\"", d.segment_ns);
        }
        t.push_str("# What a write costs less that begins where the last one ended.\n");
        let _ = writeln!(t, "write_adjoining = \"{}ns\"", self.write.adjoining_ns);
        t.push_str("# What a request's further bytes add to its own latency.\n");
        for (name, d) in both.iter().filter(|(_, d)| d.request_bytes_per_s > 0) {
            let _ = writeln!(t, "{name}_request_rate = \"{}B/s\"", d.request_bytes_per_s);
        }
        if self.flush_bytes_per_s > 0 {
            t.push_str("# The flush of what was written.\n");
            let _ = writeln!(t, "flush_rate = \"{}B/s\"", self.flush_bytes_per_s);
        }
        if lines.is_empty() {
            return t;
        }
        t.push_str(
            "\n# How well it fits: predicted / measured, in %: requests a second, p50, p99.\n",
        );
        for l in lines {
            let _ = writeln!(
                t,
                "# {:<44} {:>5.0} {:>5.0} {:>5.0}",
                l.point,
                l.throughput * 100.0,
                l.p50 * 100.0,
                l.p99 * 100.0
            );
        }
        t
    }
}

fn quantiles(points: &[(u32, u64)]) -> String {
    inline(points.iter().map(|(ppm, ns)| (quantile::name(*ppm), *ns)))
}

fn crowd(direction: &Direction) -> String {
    let points = direction.crowd.iter();
    inline(points.map(|(n, ns)| (format!("x{n}"), *ns)))
}

fn inline(points: impl Iterator<Item = (String, u64)>) -> String {
    let items: Vec<_> = points
        .map(|(key, ns)| format!("{key} = \"{ns}ns\""))
        .collect();
    format!("{{ {} }}", items.join(", "))
}
