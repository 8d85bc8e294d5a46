//! Pictures and clips of an import: found where they lie, or written out of the input.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf, absolute};

use rzen_core::{Part, VideoSource};
use sha2::{Digest, Sha256};

use super::record::{name_of, text_of};
use super::{ImportError, ImportOptions, Refusal};
use crate::cell::Cell;
use crate::sample_frames;

/// Turns paths and bytes into parts.
pub(super) struct Media {
    /// Where the dataset is written now.
    folder: PathBuf,
    /// Where the corpus stands, from the root of the disk.
    corpus: PathBuf,
    dataset: String,
    root: Option<PathBuf>,
    num_frames: usize,
    /// The names of the pictures written so far.
    written: HashSet<String>,
}

impl Media {
    pub fn new(options: &ImportOptions, folder: &Path) -> Result<Self, ImportError> {
        let corpus = absolute(&options.corpus)
            .map_err(|source| ImportError::Write { path: options.corpus.clone(), source })?;
        Ok(Media {
            folder: folder.to_owned(),
            corpus,
            dataset: options.dataset.clone(),
            root: options.media.clone(),
            num_frames: options.num_frames,
            written: HashSet::new(),
        })
    }

    /// How many pictures were written.
    pub fn written(&self) -> usize {
        self.written.len()
    }

    /// A picture file that the input names; `folder` is that of the input.
    pub fn picture(&self, path: &str, folder: &Path) -> Result<Part, String> {
        self.file(path, folder).map(Part::Image)
    }

    /// A file that the input names, as it stands in the manifest.
    pub fn file(&self, path: &str, folder: &Path) -> Result<PathBuf, String> {
        let found = self.find(path, folder)?;
        match found.is_file() {
            true => Ok(self.written_as(found)),
            false => Err(format!("file `{}` is not there; {ADVICE}", found.display())),
        }
    }

    /// A clip: a video file, or a folder of pictures, its frames by the numbers in their names.
    pub fn clip(&self, path: &str, folder: &Path) -> Result<Part, String> {
        let found = self.find(path, folder)?;
        if found.is_file() {
            return Ok(Part::Video(VideoSource::File(self.written_as(found))));
        }
        if !found.is_dir() {
            return Err(format!("clip `{}` is not there; {ADVICE}", found.display()));
        }
        let frames = frames(&found).map_err(|error| format!("can't read `{}`: {error}", found.display()))?;
        if frames.is_empty() {
            return Err(format!("folder `{}` holds no pictures", found.display()));
        }
        let taken = sample_frames(frames.len(), self.num_frames);
        let taken = taken.into_iter().map(|frame| self.written_as(frames[frame].clone())).collect();
        Ok(Part::Video(VideoSource::Frames(taken)))
    }

    /// A picture as a table holds it: a path, bytes, or a struct of `bytes` and `path`.
    pub fn picture_of(&mut self, cell: Cell, column: &str, folder: &Path) -> Result<Option<Part>, Refusal> {
        match cell {
            Cell::Bytes(bytes) => self.write(&bytes).map(Some),
            Cell::Struct(cells) => {
                let (mut bytes, mut path) = (Cell::Null, Cell::Null);
                for (name, cell) in cells {
                    match name.as_str() {
                        "bytes" => bytes = cell,
                        "path" => path = cell,
                        _ => return Err(format!("column `{column}` has `{name}`, expected a picture").into()),
                    }
                }
                match bytes {
                    Cell::Bytes(bytes) => self.write(&bytes).map(Some),
                    Cell::Null => self.picture_of(path, column, folder),
                    other => {
                        let found = name_of(&other);
                        Err(format!("`bytes` in column `{column}` are {found}, expected bytes").into())
                    }
                }
            }
            cell => match text_of(cell, column)? {
                Some(path) => Ok(Some(self.picture(&path, folder)?)),
                None => Ok(None),
            },
        }
    }

    /// Writes a picture under the name of its SHA-256, once.
    fn write(&mut self, bytes: &[u8]) -> Result<Part, Refusal> {
        let format = image::guess_format(bytes).ok();
        let ending = format.and_then(|format| format.extensions_str().first());
        let Some(ending) = ending else {
            return Err(format!("holds a picture of {} bytes in no known format", bytes.len()).into());
        };
        let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        // Folders of a million files are slow.
        let name = format!("media/{}/{hash}.{ending}", &hash[..2]);
        if self.written.insert(name.clone()) {
            let path = self.folder.join(&name);
            let parent = path.parent().expect("the name has folders");
            let write = || fs::create_dir_all(parent).and_then(|()| fs::write(&path, bytes));
            write().map_err(|source| Refusal::Failed(ImportError::Write { path: path.clone(), source }))?;
        }
        Ok(Part::Image(Path::new(&self.dataset).join(name)))
    }

    fn find(&self, path: &str, folder: &Path) -> Result<PathBuf, String> {
        if path.contains("://") || path.starts_with("data:") {
            let start: String = path.chars().take(80).collect();
            return Err(format!("`{start}` is no file; download it, and name the file"));
        }
        let found = self.root.as_deref().unwrap_or(folder).join(path);
        absolute(&found).map_err(|error| format!("`{}` is no path: {error}", found.display()))
    }

    /// The path as it stands in the manifest.
    fn written_as(&self, path: PathBuf) -> PathBuf {
        path.strip_prefix(&self.corpus).map(Path::to_owned).unwrap_or(path)
    }
}

const ADVICE: &str = "check the path, and the folder given as media";

/// The pictures of a folder, in the order of the numbers in their names.
pub(crate) fn frames(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut frames = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if image::ImageFormat::from_path(&path).is_ok() {
            frames.push(path);
        }
    }
    frames.sort_by_cached_key(|path| numbers_padded(&path.to_string_lossy()));
    Ok(frames)
}

/// The text with its numbers filled up with zeros, so that 10 comes after 9.
fn numbers_padded(text: &str) -> String {
    let mut padded = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let end = rest[start..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |end| start + end);
        padded += &rest[..start];
        padded += &format!("{:0>20}", &rest[start..end]);
        rest = &rest[end..];
    }
    padded + rest
}

#[cfg(test)]
mod tests {
    use super::numbers_padded;

    #[test]
    fn frames_come_in_the_order_of_their_numbers() {
        let mut names = ["c1_10.jpg", "c1_9.jpg", "c10_1.jpg", "c2_1.jpg", "c1_009b.jpg"];
        names.sort_by_key(|name| numbers_padded(name));
        assert_eq!(names, ["c1_9.jpg", "c1_009b.jpg", "c1_10.jpg", "c2_1.jpg", "c10_1.jpg"]);
    }
}
