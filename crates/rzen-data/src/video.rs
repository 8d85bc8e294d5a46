//! Clips: which decoder takes which file.

use std::path::Path;

use rzen_core::Picture;

use crate::animation::load_animation;
use crate::ffmpeg::{Ffmpeg, find_ffmpeg};
use crate::picture::{first_bytes, picture_format, read_head};
use crate::{LoadError, LoadOptions, VideoDecoder, h264};

/// Samples the frames of a clip.
pub(crate) fn load_clip(path: &Path, options: &LoadOptions) -> Result<Vec<Picture>, LoadError> {
    let head = read_head(path, 64)?;
    if picture_format(&head).is_some() {
        return load_animation(path, options);
    }
    let ffmpeg = match options.video_decoder {
        VideoDecoder::Native => None,
        VideoDecoder::Auto | VideoDecoder::Ffmpeg => find_ffmpeg(options),
    };
    match (ffmpeg, options.video_decoder) {
        (Some(program), _) => Ffmpeg::new(program, path, options).frames(),
        (None, VideoDecoder::Ffmpeg) => Err(no_decoder(path, "there is no ffmpeg".into())),
        (None, _) if is_mp4(&head) => h264::load_mp4(path, options),
        (None, _) => {
            let found = format!(
                "there is no ffmpeg, and the built-in decoder reads MP4 only (the file begins with {})",
                first_bytes(&head)
            );
            Err(no_decoder(path, found))
        }
    }
}

/// The error for a clip that nothing here decodes.
pub(crate) fn no_decoder(path: &Path, found: String) -> LoadError {
    LoadError::NoVideoDecoder { path: path.to_owned(), found }
}

fn is_mp4(head: &[u8]) -> bool {
    head.get(4..8) == Some(b"ftyp")
}
