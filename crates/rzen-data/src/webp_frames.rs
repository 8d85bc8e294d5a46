//! WebP animations, composed as libwebp does (which is what Pillow shows).
//!
//! `image` decodes the frames but ignores "dispose to background" unless told a colour, and rounds
//! its blending differently; so the container is read here, each frame is handed to `image` as a
//! still picture, and the frames are put together by libwebp's rules (`anim_decode.c`).

use std::io::Cursor;
use std::path::Path;
use std::time::Instant;

use image::codecs::webp::WebPDecoder;
use image::{ColorType, ImageDecoder};
use rzen_core::Picture;

use crate::convert::flatten;
use crate::{LoadError, LoadOptions};

/// A WebP animation whose container has been read.
pub(crate) struct Webp<'a> {
    path: &'a Path,
    options: &'a LoadOptions,
    pub width: u32,
    pub height: u32,
    frames: Vec<Frame<'a>>,
}

struct Frame<'a> {
    left: usize,
    top: usize,
    width: u32,
    height: u32,
    /// Whether it is laid over what is there, rather than put in its place.
    blends: bool,
    /// Whether its place is cleared before the next frame.
    clears: bool,
    has_alpha: bool,
    /// The chunks that make the picture.
    chunks: Vec<Chunk<'a>>,
}

#[derive(Clone, Copy)]
struct Chunk<'a> {
    kind: [u8; 4],
    data: &'a [u8],
}

impl<'a> Webp<'a> {
    /// Reads the container; `None` for a still picture.
    pub fn open(
        path: &'a Path,
        bytes: &'a [u8],
        options: &'a LoadOptions,
    ) -> Result<Option<Self>, LoadError> {
        const ANIMATION: u8 = 0x02;
        let promised =
            bytes.get(4..8).map_or(0, |size| u32::from_le_bytes([size[0], size[1], size[2], size[3]]));
        if promised as usize > bytes.len().saturating_sub(8) {
            return Err(truncated(
                path,
                format!("it has {} of {} bytes", bytes.len(), u64::from(promised) + 8),
            ));
        }
        let head = bytes.get(12..).and_then(|body| chunk(body).ok());
        let Some((Chunk { kind: [b'V', b'P', b'8', b'X'], data }, _)) = head else { return Ok(None) };
        if data.len() < 10 || data[0] & ANIMATION == 0 {
            return Ok(None);
        }
        let (width, height) = (number3(&data[4..]) + 1, number3(&data[7..]) + 1);
        options.check_size(path, width, height)?;
        let frames = chunks(&bytes[12..])
            .and_then(|all| all.iter().filter(|chunk| &chunk.kind == b"ANMF").map(frame).collect())
            .map_err(|found| truncated(path, found))?;
        let webp = Webp { path, options, width, height, frames };
        webp.check()?;
        Ok(Some(webp))
    }

    /// How many frames there are; at least 1.
    pub fn num_frames(&self) -> usize {
        self.frames.len()
    }

    /// The first frame.
    pub fn first(&self) -> Result<Picture, LoadError> {
        Ok(self.frames(&[0], None)?.remove(0))
    }

    /// The composed frames with the given places, which ascend; an error after the deadline.
    pub fn frames(&self, wanted: &[usize], deadline: Option<Instant>) -> Result<Vec<Picture>, LoadError> {
        let mut canvas = Canvas::new(self.width, self.height);
        let mut pictures = Vec::with_capacity(wanted.len());
        let needed = wanted.last().map_or(0, |last| last + 1);
        for (place, frame) in self.frames.iter().enumerate().take(needed) {
            self.options.check_time(self.path, deadline)?;
            canvas.draw(frame, &self.decode(frame)?);
            if wanted.contains(&place) {
                let rgb = flatten(&canvas.rgba, self.options.background);
                pictures.push(Picture::new(self.width, self.height, rgb));
            }
            canvas.dispose(frame);
        }
        Ok(pictures)
    }

    fn check(&self) -> Result<(), LoadError> {
        if self.frames.is_empty() {
            return Err(truncated(self.path, "it holds no frame".into()));
        }
        let fits = |frame: &Frame| {
            frame.left + frame.width as usize <= self.width as usize
                && frame.top + frame.height as usize <= self.height as usize
        };
        match self.frames.iter().position(|frame| !fits(frame)) {
            Some(place) => Err(self.damaged(format!("frame {place} lies outside the canvas").into())),
            None => Ok(()),
        }
    }

