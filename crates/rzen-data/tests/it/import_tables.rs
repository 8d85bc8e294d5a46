//! Imports of tables: MMEB, mmE5, MegaPairs, sentence-transformers, ViDoRe, and our own columns.

use std::path::Path;

use image::ImageFormat;
use rzen_core::{Item, Part, TeacherScores};
use rzen_data::{ImportKind, Loader};
use serde_json::{Value, json};

use crate::imports::{Workshop, item};
use crate::made::{check_message, encode, gradient};
use crate::made_parquet::write_parquet;

const MMEB: &str = "message schema {
    optional binary qry (STRING); optional binary qry_image_path (STRING);
    optional binary pos_text (STRING); optional binary pos_image_path (STRING);
    optional binary neg_text (STRING); optional binary neg_image_path (STRING); }";

fn mmeb(query: &str, query_image: &str, positive: &str, positive_image: &str, negatives: [&str; 2]) -> Value {
    json!({
        "qry": query, "qry_image_path": query_image, "pos_text": positive, "pos_image_path": positive_image,
        "neg_text": negatives[0], "neg_image_path": negatives[1],
    })
}

#[test]
fn mmeb_train() {
    let shop = Workshop::new(&["images/ImageNet_1K/Train/a.png", "images/b.png"]);
    let (a, b) = ("images/ImageNet_1K/Train/a.png", "images/b.png");
    let input = shop.folder.path().join("original-00000-of-00001.parquet");
    let rows = [
        mmeb("<|image_1|>\nRepresent the given image for classification\n", a, "tench", "", ["", ""]),
        mmeb(
            "<|image_1|>\nRepresent the given image with the following question: What is it?\n",
            a,
            "a fish",
            "",
            ["", ""],
        ),
        mmeb(
            "Find me an everyday image that matches the given caption: A fish.\n",
            "",
            "<|image_1|>\nRepresent the given image.\n",
            b,
            ["", ""],
        ),
        mmeb(
            "<|image_1|>\nSelect the portion of the image that isolates the object labeled as \"fish\"\n",
            a,
            "<|image_1|>\nRepresent the given cropped image of the object\n",
            b,
            ["<|image_1|>\nanother", a],
        ),
        mmeb("<|image_1|>\nSay what this is: x\n", a, "y", "", ["[MASK] as it stands", ""]),
    ];
    write_parquet(&input, MMEB, &rows);
    let (samples, report) = shop.import(&ImportKind::Mmeb, std::slice::from_ref(&input)).unwrap();
    let query =
        |content: Vec<Part>, instruction: &str| Item { content, instruction: Some(instruction.into()) };
    assert_eq!(
        samples[0].query,
        query(vec![shop.picture(a)], "Represent the given image for classification")
    );
    assert_eq!(samples[0].positive, Item::text("tench"));
    assert_eq!(samples[0].hard_negatives, []);
    let asked = "Represent the given image with the following question: ";
    assert_eq!(samples[1].query, query(shop.shown(a, "What is it?"), asked));
    let find = "Find me an everyday image that matches the given caption: ";
    assert_eq!(samples[2].query, query(vec![Part::Text("A fish.".into())], find));
    assert_eq!(samples[2].positive, item(shop.shown(b, "Represent the given image.")));
    let select = "Select the portion of the image that isolates the object labeled as ";
    assert_eq!(samples[3].query, query(shop.shown(a, "\"fish\""), select));
    assert_eq!(samples[3].hard_negatives, [item(shop.shown(a, "another"))]);
    // No known instruction: nothing is lost, and the report says so.
    assert_eq!(samples[4].query, item(shop.shown(a, "Say what this is: x")));
    assert_eq!(samples[4].hard_negatives, [Item::text("[MASK] as it stands")]);
    assert_eq!(report.notes.values().collect::<Vec<_>>(), [&1]);
    assert_eq!(report.unused.len(), 0);

    let mut shop = shop;
    shop.options.instruction = Some("Say what this is:".into());
    let (samples, report) = shop.import(&ImportKind::Mmeb, &[input]).unwrap();
    assert_eq!(samples[4].query, query(shop.shown(a, "x"), "Say what this is: "));
    assert_eq!(samples[0].query.instruction.as_deref(), Some("Represent the given image for classification"));
    assert!(report.notes.is_empty());

    let marked = shop.lines("marked.jsonl", &[mmeb("<|image_1|>\nWhat?", "", "y", "", ["", ""])]);
    check_message(
        &shop.import(&ImportKind::Mmeb, &[marked]).unwrap_err(),
        &["row 1", "1 pictures", "no path"],
    );
}

