//! Pages that travel together lie together: what streams read and write is made of few segments, also when memory has
//! been full for long and every frame comes from reclaim. What the engine counts of them is what the disk sees.

mod common;

use common::{PAGE, open_sparse, ssd};
use highwater_engine::backing::journaled::{FormatOptions, MountOptions, Volume};
use highwater_engine::{Config, Engine, File, FileId, FileOptions, Nanos, Stats, World};
use highwater_lab::model::Ssd;
use highwater_lab::{LabOptions, LabQueue, LabWorld, Model, QueueOptions, RamDevice, RamOptions};

/// Frames of the budget.
const FRAMES: u64 = 16 << 8;
/// Bytes of a read or a write.
const CHUNK: usize = 128 << 10;
/// Pages of a segment, in the mean.
const ENOUGH: f64 = 8.0;

/// What a task did to a file of eight times memory, in counters; and the segments of reads and of writes that its disk saw.
fn stream(body: impl Fn(&File<LabWorld>, u64, &mut [u8]) + 'static) -> (Stats, [u64; 2]) {
    stream_on(QueueOptions::default(), body)
}

fn stream_on(
    disk: QueueOptions,
    body: impl Fn(&File<LabWorld>, u64, &mut [u8]) + 'static,
) -> (Stats, [u64; 2]) {
    let world = LabWorld::new(LabOptions::calm(3));
    let disk = LabQueue::new(&world, disk);
    let w = world.clone();
    let run = world.run(move || {
        let engine = Engine::new(w.clone(), Config::new(FRAMES * PAGE)).expect("the engine starts");
        let file = open_sparse(&engine, &disk, 8 * FRAMES * PAGE, true);
        let task = w.spawn_local("stream", move || {
            let mut buffer = vec![7; CHUNK];
            for at in (0..8 * FRAMES * PAGE).step_by(CHUNK) {
                body(&file, at, &mut buffer);
            }
            file.sync_data().expect("a sync");
        });
        assert!(w.join(task, Nanos::from_secs(600)));
        let (stats, segments) = (engine.stats(), disk.segments());
        engine.check_invariants();
        engine.close().expect("close");
        (stats, segments)
    });
    run.value
}

#[test]
fn what_is_read_ahead_is_read_into_frames_in_a_row() {
    let (stats, _) = stream(|file, at, buffer| {
        file.read_at(buffer, at).expect("a read");
    });
    assert!(stats.get("pgsteal_direct") + stats.get("pgsteal_kswapd") > 6 * FRAMES);
    let mean = stats.get("pages_read") as f64 / stats.get("read_segments") as f64;
    assert!(mean >= ENOUGH, "{mean:.1} pages a segment");
}

#[test]
fn what_is_written_in_order_is_written_from_frames_in_a_row() {
    let (stats, _) = stream(|file, at, buffer| file.write_at(buffer, at).expect("a write"));
    assert!(stats.get("pgsteal_direct") + stats.get("pgsteal_kswapd") > 6 * FRAMES);
    let pages = stats.get("write_bytes") / PAGE;
    let mean = pages as f64 / stats.get("write_segments") as f64;
    assert!(mean >= ENOUGH, "{mean:.1} pages a segment");
}

/// Chunks and single pages, read and written.
fn mixed(disk: QueueOptions) -> (Stats, [u64; 2]) {
    let turn = std::cell::Cell::new(1u64);
    stream_on(disk, move |file, at, buffer| {
        if at == 0 {
            // The disk sees nothing of a hole.
            for at in (0..8 * FRAMES * PAGE).step_by(CHUNK) {
                file.write_at(buffer, at).expect("a write");
            }
        }
        let drawn = turn
            .get()
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        turn.set(drawn);
        let (page, place) = (PAGE as usize, (drawn >> 33) % (8 * FRAMES) * PAGE);
        let done = match (drawn >> 20) % 4 {
            0 => file.read_at(buffer, at).map(|_| ()),
            1 => file.write_at(buffer, at),
            2 => file.read_at(&mut buffer[..page], place).map(|_| ()),
            _ => file.write_at(&buffer[..page], place),
        };
        done.expect("a read or a write");
    })
}

#[test]
fn the_engine_counts_the_segments_that_the_disk_sees() {
    // The engine counts frames in a row, the disk buffers that do not adjoin.
    let (stats, seen) = mixed(QueueOptions::default());
    let counted = ["read_segments", "write_segments"].map(|name| stats.get(name));
    assert_eq!(counted, seen);
    assert!(counted.iter().all(|n| *n > 500), "{counted:?}");
}

/// A disk that takes three segments in a request.
fn three_segments() -> QueueOptions {
    let Model::Ssd(quick) = ssd(32, 500) else {
        unreachable!("it is one")
    };
    QueueOptions {
        model: Model::Ssd(Ssd { ring: 5, ..quick }),
        ..QueueOptions::default()
    }
}

/// It gets no more (DEV-4).
#[test]
fn a_request_has_no_more_segments_than_its_disk_takes() {
    let (stats, seen) = mixed(three_segments());
    let requests = ["read_requests", "write_requests"].map(|name| stats.get(name));
    for (segments, requests) in std::iter::zip(seen, requests) {
        let mean = segments as f64 / requests as f64;
        assert!((1.0..=3.0).contains(&mean), "{segments} of {requests}");
    }
}

/// Nor from a volume, whose checkpoint writes its map from frames that lie anywhere (DEV-4).
#[test]
fn a_checkpoint_s_requests_have_no_more_segments_than_their_disk_takes() {
    let world = LabWorld::new(LabOptions::calm(3));
    let disk = LabQueue::new(&world, three_segments());
    let w = world.clone();
    let run = world.run(move || {
        let engine = Engine::new(w, Config::new(FRAMES * PAGE)).expect("the engine starts");
        let options = RamOptions {
            len: 64 << 20,
            ..RamOptions::default()
        };
        let device = RamDevice::new(&disk, options);
        let format = FormatOptions {
            logical_bytes: 32 << 20,
            block_size: PAGE as u32,
            log_bytes: 16 * PAGE,
            uuid: [7; 16],
        };
        Volume::format(&*device, &format).expect("format");
        let volume = Volume::mount(device, engine.page_source(), MountOptions::default());
        let volume = volume.expect("mount");
        let id = FileId { dev: 1, ino: 1 };
        let file = engine.open(id, volume.clone(), FileOptions { write: true });
        let file = file.expect("open");
        // A page in each leaf of the map, again and again, until the log is half full.
        for round in 0..16u8 {
            for at in (0..32 << 20).step_by(1 << 20) {
                file.write_at(&[round; 4096], at).expect("a write");
            }
            file.sync_data().expect("a sync");
        }
        let checkpoints = volume.info().checkpoints;
        drop(file);
        engine.close().expect("close");
        checkpoints
    });
    assert!(run.value > 1, "{} checkpoints", run.value);
}
