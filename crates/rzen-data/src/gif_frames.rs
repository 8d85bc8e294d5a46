//! GIF pictures and animations, composed as Pillow does.
//!
//! `image` composes on transparent black. Pillow drops alpha only at the end, so the colour that the
//! palette gives to "transparent" is what a model trained with Pillow has seen; hence this module.

use std::io::{Chain, Read};
use std::path::Path;
use std::time::Instant;

use gif::{ColorOutput, DecodeOptions, Decoder, DecodingError, DisposalMethod, MemoryLimit};
use rzen_core::Picture;

use crate::{LoadError, LoadOptions};

/// A GIF file whose header has been read and whose frames have been counted.
pub(crate) struct Gif<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    options: &'a LoadOptions,
    pub width: u32,
    pub height: u32,
    pub num_frames: usize,
}

impl<'a> Gif<'a> {
    /// Reads the header and counts the frames without unpacking them.
    pub fn open(path: &'a Path, bytes: &'a [u8], options: &'a LoadOptions) -> Result<Self, LoadError> {
        let damaged = |error| damaged(path, error);
        let mut decoder = reader(bytes, true).map_err(damaged)?;
        let (width, height) = (u32::from(decoder.width()), u32::from(decoder.height()));
        options.check_size(path, width, height)?;
        let mut num_frames = 0;
        while decoder.next_frame_info().map_err(damaged)?.is_some() {
            num_frames += 1;
        }
        if width == 0 || height == 0 || num_frames == 0 {
            let found = format!("it is {width} x {height} pixels with {num_frames} frames");
            return Err(LoadError::Truncated { path: path.to_owned(), format: "GIF", found });
        }
        Ok(Gif { path, bytes, options, width, height, num_frames })
    }

    /// The first frame.
    pub fn first(&self) -> Result<Picture, LoadError> {
        Ok(self.frames(&[0], None)?.remove(0))
    }

    /// The composed frames with the given places, which ascend; an error after the deadline.
    pub fn frames(&self, wanted: &[usize], deadline: Option<Instant>) -> Result<Vec<Picture>, LoadError> {
        let damaged = |error| damaged(self.path, error);
        let mut decoder = reader(self.bytes, false).map_err(damaged)?;
        let global = decoder.global_palette().map(<[u8]>::to_vec);
        let background_index = decoder.bg_color().unwrap_or(0) as u8;
        let mut canvas = Canvas::new(self.width, self.height);
        let mut frames = Vec::with_capacity(wanted.len());
        for place in 0..=wanted.last().copied().unwrap_or(0) {
            self.options.check_time(self.path, deadline)?;
            let Some(frame) = decoder.next_frame_info().map_err(damaged)? else { break };
            let stroke = Stroke {
                extent: Extent {
                    left: usize::from(frame.left),
                    top: usize::from(frame.top),
                    width: usize::from(frame.width),
                    height: usize::from(frame.height),
                },
                transparent: frame.transparent,
                clear_color: self.options.background,
                background_index,
                palette: frame.palette.clone().or_else(|| global.clone()),
                dispose: frame.dispose,
            };
            // A frame may be far larger than the picture it belongs to.
            self.options.check_size(self.path, frame.width.into(), frame.height.into())?;
            let mut indices = vec![0; decoder.buffer_size()];
            decoder.read_into_buffer(&mut indices).map_err(damaged)?;
            canvas.draw(&stroke, &indices);
            if wanted.contains(&place) {
                frames.push(Picture::new(self.width, self.height, canvas.rgb.clone()));
            }
        }
        Ok(frames)
    }
}

type GifReader<'a> = Decoder<Chain<&'a [u8], &'a [u8]>>;

/// The missing trailer of an otherwise whole file is put in its place, as Pillow doesn't ask for it.
fn reader(bytes: &[u8], skip_pixels: bool) -> Result<GifReader<'_>, DecodingError> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.skip_frame_decoding(skip_pixels);
    // Sizes are checked before each buffer is made.
    options.set_memory_limit(MemoryLimit::Unlimited);
    options.read_info(bytes.chain(&b";"[..]))
}

fn damaged(path: &Path, error: DecodingError) -> LoadError {
    LoadError::Picture { path: path.to_owned(), format: "GIF", source: Box::new(error) }
}

#[derive(Clone, Copy)]
struct Extent {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}

