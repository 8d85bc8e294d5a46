//! Clips that are pictures: GIF, WebP, stills and lists of frames.

use gif::DisposalMethod::{Background, Keep, Previous};
use image::{DynamicImage, ImageFormat, Rgba, RgbaImage};
use rzen_core::{Media, Part, Picture, VideoSource};
use rzen_data::{LoadError, LoadOptions, Loader, VideoDecoder};

use crate::made::{
    Folder, GifFrame, WebpFrame, check_message, encode, gif, gradient, load_image, load_video, webp,
};

const RED: [u8; 3] = [255, 0, 0];
const GREEN: [u8; 3] = [0, 255, 0];
const BLUE: [u8; 3] = [0, 0, 255];
/// The colour that the palette gives to "transparent".
const CLEAR: [u8; 3] = [9, 9, 9];

fn palette() -> Vec<u8> {
    [RED, GREEN, BLUE, CLEAR].concat()
}

fn pixel(picture: &Picture, x: u32, y: u32) -> [u8; 3] {
    let at = ((y * picture.width() + x) * 3) as usize;
    picture.rgb()[at..at + 3].try_into().unwrap()
}

/// A frame of one pixel on a canvas of 2 x 1, and what is left in the other one.
fn dot(left: u16, index: u8, dispose: gif::DisposalMethod) -> GifFrame {
    GifFrame { left, dispose, transparent: Some(3), ..GifFrame::full(1, 1, index) }
}

fn composed(frames: &[GifFrame]) -> Vec<[[u8; 3]; 2]> {
    composed_on(None, frames)
}

fn composed_on(background: Option<[u8; 3]>, frames: &[GifFrame]) -> Vec<[[u8; 3]; 2]> {
    let folder = Folder::new();
    let path = folder.write("dots.gif", gif(2, 1, &palette(), frames));
    let frames = load_video(&path, &LoadOptions { background, ..Default::default() }).unwrap();
    frames.iter().map(|frame| [pixel(frame, 0, 0), pixel(frame, 1, 0)]).collect()
}

#[test]
fn gif_frames_are_spread_evenly() {
    let folder = Folder::new();
    let grey: Vec<u8> = (0..=255).flat_map(|level| [level; 3]).collect();
    let frames: Vec<_> = (0..100).map(|index| GifFrame::full(6, 4, index)).collect();
    let path = folder.write("long.gif", gif(6, 4, &grey, &frames));
    let levels = |num_frames| {
        let frames = load_video(&path, &LoadOptions { num_frames, ..Default::default() }).unwrap();
        frames.iter().map(|frame| frame.rgb()[0]).collect::<Vec<_>>()
    };
    assert_eq!(levels(8), [0, 14, 28, 42, 56, 70, 84, 99]);
    assert_eq!(levels(1), [0]);
    assert_eq!(levels(1000), (0..100).collect::<Vec<_>>());
    assert_eq!(load_image(&path, &LoadOptions::default()).unwrap().rgb()[0], 0);
}

#[test]
fn gif_transparency_shows_what_lies_below() {
    let first = GifFrame { transparent: Some(3), indices: vec![3, 0], ..GifFrame::full(2, 1, 0) };
    // Once alpha is dropped, the first frame shows the palette's colour, as in Pillow.
    assert_eq!(composed(std::slice::from_ref(&first)), [[CLEAR, RED]]);
    assert_eq!(composed_on(Some(BLUE), &[first]), [[BLUE, RED]]);
    let over = [GifFrame::full(2, 1, 0), dot(0, 3, Keep), dot(1, 1, Keep)];
    assert_eq!(composed(&over), [[RED, RED], [RED, RED], [RED, GREEN]]);
}

#[test]
fn gif_disposal_is_that_of_pillow() {
    let background = [GifFrame::full(2, 1, 0), dot(0, 1, Background), dot(1, 2, Keep)];
    assert_eq!(composed(&background), [[RED, RED], [GREEN, RED], [CLEAR, BLUE]]);
    let white = Some([255; 3]);
    assert_eq!(composed_on(white, &background), [[RED, RED], [GREEN, RED], [[255; 3], BLUE]]);
    let previous = [GifFrame::full(2, 1, 0), dot(0, 1, Previous), dot(1, 2, Keep)];
    assert_eq!(composed(&previous), [[RED, RED], [GREEN, RED], [RED, BLUE]]);
}

