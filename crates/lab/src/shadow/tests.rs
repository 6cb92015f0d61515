// A lost range is what some of these tests mean: one element, a range.
#![allow(clippy::single_range_in_vec_init)]

use super::*;

const PAGE: usize = 4096;

fn bytes(stamp: u64, range: Range<u64>) -> Vec<u8> {
    let mut b = vec![0; (range.end - range.start) as usize];
    fill(stamp, range.start, &mut b);
    b
}

fn shadow() -> Shadow {
    Shadow::new(PAGE, &[0; 4 * PAGE], true)
}

fn write(s: &mut Shadow, range: Range<u64>) -> u64 {
    let a = s.begin_write(range.clone()).unwrap();
    let (stamp, len) = (a.stamp, s.len().max(range.end));
    s.end_write(a, Outcome::Done, len).unwrap();
    stamp
}

fn read(s: &mut Shadow, offset: u64, seen: &[u8]) -> Result<(), Mismatch> {
    let a = s.begin_read(offset..offset + seen.len() as u64).unwrap();
    s.end_read(a, Some(seen))
}

#[test]
fn fill_depends_on_stamp_and_offset_only() {
    let whole = bytes(9, 0..1000);
    for (from, to) in [(0, 1), (3, 5), (7, 100), (8, 16), (13, 999)] {
        assert_eq!(bytes(9, from..to), whole[from as usize..to as usize]);
    }
    assert_ne!(bytes(9, 0..64), bytes(10, 0..64));
    assert_ne!(bytes(9, 0..64), bytes(9, 64..128));
}

#[test]
fn shadow_1_one_wrong_byte_is_found() {
    let mut s = shadow();
    let stamp = write(&mut s, 100..9_000);
    let mut seen = bytes(stamp, 100..9_000);
    assert_eq!(read(&mut s, 100, &seen), Ok(()));
    for at in [0, 1, 4_000, 8_899] {
        seen[at] ^= 1;
        assert!(read(&mut s, 100, &seen).is_err(), "byte {at}");
        seen[at] ^= 1;
    }
    assert!(read(&mut s, 99, &seen).is_err(), "shifted by one");
    let old = vec![0; PAGE];
    assert!(read(&mut s, 0, &old).is_err(), "an old page");
}

#[test]
fn shadow_1_a_write_in_flight_is_seen_whole_or_not_at_all() {
    let mut s = shadow();
    let a = s.begin_write(0..1024).unwrap();
    let (new, old) = (bytes(a.stamp, 0..1024), vec![0; 1024]);
    assert_eq!(read(&mut s, 0, &old), Ok(()));
    assert_eq!(read(&mut s, 0, &new), Ok(()));
    let torn = [&new[..512], &old[..512]].concat();
    assert!(read(&mut s, 0, &torn).is_err());
    let late = s.begin_read(0..1024).unwrap();
    s.end_write(a, Outcome::Done, 4 * PAGE as u64).unwrap();
    assert_eq!(s.end_read(late, Some(&old)), Ok(()), "began before the end");
    assert!(read(&mut s, 0, &old).is_err(), "began after it");
    assert_eq!(read(&mut s, 0, &new), Ok(()));
}

#[test]
fn shadow_1_a_read_decides_between_overlapping_writes() {
    let mut s = shadow();
    let len = 4 * PAGE as u64;
    let (a, b) = (
        s.begin_write(0..600).unwrap(),
        s.begin_write(300..900).unwrap(),
    );
    let (sa, sb) = (a.stamp, b.stamp);
    s.end_write(a, Outcome::Done, len).unwrap();
    s.end_write(b, Outcome::Done, len).unwrap();
    let a_last = [bytes(sa, 0..600), bytes(sb, 600..900)].concat();
    let b_last = [bytes(sa, 0..300), bytes(sb, 300..900)].concat();
    let neither = [bytes(sa, 0..300), vec![0; 300], bytes(sb, 600..900)].concat();
    assert!(read(&mut s, 0, &neither).is_err());
    assert!(read(&mut s, 0, &[0; 900]).is_err(), "both are there");
    assert_eq!(read(&mut s, 0, &a_last), Ok(()));
    assert!(read(&mut s, 0, &b_last).is_err(), "decided for a");
    assert!(s.undecided().is_empty());
}