#[test]
fn mme5() {
    let shop = Workshop::new(&["laion/a.png", "laion/b.png", "laion/c.png"]);
    let [a, b, c] = ["laion/a.png", "laion/b.png", "laion/c.png"];
    let input = shop.folder.path().join("Retrieval.parquet");
    let text = r#"["<|image_1|>\nit's a \"dog\"", '<|image_1|>\nein Hund\n', '']"#;
    let paths = format!("['{b}', '{c}', '']");
    let rows = [
        mmeb("<|image_1|>\nwhere?", a, "", b, [text, &paths]),
        mmeb("q", "", "p", "", ["['n', 'p', 'm']", "[]"]),
    ];
    write_parquet(&input, MMEB, &rows);
    let (samples, report) = shop.import(&ImportKind::Mmeb, &[input]).unwrap();
    assert_eq!(samples[0].positive, item(vec![shop.picture(b)]));
    let hard = [item(shop.shown(b, "it's a \"dog\"")), item(shop.shown(c, "ein Hund"))];
    assert_eq!(samples[0].hard_negatives, hard);
    // What equals the positive is no negative.
    assert_eq!(samples[1].hard_negatives, [Item::text("n"), Item::text("m")]);
    assert_eq!(report.notes["negatives left out that equal a positive"], 1);

    // Lists as lists, as the sets of B3 have them; and what can't be read is named.
    let mut row = mmeb("q", "", "p", "", ["", ""]);
    row["neg_text"] = json!(["n", ""]);
    row["neg_image_path"] = json!(["", a]);
    let input = shop.lines("b3.jsonl", &[row]);
    let (samples, _) = shop.import(&ImportKind::Mmeb, &[input]).unwrap();
    assert_eq!(samples[0].hard_negatives, [Item::text("n"), item(vec![shop.picture(a)])]);
    let broken = shop.lines("broken.jsonl", &[mmeb("q", "", "p", "", ["['n' 'm']", ""])]);
    let error = shop.import(&ImportKind::Mmeb, &[broken]).unwrap_err();
    check_message(&error, &["broken.jsonl, row 1", "`neg_text`", "comma"]);
}

#[test]
fn megapairs() {
    let mut shop = Workshop::new(&["1/q.png", "1/t.png", "1/n.png"]);
    let row = json!({
        "q_img": "1/q.png", "q_text": ["make it red", "in red"], "t_img": "1/t.png", "hns": ["1/q.png", "1/n.png"],
    });
    let input = shop.lines("megapairs.jsonl", &[row.clone(), row]);
    let (samples, _) = shop.import(&ImportKind::MegaPairs, std::slice::from_ref(&input)).unwrap();
    assert_eq!(samples[0].query, item(shop.shown("1/q.png", "make it red")));
    assert_eq!(samples[1].query, item(shop.shown("1/q.png", "in red")));
    assert_eq!(samples[0].positive, item(vec![shop.picture("1/t.png")]));
    let hard = ["1/q.png", "1/n.png"].map(|name| item(vec![shop.picture(name)]));
    assert_eq!(samples[0].hard_negatives, hard);
    shop.options.drop_query = true;
    let (samples, report) = shop.import(&ImportKind::MegaPairs, &[input]).unwrap();
    assert_eq!(samples[0].hard_negatives, hard[1..]);
    assert_eq!(report.notes["negatives left out that equal the query"], 2);
}

