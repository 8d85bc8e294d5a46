//! JPEG files, to the very numbers of libjpeg-turbo, and so of Pillow.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};
use libjpeg_turbo_rs::{DecodeLimits, Decoder, JpegError, PixelFormat};
use rzen_core::{Picture, prefer_large_pages};

use crate::convert::to_picture;
use crate::{LoadError, LoadOptions};

const FORMAT: &str = "JPEG";
/// Programs write ten or so into a progressive file; each costs a pass over the picture.
const MOST_SCANS: usize = 256;

/// Decodes a JPEG file of one channel, three or four.
pub(crate) fn decode_jpeg(path: &Path, bytes: &[u8], options: &LoadOptions) -> Result<Picture, LoadError> {
    if !has_end_marker(bytes) {
        let found = format!("its {} bytes hold no end-of-image marker", bytes.len());
        return Err(LoadError::Truncated { path: path.to_owned(), format: FORMAT, found });
    }
    let failed = |error| jpeg_error(path, error);
    let bytes = with_colors_told(bytes);
    // Sides are checked below, against the limits of the loader.
    let side = usize::from(u16::MAX);
    let limits = DecodeLimits {
        max_width: side,
        max_height: side,
        max_pixels: u64::MAX,
        max_scans: MOST_SCANS,
        max_memory: None,
    };
    let mut decoder = Decoder::new_with_limits(&bytes, limits).map_err(failed)?;
    let (width, height) = (u32::from(decoder.header().width), u32::from(decoder.header().height));
    options.check_size(path, width, height)?;
    let format = match decoder.header().components.len() {
        1 | 3 => PixelFormat::Rgb,
        4 => PixelFormat::Cmyk,
        count => return Err(failed(JpegError::Unsupported(format!("{count} channels")))),
    };
    decoder.set_output_format(format);
    let mut pixels = vec![0; decoder.output_buffer_size().map_err(failed)?];
    prefer_large_pages(&mut pixels);
    decoder.decode_image_into(&mut pixels).map_err(failed)?;
    let rgb = if format == PixelFormat::Cmyk { rgb_of_ink(&pixels) } else { pixels };
    let mut image: DynamicImage =
        RgbImage::from_raw(width, height, rgb).expect("three bytes a pixel, as asked for").into();
    let orientation = decoder.exif_orientation().and_then(Orientation::from_exif);
    if let Some(orientation) = orientation.filter(|_| options.exif_orientation) {
        image.apply_orientation(orientation);
    }
    Ok(to_picture(image, options.background))
}

fn jpeg_error(path: &Path, error: JpegError) -> LoadError {
    let (path, format) = (path.to_owned(), FORMAT);
    match error {
        JpegError::Unsupported(_) => LoadError::UnsupportedPicture { path, format, source: Box::new(error) },
        _ => LoadError::Picture { path, format, source: Box::new(error) },
    }
}

/// Cyan, magenta, yellow and black as Adobe writes them into JPEG (255 is no ink) to RGB, rounded as in Pillow.
fn rgb_of_ink(inks: &[u8]) -> Vec<u8> {
    let color = |light: u8, black: u8| {
        let lost = u32::from(255 - light) * u32::from(black) + 128;
        black - (((lost >> 8) + lost) >> 8) as u8
    };
    inks.as_chunks::<4>()
        .0
        .iter()
        .flat_map(|[c, m, y, k]| [*c, *m, *y].map(|light| color(light, *k)))
        .collect()
}

/// Whether the markers of a JPEG file lead to an end-of-image marker.
///
/// The decoder fills the rest of a cut picture with grey and says nothing; Pillow refuses it.
/// Walks segment by segment, so that the end marker of an embedded thumbnail does not count.
fn has_end_marker(bytes: &[u8]) -> bool {
    segments(bytes).any(|(marker, _)| marker == END)
}

/// What libjpeg takes three channels for, where the decoder would take them for something else: bytes in which an Adobe marker
/// says it.
///
/// JFIF means YCbCr whatever an Adobe marker says; without both, channels named R, G and B are those.
fn with_colors_told(bytes: &[u8]) -> Cow<'_, [u8]> {
    const JFIF: u8 = 0xE0;
    const ADOBE: u8 = 0xEE;
    /// Bytes of an Adobe segment before the transform.
    const BEFORE_TRANSFORM: usize = 11;
    let (mut has_jfif, mut adobe, mut names) = (false, None, None);
    for (marker, body) in segments(bytes).take_while(|(marker, _)| *marker != SCAN) {
        let segment = &bytes[body.clone()];
        match marker {
            JFIF if segment.starts_with(b"JFIF\0") => has_jfif = true,
            ADOBE if segment.starts_with(b"Adobe") && segment.len() > BEFORE_TRANSFORM => {
                adobe = Some(body.start + BEFORE_TRANSFORM);
            }
            // Precision, sides, the number of channels, and three bytes for each, its name first.
            0xC0..=0xCF if segment.len() == 15 && segment[5] == 3 => {
                names = Some([segment[6], segment[9], segment[12]]);
            }
            _ => {}
        }
    }
    // Of four channels JFIF says nothing.
    let Some(names) = names else { return bytes.into() };
    match adobe {
        Some(transform) if has_jfif && bytes[transform] == 0 => {
            let mut bytes = bytes.to_vec();
            bytes[transform] = 1;
            bytes.into()
        }
        None if !has_jfif && names == *b"RGB" => {
            let marker = b"\xFF\xEE\x00\x0EAdobe\x00\x64\x00\x00\x00\x00\x00";
            [&bytes[..2], marker, &bytes[2..]].concat().into()
        }
        _ => bytes.into(),
    }
}

const START: u8 = 0xD8;
const END: u8 = 0xD9;
const SCAN: u8 = 0xDA;

/// The markers of a file, each with where its segment's content lies; of those without a segment it is empty. Ends where a segment
/// is cut.
fn segments(bytes: &[u8]) -> impl Iterator<Item = (u8, Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (marker, next) = next_marker(bytes, at)?;
        let body = match marker {
            END | START | 0x01 | 0xD0..=0xD7 => next..next,
            _ => next + 2..next + segment_length(bytes, next)?,
        };
        at = body.end;
        // What the length promises may not be there.
        Some((marker, body.start..body.end.min(bytes.len())))
    })
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
