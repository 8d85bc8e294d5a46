//! Decoded pixels to RGB, as Pillow's `convert("RGB")`.

use image::DynamicImage;
use rzen_core::Picture;

/// Copies grey, keeps the high byte of 16-bit channels, and drops alpha without blending where there is no
/// `background`.
///
/// Unlike Pillow, 16-bit grey is shifted too: Pillow clips it at 255, which leaves nearly all white.
pub(crate) fn to_picture(image: DynamicImage, background: Option<[u8; 3]>) -> Picture {
    let (width, height) = (image.width(), image.height());
    let rgb = match image {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageRgba8(image) => flatten(&image, background),
        DynamicImage::ImageLuma8(image) => image.iter().flat_map(|grey| [*grey; 3]).collect(),
        DynamicImage::ImageLumaA8(image) => flatten(&spread_grey(&image), background),
        DynamicImage::ImageLuma16(image) => image.iter().flat_map(|grey| [high(*grey); 3]).collect(),
        DynamicImage::ImageLumaA16(image) => flatten(&spread_grey(&high_bytes(&image)), background),
        DynamicImage::ImageRgb16(image) => high_bytes(&image),
        DynamicImage::ImageRgba16(image) => flatten(&high_bytes(&image), background),
        other => other.into_rgb8().into_raw(),
    };
    Picture::new(width, height, rgb)
}

/// The colours of RGBA bytes on a background; without one, whatever their alpha.
pub(crate) fn flatten(rgba: &[u8], background: Option<[u8; 3]>) -> Vec<u8> {
    let pixels = rgba.as_chunks::<4>().0.iter();
    let Some(background) = background else {
        return pixels.flat_map(|[red, green, blue, _]| [*red, *green, *blue]).collect();
    };
    let blend = |color: u8, below: u8, alpha: u8| {
        let sum = u32::from(color) * u32::from(alpha) + u32::from(below) * u32::from(255 - alpha);
        ((sum + 127) / 255) as u8
    };
    pixels.flat_map(|pixel| [0, 1, 2].map(|i| blend(pixel[i], background[i], pixel[3]))).collect()
}

/// Grey with alpha as RGBA.
fn spread_grey(pixels: &[u8]) -> Vec<u8> {
    pixels.as_chunks().0.iter().flat_map(|[grey, alpha]| [*grey, *grey, *grey, *alpha]).collect()
}

fn high_bytes(channels: &[u16]) -> Vec<u8> {
    channels.iter().map(|channel| high(*channel)).collect()
}

fn high(channel: u16) -> u8 {
    (channel >> 8) as u8
}
