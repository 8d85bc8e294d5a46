//! Imports on the command line, and trainings on what was imported.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::command::{refuse, succeed, tiny_model};

fn write_lines(path: &Path, rows: &[Value]) {
    fs::write(path, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
}

const IMPORT: [&str; 9] = [
    "data",
    "import",
    "sentence-transformers",
    "--output",
    "corpus",
    "--task",
    "text_retrieval",
    "--input",
    "rows.jsonl",
];

#[test]
fn an_import_tells_what_it_took_and_leaves_nothing_where_it_fails() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let row =
        |number: usize| json!({ "query": format!("q{number}"), "answer": format!("a{number}"), "note": "x" });
    let mut rows: Vec<Value> = (0..4).map(row).collect();
    rows[2]["answer"] = Value::Null;
    write_lines(&folder.join("rows.jsonl"), &rows);
    let with = |more: &[&'static str]| [&IMPORT[..], more].concat();

    let error = refuse(folder, &with(&["--dataset", "d"]));
    assert!(error.contains("rows.jsonl, row 3") && error.contains("`answer`"), "{error}");
    assert!(!error.contains("room on the disk"), "{error}");
    assert_eq!(fs::read_dir(folder.join("corpus")).unwrap().count(), 0);

    let told = succeed(folder, &with(&["--dataset", "d", "--bad-row-limit", "1"]));
    for words in ["3 rows of 4 read, 1 refused", "columns not used: note", "the query in `query`"] {
        assert!(told.contains(words), "{told}");
    }
    let report: Value =
        serde_json::from_slice(&fs::read(folder.join("corpus/d/import.json")).unwrap()).unwrap();
    assert_eq!((&report["report"]["rows"], &report["report"]["bad_rows"][0]["row"]), (&json!(3), &json!(3)));
    let lines = || fs::read_to_string(folder.join("corpus/d/train.jsonl")).unwrap().lines().count();
    assert_eq!(lines(), 3);

    let taken = refuse(folder, &with(&["--dataset", "d", "--cap", "2"]));
    assert!(taken.contains("--overwrite"), "{taken}");
    let told = succeed(folder, &with(&["--dataset", "d", "--cap", "2", "--overwrite"]));
    assert!(told.contains("the cap ended the import"), "{told}");
    assert_eq!(lines(), 2);

    // Nothing of the user's goes.
    fs::write(folder.join("corpus/d/notes.txt"), "mine").unwrap();
    let mine = refuse(folder, &with(&["--dataset", "d", "--overwrite"]));
    assert!(mine.contains("notes.txt"), "{mine}");
    fs::remove_file(folder.join("corpus/d/notes.txt")).unwrap();
    let read = refuse(folder, &with(&["--dataset", "d", "--overwrite", "--media", "corpus/d"]));
    assert!(read.contains("holds corpus/d, which is read"), "{read}");
    assert_eq!(lines(), 2);

    for (more, named) in [
        (["--dataset", "../d"], "plain name"),
        (["--dataset", ".d"], "plain name"),
        (["--reverse", "--dataset=e"], "--reverse"),
    ] {
        let error = refuse(folder, &with(&more));
        assert!(error.contains(named), "{error}");
    }
}

const RECIPE: &str = concat!(
    "seed = 5\n",
    tiny_model!(),
    r#"
[[stage]]
name = "one"
batch_size = 6
micro_batch_size = 6
epochs = 3
hard_negatives = 2
datasets = [{ dataset = "d", teacher = { margin = 0.05 } }]
objective = { symmetric = true }
training = { learning_rate = 1e-3 }
"#
);

#[test]
fn imported_rows_with_answers_labels_groups_and_scores_train() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let passage = |text: String| json!({ "docid": "0", "title": "", "text": text });
    let row = |number: usize| {
        json!({
            "query_id": number.to_string(), "query": format!("the question of number {number}"),
            "kind": format!("kind {}", number % 3), "film": format!("film {}", number / 2),
            "positive_passages": [passage(format!("an answer of {number}")), passage("the answer of all".into())],
            "negative_passages": [passage(format!("no answer of {number}")), passage("an answer of 0".into())],
        })
    };
    write_lines(&folder.join("rows.jsonl"), &(1..19).map(row).collect::<Vec<_>>());
    succeed(
        folder,
        &[
            "data",
            "import",
            "tevatron",
            "--input",
            "rows.jsonl",
            "--output",
            "corpus",
            "--dataset",
            "d",
            "--task",
            "text_retrieval",
            "--instruction",
            "Find it: ",
            "--label",
            "kind",
            "--group",
            "film",
        ],
    );
    let manifest = folder.join("corpus/d/train.jsonl");
    let scored = |line: &str| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        row["positive_scores"] = json!([0.9, 0.8]);
        row["negative_scores"] = json!([0.5, 0.78]);
        row
    };
    let rows: Vec<Value> = fs::read_to_string(&manifest).unwrap().lines().map(scored).collect();
    write_lines(&manifest, &rows);

    let corpus = folder.join("corpus");
    let pool: Vec<Value> = (0..9)
        .map(|n| json!({ "id": n.to_string(), "content": [{ "text": format!("an answer of {n}") }] }))
        .collect();
    write_lines(&corpus.join("d/pool_all.jsonl"), &pool);
    let query = json!({ "id": "q", "query": [{ "text": "the question of number 1" }], "pool": "all", "relevant": { "1": 1 } });
    write_lines(&corpus.join("d/queries.jsonl"), &[query]);
    let task = json!({
        "name": "d", "dataset": "d", "task": "text_retrieval", "metric": "hit_rate@1", "queries": "d/queries.jsonl",
        "pool": "d/pool_all.jsonl",
    });
    write_lines(&corpus.join("tasks.jsonl"), &[task]);
    fs::write(folder.join("tiny.toml"), RECIPE).unwrap();
    let output = crate::command::rzen(folder, &["train", "--config", "tiny.toml", "--data", "corpus"]);
    let told = crate::command::text(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("18 hard negatives left out"), "{told}");
    assert!(told.contains("18 rows, 9 steps"), "{told}");

    // Without tasks to measure there need be no list of them.
    fs::remove_file(corpus.join("tasks.jsonl")).unwrap();
    let again = ["train", "--config", "tiny.toml", "--data", "corpus", "--output", "unmeasured"];
    assert!(refuse(folder, &again).contains("`tasks = []`"));
    let told = succeed(folder, &[&again[..], &["--set", "evaluation.tasks=[]"]].concat());
    assert!(told.contains("measures no tasks"), "{told}");
    assert!(folder.join("unmeasured/one/model/config.json").is_file());
}

