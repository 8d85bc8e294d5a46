//! Rows about films, in the layouts that there are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::ManifestError;
use crate::cell::Cell;
use crate::import::ImportError;
use crate::import::Refusal;
use crate::import::placeholders::take_marks;
use crate::import::record::{Record, Rows, list_of, record_of, records, text_of, texts_of};

/// What a row says of a film.
pub(super) struct FilmRow {
    pub path: PathBuf,
    pub pieces: Vec<Piece>,
    /// What is said of all of it.
    pub caption: Option<String>,
}

/// A piece of a film.
pub(super) struct Piece {
    /// In seconds.
    pub start: f64,
    /// In seconds; `None` for the end of the film.
    pub end: Option<f64>,
    pub caption: String,
}

/// The rows of a file, in order; what is wrong with one is said in words.
type FilmRows = Box<dyn Iterator<Item = Result<Result<FilmRow, String>, ImportError>>>;

/// Reads JSON, JSON Lines or Parquet of any known layout, told by its columns, an object of films by their ids, or
/// lines `ID START END##CAPTION`.
pub(super) fn film_rows(input: &Path, media: Option<&Path>) -> Result<FilmRows, ImportError> {
    let folder = media.or(input.parent()).unwrap_or(Path::new("")).to_owned();
    let ending = input.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let rows: Rows<Record> = match ending {
        "txt" => return lines(input, folder),
        "json" => match by_id(input)? {
            Some(rows) => rows,
            None => records(input)?,
        },
        _ => records(input)?,
    };
    Ok(Box::new(rows.map(
        move |record| match record.and_then(|mut record| Ok(film_row(&mut record, &folder)?)) {
            Ok(row) => Ok(Ok(row)),
            Err(Refusal::Row(message)) => Ok(Err(message)),
            Err(Refusal::Failed(error)) => Err(error),
        },
    )))
}

/// The films of an object of objects, each with its key as `video_id`; `None` for any other file.
fn by_id(input: &Path) -> Result<Option<Rows<Record>>, ImportError> {
    let text = fs::read(input).map_err(|source| ManifestError::Read { path: input.to_owned(), source })?;
    let Ok(films) = serde_json::from_slice::<Map<String, Value>>(&text) else { return Ok(None) };
    if !films.values().all(Value::is_object) {
        return Ok(None);
    }
    let folder = input.parent().unwrap_or(Path::new("")).into();
    let record = move |(index, (id, value)): (usize, (String, Value))| {
        let mut cells = vec![("video_id".to_owned(), Cell::Text(id))];
        if let Value::Object(map) = value {
            cells.extend(map.into_iter().map(|(name, value)| (name, value.into())));
        }
        Ok(Record::new(std::sync::Arc::clone(&folder), index + 1, cells))
    };
    Ok(Some(Box::new(films.into_iter().enumerate().map(record))))
}

/// Charades-STA's lines, a piece each.
fn lines(input: &Path, folder: PathBuf) -> Result<FilmRows, ImportError> {
    let text =
        fs::read_to_string(input).map_err(|source| ManifestError::Read { path: input.to_owned(), source })?;
    let lines: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    Ok(Box::new(lines.into_iter().map(move |line| {
        let read = || {
            let (place, caption) = line.split_once("##")?;
            let words: Vec<&str> = place.split_whitespace().collect();
            let [id, start, end] = words[..] else { return None };
            let piece = Piece {
                start: start.parse().ok()?,
                end: Some(end.parse().ok()?),
                caption: caption.trim().to_owned(),
            };
            Some((id, piece))
        };
        let row = match read() {
            None => Err(format!("`{line}` is not `ID START END##CAPTION`")),
            Some((id, piece)) => {
                find(id, &folder).map(|path| FilmRow { path, pieces: vec![piece], caption: None })
            }
        };
        Ok(row)
    })))
}

fn film_row(record: &mut Record, folder: &Path) -> Result<FilmRow, String> {
    let name = ["video", "video_path", "video_id", "id"].into_iter().find_map(|name| record.take(name));
    let name = name.map_or(Ok(None), |cell| text_of(cell, "video"))?;
    let name = name.ok_or("names no film; expected `video`, `video_path`, `video_id` or `id`")?;
    let path = find(&name, folder)?;
    let mut caption = None;
    let pieces = if let Some(cell) = record.take("segments") {
        caption = record.text("caption")?;
        segments(cell, record)?
    } else if let Some(cell) = record.take("timestamps") {
        caption = record.text("caption")?;
        timestamps(cell, record)?
    } else if let Some(cell) = record.take("timestamp") {
        let (pieces, whole) = keyframes(cell, record)?;
        caption = whole;
        pieces
    } else {
        vec![one_piece(record)?]
    };
    Ok(FilmRow { path, pieces, caption })
}

/// `segments: [{start, end, caption}]`.
fn segments(cell: Cell, outer: &Record) -> Result<Vec<Piece>, String> {
    let piece = |cell| {
        let mut segment = record_of(cell, "segments", outer)?;
        let start = seconds(segment.required("start")?)?;
        let end = segment.take("end").map(seconds).transpose()?;
        Ok(Piece { start, end, caption: segment.required_text("caption")? })
    };
    list_of(cell, "segments")?.into_iter().map(piece).collect()
}

