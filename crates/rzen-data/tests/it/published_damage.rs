//! Everything that can be wrong with the files of a published benchmark is said, in one list.

use std::fs;
use std::path::Path;

use rzen_data::{Problems, Protocol, Published, Suite};
use serde_json::json;

use crate::made::{Folder, check_message};
use crate::miniature::{annotate, drawn, write};

struct Damaged(Folder);

impl Damaged {
    fn new(suite: Suite) -> Self {
        let folder = Folder::new();
        write(suite, folder.path());
        Damaged(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn open(&self, suite: Suite) -> Published {
        Published::open(suite, self.path(), Protocol::Vlm2vec, None).unwrap()
    }

    /// Faults of a set, which is not loaded either; the same words are said.
    fn check(&self, suite: Suite, name: &str, expected: &[&str]) {
        let published = self.open(suite);
        let names = [name.to_owned()];
        let problems = published.check(Some(&names)).unwrap();
        let [fault] = problems.faults.as_slice() else { panic!("{name} has one fault: {problems}") };
        assert_eq!(fault.task, name);
        check_message(&fault.problem, expected);
        let task = published.named(Some(&names)).unwrap()[0].clone();
        check_message(&published.load(&task).unwrap_err(), expected);
    }
}

#[test]
fn everything_stands_in_one_list() {
    let damaged = Damaged::new(Suite::MmebV2);
    let root = damaged.path();
    fs::remove_dir_all(root.join("annotations/VLM2Vec/MSVD")).unwrap();
    fs::remove_dir_all(root.join("video-tasks/frames/video_cls/UCF101")).unwrap();
    fs::remove_file(root.join("image-tasks/CIRR/q1.jpg")).unwrap();
    let problems = damaged.open(Suite::MmebV2).check(None).unwrap();
    let names: Vec<_> = problems.faults.iter().map(|fault| fault.task.as_str()).collect();
    assert_eq!(names, ["CIRR", "UCF101", "MSVD"]);
    // All of them are smaller than what was published, the one that can't be read aside.
    let mut counted: Vec<_> = problems.counts.iter().map(|fault| fault.task.clone()).collect();
    counted.dedup();
    assert_eq!(counted.len(), 77);
    check_message(
        &problems,
        &[
            "can't be evaluated (3 of 78 data sets):",
            "  MSVD: no table of split `test` in",
            "hf download --repo-type dataset VLM2Vec/MSVD",
            "3 of 3 files and folders of media can't be used",
            "differ in size from what was published (77 of 78 data sets):",
            "  ImageNet-1K: 3 queries, published with 1000",
        ],
    );
    assert!(!problems.is_fine() && Problems::default().is_fine());
}

#[test]
fn tables_that_are_missing_or_lack_columns() {
    let damaged = Damaged::new(Suite::MmebV2);
    let root = damaged.path().join("annotations");
    fs::remove_file(root.join("vidore/tatdqa_test_beir/qrels/test-00000-of-00001.parquet")).unwrap();
    damaged.check(
        Suite::MmebV2,
        "ViDoRe_tatdqa",
        &["config `qrels`, split `test`", "vidore/tatdqa_test_beir"],
    );
    fs::remove_file(root.join("VLM2Vec/MVBench/json/action_count.json")).unwrap();
    damaged.check(Suite::MmebV2, "MVBench", &["config `action_count`, split `train`"]);
    annotate(damaged.path(), "VLM2Vec/HMDB51/test.jsonl", "", &[json!({ "video": "a", "label": "wave" })]);
    damaged.check(Suite::MmebV2, "HMDB51", &["no column `video_id`, `pos_text`", "it has `video`, `label`"]);
    annotate(
        damaged.path(),
        "openbmb/VisRAG-Ret-Test-PlotQA/corpus/train-00000-of-00001.parquet",
        "corpus-id",
        &[],
    );
    damaged.check(Suite::MmebV2, "VisRAG_PlotQA", &["no column `image`"]);
    fs::write(root.join("VLM2Vec/Breakfast/test.json"), "[]").unwrap();
    damaged.check(Suite::MmebV2, "Breakfast", &["test.json", "no rows"]);
    fs::write(root.join("VLM2Vec/DiDeMo/data/test-00000-of-00001.parquet"), "<html>").unwrap();
    damaged.check(Suite::MmebV2, "DiDeMo", &["test-00000-of-00001.parquet", "as Parquet"]);
}

#[test]
fn media_that_are_missing_or_no_pictures() {
    let damaged = Damaged::new(Suite::MmebV2);
    let root = damaged.path();
    let frames = root.join("video-tasks/frames");
    fs::remove_dir_all(frames.join("video_mret/QVHighlight/film_1")).unwrap();
    damaged.check(
        Suite::MmebV2,
        "QVHighlight",
        &["film_1/query` is missing", "film_1/positive` is missing", "film_1/negative` is missing", "unpack"],
    );
    let film = frames.join("video_mret/Charades_STA/film_0");
    for clip in fs::read_dir(&film).unwrap().map(|entry| entry.unwrap().path()) {
        if clip.file_name().unwrap().to_string_lossy().starts_with("negative") {
            fs::remove_dir_all(clip).unwrap();
        }
    }
    let problems = damaged.open(Suite::MmebV2).check(Some(&["Charades-STA".to_owned()])).unwrap();
    check_message(&problems, &["Charades-STA: 1 of 3 queries list nothing but answers"]);
    assert!(problems.counts.iter().any(|count| count.problem.contains("nothing but answers")));
    fs::remove_dir_all(frames.join("video_ret/VATEX/clip_2")).unwrap();
    fs::create_dir(frames.join("video_ret/VATEX/clip_2")).unwrap();
    damaged.check(Suite::MmebV2, "VATEX", &["1 of 9 files and folders", "clip_2` holds no pictures"]);
    fs::write(root.join("image-tasks/NIGHTS/q0.jpg"), "<html>not found</html>").unwrap();
    damaged.check(Suite::MmebV2, "NIGHTS", &["1 of 7 files", "q0.jpg` is no picture"]);
    fs::write(root.join("image-tasks/OVEN/q0.jpg"), "").unwrap();
    damaged.check(Suite::MmebV2, "OVEN", &["q0.jpg"]);
    fs::remove_dir_all(root.join("image-tasks/EDIS")).unwrap();
    damaged.check(Suite::MmebV2, "EDIS", &["4 of 4 files", "t0.jpg` is missing", " and 1 more"]);
}

#[test]
fn rows_that_are_wrong() {
    let damaged = Damaged::new(Suite::MmebV2);
    let image = |name: &str, row: serde_json::Value| {
        let columns = "qry_inst qry_text qry_img_path tgt_inst tgt_text[] tgt_img_path[]";
        let file = format!("ziyjiang/MMEB_Test_Instruct/{name}/test-00000-of-00001.parquet");
        annotate(damaged.path(), &file, columns, &[row]);
    };
    let row = |texts: &[&str], paths: &[&str]| json!({ "qry_inst": "Look", "qry_text": "", "qry_img_path": "OK-VQA/q0.jpg", "tgt_inst": "", "tgt_text": texts, "tgt_img_path": paths });
    image("OK-VQA", row(&[], &[]));
    damaged.check(Suite::MmebV2, "OK-VQA", &["row 1", "list of targets is empty"]);
    image("VizWiz", row(&["a", " "], &["", ""]));
    damaged.check(Suite::MmebV2, "VizWiz", &["`tgt_text` holds an empty text"]);
    image("CIRR", row(&["a"], &["CIRR/t0.jpg", "CIRR/t1.jpg"]));
    damaged.check(Suite::MmebV2, "CIRR", &["`tgt_img_path` has 2 entries and `tgt_text` 1"]);

    let video = |file: &str, row: serde_json::Value| annotate(damaged.path(), file, "", &[row]);
    video("VLM2Vec/HMDB51/test.jsonl", json!({ "video_id": "clip_0", "pos_text": "swim" }));
    damaged.check(
        Suite::MmebV2,
        "HMDB51",
        &["test.jsonl`, row 1", "the answer `swim` is none of the labels"],
    );
    fs::remove_dir_all(damaged.path().join("annotations/VLM2Vec/EgoSchema")).unwrap();
    let ego =
        json!({ "video_idx": "uuid-0", "question": "What?", "option": ["A. a", "B. b"], "answer": "2" });
    video("VLM2Vec/EgoSchema/Subset/test.jsonl", ego);
    damaged.check(Suite::MmebV2, "EgoSchema", &["the answer is option 3, and there are 2"]);
    fs::remove_dir_all(damaged.path().join("annotations/VLM2Vec/ActivityNetQA")).unwrap();
    video(
        "VLM2Vec/ActivityNetQA/test.jsonl",
        json!({ "video_name": "a0", "question": "is it", "answer": "maybe" }),
    );
    damaged.check(Suite::MmebV2, "ActivityNetQA", &["`maybe`, expected yes or no"]);
}

#[test]
fn pages_that_can_not_be_written() {
    let damaged = Damaged::new(Suite::Vidore);
    let file = |set: &str, part: &str| format!("vidore/{set}/{part}/test-00000-of-00001.parquet");
    let page =
        |id: i64, bytes: Vec<u8>| json!({ "corpus-id": id, "image": { "bytes": bytes, "path": "a.png" } });
    let corpus = "corpus-id:int image:picture";
    let twice = [page(1, drawn("1.png")), page(1, drawn("2.png"))];
    annotate(damaged.path(), &file("docvqa_test_subsampled_beir", "corpus"), corpus, &twice);
    damaged.check(Suite::Vidore, "ViDoRe_docvqa", &["row 2", "page `1` stands there already"]);
    let only_one = [page(1, drawn("1.png"))];
    annotate(damaged.path(), &file("infovqa_test_subsampled_beir", "corpus"), corpus, &only_one);
    damaged.check(
        Suite::Vidore,
        "ViDoRe_infovqa",
        &["query `1` is answered by page `2`, which is not in the corpus"],
    );
    let query = |id: i64| json!({ "query-id": id, "query": "what?" });
    let columns = "query-id:int query";
    annotate(
        damaged.path(),
        &file("tabfquad_test_subsampled_beir", "queries"),
        columns,
        &[query(0), query(0)],
    );
    damaged.check(Suite::Vidore, "ViDoRe_tabfquad", &["row 2", "query `0` stands there already"]);
    annotate(damaged.path(), &file("tatdqa_test_beir", "queries"), columns, &[query(7)]);
    damaged.check(Suite::Vidore, "ViDoRe_tatdqa", &["query `7` has no answer"]);

    // Found when pages are written, before anything else is done with the set.
    let broken = [page(1, drawn("1.png")), page(2, b"<html>".to_vec())];
    annotate(damaged.path(), &file("shiftproject_test_beir", "corpus"), corpus, &broken);
    let published = damaged.open(Suite::Vidore);
    let task = |name: &str| published.named(Some(&[name.to_owned()])).unwrap()[0].clone();
    let error = published.write_pages(&task("ViDoRe_shiftproject")).unwrap_err();
    check_message(&error, &["row 2", "page `2` holds no picture"]);
    let name = "ViDoRe_arxivqa";
    // None of the sets that are wrong has written a page.
    assert!(!damaged.path().join("visdoc-tasks").exists());
    fs::create_dir(damaged.path().join("visdoc-tasks")).unwrap();
    fs::write(damaged.path().join("visdoc-tasks").join(name), "a file").unwrap();
    let spoilt = "ViDoRe_syntheticDocQA_energy";
    published.write_pages(&task(spoilt)).unwrap();
    let folder = damaged.path().join("visdoc-tasks").join(spoilt);
    fs::write(fs::read_dir(folder).unwrap().next().unwrap().unwrap().path(), "<html>").unwrap();
    damaged.check(Suite::Vidore, spoilt, &["is no picture", "pages are written anew out of their tables"]);
    check_message(&published.write_pages(&task(name)).unwrap_err(), &["1.png", "another folder"]);
}

#[test]
fn what_is_not_there_at_all() {
    let folder = Folder::new();
    let gone = folder.path().join("gone");
    let open = |suite, path: &Path| Published::open(suite, path, Protocol::Rzen, None);
    check_message(&open(Suite::MmebV1, &gone).unwrap_err(), &["gone", "no folder"]);
    check_message(&open(Suite::Beir, folder.path()).unwrap_err(), &["BEIR's layout", "corpus.jsonl"]);
    let published = open(Suite::MmebV1, folder.path()).unwrap();
    check_message(
        &published.check(Some(&["MSVD".into()])).unwrap_err(),
        &["mmeb-v1 has no data set `MSVD`", "GQA"],
    );
    assert_eq!(published.check(None).unwrap().faults.len(), 36);
}

#[test]
fn passages_that_are_wrong() {
    let damaged = Damaged::new(Suite::Beir);
    let corpus = damaged.path().join("fever/corpus.jsonl");
    let row = json!({ "_id": "fever-a", "title": "", "text": "words" });
    fs::write(&corpus, format!("{row}\n{row}\n")).unwrap();
    damaged.check(Suite::Beir, "fever", &["corpus.jsonl`, row 2", "passage `fever-a` stands there already"]);
    // An incomplete corpus is no other corpus.
    fs::write(&corpus, format!("{row}\n")).unwrap();
    damaged.check(Suite::Beir, "fever", &["corpus.jsonl` lacks passages", "2 of 3 judgements", "whole"]);
    let qrels = damaged.path().join("fever/qrels/test.tsv");
    for grade in ["nan", "inf", "much", "1001"] {
        fs::write(&qrels, format!("query-id\tcorpus-id\tscore\n1\tfever-a\t{grade}\n")).unwrap();
        damaged.check(Suite::Beir, "fever", &["row 2", grade, "expected query, passage and grade"]);
    }
    let problems = damaged.open(Suite::Beir).check(Some(&["forums/cats".into()])).unwrap();
    assert!(problems.is_fine());
    check_message(&problems, &["to know", "1 queries without judgements left out"]);
    // Queries that are lost are no fewer queries.
    let folder = damaged.path().join("forums/cats");
    fs::write(folder.join("queries.jsonl"), "{\"_id\": \"1\", \"text\": \"letter 1?\"}\n").unwrap();
    damaged.check(Suite::Beir, "forums/cats", &["queries.jsonl` lacks queries", "1 of 3 judgements"]);
    fs::write(folder.join("qrels/test.tsv"), "query-id\tcorpus-id\tscore\n").unwrap();
    let problems = damaged.open(Suite::Beir).check(Some(&["forums/cats".into()])).unwrap();
    check_message(&problems, &["can't be evaluated", "forums/cats: holds no query that can be scored"]);
}
