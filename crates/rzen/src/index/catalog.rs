//! What an index holds: a line that says how vectors come about, and one for each file.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::find::{FoundFile, Kind, modified};
use crate::files::{hex, sha256, whole_file};
use crate::vectors::Key;
use crate::verbs::model_options::ModelOptions;

/// The catalog's name in an index.
pub const CATALOG: &str = "index.jsonl";

/// Of this form; another is refused.
const FORM: u32 = 1;

/// How the vectors of an index come about.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    rzen_index: u32,
    /// The SHA-256 that vectors are kept under: of model, settings and program.
    #[serde(with = "as_hex")]
    pub key: Key,
    /// The model and its settings.
    pub model: ModelOptions,
    /// The model's files when the key was made.
    pub stamps: Vec<Stamp>,
    /// What files are embedded with.
    pub instruction: Option<String>,
    /// The folders and files that are indexed, by whole paths.
    pub folders: Vec<PathBuf>,
}

/// A file of a model as it was looked at last. Reading gigabytes of weights takes longer than a search.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    name: String,
    bytes: u64,
    modified: Option<u64>,
    #[serde(with = "as_hex")]
    sha256: Key,
}

impl Stamp {
    /// The SHA-256 of a file: that of the stamp of its name, length and time among `known`, else read; it is kept in `found`.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn hash(path: &Path, known: &[Stamp], found: &RefCell<Vec<Stamp>>) -> Result<Key> {
        let metadata = fs::metadata(path).with_context(|| path.display().to_string())?;
        let (bytes, modified) = (metadata.len(), modified(&metadata));
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let same = |stamp: &&Stamp| {
            modified.is_some() && (&stamp.name, stamp.bytes, stamp.modified) == (&name, bytes, modified)
        };
        let stamp = match known.iter().find(same) {
            Some(stamp) => stamp.clone(),
            None => {
                let sha256 = sha256(path).with_context(|| path.display().to_string())?;
                Stamp { name, bytes, modified, sha256 }
            }
        };
        let hash = stamp.sha256;
        found.borrow_mut().push(stamp);
        Ok(hash)
    }
}

/// A file of an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its whole path.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Its length.
    pub bytes: u64,
    /// When it was last written, in nanoseconds since 1970.
    pub modified: Option<u64>,
    /// The vector's key of each item, of which only a document has several, its pages; `None` of one that could not be embedded.
    #[serde(with = "as_hex_list")]
    pub vectors: Vec<Option<Key>>,
    /// What is wrong with it, or with a page of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrong: Option<String>,
}

impl Entry {
    /// Whether its file has the length and the time that it had when it was indexed.
    pub fn is_as_indexed(&self) -> bool {
        let now = fs::metadata(&self.path);
        now.is_ok_and(|now| (now.len(), modified(&now)) == (self.bytes, self.modified))
    }

    /// Whether `file` is the one that was looked at, as far as its length and its time can tell.
    pub(super) fn is_of(&self, file: &FoundFile) -> bool {
        self.modified.is_some()
            && (&self.path, self.kind, self.bytes, self.modified)
                == (&file.path, file.kind, file.bytes, file.modified)
    }
}

/// An index's files and how their vectors came about.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// How.
    pub header: Header,
    /// The files, by path.
    pub entries: Vec<Entry>,
}

impl Header {
    /// Of an index that begins.
    pub fn new(key: Key, model: ModelOptions, stamps: Vec<Stamp>) -> Self {
        Header { rzen_index: FORM, key, model, stamps, instruction: None, folders: Vec::new() }
    }
}

impl Catalog {
    /// Reads the catalog of an index; nothing where there is none yet.
    ///
    /// # Errors
    /// Names the line that is wrong.
    pub fn read(index: &Path) -> Result<Option<Self>> {
        let path = index.join(CATALOG);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("can't read {}", path.display())),
        };
        let advice = |line: usize| {
            format!(
                "{}, line {line}; remove it to make the index anew: vectors that are kept stay",
                path.display()
            )
        };
        let mut lines = BufReader::new(file).lines().enumerate();
        let Some((_, head)) = lines.next() else { bail!("{}: it is empty", advice(1)) };
        let head = head.with_context(|| advice(1))?;
        // The form first: another has other keys.
        let form: serde_json::Value = serde_json::from_str(&head).with_context(|| advice(1))?;
        ensure!(form["rzen_index"] == FORM, "{}: it is of another form than this program's", advice(1));
        let header = serde_json::from_value(form).with_context(|| advice(1))?;
        let entry = |(number, line): (usize, std::io::Result<String>)| {
            line.map_err(anyhow::Error::from)
                .and_then(|line| Ok(serde_json::from_str(&line)?))
                .with_context(|| advice(number + 1))
        };
        Ok(Some(Catalog { header, entries: lines.map(entry).collect::<Result<_>>()? }))
    }

    /// Writes the catalog, whole or not at all.
    ///
    /// # Errors
    /// If the disk is full or the index can't be written.
    pub fn write(&self, index: &Path) -> Result<()> {
        whole_file(&index.join(CATALOG), |file| {
            let mut writer = BufWriter::new(file);
            let mut line = |json: String| -> Result<()> { Ok(writeln!(writer, "{json}")?) };
            line(serde_json::to_string(&self.header)?)?;
            for entry in &self.entries {
                line(serde_json::to_string(entry)?)?;
            }
            Ok(writer.flush()?)
        })
    }
}

/// A key as hexadecimal digits.
mod as_hex {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Key, hex};

    pub fn serialize<S: Serializer>(key: &Key, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(key))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        read(&String::deserialize(deserializer)?)
    }

    pub fn read<E: Error>(text: &str) -> Result<Key, E> {
        let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = text.as_bytes().as_chunks().0.iter().map(byte).collect();
        let key = bytes.and_then(|bytes| bytes.try_into().ok());
        key.ok_or_else(|| E::custom(format!("`{text}` is no key of 64 hexadecimal digits")))
    }
}

mod as_hex_list {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Key, as_hex, hex};

    pub fn serialize<S: Serializer>(keys: &[Option<Key>], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(keys.iter().map(|key| key.map(|key| hex(&key))))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Option<Key>>, D::Error> {
        let texts = Vec::<Option<String>>::deserialize(deserializer)?;
        texts.iter().map(|text| text.as_deref().map(as_hex::read).transpose()).collect()
    }
}
