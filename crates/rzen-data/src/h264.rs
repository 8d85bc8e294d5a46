//! H.264 in MP4 without ffmpeg.
//!
//! Frames are decoded in file order and kept when their place in display order is wanted. Frames that an
//! edit list hides at the start don't count; what it hides later does.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use image::{RgbImage, imageops};
use re_mp4::{Mp4, StsdBoxContent, Track};
use rusty_h264::{Decoder, YuvFrame};
use rzen_core::Picture;

use crate::isolate::{Lost, isolate};
use crate::mp4_check::tame_boxes;
use crate::picture::read_file;
use crate::sps::{Colors, frame_size};
use crate::video::{complete, no_decoder};
use crate::{LoadError, LoadOptions, sample_frames};

/// Samples the frames of an MP4 file.
pub(crate) fn load_mp4(path: &Path, options: &LoadOptions) -> Result<Vec<Picture>, LoadError> {
    let bytes = read_file(path, options)?;
    let (owned_path, owned_options) = (path.to_owned(), options.clone());
    let deadline = options.video_deadline();
    let work = move || decode_mp4(&owned_path, bytes, &owned_options, deadline);
    isolate(Duration::from_millis(options.video_timeout_ms), work).unwrap_or_else(|lost| match lost {
        Lost::Panic(found) => Err(LoadError::Decoder { path: path.to_owned(), decoder: "H.264", found }),
        Lost::Timeout => Err(options.too_slow(path)),
    })
}

fn decode_mp4(
    path: &Path,
    mut bytes: Vec<u8>,
    options: &LoadOptions,
    deadline: Option<Instant>,
) -> Result<Vec<Picture>, LoadError> {
    let video_error = |found: String| LoadError::Video { path: path.to_owned(), found };
    tame_boxes(&mut bytes).map_err(|found| video_error(format!("the MP4 is damaged: {found}")))?;
    let mp4 = Mp4::read_bytes(&bytes).map_err(|error| video_error(format!("the MP4 is damaged: {error}")))?;
    let track = mp4.tracks().values().find(|track| &track.trak(&mp4).mdia.hdlr.handler_type.value == b"vide");
    let track = track.ok_or_else(|| video_error("the MP4 holds no video track".into()))?;
    let stream = Stream::open(&mp4, track).ok_or_else(|| {
        let codec = track.codec_string(&mp4).unwrap_or_else(|| "another codec".into());
        no_decoder(path, format!("there is no ffmpeg, and the built-in decoder reads H.264, found {codec}"))
    })?;
    // The header of the track is not believed: the stream has a size of its own.
    let (width, height) = stream.size.unwrap_or((track.width.into(), track.height.into()));
    options.check_size(path, width, height)?;
    let frame_bytes = u64::from(width) * u64::from(height) * 3;

    let places = display_places(track);
    let hidden = hidden_frames(&mp4, track);
    let shown = sample_frames(places.len() - hidden, options.num_frames);
    let wanted: Vec<_> = shown.into_iter().map(|place| place + hidden).collect();
    options.check_clip(path, frame_bytes, wanted.len() as u64)?;
    let mut decoder = Decoder::new();
    let mut frames = BTreeMap::new();
    let mut complaint = None;
    for (sample, place) in track.samples.iter().zip(places) {
        if frames.len() == wanted.len() {
            break;
        }
        options.check_time(path, deadline)?;
        let data = bytes.get(sample.offset as usize..).and_then(|rest| rest.get(..sample.size as usize));
        let Some(data) = data else {
            complaint = Some("the file ends before its frames do".to_owned());
            break;
        };
        let data = stream.annex_b(data, sample.id);
        // A stream may change its size on the way.
        for (width, height) in sizes_within(&data) {
            options.check_size(path, width, height)?;
            options.check_clip(path, u64::from(width) * u64::from(height) * 3, wanted.len() as u64)?;
        }
        match decoder.decode(&data) {
            Ok(Some(frame)) if wanted.contains(&place) => {
                options.check_size(path, frame.width as u32, frame.height as u32)?;
                frames.insert(place, stream.picture(&frame));
            }
            Ok(_) => {}
            Err(rusty_h264::DecodeError::Unsupported(what)) => {
                return Err(no_decoder(path, format!("the built-in H.264 decoder doesn't do {what}")));
            }
            // Later frames may still come; the decoder goes on at the next key frame.
            Err(error) => complaint = complaint.or_else(|| Some(error.to_string())),
        }
    }
    if frames.is_empty() {
        return Err(video_error(complaint.unwrap_or_else(|| "no frame could be decoded".into())));
    }
    let missing = (frames.len() < wanted.len()).then(|| complaint.unwrap_or_default());
    complete(path, frames.into_values().collect(), wanted.len(), missing, options)
}

/// For each sample in file order, its place in display order.
fn display_places(track: &Track) -> Vec<usize> {
    let mut order: Vec<usize> = (0..track.samples.len()).collect();
    order.sort_by_key(|sample| track.samples[*sample].composition_timestamp);
    let mut places = vec![0; order.len()];
    order.iter().enumerate().for_each(|(place, sample)| places[*sample] = place);
    places
}

