//! Paths for the pictures in the rows of Parquet files.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use parquet::basic::{ConvertedType, Type};
use parquet::schema::types::ColumnDescriptor;
use sha2::{Digest, Sha256};

use crate::cell::Cell;
use crate::parquet_media::{guarded, open, short_hash};
use crate::parquet_pages::opened;

/// Pictures of a dataset and where each was first: equal ones are one, as they are where pictures are files.
#[derive(Clone, Default)]
pub(crate) struct KnownPictures(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    /// `FILE#COLUMN` of each column.
    columns: Vec<String>,
    /// By the first half of the SHA-256: the column, and the place in it.
    places: HashMap<[u8; 16], (u32, u64)>,
}

impl KnownPictures {
    /// The path of a picture, which may be at `place` of `column` first.
    fn path(&self, bytes: &[u8], column: usize, place: u64) -> String {
        let digest: [u8; 32] = Sha256::digest(bytes).into();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        let (column, place) = *known.places.entry(half).or_insert((column as u32, place));
        // Paths in the order of their names are in the order of the file.
        format!("{}@{place:09}-{}", known.columns[column as usize], short_hash(&digest))
    }

    fn add(&self, column: String) -> usize {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.columns.push(column);
        known.columns.len() - 1
    }
}

/// Puts paths in the place of the pictures in the rows of a file, which have to come in order and all.
pub(crate) struct Namer {
    known: KnownPictures,
    leaves: Vec<Leaf>,
}

/// A column of bytes.
struct Leaf {
    /// Its number among the known ones.
    column: usize,
    names: Vec<String>,
    /// Places that went by.
    count: u64,
}

/// What a cell lies in.
#[derive(Clone, Copy)]
struct Holder<'a> {
    key: &'a str,
    listed: bool,
}

impl Namer {
    /// For the file at `path`, called `name` in paths.
    ///
    /// # Errors
    /// If its schema can't be read, or `name` is no text and there are pictures to be named.
    pub fn new(path: &Path, name: &Path, known: KnownPictures) -> io::Result<Self> {
        let file = open(path)?;
        let opened = guarded(|| opened(path, &file))?;
        let schema = opened.schema();
        let mut leaves = Vec::new();
        for leaf in schema.columns().iter().filter(|leaf| is_bytes(leaf)) {
            let name = name
                .to_str()
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "its name is not UTF-8"))?;
            let column = known.add(format!("{name}#{}", leaf.path().string()));
            leaves.push(Leaf { column, names: leaf.path().parts().to_vec(), count: 0 });
        }
        Ok(Namer { known, leaves })
    }

    /// Names the pictures in the next row: whatever is bytes, or a struct of `bytes` and more, under the key `image`, or
    /// in a list under `video`. Other bytes stay.
    pub fn name(&mut self, row: &mut [(String, Cell)]) {
        for leaf in &mut self.leaves {
            let Some((_, cell)) = row.iter_mut().find(|(name, _)| *name == leaf.names[0]) else { continue };
            let holder = Holder { key: &leaf.names[0], listed: false };
            let path = |bytes: &[u8], place| self.known.path(bytes, leaf.column, place);
            visit(cell, &leaf.names[1..], holder, &mut leaf.count, &path);
        }
    }
}

/// Whether a column holds bytes that are no text.
pub(crate) fn is_bytes(leaf: &ColumnDescriptor) -> bool {
    leaf.physical_type() == Type::BYTE_ARRAY
        && leaf.converted_type() == ConvertedType::NONE
        && leaf.logical_type_ref().is_none()
}

/// Counts the places of a leaf, `names` below `cell`.
fn visit(
    cell: &mut Cell,
    names: &[String],
    holder: Holder<'_>,
    count: &mut u64,
    path: &dyn Fn(&[u8], u64) -> String,
) {
    let is_picture = holder.key == "image" || holder.key == "video" && holder.listed;
    match cell {
        Cell::List(cells) if !cells.is_empty() => {
            for cell in cells {
                visit(cell, names, Holder { listed: true, ..holder }, count, path);
            }
        }
        Cell::Struct(fields) => {
            // The names of lists and their elements are in no cell.
            let below = names.iter().enumerate().find_map(|(at, name)| {
                let field = fields.iter().position(|(field, _)| field == name)?;
                Some((at, field))
            });
            let Some((at, field)) = below else { return *count += 1 };
            let last = at + 1 == names.len();
            match &mut fields[field].1 {
                Cell::Bytes(bytes) if last && is_picture && names[at] == "bytes" => {
                    *cell = Cell::Text(path(bytes, *count));
                    *count += 1;
                }
                inner => {
                    let holder = Holder { key: &names[at], listed: false };
                    visit(inner, &names[at + 1..], holder, count, path);
                }
            }
        }
        Cell::Bytes(bytes) if is_picture => {
            *cell = Cell::Text(path(bytes, *count));
            *count += 1;
        }
        _ => *count += 1,
    }
}
