//! Video frames by the `ffmpeg` program.
//!
//! Two runs: the first lists the packets without decoding, the second decodes once and hands over
//! the chosen frames. Counts in file headers are not believed (they are wrong after edits).

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command};
use std::time::Instant;

use rzen_core::Picture;

use crate::process::{Failure, Output, run};
use crate::video::complete;
use crate::{LoadError, LoadOptions, sample_frames};

/// The program that the options, the environment or the PATH name.
///
/// One that is named but not there is given back all the same: starting it then fails by name.
pub fn find_ffmpeg(options: &LoadOptions) -> Option<PathBuf> {
    let named = options.ffmpeg.clone().or_else(|| env::var_os("RZEN_FFMPEG").map(PathBuf::from));
    named.or_else(|| {
        let name = format!("ffmpeg{}", env::consts::EXE_SUFFIX);
        env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(&name)).find(|path| path.is_file())
    })
}

/// One clip and the program that decodes it.
pub(crate) struct Ffmpeg<'a> {
    program: PathBuf,
    path: &'a Path,
    options: &'a LoadOptions,
    deadline: Option<Instant>,
    /// The piece that is decoded; nothing stands for all of it.
    span: Option<Span>,
}

/// A piece of a clip, in seconds.
#[derive(Clone, Copy)]
struct Span {
    start: f64,
    length: f64,
    /// Whether all that comes before it is decoded too, and not only what comes from the key frame before it on.
    from_the_first: bool,
}

impl<'a> Ffmpeg<'a> {
    pub fn new(program: PathBuf, path: &'a Path, options: &'a LoadOptions) -> Self {
        Ffmpeg { program, path, options, deadline: options.video_deadline(), span: None }
    }

    /// A piece of the clip, from `start` to `end` in seconds.
    pub fn piece(self, start: f64, end: f64) -> Self {
        Ffmpeg { span: Some(Span { start, length: end - start, from_the_first: false }), ..self }
    }

    /// The clip's length in seconds, from its first packet to the end of its last; decodes nothing.
    pub fn seconds(&self) -> Result<f64, LoadError> {
        let packets = self.run(&["-c", "copy", "-f", "framecrc", "-"], read_length)?;
        if let Some(cut) = cut_off(&packets.complaint) {
            let found = format!("is listed in part ({cut})");
            return Err(LoadError::Incomplete { path: self.path.to_owned(), found });
        }
        packets.value.ok_or_else(|| self.no_frames(&packets.complaint))
    }

