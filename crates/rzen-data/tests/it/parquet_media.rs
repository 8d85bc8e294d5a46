//! Pictures inside Parquet files.

use std::collections::HashSet;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{ImageFormat, Rgb, RgbImage};
use parquet::basic::Compression;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rzen_core::{Item, Media, Part, Picture, VideoSource};
use rzen_data::{
    LoadOptions, Loader, media_is_there, media_sha256, picture_page_bytes, train_manifests, train_rows,
    train_rows_of,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::made::{Folder, check_message};
use crate::made_parquet::{write_parquet, write_parquet_as};

/// Parts with pictures as the `datasets` library stores them, and frames of clips.
const SCHEMA: &str = "message rows {
    required binary dataset (STRING); required binary task (STRING);
    required group query (LIST) { repeated group list { required group element {
        optional binary text (STRING);
        optional group image { optional binary bytes; optional binary path (STRING); } } } }
    optional group positive (LIST) { repeated group list { optional group element {
        optional binary text (STRING); optional binary image;
        optional group video (LIST) { repeated group list { optional group element {
            optional binary bytes; optional binary path (STRING); } } } } } }
    optional group negatives (LIST) { repeated group list { optional group element (LIST) { repeated group list {
        optional group element { optional binary text (STRING);
            optional group image { optional binary bytes; optional binary path (STRING); } } } } } } }";

/// Rows drawn at random, and the bytes in each in the order of their parts.
struct Drawn {
    rng: ChaCha8Rng,
    bytes: Vec<Vec<u8>>,
}

impl Drawn {
    fn one_of(&mut self, count: u32) -> bool {
        self.rng.next_u32().is_multiple_of(count)
    }

    fn some_bytes(&mut self) -> Value {
        let length = 1 + self.rng.next_u32() % if self.one_of(8) { 3000 } else { 40 };
        // Few different ones, so that there is a dictionary worth it.
        let mut bytes = vec![(self.rng.next_u32() % 4) as u8; length as usize];
        if self.one_of(2) {
            self.rng.fill_bytes(&mut bytes);
        }
        self.bytes.push(bytes.clone());
        json!(bytes)
    }

    fn part(&mut self) -> Value {
        match self.rng.next_u32() % 4 {
            0 => json!({ "text": "t", "image": null }),
            1 => json!({ "image": { "bytes": null, "path": "p.png" } }),
            _ => json!({ "image": { "bytes": self.some_bytes(), "path": "name.png" } }),
        }
    }

    fn parts(&mut self) -> Value {
        (0..1 + self.rng.next_u32() % 3).map(|_| self.part()).collect()
    }

    fn row(&mut self) -> Value {
        let query = self.parts();
        let positive = match self.rng.next_u32() % 3 {
            0 => json!([{ "text": "t", "image": null, "video": null }]),
            1 => json!([{ "image": self.some_bytes() }, { "text": "t" }]),
            _ => {
                let frames = (0..1 + self.rng.next_u32() % 3)
                    .map(|_| json!({ "bytes": self.some_bytes(), "path": null }))
                    .collect::<Value>();
                json!([{ "video": frames }])
            }
        };
        let negatives: Value = match self.rng.next_u32() % 3 {
            0 => Value::Null,
            1 => json!([]),
            _ => (0..1 + self.rng.next_u32() % 3).map(|_| self.parts()).collect(),
        };
        json!({ "dataset": "d", "task": "t", "query": query, "positive": positive, "negatives": negatives })
    }
}

/// The pictures of an item that lie in a Parquet file.
fn inside(item: &Item) -> Vec<PathBuf> {
    let files = item.content.iter().flat_map(|part| part.files(Path::new("")));
    files.filter(|path| path.to_str().unwrap().contains(".parquet#")).collect()
}

