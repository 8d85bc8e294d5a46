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
