//! Video files: the built-in decoder, ffmpeg, and programs that only claim to be ffmpeg.

use std::path::{Path, PathBuf};

use rzen_core::Picture;
use rzen_data::{LoadError, LoadOptions, VideoDecoder};

use crate::made::{Folder, check_message, load_image, load_video};
use crate::mp4::flat_clip;

/// Whether the PATH leads to ffmpeg.
pub fn ffmpeg_is_there() -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join("ffmpeg").is_file())
}

fn native() -> LoadOptions {
    LoadOptions { video_decoder: VideoDecoder::Native, ..Default::default() }
}

fn levels(frames: &[Picture]) -> Vec<u8> {
    frames.iter().map(|frame| frame.rgb()[frame.rgb().len() / 2]).collect()
}

/// What grey a luma value of limited range is.
fn grey(luma: u8) -> u8 {
    ((f32::from(luma) - 16.0) * 255.0 / 219.0).round() as u8
}

fn check_levels(frames: &[Picture], lumas: &[u8]) {
    let (found, expected): (_, Vec<_>) = (levels(frames), lumas.iter().map(|luma| grey(*luma)).collect());
    assert_eq!(found.len(), expected.len());
    let near = found.iter().zip(&expected).all(|(found, expected)| found.abs_diff(*expected) <= 4);
    assert!(near, "{found:?}, expected {expected:?}");
}

#[test]
fn the_built_in_decoder_samples_h264() {
    let folder = Folder::new();
    let lumas: Vec<_> = (0..22).map(|frame| 20 + frame * 9).collect();
    let path = folder.write("flat.mp4", flat_clip(64, 48, &lumas));
    let frames = load_video(&path, &native()).unwrap();
    assert_eq!((frames[0].width(), frames[0].height()), (64, 48));
    check_levels(&frames, &[0, 3, 6, 9, 12, 15, 18, 21].map(|frame: usize| lumas[frame]));
    let all = load_video(&path, &LoadOptions { num_frames: 100, ..native() }).unwrap();
    check_levels(&all, &lumas);
}

#[test]
fn ffmpeg_and_the_built_in_decoder_agree() {
    if !ffmpeg_is_there() {
        eprintln!("skipped: ffmpeg is not there");
        return;
    }
    let folder = Folder::new();
    let lumas: Vec<_> = (0..30).map(|frame| 20 + frame * 7).collect();
    // A name that could be read as an option, a protocol and a pattern.
    let path = folder.write("-i http:%03d flat.mp4", flat_clip(64, 48, &lumas));
    let own = load_video(&path, &native()).unwrap();
    let other = load_video(&path, &LoadOptions { video_decoder: VideoDecoder::Ffmpeg, ..Default::default() })
        .unwrap();
    assert_eq!(own.len(), other.len());
    for (own, other) in own.iter().zip(&other) {
        let difference = own.rgb().iter().zip(other.rgb()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(difference <= Some(3), "{difference:?}");
    }
}

#[test]
fn ffmpeg_refuses_what_is_no_video() {
    if !ffmpeg_is_there() {
        eprintln!("skipped: ffmpeg is not there");
        return;
    }
    let folder = Folder::new();
    let clip = flat_clip(64, 48, &[20, 30, 40, 50]);
    for (name, bytes) in [("words.mkv", b"these are words".repeat(50)), ("cut.mp4", clip[..200].to_vec())] {
        let error = load_video(&folder.write(name, bytes), &LoadOptions::default()).unwrap_err();
        assert!(matches!(error, LoadError::Video { .. }), "{error}");
        check_message(&error, &[name, "ffmpeg says", "expected a file with a video stream"]);
    }
}

#[test]
fn damaged_mp4_files_are_named() {
    let folder = Folder::new();
    let whole = flat_clip(64, 48, &[20, 60, 100, 140, 180, 220]);
    let check = |name, bytes: &[u8], expected: &[&str]| {
        let error = load_video(&folder.write(name, bytes), &native()).unwrap_err();
        check_message(&error, &[&[name], expected].concat());
    };
    check("head.mp4", &whole[..24], &["video stream"]);
    check("table.mp4", &whole[..300], &["video stream"]);
    let mut bomb = whole.clone();
    let count = bomb.windows(4).position(|kind| kind == b"stsz").unwrap() + 12;
    bomb[count..count + 4].fill(0xFF);
    check("bomb.mp4", &bomb, &["4294967295 frames", "video stream"]);
    let data = whole.windows(4).position(|kind| kind == b"mdat").unwrap() + 4;
    check("data.mp4", &whole[..data], &["video stream"]);
    // What is there is taken, as with ffmpeg.
    let frames = load_video(&folder.write("half.mp4", &whole[..whole.len() - 20]), &native()).unwrap();
    assert!((1..6).contains(&frames.len()), "{}", frames.len());
}

#[test]
fn damaged_mp4_bytes_never_break_the_program() {
    let folder = Folder::new();
    let whole = flat_clip(32, 32, &[20, 120, 220]);
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x21;
        let options = LoadOptions { video_timeout_ms: 5_000, ..native() };
        // Either frames or an error; an abort would fail the test.
        let _ = load_video(&folder.write("damaged.mp4", bytes), &options);
    }
}

