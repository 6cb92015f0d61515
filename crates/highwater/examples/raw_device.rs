//! What the device layer costs: random 4 KiB writes at depth, and 1 MiB sequential, each beside raw `O_DIRECT` calls of
//! the same kind, interleaved, medians of N rounds. `cargo run --release --example raw_device -- DIR [ROUNDS]`
use highwater::engine::io::{IoBuf, IoOp, IoSink, Lane, Request};
use highwater::engine::world::{Device, Nanos};
use highwater::engine::{IoError, World};
use highwater::{DirectIo, FileDevice, IoEngine, OsArena, OsWorld};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const LEN: u64 = 1 << 30;
const ROUND: Duration = Duration::from_millis(700);

#[derive(Default)]
struct Count {
    done: AtomicU64,
}
impl IoSink for Count {
    fn io_done(&self, _: &mut Request, result: Result<(), IoError>) {
        result.expect("I/O");
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

struct Bench {
    world: Arc<OsWorld>,
    device: FileDevice,
    arena: OsArena,
    lane: Lane,
}

impl Bench {
    /// Requests per second: keeps `depth` requests of `size` bytes in flight, `segment` bytes a piece.
    fn run(&self, op: IoOp, size: u64, segment: usize, depth: u64, random: bool) -> f64 {
        use highwater::engine::world::Arena;
        let count = Arc::new(Count::default());
        let (mut sent, start) = (0u64, Instant::now());
        let mut batch = Vec::new();
        let queue = self.device.queue();
        loop {
            let done = count.done.load(Ordering::Relaxed);
            let over = start.elapsed() > ROUND;
            if over && done == sent {
                return done as f64 / start.elapsed().as_secs_f64();
            }
            while !over && sent - done < depth {
                let place = if random { self.world.random() } else { sent } % (LEN / size);
                let mut request = Request::new(op, place * size, count.clone());
                let slot = self
                    .arena
                    .base()
                    .wrapping_add((sent % depth * size * 2) as usize);
                for piece in 0..size as usize / segment {
                    // A gap after each piece, as between frames that are no neighbours.
                    let ptr =
                        slot.wrapping_add(piece * segment * if segment < 1 << 20 { 2 } else { 1 });
                    request.bufs.push(IoBuf { ptr, len: segment });
                }
                batch.push(request);
                sent += 1;
            }
            self.device.submit(self.lane, &mut batch);
            match self.lane {
                Lane::Flusher if self.device.io_engine() == IoEngine::Uring => {
                    queue.reap(self.lane, self.world.now().plus(Nanos::from_millis(100)));
                }
                _ => std::thread::sleep(Duration::from_micros(50)),
            }
        }
    }
}

/// Raw calls on `depth` threads.
fn raw(path: &Path, op: IoOp, size: u64, depth: u64, random: bool) -> f64 {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc_o_direct())
        .open(path)
        .expect("open");
    let world = OsWorld::new(IoEngine::Threads).expect("world");
    let (next, start) = (AtomicU64::new(0), Instant::now());
    let done: u64 = std::thread::scope(|s| {
        let threads: Vec<_> = (0..depth)
            .map(|_| {
                s.spawn(|| {
                    let mut memory = vec![1u8; size as usize + 4096];
                    let at = memory.as_ptr().align_offset(4096);
                    let buf = &mut memory[at..at + size as usize];
                    let mut n = 0;
                    while start.elapsed() < ROUND {
                        let i = if random {
                            world.random()
                        } else {
                            next.fetch_add(1, Ordering::Relaxed)
                        };
                        let place = i % (LEN / size) * size;
                        match op {
                            IoOp::Read => file.read_exact_at(buf, place),
                            IoOp::Write => file.write_all_at(buf, place),
                        }
                        .expect("I/O");
                        n += 1;
                    }
                    n
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().expect("thread")).sum()
    });
    done as f64 / start.elapsed().as_secs_f64()
}

fn libc_o_direct() -> i32 {
    rustix::fs::OFlags::DIRECT.bits() as i32
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn main() {
    let dir = std::env::args().nth(1).expect("DIR [ROUNDS]");
    let rounds: usize = std::env::args()
        .nth(2)
        .map_or(7, |n| n.parse().expect("ROUNDS"));
    let path = Path::new(&dir).join("highwater-raw-device");
    let file = std::fs::File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(&path)
        .expect("open");
    let block = vec![1u8; 1 << 20];
    for i in 0..LEN >> 20 {
        file.write_all_at(&block, i << 20).expect("fill");
    }
    file.sync_all().expect("sync");
    drop(file);
    let bench = |engine, lane| {
        let world = OsWorld::new(engine).expect("world");
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(&path)
            .expect("open");
        let device =
            FileDevice::new(&world, &path, file.into(), true, DirectIo::Always).expect("device");
        let arena = world.arena(64 << 20, 0).expect("arena");
        highwater::engine::world::Arena::populate(&arena, 0, 64 << 20);
        Bench {
            world,
            device,
            arena,
            lane,
        }
    };
    let arms = [
        ("io_uring, flusher", bench(IoEngine::Uring, Lane::Flusher)),
        ("io_uring, shared", bench(IoEngine::Uring, Lane::Shared)),
        ("threads, flusher", bench(IoEngine::Threads, Lane::Flusher)),
    ];
    let works = [
        (
            "4 KiB random write, depth 32",
            IoOp::Write,
            4096,
            4096,
            32,
            true,
        ),
        (
            "4 KiB random write, depth 128",
            IoOp::Write,
            4096,
            4096,
            128,
            true,
        ),
        (
            "4 KiB random read, depth 32",
            IoOp::Read,
            4096,
            4096,
            32,
            true,
        ),
        (
            "1 MiB write, depth 8, one segment",
            IoOp::Write,
            1 << 20,
            1 << 20,
            8,
            false,
        ),
        (
            "1 MiB write, depth 8, 64 KiB segments",
            IoOp::Write,
            1 << 20,
            65536,
            8,
            false,
        ),
        (
            "1 MiB write, depth 8, 4 KiB segments",
            IoOp::Write,
            1 << 20,
            4096,
            8,
            false,
        ),
        (
            "1 MiB read, depth 8, one segment",
            IoOp::Read,
            1 << 20,
            1 << 20,
            8,
            false,
        ),
    ];
    for (name, op, size, segment, depth, random) in works {
        let mut rates = vec![Vec::new(); arms.len() + 1];
        for _ in 0..rounds {
            for (i, (_, arm)) in arms.iter().enumerate() {
                rates[i].push(arm.run(op, size, segment, depth, random));
            }
            rates[arms.len()].push(raw(&path, op, size, depth, random));
        }
        println!("{name}");
        let medians: Vec<f64> = rates.into_iter().map(median).collect();
        let base = medians[arms.len()];
        for (i, rate) in medians.iter().enumerate() {
            let label = arms.get(i).map_or("raw, one thread each", |a| a.0);
            println!(
                "  {label:22} {rate:9.0}/s {:8.0} MB/s  {:.2} x raw",
                rate * size as f64 / 1e6,
                rate / base
            );
        }
    }
    drop(arms);
    std::fs::remove_file(&path).expect("remove");
}
