//! A world's files, complete or not at all.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::codecs::gif::{GifEncoder, Repeat};
use image::codecs::jpeg::JpegEncoder;
use image::{Delay, Frame, ImageFormat, RgbImage};
use rayon::prelude::*;
use rzen_core::Part;
use rzen_merge::{Existing, StagedFolder};
use serde::{Deserialize, Serialize};

use super::album::Drawing;
use super::clip::draw_clip;
use super::draw::{draw_crop, draw_scene};
use super::pdf::typeset;
use super::{VERSION, World, WorldConfig, WorldError, WorldSummary};

/// The contents of `world.json`.
#[derive(Serialize, Deserialize)]
struct Certificate {
    version: u32,
    config: WorldConfig,
    summary: WorldSummary,
}

const CERTIFICATE: &str = "world.json";
const FRAMES_PER_SECOND: u32 = 8;

/// The summary of the world that `folder` holds, if it is the one of this configuration.
pub(super) fn standing(config: &WorldConfig, folder: &Path) -> Result<Option<WorldSummary>, WorldError> {
    let path = folder.join(CERTIFICATE);
    if path.is_file() {
        let text = fs::read(&path).map_err(io(&path))?;
        // A certificate of another version may have other keys: that is another world.
        let found = serde_json::from_slice::<Certificate>(&text).ok();
        let same = found.filter(|found| found.version == VERSION && found.config == *config);
        return Ok(same.map(|found| WorldSummary { reused: true, ..found.summary }));
    }
    match fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(None),
        Ok(false) => Err(WorldError::Occupied { folder: folder.into() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(folder)(error)),
    }
}

/// Writes the world beside `folder` and puts it there when it is complete.
pub(super) fn write_world(
    config: &WorldConfig,
    world: &World,
    folder: &Path,
) -> Result<WorldSummary, WorldError> {
    let summary = world.summary();
    let staged = StagedFolder::create(folder, Existing::Replace)?;
    fill(config, world, &summary, staged.path())?;
    staged.commit()?;
    Ok(summary)
}

impl World {
    fn summary(&self) -> WorldSummary {
        let stage = |stage: u8| {
            let sets = self.datasets.iter().filter(move |set| set.stage == stage);
            sets.map(|set| (set.name.to_owned(), set.rows.len())).collect()
        };
        let files = |fits: fn(&Drawing) -> bool| self.album.files.iter().filter(|file| fits(&file.1)).count();
        let tasks = self.exams.iter().map(|exam| (exam.task_row().name.to_owned(), exam.queries.len()));
        WorldSummary {
            reused: false,
            stage1: stage(1),
            stage2: stage(2),
            queries: tasks.collect(),
            pictures: files(|drawing| matches!(drawing, Drawing::Scene { .. } | Drawing::Crop { .. })),
            clips: files(|drawing| matches!(drawing, Drawing::Clip { .. })),
            documents: files(|drawing| matches!(drawing, Drawing::Pages(_))),
        }
    }
}

fn fill(
    config: &WorldConfig,
    world: &World,
    summary: &WorldSummary,
    folder: &Path,
) -> Result<(), WorldError> {
    for (path, _) in &world.album.files {
        make_parent(&folder.join(path))?;
    }
    world.album.files.par_iter().try_for_each(|(path, drawing)| {
        let path = folder.join(path);
        let bytes = encode(&path, drawing)?;
        fs::write(&path, bytes).map_err(io(&path))
    })?;
    for set in &world.datasets {
        write_rows(&folder.join(set.name).join("train.jsonl"), &set.rows)?;
    }
    for exam in &world.exams {
        write_rows(&folder.join(exam.query_file()), &exam.queries)?;
        write_rows(&folder.join(exam.pool_file()), &exam.candidates)?;
    }
    let tasks: Vec<_> = world.exams.iter().map(|exam| exam.task_row()).collect();
    write_rows(&folder.join("tasks.jsonl"), &tasks)?;
    write_rows(&folder.join("media.jsonl"), &world.album.shows)?;
    let certificate = Certificate { version: VERSION, config: config.clone(), summary: summary.clone() };
    let path = folder.join(CERTIFICATE);
    let json = serde_json::to_vec_pretty(&certificate).expect("numbers and names can be written as JSON");
    fs::write(&path, json).map_err(io(&path))
}

