//! Where the pages of Parquet files are, and what is in one of them.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::{ColumnDescPtr, SchemaDescriptor};

use crate::parquet_media::invalid;

/// What is kept of a file: where its pages are.
pub(crate) struct Opened {
    stamp: Stamp,
    pub metadata: ParquetMetaData,
    /// By row group and column.
    pages: Mutex<HashMap<(usize, usize), Arc<Pages>>>,
}

/// Length and time; a file that changes has others.
type Stamp = (u64, Option<SystemTime>);

/// The pages of a column in a row group.
pub(crate) struct Pages {
    /// Bytes of the dictionary; 0 where there is none.
    pub dictionary: u64,
    pub data: Vec<PageStart>,
}

pub(crate) struct PageStart {
    /// From the start of the file, and how long the page is, its header included.
    offset: u64,
    pub length: u64,
    /// Places of the column in the pages of the row group before this one.
    before: u64,
}

/// The file at `path`, whose footer is read once.
pub(crate) fn opened(path: &Path, file: &File) -> io::Result<Arc<Opened>> {
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
    /// The columns.
    pub fn schema(&self) -> &SchemaDescriptor {
        self.metadata.file_metadata().schema_descr()
    }

    /// The bytes at a place of a column.
    pub fn value(&self, path: &Path, file: &File, column: &str, place: u64) -> ParquetResult<Vec<u8>> {
        let schema = self.schema();
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
    pub fn pages(
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