#[test]
fn a_failed_write_happened_or_did_not() {
    let mut s = shadow();
    let a = s.begin_write(0..8_192).unwrap();
    let stamp = a.stamp;
    s.end_write(a, Outcome::Unknown, 4 * PAGE as u64).unwrap();
    assert_eq!(s.undecided(), [0, 1]);
    assert_eq!(read(&mut s, 0, &bytes(stamp, 0..4096)), Ok(()));
    assert_eq!(read(&mut s, 4096, &[0; 4096]), Ok(()));
    assert!(read(&mut s, 4096, &bytes(stamp, 4096..8192)).is_err());
    let a = s.begin_write(0..10).unwrap();
    s.end_write(a, Outcome::NotDone, 4 * PAGE as u64).unwrap();
    assert_eq!(read(&mut s, 0, &bytes(stamp, 0..4096)), Ok(()));
}

#[test]
fn shadow_2_sync_promises_and_sectors_tear() {
    let mut s = shadow();
    let range = 0..PAGE as u64;
    let one = write(&mut s, range.clone());
    let mut image = vec![0; 4 * PAGE];
    assert_eq!(s.check_crash(&image), Ok(()), "never promised");
    let promise = s.begin_sync(None);
    let two = write(&mut s, range.clone());
    s.keep(&promise);
    assert!(s.check_crash(&image).is_err(), "one was promised");
    image[..PAGE].copy_from_slice(&bytes(one, range.clone()));
    assert_eq!(s.check_crash(&image), Ok(()));
    image[512..1024].copy_from_slice(&bytes(two, 512..1024));
    assert_eq!(s.check_crash(&image), Ok(()), "torn at a sector");
    image[1024..1100].copy_from_slice(&bytes(two, 1024..1100));
    assert!(s.check_crash(&image).is_err(), "torn within a sector");
    image[..PAGE].copy_from_slice(&bytes(two, range.clone()));
    assert_eq!(s.check_crash(&image), Ok(()));
    let promise = s.begin_sync(Some(0..1));
    s.keep(&promise);
    image[512..1024].copy_from_slice(&bytes(one, 512..1024));
    assert!(s.check_crash(&image).is_err(), "two is promised by now");
}

#[test]
fn shadow_2_a_promised_write_of_undecided_order_must_be_there() {
    let mut s = shadow();
    let len = 4 * PAGE as u64;
    let (a, b) = (
        s.begin_write(0..512).unwrap(),
        s.begin_write(0..512).unwrap(),
    );
    let (sa, sb) = (a.stamp, b.stamp);
    s.end_write(a, Outcome::Done, len).unwrap();
    let promise = s.begin_sync(None);
    s.keep(&promise);
    let mut image = vec![0; 4 * PAGE];
    assert!(s.check_crash(&image).is_err());
    for stamp in [sa, sb] {
        image[..512].copy_from_slice(&bytes(stamp, 0..512));
        assert_eq!(s.check_crash(&image), Ok(()));
    }
    s.end_write(b, Outcome::Done, len).unwrap();
}

#[test]
fn shadow_3_lengths() {
    let mut s = Shadow::new(PAGE, &[0; 100], true);
    let a = s.begin_write(50..5_000).unwrap();
    assert!(s.begin_write(0..10).is_none(), "the tail is taken");
    let beside = s.begin_read(0..200).unwrap();
    let stamp = a.stamp;
    s.end_write(a, Outcome::Done, 5_000).unwrap();
    assert_eq!(s.lens_of(&beside), (100, 5_000));
    assert_eq!(s.end_read(beside, Some(&[0; 100])), Ok(()), "the old file");
    assert!(s.check_crash(&[0; 99]).is_err());
    assert!(s.check_crash(&[0; 5_001]).is_err());
    assert_eq!(s.check_crash(&[0; 100]), Ok(()));
    let promise = s.begin_sync(None);
    s.keep(&promise);
    assert!(s.check_crash(&[0; 100]).is_err());
    let a = s.begin_resize(60).unwrap();
    s.end_resize(a, true, 60).unwrap();
    let a = s.begin_resize(80).unwrap();
    s.end_resize(a, true, 80).unwrap();
    let want = [vec![0; 50], bytes(stamp, 50..60), vec![0; 20]].concat();
    assert_eq!(read(&mut s, 0, &want), Ok(()));
    assert_eq!(s.check_exact(&want), Ok(()));
    assert_eq!(s.check_crash(&want), Ok(()));
    let a = s.begin_read(70..200).unwrap();
    assert!(s.end_read(a, Some(&[0; 11])).is_err(), "beyond the end");
    let a = s.begin_read(0..80).unwrap();
    let cut = s.begin_resize(20).unwrap();
    s.end_resize(cut, true, 20).unwrap();
    let grow = s.begin_resize(80).unwrap();
    s.end_resize(grow, true, 80).unwrap();
    assert_eq!(
        s.end_read(a, Some(&want[..40])),
        Ok(()),
        "cut while it read"
    );
    let a = s.begin_read(0..80).unwrap();
    assert!(s.end_read(a, Some(&want[..40])).is_err(), "not any more");
    let a = s.begin_resize(10).unwrap();
    assert!(s.end_resize(a, true, 11).is_err());
}

