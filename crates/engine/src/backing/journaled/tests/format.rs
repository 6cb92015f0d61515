//! What lies on the disk is believed only whole.

use crate::backing::journaled::error::VolumeError;
use crate::backing::journaled::format::*;

fn example() -> Superblock {
    Superblock {
        uuid: *b"0123456789abcdef",
        generation: 7,
        geometry: Geometry {
            block_size: 4096,
            blocks: 400,
            log_blocks: 16,
            capacity: 1 << 20,
        },
        area: 1,
        checkpoint: 6,
        leaves: 1,
        len: 12345,
        log_start: 99,
        chain: 0xdead_beef,
        transactions: 40,
    }
}

#[test]
fn a_superblock_comes_back_and_every_flipped_bit_is_noticed() {
    let sb = example();
    let device = 400 * 4096;
    let b = sb.encode();
    assert_eq!(Superblock::decode(&b, 0, device).unwrap(), sb);
    for bit in 0..SB_BYTES * 8 {
        let mut bad = b;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Superblock::decode(&bad, 0, device).is_err(), "bit {bit}");
    }
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let mut b = example().encode();
    put_u32(&mut b, 8, VERSION + 3);
    let crc = crc_without(&b, 12);
    put_u32(&mut b, 12, crc);
    let e = Superblock::decode(&b, 0, 400 * 4096).unwrap_err();
    assert!(
        matches!(e, VolumeError::NewerVersion { found, supported } if (found, supported) == (VERSION + 3, VERSION)),
        "{e}"
    );
    put_u32(&mut b, 8, VERSION + 4);
    let e = Superblock::decode(&b, 0, 400 * 4096).unwrap_err();
    assert!(matches!(e, VolumeError::Damaged(_)), "{e}");
}

#[test]
fn a_superblock_for_a_longer_device_says_so() {
    let e = Superblock::decode(&example().encode(), 0, 399 * 4096).unwrap_err();
    assert!(matches!(e, VolumeError::Shortened { .. }), "{e}");
}

#[test]
fn geometries_that_make_no_sense_are_refused() {
    let good = example().geometry;
    assert!(good.check().is_ok());
    for (name, bad) in [
        (
            "odd block",
            Geometry {
                block_size: 5000,
                ..good
            },
        ),
        (
            "small block",
            Geometry {
                block_size: 512,
                ..good
            },
        ),
        (
            "huge block",
            Geometry {
                block_size: 1 << 31,
                ..good
            },
        ),
        (
            "no file",
            Geometry {
                capacity: 0,
                ..good
            },
        ),
        (
            "half a page",
            Geometry {
                capacity: 6000,
                ..good
            },
        ),
        (
            "no log",
            Geometry {
                log_blocks: 0,
                ..good
            },
        ),
        (
            "all log",
            Geometry {
                log_blocks: 1 << 60,
                ..good
            },
        ),
        ("no data", Geometry { blocks: 25, ..good }),
        (
            "too many blocks",
            Geometry {
                blocks: u64::MAX,
                ..good
            },
        ),
        (
            "too large a file",
            Geometry {
                capacity: u64::MAX << 12,
                ..good
            },
        ),
    ] {
        assert!(bad.check().is_err(), "{name}");
    }
}

#[test]
fn a_log_block_and_a_leaf_are_believed_only_whole() {
    let mut b = vec![0xAB; 4096];
    let header = LogHeader {
        tag: 5,
        seq: 77,
        prev: 9,
        before: 0,
        used: 100,
        flags: COMMIT,
    };
    let crc = header.seal(&mut b);
    assert_eq!(LogHeader::open(&b, 5), Some((header, crc)));
    assert_eq!(LogHeader::open(&b, 6), None, "another volume's");
    for at in 0..b.len() {
        b[at] ^= 0x10;
        assert_eq!(LogHeader::open(&b, 5), None, "byte {at}");
        b[at] ^= 0x10;
    }
    seal_leaf(&mut b, 5, 3, 11);
    assert_eq!(open_leaf(&b, 5, 3), Some(11));
    assert_eq!(open_leaf(&b, 5, 4), None, "another checkpoint's");
    for at in 0..b.len() {
        b[at] ^= 0x01;
        assert_eq!(open_leaf(&b, 5, 3), None, "byte {at}");
        b[at] ^= 0x01;
    }
}
