//! Picture files.

use std::fs;
use std::io::{Cursor, Read};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use rzen_core::Picture;

use crate::convert::to_picture;
use crate::gif_frames::Gif;
use crate::isolate::{Lost, guard};
use crate::jpeg::has_end_marker;
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

/// Reads a whole file, after a look at what and how large it is.
pub(crate) fn read_file(path: &Path, options: &LoadOptions) -> Result<Vec<u8>, LoadError> {
    let length = file_length(path)?;
    if length > options.max_file_bytes {
        return Err(LoadError::TooLarge {
            path: path.to_owned(),
            found: format!("holds {length} bytes"),
            limit: format!("{} bytes", options.max_file_bytes),
            option: "max_file_bytes",
        });
    }
    fs::read(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })
}

/// The first bytes of a file, at most `count`.
pub(crate) fn read_head(path: &Path, count: u64) -> Result<Vec<u8>, LoadError> {
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
    if format == ImageFormat::Jpeg && !has_end_marker(bytes) {
        let found = format!("its {} bytes hold no end-of-image marker", bytes.len());
        return Err(LoadError::Truncated { path: path.to_owned(), format: "JPEG", found });
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(decoder_limits(options));
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    // `Limits` alone don't stop a bomb: `from_decoder` allocates the picture without asking them.
    let (width, height) = decoder.dimensions();
    options.check_size(path, width, height)?;
    let orientation = match options.exif_orientation {
        true => decoder.orientation().unwrap_or(Orientation::NoTransforms),
        false => Orientation::NoTransforms,
    };
    let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    image.apply_orientation(orientation);
    Ok(to_picture(image))
}

fn picture_error(path: &Path, format: ImageFormat, error: ImageError) -> LoadError {
    let (path, format) = (path.to_owned(), format_name(format));
    match error {
        ImageError::Unsupported(_) => LoadError::UnsupportedPicture { path, format, source: Box::new(error) },
        _ => LoadError::Picture { path, format, source: Box::new(error) },
    }
}

/// Bounds what a decoder allocates inside: the largest picture with four channels of 16 bits, twice.
fn decoder_limits(options: &LoadOptions) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(options.max_pixels.saturating_mul(16).saturating_add(64 << 20));
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
