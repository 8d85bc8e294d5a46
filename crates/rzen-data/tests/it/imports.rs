//! What all imports have in common, and their helpers.

use std::path::{Path, PathBuf};

use image::ImageFormat;
use rzen_core::{Item, Part, Sample};
use rzen_data::{ImportError, ImportKind, ImportOptions, ImportReport, import, train_rows};
use serde_json::{Value, json};

use crate::made::{Folder, check_message, encode, gradient};

/// A folder with input files and an empty corpus.
pub struct Workshop {
    pub folder: Folder,
    pub options: ImportOptions,
}

impl Workshop {
    /// With pictures of these names in `media`.
    pub fn new(pictures: &[&str]) -> Self {
        let folder = Folder::new();
        for (size, name) in (3..).zip(pictures) {
            let path = folder.path().join("media").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, encode(&gradient(size, 4).into(), ImageFormat::Png)).unwrap();
        }
        let options = ImportOptions {
            corpus: folder.path().join("corpus"),
            dataset: "d".into(),
            task: "t".into(),
            name: None,
            instruction: None,
            media: Some(folder.path().join("media")),
            label: None,
            group: None,
            num_frames: 3,
            drop_query: false,
            cap: None,
            bad_row_limit: 0,
        };
        Workshop { folder, options }
    }

    /// Writes JSON lines.
    pub fn lines(&self, name: &str, rows: &[Value]) -> PathBuf {
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        self.folder.write(name, lines)
    }

    /// Imports into a new folder and reads what training would read.
    pub fn import(
        &self,
        kind: &ImportKind,
        inputs: &[PathBuf],
    ) -> Result<(Vec<Sample>, ImportReport), ImportError> {
        let dataset = self.options.corpus.join("d");
        if dataset.exists() {
            std::fs::remove_dir_all(&dataset).unwrap();
        }
        std::fs::create_dir_all(&dataset).unwrap();
        let report = import(kind, inputs, &self.options, &dataset)?;
        Ok((train_rows(&dataset.join("train.jsonl"), Path::new("")).unwrap(), report))
    }

    /// The part that a picture of `media` becomes.
    pub fn picture(&self, name: &str) -> Part {
        Part::Image(self.folder.path().join("media").join(name))
    }

    pub fn shown(&self, name: &str, text: &str) -> Vec<Part> {
        vec![self.picture(name), Part::Text(text.into())]
    }
}

/// An item without instruction.
pub fn item(content: Vec<Part>) -> Item {
    Item { content, instruction: None }
}

fn pairs(rows: usize) -> Vec<Value> {
    (0..rows).map(|row| json!({ "anchor": format!("q{row}"), "positive": format!("p{row}"), "film": row / 2, "idx": row }))
        .collect()
}

const COLUMNS: ImportKind = ImportKind::SentenceTransformers { columns: None };

#[test]
fn options_reach_the_rows() {
    let mut shop = Workshop::new(&[]);
    shop.options.name = Some("d_small".into());
    shop.options.instruction = Some("Find it: ".into());
    shop.options.group = Some("film".into());
    shop.options.label = Some("anchor".into());
    shop.options.cap = Some(3);
    let input = shop.lines("rows.jsonl", &pairs(5));
    // The columns of label and group are no inputs, unless they are asked for.
    let columns = Some(vec!["anchor".to_owned(), "positive".to_owned()]);
    let kind = ImportKind::SentenceTransformers { columns };
    let (samples, report) = shop.import(&kind, &[input]).unwrap();
    assert_eq!((samples.len(), report.rows, report.read, report.capped), (3, 3, 3, true));
    assert_eq!(report.unused.iter().collect::<Vec<_>>(), ["idx"]);
    let sample = &samples[2];
    assert_eq!(
        (sample.dataset.as_str(), sample.name.as_str(), sample.task.0.as_str()),
        ("d", "d_small", "t")
    );
    assert_eq!(sample.query, Item { instruction: Some("Find it: ".into()), ..Item::text("q2") });
    assert_eq!(sample.positive, Item::text("p2"));
    assert_eq!((sample.label.as_deref(), sample.group.as_deref()), (Some("q2"), Some("1")));
}