#[test]
fn shadow_3_two_writes_that_extend_the_file() {
    let mut s = Shadow::new(PAGE, &[0; 100], true);
    let a = s.begin_write(100..300).unwrap();
    let b = s.begin_write(500..900).unwrap();
    assert!(s.begin_resize(50).is_none() && s.begin_write(0..10).is_none());
    let (sa, sb) = (a.stamp, b.stamp);
    s.end_write(b, Outcome::Done, 900).unwrap();
    assert_eq!(s.end_write(a, Outcome::Done, 900), Ok(()), "no shorter");
    let want = [
        vec![0; 100],
        bytes(sa, 100..300),
        vec![0; 200],
        bytes(sb, 500..900),
    ];
    assert_eq!(read(&mut s, 0, &want.concat()), Ok(()));
    let (a, b) = (
        s.begin_write(900..1000).unwrap(),
        s.begin_write(900..2000).unwrap(),
    );
    assert_eq!(s.end_write(a, Outcome::Done, 1000), Ok(()), "b is to come");
    assert!(s.end_write(b, Outcome::Done, 1000).is_err());
}

#[test]
fn a_hole_is_a_write_of_zeroes_to_whole_pages() {
    let mut s = shadow();
    let (page, len) = (PAGE as u64, 4 * PAGE as u64);
    let stamp = write(&mut s, 0..len);
    let promise = s.begin_sync(None);
    s.keep(&promise);
    assert!(s.begin_discard(1..page + 5).is_none(), "no whole page");
    let a = s.begin_discard(1..2 * page + 5).unwrap();
    assert_eq!(a.range, page..2 * page);
    let beside = s.begin_write(0..10);
    s.end_write(beside.unwrap(), Outcome::NotDone, len).unwrap();
    let old = bytes(stamp, 0..len);
    assert_eq!(read(&mut s, 0, &old), Ok(()), "not yet");
    s.end_write(a, Outcome::Done, len).unwrap();
    assert!(read(&mut s, 0, &old).is_err());
    let mut new = old.clone();
    new[PAGE..2 * PAGE].fill(0);
    assert_eq!(read(&mut s, 0, &new), Ok(()));
    assert_eq!((s.check_crash(&old), s.check_crash(&new)), (Ok(()), Ok(())));
    let promise = s.begin_sync(None);
    s.keep(&promise);
    assert!(s.check_crash(&old).is_err() && s.check_crash(&new).is_ok());
    let cut = s.begin_resize(len - 9).unwrap();
    s.end_resize(cut, true, len - 9).unwrap();
    let a = s.begin_discard(3 * page..u64::MAX).unwrap();
    assert_eq!(a.range, 3 * page..len - 9, "the last page counts as whole");
    assert!(s.begin_write(len..len + 1).is_none(), "the end stays");
    s.end_write(a, Outcome::Done, len - 9).unwrap();
}

#[test]
fn shadow_2_a_truncation_takes_effect_on_any_version() {
    let mut s = Shadow::new(PAGE, &[0; PAGE], true);
    let one = write(&mut s, 0..PAGE as u64);
    write(&mut s, 0..PAGE as u64);
    let a = s.begin_resize(100).unwrap();
    let cut = bytes(one, 0..100);
    assert_eq!(s.check_crash(&cut), Ok(()), "while it is in progress");
    s.end_resize(a, true, 100).unwrap();
    assert_eq!(s.check_crash(&cut), Ok(()), "the first write's bytes, cut");
    let promise = s.begin_sync(None);
    s.keep(&promise);
    assert!(s.check_crash(&cut).is_err(), "the second was promised");
}