#[test]
fn sentence_transformers_columns() {
    let shop = Workshop::new(&["a.png"]);
    let input = shop.folder.path().join("triplets.parquet");
    let schema = "message schema { optional binary query (STRING); optional binary answer (STRING);
        optional binary negative_1 (STRING); optional binary negative_2 (STRING); optional int64 index;
        optional group scores (LIST) { repeated group list { optional double element; } } }";
    let rows = [
        json!({ "query": "q", "answer": "p", "negative_1": "n", "negative_2": "m", "index": 7, "scores": [0.9, 0.5, 0.25] }),
        json!({ "query": "r", "answer": "o", "negative_1": "l", "scores": [0.75, 0.5] }),
    ];
    write_parquet(&input, schema, &rows);
    let kind = ImportKind::SentenceTransformers { columns: None };
    let (samples, report) = shop.import(&kind, &[input]).unwrap();
    assert_eq!((&samples[0].query, &samples[0].positive), (&Item::text("q"), &Item::text("p")));
    assert_eq!(samples[0].hard_negatives, [Item::text("n"), Item::text("m")]);
    let teacher = TeacherScores { positives: vec![0.9], negatives: vec![0.5, 0.25] };
    assert_eq!(samples[0].teacher, Some(teacher));
    assert_eq!(samples[1].hard_negatives, [Item::text("l")]);
    assert_eq!(report.unused.iter().collect::<Vec<_>>(), ["index"]);
    let roles =
        "rows with the query in `query`, the positive in `answer`, negatives in `negative_1`, `negative_2`";
    assert_eq!(report.notes[roles], 2);

    let input = shop.lines("multimodal.jsonl", &[json!({
        "id": 3, "caption": "q", "photo": { "image": "a.png", "text": "of it" }, "negatives": ["n", { "image": "a.png" }],
    })]);
    let columns = Some(["caption", "photo", "negatives"].map(str::to_owned).to_vec());
    let kind_of_names = ImportKind::SentenceTransformers { columns };
    let (samples, _) = shop.import(&kind_of_names, &[input]).unwrap();
    assert_eq!(samples[0].positive, item(shop.shown("a.png", "of it")));
    assert_eq!(samples[0].hard_negatives, [Item::text("n"), item(vec![shop.picture("a.png")])]);

    for (row, named) in [
        (json!({ "sentence1": "a", "sentence2": "b", "label": 0 }), "`label`"),
        (json!({ "sentence1": "a", "sentence2": "b", "score": 0.3 }), "`score`"),
        (json!({ "a": "a", "b": "b", "negative": "c", "scores": [1.0] }), "1 positives and 0 negatives"),
        (json!({ "a": "a" }), "1 columns"),
        (json!({ "a": "a", "b": [1] }), "a list"),
        (json!({ "a": "a", "b": { "audio": "x.wav" } }), "`audio`"),
    ] {
        let input = shop.lines("odd.jsonl", &[row]);
        check_message(&shop.import(&kind, &[input]).unwrap_err(), &["odd.jsonl, row 1", named]);
    }
}

#[test]
fn vidore_pages_are_written_out_once() {
    let shop = Workshop::new(&[]);
    let input = shop.folder.path().join("train-00000-of-00001.parquet");
    let schema = "message schema {
        optional group image { optional binary bytes; optional binary path (STRING); }
        optional binary image_filename (STRING); optional binary query (STRING); optional binary answer (STRING); }";
    let pages = [3, 5].map(|size| encode(&gradient(size, 4).into(), ImageFormat::Png));
    let row = |query: &str, page: &Vec<u8>| json!({ "image": { "bytes": page, "path": null }, "image_filename": "p.png", "query": query, "answer": "x" });
    write_parquet(&input, schema, &[row("q", &pages[0]), row("r", &pages[1]), row("s", &pages[0])]);
    let (samples, report) = shop.import(&ImportKind::Vidore, std::slice::from_ref(&input)).unwrap();
    assert_eq!(
        samples.iter().map(|sample| &sample.query).collect::<Vec<_>>(),
        [&Item::text("q"), &Item::text("r"), &Item::text("s")]
    );
    assert_eq!(samples[0].positive, samples[2].positive);
    assert_eq!(report.media_files, 2);
    assert_eq!(report.unused.iter().collect::<Vec<_>>(), ["answer", "image_filename"]);
    // The paths count from the corpus, and training can load them.
    let Part::Image(path) = &samples[1].positive.content[0] else { panic!("{:?}", samples[1].positive) };
    assert!(path.starts_with("d/media"), "{path:?}");
    let loaded = shop.options.corpus.join(path);
    assert_eq!(std::fs::read(&loaded).unwrap(), pages[1]);
    Loader::default().load(&Item::image(loaded)).unwrap();

    write_parquet(&input, schema, &[row("q", &b"no picture".to_vec())]);
    let error = shop.import(&ImportKind::Vidore, std::slice::from_ref(&input)).unwrap_err();
    check_message(&error, &["row 1", "10 bytes in no known format"]);
    write_parquet(&input, schema, &[json!({ "image": { "bytes": pages[0], "path": null }, "query": null })]);
    check_message(&shop.import(&ImportKind::Vidore, &[input]).unwrap_err(), &["`query`", "missing or empty"]);
}

