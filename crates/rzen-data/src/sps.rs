//! What an H.264 stream says about its colours (sequence parameter set, ITU-T H.264 §7.3.2.1 and Annex E).

/// How YUV is to be read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Colors {
    /// The matrix: weights of red and blue in luma.
    pub red_blue: (f32, f32),
    /// Whether luma runs from 0 to 255 and not from 16 to 235.
    pub full_range: bool,
}

impl Colors {
    const BT601: (f32, f32) = (0.299, 0.114);
    const BT709: (f32, f32) = (0.2126, 0.0722);
    const BT2020: (f32, f32) = (0.2627, 0.0593);

    /// Reads a sequence parameter set with its header byte; BT.601 limited where it says nothing,
    /// as ffmpeg assumes.
    pub fn of_stream(sps: &[u8]) -> Self {
        let unescaped = unescape(sps.get(1..).unwrap_or_default());
        let (matrix, full_range) = Bits { bytes: &unescaped, at: 0 }.colors().unwrap_or_default();
        let red_blue = match matrix {
            1 => Self::BT709,
            9 | 10 => Self::BT2020,
            _ => Self::BT601,
        };
        Colors { red_blue, full_range }
    }
}

/// The size of the frames that a sequence parameter set (with its header byte) announces; `None` where
/// it can't be read. Cropping counts as far as it takes off a part of a macroblock: what is decoded is
/// never much larger than this.
pub(crate) fn frame_size(sps: &[u8]) -> Option<(u32, u32)> {
    let unescaped = unescape(sps.get(1..)?);
    let mut bits = Bits { bytes: &unescaped, at: 0 };
    bits.size()
}