    /// The RGBA bytes of a frame by itself.
    fn decode(&self, frame: &Frame) -> Result<Vec<u8>, LoadError> {
        let decoder =
            WebPDecoder::new(Cursor::new(frame.still())).map_err(|error| self.damaged(error.into()))?;
        let size = decoder.dimensions();
        if size != (frame.width, frame.height) {
            let found = format!("a frame is {size:?}, announced as {:?}", (frame.width, frame.height));
            return Err(self.damaged(found.into()));
        }
        let opaque = decoder.color_type() == ColorType::Rgb8;
        let mut pixels = vec![0; decoder.total_bytes() as usize];
        decoder.read_image(&mut pixels).map_err(|error| self.damaged(error.into()))?;
        Ok(match opaque {
            true => pixels.chunks_exact(3).flat_map(|rgb| [rgb[0], rgb[1], rgb[2], 255]).collect(),
            false => pixels,
        })
    }

    fn damaged(&self, source: Box<dyn std::error::Error + Send + Sync>) -> LoadError {
        LoadError::Picture { path: self.path.to_owned(), format: "WebP", source }
    }
}

impl Frame<'_> {
    /// A WebP file of this frame alone.
    fn still(&self) -> Vec<u8> {
        const ALPHA: u8 = 0x10;
        let mut body = b"WEBP".to_vec();
        if self.chunks.len() > 1 {
            let mut head = [ALPHA, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            head[4..7].copy_from_slice(&(self.width - 1).to_le_bytes()[..3]);
            head[7..10].copy_from_slice(&(self.height - 1).to_le_bytes()[..3]);
            push_chunk(&mut body, Chunk { kind: *b"VP8X", data: &head });
        }
        self.chunks.iter().for_each(|chunk| push_chunk(&mut body, *chunk));
        let mut file = b"RIFF".to_vec();
        file.extend((body.len() as u32).to_le_bytes());
        file.extend(body);
        file
    }

    fn covers(&self, canvas: &Canvas) -> bool {
        (self.width as usize, self.height as usize) == (canvas.width, canvas.height)
    }
}

/// The picture so far, RGBA, not premultiplied.
struct Canvas {
    width: usize,
    height: usize,
    /// What is shown.
    rgba: Vec<u8>,
    /// What the next frame is laid over.
    below: Vec<u8>,
    /// The frame before, if any: whether it was a key frame, covered all, and where it was cleared.
    previous: Option<Previous>,
}

struct Previous {
    is_key: bool,
    covers: bool,
    cleared: Option<[usize; 4]>,
}

impl Canvas {
    fn new(width: u32, height: u32) -> Self {
        let bytes = width as usize * height as usize * 4;
        let (rgba, below) = (vec![0; bytes], vec![0; bytes]);
        Canvas { width: width as usize, height: height as usize, rgba, below, previous: None }
    }

    /// Whether nothing of what was before shows through `frame`.
    fn is_key(&self, frame: &Frame) -> bool {
        let Some(previous) = &self.previous else { return true };
        let hides_all = (!frame.has_alpha || !frame.blends) && frame.covers(self);
        hides_all || (previous.cleared.is_some() && (previous.covers || previous.is_key))
    }

    fn draw(&mut self, frame: &Frame, pixels: &[u8]) {
        let is_key = self.is_key(frame);
        match is_key {
            true => self.rgba.fill(0),
            false => self.rgba.copy_from_slice(&self.below),
        }
        let cleared = self.previous.as_ref().and_then(|previous| previous.cleared);
        for y in 0..frame.height as usize {
            for x in 0..frame.width as usize {
                let (row, column) = (y + frame.top, x + frame.left);
                let at = (row * self.width + column) * 4;
                let source = &pixels[(y * frame.width as usize + x) * 4..][..4];
                let source = [source[0], source[1], source[2], source[3]];
                // Colours of clear pixels are kept where the ground was cleared: libwebp doesn't blend there.
                let on_cleared = cleared.is_some_and(|[left, top, right, bottom]| {
                    (left..right).contains(&column) && (top..bottom).contains(&row)
                });
                let color = match is_key || !frame.blends || on_cleared || source[3] == 255 {
                    true => source,
                    false => blend(
                        source,
                        [self.below[at], self.below[at + 1], self.below[at + 2], self.below[at + 3]],
                    ),
                };
                self.rgba[at..at + 4].copy_from_slice(&color);
            }
        }
        self.previous = Some(Previous { is_key, covers: frame.covers(self), cleared: None });
    }

