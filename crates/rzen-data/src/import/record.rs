//! Rows of tables, whichever kind of file they stand in.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{ImportError, Refusal};
use crate::ManifestError;
use crate::cell::Cell;
use crate::parquet_rows::table;

/// One row; columns are taken out as they are used.
pub(crate) struct Record {
    /// The folder of its file.
    pub folder: Arc<Path>,
    /// Its place in its file, counted from 1.
    pub row: usize,
    cells: Vec<(String, Cell)>,
    /// Columns that were looked at and left, for others to take.
    peeked: Vec<String>,
}

/// What comes of a row.
pub(crate) type Rows<T> = Box<dyn Iterator<Item = Result<T, Refusal>>>;

/// The rows of a JSON, JSON Lines or Parquet file, in order.
pub(crate) fn records(path: &Path) -> Result<Rows<Record>, ImportError> {
    let folder: Arc<Path> = path.parent().unwrap_or(Path::new("")).into();
    let record = move |row, cells| Record::new(folder.clone(), row, cells);
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    match ending {
        "parquet" => {
            let (rows, path) = (table(path)?.enumerate(), path.to_owned());
            Ok(Box::new(rows.map(move |(index, cells)| match cells {
                Ok(cells) => Ok(record(index + 1, cells)),
                Err(source) => {
                    let path = path.clone();
                    Err(Refusal::Failed(ManifestError::Parquet { path, source }.into()))
                }
            })))
        }
        "json" | "jsonl" | "ndjson" => {
            let rows = objects(path)?.enumerate();
            Ok(Box::new(rows.map(move |(index, object)| {
                let cells = object?.into_iter().map(|(name, value)| (name, value.into()));
                Ok(record(index + 1, cells.collect()))
            })))
        }
        _ => Err(ImportError::Ending { path: path.to_owned() }),
    }
}

