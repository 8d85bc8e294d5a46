//! Corpora with one thing wrong: that is found, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, crop_imm, resize};
use image::{ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use rzen_data::{CheckOptions, Checked, EvalCorpus, Finding, FindingKind, check, train_rows, write_clean};
use serde_json::{Value, json};

use crate::made::{Folder, WebpFrame, encode, webp};
use crate::made_parquet::write_parquet;

/// A corpus of 40 pairs of texts and pictures, of which one dataset is made, and a task of other ones.
struct Corpus {
    folder: Folder,
    rows: Vec<Value>,
    queries: Vec<Value>,
    pool: Vec<Value>,
}

impl Corpus {
    fn new() -> Self {
        let folder = Folder::new();
        for name in ["d", "pictures"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let mut corpus = Corpus { folder, rows: Vec::new(), queries: Vec::new(), pool: Vec::new() };
        for number in 0..40 {
            corpus.picture(&format!("{number}.png"), &drawn(number));
            corpus.rows.push(row(&format!("pictures/{number}.png"), &caption(number)));
        }
        for number in 100..105 {
            corpus.picture(&format!("{number}.png"), &drawn(number));
            let id = number.to_string();
            let image = json!([{ "image": format!("pictures/{number}.png") }]);
            corpus.pool.push(json!({ "id": id, "content": image, "size": 1 }));
            let query = json!([{ "text": caption(number) }]);
            let relevant = BTreeMap::from([(id.clone(), 1)]);
            corpus.queries.push(json!({ "id": id, "query": query, "pool": "all", "relevant": relevant }));
        }
        corpus
    }

    fn picture(&self, name: &str, picture: &RgbImage) {
        let picture = image::DynamicImage::from(picture.clone());
        fs::write(self.folder.path().join("pictures").join(name), encode(&picture, ImageFormat::Png))
            .unwrap();
    }

    fn write(&self) {
        let lines = |rows: &[Value]| rows.iter().map(|row| format!("{row}\n")).collect::<String>();
        let task = json!({
            "name": "t", "dataset": "d", "task": "image_retrieval", "metric": "hit_rate@1",
            "queries": "d/queries.jsonl", "pool": "d/pool_all.jsonl", "count": 5,
        });
        self.folder.write("tasks.jsonl", lines(&[task]));
        self.folder.write("d/queries.jsonl", lines(&self.queries));
        self.folder.write("d/pool_all.jsonl", lines(&self.pool));
        self.folder.write("d/train.jsonl", lines(&self.rows));
    }

    fn check(&self) -> Checked {
        self.write();
        check(self.folder.path(), &CheckOptions::default(), &|_, _| {}).unwrap()
    }

    /// Checks that there are findings of these kinds, in order, and no others.
    #[track_caller]
    fn finds(&self, kinds: &[FindingKind]) -> Vec<Finding> {
        let findings = self.check().findings;
        let found: Vec<_> = findings.iter().map(|finding| finding.kind).collect();
        assert_eq!(found, kinds, "{findings:#?}");
        findings
    }
}

fn caption(number: usize) -> String {
    format!("a drawing of many waves with number {number} on it")
}

fn row(image: &str, caption: &str) -> Value {
    json!({
        "dataset": "d", "task": "image_retrieval", "query": [{ "text": caption }], "positive": [{ "image": image }],
    })
}

/// Waves in directions and colours of their own, and a square with a sharp edge.
fn drawn(number: usize) -> RgbImage {
    let n = number as f32 + 1.0;
    let part = |k: f32| (n * k).sin() * 9.0;
    let square = [(n * 1.3).sin(), (n * 2.9).sin()].map(|place| 80.0 + 60.0 * place);
    RgbImage::from_fn(200, 160, |x, y| {
        let (u, v) = (x as f32 / 200.0, y as f32 / 160.0);
        let inside = (x as f32 - square[0]).abs() < 20.0 && (y as f32 - square[1]).abs() < 20.0;
        Rgb([0.7, 1.9, 3.1].map(|k| {
            let wave = (part(k) * u + part(k + 0.41) * v + n * k).sin() * 90.0 + 128.0;
            if inside { wave as u8 ^ 128 } else { wave as u8 }
        }))
    })
}

fn places(finding: &Finding) -> Vec<String> {
    finding.contents.iter().flat_map(|content| &content.places).map(ToString::to_string).collect()
}

fn left_out(finding: &Finding) -> Vec<usize> {
    finding.rows.iter().map(|row| row.row).collect()
}

use FindingKind::*;

#[test]
fn a_clean_corpus_gives_no_finding_and_stays_as_it_is() {
    let corpus = Corpus::new();
    let checked = corpus.check();
    assert_eq!(checked.findings, []);
    assert_eq!((checked.media, checked.datasets[0].rows, checked.datasets[0].largest), (45, 40, 1));
    let read: Vec<_> = checked.manifests.iter().map(|m| (m.file.as_str(), m.trains, m.rows)).collect();
    assert_eq!(
        read,
        [
            ("d/train.jsonl", true, 40),
            ("tasks.jsonl", false, 1),
            ("d/pool_all.jsonl", false, 5),
            ("d/queries.jsonl", false, 5)
        ]
    );
}

#[test]
fn missing_and_damaged_files_are_found_all_at_once() {
    let mut corpus = Corpus::new();
    corpus.rows[3]["positive"] = json!([{ "image": "pictures/gone.png" }]);
    corpus.rows[5]["negatives"] =
        json!([[{ "image": "pictures/gone.png" }], [{ "image": "pictures/cut.jpg" }]]);
    corpus.pool[2]["content"] = json!([{ "image": "pictures/words.png" }]);
    let mut cut = Vec::new();
    JpegEncoder::new(&mut cut).encode_image(&drawn(50)).unwrap();
    fs::write(corpus.folder.path().join("pictures/cut.jpg"), &cut[..cut.len() / 2]).unwrap();
    fs::write(corpus.folder.path().join("pictures/words.png"), "no picture").unwrap();
    let findings = corpus.finds(&[MissingFile, CorruptFile, CorruptFile]);
    assert!(findings[0].message.contains("`pictures/gone.png`"), "{}", findings[0].message);
    assert_eq!(places(&findings[0]), ["d/train.jsonl:4 positive", "d/train.jsonl:6 negatives[0]"]);
    assert_eq!(left_out(&findings[0]), [4, 6]);
    assert!(findings[1].message.contains("truncated JPEG"), "{}", findings[1].message);
    // Nothing is trained on it.
    assert_eq!(
        (places(&findings[2]), left_out(&findings[2])),
        (vec!["d/pool_all.jsonl:3 content".into()], vec![])
    );
}

#[test]
fn rows_that_can_not_be_read_do_not_hide_those_behind_them() {
    let mut corpus = Corpus::new();
    corpus.rows[1] = json!({ "dataset": "d", "task": "image_retrieval", "query": [{ "text": "x" }] });
    corpus.rows[8]["negative"] = json!([]);
    corpus.queries[4]["relevant"] = json!({ "nothing": 1 });
    corpus.pool[1]["id"] = json!("100");
    let findings = corpus.finds(&[UnreadableRow; 5]);
    let told: Vec<_> = findings.iter().map(|finding| (places(finding).remove(0), &finding.message)).collect();
    let root = corpus.folder.path().to_string_lossy();
    for (told, (place, words)) in told.iter().zip([
        ("d/train.jsonl:2", "`positive` is missing"),
        ("d/train.jsonl:9", "`negative` is not known"),
        ("d/pool_all.jsonl:2", "stands here and in line 1"),
        ("d/queries.jsonl:2", "`101`"),
        ("d/queries.jsonl:5", "`nothing`"),
    ]) {
        assert!(told.0 == place && told.1.contains(words) && !told.1.contains(&*root), "{told:?}");
    }
    assert_eq!(findings[0].rows.len() + findings[2].rows.len(), 1);
}

#[test]
fn pictures_that_are_nearly_the_same_are_found_in_other_sizes_formats_and_cuts() {
    let mut corpus = Corpus::new();
    let of = |number| drawn(number);
    corpus.picture("small.png", &resize(&of(2), 90, 72, FilterType::Triangle));
    corpus.picture("middle.png", &crop_imm(&of(4), 10, 8, 180, 144).to_image());
    let (plain, mut bright) = (of(6), of(6));
    plain
        .pixels()
        .zip(bright.pixels_mut())
        .for_each(|(from, to)| *to = Rgb(from.0.map(|l| l.saturating_add(5))));
    corpus.picture("bright.png", &bright);
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, 40).encode_image(&of(8)).unwrap();
    fs::write(corpus.folder.path().join("pictures/squeezed.jpg"), jpeg).unwrap();
    for (number, name) in ["small.png", "middle.png", "bright.png", "squeezed.jpg"].into_iter().enumerate() {
        corpus.rows.push(row(&format!("pictures/{name}"), &caption(60 + number)));
    }
    let findings = corpus.finds(&[NearPicture; 4]);
    for (finding, rows) in findings.iter().zip([[3, 41], [5, 42], [7, 43], [9, 44]]) {
        assert_eq!(places(finding), rows.map(|row| format!("d/train.jsonl:{row} positive")));
        assert_eq!(left_out(finding), [rows[1]], "the first one stays");
    }
}

#[test]
fn what_training_and_evaluation_share_is_found() {
    let mut corpus = Corpus::new();
    let jpeg = |number| {
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, 60).encode_image(&drawn(number)).unwrap();
        jpeg
    };
    // A copy under another name, a squeezed copy, a question, and a question in other words of typography.
    corpus.picture("copy.png", &drawn(100));
    fs::write(corpus.folder.path().join("pictures/squeezed.jpg"), jpeg(101)).unwrap();
    corpus.rows[0]["query"] = json!([{ "image": "pictures/copy.png" }]);
    corpus.rows[1]["positive"] = json!([{ "image": "pictures/squeezed.jpg" }]);
    corpus.rows[2]["query"] = json!([{ "text": caption(102) }]);
    corpus.rows[3]["query"] = json!([{ "text": format!("“{}!”", caption(103).to_uppercase()) }]);
    // As a hard negative it teaches nothing that helps.
    corpus.rows[4]["negatives"] = json!([[{ "image": "pictures/104.png" }]]);
    let findings = corpus.finds(&[Leak, Leak, NearLeak, NearLeak]);
    let rows: Vec<_> = findings.iter().map(left_out).collect();
    assert_eq!(rows, [[1], [3], [2], [4]]);
    assert_eq!(places(&findings[0]), ["d/train.jsonl:1 query", "d/pool_all.jsonl:1 content"]);
    assert_eq!(places(&findings[3]), ["d/queries.jsonl:4 query", "d/train.jsonl:4 query"]);
}

