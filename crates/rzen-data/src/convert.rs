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
        DynamicImage::ImageLumaA8(image) => {
            let rgba = image.chunks_exact(2).flat_map(|pixel| [pixel[0], pixel[0], pixel[0], pixel[1]]);
            flatten(&rgba.collect::<Vec<_>>(), background)
        }
        DynamicImage::ImageLuma16(image) => image.iter().flat_map(|grey| [high(*grey); 3]).collect(),
        DynamicImage::ImageLumaA16(image) => {
            let bytes = image.chunks_exact(2).map(|pixel| [high(pixel[0]), high(pixel[1])]);
            flatten(
                &bytes.flat_map(|[grey, alpha]| [grey, grey, grey, alpha]).collect::<Vec<_>>(),
                background,
            )
        }
        DynamicImage::ImageRgb16(image) => image.iter().map(|channel| high(*channel)).collect(),
        DynamicImage::ImageRgba16(image) => {
            flatten(&image.iter().map(|channel| high(*channel)).collect::<Vec<_>>(), background)
        }
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
    pixels
        .flat_map(|[r, g, b, a]| {
            let [below_r, below_g, below_b] = background;
            [blend(*r, below_r, *a), blend(*g, below_g, *a), blend(*b, below_b, *a)]
        })
        .collect()
}

fn high(channel: u16) -> u8 {
    (channel >> 8) as u8
}