fn encode(path: &Path, drawing: &Drawing) -> Result<Vec<u8>, WorldError> {
    let encoded = match drawing {
        Drawing::Scene { scene, seed } => encode_picture(path, &draw_scene(scene, *seed)),
        Drawing::Crop { scene, seed, at } => encode_picture(path, &draw_crop(scene, *seed, *at)),
        Drawing::Clip { clip, seed } => encode_clip(&draw_clip(clip, *seed)),
        Drawing::Pages(pages) => Ok(typeset(pages)),
    };
    encoded.map_err(|source| WorldError::Encode { path: path.into(), source })
}

fn encode_picture(path: &Path, picture: &RgbImage) -> Result<Vec<u8>, image::ImageError> {
    let mut bytes = Cursor::new(Vec::new());
    match path.extension().is_some_and(|ending| ending == "jpg") {
        true => picture.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 92))?,
        false => picture.write_to(&mut bytes, ImageFormat::Png)?,
    }
    Ok(bytes.into_inner())
}

fn encode_clip(frames: &[RgbImage]) -> Result<Vec<u8>, image::ImageError> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut bytes, 10);
    encoder.set_repeat(Repeat::Infinite)?;
    for frame in frames {
        let rgba = image::DynamicImage::ImageRgb8(frame.clone()).into_rgba8();
        let delay = Delay::from_numer_denom_ms(1000, FRAMES_PER_SECOND);
        encoder.encode_frame(Frame::from_parts(rgba, 0, 0, delay))?;
    }
    drop(encoder);
    Ok(bytes)
}

fn write_rows<R: Serialize>(path: &Path, rows: &[R]) -> Result<(), WorldError> {
    make_parent(path)?;
    let mut text = String::new();
    for row in rows {
        text += &serde_json::to_string(row).expect("rows are strings, numbers and paths of ASCII");
        text.push('\n');
    }
    fs::write(path, text).map_err(io(path))
}

/// All texts of a world's training rows, with their instructions, in order of dataset and row: what a
/// tokenizer is trained on.
///
/// # Errors
/// [`WorldError::Io`] and [`WorldError::Manifest`] where the folder is not a world.
pub fn training_texts(folder: &Path) -> Result<Vec<String>, WorldError> {
    #[derive(Deserialize)]
    struct Row {
        instruction: Option<String>,
        query: Vec<Part>,
        positive: Vec<Part>,
        #[serde(default)]
        negatives: Vec<Vec<Part>>,
    }
    let mut texts = Vec::new();
    for path in manifests(folder)? {
        let manifest = fs::read_to_string(&path).map_err(io(&path))?;
        for (line, number) in manifest.lines().zip(1..) {
            let row: Row = serde_json::from_str(line).map_err(|source| WorldError::Manifest {
                path: path.clone(),
                line: number,
                source,
            })?;
            let parts = row.query.into_iter().chain(row.positive).chain(row.negatives.into_iter().flatten());
            let words =
                parts.filter_map(|part| if let Part::Text(words) = part { Some(words) } else { None });
            texts.extend(row.instruction);
            texts.extend(words);
        }
    }
    Ok(texts)
}

/// The training manifests of a corpus folder, in the order of their names.
fn manifests(folder: &Path) -> Result<Vec<PathBuf>, WorldError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(io(folder))? {
        let path = entry.map_err(io(folder))?.path().join("train.jsonl");
        if path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn make_parent(path: &Path) -> Result<(), WorldError> {
    let parent = path.parent().expect("a file of a world lies in its folder");
    fs::create_dir_all(parent).map_err(io(parent))
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> WorldError + use<> {
    let path = path.to_owned();
    move |source| WorldError::Io { path, source }
}
