//! Single pictures: formats, modes, odd sizes and broken files.

use std::fs;
use std::path::Path;

use image::{DynamicImage, ImageFormat, ImageFormat::*};
use md5::{Digest, Md5};
use rzen_core::Item;
use rzen_data::{LoadError, LoadOptions, Loader};
use serde_json::Value;

use crate::made::{self, Folder, WebpFrame, check_message, encode, gradient, load_image, load_video};

const FORMATS: [ImageFormat; 6] = [Png, Jpeg, WebP, Gif, Bmp, Tiff];

fn rgb(image: &DynamicImage) -> Vec<u8> {
    // Alpha must be dropped without blending: the colours under clear pixels stay.
    image.to_rgba8().pixels().flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
}

#[test]
fn lossless_formats_keep_every_color_and_drop_alpha() {
    let folder = Folder::new();
    let rgba = DynamicImage::from(gradient(13, 9));
    let modes = [rgba.clone(), rgba.to_rgb8().into(), rgba.to_luma8().into(), rgba.to_luma_alpha8().into()];
    for (index, mode) in modes.iter().enumerate() {
        for format in [Png, WebP, Bmp, Tiff] {
            if format == Tiff && matches!(mode, DynamicImage::ImageLumaA8(_)) {
                continue; // the encoder doesn't write grey with alpha
            }
            // The name says nothing true about the format.
            let path = folder.write(&format!("{index}.{format:?}.jpg"), encode(mode, format));
            let picture = load_image(&path, &LoadOptions::default()).unwrap();
            assert_eq!((picture.width(), picture.height()), (13, 9));
            assert_eq!(picture.rgb(), rgb(mode), "mode {index} as {format:?}");
        }
    }
}

#[test]
fn a_background_shows_through_transparent_pixels() {
    let folder = Folder::new();
    let white = LoadOptions { background: Some([255; 3]), ..Default::default() };
    let rgba = image::RgbaImage::from_fn(3, 1, |x, _| image::Rgba([200, 100, 50, [0, 255, 128][x as usize]]));
    let expected = [[255, 255, 255], [200, 100, 50], [227, 177, 152]].concat();
    for format in [Png, WebP, Bmp, Tiff] {
        let path = folder.write("clear.png", encode(&rgba.clone().into(), format));
        assert_eq!(load_image(&path, &white).unwrap().rgb(), expected, "{format:?}");
    }
    let grey = DynamicImage::from(rgba.clone()).to_luma_alpha8();
    let level = grey.as_raw()[2];
    let path = folder.write("grey.png", encode(&grey.into(), Png));
    assert_eq!(load_image(&path, &white).unwrap().rgb()[..6], [[255; 3], [level; 3]].concat());
    let deep =
        image::ImageBuffer::from_fn(2, 1, |x, _| image::Rgba([0xC8FFu16, 0x6400, 0x32FF, 0xFFFF * x as u16]));
    let path = folder.write("deep.png", encode(&DynamicImage::ImageRgba16(deep), Png));
    assert_eq!(load_image(&path, &white).unwrap().rgb(), [255, 255, 255, 200, 100, 50]);
    let path = folder.write("moving.webp", made::webp(3, 1, &[WebpFrame::full(rgba)]));
    assert_eq!(load_video(&path, &white).unwrap()[0].rgb(), expected);
    // What has no alpha stays as it is.
    let plain = DynamicImage::from(gradient(5, 4)).to_rgb8();
    let path = folder.write("plain.png", encode(&plain.clone().into(), Png));
    assert_eq!(load_image(&path, &white).unwrap().rgb(), plain.as_raw());
}

#[test]
fn sixteen_bits_keep_the_high_byte() {
    let folder = Folder::new();
    let color = image::ImageBuffer::from_fn(4, 1, |x, _| image::Rgb([0x1234u16 * x as u16, 0xFFFF, 0x00FF]));
    let path = folder.write("rgb.png", encode(&DynamicImage::ImageRgb16(color), Png));
    let expected = [[0x00, 0xFF, 0x00], [0x12, 0xFF, 0x00], [0x24, 0xFF, 0x00], [0x36, 0xFF, 0x00]];
    assert_eq!(load_image(&path, &LoadOptions::default()).unwrap().rgb(), expected.concat());

    let grey = image::ImageBuffer::from_fn(2, 1, |x, _| image::Luma([[0x7FFFu16, 0x0180][x as usize]]));
    let path = folder.write("grey.png", encode(&DynamicImage::ImageLuma16(grey), Png));
    assert_eq!(load_image(&path, &LoadOptions::default()).unwrap().rgb(), [0x7F, 0x7F, 0x7F, 1, 1, 1]);
}

