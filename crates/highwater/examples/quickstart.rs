//! More data than memory: writes 64 MiB through a cache of 16 MiB and reads it back.
use highwater::{Cache, OpenOptions, PageNo};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join(format!("highwater-quickstart-{}", std::process::id()));
    let cache = Cache::builder().memory(16 << 20).build()?;
    let file = cache.open(&path, OpenOptions::new().write(true).create_new(true))?;
    let pages = (64 << 20) / cache.config().frame_size as u64;
    file.set_len(64 << 20)?;
    for n in 0..pages {
        file.page_mut(PageNo(n))?.fill(n as u8);
    }
    file.sync_data()?;
    for n in 0..pages {
        assert!(file.page(PageNo(n))?.iter().all(|b| *b == n as u8));
    }
    let stats = cache.stats();
    println!(
        "{pages} pages through {} frames: {} hits, {} misses",
        stats.frames,
        stats.get("hits"),
        stats.get("misses")
    );
    drop(file);
    cache.close()?;
    std::fs::remove_file(&path)?;
    Ok(())
}
