//! Pieces of films as pictures and rows.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};
use rzen_core::{Origin, Part, Picture, VideoSource};

use super::film::Piece;
use super::gather::{Film, PlacedPiece};
use super::{ClipDirection, ClipOptions};
use crate::LoadError;
use crate::ffmpeg::Ffmpeg;
use crate::train_line::Line;

/// Cuts films into the folder of a dataset.
pub(super) struct Cutter<'a> {
    pub program: PathBuf,
    pub options: &'a ClipOptions,
    pub folder: &'a Path,
}

/// What came of a film.
#[derive(Default)]
pub(super) struct Cut {
    pub lines: Vec<String>,
    /// Pictures written.
    pub files: usize,
    /// What was refused, by the row that it stands in, and why.
    pub refused: Vec<(Origin, String)>,
    /// What one should know of, each time.
    pub notes: Vec<&'static str>,
}

/// Of 100: hardly to be told from the frame, at a fifth of the bytes of PNG.
const QUALITY: u8 = 95;

/// Seconds by which a piece may outlast its film: captions are timed by hand, and rounded.
const SLACK: f64 = 1.0;

impl Cutter<'_> {
    /// Cuts a film and makes its rows; `number` names its folder.
    pub fn cut(&self, film: &Film, number: usize) -> Result<Cut, String> {
        let words = |error: LoadError| error.to_string();
        let length = self.ffmpeg(&film.path).seconds().map_err(words)?;
        let mut cut = Cut::default();
        let group = film.path.to_string_lossy();
        let mut captions = Vec::new();
        for (place, told, (start, end)) in self.chosen(film, length, &mut cut) {
            let caption = told.piece.caption.trim();
            match self.write(&film.path, (start, end), &format!("{number:06}/{place:03}"), &mut cut) {
                Ok(clip) => self.rows(&mut cut, "", caption, &clip, Some(&group))?,
                Err(message) => cut.refused.push(told.refusal(&message)),
            }
            captions.push((start, caption));
        }
        // Rows come in any order.
        captions.sort_by(|one, other| one.0.total_cmp(&other.0));
        let of_pieces = || captions.iter().map(|(_, caption)| *caption).collect::<Vec<_>>().join(" ");
        let whole = if film.captions.is_empty() { of_pieces() } else { film.captions.join(" ") };
        if self.options.long_form && !whole.trim().is_empty() {
            match self.write(&film.path, (0.0, length), &format!("{number:06}/whole"), &mut cut) {
                Ok(clip) => self.rows(&mut cut, "_long", whole.trim(), &clip, None)?,
                Err(message) => {
                    cut.refused.push((film.rows[0].clone(), format!("the whole film: {message}")))
                }
            }
        }
        Ok(cut)
    }

    /// The pieces that become clips, each with its place in the film, counted from 1, its start, and its end cut to the film.
    fn chosen<'f>(
        &self,
        film: &'f Film,
        length: f64,
        cut: &mut Cut,
    ) -> Vec<(usize, &'f PlacedPiece, (f64, f64))> {
        let mut chosen: Vec<(usize, &PlacedPiece, (f64, f64))> = Vec::new();
        for (told, place) in film.pieces.iter().zip(1..) {
            let (start, end) = (told.piece.start, told.piece.end.unwrap_or(length));
            if let Some(problem) = problem_of(&told.piece, length) {
                cut.refused.push(told.refusal(&problem));
                continue;
            }
            if end > length {
                cut.notes.push("pieces cut at the end of their film");
            }
            let span = (start, end.min(length));
            if span.1 - start < self.options.min_seconds {
                cut.notes.push("pieces left out that are too short");
            } else if chosen.iter().any(|(_, _, other)| self.overlap(span, *other)) {
                cut.notes.push("pieces left out that overlap an earlier one");
            } else {
                chosen.push((place, told, span));
            }
        }
        chosen
    }

    /// Whether two pieces show so much of the same that one would be a false negative of the other.
    fn overlap(&self, one: (f64, f64), other: (f64, f64)) -> bool {
        let both = one.1.min(other.1) - one.0.max(other.0);
        both > self.options.max_overlap * (one.1 - one.0).min(other.1 - other.0)
    }

    /// Writes the frames of a piece to `media`, in folders of a thousand films.
    fn write(
        &self,
        film: &Path,
        (start, end): (f64, f64),
        name: &str,
        cut: &mut Cut,
    ) -> Result<Vec<Part>, String> {
        let frames =
            self.ffmpeg(film).piece(start, end).frames_of_piece().map_err(|error| error.to_string())?;
        let mut paths = Vec::new();
        for (number, frame) in frames.iter().enumerate() {
            let path = format!("media/{}/{name}_{:02}.jpg", &name[..3], number + 1);
            write_jpeg(&self.folder.join(&path), frame)
                .map_err(|error| format!("can't write `{path}`: {error}; is there room on the disk?"))?;
            paths.push(Path::new(&self.options.dataset).join(path));
        }
        cut.files += paths.len();
        Ok(vec![Part::Video(VideoSource::Frames(paths))])
    }

    fn ffmpeg<'a>(&'a self, film: &'a Path) -> Ffmpeg<'a> {
        Ffmpeg::new(self.program.clone(), film, &self.options.load)
    }

    /// The rows of a clip, one for each direction.
    fn rows(
        &self,
        cut: &mut Cut,
        ending: &str,
        caption: &str,
        clip: &[Part],
        group: Option<&str>,
    ) -> Result<(), String> {
        let options = self.options;
        let words = [Part::Text(caption.trim().to_owned())];
        let base = options.name.as_deref().unwrap_or(&options.dataset);
        let both = options.direction == ClipDirection::Both;
        let mut row = |query, positive, instruction: &Option<String>, direction: &str| {
            let name = format!("{base}{ending}{}", if both { direction } else { "" });
            let line = Line {
                name: Some(name.as_str()).filter(|name| *name != options.dataset),
                instruction: instruction.as_deref(),
                group,
                ..Line::new(&options.dataset, &options.task, query, vec![positive])
            };
            cut.lines.push(line.to_json()?);
            Ok::<(), String>(())
        };
        if options.direction != ClipDirection::VideoToText {
            row(&words, clip, &options.instruction, "_t2v")?;
        }
        if options.direction != ClipDirection::TextToVideo {
            row(clip, &words, &options.reverse_instruction, "_v2t")?;
        }
        Ok(())
    }
}

/// Why a piece can't be cut out of a film of this length.
fn problem_of(piece: &Piece, length: f64) -> Option<String> {
    let (start, end) = (piece.start, piece.end.unwrap_or(length));
    if piece.caption.trim().is_empty() {
        Some("has no caption".to_owned())
    } else if !(start >= 0.0 && end > start) {
        Some(format!("runs from {start} s to {end} s; expected a start, and an end after it"))
    } else if start >= length {
        Some(format!("begins at {start} s, and the film ends at {length:.2} s"))
    } else if end > length + SLACK.max(0.05 * length) {
        Some(format!("ends at {end} s, and the film at {length:.2} s; is it the right film, and whole?"))
    } else {
        None
    }
}

impl PlacedPiece {
    fn refusal(&self, problem: &str) -> (Origin, String) {
        (self.origin.clone(), format!("piece {}: {problem}", self.number))
    }
}

fn write_jpeg(path: &Path, picture: &Picture) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let file = BufWriter::new(File::create(path)?);
    let encoder = JpegEncoder::new_with_quality(file, QUALITY);
    Ok(encoder.write_image(picture.rgb(), picture.width(), picture.height(), ExtendedColorType::Rgb8)?)
}
