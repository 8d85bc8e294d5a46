//! Video files: the built-in decoder, ffmpeg, and programs that only claim to be ffmpeg.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rzen_core::Picture;
use rzen_data::{IncompleteVideo, LoadError, LoadOptions, VideoDecoder};

use crate::made::{Folder, check_message, load_image, load_video};
use crate::mp4::{clip, flat_clip};

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
fn the_built_in_decoder_knows_colors() {
    let folder = Folder::new();
    let colors = [[81, 90, 240], [145, 54, 34], [41, 240, 110], [210, 16, 146], [126, 128, 128]];
    let path = folder.write("colors.mp4", clip(64, 48, &colors));
    for (frame, [y, u, v]) in load_video(&path, &native()).unwrap().iter().zip(colors) {
        // BT.601 in limited range, as the recommendation writes it.
        let [y, u, v] = [f32::from(y) - 16.0, f32::from(u) - 128.0, f32::from(v) - 128.0];
        let luma = 1.164 * y;
        let expected = [luma + 1.596 * v, luma - 0.392 * u - 0.813 * v, luma + 2.017 * u];
        let at = (24 * 64 + 32) * 3;
        for (found, expected) in frame.rgb()[at..at + 3].iter().zip(expected) {
            let expected = expected.clamp(0.0, 255.0);
            assert!(
                (f32::from(*found) - expected).abs() <= 6.0,
                "{found}, expected {expected} of {y} {u} {v}"
            );
        }
    }
}

#[test]
fn the_size_of_the_stream_counts_and_not_that_of_the_track() {
    let folder = Folder::new();
    let mut bytes = flat_clip(64, 48, &[20, 120, 220]);
    let track = bytes.windows(4).position(|kind| kind == b"tkhd").unwrap() + 80;
    bytes[track..track + 8].copy_from_slice(&[0, 16, 0, 0, 0, 16, 0, 0]);
    let path = folder.write("small track.mp4", bytes);
    let refusal = |options| load_video(&path, &options).unwrap_err();
    let error = refusal(LoadOptions { max_pixels: 3_071, ..native() });
    check_message(&error, &["small track.mp4", "64 x 48 pixels", "3071 pixels", "max_pixels"]);
    let error = refusal(LoadOptions { video_byte_cap: 64 * 48 * 3 * 3 - 1, ..native() });
    check_message(&error, &["small track.mp4", "3 frames of 9216 bytes", "video_byte_cap"]);
    let options = LoadOptions { max_pixels: 3_072, video_byte_cap: 64 * 48 * 3 * 3, ..native() };
    assert_eq!(load_video(&path, &options).unwrap().len(), 3);
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
}

/// Both decoders give the same answers about a file that ends early.
#[test]
fn cut_clips_are_an_error_unless_told_otherwise() {
    let folder = Folder::new();
    let whole = flat_clip(64, 48, &[20, 60, 100, 140, 180, 220]);
    let path = folder.write("half.mp4", &whole[..whole.len() - 20]);
    let decoders = [VideoDecoder::Native, VideoDecoder::Ffmpeg];
    for video_decoder in decoders.into_iter().take(if ffmpeg_is_there() { 2 } else { 1 }) {
        let load = |incomplete_video| {
            load_video(&path, &LoadOptions { incomplete_video, video_decoder, ..Default::default() })
        };
        let error = load(IncompleteVideo::Error).unwrap_err();
        assert!(matches!(error, LoadError::Incomplete { .. }), "{error}");
        check_message(&error, &["half.mp4", "cut off or damaged", "`incomplete_video`", "`repeat`"]);
        let accepted = load(IncompleteVideo::Accept).unwrap();
        assert!((1..6).contains(&accepted.len()), "{}", accepted.len());
        let repeated = load(IncompleteVideo::Repeat).unwrap();
        assert!(repeated.starts_with(&accepted) && repeated.last() == accepted.last());
    }
    let repeat = LoadOptions { incomplete_video: IncompleteVideo::Repeat, ..native() };
    assert_eq!(load_video(&path, &repeat).unwrap().len(), 6);
}

