//! A look at the boxes of an MP4 file before it is parsed.
//!
//! The parser goes round in circles at a box without a length, makes an entry for each sample that a table
//! promises, and believes the lengths inside boxes of metadata: a damaged file would end the program for
//! want of memory or never be done. What is of no use for frames is hidden from it.

/// Hides the boxes of a file that no frame needs, and says what is wrong with the lengths and counts of
/// the others, if anything.
pub(crate) fn tame_boxes(bytes: &mut [u8]) -> Result<(), String> {
    // moov, trak, mdia, minf, stbl, stsd, avc1, avcC; deeper nesting is no MP4.
    const MAX_DEPTH: usize = 8;
    // Days of film.
    const MAX_SAMPLES: u64 = 10_000_000;
    let max_samples = MAX_SAMPLES.min(bytes.len() as u64);
    let promised = tame_within(bytes, MAX_DEPTH)?;
    if promised > max_samples {
        return Err(format!("its tables promise {promised} frames, more than {max_samples} possible here"));
    }
    Ok(())
}

/// Goes through boxes that follow each other, and counts the samples that they promise.
fn tame_within(mut bytes: &mut [u8], depth: usize) -> Result<u64, String> {
    let mut promised = 0u64;
    while let Some(Head { kind, body, end }) = first_box(bytes)? {
        let (current, rest) = std::mem::take(&mut bytes).split_at_mut(end);
        let content = current.get_mut(body..).unwrap_or_default();
        let inner = match &kind {
            b"udta" | b"meta" | b"emsg" | b"mp4a" => {
                current[4..8].copy_from_slice(b"free");
                0
            }
            b"stsz" => number(content, 8),
            b"trun" => number(content, 4),
            _ => match (boxes_inside(&kind), depth.checked_sub(1)) {
                (Some(start), Some(depth)) => {
                    tame_within(content.get_mut(start..).unwrap_or_default(), depth)?
                }
                _ => 0,
            },
        };
        promised = promised.saturating_add(inner);
        bytes = rest;
    }
    Ok(promised)
}

/// Where in the content of a box others begin, if it holds others.
fn boxes_inside(kind: &[u8; 4]) -> Option<usize> {
    match kind {
        b"moov" | b"moof" | b"trak" | b"traf" | b"edts" | b"mdia" | b"minf" | b"stbl" | b"mvex" | b"dinf" => {
            Some(0)
        }
        // Version, flags, and a count of entries.
        b"dref" | b"stsd" => Some(8),
        // The size of the picture and the like.
        b"avc1" | b"avc3" => Some(78),
        _ => None,
    }
}

/// Which box it is, where its content begins, and where it ends.
struct Head {
    kind: [u8; 4],
    body: usize,
    end: usize,
}

/// Reads the head of the first box, if there is one. One that is cut off counts as far as it goes.
fn first_box(bytes: &[u8]) -> Result<Option<Head>, String> {
    let Some(&kind) = bytes.get(4..).and_then(<[u8]>::first_chunk) else { return Ok(None) };
    let (body, length) = match number(bytes, 0) {
        // Only the data at the end of a file may go without a length.
        0 if &kind == b"mdat" => (8, bytes.len() as u64),
        1 => (16, number(bytes, 8) << 32 | number(bytes, 12)),
        length => (8, length),
    };
    if length < body as u64 {
        return Err(format!("a box `{}` has a length of {length} bytes", kind.escape_ascii()));
    }
    Ok(Some(Head { kind, body, end: length.min(bytes.len() as u64) as usize }))
}

/// The 32-bit number at a place, 0 where there is none.
fn number(bytes: &[u8], at: usize) -> u64 {
    let number = bytes.get(at..).and_then(<[u8]>::first_chunk);
    number.map_or(0, |number| u64::from(u32::from_be_bytes(*number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: impl Into<Vec<u8>>) -> Result<(), String> {
        tame_boxes(&mut bytes.into())
    }

    fn wrap(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32 + 8).to_be_bytes()[..], kind, body].concat()
    }

    fn nest(kinds: &[&[u8; 4]], body: &[u8]) -> Vec<u8> {
        kinds.iter().rev().fold(body.to_vec(), |body, kind| wrap(kind, &body))
    }

    fn table(count: u32) -> Vec<u8> {
        let stsz = wrap(b"stsz", &[&[0; 8][..], &count.to_be_bytes()].concat());
        nest(&[b"moov", b"trak", b"mdia", b"minf", b"stbl"], &stsz)
    }

    fn run(count: u32) -> Vec<u8> {
        nest(&[b"moof", b"traf", b"trun"], &[&[0; 4][..], &count.to_be_bytes()].concat())
    }

    #[test]
    fn counts_that_cannot_be_are_refused() {
        assert_eq!(check(table(3)), Ok(()));
        assert!(check(table(256)).unwrap_err().contains("256 frames"));
        // The same count is possible in a larger file.
        assert_eq!(check([table(256), wrap(b"mdat", &[7; 300])].concat()), Ok(()));
        assert!(check(run(65536)).unwrap_err().contains("65536 frames"));
    }

    #[test]
    fn counts_are_summed_over_the_file() {
        let data = wrap(b"mdat", &[7; 900]);
        assert_eq!(check([data.clone(), run(500), run(400)].concat()), Ok(()));
        let error = check([data, run(500), table(300), run(400)].concat()).unwrap_err();
        assert!(error.contains("1200 frames"), "{error}");
    }

    #[test]
    fn boxes_without_a_length_are_refused() {
        let inner = wrap(b"moov", b"\0\0\0\0free");
        assert!(check(inner).unwrap_err().contains("`free` has a length of 0"));
        assert!(check(&b"\0\0\0\x07free"[..]).unwrap_err().contains("7 bytes"));
        assert_eq!(check(&b"\0\0\0\0mdat rest of the file"[..]), Ok(()));
        assert_eq!(check(&b"\xFF\xFF\xFF\xFFfree cut"[..]), Ok(()));
        assert_eq!(check(&b"\0\0\0\x01mdat\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"[..]), Ok(()));
        assert_eq!(check([]), Ok(()));
    }

    #[test]
    fn boxes_without_a_length_are_found_where_the_parser_goes() {
        let empty = b"\0\0\0\0free";
        let entries = [&[0; 8][..], empty].concat();
        let minf: &[&[u8; 4]] = &[b"moov", b"trak", b"mdia", b"minf"];
        for file in [
            nest(&[minf, &[b"dinf"]].concat(), empty),
            nest(&[minf, &[b"dinf", b"dref"]].concat(), &entries),
            nest(&[minf, &[b"stbl", b"stsd"]].concat(), &entries),
            nest(
                &[minf, &[b"stbl", b"stsd"]].concat(),
                &[&[0; 8][..], &wrap(b"avc1", &[&[0; 78][..], empty].concat())].concat(),
            ),
        ] {
            assert!(check(file).unwrap_err().contains("`free` has a length of 0"));
        }
    }

    #[test]
    fn metadata_is_hidden() {
        for kind in [b"udta", b"meta", b"emsg"] {
            // A length that only the parser would follow.
            let mut file = nest(&[b"moov", kind], b"\0\0\0\x01ilst\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF");
            assert_eq!(tame_boxes(&mut file), Ok(()));
            assert_eq!(&file[8..16], [&file[8..12], b"free"].concat());
        }
    }
}
