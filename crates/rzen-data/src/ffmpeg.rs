//! Video frames by the `ffmpeg` program.
//!
//! Two runs: the first lists the packets without decoding, the second decodes once and hands over
//! the chosen frames. Counts in file headers are not believed (they are wrong after edits).

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdout, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use rzen_core::Picture;

use crate::{LoadError, LoadOptions, sample_frames};

/// The program that the options, the environment or the PATH name.
///
/// One that is named but not there is given back all the same: starting it then fails by name.
pub(crate) fn find_ffmpeg(options: &LoadOptions) -> Option<PathBuf> {
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
    deadline: Instant,
}

impl<'a> Ffmpeg<'a> {
    pub fn new(program: PathBuf, path: &'a Path, options: &'a LoadOptions) -> Self {
        let deadline = Instant::now() + Duration::from_millis(options.video_timeout_ms);
        Ffmpeg { program, path, options, deadline }
    }

    /// The sampled frames. A damaged file may give fewer than asked for; none is an error.
    pub fn frames(&self) -> Result<Vec<Picture>, LoadError> {
        let (packets, complaint) = self.run(&["-c", "copy", "-f", "framecrc", "-"], count_packets)?;
        let wanted = sample_frames(packets, self.options.num_frames);
        if wanted.is_empty() {
            return Err(self.no_frames(&complaint));
        }
        let select: Vec<_> = wanted.iter().map(|index| format!("eq(n\\,{index})")).collect();
        let select = format!("select={}", select.join("+"));
        let output = [
            "-vf",
            &select,
            "-fps_mode",
            "passthrough",
            "-f",
            "image2pipe",
            "-c:v",
            "ppm",
            "-pix_fmt",
            "rgb24",
            "-",
        ];
        let (frames, complaint) = self.run(&output, |stdout| self.read_frames(stdout))?;
        // The exit code says nothing: it is 0 for many damaged files.
        if frames.is_empty() { Err(self.no_frames(&complaint)) } else { Ok(frames) }
    }

    /// Runs the program until `read` has what it wants or the deadline has passed, and ends it then.
    /// Gives the first words of its complaints too.
    fn run<T: Send>(
        &self,
        output: &[&str],
        read: impl FnOnce(ChildStdout) -> Result<T, LoadError> + Send,
    ) -> Result<(T, String), LoadError> {
        let mut child = self.command(output).spawn().map_err(|source| LoadError::Ffmpeg {
            path: self.path.to_owned(),
            program: self.program.clone(),
            source,
        })?;
        let stdout = child.stdout.take().expect("stdout was asked for as a pipe");
        let stderr = child.stderr.take().expect("stderr was asked for as a pipe");
        thread::scope(|scope| {
            let complaint = scope.spawn(move || first_complaint(stderr));
            let (sender, receiver) = channel();
            scope.spawn(move || sender.send(read(stdout)).is_ok());
            let left = self.deadline.saturating_duration_since(Instant::now());
            let result = receiver.recv_timeout(left);
            // Whatever came, nothing more is wanted; a process that has ended ignores this.
            let _ = child.kill();
            let _ = child.wait();
            let complaint = complaint.join().unwrap_or_default();
            match result {
                Ok(read) => Ok((read?, complaint)),
                Err(_) => Err(LoadError::Timeout {
                    path: self.path.to_owned(),
                    timeout_ms: self.options.video_timeout_ms,
                    option: "video_timeout_ms",
                }),
            }
        })
    }

    fn command(&self, output: &[&str]) -> Command {
        // `file:` and the list of protocols keep a file name from being read as an address.
        let mut input = std::ffi::OsString::from("file:");
        input.push(self.path);
        let mut command = Command::new(&self.program);
        command.args(["-nostdin", "-v", "error", "-threads", "2", "-protocol_whitelist", "file,pipe", "-i"]);
        command.arg(input).args(["-map", "0:v:0"]).args(output);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Reads PPM pictures until the stream ends. Each tells its own size, so turned videos come right.
    fn read_frames(&self, stdout: ChildStdout) -> Result<Vec<Picture>, LoadError> {
        let mut stream = BufReader::with_capacity(1 << 18, stdout);
        let (mut frames, mut bytes) = (Vec::new(), 0);
        while let Some((width, height)) = ppm_size(&mut stream) {
            self.options.check_size(self.path, width, height)?;
            let length = u64::from(width) * u64::from(height) * 3;
            bytes += length;
            self.options.check_clip(self.path, bytes, 1)?;
            let mut rgb = vec![0; length as usize];
            if width == 0 || height == 0 || stream.read_exact(&mut rgb).is_err() {
                break;
            }
            frames.push(Picture::new(width, height, rgb));
        }
        Ok(frames)
    }

    fn no_frames(&self, complaint: &str) -> LoadError {
        let found = match complaint {
            "" => "ffmpeg finds no video packet".to_owned(),
            complaint => format!("ffmpeg says: {complaint}"),
        };
        LoadError::Video { path: self.path.to_owned(), found }
    }
}

/// Counts the packets that are shown in the output of `framecrc`, which has a line for each.
fn count_packets(stdout: ChildStdout) -> Result<usize, LoadError> {
    // Far more than a million packets.
    const MAX_BYTES: u64 = 256 << 20;
    let lines = BufReader::new(stdout.take(MAX_BYTES)).lines().map_while(Result::ok);
    Ok(lines.filter(|line| is_shown(line)).count())
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

/// Drains a stream of complaints and keeps the first line.
fn first_complaint(mut stderr: ChildStderr) -> String {
    let mut kept = Vec::new();
    // Draining to the end keeps the program from blocking on a full pipe.
    let _ = stderr.by_ref().take(4096).read_to_end(&mut kept);
    let _ = std::io::copy(&mut stderr, &mut std::io::sink());
    String::from_utf8_lossy(&kept).lines().next().unwrap_or_default().trim().to_owned()
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
    fn reads_sizes_of_ppm_pictures() {
        let mut stream = &b"P6\n640 360\n255\nrgb"[..];
        assert_eq!(ppm_size(&mut stream), Some((640, 360)));
        assert_eq!(stream, b"rgb");
        assert_eq!(ppm_size(&mut &b"P6\n640 360\n65535\n"[..]), None);
        assert_eq!(ppm_size(&mut &b""[..]), None);
        assert_eq!(ppm_size(&mut &b"P6\n640"[..]), None);
    }
}