#[test]
fn gif_frames_beside_the_canvas_are_cut() {
    let frames = [GifFrame::full(2, 1, 0), GifFrame { left: 1, ..GifFrame::full(5, 3, 1) }];
    assert_eq!(composed(&frames), [[RED, RED], [RED, GREEN]]);
}

#[test]
fn gif_without_its_trailer_is_whole_and_any_other_cut_is_not() {
    let folder = Folder::new();
    let frames: Vec<_> = (0..3).map(|index| GifFrame::full(8, 8, index)).collect();
    let whole = gif(8, 8, &palette(), &frames);
    let path = folder.write("a.gif", &whole[..whole.len() - 1]);
    assert_eq!(load_video(&path, &LoadOptions::default()).unwrap().len(), 3);
    let cut = folder.write("cut.gif", &whole[..whole.len() - 5]);
    let error = load_video(&cut, &LoadOptions::default()).unwrap_err();
    check_message(&error, &["cut.gif", "damaged GIF", "again"]);
}

fn webp_dot(left: u32, color: [u8; 4], blends: bool, clears: bool) -> WebpFrame {
    WebpFrame { left, top: 0, image: RgbaImage::from_pixel(2, 2, Rgba(color)), blends, clears }
}

#[test]
fn webp_frames_are_composed_as_in_libwebp() {
    let folder = Folder::new();
    let ground = |color| WebpFrame {
        image: RgbaImage::from_pixel(4, 2, Rgba(color)),
        ..webp_dot(0, color, true, false)
    };
    let frames = [
        ground([200, 0, 0, 255]),
        webp_dot(0, [0, 0, 100, 128], true, false),
        webp_dot(2, [0, 50, 0, 0], true, true),
        webp_dot(0, [0, 99, 0, 255], false, false),
        webp_dot(2, [7, 8, 9, 0], false, false),
    ];
    let path = folder.write("a.webp", webp(4, 2, &frames));
    let frames = load_video(&path, &LoadOptions::default()).unwrap();
    let found: Vec<_> = frames.iter().map(|frame| [pixel(frame, 0, 0), pixel(frame, 3, 1)]).collect();
    let red = [200, 0, 0];
    // Half of blue over red, in libwebp's arithmetic (the two alphas sum to 255).
    let mixed = [99, 0, 50];
    assert_eq!(
        found,
        [
            [red, red],
            [mixed, red],
            // A clear pixel laid over red leaves red.
            [mixed, red],
            // The right half was cleared, to black without alpha.
            [[0, 99, 0], [0, 0, 0]],
            // Put in place and not laid over: the colour of clear pixels shows.
            [[0, 99, 0], [7, 8, 9]],
        ]
    );
    assert_eq!(pixel(&load_image(&path, &LoadOptions::default()).unwrap(), 0, 0), red);
}

#[test]
fn webp_that_is_cut_is_refused() {
    let folder = Folder::new();
    let frames: Vec<_> = (0..3).map(|_| webp_dot(0, [1, 2, 3, 255], true, false)).collect();
    let whole = webp(4, 2, &frames);
    for length in 32..whole.len() {
        let path = folder.write("cut.webp", &whole[..length]);
        let Err(error) = load_video(&path, &LoadOptions::default()) else {
            panic!("{length} of {} bytes were taken for a whole animation", whole.len());
        };
        check_message(&error, &["cut.webp"]);
    }
    let outside = webp(2, 2, &[webp_dot(2, [0; 4], true, false)]);
    let path = folder.write("outside.webp", outside);
    check_message(
        &load_video(&path, &LoadOptions::default()).unwrap_err(),
        &["outside.webp", "frame 0", "canvas"],
    );
}

