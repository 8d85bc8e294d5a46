//! The files of folders that can be embedded.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use walkdir::{DirEntry, WalkDir};

/// What a file is taken for, by the ending of its name; of WebP also by its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A picture.
    Image,
    /// A clip; GIF is one, of a single frame or more, and WebP that moves.
    Video,
    /// A PDF file, each page of which is an item.
    Document,
}

impl Kind {
    /// The kind of a file's name; none of other files.
    pub fn of(path: &Path) -> Option<Self> {
        Some(match ending(path)?.as_str() {
            "png" | "jpg" | "jpeg" | "jpe" | "jfif" | "webp" | "bmp" | "tif" | "tiff" => Kind::Image,
            "gif" | "mp4" | "m4v" | "mov" | "mkv" | "webm" | "avi" | "mpg" | "mpeg" | "ts" | "mts"
            | "m2ts" | "wmv" | "flv" | "3gp" | "ogv" => Kind::Video,
            "pdf" => Kind::Document,
            _ => return None,
        })
    }
}

/// The kind of a file by its name, and by its head where a name may mean two.
fn looked_at(path: &Path) -> Option<Kind> {
    let kind = Kind::of(path)?;
    match ending(path)?.as_str() {
        "webp" if is_animation(path) => Some(Kind::Video),
        // TypeScript is called so as well.
        "ts" => is_transport_stream(path).then_some(kind),
        _ => Some(kind),
    }
}

/// Whether a file begins with two packets of an MPEG transport stream.
fn is_transport_stream(path: &Path) -> bool {
    const SYNC: u8 = 0x47;
    const PACKET: usize = 188;
    let mut head = [0; PACKET + 1];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head[0] == SYNC && head[PACKET] == SYNC
}

/// Whether a WebP file says in its head that it moves
/// (<https://developers.google.com/speed/webp/docs/riff_container#extended_file_format>).
fn is_animation(path: &Path) -> bool {
    const MOVES: u8 = 2;
    let mut head = [0; 21];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && &head[12..16] == b"VP8X" && head[20] & MOVES != 0
}

fn ending(path: &Path) -> Option<String> {
    Some(path.extension()?.to_string_lossy().to_lowercase())
}

/// A file that can be embedded, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFile {
    /// Its whole path.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// When it was last written, in nanoseconds since 1970; `None` where the system doesn't know.
    pub modified: Option<u64>,
    /// What it is taken for.
    pub kind: Kind,
}

impl FoundFile {
    /// Whether its length and its time are those that were found.
    pub(super) fn is_as_found(&self) -> bool {
        let now = fs::metadata(&self.path);
        now.is_ok_and(|now| (now.len(), modified(&now)) == (self.bytes, self.modified))
    }
}

/// What folders hold.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Files that can be embedded, by path.
    pub files: Vec<FoundFile>,
    /// How many others there are of each ending, in small letters; of files without one under ``.
    pub others: BTreeMap<String, usize>,
    /// Folders and files that can't be looked at.
    pub troubles: Vec<Trouble>,
}

/// A folder or a file that can't be looked at.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// What it is about, with all below it; `None` where that isn't known.
    pub path: Option<PathBuf>,
    /// What is wrong.
    pub message: String,
}