/// Every picture is found by its path, whatever the pages look like.
#[test]
fn pictures_are_found_where_they_were_written() {
    let base = || WriterProperties::builder().set_write_batch_size(1);
    let small = |builder: WriterPropertiesBuilder| builder.set_data_page_size_limit(600);
    let layouts = [
        ("one page", WriterProperties::builder().set_dictionary_enabled(false)),
        ("one page and a dictionary", WriterProperties::builder()),
        ("small pages", small(base())),
        ("no dictionary", small(base()).set_dictionary_enabled(false).set_compression(Compression::SNAPPY)),
        ("second version", small(base()).set_writer_version(WriterVersion::PARQUET_2_0)),
        (
            "full dictionary",
            small(base()).set_dictionary_page_size_limit(200).set_compression(Compression::LZ4_RAW),
        ),
        (
            "second version, packed, pages of two rows",
            base()
                .set_data_page_row_count_limit(2)
                .set_writer_version(WriterVersion::PARQUET_2_0)
                .set_dictionary_enabled(false)
                .set_compression(Compression::GZIP(Default::default())),
        ),
    ];
    for (seed, (layout, properties)) in layouts.into_iter().enumerate() {
        let folder = Folder::new();
        let mut drawn = Drawn { rng: ChaCha8Rng::seed_from_u64(seed as u64), bytes: Vec::new() };
        let rows: Vec<Value> = (0..60).map(|_| drawn.row()).collect();
        let manifest = folder.path().join("train.parquet");
        write_parquet_as(&manifest, SCHEMA, &rows, 23, properties.build());
        let samples = train_rows(&manifest, folder.path()).unwrap();
        let mut found = Vec::new();
        for sample in &samples {
            let items = [&sample.query, &sample.positive].into_iter().chain(&sample.hard_negatives);
            found.extend(items.flat_map(inside));
        }
        let hash = |bytes: &Vec<u8>| <[u8; 32]>::from(Sha256::digest(bytes));
        assert_eq!(found.len(), drawn.bytes.len(), "{layout}");
        assert!(found.len() > 100, "{layout}");
        // Last ones first: nothing depends on what was read before.
        for (path, bytes) in found.iter().zip(&drawn.bytes).rev() {
            assert_eq!(media_sha256(path).unwrap(), hash(bytes), "{layout}: {}", path.display());
        }
        // Equal pictures are one.
        let paths: HashSet<_> = found.iter().collect();
        let contents: HashSet<_> = drawn.bytes.iter().collect();
        assert_eq!(paths.len(), contents.len(), "{layout}");
        assert!(paths.len() < found.len(), "{layout}");
        let largest = picture_page_bytes(&manifest).unwrap();
        // A page of places in a dictionary is small, the dictionary is not.
        let expected = match layout {
            "one page" => 8_000..u64::MAX,
            "no dictionary" => 0..8_000,
            _ => 1_000..u64::MAX,
        };
        assert!(expected.contains(&largest), "{layout}: {largest}");
    }
}

fn png(grey: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let picture = RgbImage::from_pixel(3, 2, Rgb([grey; 3]));
    picture.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
    bytes
}

fn grey(grey: u8) -> Picture {
    Picture::new(3, 2, vec![grey; 18])
}

fn row(query: Value, positive: Value) -> Value {
    json!({ "dataset": "d", "task": "t", "query": query, "positive": positive, "negatives": null })
}

/// A dataset `d` of one row: a picture looks for a clip of two frames.
fn dataset(folder: &Folder) -> PathBuf {
    fs::create_dir(folder.path().join("d")).unwrap();
    let manifest = folder.path().join("d/train.parquet");
    let frames = json!([{ "bytes": png(20), "path": null }, { "bytes": png(30), "path": "b.png" }]);
    let rows =
        [row(json!([{ "image": { "bytes": png(10), "path": "a.png" } }]), json!([{ "video": frames }]))];
    write_parquet(&manifest, SCHEMA, &rows);
    manifest
}

