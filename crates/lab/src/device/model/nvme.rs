//! A flash disk whose channels show: addresses are striped over channels that serve one unit at a time each.
//!
//! A command passes the controller (one at a time, `command` each), its units wait for their channels, and its bytes
//! pass over the bus. So throughput rises with depth until the channels are busy, small random reads collide on
//! channels by chance, and a read waits behind the writes of its channel. Left out: garbage collection and wear.
//!
//! The default has the figures of the data sheet of the Samsung 970 PRO 1 TB (2018): 15,000 and 55,000 reads and writes
//! a second at depth 1, 500,000 at depth 32 x 4, 3.5 and 2.7 GB/s in sequence. The split into channel and rest is a
//! guess that gives these figures.

use super::{
    Access, DEPTH_EXPECTED, Latency, Places, Rate, TIME_EXPECTED, TIME_MAX, depth_fits, expect,
};
use crate::rng::Rng;
use highwater_engine::Nanos;
use highwater_engine::io::IoOp;

/// A flash disk with channels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nvme {
    /// Commands at one time.
    pub depth: usize,
    /// Units that serve one access at a time each (channels x dies).
    pub channels: usize,
    /// How many bytes are on one channel before the next one's turn.
    pub stripe: u64,
    /// What a read takes outside its channel.
    pub read: Latency,
    /// What a write takes outside its channel.
    pub write: Latency,
    /// How long a read of a stripe or less occupies its channel.
    pub channel_read: Nanos,
    /// How long a write of a stripe or less occupies its channel.
    pub channel_write: Nanos,
    /// How long a command occupies the controller.
    pub command: Nanos,
    /// The bus, as reads use it.
    pub read_rate: Rate,
    /// The bus, as writes use it.
    pub write_rate: Rate,
    /// What a flush takes.
    pub flush: Nanos,
}

impl Default for Nvme {
    fn default() -> Nvme {
        let us = Nanos::from_micros;
        Nvme {
            depth: 256,
            channels: 32,
            stripe: 16 << 10,
            read: Latency::uniform(us(13), us(19)),
            write: Latency::uniform(us(7), us(9)),
            channel_read: us(50),
            channel_write: us(10),
            command: us(2),
            read_rate: Rate::bytes_per_s(3_500_000_000),
            write_rate: Rate::bytes_per_s(2_700_000_000),
            flush: us(500),
        }
    }
}

impl Nvme {
    pub(super) fn check(&self) -> Result<(), (&'static str, &'static str)> {
        expect(depth_fits(self.depth), "depth", DEPTH_EXPECTED)?;
        expect(depth_fits(self.channels), "channels", "1 to 65536")?;
        let stripe = (512..=1 << 30).contains(&self.stripe);
        expect(stripe, "stripe", "512B to 1GiB")?;
        let times = [
            self.channel_read,
            self.channel_write,
            self.command,
            self.flush,
        ];
        let longest = times
            .into_iter()
            .chain([self.read.max(), self.write.max()])
            .max();
        expect(longest <= Some(TIME_MAX), "a time", TIME_EXPECTED)
    }
}

pub(in crate::device) struct Channels {
    nvme: Nvme,
    places: Places,
    free_at: Vec<u64>,
    controller_free_at: u64,
    bus_free_at: u64,
}

impl Channels {
    pub fn new(nvme: Nvme) -> Channels {
        Channels {
            places: Places::new(nvme.depth),
            free_at: vec![0; nvme.channels],
            controller_free_at: 0,
            bus_free_at: 0,
            nvme,
        }
    }

    pub fn flush(&self) -> Nanos {
        self.nvme.flush
    }

    pub fn end_of(&mut self, at: u64, access: &Access, rng: &mut Rng) -> u64 {
        let n = &self.nvme;
        let (latency, busy, rate) = match access.op {
            IoOp::Read => (&n.read, n.channel_read, n.read_rate),
            IoOp::Write => (&n.write, n.channel_write, n.write_rate),
        };
        let (place, start) = self.places.earliest(at);
        let begun = start.max(self.controller_free_at);
        self.controller_free_at = begun + n.command.0;
        let first = access.offset / n.stripe;
        let last = (access.offset + access.len.max(1) - 1) / n.stripe;
        let mut ready = begun;
        for unit in first..=last {
            let channel = &mut self.free_at[(unit % n.channels as u64) as usize];
            *channel = begun.max(*channel) + busy.0;
            ready = ready.max(*channel);
        }
        self.bus_free_at = self.bus_free_at.max(begun) + rate.time(access.len);
        let end = ready.max(self.bus_free_at) + n.command.0 + latency.sample(rng) + access.extra;
        *place = end;
        end
    }
}