#[test]
fn labels_that_training_and_evaluation_share_are_no_leak() {
    let mut corpus = Corpus::new();
    let label = json!([{ "text": "a wave that is long enough to be no word" }]);
    for row in [0, 1, 2] {
        corpus.rows[row] = json!({
            "dataset": "d", "task": "image_classification", "query": corpus.rows[row]["positive"], "positive": label,
        });
    }
    corpus.pool[0]["content"] = label;
    corpus.finds(&[]);
}

#[test]
fn rows_that_stand_twice_teach_nothing_or_hold_nothing_are_found() {
    let mut corpus = Corpus::new();
    // The same with white space, and another file of the same bytes.
    corpus.picture("copy.png", &drawn(7));
    corpus.rows.push(row("pictures/copy.png", &format!(" {} ", caption(7))));
    corpus.rows[1]["positive"] = json!([{ "text": " \n" }]);
    corpus.rows[2]["query"] = corpus.rows[2]["positive"].clone();
    corpus.rows[3]["negatives"] = json!([corpus.rows[3]["positive"], [{ "text": "another" }]]);
    let findings =
        corpus.finds(&[EmptyText, DuplicateRow, DuplicateFile, PositiveIsQuery, NegativeIsPositive]);
    assert_eq!(places(&findings[0]), ["d/train.jsonl:2 positive"]);
    assert_eq!(
        (places(&findings[1]), left_out(&findings[1])),
        (vec!["d/train.jsonl:8".into(), "d/train.jsonl:41".into()], vec![41])
    );
    assert_eq!(places(&findings[2]), ["d/train.jsonl:8 positive", "d/train.jsonl:41 positive"]);
    assert_eq!(places(&findings[3]), ["d/train.jsonl:3 positive"]);
    assert_eq!(places(&findings[4]), ["d/train.jsonl:4 negatives[0]"]);
}

