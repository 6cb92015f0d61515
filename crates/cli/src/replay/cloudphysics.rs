//! The CSV of the CloudPhysics traces as libCacheSim publishes its sample: `version,time,op,size,lbn`.
//!
//! `time` is in microseconds, `op` the SCSI operation code in hexadecimal, `size` in bytes, `lbn` in sectors of 512 bytes.
//! Source: Waldspurger et al., "Efficient MRC Construction with SHARDS", FAST 2015 (the traces); the columns are those of
//! the file's own header. Operation codes: T10, SPC-4 and SBC-3, annex "operation codes".

use super::{Line, Op, Record, number, scaled};

const HEADER: &str = "version,time,op,size,lbn";
const SECTOR: u64 = 512;

/// What a line is.
pub fn line(text: &str) -> Line {
    if text.eq_ignore_ascii_case(HEADER) {
        return Line::Skip("headers");
    }
    parse(text).unwrap_or_else(Line::Bad)
}

fn parse(text: &str) -> Result<Line, String> {
    let mut fields = text.split(',').map(str::trim);
    let mut next = || fields.next();
    let (Some(version), Some(time), Some(op), Some(size), Some(lbn), None) =
        (next(), next(), next(), next(), next(), next())
    else {
        let n = text.split(',').count();
        return Err(format!("{n} fields: expected 5 ({HEADER})"));
    };
    number("version", version)?;
    let time_ns = scaled("time", number("time", time)?, 1_000)?;
    let op = match u8::from_str_radix(op, 16) {
        Ok(code) => operation(code),
        Err(_) => {
            let op: String = op.chars().take(16).collect();
            return Err(format!("op {op:?} is no SCSI opcode"));
        }
    };
    let Some(op) = op else {
        return Ok(Line::Skip("other SCSI commands"));
    };
    let len = number("size", size)?;
    let offset = scaled("lbn", number("lbn", lbn)?, SECTOR)?;
    Ok(Record::new(time_ns, op, offset, len).into())
}

/// READ and WRITE of 6, 10, 12 and 16 bytes, SYNCHRONIZE CACHE of 10 and 16, UNMAP; none for what moves no data.
fn operation(code: u8) -> Option<Op> {
    match code {
        0x08 | 0x28 | 0xa8 | 0x88 => Some(Op::Read),
        0x0a | 0x2a | 0xaa | 0x8a => Some(Op::Write),
        0x35 | 0x91 => Some(Op::Flush),
        0x42 => Some(Op::Discard),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(text: &str) -> String {
        match line(text) {
            Line::Bad(why) => why,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn each_opcode_has_its_meaning() {
        for (code, op) in [
            ("28", Op::Read),
            ("2a", Op::Write),
            ("2A", Op::Write),
            ("88", Op::Read),
            ("8a", Op::Write),
            ("08", Op::Read),
            ("0a", Op::Write),
            ("a8", Op::Read),
            ("aa", Op::Write),
            ("35", Op::Flush),
            ("42", Op::Discard),
        ] {
            let expect = Record {
                time_ns: 5_633_898_000,
                offset: 42_932_745 * 512,
                len: 512,
                op,
                barrier: Default::default(),
            };
            let text = format!("1,5633898,{code},512,42932745");
            assert_eq!(line(&text), Line::Record(expect), "{text}");
        }
        assert_eq!(line("1,2,00,0,0"), Line::Skip("other SCSI commands"));
        assert_eq!(line(HEADER), Line::Skip("headers"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(bad("1,2,zz,512,3"), "op \"zz\" is no SCSI opcode");
        assert!(bad("1,2,28,512").contains("4 fields: expected 5"));
        assert!(bad("1,2,28,512,3,4").contains("6 fields"));
        assert!(bad("1,2,28,0,3").contains("0 bytes"));
        assert!(bad("1,2,28,-5,3").contains("size \"-5\" is no whole number"));
        assert!(bad("1,2,28,512,99999999999999999999").contains("larger than 64 bits"));
        assert!(bad("1,2,28,512,18446744073709551615").contains("too large"));
        assert!(bad("1,2,28,512,18014398509481983").contains("beyond any file"));
        assert!(bad("1,18446744073709551615,28,512,1").contains("time"));
        assert!(bad("1,2,28,4294967296,3").contains("at most"));
    }
}
