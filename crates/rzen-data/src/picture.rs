//! Picture files.

use std::fs;
use std::io::{Cursor, ErrorKind, Read};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, ImageResult, Limits};
use rzen_core::Picture;

use crate::convert::to_picture;
use crate::gif_frames::Gif;
use crate::isolate::{Lost, guard};
use crate::jpeg::decode_jpeg;
use crate::parquet_media::Inside;
use crate::webp_frames::Webp;
use crate::{LoadError, LoadOptions};

/// Reads and decodes one picture; of an animation its first frame.
pub(crate) fn load_picture(path: &Path, options: &LoadOptions) -> Result<Picture, LoadError> {
    let bytes = read_file(path, options)?;
    decode_picture(path, &bytes, options)
}

/// Decodes a picture by what its first bytes say, whatever its name says.
pub(crate) fn decode_picture(path: &Path, bytes: &[u8], options: &LoadOptions) -> Result<Picture, LoadError> {
    let Some(format) = picture_format(bytes) else {
        return Err(LoadError::UnknownPicture { path: path.to_owned(), found: first_bytes(bytes) });
    };
    guarded(path, format_name(format), || match format {
        ImageFormat::Gif => Gif::open(path, bytes, options)?.first(),
        ImageFormat::WebP => match Webp::open(path, bytes, options)? {
            Some(animation) => animation.first(),
            None => decode_still(path, bytes, format, options),
        },
        ImageFormat::Jpeg => decode_jpeg(path, bytes, options),
        _ => decode_still(path, bytes, format, options),
    })
}

/// Runs a decoder so that a panic in it becomes an error.
pub(crate) fn guarded<T>(
    path: &Path,
    decoder: &'static str,
    decode: impl FnOnce() -> Result<T, LoadError>,
) -> Result<T, LoadError> {
    guard(decode).unwrap_or_else(|lost| {
        let found = match lost {
            Lost::Panic(message) => message,
            Lost::Timeout => "it did not end".to_owned(),
        };
        Err(LoadError::Decoder { path: path.to_owned(), decoder, found })
    })
}

/// Reads a whole file, after a look at what and how large it is, or a picture inside a Parquet file.
pub(crate) fn read_file(path: &Path, options: &LoadOptions) -> Result<Vec<u8>, LoadError> {
    if let Some(inside) = Inside::of(path) {
        let bytes = read_inside(path, &inside)?;
        check_length(path, bytes.len() as u64, options)?;
        return Ok(bytes);
    }
    check_length(path, file_length(path)?, options)?;
    fs::read(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })
}

fn check_length(path: &Path, length: u64, options: &LoadOptions) -> Result<(), LoadError> {
    match length > options.max_file_bytes {
        true => Err(LoadError::TooLarge {
            path: path.to_owned(),
            found: format!("holds {length} bytes"),
            limit: format!("{} bytes", options.max_file_bytes),
            option: "max_file_bytes",
        }),
        false => Ok(()),
    }
}

fn read_inside(path: &Path, inside: &Inside) -> Result<Vec<u8>, LoadError> {
    file_length(&inside.file)?;
    match inside.read() {
        Ok(bytes) if bytes.is_empty() => Err(LoadError::Empty { path: path.to_owned() }),
        Ok(bytes) => Ok(bytes),
        Err(source) if source.kind() == ErrorKind::InvalidData => {
            Err(LoadError::Parquet { path: path.to_owned(), source })
        }
        Err(source) => Err(LoadError::Read { path: path.to_owned(), source }),
    }
}

/// The first bytes of a file, at most `count`.
pub(crate) fn read_head(path: &Path, count: u64) -> Result<Vec<u8>, LoadError> {
    if let Some(inside) = Inside::of(path) {
        let mut head = read_inside(path, &inside)?;
        head.truncate(count as usize);
        return Ok(head);
    }
    file_length(path)?;
    let read = || {
        let mut head = Vec::new();
        fs::File::open(path)?.take(count).read_to_end(&mut head)?;
        Ok(head)
    };
    read().map_err(|source| LoadError::Read { path: path.to_owned(), source })
}

