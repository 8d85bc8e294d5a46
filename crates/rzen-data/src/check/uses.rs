//! What is seen and read, and where it stands.

use std::collections::HashMap;

use rzen_core::Part;

use super::gather::{Gathered, Numbers, Piece, Role};
use super::picture_facts::PictureFacts;
use super::scan::{Scanned, Seen};

/// A place: the number of a row, and what the content is to it.
pub(super) type Use = (usize, Role);

/// The contents of a corpus, equal ones once, with their places in the order of the rows.
pub(super) struct Uses {
    /// For each file, the first one that holds the same bytes and is read in the same way.
    pub first_file: Vec<usize>,
    /// For each file, where it stands.
    pub files: Vec<Vec<Use>>,
    /// Pictures, pages and clips.
    pub visuals: Vec<Visual>,
    /// Items that are texts alone, their parts joined, without white space around them.
    pub texts: Vec<Text>,
    /// For each item, the first one of the same content.
    pub first_item: Vec<usize>,
}

/// A picture, a page or a clip.
pub(super) struct Visual {
    /// One file, or the frames of a clip.
    pub files: Vec<usize>,
    /// An item that holds it, for its parts as they are written.
    pub part: Part,
    pub uses: Vec<Use>,
}

pub(super) struct Text {
    pub text: String,
    pub uses: Vec<Use>,
}

impl Uses {
    pub fn of(gathered: &Gathered, scanned: &[Scanned]) -> Self {
        let first_file = first_files(gathered, scanned);
        let items = &gathered.items.values;
        let mut files = vec![Vec::new(); first_file.len()];
        let mut visuals = (Numbers::<(bool, Vec<usize>)>::default(), Vec::<Visual>::new());
        let mut texts = (Numbers::<String>::default(), Vec::<Text>::new());
        let mut same = HashMap::new();
        let mut first_item = Vec::new();
        for (number, pieces) in items.iter().enumerate() {
            let key: Vec<Piece> =
                pieces.iter().map(|piece| first_piece(piece, gathered, &first_file)).collect();
            first_item.push(*same.entry(key).or_insert(number));
        }
        // By item, as rows share them.
        let seen: Vec<Vec<(usize, Vec<usize>)>> = items
            .iter()
            .enumerate()
            .map(|(item, pieces)| {
                let pieces = pieces.iter().enumerate();
                pieces
                    .filter_map(|(at, piece)| {
                        let (is_clip, own) = match piece {
                            Piece::Text(_) => return None,
                            Piece::Media(file) => (false, vec![*file]),
                            Piece::Frames(frames) => (true, frames.clone()),
                        };
                        let key = own.iter().map(|file| first_file[*file]).collect::<Vec<_>>();
                        let visual = visuals.0.of((is_clip, key.clone()));
                        if visual == visuals.1.len() {
                            let part = gathered.parts(item).swap_remove(at);
                            visuals.1.push(Visual { files: key, part, uses: Vec::new() });
                        }
                        Some((visual, own))
                    })
                    .collect()
            })
            .collect();
        let read: Vec<Option<usize>> = (0..items.len())
            .map(|item| {
                let text = text_alone(gathered, item)?;
                let number = texts.0.of(text.clone());
                if number == texts.1.len() {
                    texts.1.push(Text { text, uses: Vec::new() });
                }
                Some(number)
            })
            .collect();
        let (mut visuals, mut texts) = (visuals.1, texts.1);
        for (row, contents) in gathered.rows.iter().enumerate().map(|(number, row)| (number, &row.contents)) {
            for (role, item) in contents {
                for (visual, own) in &seen[*item] {
                    push(&mut visuals[*visual].uses, (row, *role));
                    own.iter().for_each(|file| push(&mut files[*file], (row, *role)));
                }
                if let Some(text) = read[*item] {
                    push(&mut texts[text].uses, (row, *role));
                }
            }
        }
        Uses { first_file, files, visuals, texts, first_item }
    }
}

/// Adds a place that isn't the last one already.
fn push(uses: &mut Vec<Use>, place: Use) {
    if uses.last() != Some(&place) {
        uses.push(place);
    }
}

fn first_files(gathered: &Gathered, scanned: &[Scanned]) -> Vec<usize> {
    let mut first = HashMap::new();
    let files = gathered.media.values.iter().zip(scanned).enumerate();
    files
        .map(|(number, (part, scanned))| {
            let way = match part {
                Part::Document { page, .. } => *page,
                Part::Video(_) => 0,
                // Pages are counted from 1, and there are fewer.
                _ => u32::MAX,
            };
            scanned.digest.map_or(number, |digest| *first.entry((digest, way)).or_insert(number))
        })
        .collect()
}

/// The piece that stands for all of its content.
fn first_piece(piece: &Piece, gathered: &Gathered, first_file: &[usize]) -> Piece {
    match piece {
        Piece::Text(text) => {
            let trimmed = gathered.texts.values[*text].trim();
            Piece::Text(gathered.texts.get(trimmed).unwrap_or(*text))
        }
        Piece::Media(file) => Piece::Media(first_file[*file]),
        Piece::Frames(frames) => Piece::Frames(frames.iter().map(|file| first_file[*file]).collect()),
    }
}

/// The text of an item that holds nothing else.
fn text_alone(gathered: &Gathered, item: usize) -> Option<String> {
    let text = |piece: &Piece| match piece {
        Piece::Text(text) => Some(gathered.texts.values[*text].trim()),
        _ => None,
    };
    let texts: Vec<&str> = gathered.items.values[item].iter().map(text).collect::<Option<_>>()?;
    Some(texts.join(" ").trim().to_owned())
}

impl Visual {
    /// What was measured: one picture, or the frames of a clip; `None` where a file of it can't be read.
    pub fn facts<'a>(&self, scanned: &'a [Scanned]) -> Option<Facts<'a>> {
        let of_file = |file: &usize| scanned[*file].seen.as_ref().ok();
        if let (Part::Video(_), frames) = (&self.part, &self.files) {
            let seen: Vec<&Seen> = frames.iter().map(of_file).collect::<Option<_>>()?;
            let frames = seen.into_iter().flat_map(|seen| match seen {
                Seen::Picture(picture) => std::slice::from_ref(picture),
                Seen::Clip(frames) => frames.as_slice(),
            });
            return Some(Facts { is_clip: true, frames: frames.collect() });
        }
        match of_file(&self.files[0])? {
            Seen::Picture(picture) => Some(Facts { is_clip: false, frames: vec![picture] }),
            Seen::Clip(_) => None,
        }
    }
}

/// What was measured of a picture or a clip.
pub(super) struct Facts<'a> {
    pub is_clip: bool,
    /// The picture, or the clip's frames.
    pub frames: Vec<&'a PictureFacts>,
}

impl Facts<'_> {
    /// The largest of a number over all frames: a clip may begin in the dark.
    pub fn most(&self, number: impl Fn(&PictureFacts) -> f32) -> f32 {
        self.frames.iter().map(|frame| number(frame)).fold(0.0, f32::max)
    }
}
