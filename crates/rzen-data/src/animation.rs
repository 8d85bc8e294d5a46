//! Clips that are pictures: GIF and WebP animations, stills, and lists of frames.

use std::path::{Path, PathBuf};

use image::ImageFormat;
use rzen_core::Picture;

use crate::gif_frames::Gif;
use crate::picture::{decode_picture, guarded, load_picture, picture_format, read_file};
use crate::webp_frames::Webp;
use crate::{LoadError, LoadOptions, sample_frames};

/// Samples an animation; a still picture is a clip of one frame.
pub(crate) fn load_animation(path: &Path, options: &LoadOptions) -> Result<Vec<Picture>, LoadError> {
    let deadline = options.video_deadline();
    let bytes = read_file(path, options)?;
    match picture_format(&bytes) {
        Some(ImageFormat::Gif) => guarded(path, "GIF", || {
            let gif = Gif::open(path, &bytes, options)?;
            gif.frames(&choose(path, gif.num_frames, gif.width, gif.height, options)?, deadline)
        }),
        Some(ImageFormat::WebP) => guarded(path, "WebP", || match Webp::open(path, &bytes, options)? {
            Some(webp) => {
                webp.frames(&choose(path, webp.num_frames(), webp.width, webp.height, options)?, deadline)
            }
            None => Ok(vec![decode_picture(path, &bytes, options)?]),
        }),
        _ => Ok(vec![decode_picture(path, &bytes, options)?]),
    }
}

/// Loads every picture of a list of frames.
pub(crate) fn load_frame_files(paths: &[PathBuf], options: &LoadOptions) -> Result<Vec<Picture>, LoadError> {
    if paths.is_empty() {
        return Err(LoadError::NoFrames);
    }
    let deadline = options.video_deadline();
    let mut frames = Vec::with_capacity(paths.len());
    let mut bytes = 0;
    for path in paths {
        options.check_time(path, deadline)?;
        let frame = load_picture(path, options)?;
        bytes += frame.rgb().len() as u64;
        options.check_clip(path, bytes, 1)?;
        frames.push(frame);
    }
    Ok(frames)
}

fn choose(
    path: &Path,
    num_frames: usize,
    width: u32,
    height: u32,
    options: &LoadOptions,
) -> Result<Vec<usize>, LoadError> {
    let wanted = sample_frames(num_frames, options.num_frames);
    options.check_clip(path, u64::from(width) * u64::from(height) * 3, wanted.len() as u64)?;
    Ok(wanted)
}
