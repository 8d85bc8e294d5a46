//! Pictures inside Parquet files, found without reading what lies before them.
//!
//! Such a picture has a path like any other, `FILE.parquet#COLUMN@PLACE-HASH`. `COLUMN` is the leaf of the schema that holds
//! the bytes, `query.list.element.image.bytes`; `PLACE` counts the places of that leaf from the start of the file,
//! the empty ones too (Parquet's levels), which is how pages can be passed over without unpacking them; `HASH` are the first
//! digits of the bytes' SHA-256, so that a file which changed is noticed.

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
use parquet::schema::types::{ColumnDescPtr, ColumnDescriptor};
use sha2::{Digest, Sha256};

use crate::cell::Cell;
use crate::isolate::guard;
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
        match short_hash(&bytes) == self.hash {
            true => Ok(bytes),
            false => {
                let changed = "other bytes are there than when the rows were read; did the file change?";
                Err(io::Error::new(io::ErrorKind::InvalidData, changed))
            }
        }
    }
}

/// Pipes and devices are refused: reading one may never end.
fn open(path: &Path) -> io::Result<File> {
    match std::fs::metadata(path)?.is_file() {
        true => File::open(path),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file")),
    }
}

/// Makes an error of a panic in the reader of Parquet.
fn guarded<T>(read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    guard(read).unwrap_or_else(|lost| Err(invalid(damaged(lost))))
}

fn short_hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
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
    fn value(&self, path: &Path, file: &File, column: &str, place: u64) -> ParquetResult<Vec<u8>> {
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
        let pages = self.pages(file, (group, leaf), chunk)?;
        let number = pages.data.partition_point(|page| page.before <= place);
        let page = number.checked_sub(1).map(|number| &pages.data[number]).ok_or_else(missing)?;
        let place = usize::try_from(place - page.before).map_err(|_| missing())?;
        let key = PageKey { path: path.to_owned(), stamp: self.stamp, offset: page.offset };
        let unpacked = match recent(&key) {
            Some(unpacked) => unpacked,
            None => {
                let column = schema.columns()[leaf].clone();
                let unpacked = Arc::new(Unpacked::read(file, column, chunk, pages.dictionary > 0, page)?);
                keep_recent(key, unpacked.clone());
                unpacked
            }
        };
        unpacked.value(place).map(|value| value.data().to_vec()).ok_or_else(missing)
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

/// The places of a page.
struct Unpacked {
    /// The definition level of each, and that of a value; none where every place has one.
    definitions: Option<(Vec<i16>, i16)>,
    values: Vec<ByteArray>,
}

impl Unpacked {
    fn read(
        file: &File,
        column: ColumnDescPtr,
        chunk: &ColumnChunkMetaData,
        dictionary: bool,
        page: &PageStart,
    ) -> ParquetResult<Self> {
        let page = OnePage::read(file, chunk, dictionary, page)?;
        let full = column.max_def_level();
        let mut reader = ColumnReaderImpl::<ByteArrayType>::new(column, Box::new(page));
        let (mut definitions, mut repetitions, mut values) = (Vec::new(), Vec::new(), Vec::new());
        reader.read_records(usize::MAX, Some(&mut definitions), Some(&mut repetitions), &mut values)?;
        Ok(Unpacked { definitions: (full > 0).then_some((definitions, full)), values })
    }

    fn value(&self, place: usize) -> Option<&ByteArray> {
        let value = match &self.definitions {
            None => place,
            Some((levels, full)) if levels.get(place) == Some(full) => {
                levels[..place].iter().filter(|level| *level == full).count()
            }
            Some(_) => return None,
        };
        self.values.get(value)
    }

    fn bytes(&self) -> usize {
        self.values.iter().map(ByteArray::len).sum()
    }
}

#[derive(PartialEq)]
struct PageKey {
    path: PathBuf,
    stamp: Stamp,
    offset: u64,
}

/// Pages that were unpacked last, the newest at the end: who reads pictures in their order unpacks each page once.
static RECENT: Mutex<Vec<(PageKey, Arc<Unpacked>)>> = Mutex::new(Vec::new());

/// Bytes of pictures in pages that are kept unpacked, at most, but for the newest page.
const RECENT_BYTES: usize = 256 << 20;

fn recent(key: &PageKey) -> Option<Arc<Unpacked>> {
    let recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    recent.iter().find(|(other, _)| other == key).map(|(_, page)| page.clone())
}

fn keep_recent(key: PageKey, page: Arc<Unpacked>) {
    let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    recent.retain(|(other, _)| *other != key);
    recent.push((key, page));
    let mut bytes = 0;
    let fits = |(_, page): &&(PageKey, Arc<Unpacked>)| {
        bytes += page.bytes();
        bytes <= RECENT_BYTES
    };
    let count = recent.iter().rev().take_while(fits).count().clamp(1, 256);
    let gone = recent.len() - count;
    recent.drain(..gone);
}

/// A page, with the dictionary that it may need before it.
struct OnePage(VecDeque<Page>);

impl OnePage {
    fn read(
        file: &File,
        chunk: &ColumnChunkMetaData,
        dictionary: bool,
        page: &PageStart,
    ) -> ParquetResult<Self> {
        let file = Arc::new(file.try_clone()?);
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
        Ok(OnePage(pages))
    }
}

impl Iterator for OnePage {
    type Item = ParquetResult<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for OnePage {
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
        let hash: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        // Paths in the order of their names are in the order of the file.
        format!("{}@{place:09}-{hash}", known.columns[column as usize])
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
        let schema = opened.metadata.file_metadata().schema_descr();
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
    let leaves = opened.metadata.file_metadata().schema_descr().columns();
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
