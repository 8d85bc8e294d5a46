//! Clips: which decoder takes which file.

use std::path::Path;

use rzen_core::Picture;

use crate::animation::load_animation;
use crate::ffmpeg::{Ffmpeg, find_ffmpeg};
use crate::picture::{first_bytes, picture_format, read_head};
use crate::{IncompleteVideo, LoadError, LoadOptions, VideoDecoder, h264};

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

/// Decides about a clip that should give `wanted` frames; `problem` is what was heard of it, if it is cut
/// off or damaged. There is a frame at least.
pub(crate) fn complete(
    path: &Path,
    mut frames: Vec<Picture>,
    wanted: usize,
    problem: Option<String>,
    options: &LoadOptions,
) -> Result<Vec<Picture>, LoadError> {
    let Some(problem) = problem else { return Ok(frames) };
    match options.incomplete_video {
        IncompleteVideo::Error => {
            let problem = if problem.is_empty() { problem } else { format!(" ({problem})") };
            let found = format!("gave {} of {wanted} frames{problem}", frames.len());
            return Err(LoadError::Incomplete { path: path.to_owned(), found });
        }
        IncompleteVideo::Repeat => {
            let last = frames.last().cloned();
            frames.extend(last.into_iter().cycle().take(wanted.saturating_sub(frames.len())));
        }
        IncompleteVideo::Accept => {}
    }
    Ok(frames)
}

/// The error for a clip that nothing here decodes.
pub(crate) fn no_decoder(path: &Path, found: String) -> LoadError {
    LoadError::NoVideoDecoder { path: path.to_owned(), found }
}

fn is_mp4(head: &[u8]) -> bool {
    head.get(4..8) == Some(b"ftyp")
}
