//! A writer of small MP4 files.

use rusty_h264::{Encoder, EncoderConfig, YuvFrame};

/// An H.264 clip of flat grey frames, one for each luma value.
pub fn flat_clip(width: usize, height: usize, lumas: &[u8]) -> Vec<u8> {
    clip(width, height, &lumas.iter().map(|luma| [*luma, 128, 128]).collect::<Vec<_>>())
}

/// An H.264 clip of flat frames, one for each colour in YUV.
pub fn clip(width: usize, height: usize, colors: &[[u8; 3]]) -> Vec<u8> {
    let mut config = EncoderConfig::new(width, height);
    config.qp = 12;
    let mut encoder = Encoder::new(config).unwrap();
    let mut stream = Vec::new();
    for [y, u, v] in colors {
        let mut frame = YuvFrame::black(width, height);
        frame.y.fill(*y);
        frame.u.fill(*u);
        frame.v.fill(*v);
        stream.extend(encoder.encode(&frame));
    }
    stream.extend(encoder.flush());
    mp4(width as u16, height as u16, &stream, b"avc1")
}

/// Wraps a byte stream of H.264 without reordered frames.
fn mp4(width: u16, height: u16, stream: &[u8], codec: &[u8; 4]) -> Vec<u8> {
    const SPS: u8 = 7;
    const PPS: u8 = 8;
    let units = units(stream);
    let of_kind =
        |kind: u8| units.iter().find(|unit| unit[0] & 31 == kind).expect("the stream has parameter sets");
    let (sps, pps) = (of_kind(SPS), of_kind(PPS));
    let pictures = units.iter().filter(|unit| matches!(unit[0] & 31, 1 | 5));
    let samples: Vec<_> =
        pictures.map(|unit| [&(unit.len() as u32).to_be_bytes()[..], unit].concat()).collect();

    let ftyp = atom(b"ftyp", &[b"isom", &number(512), b"isomavc1"]);
    let moov = |offset| moov(width, height, codec, (sps, pps), &samples, offset);
    let offset = (ftyp.len() + moov(0).len() + 8) as u32;
    [ftyp, moov(offset), atom(b"mdat", &[&samples.concat()])].concat()
}

fn moov(
    width: u16,
    height: u16,
    codec: &[u8; 4],
    sets: (&[u8], &[u8]),
    samples: &[Vec<u8>],
    offset: u32,
) -> Vec<u8> {
    const TIMESCALE: u32 = 25;
    let count = samples.len() as u32;
    let sizes: Vec<u8> = samples.iter().flat_map(|sample| number(sample.len() as u32)).collect();
    let matrix = [1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30].map(number).concat();
    let mvhd = atom(
        b"mvhd",
        &[
            &[0; 12],
            &number(TIMESCALE),
            &number(count),
            &number(1 << 16),
            &[1, 0],
            &[0; 10],
            &matrix,
            &[0; 24],
            &number(2),
        ],
    );
    let size = [number(u32::from(width) << 16), number(u32::from(height) << 16)].concat();
    let tkhd =
        atom(b"tkhd", &[&number(3), &[0; 8], &number(1), &[0; 4], &number(count), &[0; 16], &matrix, &size]);
    let mdhd = atom(b"mdhd", &[&[0; 12], &number(TIMESCALE), &number(count), &[0x55, 0xC4, 0, 0]]);
    let hdlr = atom(b"hdlr", &[&[0; 8], b"vide", &[0; 12], b"video\0"]);
    let stbl = atom(
        b"stbl",
        &[
            &stsd(width, height, codec, sets),
            &atom(b"stts", &[&number(0), &number(1), &number(count), &number(1)]),
            &atom(b"stsc", &[&number(0), &number(1), &number(1), &number(count), &number(1)]),
            &atom(b"stsz", &[&number(0), &number(0), &number(count), &sizes]),
            &atom(b"stco", &[&number(0), &number(1), &number(offset)]),
        ],
    );
    let url = atom(b"url ", &[&number(1)]);
    let dinf = atom(b"dinf", &[&atom(b"dref", &[&number(0), &number(1), &url])]);
    let minf = atom(b"minf", &[&atom(b"vmhd", &[&number(1), &[0; 8]]), &dinf, &stbl]);
    let trak = atom(b"trak", &[&tkhd, &atom(b"mdia", &[&mdhd, &hdlr, &minf])]);
    atom(b"moov", &[&mvhd, &trak])
}

fn stsd(width: u16, height: u16, codec: &[u8; 4], (sps, pps): (&[u8], &[u8])) -> Vec<u8> {
    let length = |set: &[u8]| (set.len() as u16).to_be_bytes();
    let config =
        atom(b"avcC", &[&[1], &sps[1..4], &[0xFF, 0xE1], &length(sps), sps, &[1], &length(pps), pps]);
    let entry = atom(
        codec,
        &[
            &[0; 6],
            &[0, 1],
            &[0; 16],
            &width.to_be_bytes(),
            &height.to_be_bytes(),
            &number(72 << 16),
            &number(72 << 16),
            &[0; 4],
            &[0, 1],
            &[0; 32],
            &[0, 24, 0xFF, 0xFF],
            &config,
        ],
    );
    atom(b"stsd", &[&number(0), &number(1), &entry])
}

fn atom(kind: &[u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&number(body.len() as u32 + 8)[..], kind, &body].concat()
}

fn number(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

/// The units between start codes.
fn units(stream: &[u8]) -> Vec<&[u8]> {
    let starts: Vec<_> =
        (0..stream.len().saturating_sub(3)).filter(|at| stream[*at..].starts_with(&[0, 0, 1])).collect();
    let ends = starts.iter().skip(1).copied().chain([stream.len()]);
    let units = starts.iter().zip(ends).map(|(start, end)| {
        let unit = &stream[start + 3..end];
        // Zeros before the next start code belong to it; a unit itself never ends with one.
        let length = unit.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        &unit[..length]
    });
    units.filter(|unit| !unit.is_empty()).collect()
}