/// The length of a regular file that isn't empty. Pipes and devices are refused before they are
/// opened: reading one may never end.
fn file_length(path: &Path) -> Result<u64, LoadError> {
    let metadata = fs::metadata(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    if metadata.is_dir() {
        return Err(LoadError::NotAFile { path: path.to_owned(), found: "a folder" });
    }
    if !metadata.is_file() {
        return Err(LoadError::NotAFile { path: path.to_owned(), found: "a pipe or a device" });
    }
    if metadata.len() == 0 {
        return Err(LoadError::Empty { path: path.to_owned() });
    }
    Ok(metadata.len())
}

/// Which of the six formats the bytes begin as.
pub(crate) fn picture_format(bytes: &[u8]) -> Option<ImageFormat> {
    image::guess_format(bytes).ok().filter(|format| {
        matches!(
            format,
            ImageFormat::Png
                | ImageFormat::Jpeg
                | ImageFormat::WebP
                | ImageFormat::Gif
                | ImageFormat::Bmp
                | ImageFormat::Tiff
        )
    })
}

fn decode_still(
    path: &Path,
    bytes: &[u8],
    format: ImageFormat,
    options: &LoadOptions,
) -> Result<Picture, LoadError> {
    let damaged = |error| picture_error(path, format, error);
    let mut decoder = open_decoder(bytes, format).map_err(damaged)?;
    // `Limits` alone don't stop a bomb: `from_decoder` allocates the picture without asking them.
    let (width, height) = decoder.dimensions();
    options.check_size(path, width, height)?;
    decoder.set_limits(decoder_limits(decoder.total_bytes())).map_err(damaged)?;
    // Pillow turns TIFF whether it is asked to or not.
    let orientation = match options.exif_orientation || format == ImageFormat::Tiff {
        true => decoder.orientation().unwrap_or(Orientation::NoTransforms),
        false => Orientation::NoTransforms,
    };
    let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    image.apply_orientation(orientation);
    Ok(to_picture(image, options.background))
}

fn picture_error(path: &Path, format: ImageFormat, error: ImageError) -> LoadError {
    let (path, format) = (path.to_owned(), format_name(format));
    match error {
        ImageError::Unsupported(_) => LoadError::UnsupportedPicture { path, format, source: Box::new(error) },
        _ => LoadError::Picture { path, format, source: Box::new(error) },
    }
}

/// A decoder that has read the head of a picture, colour profiles and the like.
fn open_decoder(bytes: &[u8], format: ImageFormat) -> ImageResult<impl ImageDecoder> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // No pixel is decoded under these limits, but PNG unpacks profiles.
    reader.limits(decoder_limits(0));
    reader.into_decoder()
}

/// Bounds what a decoder allocates inside, for a picture of so many bytes.
fn decoder_limits(picture_bytes: u64) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(picture_bytes.saturating_mul(2).saturating_add(64 << 20));
    limits
}

fn format_name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        _ => "TIFF",
    }
}

/// The first bytes, printable ones as text.
pub(crate) fn first_bytes(bytes: &[u8]) -> String {
    format!("`{}`", bytes[..bytes.len().min(16)].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PNG of one pixel whose colour profile unpacks to `length` bytes.
    fn with_profile(length: u32) -> Vec<u8> {
        let encode = |width, height| {
            let mut bytes = Cursor::new(Vec::new());
            DynamicImage::new_luma8(width, height).write_to(&mut bytes, ImageFormat::Png).expect("memory");
            bytes.into_inner()
        };
        // The pixels of a black picture are packed zeros.
        let black = encode(9_999, length / 10_000);
        let mut packed = Vec::new();
        let mut rest = &black[8..];
        while let Some((head, body)) = rest.split_at_checked(8) {
            let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
            if &head[4..] == b"IDAT" {
                packed.extend(&body[..length]);
            }
            rest = &body[length + 4..];
        }
        let profile = [b"iCCPname\0\0", &packed[..]].concat();
        let checksum = profile.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
        });
        let chunk =
            [&(packed.len() as u32 + 6).to_be_bytes()[..], &profile, &(!checksum).to_be_bytes()].concat();
        let (head, tail) = (encode(1, 1), 33);
        [&head[..tail], &chunk, &head[tail..]].concat()
    }

    #[test]
    fn profiles_are_unpacked_only_as_far_as_is_sane() {
        let profile = |length| {
            let bytes = with_profile(length);
            let mut decoder = open_decoder(&bytes, ImageFormat::Png).expect("a whole picture");
            decoder.icc_profile().expect("no error").map(|profile| profile.len())
        };
        assert_eq!(profile(1_000_000), Some(1_000_000));
        assert_eq!(profile(100_000_000), None);
        let bytes = with_profile(100_000_000);
        let picture = decode_picture(Path::new("bomb.png"), &bytes, &LoadOptions::default());
        assert_eq!(picture.map(|picture| picture.width()).ok(), Some(1));
    }
}
