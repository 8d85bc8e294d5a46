//! Pictures inside Parquet files, found without reading what lies before them.
//!
//! Such a picture has a path like any other, `FILE.parquet#COLUMN@PLACE`. `COLUMN` is the leaf of the schema that holds
//! the bytes, `query.list.element.image.bytes`; `PLACE` counts the places of that leaf from the start of the file,
//! the empty ones too (Parquet's levels), which is how pages can be passed over without unpacking them.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use parquet::basic::{ConvertedType, Encoding, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::ColumnDescriptor;
use sha2::{Digest, Sha256};

use crate::cell::Cell;

const MARK: &str = ".parquet#";

/// A picture inside a Parquet file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Inside<'a> {
    file: &'a Path,
    column: &'a str,
    place: u64,
}

impl<'a> Inside<'a> {
    /// What the path names, if it is no file of its own.
    pub fn of(path: &'a Path) -> Option<Self> {
        let text = path.to_str()?;
        let end = text.rfind(MARK)? + MARK.len();
        let (column, place) = text[end..].rsplit_once('@')?;
        let place = place.parse().ok().filter(|_| !column.contains(['/', '\\']))?;
        Some(Inside { file: Path::new(&text[..end - 1]), column, place })
    }

    /// The bytes of the picture.
    ///
    /// # Errors
    /// What the system says, or what is wrong with the file, as [`io::ErrorKind::InvalidData`].
    pub fn read(self) -> io::Result<Vec<u8>> {
        let file = File::open(self.file)?;
        let opened = opened(self.file, &file)?;
        opened.value(file, self.column, self.place).map_err(invalid)
    }
}

