//! A local model as one that is served.

use std::error::Error;
use std::path::Path;

use image::ImageReader;
use rzen_core::{Item, Part, VideoSource};
use rzen_data::LoadError;
use rzen_model::{Encoded, ProcessError};
use rzen_serve::{ReadError, ServedModel};

use crate::embedder::LocalEmbedder;

impl ServedModel for LocalEmbedder {
    type Read = Encoded;

    fn dim(&self) -> usize {
        rzen_core::Embed::dim(self)
    }

    fn read(&self, item: &Item) -> Result<Encoded, ReadError> {
        check_size(item)?;
        self.encode_item(item).map_err(|error| read_error(&*error))
    }

    fn tokens(&self, read: &Encoded) -> usize {
        read.input_ids.len()
    }

    fn embed(&self, items: &[Encoded]) -> Result<Vec<Vec<f32>>, String> {
        Ok(self.embed_encoded(items))
    }
}

/// Bytes of a clip's frames: eight of 3840 x 2160 pixels, and some.
pub(crate) const CLIP_BYTES: u64 = 256 << 20;

/// What a page counts as; most take a fifth of it.
const PAGE_BYTES: u64 = 32 << 20;

/// What a picture counts as whose head tells no size here; where it is broken, decoding tells why.
const UNKNOWN_BYTES: u64 = 160 << 20;

/// Most bytes of an item's media once decoded: they are decoded together.
const ITEM_BYTES: u64 = 512 << 20;

/// Refuses an item whose media would fill too much memory together, before any is decoded.
fn check_size(item: &Item) -> Result<(), ReadError> {
    let bytes: u64 = item.content.iter().map(decoded_bytes).sum();
    match bytes > ITEM_BYTES {
        false => Ok(()),
        true => Err(ReadError::Media(format!(
            "the item's media may take {bytes} bytes once decoded, with {CLIP_BYTES} for a clip and {PAGE_BYTES} for a page; at most \
             {ITEM_BYTES} are taken"
        ))),
    }
}

fn decoded_bytes(part: &Part) -> u64 {
    match part {
        Part::Text(_) => 0,
        Part::Image(path) => picture_bytes(path),
        Part::Video(VideoSource::Frames(paths)) => paths.iter().map(|path| picture_bytes(path)).sum(),
        Part::Video(VideoSource::File(_)) => CLIP_BYTES,
        Part::Document { .. } => PAGE_BYTES,
    }
}

/// By the picture's head.
fn picture_bytes(path: &Path) -> u64 {
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format);
    let size = reader.ok().and_then(|reader| reader.into_dimensions().ok());
    size.map_or(UNKNOWN_BYTES, |(width, height)| u64::from(width) * u64::from(height) * 3)
}

/// What the loader calls limits, and what the server calls them, if it lets them be set.
const NAMES: [(&str, &str); 5] = [
    ("`max_pixels`", "`--max-pixels`"),
    ("`video_timeout_ms`", "`--media-timeout`"),
    ("`pdf_timeout_ms`", "`--media-timeout`"),
    (" or raise `video_byte_cap`", ""),
    (", or set `incomplete_video` to `repeat` or `accept`", ""),
];

/// Whose fault it is that an item can't be read.
fn read_error(error: &(dyn Error + Send + Sync + 'static)) -> ReadError {
    let message = (NAMES.iter()).fold(error.to_string(), |message, (name, own)| message.replace(name, own));
    match error.downcast_ref::<LoadError>() {
        // The program and the disk are the server's own.
        Some(LoadError::Ffmpeg { .. } | LoadError::Read { .. } | LoadError::NotAFile { .. }) => {
            ReadError::Server(message)
        }
        Some(_) => ReadError::Media(message),
        None if error.is::<ProcessError>() => ReadError::Item(message),
        None => ReadError::Server(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_are_counted_together_before_they_are_decoded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        image::GrayImage::new(4000, 4000).save(&path).unwrap();
        let pictures = |count| Item { content: vec![Part::Image(path.clone()); count], instruction: None };
        assert_eq!(check_size(&pictures(11)), Ok(()));
        let refused = check_size(&pictures(12)).unwrap_err();
        assert!(refused.to_string().contains("576000000 bytes"), "{refused}");
        let frames = |count| Part::Video(VideoSource::Frames(vec![path.clone(); count]));
        let clip = || Part::Video(VideoSource::File(path.clone()));
        let page = || Part::Document { path: path.clone(), page: 1 };
        for (content, fits) in [
            (vec![frames(11)], true),
            (vec![frames(12)], false),
            (vec![clip(), clip()], true),
            (vec![clip(), clip(), page()], false),
            (vec![Part::Image("missing".into()), Part::Text("a".into())], true),
            (vec![Part::Image("missing".into()); 4], false),
        ] {
            assert_eq!(check_size(&Item { content, instruction: None }).is_ok(), fits);
        }
    }

    #[test]
    fn limits_are_called_as_the_options_of_the_server() {
        let path = || "a.png".into();
        for (error, name) in [
            (
                LoadError::Timeout { path: path(), timeout_ms: 1, option: "pdf_timeout_ms" },
                "`--media-timeout`",
            ),
            (
                LoadError::Timeout { path: path(), timeout_ms: 1, option: "video_timeout_ms" },
                "`--media-timeout`",
            ),
            (
                LoadError::TooLarge {
                    path: path(),
                    found: "is".into(),
                    limit: "1".into(),
                    option: "max_pixels",
                },
                "`--max-pixels`",
            ),
        ] {
            let ReadError::Media(message) = read_error(&error) else { panic!("{error}") };
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn the_fault_is_that_of_who_can_mend_it() {
        let path = || "a.png".into();
        let read = |error: Box<dyn Error + Send + Sync>| read_error(&*error);
        let ffmpeg = LoadError::Ffmpeg { path: path(), program: path(), source: std::io::Error::other("x") };
        assert!(matches!(read(Box::new(ffmpeg)), ReadError::Server(_)));
        let empty = LoadError::Empty { path: path() };
        assert!(matches!(read(Box::new(empty)), ReadError::Media(message) if message.contains("a.png")));
        assert!(matches!(read(Box::new(ProcessError::Nothing)), ReadError::Item(_)));
        assert!(matches!(read("else".into()), ReadError::Server(_)));
    }
}