/// A corpus of pairs of texts, one of which stands twice, and of which one file is missing and one tiny.
fn faulty(folder: &Path) {
    let part = |text: &str| json!([{ "text": text }]);
    let row = |query: Value, positive: Value| json!({ "dataset": "d", "task": "text_retrieval", "query": query, "positive": positive });
    let mut rows: Vec<Value> = (0..40).map(|n| row(part(&format!("q{n}")), part(&format!("a{n}")))).collect();
    rows.push(rows[3].clone());
    rows.push(row(part("gone"), json!([{ "image": "d/gone.png" }])));
    rows.push(row(part("tiny"), json!([{ "image": "d/tiny.png" }])));
    fs::create_dir_all(folder.join("corpus/d")).unwrap();
    write_lines(&folder.join("corpus/d/train.jsonl"), &rows);
    let pixel = |x: u32, y: u32| image::Rgb([(x * 9) as u8, (y * 11) as u8, ((x ^ y) * 40) as u8]);
    image::RgbImage::from_fn(20, 20, pixel).save(folder.join("corpus/d/tiny.png")).unwrap();
}

#[test]
fn a_check_writes_a_page_findings_and_a_corpus_that_is_clean() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    faulty(folder);
    let told = succeed(folder, &["data", "check", "corpus", "--output", "checked"]);
    for words in [
        "1 missing-file",
        "1 duplicate-row",
        "1 tiny-picture",
        "43 training rows of 1 datasets",
        "3 findings",
    ] {
        assert!(told.contains(words), "{told}");
    }
    let page = fs::read_to_string(folder.join("checked/report.html")).unwrap();
    for words in ["3 findings.", "2 rows are left out", "20 x 20 pixels", "data:image/jpeg;base64,"] {
        assert!(page.contains(words), "{words}");
    }
    let findings = fs::read_to_string(folder.join("checked/findings.jsonl")).unwrap();
    assert!(findings.starts_with(r#"{"kind":"missing-file","message":"#), "{findings}");
    assert_eq!(findings.lines().count(), 3);
    let told = succeed(folder, &["data", "check", "checked", "--fail-on", "error"]);
    assert!(told.contains("1 findings") && told.contains("tiny-picture"), "{told}");

    let strict = ["data", "check", "corpus", "--fail-on"];
    for (kinds, named) in
        [("error", "duplicate-row, missing-file"), ("tiny-picture", "tiny-picture"), ("leaks", "near-leak")]
    {
        let error = refuse(folder, &[&strict[..], &[kinds]].concat());
        assert!(error.contains(named), "{error}");
    }
    succeed(folder, &[&strict[..], &["leak,near-picture"]].concat());

    // Kinds can be moved, threads change nothing, and only what a check wrote is replaced.
    let again = [
        "data",
        "check",
        "corpus",
        "--output",
        "checked",
        "--keep",
        "duplicate-row",
        "--drop",
        "tiny-picture",
    ];
    assert!(refuse(folder, &again).contains("--overwrite"));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rzen"));
    let threads = |threads| [("RAYON_NUM_THREADS", threads)];
    let output =
        command.current_dir(folder).envs(threads("1")).args(again).arg("--overwrite").output().unwrap();
    assert!(output.status.success(), "{}", crate::command::text(&output.stderr));
    assert_eq!(fs::read_to_string(folder.join("checked/findings.jsonl")).unwrap(), findings);
    let left_out = fs::read_to_string(folder.join("checked/left_out.jsonl")).unwrap();
    let lines = [
        "{\"file\":\"d/train.jsonl\",\"row\":42,\"kinds\":[\"missing-file\"]}\n",
        "{\"file\":\"d/train.jsonl\",\"row\":43,\"kinds\":[\"tiny-picture\"]}\n",
    ];
    assert_eq!(left_out, lines.concat());
    // Nothing of somebody else's is removed, however deep it lies.
    for mine in ["notes.txt", "clean/d/notes.txt"] {
        let file = folder.join("checked").join(mine);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "mine").unwrap();
        assert!(refuse(folder, &[&again[..], &["--overwrite"]].concat()).contains(mine));
        fs::remove_file(&file).unwrap();
    }
    let over = ["data", "check", "corpus", "--output", "corpus", "--overwrite"];
    assert!(refuse(folder, &over).contains("holds corpus, which is read"));
}