fn invalid(error: ParquetError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// What is kept of a file: where its pages are.
struct Opened {
    stamp: Stamp,
    metadata: ParquetMetaData,
    /// By row group and column.
    pages: Mutex<HashMap<(usize, usize), Arc<Pages>>>,
}

/// Length and time; a file that changes has others.
type Stamp = (u64, Option<SystemTime>);

/// The pages of a column in a row group.
struct Pages {
    /// Bytes of the dictionary; 0 where there is none.
    dictionary: u64,
    data: Vec<PageStart>,
}

struct PageStart {
    /// From the start of the file, and how long the page is, its header included.
    offset: u64,
    length: u64,
    /// Places of the column in the pages of the row group before this one.
    before: u64,
}

fn opened(path: &Path, file: &File) -> io::Result<Arc<Opened>> {
    static OPENED: LazyLock<Mutex<HashMap<PathBuf, Arc<Opened>>>> = LazyLock::new(Mutex::default);
    let metadata = file.metadata()?;
    let stamp = (metadata.len(), metadata.modified().ok());
    let lock = || OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(opened) = lock().get(path).filter(|opened| opened.stamp == stamp) {
        return Ok(opened.clone());
    }
    let metadata = ParquetMetaDataReader::new().parse_and_finish(file).map_err(invalid)?;
    let opened = Arc::new(Opened { stamp, metadata, pages: Mutex::default() });
    lock().insert(path.to_owned(), opened.clone());
    Ok(opened)
}

impl Opened {
    fn value(&self, file: File, column: &str, place: u64) -> ParquetResult<Vec<u8>> {
        let schema = self.metadata.file_metadata().schema_descr();
        let missing = || ParquetError::General(format!("column `{column}` holds no bytes at {place}"));
        let leaf = schema.columns().iter().position(|leaf| leaf.path().string() == column);
        let leaf = leaf.ok_or_else(missing)?;
        let mut place = place;
        let mut group = None;
        for (number, metadata) in self.metadata.row_groups().iter().enumerate() {
            let count = u64::try_from(metadata.column(leaf).num_values()).unwrap_or(0);
            if place < count {
                group = Some((number, metadata.column(leaf)));
                break;
            }
            place -= count;
        }
        let (group, chunk) = group.ok_or_else(missing)?;
        let pages = self.pages(&file, (group, leaf), chunk)?;
        let number = pages.data.partition_point(|page| page.before <= place);
        let page = number.checked_sub(1).map(|number| &pages.data[number]).ok_or_else(missing)?;
        let place = usize::try_from(place - page.before).map_err(|_| missing())?;

        let column = &schema.columns()[leaf];
        let mut reader = ColumnReaderImpl::<ByteArrayType>::new(
            column.clone(),
            Box::new(Unpacked::read(file, chunk, pages.dictionary > 0, page)?),
        );
        let (mut definitions, mut repetitions, mut values) = (Vec::new(), Vec::new(), Vec::new());
        reader.read_records(usize::MAX, Some(&mut definitions), Some(&mut repetitions), &mut values)?;
        let full = column.max_def_level();
        let value = match full {
            0 => place,
            _ if definitions.get(place) == Some(&full) => {
                definitions[..place].iter().filter(|level| **level == full).count()
            }
            _ => return Err(missing()),
        };
        values.get(value).map(|value: &ByteArray| value.data().to_vec()).ok_or_else(missing)
    }

    /// The pages of a column in a row group, of whose headers each is read once.
    fn pages(
        &self,
        file: &File,
        key: (usize, usize),
        chunk: &ColumnChunkMetaData,
    ) -> ParquetResult<Arc<Pages>> {
        let lock = || self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pages) = lock().get(&key) {
            return Ok(pages.clone());
        }
        let file = Arc::new(Watched { file: file.try_clone()?, last: Mutex::new(0) });
        // The number of rows matters to a reader that knows where pages are.
        let mut reader = SerializedPageReader::new(file.clone(), chunk, 0, None)?;
        let mut pages = Pages { dictionary: 0, data: Vec::new() };
        let mut before = 0;
        let (mut ends, mut dictionary) = (Vec::new(), None);
        while let Some(page) = reader.peek_next_page()? {
            let offset = *file.last.lock().unwrap_or_else(PoisonError::into_inner);
            ends.push(offset);
            match page.is_dict {
                true => dictionary = Some(offset),
                false => {
                    let count = page.num_levels.ok_or_else(|| {
                        ParquetError::General(format!("the page at {offset} doesn't say how much it holds"))
                    })?;
                    pages.data.push(PageStart { offset, length: 0, before });
                    before += count as u64;
                }
            }
            reader.skip_next_page()?;
        }
        let (start, length) = chunk.byte_range();
        ends.push(start + length);
        let length_of = |offset: u64| ends[ends.partition_point(|end| *end <= offset)] - offset;
        pages.data.iter_mut().for_each(|page| page.length = length_of(page.offset));
        pages.dictionary = dictionary.map_or(0, length_of);
        let pages = Arc::new(pages);
        lock().insert(key, pages.clone());
        Ok(pages)
    }
}

/// A file that knows from where it was read last, since readers of pages don't say where a page begins.
struct Watched {
    file: File,
    last: Mutex<u64>,
}

impl Length for Watched {
    fn len(&self) -> u64 {
        Length::len(&self.file)
    }
}

impl ChunkReader for Watched {
    type T = BufReader<File>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = start;
        self.file.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        self.file.get_bytes(start, length)
    }
}

/// A page, with the dictionary that it may need before it.
struct Unpacked(VecDeque<Page>);

impl Unpacked {
    fn read(
        file: File,
        chunk: &ColumnChunkMetaData,
        dictionary: bool,
        page: &PageStart,
    ) -> ParquetResult<Self> {
        let file = Arc::new(file);
        let location = PageLocation {
            offset: i64::try_from(page.offset)?,
            compressed_page_size: i32::try_from(page.length)?,
            first_row_index: 0,
        };
        let mut one = SerializedPageReader::new(file.clone(), chunk, 0, Some(vec![location]))?;
        // It takes all that lies before the page for a dictionary.
        if one.peek_next_page()?.is_some_and(|page| page.is_dict) {
            one.skip_next_page()?;
        }
        let mut pages: VecDeque<Page> = one.get_next_page()?.into_iter().collect();
        let encoding = pages.front().map(Page::encoding);
        if dictionary && matches!(encoding, Some(Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY)) {
            let dictionary = SerializedPageReader::new(file, chunk, 0, None)?.get_next_page()?;
            pages.extend(dictionary);
            pages.rotate_left(1);
        }
        Ok(Unpacked(pages))
    }
}

