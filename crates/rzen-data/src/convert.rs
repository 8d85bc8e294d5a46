//! Decoded pixels to RGB, as Pillow's `convert("RGB")`.

use image::DynamicImage;
use rzen_core::Picture;

/// Copies grey, drops alpha without blending, and keeps the high byte of 16-bit channels.
///
/// Unlike Pillow, 16-bit grey is shifted too: Pillow clips it at 255, which leaves nearly all white.
pub(crate) fn to_picture(image: DynamicImage) -> Picture {
    let (width, height) = (image.width(), image.height());
    let rgb = match image {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageRgba8(image) => without_alpha(&image),
        DynamicImage::ImageLuma8(image) => image.iter().flat_map(|grey| [*grey; 3]).collect(),
        DynamicImage::ImageLumaA8(image) => image.chunks_exact(2).flat_map(|pixel| [pixel[0]; 3]).collect(),
        DynamicImage::ImageLuma16(image) => image.iter().flat_map(|grey| [high(*grey); 3]).collect(),
        DynamicImage::ImageLumaA16(image) => {
            image.chunks_exact(2).flat_map(|pixel| [high(pixel[0]); 3]).collect()
        }
        DynamicImage::ImageRgb16(image) => image.iter().map(|channel| high(*channel)).collect(),
        DynamicImage::ImageRgba16(image) => {
            image.chunks_exact(4).flat_map(|pixel| [high(pixel[0]), high(pixel[1]), high(pixel[2])]).collect()
        }
        other => other.into_rgb8().into_raw(),
    };
    Picture::new(width, height, rgb)
}

/// The colours of RGBA bytes, whatever their alpha.
pub(crate) fn without_alpha(rgba: &[u8]) -> Vec<u8> {
    rgba.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
}

fn high(channel: u16) -> u8 {
    (channel >> 8) as u8
}
