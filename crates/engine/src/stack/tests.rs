use super::*;
use std::cell::Cell;

/// Uses `frames` frames, each with at least `N` bytes written.
#[inline(never)]
fn dig<const N: usize>(frames: u32) -> u64 {
    let mut bytes = [frames as u8; N];
    std::hint::black_box(&mut bytes);
    if frames == 0 {
        return u64::from(bytes[0]);
    }
    dig::<N>(frames - 1) + u64::from(bytes[N / 2])
}

/// Measures `f` in a window of `bytes` below this frame.
fn measure<R>(bytes: usize, f: impl FnOnce() -> R) -> CallDepth {
    let sp = stack_pointer() & !(WORD - 1);
    let seen = Cell::new(0);
    let window = Window {
        low: sp - bytes,
        top: sp,
        seen: &seen,
    };
    // SAFETY: PAINT-3: a test's thread has 2 MiB of stack.
    let depth = unsafe { window.measure(f) }.1.unwrap();
    assert!(seen.get() >= depth.stack);
    depth
}

fn depth(frames: u32) -> u64 {
    let depth = measure(256 << 10, || dig::<200>(frames));
    assert!(!depth.whole);
    depth.call
}

#[test]
fn each_frame_of_a_recursion_adds_the_same_bytes() {
    if !MEASURED {
        return;
    }
    let each = depth(11) - depth(10);
    assert!((200..400).contains(&each), "{each}");
    for frames in [0, 1, 30, 200] {
        let expected = depth(10) + each * u64::from(frames) - each * 10;
        assert_eq!(depth(frames), expected, "{frames} frames");
    }
}

#[test]
fn a_window_that_was_too_small_says_so() {
    if !MEASURED {
        return;
    }
    assert!(measure(4096, || dig::<200>(100)).whole);
}

#[test]
fn paint_2_paint_that_is_copied_counts_as_use() {
    let mut words = [0usize; 8];
    let low = words.as_mut_ptr() as usize;
    let high = low + 8 * WORD;
    // SAFETY: the array is not used while it is painted and read.
    unsafe {
        paint(low, high);
        assert_eq!(deepest(low, high), high);
        let copied = std::ptr::read_volatile((low + 5 * WORD) as *const usize);
        std::ptr::write_volatile((low + 3 * WORD) as *mut usize, copied);
        assert_eq!(deepest(low, high), low + 3 * WORD);
    }
}

#[test]
fn a_snapshot_holds_the_words_above_it() {
    if !MEASURED {
        return;
    }
    let mark = std::hint::black_box(Box::new(0x0123_4567_89AB_CDEFu64));
    let words = std::hint::black_box([*mark, !*mark]);
    let at = words.as_ptr() as u64;
    let mut snapshot = Snapshot::default();
    let top = (at as usize + 64) & !15;
    // SAFETY: a test's stack goes on far above its frame.
    unsafe { snapshot.here(usize::MAX, top) };
    assert_eq!(snapshot.word(at), Some(words[0]));
    assert_eq!(snapshot.word(at + 8), Some(words[1]));
    assert_eq!(snapshot.word(snapshot.low as u64 - 8), None);
    assert_eq!(snapshot.word(top as u64), None);
    assert_eq!(snapshot.depth(), (top - snapshot.low) as u64);
}