#[test]
fn pictures_that_show_little_are_found() {
    let mut corpus = Corpus::new();
    corpus.picture("blank.png", &RgbImage::from_pixel(200, 160, Rgb([9, 9, 9])));
    let soft = RgbImage::from_fn(200, 160, |x, y| Rgb([x as u8, y as u8, 128]));
    corpus.picture("soft.png", &soft);
    corpus.picture("tiny.png", &resize(&drawn(70), 20, 27, FilterType::Triangle));
    let line = drawn(71);
    corpus.picture("line.png", &RgbImage::from_fn(6200, 30, |x, _| *line.get_pixel(x % 200, 50)));
    for (number, name) in ["blank", "soft", "tiny", "line"].into_iter().enumerate() {
        corpus.rows[number]["positive"] = json!([{ "image": format!("pictures/{name}.png") }]);
    }
    let findings = corpus.finds(&[BlankPicture, BlurryPicture, TinyPicture, ExtremeShape]);
    let rows: Vec<_> = findings.iter().map(left_out).collect();
    assert_eq!(rows, [[1], [2], [3], [4]]);
}

/// A clip whose frames show parts of a picture.
fn clip(number: usize, noise: u8) -> Vec<u8> {
    let picture = drawn(number);
    let frames: Vec<WebpFrame> = (0..6)
        .map(|frame| {
            WebpFrame::full(RgbaImage::from_fn(100, 80, |x, y| {
                let [r, g, b] = picture.get_pixel(x + 15 * frame, y + 10 * frame).0;
                // Something small that moves.
                let g = if (10 + 10 * frame..30 + 10 * frame).contains(&x) && (20..50).contains(&y) {
                    g ^ 128
                } else {
                    g
                };
                Rgba([r.saturating_add(noise), g, b, 255])
            }))
        })
        .collect();
    webp(100, 80, &frames)
}