/// When a file was last written, in nanoseconds since 1970.
pub(super) fn modified(metadata: &Metadata) -> Option<u64> {
    let since = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

/// The files of `places`, folders with all below them or single files. Hidden files and folders, links to folders, and what
/// lies in `leave_out` are passed over.
///
/// # Errors
/// If a place is not there.
pub fn find(places: &[PathBuf], leave_out: &Path) -> Result<Found> {
    let mut files = BTreeMap::new();
    let (mut others, mut troubles) = (BTreeMap::new(), Vec::new());
    for place in places {
        fs::metadata(place).with_context(|| format!("{}", place.display()))?;
        let is_shown = |entry: &DirEntry| {
            entry.depth() == 0
                || (!entry.file_name().as_encoded_bytes().starts_with(b".") && entry.path() != leave_out)
        };
        for entry in WalkDir::new(place).into_iter().filter_entry(is_shown) {
            let path = match &entry {
                Ok(entry) => entry.path(),
                Err(error) => {
                    let path = error.path().map(Path::to_owned);
                    troubles.push(Trouble { path, message: error.to_string() });
                    continue;
                }
            };
            // Of a link what it leads to.
            match fs::metadata(path) {
                Err(error) => {
                    let message = format!("{}: {error}", path.display());
                    troubles.push(Trouble { path: Some(path.to_owned()), message });
                }
                // Folders, and pipes and devices, reading which may never end.
                Ok(metadata) if !metadata.is_file() => {}
                Ok(metadata) => match looked_at(path) {
                    None => *others.entry(ending(path).unwrap_or_default()).or_default() += 1,
                    Some(_) if path.to_str().is_none() => {
                        let message = format!("{}: its name is not UTF-8; rename it", path.display());
                        troubles.push(Trouble { path: Some(path.to_owned()), message });
                    }
                    Some(kind) => {
                        let (bytes, modified) = (metadata.len(), modified(&metadata));
                        files.insert(
                            path.to_owned(),
                            FoundFile { path: path.to_owned(), bytes, modified, kind },
                        );
                    }
                },
            }
        }
    }
    Ok(Found { files: files.into_values().collect(), others, troubles })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_their_endings_and_hidden_ones_are_not() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        for file in [
            "b/One.JPG",
            "b/c/film.mp4",
            "b/.trash/two.jpg",
            "a.pdf",
            "note.txt",
            "NOTE",
            ".hidden.png",
            "index/x.png",
        ] {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        // A folder that is given twice, and once as a part of another, counts once.
        let places = [root.to_owned(), root.join("b"), root.join("b/One.JPG")];
        let found = find(&places, &root.join("index")).unwrap();
        let files: Vec<_> =
            found.files.iter().map(|file| (file.path.strip_prefix(root).unwrap(), file.kind)).collect();
        let expected = [("a.pdf", Kind::Document), ("b/One.JPG", Kind::Image), ("b/c/film.mp4", Kind::Video)];
        assert_eq!(files, expected.map(|(path, kind)| (Path::new(path), kind)));
        assert!(found.files.iter().all(|file| file.bytes == 1 && file.modified.is_some()));
        assert_eq!(found.others, BTreeMap::from([(String::new(), 1), ("txt".to_owned(), 1)]));
        assert!(found.troubles.is_empty());
        let head = |flags: u8| [&b"RIFF....WEBPVP8X....XXXX"[..20], &[flags]].concat();
        fs::write(root.join("still.webp"), head(0x10)).unwrap();
        fs::write(root.join("moving.webp"), head(0x12)).unwrap();
        let kinds: Vec<Kind> = ["still.webp", "moving.webp"]
            .map(|name| find(&[root.join(name)], root.join("index").as_path()).unwrap().files[0].kind)
            .into();
        assert_eq!(kinds, [Kind::Image, Kind::Video]);
        fs::write(root.join("code.ts"), "type A = 1;\n".repeat(99)).unwrap();
        let mut packets = vec![0; 400];
        (packets[0], packets[188]) = (0x47, 0x47);
        fs::write(root.join("film.ts"), packets).unwrap();
        let of = |name: &str| find(&[root.join(name)], &root.join("index")).unwrap();
        assert_eq!((of("code.ts").files.len(), of("film.ts").files[0].kind), (0, Kind::Video));
        #[cfg(target_os = "linux")]
        {
            use std::os::unix::ffi::OsStrExt;
            let odd = root.join(std::ffi::OsStr::from_bytes(b"caf\xe9.png"));
            fs::write(&odd, "x").unwrap();
            let found = find(&[odd], root).unwrap();
            assert!(found.files.is_empty() && found.troubles[0].message.contains("not UTF-8"), "{found:?}");
        }
        let missing = find(&[root.join("gone")], root).unwrap_err();
        assert!(format!("{missing:#}").contains("gone"), "{missing:#}");
    }
}