#[test]
fn bad_rows_are_named_and_counted() {
    let mut shop = Workshop::new(&[]);
    let mut rows = pairs(4);
    rows[1]["positive"] = json!("");
    rows[2] = json!({ "positive": "p", "film": "f" });
    let text: String = rows.iter().map(|row| format!("{row}\n\n")).collect();
    let input = shop.folder.write("rows.jsonl", text + "{\"anchor\": \"q");
    let refused = shop.import(&COLUMNS, std::slice::from_ref(&input)).unwrap_err();
    check_message(
        &refused,
        &["1 rows", "0 allowed", "rows.jsonl, row 2", "the positive is empty", "bad-row limit"],
    );
    shop.options.bad_row_limit = 2;
    let refused = shop.import(&COLUMNS, std::slice::from_ref(&input)).unwrap_err();
    check_message(
        &refused,
        &[
            "3 rows",
            "row 2:",
            "row 3: begins with other columns than the first row, which has anchor, positive",
            "such as `--columns anchor,positive`",
            "row 5: not a JSON object",
        ],
    );
    shop.options.bad_row_limit = 3;
    let (samples, report) = shop.import(&COLUMNS, &[input]).unwrap();
    assert_eq!((samples.len(), report.read, report.bad_rows.len()), (2, 5, 3));
    assert_eq!(report.bad_rows[0].row, 2);
    // The second column is used wherever a row was taken.
    assert_eq!(report.unused.iter().collect::<Vec<_>>(), ["film", "idx"]);
}

#[test]
fn inputs_that_can_not_be_read_are_named() {
    let shop = Workshop::new(&[]);
    let check = |path: PathBuf, expected: &[&str]| {
        check_message(&shop.import(&COLUMNS, &[path]).unwrap_err(), expected);
    };
    check(shop.folder.path().join("gone.jsonl"), &["gone.jsonl", "check the path"]);
    check(shop.folder.write("rows.txt", "a"), &["rows.txt", ".parquet"]);
    check(shop.folder.write("rows.json", "[{\"a\": 1}, "), &["rows.json", "list of JSON objects"]);
    check(
        shop.folder.write("rows.parquet", "PAR1"),
        &["rows.parquet", "as Parquet", "not built in: write it again with snappy"],
    );
    check(shop.folder.write("none.jsonl", ""), &["none of 0 rows", "right file"]);
    let (samples, _) =
        shop.import(&COLUMNS, &[shop.folder.write("list.json", json!(pairs(2)).to_string())]).unwrap();
    assert_eq!(samples.len(), 2);
}

#[test]
fn media_below_the_corpus_are_named_from_there() {
    let mut shop = Workshop::new(&["a.png"]);
    shop.options.corpus = shop.folder.path().to_owned();
    let input = shop.lines("rows.jsonl", &[json!({ "query": "q", "image": "a.png" })]);
    let dataset = shop.folder.path().join("d");
    std::fs::create_dir(&dataset).unwrap();
    import(&ImportKind::Vidore, &[input], &shop.options, &dataset).unwrap();
    let samples = train_rows(&dataset.join("train.jsonl"), Path::new("")).unwrap();
    assert_eq!(samples[0].positive, Item::image("media/a.png"));
}

#[test]
fn media_that_are_not_there_are_named() {
    let shop = Workshop::new(&["a.png"]);
    let check = |image: &str, expected: &[&str]| {
        let input = shop.lines("rows.jsonl", &[json!({ "query": "q", "image": image })]);
        check_message(&shop.import(&ImportKind::Vidore, &[input]).unwrap_err(), expected);
    };
    check("b.png", &["row 1", "b.png", "not there"]);
    check("https://example.org/a.png", &["https://example.org/a.png", "download"]);
}