#[test]
fn our_own_columns_with_pictures_inside() {
    let shop = Workshop::new(&["a.png", "b.png"]);
    shop.folder.write("media/c.pdf", "%PDF-1.4");
    let input = shop.folder.path().join("train.parquet");
    let part = "optional group element { optional binary text (STRING);
        optional group image { optional binary bytes; optional binary path (STRING); } }";
    let schema = format!(
        "message schema {{ optional binary name (STRING); optional binary instruction (STRING);
        optional binary query (STRING); optional binary group (STRING);
        optional group positive (LIST) {{ repeated group list {{ {part} }} }}
        optional group negatives (LIST) {{ repeated group list {{ optional group element (LIST) {{ repeated group list {{
            {part} }} }} }} }} }}"
    );
    let bytes = encode(&gradient(9, 4).into(), ImageFormat::Png);
    let query = json!([{ "video": ["a.png", "b.png"] }, { "text": "q" }, { "document": "c.pdf", "page": 2 }]);
    let row = json!({
        "name": "d_one", "instruction": "Find: ", "query": query.to_string(), "group": "film",
        "positive": [{ "image": { "bytes": bytes, "path": "x.png" } }, { "text": "of it" }],
        "negatives": [[{ "text": "n" }], [{ "image": { "bytes": null, "path": "a.png" } }]],
    });
    write_parquet(&input, &schema, std::slice::from_ref(&row));
    let (samples, report) = shop.import(&ImportKind::Parquet, std::slice::from_ref(&input)).unwrap();
    let sample = &samples[0];
    assert_eq!((sample.name.as_str(), sample.group.as_deref()), ("d_one", Some("film")));
    assert_eq!(sample.query.instruction.as_deref(), Some("Find: "));
    let media = shop.folder.path().join("media");
    let frames = ["a.png", "b.png"].map(|name| media.join(name)).to_vec();
    assert_eq!(sample.query.content[0], Part::Video(rzen_core::VideoSource::Frames(frames)));
    assert_eq!(sample.query.content[2], Part::Document { path: media.join("c.pdf"), page: 2 });
    let Part::Image(path) = &sample.positive.content[0] else { panic!("{:?}", sample.positive) };
    assert_eq!(std::fs::read(shop.options.corpus.join(path)).unwrap(), bytes);
    assert!(path.starts_with(Path::new("d/media")));
    assert_eq!(sample.hard_negatives, [Item::text("n"), item(vec![shop.picture("a.png")])]);
    assert_eq!(report.media_files, 1);

    for (part, named) in [
        (json!([{ "text": "a", "image": { "bytes": null, "path": "a.png" } }]), "`image`"),
        (json!([{ "text": null, "image": { "bytes": null, "path": null } }]), "empty"),
    ] {
        let mut odd = row.clone();
        odd["positive"] = part;
        write_parquet(&input, &schema, &[odd]);
        check_message(
            &shop.import(&ImportKind::Parquet, std::slice::from_ref(&input)).unwrap_err(),
            &["row 1", "`positive`", named],
        );
    }
    let odd = shop.lines("odd.jsonl", &[json!({ "query": "[{\"text\": ", "positive": [{ "text": "p" }] })]);
    check_message(&shop.import(&ImportKind::Parquet, &[odd]).unwrap_err(), &["`query`", "no JSON"]);
}
