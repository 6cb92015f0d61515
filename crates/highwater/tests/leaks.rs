//! No thread and no descriptor is left behind. One test: it counts what the whole process has.

mod common;

use common::{Inbox, Memory, disk_dir, engines, fds, open, threads};
use highwater::engine::io::{IoOp, Lane};
use highwater::{DirectIo, OsWorld};
use std::sync::Arc;

#[test]
fn nothing_is_left_behind() {
    for engine in engines() {
        // Worker threads of the kernel (`iou-wrk`) end by themselves, with their thread.
        let own = |names: &[String]| names.iter().filter(|n| !n.starts_with("iou-")).count();
        let (fds_before, threads_before) = (fds(), own(&threads()));
        for _ in 0..3 {
            let world = OsWorld::new(engine).unwrap();
            let dir = disk_dir();
            let device = open(&world, &dir.path().join("f"), true, DirectIo::Auto);
            let inbox = Arc::new(Inbox::default());
            let mut memory = Memory::new(64 << 12);
            for lane in [Lane::Flusher, Lane::Shared] {
                let mut batch: Vec<_> = (0..64)
                    .map(|i| {
                        let bufs = vec![memory.buf(i << 12, 4096)];
                        inbox.request(IoOp::Write, (i as u64) << 12, bufs, i as u64)
                    })
                    .collect();
                highwater::engine::world::Device::submit(&device, lane, &mut batch);
                if lane == Lane::Shared {
                    // In flight at the shutdown.
                    assert!(world.shutdown());
                }
                inbox.wait(&world, &device, lane, 64);
            }
        }
        let after = threads();
        assert_eq!(own(&after), threads_before, "{engine:?}: {after:?}");
        assert_eq!(fds(), fds_before, "{engine:?}");
    }
    common::rerun_without_io_uring();
}
