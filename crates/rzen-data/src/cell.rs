//! A value of a table, whichever kind of file it stands in.

use parquet::record::{Field, Row as ParquetRow};
use serde_json::{Map, Number, Value};

/// A value: JSON, and bytes besides.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Cell>),
    /// Keys and values, in order.
    Struct(Vec<(String, Cell)>),
}

impl Cell {
    /// As JSON. A picture of the `datasets` library, a struct of `bytes` and `path`, is its path where it has no bytes.
    ///
    /// Returns `None` where there are bytes, for which JSON has no place.
    pub fn into_json(self) -> Option<Value> {
        Some(match self {
            Cell::Null => Value::Null,
            Cell::Bool(value) => Value::Bool(value),
            Cell::Number(value) => Value::Number(value),
            Cell::Text(text) => Value::String(text),
            Cell::Bytes(_) => return None,
            Cell::List(cells) => Value::Array(cells.into_iter().map(Cell::into_json).collect::<Option<_>>()?),
            Cell::Struct(mut cells) => {
                if let [(bytes, Cell::Null), (path, value @ Cell::Text(_))] = cells.as_mut_slice()
                    && bytes == "bytes"
                    && path == "path"
                {
                    return std::mem::replace(value, Cell::Null).into_json();
                }
                let entries = cells.into_iter().map(|(key, cell)| Some((key, cell.into_json()?)));
                Value::Object(entries.collect::<Option<Map<_, _>>>()?)
            }
        })
    }
}

impl From<Value> for Cell {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Cell::Null,
            Value::Bool(value) => Cell::Bool(value),
            Value::Number(value) => Cell::Number(value),
            Value::String(text) => Cell::Text(text),
            Value::Array(values) => Cell::List(values.into_iter().map(Cell::from).collect()),
            Value::Object(map) => {
                Cell::Struct(map.into_iter().map(|(key, value)| (key, value.into())).collect())
            }
        }
    }
}

impl From<Field> for Cell {
    fn from(field: Field) -> Self {
        // JSON has no NaN.
        let float = |value: f64| Number::from_f64(value).map_or(Cell::Null, Cell::Number);
        match field {
            Field::Null => Cell::Null,
            Field::Bool(value) => Cell::Bool(value),
            Field::Byte(value) => Cell::Number(value.into()),
            Field::Short(value) => Cell::Number(value.into()),
            Field::Int(value) => Cell::Number(value.into()),
            Field::Long(value) => Cell::Number(value.into()),
            Field::UByte(value) => Cell::Number(value.into()),
            Field::UShort(value) => Cell::Number(value.into()),
            Field::UInt(value) => Cell::Number(value.into()),
            Field::ULong(value) => Cell::Number(value.into()),
            Field::Float16(value) => float(value.into()),
            Field::Float(value) => float(value.into()),
            Field::Double(value) => float(value),
            Field::Str(text) => Cell::Text(text),
            Field::Bytes(bytes) => Cell::Bytes(bytes.data().to_vec()),
            Field::Group(row) => Cell::Struct(columns(row)),
            Field::ListInternal(list) => {
                Cell::List(list.elements().iter().cloned().map(Cell::from).collect())
            }
            Field::MapInternal(map) => {
                let entry = |(key, value): &(Field, Field)| (key.to_string(), value.clone().into());
                Cell::Struct(map.entries().iter().map(entry).collect())
            }
            // Days and times read well as text; no manifest has any.
            other => Cell::Text(other.to_string()),
        }
    }
}

/// The columns of a Parquet row, in order.
pub(crate) fn columns(row: ParquetRow) -> Vec<(String, Cell)> {
    row.into_columns().into_iter().map(|(name, field)| (name, field.into())).collect()
}
