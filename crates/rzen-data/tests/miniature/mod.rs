//! Published benchmarks in miniature: each data set with the right folders, files and columns, a few rows and drawn media.
//!
//! [`write`] says besides what the rows mean, by texts that stand here as the benchmark's description has them. Sizes
//! differ from the published ones, of course.
#![allow(dead_code)]

mod beir_sets;
mod image_sets;
pub mod made_parquet;
mod page_sets;
mod video_sets;

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};
use rzen_data::Suite;
use serde_json::Value;

use made_parquet::write_parquet;

/// What a data set means.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The data set.
    pub task: String,
    pub queries: Vec<ExpectedQuery>,
    /// The candidates that rows name, by id.
    pub candidates: BTreeMap<String, Meant>,
    /// How many candidates there are in all.
    pub pool: usize,
}

#[derive(Clone, Debug)]
pub struct ExpectedQuery {
    pub id: String,
    pub meant: Meant,
    /// Its own candidates, each once, in the order of their ids.
    pub candidates: Option<Vec<String>>,
    pub relevant: Vec<(String, f64)>,
}

/// What is embedded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meant {
    /// The picture, or the frames that are taken, below the folder.
    pub media: Vec<String>,
    /// The text of VLM2Vec's runner behind the token of its media.
    pub vlm2vec: String,
    /// Instruction and text of RzenEmbed, in one.
    pub rzen: String,
}

impl Meant {
    /// `text` with `<>` for media. RzenEmbed's is the same in one line, unless given.
    pub fn new(media: &[String], text: &str) -> Self {
        let bare = text.replace("<>", "");
        Meant { media: media.to_vec(), rzen: bare.trim().to_owned(), vlm2vec: bare }
    }

    pub fn with_rzen(self, text: &str) -> Self {
        Meant { rzen: text.to_owned(), ..self }
    }
}

/// Writes a benchmark into a folder that exists; says what it means, in the order of the benchmark.
pub fn write(suite: Suite, dir: &Path) -> Vec<Expected> {
    match suite {
        Suite::MmebV1 => image_sets::write(dir),
        Suite::MmebV2 => {
            let mut all = image_sets::write(dir);
            all.extend(video_sets::write(dir));
            all.extend(page_sets::write(dir, &page_sets::DOCUMENTS));
            all
        }
        Suite::Vidore => {
            let vidore = page_sets::DOCUMENTS.iter().filter(|set| set.name.starts_with("ViDoRe_"));
            page_sets::write(dir, &vidore.copied().collect::<Vec<_>>())
        }
        Suite::VidoreV2English => {
            let english = page_sets::DOCUMENTS.iter().filter(|set| set.name.contains("human_labeled"));
            page_sets::write(dir, &english.chain(&page_sets::ENGLISH).copied().collect::<Vec<_>>())
        }
        Suite::Beir => beir_sets::write(dir),
    }
}

/// A query of a list of candidates, of which the first is the answer.
pub fn local(id: impl ToString, meant: Meant, ids: &[String]) -> ExpectedQuery {
    let mut sorted = ids.to_vec();
    sorted.sort();
    sorted.dedup();
    let relevant = vec![(ids[0].clone(), 1.0)];
    ExpectedQuery { id: id.to_string(), meant, candidates: Some(sorted), relevant }
}

/// A query of the whole pool.
pub fn global(id: impl ToString, meant: Meant, answer: &str) -> ExpectedQuery {
    ExpectedQuery { id: id.to_string(), meant, candidates: None, relevant: vec![(answer.to_owned(), 1.0)] }
}

/// Draws a picture file below `dir`; each name gives another picture. Returns the name.
pub fn draw(dir: &Path, name: &str) -> String {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, drawn(name)).unwrap();
    name.to_owned()
}

/// A picture of 28 to 59 pixels a side: two colours and a bar.
pub fn drawn(name: &str) -> Vec<u8> {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let byte = |place: u32| (hash >> (8 * place)) as u8;
    let (width, height) = (28 + u32::from(byte(6)) % 32, 28 + u32::from(byte(7)) % 32);
    let bar = u32::from(byte(5)) % width;
    let picture = RgbImage::from_fn(width, height, |x, y| match (x.abs_diff(bar) < 4, y < height / 2) {
        (true, _) => Rgb([byte(4), 255 - byte(4), byte(3)]),
        (_, true) => Rgb([byte(0), byte(1), byte(2)]),
        _ => Rgb([byte(2), byte(0), byte(1)]),
    });
    let format = if name.ends_with(".png") { ImageFormat::Png } else { ImageFormat::Jpeg };
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Writes annotations below `annotations`, as Parquet with these columns or as JSON, by the ending of the file.
///
/// Columns are `name`, a text; `name:int`; `name[]`, a list of texts; or `name:picture`.
pub fn annotate(dir: &Path, file: &str, columns: &str, rows: &[Value]) {
    let path = dir.join("annotations").join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    if file.ends_with(".jsonl") {
        return fs::write(path, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    }
    if file.ends_with(".json") {
        return fs::write(path, Value::from(rows).to_string()).unwrap();
    }
    let text = "binary element (UTF8);";
    let column = |column: &str| match column.split_once(':').unwrap_or((column, "")) {
        (name, "int") => format!("optional int64 {name};"),
        (name, "picture") => {
            format!("optional group {name} {{ optional binary bytes; optional binary path (UTF8); }}")
        }
        (name, "clips") => format!(
            "optional group {name} (LIST) {{ repeated group list {{ optional group element {{ optional binary output_path (UTF8); }} }} }}"
        ),
        (name, _) => match name.strip_suffix("[]") {
            Some(name) => {
                format!("optional group {name} (LIST) {{ repeated group list {{ optional {text} }} }}")
            }
            None => format!("optional binary {name} (UTF8);"),
        },
    };
    let columns: String = columns.split(' ').map(column).collect();
    write_parquet(&path, &format!("message rows {{ {columns} }}"), rows);
}
