//! Rows of Parquet files.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Row as ParquetRow;
use parquet::record::reader::RowIter;
use parquet::schema::types::Type;
use rzen_core::Origin;
use serde_json::{Map, Value};

use crate::ManifestError;
use crate::cell::{Cell, columns};
use crate::isolate::{Lost, guard};
use crate::parquet_names::{KnownPictures, Namer, is_bytes};
use crate::row::Row;

/// Opens a Parquet file; its rows are read as they are asked for.
pub(crate) fn table(
    path: &Path,
) -> Result<impl Iterator<Item = Result<Vec<(String, Cell)>, ParquetError>> + use<>, ManifestError> {
    let reader = open(path)?;
    let schema = reader.metadata().file_metadata().schema_descr();
    let rows = match schema.columns().iter().any(|column| is_bytes(column)) {
        true => RowIter::from_file_into(Box::new(reader)).with_batch_size(LARGE_CELLS),
        false => reader.into_iter(),
    };
    Ok(guarded(rows).map(|row| row.map(columns)))
}

/// Rows up to the one where a damaged file makes the reader panic, which is an error.
fn guarded(
    mut rows: impl Iterator<Item = Result<ParquetRow, ParquetError>>,
) -> impl Iterator<Item = Result<ParquetRow, ParquetError>> {
    let mut broken = false;
    std::iter::from_fn(move || {
        if broken {
            return None;
        }
        guard(|| rows.next()).unwrap_or_else(|lost| {
            broken = true;
            Some(Err(damaged(lost)))
        })
    })
}

/// What a panic in the reader comes to.
pub(crate) fn damaged(lost: Lost) -> ParquetError {
    match lost {
        Lost::Panic(message) => ParquetError::General(message),
        Lost::Timeout => ParquetError::General("it did not end".to_owned()),
    }
}

/// So many rows of each column lie in memory at once where cells may be large.
const LARGE_CELLS: usize = 16;

/// Opens a Parquet file of large cells; of its columns those named are read, where there are such.
pub(crate) fn table_of(
    path: &Path,
    names: &[&str],
) -> Result<impl Iterator<Item = Result<Vec<(String, Cell)>, ParquetError>> + use<>, ManifestError> {
    let unreadable = |source| ManifestError::Parquet { path: path.to_owned(), source };
    let reader = open(path)?;
    let schema = reader.metadata().file_metadata().schema();
    let fields = schema.get_fields().iter().filter(|field| names.contains(&field.name())).cloned().collect();
    let wanted = Type::group_type_builder(schema.name()).with_fields(fields).build().map_err(unreadable)?;
    let rows = RowIter::from_file_into(Box::new(reader)).with_batch_size(LARGE_CELLS);
    Ok(guarded(rows.project(Some(wanted)).map_err(unreadable)?).map(|row| row.map(columns)))
}

/// The columns of a Parquet file, in order.
pub(crate) fn column_names(path: &Path) -> Result<Vec<String>, ManifestError> {
    let reader = open(path)?;
    let schema = reader.metadata().file_metadata().schema();
    Ok(schema.get_fields().iter().map(|field| field.name().to_owned()).collect())
}

fn open(path: &Path) -> Result<SerializedFileReader<File>, ManifestError> {
    let file = File::open(path).map_err(|source| ManifestError::Read { path: path.to_owned(), source })?;
    let unreadable = |source| ManifestError::Parquet { path: path.to_owned(), source };
    guard(|| SerializedFileReader::new(file)).unwrap_or_else(|lost| Err(damaged(lost))).map_err(unreadable)
}

/// Reads the rows of a manifest one by one. `allowed` are the columns that there may be; those in `json` may hold JSON
/// in text. Pictures inside the file get paths in their place, which begin with `name`.
pub(crate) fn each_row(
    path: &Path,
    name: &Path,
    known: KnownPictures,
    allowed: &'static [&'static str],
    json: &'static [&'static str],
) -> Result<impl Iterator<Item = Result<Row, ManifestError>> + use<>, ManifestError> {
    let file: Arc<Path> = path.into();
    let rows = table(path)?;
    let unreadable = |source| ManifestError::Read { path: path.to_owned(), source };
    let mut namer = Namer::new(path, name, known).map_err(unreadable)?;
    Ok(rows.enumerate().map(move |(index, cells)| {
        let origin = Origin { file: file.clone(), line: index + 1 };
        let mut cells =
            cells.map_err(|source| ManifestError::Parquet { path: file.to_path_buf(), source })?;
        namer.name(&mut cells);
        let mut map = Map::new();
        for (column, cell) in cells {
            let value = match cell {
                Cell::Text(text) if json.contains(&column.as_str()) => {
                    let json = serde_json::from_str::<Value>(&text);
                    json.map_err(|source| ManifestError::Json { origin: origin.clone(), source })?
                }
                cell => match cell.into_json() {
                    Some(value) => value,
                    None => return Err(ManifestError::Bytes { origin, column }),
                },
            };
            map.insert(column, value);
        }
        Ok(Row::new(origin, map, allowed))
    }))
}