#[test]
fn clips_are_compared_by_their_frames() {
    let mut corpus = Corpus::new();
    for (name, number, noise) in [("one", 80, 0), ("other", 81, 0), ("again", 80, 4), ("tested", 81, 3)] {
        fs::write(corpus.folder.path().join(format!("pictures/{name}.webp")), clip(number, noise)).unwrap();
    }
    for (row, name) in [(0, "one"), (1, "other"), (2, "again")] {
        corpus.rows[row]["positive"] = json!([{ "video": format!("pictures/{name}.webp") }]);
    }
    corpus.pool[0]["content"] = json!([{ "video": "pictures/tested.webp" }]);
    // The first frame as a picture is no clip.
    corpus.rows[3]["positive"] = json!([{ "image": "pictures/one.webp" }]);
    // Frames that begin in the dark are no blank picture.
    corpus.picture("dark.png", &RgbImage::new(200, 160));
    corpus.rows[4]["positive"] = json!([{ "video": ["pictures/dark.png", "pictures/4.png"] }]);
    let findings = corpus.finds(&[NearLeak, NearClip]);
    assert_eq!(places(&findings[0]), ["d/pool_all.jsonl:1 content", "d/train.jsonl:2 positive"]);
    assert_eq!(places(&findings[1]), ["d/train.jsonl:1 positive", "d/train.jsonl:3 positive"]);
}

