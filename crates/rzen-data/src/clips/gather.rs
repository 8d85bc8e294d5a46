//! Films with all that is said of them, in however many rows.

use std::collections::HashMap;
use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;

use rzen_core::Origin;

use super::ClipOptions;
use super::film::{FilmRow, Piece, film_rows};
use crate::import::{ImportError, ImportReport};

/// A film and what is said of it.
pub(super) struct Film {
    pub path: PathBuf,
    /// The rows that name it, one at least, in the order that they come in.
    pub rows: Vec<Origin>,
    pub pieces: Vec<PlacedPiece>,
    /// What is said of all of it, equal texts once.
    pub captions: Vec<String>,
}

/// A piece, and where it is told of.
pub(super) struct PlacedPiece {
    pub piece: Piece,
    pub origin: Origin,
    /// Its place in the row, counted from 1.
    pub number: usize,
}

/// Reads all rows of `inputs`: the films that they name, in the order that they first come in.
pub(super) fn gather(
    inputs: &[PathBuf],
    options: &ClipOptions,
    report: &mut ImportReport,
) -> Result<Vec<Film>, ImportError> {
    let mut films: Vec<Film> = Vec::new();
    let mut places: HashMap<PathBuf, usize> = HashMap::new();
    for input in inputs {
        let input = absolute(input).map_err(|source| ImportError::Write { path: input.clone(), source })?;
        let file: Arc<Path> = input.as_path().into();
        for (index, row) in film_rows(&input, options.media.as_deref())?.enumerate() {
            report.read += 1;
            let origin = Origin { file: Arc::clone(&file), line: index + 1 };
            let row = match row? {
                Ok(row) => row,
                Err(message) => {
                    report.refuse(&origin, message, options.bad_row_limit)?;
                    continue;
                }
            };
            // Rows may spell the path of one film in several ways.
            let path = row.path.canonicalize().unwrap_or_else(|_| row.path.clone());
            let place = *places.entry(path).or_insert(films.len());
            if place == films.len() {
                let path = row.path.clone();
                films.push(Film { path, rows: Vec::new(), pieces: Vec::new(), captions: Vec::new() });
            }
            films[place].add(row, origin);
        }
    }
    Ok(films)
}

impl Film {
    fn add(&mut self, row: FilmRow, origin: Origin) {
        let placed = |(piece, number)| PlacedPiece { piece, origin: origin.clone(), number };
        self.pieces.extend(row.pieces.into_iter().zip(1..).map(placed));
        if let Some(caption) = row.caption.filter(|caption| !self.captions.contains(caption)) {
            self.captions.push(caption);
        }
        self.rows.push(origin);
    }
}