    fn dispose(&mut self, frame: &Frame) {
        self.below.copy_from_slice(&self.rgba);
        if !frame.clears {
            return;
        }
        let (right, bottom) = (frame.left + frame.width as usize, frame.top + frame.height as usize);
        for row in frame.top..bottom {
            self.below[(row * self.width + frame.left) * 4..(row * self.width + right) * 4].fill(0);
        }
        if let Some(previous) = &mut self.previous {
            previous.cleared = Some([frame.left, frame.top, right, bottom]);
        }
    }
}

/// Lays one pixel over another in libwebp's integer arithmetic (`BlendPixelNonPremult`).
fn blend(source: [u8; 4], below: [u8; 4]) -> [u8; 4] {
    let alpha = u32::from(source[3]);
    if alpha == 0 {
        return below;
    }
    let below_alpha = (u32::from(below[3]) * (256 - alpha)) >> 8;
    let sum = alpha + below_alpha;
    let scale = (1 << 24) / sum;
    let channel = |i: usize| {
        let weighted = u32::from(source[i]) * alpha + u32::from(below[i]) * below_alpha;
        ((weighted * scale) >> 24) as u8
    };
    [channel(0), channel(1), channel(2), sum as u8]
}

fn frame<'a>(chunk: &Chunk<'a>) -> Result<Frame<'a>, String> {
    let data = chunk.data;
    if data.len() < 16 {
        return Err(format!("a frame header has {} bytes, expected 16", data.len()));
    }
    let is_picture = |chunk: &Chunk| matches!(&chunk.kind, b"ALPH" | b"VP8 " | b"VP8L");
    let parts: Vec<_> = chunks(&data[16..])?.into_iter().filter(is_picture).collect();
    Ok(Frame {
        left: number3(data) as usize * 2,
        top: number3(&data[3..]) as usize * 2,
        width: number3(&data[6..]) + 1,
        height: number3(&data[9..]) + 1,
        blends: data[15] & 2 == 0,
        clears: data[15] & 1 != 0,
        has_alpha: parts.iter().any(has_alpha),
        chunks: parts,
    })
}

/// Lossless data says in its header whether it has alpha.
fn has_alpha(chunk: &Chunk) -> bool {
    const ALPHA_BIT: u8 = 0x10;
    match &chunk.kind {
        b"ALPH" => true,
        b"VP8L" => chunk.data.get(4).is_some_and(|byte| byte & ALPHA_BIT != 0),
        _ => false,
    }
}

fn chunks(mut bytes: &[u8]) -> Result<Vec<Chunk<'_>>, String> {
    let mut all = Vec::new();
    // A chunk header has 8 bytes; fewer are padding.
    while bytes.len() >= 8 {
        let (chunk, rest) = chunk(bytes)?;
        all.push(chunk);
        bytes = rest;
    }
    Ok(all)
}

fn chunk(bytes: &[u8]) -> Result<(Chunk<'_>, &[u8]), String> {
    let (head, body) = bytes.split_at_checked(8).ok_or("a chunk header is cut off")?;
    let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    let data = body
        .get(..length)
        .ok_or_else(|| format!("a chunk of {length} bytes stands before the last {} bytes", body.len()))?;
    let rest = body.get(length + length % 2..).unwrap_or_default();
    Ok((Chunk { kind: [head[0], head[1], head[2], head[3]], data }, rest))
}

fn push_chunk(file: &mut Vec<u8>, chunk: Chunk) {
    file.extend(chunk.kind);
    file.extend((chunk.data.len() as u32).to_le_bytes());
    file.extend(chunk.data);
    if chunk.data.len() % 2 == 1 {
        file.push(0);
    }
}

fn number3(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0])
}

fn truncated(path: &Path, found: String) -> LoadError {
    LoadError::Truncated { path: path.to_owned(), format: "WebP", found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blends_like_libwebp() {
        assert_eq!(blend([9, 9, 9, 0], [1, 2, 3, 4]), [1, 2, 3, 4]);
        assert_eq!(blend([200, 100, 0, 100], [0, 0, 0, 0]), [199, 99, 0, 100]);
        assert_eq!(blend([255, 0, 0, 128], [0, 0, 255, 255]), [127, 0, 126, 255]);
    }
}
