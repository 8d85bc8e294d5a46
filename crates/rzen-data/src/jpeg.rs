//! JPEG files, to the very numbers of libjpeg-turbo, and so of Pillow.

use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};
use libjpeg_turbo_rs::{DecodeLimits, Decoder, JpegError, PixelFormat};
use rzen_core::{Picture, prefer_large_pages};

use crate::convert::to_picture;
use crate::{LoadError, LoadOptions};

const FORMAT: &str = "JPEG";

/// Decodes a JPEG file of one channel, three or four.
pub(crate) fn decode_jpeg(path: &Path, bytes: &[u8], options: &LoadOptions) -> Result<Picture, LoadError> {
    if !has_end_marker(bytes) {
        let found = format!("its {} bytes hold no end-of-image marker", bytes.len());
        return Err(LoadError::Truncated { path: path.to_owned(), format: FORMAT, found });
    }
    let failed = |error| jpeg_error(path, error);
    // Sides are checked below, against the limits of the loader.
    let side = usize::from(u16::MAX);
    let limits =
        DecodeLimits { max_width: side, max_height: side, max_pixels: u64::MAX, ..Default::default() };
    let mut decoder = Decoder::new_with_limits(bytes, limits).map_err(failed)?;
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
