//! The OS arm: the library as its users have it, on threads, io_uring and real files.

use crate::blocks::HeldBlock;
use crate::child::status_bytes;
use crate::cpu::of_threads;
use crate::engine_arm::{self, failed};
use crate::error::Result;
use crate::ftrace::Trace;
use crate::plan::{Plan, PlanFile};
use crate::report::ArmReport;
use crate::stack::{Probed, StackReport};
use crate::target::{Handle, OpError, block_of};
use highwater::volume::{self, MountOptions, Volume, VolumeOptions};
use highwater::{Cache, File, OpenOptions, OsWorld, PageNo};
use highwater_engine::Engine;
use highwater_lab::stack::Calls;
use std::sync::Arc;

/// A file of the library, with the page size that tasks count in.
#[derive(Clone)]
struct OsFile {
    file: File,
    page_size: usize,
    engine: Arc<Engine<OsWorld>>,
}

impl Handle for OsFile {
    fn count_own(&self) {
        self.engine.count_own_hits();
    }
    fn len(&self) -> u64 {
        self.file.len()
    }
    fn page_size(&self) -> usize {
        self.page_size
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::result::Result<(), OpError> {
        self.file.read_at(buf, offset)?;
        Ok(())
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> std::result::Result<(), OpError> {
        Ok(self.file.write_at(buf, offset)?)
    }
    fn touch(&self, page: u64) -> std::result::Result<u64, OpError> {
        let page = self.file.page(PageNo(page))?;
        Ok(page
            .first_chunk::<8>()
            .map_or(0, |b| u64::from_le_bytes(*b)))
    }
    fn touch_mut(&self, page: u64, bytes: &[u8]) -> std::result::Result<(), OpError> {
        let mut page = self.file.page_mut(PageNo(page))?;
        page[..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
    fn write_through(&self, buf: &[u8], offset: u64) -> std::result::Result<(), OpError> {
        self.file.write_at(buf, offset)?;
        Ok(self.file.sync_range(offset..offset + buf.len() as u64)?)
    }
    fn sync(&self) -> std::result::Result<(), OpError> {
        Ok(self.file.sync_data()?)
    }
    fn alloc_block(&self, order: u32, thp: bool) -> std::result::Result<HeldBlock, OpError> {
        block_of(&self.engine, order, thp)
    }
}

/// A new volume, and the file in it.
fn on_volume(
    plan: &Plan,
    cache: &Cache,
    file: &PlanFile,
    disk: u64,
    options: OpenOptions,
) -> Result<(File, Arc<Volume>)> {
    let made = VolumeOptions {
        disk_bytes: Some(disk),
        block_size: plan.frame_size as u32,
        overwrite: true,
        ..VolumeOptions::new(file.len)
    };
    let mount = MountOptions {
        lend_context: plan.arm.lend.context(),
        refuse_reclaim: plan.arm.refuse,
    };
    volume::create(&file.path, &made)
        .and_then(|_| cache.open_volume(&file.path, options, mount))
        .map_err(|e| engine_arm::volume_failed(plan, &file.name, &e))
}

/// Runs the arm in this process.
///
/// # Errors
/// What the files or the cache answer.
pub fn run(plan: &Plan) -> Result<ArmReport> {
    let idle = status_bytes("VmRSS");
    let trace = plan.ftrace.as_deref().map(Trace::os).transpose()?;
    let builder = Cache::builder()
        .memory(plan.memory)
        .frame_size(plan.frame_size)
        .policy(plan.arm.policy()?)
        .order(plan.arm.order.order())
        .stack_trace(plan.stack.trace)
        .tune(|config| config.tracer = trace.as_ref().map(Trace::tracer));
    let cache = builder
        .build()
        .map_err(|e| failed(plan, "build the cache", &e))?;
    let mut options = OpenOptions::new()
        .read(true)
        .write(true)
        .refuse_reclaim_writes(plan.arm.refuse);
    if let Some(limit) = plan.limit {
        options = options.limit_rate(limit.bytes_per_s, limit.iops);
    }
    let mut volumes = Vec::new();
    let mut files = Vec::new();
    for planned in &plan.files {
        let file = match planned.volume {
            None => cache
                .open(&planned.path, options)
                .map_err(|e| failed(plan, "open", &e))?,
            Some(disk) => {
                let (file, volume) = on_volume(plan, &cache, planned, disk, options)?;
                volumes.push(volume);
                file
            }
        };
        files.push(OsFile {
            file,
            page_size: plan.frame_size,
            engine: cache.engine().clone(),
        });
    }
    if files.first().is_some_and(|f| !f.file.direct()) {
        say!(
            "{} refuses O_DIRECT: I/O goes through Linux's page cache too",
            plan.files[0].path.display()
        );
    }
    let world = cache.engine().world().clone();
    let engine = cache.engine().clone();
    let stats = move || engine_arm::with_volumes(engine.stats(), &volumes);
    let mut report = match plan.stack.trace {
        false => engine_arm::run(plan, &world, &files, stats, of_threads)?,
        true => {
            let calls = Arc::new(Calls::new(highwater::stack_window));
            let probed: Vec<_> = files
                .iter()
                .map(|f| Probed::new(f.clone(), &calls))
                .collect();
            let mut report = engine_arm::run(plan, &world, &probed, stats, of_threads)?;
            report.stacks = Some(StackReport::new(Vec::new(), &calls.report()));
            report
        }
    };
    drop(files);
    cache.close().map_err(|e| failed(plan, "close", &e))?;
    if let Some(stacks) = &mut report.stacks {
        // kswapd and the flushers have ended now.
        *stacks = StackReport::of_threads(world.stacks(), std::mem::take(&mut stacks.calls));
    }
    if let Some(trace) = trace {
        say!("{}", trace.finish(&cache.stats())?);
    }
    report.peak_rss_bytes = Some(status_bytes("VmHWM")).filter(|n| *n > 0);
    report.idle_rss_bytes = Some(idle).filter(|n| *n > 0);
    Ok(report)
}
