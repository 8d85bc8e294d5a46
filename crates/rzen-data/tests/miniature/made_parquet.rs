//! Parquet files of JSON rows.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{ConvertedType, Repetition};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::Type;
use serde_json::Value;

/// Writes rows in the columns of `schema`, in one group. Bytes that are no text are lists of numbers.
pub fn write_parquet(path: &Path, schema: &str, rows: &[Value]) {
    let properties = WriterProperties::builder().set_compression(parquet::basic::Compression::SNAPPY).build();
    write_parquet_as(path, schema, rows, rows.len().max(1), properties);
}

/// The same in groups of so many rows.
pub fn write_parquet_as(
    path: &Path,
    schema: &str,
    rows: &[Value],
    group_len: usize,
    properties: WriterProperties,
) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer =
        SerializedFileWriter::new(File::create(path).unwrap(), schema.clone(), Arc::new(properties)).unwrap();
    for rows in rows.chunks(group_len) {
        write_group(&mut writer, &schema, rows);
    }
    writer.close().unwrap();
}

fn write_group(writer: &mut SerializedFileWriter<File>, schema: &Type, rows: &[Value]) {
    let mut leaves: Vec<Leaf> = (0..count_leaves(schema)).map(|_| Leaf::default()).collect();
    for row in rows {
        shred_inside(schema, row, Levels::default(), &mut leaves);
    }
    let mut group = writer.next_row_group().unwrap();
    for leaf in leaves {
        let mut column = group.next_column().unwrap().unwrap();
        let levels = (Some(leaf.definitions.as_slice()), Some(leaf.repetitions.as_slice()));
        match column.untyped() {
            ColumnWriter::ByteArrayColumnWriter(writer) => {
                let values: Vec<ByteArray> = leaf.values.iter().map(bytes).collect();
                writer.write_batch(&values, levels.0, levels.1).unwrap();
            }
            ColumnWriter::Int64ColumnWriter(writer) => {
                let values: Vec<i64> = leaf.values.iter().map(|value| value.as_i64().unwrap()).collect();
                writer.write_batch(&values, levels.0, levels.1).unwrap();
            }
            ColumnWriter::DoubleColumnWriter(writer) => {
                let values: Vec<f64> = leaf.values.iter().map(|value| value.as_f64().unwrap()).collect();
                writer.write_batch(&values, levels.0, levels.1).unwrap();
            }
            _ => panic!("no test has such a column"),
        }
        column.close().unwrap();
    }
    group.close().unwrap();
}

/// What is written of a column.
#[derive(Default)]
struct Leaf {
    values: Vec<Value>,
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
}

/// The levels of a value, and how many lists it lies in.
#[derive(Clone, Copy, Default)]
struct Levels {
    definition: i16,
    repetition: i16,
    lists: i16,
}

fn bytes(value: &Value) -> ByteArray {
    match value {
        Value::String(text) => text.as_str().into(),
        list => serde_json::from_value::<Vec<u8>>(list.clone()).unwrap().into(),
    }
}

fn count_leaves(node: &Type) -> usize {
    if node.is_primitive() { 1 } else { node.get_fields().iter().map(|field| count_leaves(field)).sum() }
}

/// Takes a value apart into the columns below `node`, of which `leaves` begins with the first.
fn shred(node: &Type, value: &Value, levels: Levels, leaves: &mut [Leaf]) {
    match node.get_basic_info().repetition() {
        Repetition::OPTIONAL if value.is_null() => nothing(node, levels, leaves),
        Repetition::OPTIONAL => {
            shred_inside(node, value, Levels { definition: levels.definition + 1, ..levels }, leaves);
        }
        _ => shred_inside(node, value, levels, leaves),
    }
}

fn shred_inside(node: &Type, value: &Value, levels: Levels, leaves: &mut [Leaf]) {
    if node.is_primitive() {
        leaves[0].values.push(value.clone());
        return nothing(node, levels, leaves);
    }
    if node.get_basic_info().converted_type() == ConvertedType::LIST {
        let element = &node.get_fields()[0].get_fields()[0];
        let items = value.as_array().unwrap();
        if items.is_empty() {
            return nothing(node, levels, leaves);
        }
        let (definition, lists) = (levels.definition + 1, levels.lists + 1);
        for (place, item) in items.iter().enumerate() {
            let repetition = if place == 0 { levels.repetition } else { lists };
            shred(element, item, Levels { definition, repetition, lists }, leaves);
        }
        return;
    }
    let mut first = 0;
    for field in node.get_fields() {
        let end = first + count_leaves(field);
        shred(field, &value[field.name()], levels, &mut leaves[first..end]);
        first = end;
    }
}

/// The levels alone; with a value at a leaf, none elsewhere.
fn nothing(node: &Type, levels: Levels, leaves: &mut [Leaf]) {
    for leaf in &mut leaves[..count_leaves(node)] {
        leaf.definitions.push(levels.definition);
        leaf.repetitions.push(levels.repetition);
    }
}