/// The objects of a file: one on each line, or those of one list. Blank lines are no rows.
fn objects(path: &Path) -> Result<Rows<Map<String, Value>>, ImportError> {
    let owned = path.to_owned();
    let unreadable = move |source| ManifestError::Read { path: owned.clone(), source };
    let mut file = BufReader::new(File::open(path).map_err(&unreadable)?);
    if !begins_with_list(&mut file).map_err(&unreadable)? {
        let lines = file.split(b'\n');
        let lines = lines.filter(|line| !line.as_ref().is_ok_and(|line| line.trim_ascii().is_empty()));
        return Ok(Box::new(lines.map(move |line| {
            let line = line.map_err(|source| Refusal::Failed(unreadable(source).into()))?;
            let object = serde_json::from_slice(&line);
            object.map_err(|error| Refusal::Row(format!("not a JSON object: {error}")))
        })));
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(&unreadable)?;
    let values: Vec<Value> = serde_json::from_slice(&text)
        .map_err(|source| ImportError::NoList { path: path.to_owned(), source })?;
    Ok(Box::new(values.into_iter().map(|value| match value {
        Value::Object(map) => Ok(map),
        _ => Err(Refusal::Row("not a JSON object".to_owned())),
    })))
}

fn begins_with_list(file: &mut BufReader<File>) -> std::io::Result<bool> {
    loop {
        let buffer = file.fill_buf()?;
        let blank = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        match buffer.get(blank) {
            Some(byte) => return Ok(*byte == b'['),
            None if buffer.is_empty() => return Ok(false),
            None => file.consume(blank),
        }
    }
}

impl Record {
    /// A row of its columns.
    pub fn new(folder: Arc<Path>, row: usize, cells: Vec<(String, Cell)>) -> Self {
        Record { folder, row, cells, peeked: Vec::new() }
    }

    /// Takes a column; `None` where it is missing or null.
    pub fn take(&mut self, column: &str) -> Option<Cell> {
        let place = self.cells.iter().position(|(name, _)| name == column)?;
        match self.cells.remove(place).1 {
            Cell::Null => None,
            cell => Some(cell),
        }
    }

    /// Takes the first of these columns that there is.
    pub fn take_any(&mut self, columns: &[&str]) -> Option<Cell> {
        columns.iter().find_map(|column| self.take(column))
    }

    /// Takes a column that must be there.
    pub fn required(&mut self, column: &str) -> Result<Cell, String> {
        self.take(column).ok_or_else(|| format!("column `{column}` is missing or empty; {}", self.has()))
    }

    /// Takes a text; `None` where it is missing, null or empty. Numbers are read as text.
    pub fn text(&mut self, column: &str) -> Result<Option<String>, String> {
        self.take(column).map_or(Ok(None), |cell| text_of(cell, column))
    }

    /// Takes a text that must be there.
    pub fn required_text(&mut self, column: &str) -> Result<String, String> {
        match text_of(self.required(column)?, column)? {
            Some(text) => Ok(text),
            None => Err(format!("column `{column}` is empty")),
        }
    }

    /// Reads a text that must be there and leaves it for others.
    pub fn peek_text(&mut self, column: &str) -> Result<String, String> {
        self.peeked.push(column.to_owned());
        match self.cells.iter().find(|(name, _)| name == column) {
            Some((_, cell)) => {
                text_of(cell.clone(), column)?.ok_or_else(|| format!("column `{column}` is empty"))
            }
            None => Err(format!("column `{column}` is missing; {}", self.has())),
        }
    }

    /// The columns that nobody has taken, in order.
    pub fn names(&self) -> Vec<String> {
        let left = self.cells.iter().map(|(name, _)| name).filter(|name| !self.peeked.contains(name));
        left.cloned().collect()
    }

    fn has(&self) -> String {
        let names: Vec<String> = self.cells.iter().map(|(name, _)| format!("`{name}`")).collect();
        format!("the other columns are {}", names.join(", "))
    }
}

/// A cell as text; `None` where it is null or empty.
pub(crate) fn text_of(cell: Cell, column: &str) -> Result<Option<String>, String> {
    match cell {
        Cell::Null => Ok(None),
        Cell::Text(text) => Ok(Some(text).filter(|text| !text.is_empty())),
        Cell::Number(number) => Ok(Some(number.to_string())),
        other => Err(format!("column `{column}` holds {}, expected a text", name_of(&other))),
    }
}

/// A cell as a list of cells.
pub(crate) fn list_of(cell: Cell, column: &str) -> Result<Vec<Cell>, String> {
    match cell {
        Cell::Null => Ok(Vec::new()),
        Cell::List(cells) => Ok(cells),
        other => Err(format!("column `{column}` holds {}, expected a list", name_of(&other))),
    }
}

/// A list of texts, none of them empty.
pub(crate) fn texts_of(cell: Cell, column: &str) -> Result<Vec<String>, String> {
    let text = |cell| text_of(cell, column)?.ok_or_else(|| format!("column `{column}` holds an empty text"));
    list_of(cell, column)?.into_iter().map(text).collect()
}

/// The struct's own record, for reading nested rows.
pub(crate) fn record_of(cell: Cell, column: &str, outer: &Record) -> Result<Record, String> {
    match cell {
        Cell::Struct(cells) => {
            Ok(Record { folder: outer.folder.clone(), row: outer.row, cells, peeked: Vec::new() })
        }
        other => Err(format!("column `{column}` holds {}, expected an object", name_of(&other))),
    }
}

/// What a cell is, in words.
pub(crate) fn name_of(cell: &Cell) -> &'static str {
    match cell {
        Cell::Null => "nothing",
        Cell::Bool(_) => "true or false",
        Cell::Number(_) => "a number",
        Cell::Text(_) => "a text",
        Cell::Bytes(_) => "bytes",
        Cell::List(_) => "a list",
        Cell::Struct(_) => "an object",
    }
}
