//! Whether a JPEG file is whole.
//!
//! The decoder fills the rest of a cut picture with grey and says nothing; Pillow refuses it.

/// Whether the markers of a JPEG file lead to an end-of-image marker.
///
/// Walks segment by segment, so that the end marker of an embedded thumbnail does not count.
pub(crate) fn has_end_marker(bytes: &[u8]) -> bool {
    const START: u8 = 0xD8;
    const END: u8 = 0xD9;
    let mut at = 0;
    while let Some((marker, next)) = next_marker(bytes, at) {
        at = match marker {
            END => return true,
            START | 0x01 | 0xD0..=0xD7 => next,
            _ => match segment_length(bytes, next) {
                Some(length) => next + length,
                None => return false,
            },
        };
    }
    false
}

/// The next marker at or after `at`, and where it ends. Inside entropy-coded data an escaped 0xFF
/// (`FF 00`) is no marker.
fn next_marker(bytes: &[u8], mut at: usize) -> Option<(u8, usize)> {
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == 0xFF)? + 1;
        match *bytes.get(at)? {
            0x00 => at += 1,
            // A fill byte: the next one may be the marker.
            0xFF => {}
            marker => return Some((marker, at + 1)),
        }
    }
}

fn segment_length(bytes: &[u8], at: usize) -> Option<usize> {
    let length = usize::from(*bytes.get(at)?) << 8 | usize::from(*bytes.get(at + 1)?);
    (length >= 2).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thumbnails_and_escapes_are_not_the_end() {
        let app1 = [0xFF, 0xD8, 0xFF, 0xE1, 0, 6, 0xFF, 0xD8, 0xFF, 0xD9];
        assert!(!has_end_marker(&app1));
        let mut whole = app1.to_vec();
        whole.extend([0xFF, 0xDA, 0, 2, 1, 2, 0xFF, 0x00, 3, 0xFF, 0xD0, 4, 0xFF, 0xFF, 0xD9]);
        assert!(has_end_marker(&whole));
        assert!(!has_end_marker(&whole[..whole.len() - 1]));
        assert!(!has_end_marker(&[]));
    }
}