/// `fixtures/jpeg/make.py` draws the files and asks Pillow.
#[test]
fn golden_jpegs_have_the_numbers_of_pillow() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/jpeg");
    let expected: Value = serde_json::from_slice(&fs::read(folder.join("pillow.json")).unwrap()).unwrap();
    let expected = expected["pictures"].as_object().unwrap();
    assert!(expected.len() > 10);
    for (name, expected) in expected {
        let picture = load_image(&folder.join(name).with_extension("jpg"), &LoadOptions::default()).unwrap();
        assert_eq!((picture.width(), picture.height()), sides(expected), "{name}");
        let md5: String = Md5::digest(picture.rgb()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(expected["md5"], md5, "{name}");
    }
}

fn sides(picture: &Value) -> (u32, u32) {
    let [width, height] = ["width", "height"].map(|side| picture[side].as_u64().unwrap() as u32);
    (width, height)
}

#[test]
fn a_jpeg_that_breaks_in_the_middle_is_refused() {
    let folder = Folder::new();
    let mut bytes = encode(&DynamicImage::from(gradient(64, 64)).to_rgb8().into(), Jpeg);
    let scan = bytes.windows(2).position(|marker| marker == [0xFF, 0xDA]).unwrap() + 14;
    let middle = scan + (bytes.len() - scan) / 2;
    // Sixteen ones begin no code.
    bytes.splice(middle..middle + 16, [0xFF, 0x00].repeat(8));
    let error = load_image(&folder.write("broken.jpg", bytes), &LoadOptions::default()).unwrap_err();
    check_message(&error, &["broken.jpg", "damaged JPEG", "Huffman", "again"]);
}

#[test]
fn exif_turns_only_with_the_switch() {
    let folder = Folder::new();
    let mut bytes = encode(&gradient(24, 16).into(), Png);
    assert_eq!(&bytes[..4], b"\x89PNG");
    let jpeg = encode(&DynamicImage::from(gradient(24, 16)).to_rgb8().into(), Jpeg);
    // Orientation 6 (tag 0x0112): a quarter turn clockwise.
    let tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let exif = [&b"Exif\0\0"[..], tiff].concat();
    let length = (exif.len() as u16 + 2).to_be_bytes();
    bytes = [&jpeg[..2], &[0xFF, 0xE1], &length, &exif, &jpeg[2..]].concat();
    let path = folder.write("turned.jpg", bytes);
    let size = |exif_orientation| {
        let picture = load_image(&path, &LoadOptions { exif_orientation, ..Default::default() }).unwrap();
        (picture.width(), picture.height())
    };
    assert_eq!(size(false), (24, 16));
    assert_eq!(size(true), (16, 24));
}

/// A grey TIFF of six bytes of pixels.
fn tiff(width: u32, height: u32, orientation: u32) -> Vec<u8> {
    const SHORT: u16 = 3;
    const LONG: u16 = 4;
    let entries = [
        (256u16, LONG, width),
        (257, LONG, height),
        (258, SHORT, 8), // bits
        (259, SHORT, 1), // not packed
        (262, SHORT, 1), // black is 0
        (273, LONG, 8),  // where the pixels are
        (274, SHORT, orientation),
        (277, SHORT, 1), // channels
        (278, LONG, height),
        (279, LONG, 6), // bytes
    ];
    let mut bytes = b"II*\0\x10\0\0\0\x01\x02\x03\x04\x05\x06\0\0".to_vec();
    bytes.extend((entries.len() as u16).to_le_bytes());
    for (tag, kind, value) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 4]);
    bytes
}

/// A grey PNG with the same pixels, and an EXIF tag.
fn exif_png(orientation: u8) -> Vec<u8> {
    let grey = image::GrayImage::from_raw(3, 2, vec![1, 2, 3, 4, 5, 6]).unwrap();
    let png = encode(&grey.into(), Png);
    let mut exif = b"eXIfMM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0".to_vec();
    exif[4 + 19] = orientation;
    let length = (exif.len() as u32 - 4).to_be_bytes();
    let checksum = crc32(&exif).to_be_bytes();
    [&png[..33], &length, &exif, &checksum, &png[33..]].concat()
}

