//! Pictures inside Parquet files, found without reading what lies before them.
//!
//! Such a picture has a path like any other, `FILE.parquet#COLUMN@PLACE-HASH`. `COLUMN` is the leaf of the schema that holds
//! the bytes, `query.list.element.image.bytes`; `PLACE` counts the places of that leaf from the start of the file,
//! the empty ones too (Parquet's levels), which is how pages can be passed over without unpacking them; `HASH` are the first
//! digits of the bytes' SHA-256, so that a file which changed is noticed.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;
use sha2::{Digest, Sha256};

use crate::isolate::guard;
use crate::parquet_names::is_bytes;
use crate::parquet_pages::opened;
use crate::parquet_rows::damaged;

const MARK: &str = ".parquet#";

/// A picture inside a Parquet file.
#[derive(Debug, PartialEq)]
pub(crate) struct Inside {
    pub file: PathBuf,
    column: String,
    place: u64,
    hash: String,
}

impl Inside {
    /// What the path names, if it is no file of its own.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let end = name.rfind(MARK)? + MARK.len();
        let (column, place) = name[end..].rsplit_once('@')?;
        let (place, hash) = place.split_once('-')?;
        let file = path.with_file_name(&name[..end - 1]);
        Some(Inside { file, column: column.to_owned(), place: place.parse().ok()?, hash: hash.to_owned() })
    }

    /// The bytes of the picture.
    ///
    /// # Errors
    /// What the system says, or what is wrong with the file, as [`io::ErrorKind::InvalidData`].
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let file = open(&self.file)?;
        let bytes = guarded(|| {
            let opened = opened(&self.file, &file)?;
            opened.value(&self.file, &file, &self.column, self.place).map_err(invalid)
        })?;
        match short_hash(&Sha256::digest(&bytes)) == self.hash {
            true => Ok(bytes),
            false => {
                let changed = "other bytes are there than when the rows were read; did the file change?";
                Err(io::Error::new(io::ErrorKind::InvalidData, changed))
            }
        }
    }
}

/// Pipes and devices are refused: reading one may never end.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    match std::fs::metadata(path)?.is_file() {
        true => File::open(path),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file")),
    }
}

/// Makes an error of a panic in the reader of Parquet.
pub(crate) fn guarded<T>(read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    guard(read).unwrap_or_else(|lost| Err(invalid(damaged(lost))))
}

/// What a path holds of a SHA-256.
pub(crate) fn short_hash(digest: &[u8]) -> String {
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn invalid(error: ParquetError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The bytes of the largest page that holds pictures in a Parquet manifest, dictionary included, which is what has to be
/// unpacked to read one of them; 0 where there are none.
///
/// # Errors
/// What the system says, or what is wrong with the file.
pub fn picture_page_bytes(manifest: &Path) -> io::Result<u64> {
    if manifest.extension().is_none_or(|ending| ending != "parquet") {
        return Ok(0);
    }
    let file = open(manifest)?;
    guarded(|| largest_page(manifest, &file))
}

fn largest_page(manifest: &Path, file: &File) -> io::Result<u64> {
    let opened = opened(manifest, file)?;
    let leaves = opened.schema().columns();
    let mut largest = 0;
    for (group, metadata) in opened.metadata.row_groups().iter().enumerate() {
        for leaf in (0..leaves.len()).filter(|leaf| is_bytes(&leaves[*leaf])) {
            let pages = opened.pages(file, (group, leaf), metadata.column(leaf)).map_err(invalid)?;
            largest = pages.data.iter().map(|page| pages.dictionary + page.length).fold(largest, u64::max);
        }
    }
    Ok(largest)
}

/// Whether a path of an item leads to a file, or to a picture inside a Parquet file that is there.
pub fn media_is_there(path: &Path) -> bool {
    Inside::of(path).map_or_else(|| path.is_file(), |inside| inside.file.is_file())
}

/// The SHA-256 of the bytes that a path of an item leads to, a file or a picture inside a Parquet file.
///
/// # Errors
/// What the system says.
pub fn media_sha256(path: &Path) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    match Inside::of(path) {
        Some(inside) => hasher.update(inside.read()?),
        None => {
            let mut file = File::open(path)?;
            let mut piece = vec![0; 1 << 16];
            loop {
                match file.read(&mut piece)? {
                    0 => break,
                    count => hasher.update(&piece[..count]),
                }
            }
        }
    }
    Ok(hasher.finalize().into())
}