#[test]
fn datasets_ruled_by_a_label_small_or_uneven_are_found() {
    let mut corpus = Corpus::new();
    for (number, row) in corpus.rows.iter_mut().enumerate() {
        row["label"] = json!(if number < 24 { "wave".to_owned() } else { format!("rare {}", number / 2) });
    }
    corpus.rows.push(json!({
        "dataset": "d", "name": "few", "task": "t", "query": [{ "text": "a" }], "positive": [{ "text": "b" }],
    }));
    corpus.write();
    let options = CheckOptions { dataset_ratio: 30.0, ..CheckOptions::default() };
    let findings = check(corpus.folder.path(), &options, &|_, _| {}).unwrap().findings;
    let found: Vec<_> = findings.iter().map(|finding| (finding.kind, finding.message.as_str())).collect();
    assert_eq!(
        found,
        [
            (LabelImbalance, "d: the largest of 9 labels has 24 rows, the middle one 2"),
            (SmallDataset, "few: 1 rows, fewer than a batch of 32"),
            (UnevenDatasets, "d has 40 rows, few has 1"),
        ]
    );
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_cleaned_corpus_lacks_the_rows_that_are_wrong_and_has_none_of_the_findings() {
    let mut corpus = Corpus::new();
    corpus.rows[3]["positive"] = json!([{ "image": "pictures/gone.png" }]);
    corpus.rows[4] = json!({ "dataset": "d" });
    corpus.rows[5]["positives"] = json!([[{ "image": "pictures/5.png" }], [{ "text": "five" }]]);
    corpus.rows[5].as_object_mut().unwrap().shift_remove("positive");
    for (key, value) in [
        ("name", json!("other name")),
        ("instruction", json!("Find it: ")),
        ("negatives", json!([[{ "text": "six" }]])),
        ("label", json!("l")),
        ("group", json!("g")),
        ("positive_scores", json!([0.5, 0.25])),
        ("negative_scores", json!([0.125])),
    ] {
        corpus.rows[5][key] = value;
    }
    corpus.rows.push(corpus.rows[9].clone());
    corpus.folder.write("LICENSES.md", "mine");
    let checked = corpus.check();
    let clean = Folder::new();
    let kinds = BTreeSet::from([MissingFile, DuplicateRow]);
    let cleaned = write_clean(&checked, &kinds, clean.path()).unwrap();
    let counts: Vec<_> = cleaned.manifests.iter().map(|m| (m.file.as_str(), m.kept, m.left_out)).collect();
    assert_eq!(counts, [("d/train.jsonl", 38, 3)]);
    let expected = [("duplicate-row", 1), ("missing-file", 1), ("unreadable-row", 1)];
    assert_eq!(cleaned.left_out, BTreeMap::from(expected));
    assert_eq!(
        lines(&clean.path().join("left_out.jsonl")),
        [
            json!({ "file": "d/train.jsonl", "row": 4, "kinds": ["missing-file"] }),
            json!({ "file": "d/train.jsonl", "row": 5, "kinds": ["unreadable-row"] }),
            json!({ "file": "d/train.jsonl", "row": 41, "kinds": ["duplicate-row"] }),
        ]
    );
    // Rows are as they were, but for the places of their files.
    let written = train_rows(&clean.path().join("d/train.jsonl"), Path::new("")).unwrap();
    let mut own = corpus.rows.clone();
    [40, 4, 3].into_iter().for_each(|row| drop(own.remove(row)));
    corpus.folder.write("d/own.jsonl", own.iter().map(|row| format!("{row}\n")).collect::<String>());
    let read = train_rows(&corpus.folder.path().join("d/own.jsonl"), corpus.folder.path()).unwrap();
    for (written, read) in written.iter().zip(read) {
        assert_eq!(
            (&written.query, &written.label, &written.teacher),
            (&read.query, &read.label, &read.teacher)
        );
        assert_eq!(written, &rzen_core::Sample { origin: written.origin.clone(), ..read });
    }
    assert_eq!(fs::read_to_string(clean.path().join("LICENSES.md")).unwrap(), "mine");
    let again = check(clean.path(), &CheckOptions::default(), &|_, _| {}).unwrap();
    let kinds: Vec<_> = again.findings.iter().map(|finding| finding.kind).collect();
    // The row of another name was in no batch of its own before either.
    assert_eq!(kinds, [SmallDataset], "{:#?}", again.findings);
    assert_eq!(again.media, 38 + 5);
}

#[test]
fn parquet_and_its_rows_are_checked_and_cleaned_too() {
    let corpus = Corpus::new();
    corpus.write();
    fs::remove_file(corpus.folder.path().join("d/train.jsonl")).unwrap();
    let content = |value: &Value| json!(value.to_string());
    let mut rows: Vec<Value> = corpus
        .rows
        .iter()
        .map(|row| json!({ "dataset": "d", "task": "t", "query": content(&row["query"]), "positive": content(&row["positive"]) }))
        .collect();
    rows[2]["query"] = json!("no json");
    rows[6]["positive"] = json!("[{\"image\": \"gone.png\"}]");
    let schema = "message rows {
        required binary dataset (STRING); required binary task (STRING);
        required binary query (STRING); required binary positive (STRING); }";
    write_parquet(&corpus.folder.path().join("d/train.parquet"), schema, &rows);
    let checked = check(corpus.folder.path(), &CheckOptions::default(), &|_, _| {}).unwrap();
    let found: Vec<_> = checked.findings.iter().map(|finding| (finding.kind, places(finding))).collect();
    let place = |row: &str| vec![format!("d/train.parquet:{row}")];
    assert_eq!(found, [(UnreadableRow, place("3")), (MissingFile, place("7 positive"))]);
    let clean = Folder::new();
    write_clean(&checked, &BTreeSet::from([MissingFile]), clean.path()).unwrap();
    assert_eq!(train_rows(&clean.path().join("d/train.jsonl"), Path::new("")).unwrap().len(), 38);
}