#[test]
fn they_are_loaded_like_files() {
    let folder = Folder::new();
    let manifest = dataset(&folder);
    let sample = &train_rows(&manifest, folder.path()).unwrap()[0];
    let loader = Loader::default();
    assert_eq!(loader.load(&sample.query).unwrap().parts, [Media::Image(grey(10))]);
    assert_eq!(loader.load(&sample.positive).unwrap().parts, [Media::Frames(vec![grey(20), grey(30)])]);
    let digest: String = Sha256::digest(png(10))[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let name = format!("d/train.parquet#query.list.element.image.bytes@000000000-{digest}");
    let path = folder.path().join(&name);
    assert_eq!(sample.query.content, [Part::Image(path.clone())]);
    assert!(media_is_there(&path) && !media_is_there(&folder.path().join("e").join(&name)));
    // A path counts from the root of a loader like any other.
    let rooted = Loader::new(LoadOptions { root: folder.path().to_owned(), ..LoadOptions::default() });
    assert_eq!(rooted.load_part(&Part::Image(name.into())).unwrap(), Media::Image(grey(10)));
    // A picture is a clip of one frame.
    let clip = Part::Video(VideoSource::File(path.clone()));
    assert_eq!(loader.load_part(&clip).unwrap(), Media::Frames(vec![grey(10)]));
    let small = Loader::new(LoadOptions { max_file_bytes: 20, ..LoadOptions::default() });
    check_message(&small.load(&sample.query).unwrap_err(), &["d/train.parquet#query", "more than 20 bytes"]);
}

#[test]
fn a_file_that_changed_or_broke_is_named() {
    let folder = Folder::new();
    let manifest = dataset(&folder);
    let sample = train_rows(&manifest, folder.path()).unwrap().remove(0);
    let loader = Loader::default();
    let error = |part: &str| {
        loader.load_part(&Part::Image(format!("{}#{part}", manifest.display()).into())).unwrap_err()
    };
    let column = "query.list.element.image.bytes";
    check_message(&error(&format!("{column}@7-00")), &["d/train.parquet#query", "no bytes at 7"]);
    check_message(&error("other@0-00"), &["`other`", "no bytes"]);
    // The file is another by now: text where the picture was, and another picture.
    write_parquet(&manifest, SCHEMA, &[row(json!([{ "text": "q" }]), json!([{ "text": "p" }]))]);
    check_message(&loader.load(&sample.query).unwrap_err(), &["no bytes at 0", "again"]);
    let other = json!([{ "image": { "bytes": png(11), "path": "a.png" } }]);
    write_parquet(&manifest, SCHEMA, &[row(other, json!([{ "text": "p" }]))]);
    check_message(&loader.load(&sample.query).unwrap_err(), &["other bytes", "did the file change", "again"]);
    fs::write(&manifest, "PAR1 and no more").unwrap();
    check_message(&loader.load(&sample.query).unwrap_err(), &["d/train.parquet#query", "again"]);
    fs::remove_file(&manifest).unwrap();
    check_message(&loader.load(&sample.query).unwrap_err(), &["d/train.parquet`", "check the path"]);
}

/// Whatever is damaged, there is an error or the bytes are wrong; nothing panics, hangs or takes all memory.
#[test]
fn a_damaged_page_is_an_error() {
    let folder = Folder::new();
    let manifest = dataset(&folder);
    let whole = fs::read(&manifest).unwrap();
    let sample = train_rows(&manifest, folder.path()).unwrap().remove(0);
    let path = inside(&sample.query).remove(0);
    let expected = media_sha256(&path).unwrap();
    let mut refused = 0;
    for place in 4..whole.len() {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x5a;
        // Under a name of its own, so that nothing is known of it.
        let copy = folder.path().join(format!("d/{place}.parquet"));
        fs::write(&copy, &damaged).unwrap();
        let name =
            path.file_name().unwrap().to_str().unwrap().replace("train.parquet", &format!("{place}.parquet"));
        match media_sha256(&copy.with_file_name(name)) {
            Ok(found) => assert!(found == expected, "other bytes passed, damaged at {place}"),
            Err(_) => refused += 1,
        }
        let _ = picture_page_bytes(&copy);
        let _ = train_rows(&copy, folder.path());
    }
    assert!(refused > 20, "{refused} of {}", whole.len());
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_not_opened() {
    let folder = Folder::new();
    let pipe = folder.path().join("p.parquet");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let path = folder.path().join("p.parquet#image@0-00");
    let error = Loader::default().load_part(&Part::Image(path.clone())).unwrap_err();
    check_message(&error, &["p.parquet", "a pipe or a device"]);
    assert!(media_sha256(&path).is_err() && !media_is_there(&path));
}

/// A folder's name may be anything.
#[cfg(target_os = "linux")]
#[test]
fn the_name_of_the_corpus_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;
    let folder = Folder::new();
    let corpus = folder.path().join(std::ffi::OsStr::from_bytes(b"c\xff#.parquet#x@1-2"));
    fs::create_dir_all(corpus.join("d")).unwrap();
    fs::copy(dataset(&folder), corpus.join("d/train.parquet")).unwrap();
    let sample = &train_rows(&corpus.join("d/train.parquet"), &corpus).unwrap()[0];
    assert_eq!(Loader::default().load(&sample.query).unwrap().parts, [Media::Image(grey(10))]);
}

#[test]
fn films_and_documents_are_not_read_from_inside() {
    let folder = Folder::new();
    let schema = "message rows {
        required binary dataset (STRING); required binary task (STRING); required binary positive (STRING);
        required group query (LIST) { repeated group list { required group element {
            optional group KEY { optional binary bytes; optional binary path (STRING); } } } } }";
    for key in ["video", "document"] {
        let rows = [json!({
            "dataset": "d", "task": "t", "positive": "[{\"text\": \"p\"}]",
            "query": [{ key: { "bytes": [1, 2], "path": "a.mp4" } }]
        })];
        let path = folder.path().join("train.parquet");
        write_parquet(&path, &schema.replace("KEY", key), &rows);
        let error = train_rows(&path, folder.path()).unwrap_err();
        check_message(&error, &["train.parquet:1", "`query`", "bytes", "`image`", "`video`"]);
    }
}