/// Writes `film.gif` of twenty frames, a tenth of a second each and lighter from one to the next; says so where there is no ffmpeg
/// that could cut it.
fn has_film(folder: &Path) -> bool {
    let ffmpeg = std::process::Command::new("ffmpeg").arg("-version").output();
    if !ffmpeg.is_ok_and(|ran| ran.status.success()) {
        eprintln!("skipped: ffmpeg is not there");
        return false;
    }
    let frame = |number: u8| {
        let picture =
            image::RgbaImage::from_pixel(48, 32, image::Rgba([number * 12, number * 12, number * 12, 255]));
        image::Frame::from_parts(picture, 0, 0, image::Delay::from_numer_denom_ms(100, 1))
    };
    let mut encoder = image::codecs::gif::GifEncoder::new(fs::File::create(folder.join("film.gif")).unwrap());
    encoder.encode_frames((0..20).map(frame)).unwrap();
    true
}

#[test]
fn films_are_cut_whole_or_not_at_all_and_nothing_of_others_goes() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    if !has_film(folder) {
        return;
    }
    let film = |end: f64| {
        let pieces = [(0.0, 0.9, "dark"), (1.0, end, "light")];
        let segments: Vec<Value> = pieces
            .iter()
            .map(|(start, end, caption)| json!({"start": start, "end": end, "caption": caption}))
            .collect();
        json!({ "video": "film.gif", "segments": segments })
    };
    let clips =
        ["data", "clips", "--input", "films.jsonl", "--output", "corpus", "--dataset", "films", "--both"];
    let with = |more: &[&'static str]| [&clips[..], more].concat();

    write_lines(&folder.join("films.jsonl"), &[film(50.0)]);
    let outside = refuse(folder, &clips);
    assert!(outside.contains("films.jsonl, row 1: piece 2"), "{outside}");
    assert_eq!(fs::read_dir(folder.join("corpus")).unwrap().count(), 0);

    write_lines(&folder.join("films.jsonl"), &[film(1.9)]);
    let told = succeed(folder, &with(&["--num-frames", "3"]));
    assert!(told.contains("4 rows of 1 read, 0 refused") && told.contains("6 pictures written"), "{told}");
    assert!(told.contains("1 films named by the rows"), "{told}");
    let rows = fs::read_to_string(folder.join("corpus/films/train.jsonl")).unwrap();
    let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["films_t2v", "films_v2t", "films_t2v", "films_v2t"]);
    assert!(rows.iter().all(|row| row["group"] == rows[0]["group"] && row["group"].is_string()), "{rows:?}");

    assert!(refuse(folder, &clips).contains("--overwrite"));
    let read = refuse(folder, &with(&["--overwrite", "--media", "corpus/films/media"]));
    assert!(read.contains("which is read"), "{read}");
    fs::write(folder.join("corpus/films/notes.txt"), "mine").unwrap();
    let mine = refuse(folder, &with(&["--overwrite"]));
    assert!(mine.contains("notes.txt"), "{mine}");
    fs::remove_file(folder.join("corpus/films/notes.txt")).unwrap();
    // One that fails leaves what was there.
    write_lines(&folder.join("films.jsonl"), &[film(50.0)]);
    refuse(folder, &with(&["--overwrite"]));
    assert!(folder.join("corpus/films/train.jsonl").is_file());
    write_lines(&folder.join("films.jsonl"), &[film(1.9)]);
    assert!(succeed(folder, &with(&["--overwrite"])).contains("4 rows of 1 read"));
}