#[test]
fn shadow_1_a_read_of_a_page_never_written_before_may_miss_a_write_that_overlaps_it() {
    let mut s = Shadow::new(PAGE, &[], false);
    s.grow_before_use(PAGE as u64);
    let early = s.begin_read(0..100).unwrap();
    write(&mut s, 0..100);
    assert_eq!(s.end_read(early, Some(&[0; 100])), Ok(()));
    assert!(read(&mut s, 0, &[0; 100]).is_err());
}

#[test]
fn shadow_2_orders_that_end_alike_stay_open_for_a_crash() {
    let mut s = shadow();
    let len = 4 * PAGE as u64;
    let (a, b) = (
        s.begin_write(0..512).unwrap(),
        s.begin_write(0..512).unwrap(),
    );
    let (sa, sb) = (a.stamp, b.stamp);
    s.end_write(a, Outcome::Done, len).unwrap();
    s.end_write(b, Outcome::Done, len).unwrap();
    let promise = s.begin_sync(None);
    let last = write(&mut s, 0..512);
    assert_eq!(read(&mut s, 0, &bytes(last, 0..512)), Ok(()));
    s.keep(&promise);
    let mut image = vec![0; 4 * PAGE];
    for stamp in [sa, sb, last] {
        image[..512].copy_from_slice(&bytes(stamp, 0..512));
        assert_eq!(s.check_crash(&image), Ok(()), "write {stamp}");
    }
    let promise = s.begin_sync(None);
    s.keep(&promise);
    assert_eq!(s.undecided(), [0]);
    assert_eq!(read(&mut s, 0, &bytes(last, 0..512)), Ok(()));
    assert!(s.undecided().is_empty());
    image[..512].copy_from_slice(&bytes(sa, 0..512));
    assert!(s.check_crash(&image).is_err());
}

#[test]
fn shadow_2_a_write_that_ended_after_the_sync_began_is_not_promised() {
    let mut s = shadow();
    let len = 4 * PAGE as u64;
    let x = s.begin_write(2_865..2_873).unwrap();
    let reader = s.begin_read(0..10).unwrap();
    let y = s.begin_write(0..512).unwrap();
    let (sx, sy) = (x.stamp, y.stamp);
    s.end_write(y, Outcome::Done, len).unwrap();
    let promise = s.begin_sync(None);
    s.end_write(x, Outcome::Done, len).unwrap();
    s.end_read(reader, None).unwrap();
    s.keep(&promise);
    let mut image = vec![0; 4 * PAGE];
    assert!(s.check_crash(&image).is_err(), "y is promised");
    image[..512].copy_from_slice(&bytes(sy, 0..512));
    assert_eq!(s.check_crash(&image), Ok(()), "x is not");
    image[2_865..2_873].copy_from_slice(&bytes(sx, 2_865..2_873));
    assert_eq!(s.check_crash(&image), Ok(()));
}

/// A page with the later of two writes to a sector was written whole: the sync that promises that one has the other, too.
#[test]
fn shadow_2_a_promised_write_has_what_was_there_before_it() {
    let mut s = shadow();
    let len = 4 * PAGE as u64;
    let (a, b) = (
        s.begin_write(0..600).unwrap(),
        s.begin_write(300..900).unwrap(),
    );
    let (sa, sb) = (a.stamp, b.stamp);
    s.end_write(b, Outcome::Done, len).unwrap();
    let promise = s.begin_sync(None);
    s.end_write(a, Outcome::Done, len).unwrap();
    let both = [bytes(sa, 0..300), bytes(sb, 300..900)].concat();
    assert_eq!(read(&mut s, 0, &both), Ok(()), "b is the later one");
    s.keep(&promise);
    let mut image = vec![0; 4 * PAGE];
    image[..900].copy_from_slice(&both);
    assert_eq!(s.check_crash(&image), Ok(()));
    image[..600].copy_from_slice(&bytes(sa, 0..600));
    assert!(s.check_crash(&image).is_err(), "a over b");
    image[..900].copy_from_slice(&[vec![0; 300], bytes(sb, 300..900)].concat());
    assert!(s.check_crash(&image).is_err(), "b without a");
}

