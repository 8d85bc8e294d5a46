//! What a loader may be told.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::LoadError;

/// How files are found, sampled and limited.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoadOptions {
    /// Put before relative paths. Default: nothing, so that they count from the working directory.
    pub root: PathBuf,
    /// Frames taken from a clip, spread evenly from its first to its last; a shorter clip gives all
    /// it has. 0 is read as 1. Default 8.
    pub num_frames: usize,
    /// Whether pictures are turned upright by their EXIF tag. Default off, as in the published pipeline.
    pub exif_orientation: bool,
    /// What shows through transparent pixels: red, green and blue. Default nothing: alpha is dropped, as in the
    /// published pipeline, and clear pixels show the colour stored for them, often black. Clips that ffmpeg decodes
    /// have no alpha.
    pub background: Option<[u8; 3]>,
    /// Most pixels of a picture, frame or page, checked before it is decoded. Default 178,956,970,
    /// where Pillow refuses as well.
    pub max_pixels: u64,
    /// Most pixels along one side. Default 65,535.
    pub max_side: u32,
    /// Most bytes of a file that is read whole: pictures, PDF, and MP4 without ffmpeg. Default 1 GiB.
    pub max_file_bytes: u64,
    /// Resolution of document pages in dots per inch. Default 144.
    pub pdf_dpi: f32,
    /// Longest time for one document page, in milliseconds. Default 60,000.
    pub pdf_timeout_ms: u64,
    /// Longest time for one clip, in milliseconds. Default 120,000.
    pub video_timeout_ms: u64,
    /// Most bytes of decoded frames that a clip may give. Default 1 GiB.
    pub video_byte_cap: u64,
    /// The ffmpeg program. Else the environment variable `RZEN_FFMPEG`, else `ffmpeg` on the PATH.
    pub ffmpeg: Option<PathBuf>,
    /// What decodes video other than GIF and WebP.
    pub video_decoder: VideoDecoder,
    /// What becomes of a video that is cut off or damaged and gives some of its frames. Default an error.
    pub incomplete_video: IncompleteVideo,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            root: PathBuf::new(),
            num_frames: 8,
            exif_orientation: false,
            background: None,
            max_pixels: 178_956_970,
            max_side: 65_535,
            max_file_bytes: 1 << 30,
            pdf_dpi: 144.0,
            pdf_timeout_ms: 60_000,
            video_timeout_ms: 120_000,
            video_byte_cap: 1 << 30,
            ffmpeg: None,
            video_decoder: VideoDecoder::Auto,
            incomplete_video: IncompleteVideo::Error,
        }
    }
}

/// What becomes of a video that is cut off or damaged and gives some of its frames.
///
/// Of a cut MPEG transport stream or AVI nobody can tell that there was more; it is a shorter clip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IncompleteVideo {
    /// It is an error.
    #[default]
    Error,
    /// The last frame that came is repeated for those that did not.
    Repeat,
    /// The frames that came are the clip.
    Accept,
}

/// What decodes video other than GIF and WebP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VideoDecoder {
    /// ffmpeg where there is one, else the built-in decoder.
    #[default]
    Auto,
    /// ffmpeg alone.
    Ffmpeg,
    /// The built-in decoder alone: H.264 (8 bit, 4:2:0, progressive) in MP4.
    Native,
}

impl LoadOptions {
    /// Refuses sides and areas over the limits, before any pixel is decoded.
    pub(crate) fn check_size(&self, path: &Path, width: u32, height: u32) -> Result<(), LoadError> {
        let too_large = |limit, option| {
            let found = format!("is {width} x {height} pixels");
            Err(LoadError::TooLarge { path: path.to_owned(), found, limit, option })
        };
        if width.max(height) > self.max_side {
            return too_large(format!("{} pixels along a side", self.max_side), "max_side");
        }
        if u64::from(width) * u64::from(height) > self.max_pixels {
            return too_large(format!("{} pixels", self.max_pixels), "max_pixels");
        }
        Ok(())
    }

    /// When decoding a clip must be done; `None` for a time beyond what the clock can tell.
    pub(crate) fn video_deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(Duration::from_millis(self.video_timeout_ms))
    }

    /// Refuses to go on with a clip after its deadline.
    pub(crate) fn check_time(&self, path: &Path, deadline: Option<Instant>) -> Result<(), LoadError> {
        match deadline {
            Some(deadline) if Instant::now() >= deadline => Err(self.too_slow(path)),
            _ => Ok(()),
        }
    }

    /// The error for a clip that took too long.
    pub(crate) fn too_slow(&self, path: &Path) -> LoadError {
        LoadError::Timeout {
            path: path.to_owned(),
            timeout_ms: self.video_timeout_ms,
            option: "video_timeout_ms",
        }
    }

    /// Refuses a clip whose kept frames would fill more memory than allowed.
    pub(crate) fn check_clip(&self, path: &Path, frame_bytes: u64, num_frames: u64) -> Result<(), LoadError> {
        if frame_bytes.saturating_mul(num_frames) > self.video_byte_cap {
            return Err(LoadError::TooLarge {
                path: path.to_owned(),
                found: format!("gives {num_frames} frames of {frame_bytes} bytes"),
                limit: format!("{} bytes", self.video_byte_cap),
                option: "video_byte_cap",
            });
        }
        Ok(())
    }
}
