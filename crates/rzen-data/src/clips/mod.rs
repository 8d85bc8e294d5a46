//! Long videos with captioned pieces, cut into clips that are rows of a dataset.
//!
//! ```text
//! file ─film_rows─► FilmRow ─gather─► Film ─cut─► frames as JPEG below media/, lines of train.jsonl
//! ```
//!
//! Layouts of a piece a row name a film in many rows. Its pieces have to be known together: they must not overlap, and the
//! film is one row with what is said of all of it.
//!
//! A clip is written as the frames that a model will see of it, and not as a video: nothing is encoded again as video,
//! training decodes a few small pictures instead of starting a decoder, and no encoder needs to be there.

mod cut;
mod film;
mod gather;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::import::{ImportError, ImportReport};
use crate::{LoadOptions, find_ffmpeg};
use cut::Cutter;
use gather::gather;

/// What becomes of films.
#[derive(Clone, Debug)]
pub struct ClipOptions {
    /// The dataset's name, and that of its folder in the corpus.
    pub dataset: String,
    /// The rows' task.
    pub task: String,
    /// The rows' `name`; default the dataset's. Directions and long-form rows get endings of their own.
    pub name: Option<String>,
    /// The instruction of captions that look for clips.
    pub instruction: Option<String>,
    /// The instruction of clips that look for captions.
    pub reverse_instruction: Option<String>,
    /// Put before the paths of films; default the folder of the file that names them.
    pub media: Option<PathBuf>,
    /// Which side is the query.
    pub direction: ClipDirection,
    /// Whether whole films become rows too, with all of their captions.
    pub long_form: bool,
    /// Seconds that a piece lasts at least.
    pub min_seconds: f64,
    /// Share of the shorter of two pieces in which they overlap at most.
    pub max_overlap: f64,
    /// Pieces and films that may be refused before the cutting stops.
    pub bad_row_limit: usize,
    /// How films are read; `num_frames` is that of a clip.
    pub load: LoadOptions,
}

/// Which side of a pair is the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClipDirection {
    /// The caption looks for the clip.
    TextToVideo,
    /// The clip looks for the caption.
    VideoToText,
    /// Both, as rows of two names.
    Both,
}

/// Films that are cut side by side, between two words about progress.
const CHUNK: usize = 16;

/// Cuts the films that `inputs` name and writes `train.jsonl` and `media` to `folder`, which exists and is empty. The
/// caller gives it its final place, `dataset` in the corpus. `progress` hears how many films are done, and of how many.
///
/// # Errors
/// If there is no ffmpeg, a file can't be read or written, more pieces are refused than allowed, or none is left.
pub fn cut_clips(
    inputs: &[PathBuf],
    options: &ClipOptions,
    folder: &Path,
    progress: &dyn Fn(usize, usize),
) -> Result<ImportReport, ImportError> {
    let Some(program) = find_ffmpeg(&options.load) else {
        return Err(ImportError::NoFfmpeg);
    };
    let mut report = ImportReport::default();
    let films = gather(inputs, options, &mut report)?;
    report.note_many("films named by the rows", films.len());
    let manifest = folder.join("train.jsonl");
    let failed = |source| ImportError::Write { path: manifest.clone(), source };
    let mut output = BufWriter::new(File::create(&manifest).map_err(failed)?);
    let cutter = Cutter { program, options, folder };
    for (chunk, first) in films.chunks(CHUNK).zip((0..).step_by(CHUNK)) {
        let cut: Vec<_> =
            chunk.par_iter().enumerate().map(|(place, film)| cutter.cut(film, first + place)).collect();
        for (film, cut) in chunk.iter().zip(cut) {
            match cut {
                Err(mut message) => {
                    if let more @ 1.. = film.rows.len() - 1 {
                        message += &format!("; {more} more rows name this film");
                    }
                    report.refuse(&film.rows[0], message, options.bad_row_limit)?;
                }
                Ok(cut) => {
                    for (origin, message) in cut.refused {
                        report.refuse(&origin, message, options.bad_row_limit)?;
                    }
                    for line in &cut.lines {
                        writeln!(output, "{line}").map_err(failed)?;
                    }
                    report.rows += cut.lines.len();
                    report.media_files += cut.files;
                    cut.notes.iter().for_each(|note| report.note(note));
                }
            }
        }
        progress(first + chunk.len(), films.len());
    }
    output.flush().map_err(failed)?;
    match report.rows {
        0 => Err(ImportError::Nothing { read: report.read, bad_rows: report.bad_rows }),
        _ => Ok(report),
    }
}