#[test]
fn shadow_3_a_full_sync_leaves_no_length_but_the_last() {
    let mut s = shadow();
    let (size, len) = (PAGE as u64, 4 * PAGE as u64);
    for target in [2 * size, 3 * size] {
        let a = s.begin_resize(target).unwrap();
        s.end_resize(a, true, target).unwrap();
    }
    let image = |len: u64| vec![0; len as usize];
    for legal in [len, 2 * size, 3 * size] {
        assert_eq!(s.check_crash(&image(legal)), Ok(()), "{legal}");
    }
    let promise = s.begin_sync(Some(0..len));
    s.keep(&promise);
    assert_eq!(s.check_crash(&image(len)), Ok(()), "not of the length");
    let promise = s.begin_sync(None);
    s.keep(&promise);
    assert_eq!(s.check_crash(&image(3 * size)), Ok(()));
    for illegal in [len, 2 * size] {
        assert!(s.check_crash(&image(illegal)).is_err(), "{illegal}");
    }
}

#[test]
fn shadow_2_a_lost_page_is_promised_again_with_its_next_write() {
    let mut s = shadow();
    let old = vec![0; 4 * PAGE];
    let first = write(&mut s, 0..512);
    let second = write(&mut s, PAGE as u64..PAGE as u64 + 512);
    s.lose(&[0..PAGE as u64]);
    let promise = s.begin_sync(None);
    s.keep(&promise);
    let mut image = old.clone();
    image[PAGE..PAGE + 512].copy_from_slice(&bytes(second, PAGE as u64..PAGE as u64 + 512));
    assert_eq!(s.check_crash(&image), Ok(()), "page 0 is as before");
    assert!(s.check_crash(&old).is_err(), "page 1 was not lost");
    let later = write(&mut s, 1024..1536);
    assert_eq!(s.check_crash(&image), Ok(()), "not durable yet");
    let promise = s.begin_sync(None);
    s.keep(&promise);
    assert!(s.check_crash(&image).is_err(), "written whole");
    image[..512].copy_from_slice(&bytes(first, 0..512));
    image[1024..1536].copy_from_slice(&bytes(later, 1024..1536));
    assert_eq!(s.check_crash(&image), Ok(()));
}

#[test]
fn shadow_3_a_length_is_lost_with_the_page_that_made_it() {
    let mut s = shadow();
    let promise = s.begin_sync(None);
    s.keep(&promise);
    let (old, end) = (4 * PAGE as u64, 4 * PAGE as u64 + 100);
    write(&mut s, old..end);
    s.lose(&[old..old + PAGE as u64]);
    let promise = s.begin_sync(None);
    s.keep(&promise);
    assert_eq!(s.check_crash(&vec![0; old as usize]), Ok(()));
    let stamp = write(&mut s, old..end);
    let promise = s.begin_sync(None);
    s.keep(&promise);
    assert!(s.check_crash(&vec![0; old as usize]).is_err());
    let image = [vec![0; old as usize], bytes(stamp, old..end)].concat();
    assert_eq!(s.check_crash(&image), Ok(()));
}

#[test]
fn shadow_2_a_truncation_meets_any_version_of_the_page_on_the_medium() {
    let mut s = shadow();
    let (page, len) = (PAGE as u64, 4 * PAGE as u64);
    let (a, b) = (
        s.begin_write(3 * page..len).unwrap(),
        s.begin_write(3 * page..len).unwrap(),
    );
    let first = a.stamp;
    s.end_write(a, Outcome::Done, len).unwrap();
    s.end_write(b, Outcome::Done, len).unwrap();
    // In memory only, when the file is cut.
    write(&mut s, 3 * page..len);
    let cut = 3 * page + 700;
    let resize = s.begin_resize(cut).unwrap();
    s.end_resize(resize, true, cut).unwrap();
    let image = [vec![0; 3 * PAGE], bytes(first, 3 * page..cut)].concat();
    assert_eq!(s.check_crash(&image), Ok(()));
    let mut grown = image.clone();
    let resize = s.begin_resize(len).unwrap();
    s.end_resize(resize, true, len).unwrap();
    grown.resize(len as usize, 0);
    assert_eq!(s.check_crash(&grown), Ok(()));
    grown[cut as usize] ^= 1;
    assert!(s.check_crash(&grown).is_err(), "a byte behind the cut");
}