#[test]
fn what_nothing_here_decodes_says_what_to_install() {
    let folder = Folder::new();
    let check = |name, bytes: &[u8], expected: &str| {
        let error = load_video(&folder.write(name, bytes), &native()).unwrap_err();
        assert!(matches!(error, LoadError::NoVideoDecoder { .. }), "{error}");
        check_message(&error, &[name, expected, "install ffmpeg", "RZEN_FFMPEG", "H.264 in MP4"]);
    };
    check("clip.mkv", b"\x1A\x45\xDF\xA3 matroska", "MP4 only");
    let mut other = flat_clip(32, 32, &[20, 120]);
    let codec = other.windows(4).rposition(|kind| kind == b"avc1").unwrap();
    other[codec..codec + 4].copy_from_slice(b"xvid");
    check("other.mp4", &other, "H.264");
}

#[test]
fn a_program_that_is_named_must_be_there() {
    let folder = Folder::new();
    let path = folder.write("a.mp4", flat_clip(32, 32, &[20, 120]));
    let program = folder.path().join("no-such-program");
    let error = load_video(&path, &LoadOptions { ffmpeg: Some(program), ..Default::default() }).unwrap_err();
    assert!(matches!(error, LoadError::Ffmpeg { .. }), "{error}");
    check_message(&error, &["no-such-program", "a.mp4", "RZEN_FFMPEG"]);
}

/// Scripts stand in the repository: one written here could still be open for writing when it is run.
#[cfg(unix)]
fn fake(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fake_ffmpeg").join(name)
}

#[cfg(unix)]
fn load_with(name: &str, options: LoadOptions) -> Result<Vec<Picture>, LoadError> {
    let folder = Folder::new();
    let path = folder.write("clip.mkv", b"\x1A\x45\xDF\xA3 matroska");
    load_video(&path, &LoadOptions { ffmpeg: Some(fake(name)), ..options })
}

#[cfg(unix)]
#[test]
fn a_decoder_that_hangs_is_ended() {
    let error =
        load_with("hang.sh", LoadOptions { video_timeout_ms: 200, ..Default::default() }).unwrap_err();
    assert!(matches!(error, LoadError::Timeout { .. }), "{error}");
    check_message(&error, &["clip.mkv", "200 ms", "video_timeout_ms"]);
}

#[cfg(unix)]
#[test]
fn a_decoder_that_floods_is_ended() {
    let options = LoadOptions { video_byte_cap: 10_000, ..Default::default() };
    let error = load_with("flood.sh", options).unwrap_err();
    check_message(&error, &["clip.mkv", "10000 bytes", "video_byte_cap"]);
    let error = load_with("huge.sh", LoadOptions::default()).unwrap_err();
    check_message(&error, &["clip.mkv", "60000 x 60000 pixels", "max_pixels"]);
}

#[cfg(unix)]
#[test]
fn fewer_frames_than_asked_for_are_taken() {
    let frames = load_with("short.sh", LoadOptions::default()).unwrap();
    assert_eq!(frames.iter().map(|frame| frame.rgb()[0]).collect::<Vec<_>>(), [b'a', b'd']);
}

#[cfg(unix)]
#[test]
fn no_frame_at_all_is_an_error_with_the_complaint() {
    let error = load_with("complain.sh", LoadOptions::default()).unwrap_err();
    check_message(&error, &["clip.mkv", "ffmpeg says: Invalid data found"]);
}

/// Reading a pipe may never end, so it is not begun.
#[cfg(unix)]
#[test]
fn pipes_are_refused() {
    let folder = Folder::new();
    let path = folder.path().join("pipe.mp4");
    match std::process::Command::new("mkfifo").arg(&path).status() {
        Ok(status) if status.success() => {}
        _ => return eprintln!("skipped: mkfifo is not there"),
    }
    for error in [
        load_video(&path, &LoadOptions::default()).unwrap_err(),
        load_image(&path, &LoadOptions::default()).unwrap_err(),
    ] {
        check_message(&error, &["pipe.mp4", "a pipe or a device", "expected a file"]);
    }
}
