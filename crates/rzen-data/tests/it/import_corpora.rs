//! Imports of queries that name passages: Tevatron, BEIR, and ViDoRe in BEIR's layout.

use std::fs;
use std::path::PathBuf;

use image::ImageFormat;
use rzen_core::{Item, Part};
use rzen_data::ImportKind;
use serde_json::{Value, json};

use crate::imports::{Workshop, item};
use crate::made::{check_message, encode, gradient};
use crate::made_parquet::write_parquet;

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

#[test]
fn tevatron_passages() {
    let shop = Workshop::new(&[]);
    let passage = |title: &str, text: &str| json!({ "docid": "7", "title": title, "text": text });
    let input = shop.lines("train.jsonl", &[json!({
        "query_id": "1", "query": "who?", "positive_passages": [passage("Ada", "She wrote."), passage("", "It was she.")],
        "negative_passages": [passage("Bob", "")],
    })]);
    let kind = ImportKind::Tevatron { corpus: Vec::new() };
    let (samples, report) = shop.import(&kind, &[input]).unwrap();
    assert_eq!(samples[0].query, Item::text("who?"));
    assert_eq!(samples[0].positive, Item::text("Ada She wrote."));
    assert_eq!(samples[0].other_positives, [Item::text("It was she.")]);
    assert_eq!(samples[0].hard_negatives, [Item::text("Bob")]);
    assert!(report.unused.is_empty(), "{:?}", report.unused);
    let odd =
        shop.lines("odd.jsonl", &[json!({ "query": "q", "positive_passages": [], "negative_passages": [] })]);
    check_message(&shop.import(&kind, &[odd]).unwrap_err(), &["row 1", "the positive is empty"]);
}

#[test]
fn tevatron_ids_of_a_corpus() {
    let shop = Workshop::new(&["a.png", "q.png"]);
    let row = |positive: &str| {
        json!({
            "query_id": "1", "query_text": "who?", "query_image": "q.png",
            "positive_document_ids": [positive], "negative_document_ids": ["n"],
        })
    };
    let corpus = shop.lines(
        "corpus.jsonl",
        &[
            json!({ "docid": "p", "text": "words", "image": "a.png" }),
            json!({ "docid": "n", "text": "other words" }),
            // Nobody names it, so that it may be odd.
            json!({ "docid": "x", "image": "gone.png" }),
            json!({ "docid": "y", "image": "gone.png" }),
        ],
    );
    let kind = ImportKind::Tevatron { corpus: vec![corpus] };
    let (samples, _) = shop.import(&kind, &[shop.lines("train.jsonl", &[row("p")])]).unwrap();
    assert_eq!(samples[0].query, item(shop.shown("q.png", "who?")));
    assert_eq!(samples[0].positive, item(shop.shown("a.png", "words")));
    assert_eq!(samples[0].hard_negatives, [Item::text("other words")]);
    for (id, named) in [("z", "`z` is not in the corpus"), ("y", "gone.png")] {
        let input = shop.lines("train.jsonl", &[row(id)]);
        check_message(&shop.import(&kind, &[input]).unwrap_err(), &["train.jsonl, row 1", named]);
    }

    let again = |text: &str| shop.lines("more.jsonl", &[json!({ "docid": "n", "text": text })]);
    let import = |more: PathBuf| {
        let first = shop.folder.path().join("corpus.jsonl");
        let kind = ImportKind::Tevatron { corpus: vec![first, more] };
        shop.import(&kind, &[shop.lines("train.jsonl", &[row("p")])])
    };
    let (_, report) = import(again("other words")).unwrap();
    assert_eq!(report.notes["passages that stand twice in the corpus, with the same content"], 1);
    let clash = ["train.jsonl, row 1", "passage `n`", "corpus.jsonl:2", "more.jsonl:1", "different content"];
    check_message(&import(again("new words")).unwrap_err(), &clash);
}