    /// The sampled frames of a piece.
    pub fn frames_of_piece(self) -> Result<Vec<Picture>, LoadError> {
        match (self.frames_of_span(), self.span) {
            (Ok(frames), _) => Ok(frames),
            // Files may call frames key frames that are none; from the first one on everything decodes.
            (Err(LoadError::Video { .. } | LoadError::Incomplete { .. }), Some(span)) => {
                Ffmpeg { span: Some(Span { from_the_first: true, ..span }), ..self }.frames_of_span()
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The filter that leaves the piece of what is decoded from the first frame on.
    fn trim(&self) -> Option<String> {
        let span = self.span.filter(|span| span.from_the_first)?;
        Some(format!("trim=start={:.6}:duration={:.6}", span.start, span.length))
    }

    fn frames_of_span(&self) -> Result<Vec<Picture>, LoadError> {
        // Packets before the piece are decoded on the way to it, so frames are counted.
        let trim = self.trim();
        let trim = trim.as_ref().map_or(Vec::new(), |trim| vec!["-vf", trim]);
        let shown = self.run_on_all_frames(&[&trim[..], &["-f", "framecrc", "-"]].concat(), count_packets)?;
        let (wanted, decoded) = self.sample(shown.value, &shown.complaint)?;
        if decoded.value.is_empty() {
            return Err(self.no_frames(&decoded.complaint));
        }
        // The last word is that of all packets, some of which may be damaged elsewhere.
        let is_last = self.span.is_none_or(|span| span.from_the_first);
        let damaged = !is_last && !shown.complaint.is_empty() || decoded.value.len() < wanted;
        let problem = damaged.then(|| first_line(&decoded.complaint).to_owned());
        complete(self.path, decoded.value, wanted, problem, self.options)
    }

    /// The sampled frames.
    ///
    /// The exit code is not asked whether they are whole: it is 0 for many damaged files.
    pub fn frames(&self) -> Result<Vec<Picture>, LoadError> {
        let packets = self.run(&["-c", "copy", "-f", "framecrc", "-"], count_packets)?;
        let (mut wanted, mut decoded) = self.sample(packets.value, &packets.complaint)?;
        if decoded.value.len() < wanted && decoded.complaint.is_empty() {
            // Some packets show nothing of their own (hidden frames of VP8, second fields), so the
            // places were too far apart; frames are counted then, which takes decoding them all.
            let shown = self.run_on_all_frames(&["-f", "framecrc", "-"], count_packets)?;
            if shown.value < packets.value && shown.complaint.is_empty() {
                (wanted, decoded) = self.sample(shown.value, &shown.complaint)?;
            }
        }
        if decoded.value.is_empty() {
            return Err(self.no_frames(&decoded.complaint));
        }
        let cut = cut_off(&packets.complaint).map(str::to_owned);
        let missing = (decoded.value.len() < wanted).then(|| first_line(&decoded.complaint).to_owned());
        complete(self.path, decoded.value, wanted, cut.or(missing), self.options)
    }

    /// How many frames are wanted of `total`, and those that came.
    fn sample(&self, total: usize, complaint: &str) -> Result<(usize, Output<Vec<Picture>>), LoadError> {
        let wanted = sample_frames(total, self.options.num_frames);
        if wanted.is_empty() {
            return Err(self.no_frames(complaint));
        }
        let select: Vec<_> = wanted.iter().map(|index| format!("eq(n\\,{index})")).collect();
        let select = format!("select={}", select.join("+"));
        // Before the choice, which counts from the first frame that it sees.
        let select = self.trim().into_iter().chain([select]).collect::<Vec<_>>().join(",");
        let (path, options) = (self.path.to_owned(), self.options.clone());
        let read = move |stdout| read_frames(stdout, &path, &options);
        let output = ["-vf", &select, "-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-"];
        Ok((wanted.len(), self.run_on_all_frames(&output, read)?))
    }

    /// Runs the program so that frames are neither doubled nor dropped to even out their times.
    fn run_on_all_frames<T: Send + 'static>(
        &self,
        output: &[&str],
        read: impl FnOnce(ChildStdout) -> Result<T, LoadError> + Clone + Send + 'static,
    ) -> Result<Output<T>, LoadError> {
        let with = |option| [&[option, "passthrough"], output].concat();
        let result = self.run(&with("-fps_mode"), read.clone())?;
        // The option's name before ffmpeg 5.1.
        if result.complaint.contains("'fps_mode'") { self.run(&with("-vsync"), read) } else { Ok(result) }
    }

    fn run<T: Send + 'static>(
        &self,
        output: &[&str],
        read: impl FnOnce(ChildStdout) -> Result<T, LoadError> + Send + 'static,
    ) -> Result<Output<T>, LoadError> {
        let path = || self.path.to_owned();
        let output = run(self.command(output), self.deadline, read).map_err(|failure| match failure {
            Failure::Start(source) => {
                LoadError::Ffmpeg { path: path(), program: self.program.clone(), source }
            }
            Failure::Refused(error) => error,
            Failure::Timeout => self.options.too_slow(self.path),
        })?;
        // Something else ended it (memory, an operator): what came says nothing about the file.
        if output.status.code().is_none() {
            let found = format!("it was ended by {}", output.status);
            return Err(LoadError::Decoder { path: path(), decoder: "ffmpeg", found });
        }
        Ok(output)
    }

    fn command(&self, output: &[&str]) -> Command {
        // `file:` and the list of protocols keep a file name from being read as an address.
        let mut input = OsString::from("file:");
        input.push(self.path);
        let mut command = Command::new(&self.program);
        command.args(["-nostdin", "-v", "error", "-threads", "2", "-protocol_whitelist", "file,pipe"]);
        if let Some(span) = self.span.filter(|span| !span.from_the_first) {
            command.args(["-ss", &format!("{:.6}", span.start), "-t", &format!("{:.6}", span.length)]);
        }
        command.args(["-max_pixels", &self.most_pixels().to_string(), "-i"]);
        command.arg(input).args(["-map", "0:v:0"]).args(output);
        command
    }

    /// Bounds the memory for frames before they come here. Twice the limit, as decoders round sizes up;
    /// what comes is checked exactly.
    fn most_pixels(&self) -> u64 {
        self.options.max_pixels.saturating_mul(2).min(i32::MAX as u64)
    }

    fn no_frames(&self, complaint: &str) -> LoadError {
        let path = self.path.to_owned();
        if let Some(line) = complaint.lines().find(|line| line.contains("max pixel count")) {
            return LoadError::TooLarge {
                path,
                found: format!("holds larger frames (ffmpeg says: {})", line.trim()),
                limit: format!("{} pixels", self.options.max_pixels),
                option: "max_pixels",
            };
        }
        let found = match first_line(complaint) {
            "" => "ffmpeg finds no video packet".to_owned(),
            complaint => format!("ffmpeg says: {complaint}"),
        };
        LoadError::Video { path, found }
    }
}

/// Reads PPM pictures until the stream ends. Each tells its own size, so turned videos come right.
fn read_frames(stdout: ChildStdout, path: &Path, options: &LoadOptions) -> Result<Vec<Picture>, LoadError> {
    let mut stream = BufReader::with_capacity(1 << 18, stdout);
    let (mut frames, mut bytes) = (Vec::new(), 0);
    while let Some((width, height)) = ppm_size(&mut stream) {
        options.check_size(path, width, height)?;
        let length = u64::from(width) * u64::from(height) * 3;
        bytes += length;
        options.check_clip(path, bytes, 1)?;
        let mut rgb = vec![0; length as usize];
        if width == 0 || height == 0 || stream.read_exact(&mut rgb).is_err() {
            break;
        }
        frames.push(Picture::new(width, height, rgb));
    }
    Ok(frames)
}

fn first_line(complaint: &str) -> &str {
    complaint.lines().next().unwrap_or_default().trim()
}

/// What a reader of MP4, MOV, Matroska or WebM says of a file that ends early: fewer packets are listed
/// then than there should be, and all of them may be decoded.
fn cut_off(complaint: &str) -> Option<&str> {
    const WORDS: [&str; 2] = ["partial file", "ended prematurely"];
    complaint.lines().map(str::trim).find(|line| WORDS.iter().any(|words| line.contains(words)))
}

/// Counts the packets that are shown in the output of `framecrc`, which has a line for each.
fn count_packets(stdout: ChildStdout) -> Result<usize, LoadError> {
    // Far more than a million packets.
    const MAX_BYTES: u64 = 256 << 20;
    let lines = BufReader::new(stdout.take(MAX_BYTES)).lines().map_while(Result::ok);
    Ok(lines.filter(|line| is_shown(line)).count())
}

/// The seconds from the first packet to the end of the last one; `None` where there is none.
///
/// `#tb 0: 1/12800` gives the unit of times, a packet is `0, dts, pts, duration, bytes, checksum`.
fn read_length(stdout: ChildStdout) -> Result<Option<f64>, LoadError> {
    let (mut unit, mut first, mut last) = (None, f64::INFINITY, f64::NEG_INFINITY);
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        if let Some(ratio) = line.strip_prefix("#tb 0:") {
            let (over, under) = ratio.trim().split_once('/').unwrap_or_default();
            unit = over.parse::<f64>().ok().zip(under.parse::<f64>().ok()).map(|(over, under)| over / under);
        } else if is_shown(&line) {
            let numbers: Vec<f64> =
                line.split(',').skip(2).map_while(|word| word.trim().parse().ok()).collect();
            if let [pts, duration, ..] = numbers[..] {
                (first, last) = (first.min(pts), last.max(pts + duration));
            }
        }
    }
    Ok(unit.filter(|_| last >= first).map(|unit| (last - first) * unit))
}