impl Iterator for Unpacked {
    type Item = ParquetResult<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Unpacked {
    fn get_next_page(&mut self) -> ParquetResult<Option<Page>> {
        Ok(self.0.pop_front())
    }

    fn peek_next_page(&mut self) -> ParquetResult<Option<PageMetadata>> {
        Ok(self.0.front().map(|page| PageMetadata {
            num_rows: None,
            num_levels: Some(page.num_values() as usize),
            is_dict: page.is_dictionary_page(),
        }))
    }

    fn skip_next_page(&mut self) -> ParquetResult<()> {
        self.0.pop_front();
        Ok(())
    }
}

/// Puts paths in the place of the pictures in the rows of a file, which have to come in order and all.
pub(crate) struct Namer {
    /// The file, as it stands in paths.
    file: String,
    leaves: Vec<Leaf>,
}

/// A column of bytes.
struct Leaf {
    column: String,
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
    pub fn new(path: &Path, name: &Path) -> io::Result<Self> {
        let opened = opened(path, &File::open(path)?)?;
        let schema = opened.metadata.file_metadata().schema_descr();
        let leaves = schema.columns().iter().filter(|leaf| is_bytes(leaf)).map(|leaf| Leaf {
            column: leaf.path().string(),
            names: leaf.path().parts().to_vec(),
            count: 0,
        });
        let leaves: Vec<Leaf> = leaves.collect();
        let file = match name.to_str() {
            Some(name) => name.to_owned(),
            None if leaves.is_empty() => String::new(),
            None => return Err(io::Error::new(io::ErrorKind::InvalidInput, "its name is not UTF-8")),
        };
        Ok(Namer { file, leaves })
    }

    /// Names the pictures in the next row: whatever is bytes, or a struct of `bytes` and more, under the key `image`, or
    /// in a list under `video`. Other bytes stay.
    pub fn name(&mut self, row: &mut [(String, Cell)]) {
        for leaf in &mut self.leaves {
            let Some((_, cell)) = row.iter_mut().find(|(name, _)| *name == leaf.names[0]) else { continue };
            let holder = Holder { key: &leaf.names[0], listed: false };
            let path = |place| format!("{}#{}@{place}", self.file, leaf.column);
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
    path: &dyn Fn(u64) -> String,
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
                Cell::Bytes(_) if last && is_picture && names[at] == "bytes" => {
                    *cell = Cell::Text(path(*count));
                    *count += 1;
                }
                inner => {
                    let holder = Holder { key: &names[at], listed: false };
                    visit(inner, &names[at + 1..], holder, count, path);
                }
            }
        }
        Cell::Bytes(_) if is_picture => {
            *cell = Cell::Text(path(*count));
            *count += 1;
        }
        _ => *count += 1,
    }
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
    let file = File::open(manifest)?;
    let opened = opened(manifest, &file)?;
    let leaves = opened.metadata.file_metadata().schema_descr().columns();
    let mut largest = 0;
    for (group, metadata) in opened.metadata.row_groups().iter().enumerate() {
        for leaf in (0..leaves.len()).filter(|leaf| is_bytes(&leaves[*leaf])) {
            let pages = opened.pages(&file, (group, leaf), metadata.column(leaf)).map_err(invalid)?;
            largest = pages.data.iter().map(|page| pages.dictionary + page.length).fold(largest, u64::max);
        }
    }
    Ok(largest)
}

/// Whether there is a file at a path, or around what it names.
pub(crate) fn is_there(path: &Path) -> bool {
    Inside::of(path).map_or(path, |inside| inside.file).is_file()
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