/// BEIR's folder.
fn beir(shop: &Workshop, qrels: &str) -> PathBuf {
    let folder = shop.folder.path().join("beir");
    fs::create_dir_all(folder.join("qrels")).unwrap();
    let corpus =
        ["a", "b", "c", "d", "e"].map(|id| json!({ "_id": id, "title": "On", "text": id, "metadata": {} }));
    fs::write(folder.join("corpus.jsonl"), lines(&corpus)).unwrap();
    let queries =
        ["1", "2", "3", "4"].map(|id| json!({ "_id": id, "text": format!("about {id}"), "metadata": {} }));
    fs::write(folder.join("queries.jsonl"), lines(&queries)).unwrap();
    fs::write(folder.join("qrels/train.tsv"), format!("query-id\tcorpus-id\tscore\n{qrels}")).unwrap();
    fs::write(folder.join("qrels/test.tsv"), "query-id\tcorpus-id\tscore\n4\te\t1\n").unwrap();
    folder
}

#[test]
fn beir_with_grades() {
    let shop = Workshop::new(&[]);
    let folder = beir(&shop, "1\ta\t2\n1\tb\t1\n1\tc\t0\n2\tb\t1\n2\tgone\t1\n3\td\t2\n");
    let kind = |split: &str, min_grade| ImportKind::Beir { split: split.into(), min_grade };
    let error = shop.import(&kind("train", 1.0), std::slice::from_ref(&folder)).unwrap_err();
    check_message(&error, &["queries.jsonl, row 2", "`gone` is not in the corpus"]);

    let folder = beir(&shop, "1\ta\t2\n1\tb\t1\n1\tc\t0\n2\tb\t1\n3\td\t2\n");
    let (samples, report) = shop.import(&kind("train", 1.0), std::slice::from_ref(&folder)).unwrap();
    assert_eq!(samples.len(), 3);
    assert_eq!(samples[0].query, Item::text("about 1"));
    assert_eq!(samples[0].positives().collect::<Vec<_>>(), [&Item::text("On a"), &Item::text("On b")]);
    assert_eq!(samples[0].hard_negatives, [Item::text("On c")]);
    assert_eq!(report.notes["queries without judgements in this split, left out"], 1);
    // Of rows that were taken: those without judgements don't count.
    assert_eq!(report.unused.iter().collect::<Vec<_>>(), ["metadata"]);

    // A grade of 1 is neither positive nor negative.
    let (samples, report) = shop.import(&kind("train", 2.0), std::slice::from_ref(&folder)).unwrap();
    assert_eq!(
        samples.iter().map(|s| &s.positive).collect::<Vec<_>>(),
        [&Item::text("On a"), &Item::text("On d")]
    );
    assert!(samples[0].other_positives.is_empty());
    assert_eq!(report.notes["judgements between a negative and a positive, not used"], 2);
    assert_eq!(report.notes["queries without a passage of the least grade, left out"], 1);

    let (samples, _) = shop.import(&kind("test", 1.0), std::slice::from_ref(&folder)).unwrap();
    assert_eq!(samples[0].positive, Item::text("On e"));
    let error = shop.import(&kind("dev", 1.0), std::slice::from_ref(&folder)).unwrap_err();
    check_message(&error, &["beir", "split `dev`", "qrels/"]);
    let error = shop.import(&kind("train", 1.0), &[beir(&shop, "1\ta\n")]).unwrap_err();
    check_message(&error, &["train.tsv", "row 2", "with tabs"]);
    // As TREC writes them, without names of columns.
    fs::write(folder.join("qrels/train.tsv"), "1 0 a 1\n".replace(' ', "\t")).unwrap();
    assert_eq!(shop.import(&kind("train", 1.0), &[folder]).unwrap().0.len(), 1);
}