/// Whether a line of `framecrc` is a packet, and not one that an edit list hides (it is needed by
/// others and gives no frame). Flags stand last: `0, 0, 512, 1, 2021, 0x7aa2, F=0x4`.
fn is_shown(line: &str) -> bool {
    const DISCARD: u32 = 4;
    let flags = line.rsplit(", F=0x").next().filter(|flags| flags.len() < line.len());
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 16).ok()).unwrap_or(0);
    !line.is_empty() && !line.starts_with('#') && flags & DISCARD == 0
}

/// Reads the head of a binary PPM picture: `P6`, width, height, 255. `None` at the end of the stream.
fn ppm_size(stream: &mut impl BufRead) -> Option<(u32, u32)> {
    let mut words = Vec::new();
    while words.len() < 4 {
        let mut line = Vec::new();
        stream.by_ref().take(64).read_until(b'\n', &mut line).ok().filter(|count| *count > 0)?;
        words.extend(String::from_utf8(line).ok()?.split_whitespace().map(str::to_owned));
    }
    match words.as_slice() {
        [magic, width, height, depth] if magic == "P6" && depth == "255" => {
            Some((width.parse().ok()?, height.parse().ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_packets_are_not_counted() {
        let shown = |line| assert!(is_shown(line), "{line}");
        let hidden = |line| assert!(!is_shown(line), "{line}");
        shown("0,          0,          0,      512,     2021, 0x7aa2ddd9");
        shown("0,        512,       2048,      512,      120, 0x1b8a2ddd, F=0x0");
        hidden("0,      -2560,      -1536,      512,      900, 0x1b8a2ddd, F=0x5");
        hidden("#tb 0: 1/12800");
        hidden("");
    }

    #[test]
    fn words_for_a_cut_file_are_found() {
        let line = "[mov @ 0x1] stream 0, offset 0x3397: partial file";
        assert_eq!(cut_off(&format!("[NULL @ 0x2] Invalid NAL unit size\n  {line}\n")), Some(line));
        assert!(cut_off("[matroska,webm @ 0x1] File ended prematurely").is_some());
        assert_eq!(cut_off("[mpeg4 @ 0x1] ac-tex damaged at 2 3"), None);
        assert_eq!(cut_off(""), None);
    }

    #[test]
    fn reads_sizes_of_ppm_pictures() {
        let mut stream = &b"P6\n640 360\n255\nrgb"[..];
        assert_eq!(ppm_size(&mut stream), Some((640, 360)));
        assert_eq!(stream, b"rgb");
        assert_eq!(ppm_size(&mut &b"P6\n640 360\n65535\n"[..]), None);
        assert_eq!(ppm_size(&mut &b""[..]), None);
        assert_eq!(ppm_size(&mut &b"P6\n640"[..]), None);
    }
}