/// ActivityNet Captions: `timestamps: [[start, end]]` and as many `sentences` (or `captions`).
fn timestamps(cell: Cell, record: &mut Record) -> Result<Vec<Piece>, String> {
    let spans = list_of(cell, "timestamps")?;
    let captions =
        record.take_any(&["sentences", "captions"]).ok_or("has `timestamps` and no `sentences`")?;
    let captions = texts_of(captions, "sentences")?;
    if spans.len() != captions.len() {
        let (found, expected) = (captions.len(), spans.len());
        return Err(format!("has {expected} `timestamps` and {found} sentences; expected one for each"));
    }
    let piece = |(span, caption): (Cell, String)| {
        let [start, end] = <[Cell; 2]>::try_from(list_of(span, "timestamps")?)
            .map_err(|_| "column `timestamps` holds a list that is not a start and an end".to_owned())?;
        Ok(Piece { start: seconds(start)?, end: Some(seconds(end)?), caption: caption.trim().to_owned() })
    };
    spans.into_iter().zip(captions).map(piece).collect()
}

/// ShareGPT4Video: `timestamp` holds the times of key frames, `captions: [{idx, content}]` what begins at each, `idx` being
/// its place in `timestamp`, counted from 0; under `idx` -1 stands what is said of the whole film.
fn keyframes(cell: Cell, record: &mut Record) -> Result<(Vec<Piece>, Option<String>), String> {
    let times = list_of(cell, "timestamp")?.into_iter().map(seconds).collect::<Result<Vec<f64>, _>>()?;
    let mut captions = BTreeMap::new();
    for cell in list_of(record.required("captions")?, "captions")? {
        let mut caption = record_of(cell, "captions", record)?;
        let idx = caption.required_text("idx")?;
        let place: i64 = idx.parse().ok().filter(|place| *place >= -1).ok_or_else(|| {
            format!("a caption has `idx` {idx}, expected the place of its time counted from 0, or -1")
        })?;
        if place >= times.len() as i64 {
            let found = times.len();
            return Err(format!(
                "the caption of `idx` {place} has no time; `timestamp` holds {found}, counted from 0"
            ));
        }
        if captions.insert(place, caption.required_text("content")?).is_some() {
            return Err(format!("two captions have `idx` {place}; expected one for each time"));
        }
    }
    let whole = captions.remove(&-1);
    let piece = |(place, caption)| {
        let place = place as usize;
        Piece { start: times[place], end: times.get(place + 1).copied(), caption }
    };
    Ok((captions.into_iter().map(piece).collect(), whole))
}

/// A row that is one piece: `start` and `end` beside a `caption`, a `sentence`, or LLaVA's `conversations` (VideoChat-Flash),
/// whose first answer is the caption. Without a start it is the whole film.
fn one_piece(record: &mut Record) -> Result<Piece, String> {
    let start = record.take("start").map_or(Ok(0.0), seconds)?;
    let end = record.take("end").map(seconds).transpose()?;
    if let Some(caption) = record.take_any(&["caption", "sentence"]) {
        let caption = text_of(caption, "caption")?.ok_or("column `caption` is empty")?;
        return Ok(Piece { start, end, caption });
    }
    let column = "conversations";
    let turns = record.take(column).ok_or(
        "has no captions that are known here; expected `segments`, `timestamps` with `sentences`, `timestamp` with \
         `captions`, or `start` and `end` with `caption` or `conversations`",
    )?;
    for cell in list_of(turns, column)? {
        let mut turn = record_of(cell, column, record)?;
        let from = turn.required_text("from")?;
        if matches!(from.as_str(), "gpt" | "assistant") {
            let (caption, _) = take_marks(&turn.required_text("value")?, "<video>");
            return Ok(Piece { start, end, caption: caption.trim().to_owned() });
        }
    }
    Err("column `conversations` holds no answer".to_owned())
}

/// Seconds as a number, or as a clock shows them: `01:02:03.5`.
fn seconds(cell: Cell) -> Result<f64, String> {
    let text = text_of(cell, "start")?.ok_or("a time is empty")?;
    let mut sum = 0.0;
    for word in text.split(':') {
        let value: f64 =
            word.trim().parse().map_err(|_| format!("`{text}` is no time; expected seconds or h:m:s"))?;
        sum = sum * 60.0 + value;
    }
    Ok(sum)
}

/// The file of a film; ids may lack the ending.
fn find(name: &str, folder: &Path) -> Result<PathBuf, String> {
    const ENDINGS: [&str; 6] = ["mp4", "mkv", "webm", "avi", "mov", "m4v"];
    let path = folder.join(name);
    let with = |ending| {
        let mut path = path.clone().into_os_string();
        path.push(format!(".{ending}"));
        PathBuf::from(path)
    };
    let found = std::iter::once(path.clone()).chain(ENDINGS.map(with)).find(|path| path.is_file());
    found.ok_or_else(|| {
        format!("film `{}` is not there; check the path, and the folder given as media", path.display())
    })
}