#[test]
fn all_orientations_are_those_of_pillow() {
    let folder = Folder::new();
    let expected = [
        (3, [1, 2, 3, 4, 5, 6]),
        (3, [3, 2, 1, 6, 5, 4]),
        (3, [6, 5, 4, 3, 2, 1]),
        (3, [4, 5, 6, 1, 2, 3]),
        (2, [1, 4, 2, 5, 3, 6]),
        (2, [4, 1, 5, 2, 6, 3]),
        (2, [6, 3, 5, 2, 4, 1]),
        (2, [3, 6, 2, 5, 1, 4]),
    ];
    for (orientation, (width, pixels)) in (1u8..).zip(expected) {
        let load = |name: &str, bytes: Vec<u8>, exif_orientation| {
            let options = LoadOptions { exif_orientation, ..Default::default() };
            let picture = load_image(&folder.write(name, bytes), &options).unwrap();
            (picture.width(), picture.rgb().iter().step_by(3).copied().collect::<Vec<_>>())
        };
        let turned = (width, pixels.to_vec());
        assert_eq!(load("a.png", exif_png(orientation), true), turned, "orientation {orientation}");
        assert_eq!(load("a.png", exif_png(orientation), false), (3, vec![1, 2, 3, 4, 5, 6]));
        // Pillow turns TIFF whether it is asked to or not.
        for switch in [true, false] {
            assert_eq!(load("a.tiff", tiff(3, 2, orientation.into()), switch), turned, "TIFF {orientation}");
        }
    }
}

#[test]
fn extreme_shapes_load() {
    let folder = Folder::new();
    for (width, height) in [(1, 1), (20_000, 3), (3, 20_000), (2_000, 10), (600, 1), (1, 2_001)] {
        for format in FORMATS {
            if format == WebP && width.max(height) > 16_383 {
                continue; // the format's own limit
            }
            let image = DynamicImage::from(gradient(width, height)).to_rgb8().into();
            let path = folder.write(&format!("{width}x{height}.{format:?}"), encode(&image, format));
            let picture = load_image(&path, &LoadOptions::default()).unwrap();
            assert_eq!((picture.width(), picture.height()), (width, height), "{format:?}");
        }
    }
}

#[test]
fn sizes_are_checked_before_decoding() {
    let folder = Folder::new();
    for format in FORMATS {
        let path =
            folder.write("large", encode(&DynamicImage::from(gradient(100, 50)).to_rgb8().into(), format));
        let check = |options: LoadOptions, option: &str| {
            for error in [load_image(&path, &options).unwrap_err(), load_video(&path, &options).unwrap_err()]
            {
                assert!(matches!(error, LoadError::TooLarge { .. }), "{format:?}: {error}");
                check_message(&error, &["large", "100 x 50 pixels", option]);
            }
        };
        check(LoadOptions { max_pixels: 4_999, ..Default::default() }, "max_pixels");
        check(LoadOptions { max_side: 99, ..Default::default() }, "max_side");
        load_image(&path, &LoadOptions { max_pixels: 5_000, max_side: 100, ..Default::default() }).unwrap();
    }
    let path = folder.write("long.png", vec![b'x'; 101]);
    let error = load_image(&path, &LoadOptions { max_file_bytes: 100, ..Default::default() }).unwrap_err();
    check_message(&error, &["long.png", "101 bytes", "100 bytes", "max_file_bytes"]);
}