#[test]
fn a_video_that_is_not_there_is_named() {
    let folder = Folder::new();
    let error = load_video(&folder.path().join("gone.mp4"), &LoadOptions::default()).unwrap_err();
    assert!(matches!(error, LoadError::Read { .. }), "{error}");
    check_message(&error, &["gone.mp4", "path"]);
}

#[test]
fn ffmpeg_makes_no_frames_over_the_limit() {
    if !ffmpeg_is_there() {
        eprintln!("skipped: ffmpeg is not there");
        return;
    }
    let folder = Folder::new();
    let path = folder.write("large.mp4", flat_clip(64, 48, &[20, 120]));
    for max_pixels in [1_000, 3_071] {
        let error = load_video(&path, &LoadOptions { max_pixels, ..Default::default() }).unwrap_err();
        assert!(matches!(error, LoadError::TooLarge { .. }), "{error}");
        check_message(&error, &["large.mp4", &format!("{max_pixels} pixels"), "max_pixels"]);
    }
    assert!(load_video(&path, &LoadOptions { max_pixels: 3_072, ..Default::default() }).is_ok());
}

/// The environment belongs to the whole process, so the test runs itself in another.
#[test]
fn the_environment_names_the_program_and_the_path_leads_to_it() {
    const ROLE: &str = "RZEN_TEST_ROLE";
    let folder = Folder::new();
    let path = folder.write("clip.mkv", b"\x1A\x45\xDF\xA3 matroska");
    let fails_with = |options: LoadOptions, expected: &[&str]| {
        check_message(&load_video(&path, &options).unwrap_err(), expected);
    };
    let named = LoadOptions { ffmpeg: Some("no-such-option".into()), ..Default::default() };
    let only = LoadOptions { video_decoder: VideoDecoder::Ffmpeg, ..Default::default() };
    match std::env::var(ROLE).as_deref() {
        Ok("named") => {
            fails_with(LoadOptions::default(), &["`no-such-program`", "clip.mkv", "RZEN_FFMPEG"]);
            // The option comes first.
            fails_with(named, &["`no-such-option`", "clip.mkv"]);
        }
        Ok("missing") => {
            fails_with(only, &["clip.mkv", "there is no ffmpeg;", "install ffmpeg", "RZEN_FFMPEG"]);
            fails_with(LoadOptions::default(), &["there is no ffmpeg", "MP4 only", "apt install ffmpeg"]);
        }
        _ => {
            for (role, program) in [("named", Some("no-such-program")), ("missing", None)] {
                let mut child = std::process::Command::new(std::env::current_exe().unwrap());
                child.args(["--exact", "ffmpeg::the_environment_names_the_program_and_the_path_leads_to_it"]);
                child.env(ROLE, role).env("PATH", folder.path()).env_remove("RZEN_FFMPEG");
                child.envs(program.map(|program| ("RZEN_FFMPEG", program)));
                let output = child.output().unwrap();
                let words = String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success() && words.contains("1 passed"), "{role}: {words}");
            }
        }
    }
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

/// What the script gives by each rule for incomplete videos: the error, and the first bytes of frames.
#[cfg(unix)]
fn by_rule(name: &str) -> (LoadError, Vec<u8>, Vec<u8>) {
    let load = |incomplete_video| load_with(name, LoadOptions { incomplete_video, ..Default::default() });
    let first = |frames: Vec<Picture>| frames.iter().map(|frame| frame.rgb()[0]).collect();
    let error = load(IncompleteVideo::Error).unwrap_err();
    assert!(matches!(error, LoadError::Incomplete { .. }), "{error}");
    (error, first(load(IncompleteVideo::Accept).unwrap()), first(load(IncompleteVideo::Repeat).unwrap()))
}

#[cfg(unix)]
#[test]
fn fewer_frames_than_asked_for_are_an_error_unless_told_otherwise() {
    let (error, accepted, repeated) = by_rule("short.sh");
    check_message(&error, &["clip.mkv", "gave 2 of 8 frames;", "`accept`"]);
    assert_eq!(accepted, *b"ad");
    assert_eq!(repeated, *b"addddddd");
    let (error, ..) = by_rule("damaged.sh");
    check_message(&error, &["gave 2 of 8 frames ([h264 @ 0x1] error while decoding MB 3 4);"]);
}

