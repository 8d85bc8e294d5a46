//! A look at the boxes of an MP4 file before it is parsed.
//!
//! The parser goes round in circles at a box without a length, and makes an entry for each sample that
//! a table promises: a damaged count of four billion would end the program for want of memory.

/// Says what is wrong with the lengths and counts of a file, if anything.
pub(crate) fn check_boxes(bytes: &[u8]) -> Result<(), String> {
    // moov, trak, mdia, minf, stbl, stsz; deeper nesting is no MP4.
    const MAX_DEPTH: usize = 6;
    // Days of film.
    const MAX_SAMPLES: u64 = 10_000_000;
    check_within(bytes, MAX_DEPTH, MAX_SAMPLES.min(bytes.len() as u64))
}

fn check_within(bytes: &[u8], depth: usize, max_samples: u64) -> Result<(), String> {
    let mut rest = bytes;
    while let Some((kind, body, after)) = first_box(rest)? {
        let promised = match kind {
            b"moov" | b"moof" | b"trak" | b"traf" | b"edts" | b"mdia" | b"minf" | b"stbl" | b"mvex"
                if depth > 0 =>
            {
                check_within(body, depth - 1, max_samples)?;
                0
            }
            b"stsz" => number(body, 8),
            b"trun" => number(body, 4),
            _ => 0,
        };
        if promised > max_samples {
            return Err(format!("a table promises {promised} frames, more than {max_samples} possible here"));
        }
        rest = after;
    }
    Ok(())
}

/// A kind, a content, and what follows it.
type Parts<'a> = (&'a [u8; 4], &'a [u8], &'a [u8]);

/// Takes the first box off, if there is one. One that is cut off counts as far as it goes.
fn first_box(bytes: &[u8]) -> Result<Option<Parts<'_>>, String> {
    let Some(kind) = bytes.get(4..).and_then(<[u8]>::first_chunk) else { return Ok(None) };
    let (head, length) = match number(bytes, 0) {
        // Only the data at the end of a file may go without a length.
        0 if kind == b"mdat" => (8, bytes.len() as u64),
        1 => (16, number(bytes, 8) << 32 | number(bytes, 12)),
        length => (8, length),
    };
    if length < head {
        return Err(format!("a box `{}` has a length of {length} bytes", kind.escape_ascii()));
    }
    let end = length.min(bytes.len() as u64) as usize;
    Ok(Some((kind, bytes.get(head as usize..end).unwrap_or_default(), &bytes[end..])))
}

/// The 32-bit number at a place, 0 where there is none.
fn number(bytes: &[u8], at: usize) -> u64 {
    let number = bytes.get(at..).and_then(<[u8]>::first_chunk);
    number.map_or(0, |number| u64::from(u32::from_be_bytes(*number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrap(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32 + 8).to_be_bytes()[..], kind, body].concat()
    }

    fn table(count: u32) -> Vec<u8> {
        let stsz = wrap(b"stsz", &[&[0; 8][..], &count.to_be_bytes()].concat());
        [b"stbl", b"minf", b"mdia", b"trak", b"moov"].iter().fold(stsz, |body, kind| wrap(kind, &body))
    }

    #[test]
    fn counts_that_cannot_be_are_refused() {
        assert_eq!(check_boxes(&table(3)), Ok(()));
        assert!(check_boxes(&table(256)).unwrap_err().contains("256 frames"));
        // The same count is possible in a larger file.
        assert_eq!(check_boxes(&[table(256), wrap(b"mdat", &[7; 300])].concat()), Ok(()));
        let run = wrap(b"moof", &wrap(b"traf", &wrap(b"trun", &[0, 0, 0, 0, 0, 1, 0, 0])));
        assert!(check_boxes(&run).unwrap_err().contains("65536 frames"));
    }

    #[test]
    fn boxes_without_a_length_are_refused() {
        let inner = wrap(b"moov", b"\0\0\0\0free");
        assert!(check_boxes(&inner).unwrap_err().contains("`free` has a length of 0"));
        assert!(check_boxes(b"\0\0\0\x07free").unwrap_err().contains("7 bytes"));
        assert_eq!(check_boxes(b"\0\0\0\0mdat rest of the file"), Ok(()));
        assert_eq!(check_boxes(b"\xFF\xFF\xFF\xFFfree cut"), Ok(()));
        assert_eq!(check_boxes(b"\0\0\0\x01mdat\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"), Ok(()));
        assert_eq!(check_boxes(&[]), Ok(()));
    }
}
