//! Items to decoded items.

use std::path::Path;

use rzen_core::{Item, LoadedItem, Media, Part, VideoSource};

use crate::animation::load_frame_files;
use crate::document::{count_pages, load_page};
use crate::picture::load_picture;
use crate::video::load_clip;
use crate::{LoadError, LoadOptions};

/// Reads the files of items and decodes them to RGB.
///
/// **Pictures** are those of Pillow's `convert("RGB")`, without EXIF rotation by default (TIFF is always
/// turned upright, as Pillow does). Compared with
/// Pillow 13 over 50 files of all modes, PNG, GIF, WebP, BMP and TIFF are equal, and so is JPEG over 6119 files
/// and those of every sampling in `fixtures/jpeg`, bit for bit; JPEG within TIFF differs by 1 of 255. A JPEG in whose data a code can't be read is refused,
/// where Pillow guesses; one that ends early, but with an end marker, is filled up by both, each in its own way. Differences on purpose: 16-bit grey keeps its high byte (Pillow clips
/// it, to nearly all white). TIFF with a palette is refused.
///
/// **Clips** are sampled by [`sample_frames`](crate::sample_frames), a list of frames is kept whole, and a
/// still picture is a clip of one frame. Frames of GIF and WebP equal Pillow's `seek(i); convert("RGB")`:
/// alpha is dropped after composing, so that clear pixels show the colour stored for them (0 differences
/// over 170 animations with transparency, blending and every kind of disposal), unless
/// [`LoadOptions::background`] is set. GIF frames that stick out of the canvas are cut, where Pillow enlarges it.
///
/// Frames by ffmpeg equal OpenCV 5.0's (H.264, HEVC, VP9, MPEG-4, MJPEG; turned, cut, fragmented and
/// variable rate). The built-in H.264 decoder finds the same frames and differs by up to 3 levels (0.7 in
/// the mean), from the conversion out of YUV.
///
/// **Pages** of PDF files are drawn on white; fonts that are not embedded beyond the standard ones draw nothing.
#[derive(Clone, Debug, Default)]
pub struct Loader {
    /// Where files are found, and the limits.
    pub options: LoadOptions,
}

impl Loader {
    /// A loader with these options.
    pub fn new(options: LoadOptions) -> Self {
        Loader { options }
    }

    /// Decodes every part of `item`.
    ///
    /// # Errors
    /// The first part that can't be read, with its file, what was found, and what to do.
    pub fn load(&self, item: &Item) -> Result<LoadedItem, LoadError> {
        let parts = item.content.iter().map(|part| self.load_part(part)).collect::<Result<_, _>>()?;
        Ok(LoadedItem { parts, instruction: item.instruction.clone() })
    }

    /// How many pages a PDF file has.
    ///
    /// # Errors
    /// If the file can't be read, or is no whole PDF.
    pub fn count_pages(&self, path: &Path) -> Result<usize, LoadError> {
        count_pages(&self.options.root.join(path), &self.options)
    }

    /// Decodes one part.
    ///
    /// # Errors
    /// As [`load`](Loader::load).
    pub fn load_part(&self, part: &Part) -> Result<Media, LoadError> {
        let options = &self.options;
        let at = |path| options.root.join(path);
        Ok(match part {
            Part::Text(text) => Media::Text(text.clone()),
            Part::Image(path) => Media::Image(load_picture(&at(path), options)?),
            Part::Video(VideoSource::File(path)) => Media::Frames(load_clip(&at(path), options)?),
            Part::Video(VideoSource::Frames(paths)) => {
                let paths: Vec<_> = paths.iter().map(at).collect();
                Media::Frames(load_frame_files(&paths, options)?)
            }
            Part::Document { path, page } => Media::Image(load_page(&at(path), *page, options)?),
        })
    }
}