/// The rows that the paper's recipes take are those that the command of docs/data.md writes.
#[test]
fn recipes_take_the_rows_of_clips_and_of_whole_films() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    if !has_film(folder) {
        return;
    }
    let row = |start: f64, words: &str| {
        json!({ "video": "film.gif", "start": start, "end": start + 0.9, "conversations": [
            { "from": "human", "value": "<video>\nWhat is seen?" }, { "from": "gpt", "value": words }] })
    };
    write_lines(&folder.join("films.jsonl"), &[row(0.0, "dark"), row(1.0, "light")]);
    let clips =
        ["data", "clips", "--input", "films.jsonl", "--output", "corpus", "--dataset", "videochat_flash"];
    succeed(folder, &[&clips[..], &["--long-form"]].concat());
    let rows = fs::read_to_string(folder.join("corpus/videochat_flash/train.jsonl")).unwrap();
    // A row without a name has that of its dataset.
    let name = |row: &str| serde_json::from_str::<Value>(row).unwrap()["name"].as_str().map(str::to_owned);
    let mut written: Vec<String> =
        rows.lines().map(|row| name(row).unwrap_or_else(|| "videochat_flash".into())).collect();
    written.dedup();
    for size in ["2b", "7b"] {
        let recipe =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../recipes/rzenembed-{size}.toml"));
        let recipe: toml::Table = fs::read_to_string(recipe).unwrap().parse().unwrap();
        for stage in &recipe["stage"].as_array().unwrap()[1..] {
            let datasets = stage["datasets"].as_array().unwrap().iter();
            let of_films = datasets.filter(|row| row["dataset"].as_str().unwrap().starts_with("videochat"));
            let taken: Vec<String> = of_films
                .inspect(|row| {
                    assert_eq!((&row["dataset"], &row["cap"]), (&"videochat_flash".into(), &100_000.into()))
                })
                .flat_map(|row| row["rows"].as_array().unwrap())
                .map(|name| name.as_str().unwrap().to_owned())
                .collect();
            assert_eq!(taken, written, "{size}, {}", stage["name"]);
        }
    }
}