/// Headers that promise gigapixels: refused by their size, without the memory.
#[test]
fn bombs_are_refused() {
    let folder = Folder::new();
    let side = 60_000u32;
    let mut png = encode(&gradient(2, 2).into(), Png);
    png[16..20].copy_from_slice(&side.to_be_bytes());
    png[20..24].copy_from_slice(&side.to_be_bytes());
    let crc = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    let mut bmp = encode(&DynamicImage::from(gradient(2, 2)).to_rgb8().into(), Bmp);
    bmp[18..22].copy_from_slice(&side.to_le_bytes());
    bmp[22..26].copy_from_slice(&side.to_le_bytes());
    let mut gif = encode(&gradient(2, 2).into(), Gif);
    gif[6..8].copy_from_slice(&(side as u16).to_le_bytes());
    gif[8..10].copy_from_slice(&(side as u16).to_le_bytes());
    let mut jpeg = encode(&DynamicImage::from(gradient(2, 2)).to_rgb8().into(), Jpeg);
    let frame = jpeg.windows(2).position(|marker| marker == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 7].copy_from_slice(&(side as u16).to_be_bytes());
    jpeg[frame + 7..frame + 9].copy_from_slice(&(side as u16).to_be_bytes());
    let tiff = tiff(side, side, 1);
    let mut webp = made::webp(2, 2, &[WebpFrame::full(gradient(2, 2))]);
    let canvas = webp.windows(4).position(|kind| kind == b"VP8X").unwrap() + 12;
    webp[canvas..canvas + 3].copy_from_slice(&(side - 1).to_le_bytes()[..3]);
    webp[canvas + 3..canvas + 6].copy_from_slice(&(side - 1).to_le_bytes()[..3]);
    for (name, bytes) in [
        ("bomb.png", png),
        ("bomb.bmp", bmp),
        ("bomb.gif", gif),
        ("bomb.jpg", jpeg),
        ("bomb.tiff", tiff),
        ("bomb.webp", webp),
    ] {
        let error = load_image(&folder.write(name, bytes), &LoadOptions::default()).unwrap_err();
        check_message(&error, &[name, "60000 x 60000 pixels", "178956970 pixels", "max_pixels"]);
    }
    // A still WebP has 14 bits for a side.
    let mut webp = encode(&gradient(2, 2).into(), WebP);
    let sides = webp.windows(4).position(|kind| kind == b"VP8L").unwrap() + 9;
    let alpha = webp[sides + 3] & 0xF0;
    webp[sides..sides + 4].copy_from_slice(&(16_382u32 | 16_382 << 14).to_le_bytes());
    webp[sides + 3] |= alpha;
    let error = load_image(&folder.write("still.webp", webp), &LoadOptions::default()).unwrap_err();
    check_message(&error, &["still.webp", "16383 x 16383 pixels", "max_pixels"]);
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn every_cut_of_a_jpeg_is_noticed() {
    let folder = Folder::new();
    let whole = encode(&DynamicImage::from(gradient(64, 64)).to_rgb8().into(), Jpeg);
    for length in 1..whole.len() {
        let error = load_image(&folder.write("cut.jpg", &whole[..length]), &LoadOptions::default());
        assert!(error.is_err(), "{length} of {} bytes were taken for a whole picture", whole.len());
    }
    let path = folder.write("cut.jpg", &whole[..whole.len() / 2]);
    let error = load_image(&path, &LoadOptions::default()).unwrap_err();
    check_message(&error, &["cut.jpg", "truncated JPEG", "no end-of-image marker", "again"]);
}

#[test]
fn cut_pictures_of_all_formats_are_refused() {
    let folder = Folder::new();
    for format in FORMATS {
        let whole = encode(&DynamicImage::from(gradient(64, 64)).to_rgb8().into(), format);
        for part in [0.1, 0.5, 0.9] {
            let cut = &whole[..(whole.len() as f64 * part) as usize];
            let path = folder.write("cut.picture", cut);
            let Err(error) = load_image(&path, &LoadOptions::default()) else {
                panic!("{part} of a {format:?} file was taken for a whole picture");
            };
            check_message(&error, &["cut.picture"]);
        }
    }
}

#[test]
fn damaged_bytes_never_break_the_program() {
    let folder = Folder::new();
    for format in FORMATS {
        let whole = encode(&DynamicImage::from(gradient(20, 20)).to_rgb8().into(), format);
        for at in 0..whole.len().min(400) {
            for value in [0x00, 0xFF, whole[at] ^ 0x10] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                // Either a picture or an error; a panic or an abort would fail the test.
                let _ = load_image(&folder.write("damaged", bytes), &small_limits());
            }
        }
    }
}

fn small_limits() -> LoadOptions {
    LoadOptions { max_pixels: 1_000_000, ..Default::default() }
}

#[test]
fn files_that_are_no_pictures_are_named() {
    let folder = Folder::new();
    let options = LoadOptions::default();
    check_message(&load_image(&folder.path().join("gone.png"), &options).unwrap_err(), &["gone.png", "path"]);
    check_message(&load_image(folder.path(), &options).unwrap_err(), &["a folder", "expected a file"]);
    let empty = folder.write("empty.png", "");
    check_message(&load_image(&empty, &options).unwrap_err(), &["empty.png", "0 bytes"]);
    let page = folder.write("page.png", "<!DOCTYPE html><html>");
    check_message(
        &load_image(&page, &options).unwrap_err(),
        &["page.png", "`<!DOCTYPE html><`", "expected PNG, JPEG, WebP, GIF, BMP or TIFF"],
    );
}

#[test]
fn items_load_in_order_under_the_root() {
    let folder = Folder::new();
    folder.write("a.png", encode(&gradient(5, 4).into(), Png));
    let loader = Loader::new(LoadOptions { root: folder.path().into(), ..Default::default() });
    let item: Item = serde_json::from_str(
        r#"{"content": [{"text": "before"}, {"image": "a.png"}, {"text": "after"}], "instruction": "Look."}"#,
    )
    .unwrap();
    let loaded = loader.load(&item).unwrap();
    assert_eq!(format!("{:?}", loaded.parts), r#"[Text("before"), Image(Picture(5x4)), Text("after")]"#);
    assert_eq!(loaded.instruction.as_deref(), Some("Look."));
    fn is_shareable<T: Send + Sync>(_: &T) {}
    is_shareable(&loader);
}