#[test]
fn beir_ids_that_stand_twice() {
    let mut shop = Workshop::new(&[]);
    let folder = beir(&shop, "1\ta\t1\n2\tb\t1\n3\tc\t1\n");
    let row = |id: &str, text: &str| json!({ "_id": id, "title": "", "text": text });
    let write = |name: &str, rows: &[Value]| fs::write(folder.join(name), lines(rows)).unwrap();
    let kind = ImportKind::Beir { split: "train".into(), min_grade: 1.0 };

    // `x` and `4` are judged nowhere, so that they may be odd.
    let corpus = [("a", "A"), ("b", "B"), ("c", "C"), ("b", "B"), ("x", "X"), ("x", "Y")];
    let queries = [("1", "one"), ("2", "two"), ("1", "one"), ("4", "four"), ("3", "three"), ("4", "five")];
    write("corpus.jsonl", &corpus.map(|(id, text)| row(id, text)));
    write("queries.jsonl", &queries.map(|(id, text)| row(id, text)));
    let (samples, report) = shop.import(&kind, std::slice::from_ref(&folder)).unwrap();
    let asked: Vec<_> = samples.iter().map(|sample| &sample.query).collect();
    assert_eq!(asked, [&Item::text("one"), &Item::text("two"), &Item::text("three")]);
    assert_eq!(samples[1].positive, Item::text("B"));
    assert_eq!(report.notes["passages that stand twice in the corpus, with the same content"], 1);
    assert_eq!(report.notes["queries that stand twice, with the same content, left out"], 1);

    let corpus = [("a", "A"), ("b", "B"), ("c", "C"), ("b", "other")];
    let queries = [("1", "one"), ("2", "two"), ("1", "other"), ("3", "three")];
    write("corpus.jsonl", &corpus.map(|(id, text)| row(id, text)));
    write("queries.jsonl", &queries.map(|(id, text)| row(id, text)));
    shop.options.bad_row_limit = 1;
    let error = shop.import(&kind, std::slice::from_ref(&folder)).unwrap_err();
    let passage =
        ["row 2: passage `b` stands in ", "corpus.jsonl:2 and in ", "corpus.jsonl:4 with different"];
    let query = ["row 3: query `1` stands in ", "queries.jsonl:1 too, with other content"];
    check_message(&error, &[passage, ["2 rows", query[0], query[1]]].concat());
    shop.options.bad_row_limit = 2;
    let (samples, _) = shop.import(&kind, &[folder]).unwrap();
    assert_eq!(
        samples.iter().map(|sample| &sample.query).collect::<Vec<_>>(),
        [&Item::text("one"), &Item::text("three")]
    );
}

#[test]
fn beir_judgements_of_what_is_not_there() {
    let shop = Workshop::new(&[]);
    let judged = "1\ta\t1\n9\tgone\t1\n8\ta\t1\n7\ta\t1\n6\ta\t1\n5\tlost\t0\n";
    let folder = beir(&shop, judged);
    let kind = ImportKind::Beir { split: "train".into(), min_grade: 1.0 };
    let (samples, report) = shop.import(&kind, &[folder]).unwrap();
    assert_eq!(samples.len(), 1);
    assert_eq!(report.notes["judged queries that are not there: `5`, `6`, `7` and 2 more"], 5);
    assert_eq!(report.notes["judged passages that are not in the corpus: `gone`, `lost`"], 2);
}

#[test]
fn vidore_in_the_layout_of_beir() {
    let shop = Workshop::new(&[]);
    let folder = shop.folder.path().join("vidore");
    for name in ["corpus", "queries", "qrels"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    let pages = [3, 5].map(|size| encode(&gradient(size, 4).into(), ImageFormat::Png));
    let corpus = "message schema { optional int64 corpus-id;
        optional group image { optional binary bytes; optional binary path (STRING); } }";
    let page = |id: usize| json!({ "corpus-id": id, "image": { "bytes": pages[id], "path": null } });
    write_parquet(&folder.join("corpus/test-00000-of-00001.parquet"), corpus, &[page(0), page(1)]);
    let queries = "message schema { optional int64 query-id; optional binary query (STRING); }";
    let query = json!({ "query-id": 9, "query": "which page?" });
    write_parquet(&folder.join("queries/test-00000-of-00001.parquet"), queries, &[query]);
    let qrels = "message schema { optional int64 query-id; optional int64 corpus-id; optional int64 score; }";
    let judged = |page: usize, score: usize| json!({ "query-id": 9, "corpus-id": page, "score": score });
    write_parquet(&folder.join("qrels/test-00000-of-00001.parquet"), qrels, &[judged(1, 2), judged(0, 0)]);
    let kind = ImportKind::Beir { split: "test".into(), min_grade: 1.0 };
    let (samples, report) = shop.import(&kind, &[folder]).unwrap();
    assert_eq!(samples[0].query, Item::text("which page?"));
    let bytes = |item: &Item| match &item.content[..] {
        [Part::Image(path)] => fs::read(shop.options.corpus.join(path)).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(bytes(&samples[0].positive), pages[1]);
    assert_eq!(bytes(&samples[0].hard_negatives[0]), pages[0]);
    assert_eq!(report.media_files, 2);
}