/// What a frame says about itself, apart from its pixels.
struct Stroke {
    extent: Extent,
    transparent: Option<u8>,
    /// Shown for `transparent`, and where nothing was painted, in place of the palette's colour.
    clear_color: Option<[u8; 3]>,
    background_index: u8,
    palette: Option<Vec<u8>>,
    dispose: DisposalMethod,
}

impl Stroke {
    /// A file without any palette is grey.
    fn color(&self, index: u8) -> [u8; 3] {
        if let Some(color) = self.clear_color.filter(|_| self.transparent == Some(index)) {
            return color;
        }
        let Some(palette) = &self.palette else { return [index; 3] };
        let at = usize::from(index) * 3;
        palette.get(at..at + 3).map_or([0; 3], |rgb| [rgb[0], rgb[1], rgb[2]])
    }

    /// The colour of cleared ground: the clear colour where there is one; else that of "transparent", else the
    /// background; the first colour where the palette is too short for it.
    fn ground(&self) -> [u8; 3] {
        if let Some(color) = self.clear_color {
            return color;
        }
        let index = self.transparent.unwrap_or(self.background_index);
        let is_known =
            self.palette.as_ref().is_none_or(|palette| usize::from(index) * 3 + 3 <= palette.len());
        self.color(if is_known { index } else { 0 })
    }
}

/// What happens to the place of a frame before the next one is drawn.
enum Dispose {
    Fill([u8; 3]),
    Restore(Vec<[u8; 3]>),
}

/// The composed picture, and how to go on from it.
struct Canvas {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
    method: DisposalMethod,
    pending: Option<(Extent, Dispose)>,
    is_first: bool,
}

impl Canvas {
    fn new(width: u32, height: u32) -> Self {
        let (width, height) = (width as usize, height as usize);
        let rgb = vec![0; width * height * 3];
        Canvas { width, height, rgb, method: DisposalMethod::Any, pending: None, is_first: true }
    }

    fn draw(&mut self, stroke: &Stroke, indices: &[u8]) {
        if self.is_first {
            let first = || stroke.color(stroke.transparent.unwrap_or(0));
            let color = stroke.clear_color.unwrap_or_else(first);
            self.rgb.as_chunks_mut().0.fill(color);
        }
        self.dispose();
        // A frame that doesn't say how it ends goes on as the one before it.
        if stroke.dispose != DisposalMethod::Any {
            self.method = stroke.dispose;
        }
        self.pending = self.disposal(stroke).map(|dispose| (stroke.extent, dispose));
        for (at, pixel) in self.places(stroke.extent) {
            // Of the first frame the transparent pixels show as well, once alpha is dropped.
            if self.is_first || stroke.transparent != Some(indices[at]) {
                self.rgb[pixel..pixel + 3].copy_from_slice(&stroke.color(indices[at]));
            }
        }
        self.is_first = false;
    }

    fn disposal(&self, stroke: &Stroke) -> Option<Dispose> {
        match self.method {
            DisposalMethod::Any | DisposalMethod::Keep => None,
            DisposalMethod::Background => Some(Dispose::Fill(stroke.ground())),
            DisposalMethod::Previous if self.is_first => {
                stroke.transparent.map(|index| Dispose::Fill(stroke.color(index)))
            }
            DisposalMethod::Previous => {
                let pixels = self.places(stroke.extent);
                Some(Dispose::Restore(
                    pixels.map(|(_, at)| [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]).collect(),
                ))
            }
        }
    }

    fn dispose(&mut self) {
        let Some((extent, dispose)) = self.pending.take() else { return };
        for (order, (_, pixel)) in self.places(extent).enumerate() {
            let color = match &dispose {
                Dispose::Fill(color) => *color,
                Dispose::Restore(colors) => colors[order],
            };
            self.rgb[pixel..pixel + 3].copy_from_slice(&color);
        }
    }

    /// For each pixel of a frame that lies on the canvas: its place in the frame, and its first byte here.
    fn places(&self, extent: Extent) -> impl Iterator<Item = (usize, usize)> + use<> {
        let canvas_width = self.width;
        let columns = extent.width.min(self.width.saturating_sub(extent.left));
        let rows = extent.height.min(self.height.saturating_sub(extent.top));
        (0..rows).flat_map(move |y| {
            let (frame_row, canvas_row) = (y * extent.width, (y + extent.top) * canvas_width + extent.left);
            (0..columns).map(move |x| (frame_row + x, (canvas_row + x) * 3))
        })
    }
}