#[cfg(unix)]
#[test]
fn a_file_that_ends_early_is_noticed_though_all_its_packets_decode() {
    let (error, accepted, repeated) = by_rule("cut.sh");
    check_message(&error, &["clip.mkv", "gave 2 of 2 frames", "offset 0x3397: partial file"]);
    assert_eq!((accepted, repeated), (b"ad".to_vec(), b"ad".to_vec()));
}

#[cfg(unix)]
#[test]
fn packets_without_a_frame_are_not_missed() {
    let frames = load_with("hidden.sh", LoadOptions::default()).unwrap();
    assert_eq!(frames.len(), 8);
}

#[cfg(unix)]
#[test]
fn a_decoder_that_was_killed_says_nothing_about_the_file() {
    for incomplete_video in [IncompleteVideo::Error, IncompleteVideo::Accept] {
        let error =
            load_with("killed.sh", LoadOptions { incomplete_video, ..Default::default() }).unwrap_err();
        assert!(matches!(error, LoadError::Decoder { .. }), "{error}");
        check_message(&error, &["clip.mkv", "ffmpeg", "signal: 9"]);
    }
}

#[cfg(unix)]
#[test]
fn older_programs_are_asked_in_their_words() {
    assert_eq!(load_with("old.sh", LoadOptions::default()).unwrap().len(), 1);
}

#[cfg(unix)]
#[test]
fn file_names_cannot_become_addresses_or_options() {
    let folder = Folder::new();
    let path = folder.write("http:clip.mkv", b"\x1A\x45\xDF\xA3 matroska");
    load_video(&path, &LoadOptions { ffmpeg: Some(fake("words.sh")), ..Default::default() }).unwrap();
    let words = std::fs::read_to_string(format!("{}.words", path.display())).unwrap();
    let runs: Vec<Vec<&str>> = words.split("-nostdin\n").skip(1).map(|run| run.lines().collect()).collect();
    assert_eq!(runs.len(), 2, "{words}");
    for run in runs {
        let input = run.iter().position(|word| *word == "-i").unwrap();
        assert_eq!(run[input + 1], format!("file:{}", path.display()));
        let whitelist = run.iter().position(|word| *word == "-protocol_whitelist").unwrap();
        // An option of the input only if it stands before it.
        assert!(whitelist < input && run[whitelist + 1] == "file,pipe", "{run:?}");
    }
}

/// Ctrl-C in a terminal goes to the whole group of the program that runs there.
#[cfg(target_os = "linux")]
#[test]
fn the_decoder_has_a_process_group_of_its_own() {
    let message = load_with("group.sh", LoadOptions::default()).unwrap_err().to_string();
    let numbers = message.split_once("own ").unwrap().1.split(';').next().unwrap();
    let (own, group) = numbers.split_once(" group ").unwrap();
    assert_eq!(own, group, "{message}");
}

#[cfg(target_os = "linux")]
#[test]
fn what_a_decoder_started_ends_with_it() {
    let folder = Folder::new();
    let path = folder.write("clip.mkv", b"\x1A\x45\xDF\xA3 matroska");
    let ffmpeg = Some(fake("background.sh"));
    let error = load_video(&path, &LoadOptions { ffmpeg, video_timeout_ms: 2_000, ..Default::default() })
        .unwrap_err();
    assert!(matches!(error, LoadError::Timeout { .. }), "{error}");
    let pid = std::fs::read_to_string(format!("{}.pid", path.display())).unwrap();
    let runs = || {
        let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        // A zombie has ended; whoever has adopted it may never ask how.
        !state.is_empty() && !state.contains(") Z")
    };
    let start = Instant::now();
    while runs() {
        assert!(start.elapsed() < Duration::from_secs(20), "process {pid} goes on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_has_left_the_group_does_not_hold_us_up() {
    let start = Instant::now();
    let options = LoadOptions { video_timeout_ms: 1_000, ..Default::default() };
    let error = load_with("escape.sh", options).unwrap_err();
    assert!(matches!(error, LoadError::Timeout { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
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