#[test]
fn a_folder_that_is_no_corpus_is_refused() {
    let empty = Folder::new();
    let refusal = |path: PathBuf| check(&path, &CheckOptions::default(), &|_, _| {}).unwrap_err().to_string();
    assert!(refusal(empty.path().to_owned()).contains("neither a folder with train.jsonl"));
    assert!(refusal(empty.path().join("gone")).contains("gone"));
}

/// A pool outside of the corpus is read and copied, and nothing is written where it lies.
#[test]
fn nothing_is_written_outside_of_the_clean_corpus() {
    let corpus = Corpus::new();
    corpus.write();
    let place = Folder::new();
    let whole = place.path().join("corpus");
    fs::rename(corpus.folder.path().join("d"), place.path().join("d")).unwrap();
    fs::create_dir(&whole).unwrap();
    fs::rename(corpus.folder.path().join("pictures"), whole.join("pictures")).unwrap();
    let list = fs::read_to_string(corpus.folder.path().join("tasks.jsonl")).unwrap();
    fs::write(whole.join("tasks.jsonl"), list.replace("d/", "../d/")).unwrap();
    let pool = fs::read(place.path().join("d/pool_all.jsonl")).unwrap();
    let checked = check(&whole, &CheckOptions::default(), &|_, _| {}).unwrap();
    let clean = place.path().join("clean");
    fs::create_dir(&clean).unwrap();
    write_clean(&checked, &BTreeSet::new(), &clean).unwrap();
    assert_eq!(fs::read(place.path().join("d/pool_all.jsonl")).unwrap(), pool);
    let items = |folder: &Path| {
        let corpus = EvalCorpus::open(folder).unwrap();
        corpus.load(&corpus.tasks[0]).unwrap().pool.into_iter().map(|row| row.item).collect::<Vec<_>>()
    };
    assert_eq!(items(&clean), items(&whole));
}
