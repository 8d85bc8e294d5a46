//! Files for the tests, and the loads that they share.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::codecs::webp::WebPEncoder;
use image::{DynamicImage, ImageFormat, Rgba, RgbaImage};
use rzen_core::{Media, Part, Picture, VideoSource};
use rzen_data::{LoadError, LoadOptions, Loader};
use tempfile::TempDir;

/// A folder with files in it, deleted at the end.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

pub fn load_image(path: &Path, options: &LoadOptions) -> Result<Picture, LoadError> {
    match Loader::new(options.clone()).load_part(&Part::Image(path.into()))? {
        Media::Image(picture) => Ok(picture),
        other => panic!("{other:?} is no picture"),
    }
}

pub fn load_video(path: &Path, options: &LoadOptions) -> Result<Vec<Picture>, LoadError> {
    match Loader::new(options.clone()).load_part(&Part::Video(VideoSource::File(path.into())))? {
        Media::Frames(frames) => Ok(frames),
        other => panic!("{other:?} is no clip"),
    }
}

/// Checks that a message names everything it should.
pub fn check_message(error: &impl std::fmt::Display, expected: &[&str]) {
    let message = error.to_string();
    for part in expected {
        assert!(message.contains(part), "`{message}` doesn't say `{part}`");
    }
}

pub fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A picture in which every pixel differs from its neighbours, also in alpha.
pub fn gradient(width: u32, height: u32) -> RgbaImage {
    RgbaImage::from_fn(width, height, |x, y| {
        Rgba([(x * 7) as u8, (y * 11) as u8, (x * 3 + y * 5) as u8, (x + y) as u8])
    })
}

#[derive(Clone)]
pub struct GifFrame {
    pub left: u16,
    pub top: u16,
    pub width: u16,
    pub height: u16,
    pub indices: Vec<u8>,
    pub transparent: Option<u8>,
    pub dispose: gif::DisposalMethod,
}

impl GifFrame {
    pub fn full(width: u16, height: u16, index: u8) -> Self {
        let indices = vec![index; usize::from(width) * usize::from(height)];
        let dispose = gif::DisposalMethod::Keep;
        GifFrame { left: 0, top: 0, width, height, indices, transparent: None, dispose }
    }
}

/// A GIF file with one palette for all frames.
pub fn gif(width: u16, height: u16, palette: &[u8], frames: &[GifFrame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = gif::Encoder::new(&mut bytes, width, height, palette).unwrap();
    for frame in frames {
        let frame = gif::Frame {
            left: frame.left,
            top: frame.top,
            width: frame.width,
            height: frame.height,
            buffer: frame.indices.clone().into(),
            transparent: frame.transparent,
            dispose: frame.dispose,
            delay: 10,
            ..gif::Frame::default()
        };
        encoder.write_frame(&frame).unwrap();
    }
    drop(encoder);
    bytes
}

pub struct WebpFrame {
    pub left: u32,
    pub top: u32,
    pub image: RgbaImage,
    pub blends: bool,
    pub clears: bool,
}

impl WebpFrame {
    pub fn full(image: RgbaImage) -> Self {
        WebpFrame { left: 0, top: 0, image, blends: false, clears: false }
    }
}

/// An animated WebP file of lossless frames.
pub fn webp(width: u32, height: u32, frames: &[WebpFrame]) -> Vec<u8> {
    let number3 = |number: u32| number.to_le_bytes()[..3].to_vec();
    let chunk = |kind: &[u8], data: &[u8]| {
        let mut chunk = [kind, &(data.len() as u32).to_le_bytes(), data].concat();
        chunk.resize(chunk.len().next_multiple_of(2), 0);
        chunk
    };
    let head = [vec![0x12, 0, 0, 0], number3(width - 1), number3(height - 1)].concat();
    let mut body = [&b"WEBP"[..], &chunk(b"VP8X", &head), &chunk(b"ANIM", &[0, 0, 0, 0, 0, 0])].concat();
    for frame in frames {
        let image = &frame.image;
        let mut still = Vec::new();
        WebPEncoder::new_lossless(&mut still)
            .encode(image, image.width(), image.height(), image::ExtendedColorType::Rgba8)
            .unwrap();
        let flags = u8::from(!frame.blends) << 1 | u8::from(frame.clears);
        let data = [
            number3(frame.left / 2),
            number3(frame.top / 2),
            number3(image.width() - 1),
            number3(image.height() - 1),
            number3(100),
            vec![flags],
            // What follows the RIFF header of a simple lossless file is its one chunk.
            still[12..].to_vec(),
        ];
        body.extend(chunk(b"ANMF", &data.concat()));
    }
    chunk(b"RIFF", &body)
}

/// A PDF of square pages, each filled with its colour, `side` points wide.
pub fn pdf(side: f32, colors: &[&str]) -> Vec<u8> {
    let kids: Vec<_> = (0..colors.len()).map(|page| format!("{} 0 R", 3 + page * 2)).collect();
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        format!("<< /Type /Pages /Kids [{}] /Count {} >>", kids.join(" "), colors.len()),
    ];
    for (page, color) in colors.iter().enumerate() {
        let content = format!("{color} rg 0 0 {side} {side} re f");
        objects.push(format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {side} {side}] /Contents {} 0 R >>",
            4 + page * 2
        ));
        objects.push(format!("<< /Length {} >>\nstream\n{content}\nendstream", content.len()));
    }
    pdf_file(&objects, "")
}

/// Numbers objects from 1 and adds the table of their places.
pub fn pdf_file(objects: &[String], trailer: &str) -> Vec<u8> {
    let mut file = "%PDF-1.4\n".to_owned();
    let mut table = format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
    for (index, object) in objects.iter().enumerate() {
        table += &format!("{:010} 00000 n \n", file.len());
        file += &format!("{} 0 obj\n{object}\nendobj\n", index + 1);
    }
    let start = file.len();
    let size = objects.len() + 1;
    file += &format!("{table}trailer\n<< /Size {size} /Root 1 0 R {trailer} >>\nstartxref\n{start}\n%%EOF\n");
    file.into_bytes()
}