/// Takes the emulation-prevention bytes out.
fn unescape(nal: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(nal.len());
    let mut zeros = 0;
    for byte in nal {
        if zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        bytes.push(*byte);
    }
    bytes
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// The matrix coefficients and the range flag, or `None` where the stream doesn't say.
    fn colors(&mut self) -> Option<(u32, bool)> {
        self.size()?;
        if self.read(1)? == 1 { self.usability_information() } else { None }
    }

    /// Reads up to the size of a frame and its cropping, in pixels.
    fn size(&mut self) -> Option<(u32, u32)> {
        const MACROBLOCK: u32 = 16;
        const HIGH_PROFILES: [u32; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];
        let profile = self.read(8)?;
        self.read(16)?;
        self.golomb()?;
        if HIGH_PROFILES.contains(&profile) {
            self.skip_chroma_and_scaling()?;
        }
        self.golomb()?; // log2_max_frame_num
        self.skip_order_count()?;
        self.golomb()?; // max_num_ref_frames
        self.read(1)?;
        let blocks = |count: u32| count.saturating_add(1).saturating_mul(MACROBLOCK);
        let (width, height) = (blocks(self.golomb()?), blocks(self.golomb()?));
        // Heights of interlaced streams are those of a field.
        let fields = 2 - self.read(1)?;
        if fields == 2 {
            self.read(1)?;
        }
        self.read(1)?; // direct_8x8_inference
        let mut crop = [0; 4];
        if self.read(1)? == 1 {
            crop = [self.golomb()?, self.golomb()?, self.golomb()?, self.golomb()?];
        }
        // Counted in samples of chroma, which stand for two pixels.
        let cut = |before: u32, after: u32, fields: u32| {
            let cut = before.saturating_add(after).saturating_mul(2 * fields);
            if cut < MACROBLOCK * fields { cut } else { 0 }
        };
        let height = height.saturating_mul(fields) - cut(crop[2], crop[3], fields);
        Some((width - cut(crop[0], crop[1], 1), height))
    }

    fn skip_chroma_and_scaling(&mut self) -> Option<()> {
        let chroma_format = self.golomb()?;
        if chroma_format == 3 {
            self.read(1)?;
        }
        self.golomb()?; // luma depth
        self.golomb()?; // chroma depth
        self.read(1)?;
        if self.read(1)? == 0 {
            return Some(());
        }
        for list in 0..if chroma_format == 3 { 12 } else { 8 } {
            if self.read(1)? == 1 {
                self.skip_scaling_list(if list < 6 { 16 } else { 64 })?;
            }
        }
        Some(())
    }

    fn skip_scaling_list(&mut self, size: usize) -> Option<()> {
        let (mut last, mut next) = (8i64, 8i64);
        for _ in 0..size {
            if next != 0 {
                let code = i64::from(self.golomb()?);
                let delta = if code % 2 == 1 { (code + 1) / 2 } else { -code / 2 };
                next = (last + delta).rem_euclid(256);
            }
            last = if next == 0 { last } else { next };
        }
        Some(())
    }

    fn skip_order_count(&mut self) -> Option<()> {
        match self.golomb()? {
            0 => self.golomb().map(drop),
            1 => {
                self.read(1)?;
                self.golomb()?;
                self.golomb()?;
                let cycle = self.golomb()?;
                (0..cycle).try_for_each(|_| self.golomb().map(drop))
            }
            _ => Some(()),
        }
    }

    fn usability_information(&mut self) -> Option<(u32, bool)> {
        const EXTENDED_ASPECT: u32 = 255;
        if self.read(1)? == 1 && self.read(8)? == EXTENDED_ASPECT {
            self.read(32)?;
        }
        if self.read(1)? == 1 {
            self.read(1)?; // overscan_appropriate
        }
        if self.read(1)? == 0 {
            return None;
        }
        self.read(3)?; // video_format
        let full_range = self.read(1)? == 1;
        if self.read(1)? == 0 {
            const UNSPECIFIED: u32 = 2;
            return Some((UNSPECIFIED, full_range));
        }
        self.read(16)?; // primaries and transfer
        Some((self.read(8)?, full_range))
    }

    fn read(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0u32, |value, _| {
            let byte = self.bytes.get(self.at / 8)?;
            let bit = byte >> (7 - self.at % 8) & 1;
            self.at += 1;
            Some(value << 1 | u32::from(bit))
        })
    }

    /// An Exp-Golomb code.
    fn golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.read(1)? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some(((1u64 << zeros) - 1 + u64::from(self.read(zeros)?)) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_and_broken_streams_are_bt601() {
        let expected = Colors { red_blue: Colors::BT601, full_range: false };
        assert_eq!(Colors::of_stream(&[]), expected);
        assert_eq!(Colors::of_stream(&[0x67, 100, 0, 31]), expected);
        assert_eq!(Colors::of_stream(&[0; 64]), expected);
    }

    /// Writes the bits of a baseline parameter set: Exp-Golomb codes, and single bits given as `None`.
    fn parameter_set(codes: &[Option<u32>]) -> Vec<u8> {
        let mut bits = String::new();
        for code in codes {
            let Some(code) = code else {
                bits.push('1');
                continue;
            };
            let binary = format!("{:b}", code + 1);
            bits += &"0".repeat(binary.len() - 1);
            bits += &binary;
        }
        bits += &"0".repeat(8 - bits.len() % 8);
        let bytes = (0..bits.len() / 8).map(|at| u8::from_str_radix(&bits[at * 8..at * 8 + 8], 2).unwrap());
        [0x67, 66, 0, 30].into_iter().chain(bytes).collect()
    }

    #[test]
    fn sizes_are_those_of_the_stream() {
        // Id, frame numbers, order by type 2, references; a bit; blocks across and down; frames only; a
        // bit; cropped; the four crops.
        let set = |width, height, crop: u32| {
            let numbers =
                [Some(0), Some(0), Some(2), Some(1), None, Some(width), Some(height), None, None, None];
            parameter_set(&[&numbers[..], &[Some(0), Some(crop), Some(0), Some(crop)]].concat())
        };
        assert_eq!(frame_size(&set(119, 67, 0)), Some((1920, 1088)));
        assert_eq!(frame_size(&set(119, 67, 4)), Some((1912, 1080)));
        // A crop that hides blocks doesn't make decoding them any cheaper.
        assert_eq!(frame_size(&set(119, 67, 100)), Some((1920, 1088)));
        assert_eq!(frame_size(&[0x67, 66, 0]), None);
        assert_eq!(frame_size(&[]), None);
    }

    #[test]
    fn escapes_are_taken_out() {
        assert_eq!(unescape(&[1, 0, 0, 3, 1, 0, 0, 3, 0]), [1, 0, 0, 1, 0, 0, 0]);
    }
}