#[test]
fn a_dataset_may_have_several_parquet_files() {
    let folder = Folder::new();
    let manifests = || train_manifests(folder.path());
    let path = |name: &str| folder.path().join(name);
    assert_eq!(manifests().unwrap(), [path("train.jsonl")]);
    let names =
        ["train-00000-of-00003.parquet", "train-00001-of-00003.parquet", "train-00002-of-00003.parquet"];
    for name in [names[2], names[0]] {
        write_parquet(&path(name), SCHEMA, &[row(json!([{ "text": name }]), json!([{ "text": "p" }]))]);
    }
    check_message(&manifests().unwrap_err(), &["lacks", "3 files", "number 1"]);
    fs::copy(path(names[0]), path(names[1])).unwrap();
    assert_eq!(manifests().unwrap(), names.map(path));
    folder.write("train.parquet", "");
    check_message(&manifests().unwrap_err(), &["train.parquet", "train-00000-of-00003.parquet", "keep"]);
    fs::remove_file(path("train.parquet")).unwrap();
    names.iter().for_each(|name| fs::remove_file(path(name)).unwrap());
    // Those of two uploads.
    for second in ["train-00000-of-00002-b.parquet", "train-00000-of-00001.parquet"] {
        for name in ["train-00000-of-00002-a.parquet", "train-00001-of-00002-a.parquet", second] {
            folder.write(name, "");
        }
        check_message(&manifests().unwrap_err(), &["train-00000-of-0000", "and train-0000", "keep"]);
        for name in ["train-00000-of-00002-a.parquet", "train-00001-of-00002-a.parquet", second] {
            fs::remove_file(path(name)).unwrap();
        }
    }
    // The hub's own names, and names that count nothing.
    for names in [["train-00000-of-00001-a80d1f.parquet"].as_slice(), &["train-a.parquet", "train-b.parquet"]]
    {
        names.iter().for_each(|name| drop(folder.write(name, "")));
        assert_eq!(manifests().unwrap(), names.iter().map(|name| path(name)).collect::<Vec<_>>());
        names.iter().for_each(|name| fs::remove_file(path(name)).unwrap());
    }
}

#[test]
fn files_of_a_dataset_share_their_pictures_and_may_be_empty() {
    let folder = Folder::new();
    let pair = |query, positive| {
        row(json!([{ "image": { "bytes": png(query), "path": null } }]), json!([{ "image": png(positive) }]))
    };
    let names =
        ["train-a.parquet", "train-b.parquet", "train-c.parquet"].map(|name| folder.path().join(name));
    write_parquet(&names[0], SCHEMA, &[pair(1, 2), pair(3, 1)]);
    write_parquet(&names[1], SCHEMA, &[]);
    write_parquet(&names[2], SCHEMA, &[pair(2, 4)]);
    let rows = train_rows_of(&train_manifests(folder.path()).unwrap(), folder.path()).unwrap();
    let paths = rows.iter().flat_map(|row| [inside(&row.query), inside(&row.positive)].concat());
    let paths: Vec<_> = paths.collect();
    assert_eq!((&paths[0], &paths[1]), (&paths[3], &paths[4]));
    assert_eq!(HashSet::<&PathBuf>::from_iter(&paths).len(), 4);
    check_message(&train_rows_of(&names[1..2], folder.path()).unwrap_err(), &["train-b.parquet", "no rows"]);
}