#[test]
fn damaged_animations_never_break_the_program() {
    let folder = Folder::new();
    let frames: Vec<_> = (0..3).map(|index| dot(index % 2, 1, Previous)).collect();
    let gif = gif(2, 1, &palette(), &frames);
    let webp = webp(4, 2, &[webp_dot(0, [1, 2, 3, 255], true, true), webp_dot(2, [1, 2, 3, 4], true, false)]);
    let video_decoder = VideoDecoder::Native;
    let options = LoadOptions { max_pixels: 1_000_000, video_decoder, ..Default::default() };
    for whole in [gif, webp] {
        for at in 0..whole.len() {
            for value in [0x00, 0x02, 0xFF, whole[at] ^ 0x10] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                // Either frames or an error; a panic or an abort would fail the test.
                let _ = load_video(&folder.write("damaged", bytes), &options);
            }
        }
    }
}

#[test]
fn a_still_picture_is_a_clip_of_one_frame() {
    let folder = Folder::new();
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Gif]
    {
        let path =
            folder.write("still", encode(&DynamicImage::from(gradient(6, 5)).to_rgb8().into(), format));
        let frames = load_video(&path, &LoadOptions::default()).unwrap();
        assert_eq!(frames, [load_image(&path, &LoadOptions::default()).unwrap()], "{format:?}");
    }
}

#[test]
fn all_frames_of_a_list_are_kept() {
    let folder = Folder::new();
    let mut names = Vec::new();
    for index in 0..12 {
        let name = format!("{index}.png");
        folder.write(&name, encode(&gradient(index + 1, 2).into(), ImageFormat::Png));
        names.push(name.into());
    }
    let loader = Loader::new(LoadOptions { root: folder.path().into(), ..Default::default() });
    let clip =
        |names: &[std::path::PathBuf]| loader.load_part(&Part::Video(VideoSource::Frames(names.to_vec())));
    let Media::Frames(frames) = clip(&names).unwrap() else { panic!("no frames") };
    assert_eq!(frames.iter().map(Picture::width).collect::<Vec<_>>(), (1..=12).collect::<Vec<_>>());
    names.push("13.png".into());
    check_message(&clip(&names).unwrap_err(), &["13.png"]);
    assert!(matches!(clip(&[]), Err(LoadError::NoFrames)));
}

#[test]
fn clips_that_would_fill_memory_are_refused() {
    let folder = Folder::new();
    let frames: Vec<_> = (0..10).map(|index| GifFrame::full(20, 10, index % 3)).collect();
    let path = folder.write("big.gif", gif(20, 10, &palette(), &frames));
    let options = |video_byte_cap| LoadOptions { video_byte_cap, ..Default::default() };
    let error = load_video(&path, &options(4_799)).unwrap_err();
    check_message(&error, &["big.gif", "8 frames of 600 bytes", "4799 bytes", "video_byte_cap"]);
    assert_eq!(load_video(&path, &options(4_800)).unwrap().len(), 8);
}

#[test]
fn animations_have_no_time_beyond_the_limit() {
    let folder = Folder::new();
    let frames: Vec<_> = (0..3).map(|index| GifFrame::full(4, 2, index)).collect();
    let still = encode(&DynamicImage::from(gradient(6, 5)).to_rgb8().into(), ImageFormat::Png);
    let limit = |video_timeout_ms| LoadOptions { video_timeout_ms, ..Default::default() };
    for (name, bytes) in [
        ("slow.gif", gif(4, 2, &palette(), &frames)),
        ("slow.webp", webp(4, 2, &[webp_dot(0, [1, 2, 3, 255], true, false)])),
    ] {
        let path = folder.write(name, bytes);
        let error = load_video(&path, &limit(0)).unwrap_err();
        assert!(matches!(error, LoadError::Timeout { .. }), "{error}");
        check_message(&error, &[name, "0 ms", "`video_timeout_ms`"]);
        // A time that no clock can count is no limit, and a picture is no clip.
        load_video(&path, &limit(u64::MAX)).unwrap();
        load_image(&path, &limit(0)).unwrap();
    }
    let still = folder.write("still.png", still);
    load_image(&still, &limit(0)).unwrap();
    let list = Part::Video(VideoSource::Frames(vec![still]));
    assert!(matches!(Loader::new(limit(0)).load_part(&list), Err(LoadError::Timeout { .. })));
}