/// How many frames lie before the start that the edit list sets.
fn hidden_frames(mp4: &Mp4, track: &Track) -> usize {
    // An empty edit (a pause) has the media time -1.
    const EMPTY: [u64; 2] = [u32::MAX as u64, u64::MAX];
    let trak = track.trak(mp4);
    let edits = trak.edts.as_ref().and_then(|edits| edits.elst.as_ref());
    let mut starts = edits.iter().flat_map(|list| &list.entries).map(|edit| edit.media_time);
    let Some(start) = starts.find(|start| !EMPTY.contains(start)) else { return 0 };
    let table = &trak.mdia.minf.stbl;
    let durations = table.stts.entries.iter();
    let durations = durations.flat_map(|run| (0..run.sample_count).map(|_| i64::from(run.sample_delta)));
    let delays = table.ctts.iter().flat_map(|delays| &delays.entries);
    let delays = delays.flat_map(|run| (0..run.sample_count).map(|_| i64::from(run.sample_offset)));
    let times = durations.zip(delays.chain(std::iter::repeat(0))).scan(0, |decoded, (duration, delay)| {
        let shown = *decoded + delay;
        *decoded += duration;
        Some(shown)
    });
    let early = times.take(track.samples.len()).filter(|time| *time < start as i64).count();
    // A start beyond the end would leave nothing to see; such a list is taken for broken.
    if early < track.samples.len() { early } else { 0 }
}

/// What the container says about the stream.
struct Stream {
    /// Parameter sets with start codes.
    parameter_sets: Vec<u8>,
    length_size: usize,
    colors: Colors,
    /// The size of its frames, where it can be read.
    size: Option<(u32, u32)>,
    /// Quarter turns clockwise.
    turns: u8,
}

const START_CODE: [u8; 4] = [0, 0, 0, 1];

impl Stream {
    /// `None` where the track is not H.264.
    fn open(mp4: &Mp4, track: &Track) -> Option<Self> {
        let trak = track.trak(mp4);
        let StsdBoxContent::Avc1(avc1) = &trak.mdia.minf.stbl.stsd.contents else { return None };
        let config = &avc1.avcc;
        let sets = config.sequence_parameter_sets.iter().chain(&config.picture_parameter_sets);
        let parameter_sets = sets.flat_map(|set| START_CODE.iter().chain(&set.bytes)).copied().collect();
        let sps = config.sequence_parameter_sets.first().map_or(&[][..], |set| &set.bytes);
        let matrix = &trak.tkhd.matrix;
        let turns = match (matrix.a.signum(), matrix.b.signum()) {
            (0, 1) => 1,
            (-1, 0) => 2,
            (0, -1) => 3,
            _ => 0,
        };
        let length_size = usize::from(config.length_size_minus_one & 3) + 1;
        let (colors, size) = (Colors::of_stream(sps), frame_size(sps));
        Some(Stream { parameter_sets, length_size, colors, size, turns })
    }

    /// One sample as a byte stream: start codes in place of lengths, the first with the parameter sets.
    fn annex_b(&self, mut data: &[u8], id: u32) -> Vec<u8> {
        let is_first = id == 0 || id == 1;
        let mut stream = if is_first { self.parameter_sets.clone() } else { Vec::new() };
        while let Some((length, rest)) = data.split_at_checked(self.length_size) {
            let length = length.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
            let (unit, rest) = rest.split_at(length.min(rest.len()));
            stream.extend(START_CODE);
            stream.extend(unit);
            data = rest;
        }
        stream
    }

    fn picture(&self, frame: &YuvFrame) -> Picture {
        let rgb = to_rgb(frame, self.colors);
        let image = RgbImage::from_raw(frame.width as u32, frame.height as u32, rgb)
            .expect("three bytes were written for each pixel");
        let image = match self.turns {
            1 => imageops::rotate90(&image),
            2 => imageops::rotate180(&image),
            3 => imageops::rotate270(&image),
            _ => image,
        };
        let (width, height) = image.dimensions();
        Picture::new(width, height, image.into_raw())
    }
}

/// The frame sizes that a byte stream sets.
fn sizes_within(stream: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    const SEQUENCE_PARAMETER_SET: u8 = 7;
    let units = stream.windows(4).enumerate().filter(|(_, window)| window[..3] == START_CODE[1..]);
    let sets = units.filter(|(_, window)| window[3] & 31 == SEQUENCE_PARAMETER_SET);
    sets.filter_map(|(at, _)| frame_size(&stream[at + 3..]))
}

/// YUV 4:2:0 to RGB, each chroma sample standing for its four pixels.
fn to_rgb(frame: &YuvFrame, colors: Colors) -> Vec<u8> {
    const BITS: i32 = 16;
    let fixed = |x: f32| (x * (1 << BITS) as f32).round() as i32;
    let (red, blue) = colors.red_blue;
    let green = 1.0 - red - blue;
    let (black, luma, chroma) = match colors.full_range {
        true => (0, 1.0, 1.0),
        false => (16, 255.0 / 219.0, 255.0 / 224.0),
    };
    let luma = fixed(luma);
    let from_v = [fixed(2.0 * (1.0 - red) * chroma), fixed(-2.0 * red * (1.0 - red) / green * chroma)];
    let from_u = [fixed(-2.0 * blue * (1.0 - blue) / green * chroma), fixed(2.0 * (1.0 - blue) * chroma)];

    let (width, chroma_width) = (frame.width, (frame.width / 2).max(1));
    let mut rgb = Vec::with_capacity(width * frame.height * 3);
    for (row, line) in frame.y.chunks_exact(width).take(frame.height).enumerate() {
        for (column, y) in line.iter().enumerate() {
            let at = ((row / 2) * chroma_width + column / 2).min(frame.u.len() - 1);
            let (u, v) = (i32::from(frame.u[at]) - 128, i32::from(frame.v[at]) - 128);
            let y = luma * (i32::from(*y) - black) + (1 << (BITS - 1));
            let channels = [y + from_v[0] * v, y + from_u[0] * u + from_v[1] * v, y + from_u[1] * u];
            rgb.extend(channels.map(|channel| (channel >> BITS).clamp(0, 255) as u8));
        }
    }
    rgb
}
