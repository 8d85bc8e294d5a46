//! Published benchmarks in miniature: what is read is what was meant.

use std::collections::BTreeMap;
use std::path::Path;

use rzen_core::{Item, Part, VideoSource};
use rzen_data::{EvalSet, Protocol, Published, Suite};
use serde_json::json;

use crate::made::Folder;
use crate::miniature::{Expected, Meant, annotate, draw, write};

fn open(suite: Suite, folder: &Folder, protocol: Protocol) -> Published {
    Published::open(suite, folder.path(), protocol, None).unwrap()
}

fn load(published: &Published, name: &str) -> EvalSet {
    let task = published.named(Some(&[name.to_owned()])).unwrap()[0].clone();
    published.load(&task).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What an item shows: its files below `root`, and all of its words in one.
fn shown(item: &Item, root: &Path) -> (Vec<String>, String) {
    let (mut media, mut words) = (Vec::new(), item.instruction.clone().unwrap_or_default());
    for part in &item.content {
        match part {
            Part::Text(text) => words += text,
            Part::Image(path) => media.push(path.clone()),
            Part::Video(VideoSource::Frames(frames)) => media.extend(frames.iter().cloned()),
            other => panic!("no benchmark has {other:?}"),
        }
    }
    let inner = |path: std::path::PathBuf| path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
    (media.into_iter().map(inner).collect(), words)
}

fn check_item(item: &Item, meant: &Meant, root: &Path, protocol: Protocol, name: &str) {
    let text = match protocol {
        Protocol::Vlm2vec => &meant.vlm2vec,
        Protocol::Rzen => &meant.rzen,
    };
    assert_eq!(shown(item, root), (meant.media.clone(), text.clone()), "{name}");
    if protocol == Protocol::Vlm2vec {
        assert_eq!(item.instruction, None, "{name}");
    }
}

fn check_set(set: &EvalSet, expected: &Expected, root: &Path, protocol: Protocol) {
    let name = &expected.task;
    let ids: Vec<&String> = set.queries.iter().map(|query| &query.id).collect();
    assert_eq!(ids, expected.queries.iter().map(|query| &query.id).collect::<Vec<_>>(), "{name}");
    for (query, meant) in set.queries.iter().zip(&expected.queries) {
        check_item(&query.item, &meant.meant, root, protocol, &format!("{name}, query {}", query.id));
        assert_eq!(query.candidates, meant.candidates, "{name}");
        let sorted = |relevant: &[(String, f64)]| {
            relevant.iter().map(|(id, grade)| (id.clone(), *grade as i64)).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(sorted(&query.relevant), sorted(&meant.relevant), "{name}");
    }
    assert_eq!(set.pool.len(), expected.pool, "{name}");
    assert!(set.pool.is_sorted_by_key(|candidate| &candidate.id), "{name}");
    let pool: BTreeMap<&str, &Item> =
        set.pool.iter().map(|candidate| (candidate.id.as_str(), &candidate.item)).collect();
    for (id, meant) in &expected.candidates {
        check_item(pool[id.as_str()], meant, root, protocol, &format!("{name}, candidate {id}"));
    }
}

#[test]
fn clips_have_as_many_frames_as_are_asked_for() {
    let folder = Folder::new();
    write(Suite::MmebV2, folder.path());
    let frames = |num_frames: usize| {
        let published = open(Suite::MmebV2, &folder, Protocol::Rzen).with_num_frames(num_frames);
        let set = load(&published, "MSR-VTT");
        set.pool.iter().map(|candidate| shown(&candidate.item, folder.path()).0.len()).max()
    };
    assert_eq!([1, 3].map(frames), [Some(1), Some(3)]);
}

/// A set as BEIR's own runner takes it, with all that real ones have.
#[test]
fn passages_as_beirs_own_runner_takes_them() {
    let folder = Folder::new();
    let root = folder.path().join("quora");
    std::fs::create_dir_all(root.join("qrels")).unwrap();
    let lines = |rows: Vec<serde_json::Value>| rows.iter().map(|row| format!("{row}\n")).collect::<String>();
    let passages =
        (0..100).map(|i| json!({ "_id": i.to_string(), "title": "", "text": format!("words {i}") }));
    let passages = passages.chain([json!({ "_id": "none", "title": " ", "text": "" })]).collect();
    std::fs::write(root.join("corpus.jsonl"), lines(passages)).unwrap();
    let ids = ["0", "1", "q", "lost"];
    let queries = ids.map(|id| json!({ "_id": id, "text": format!("words of {id}?") })).to_vec();
    std::fs::write(root.join("queries.jsonl"), lines(queries)).unwrap();
    let many = (2..99).map(|i| format!("q\t{i}\t1\n")).collect::<String>();
    let qrels = format!("query-id\tcorpus-id\tscore\n0\t1\t1\n1\t1\t1\n{many}lost\tgone\t1\n");
    std::fs::write(root.join("qrels/test.tsv"), qrels).unwrap();
    for data in [folder.path(), &root] {
        let published = Published::open(Suite::Beir, data, Protocol::Rzen, None).unwrap();
        let set = load(&published, "quora");
        let found: Vec<_> =
            set.queries.iter().map(|query| (query.id.as_str(), query.excluded.as_deref())).collect();
        // What answers itself stays.
        assert_eq!(found, [("0", Some("0")), ("1", None), ("q", None)]);
        assert_eq!(set.pool.len(), 100);
        let notes: Vec<String> =
            published.check(None).unwrap().notes.into_iter().map(|note| note.problem).collect();
        let notes = notes.join("\n");
        for expected in [
            "1 passages without words",
            "1 judgements of passages",
            "1 queries left out",
            "1 queries are ranked",
        ] {
            assert!(notes.contains(expected), "{notes}");
        }
    }
}

#[test]
fn ms_marco_is_judged_by_its_dev_split() {
    let folder = Folder::new();
    write(Suite::Beir, folder.path());
    let root = folder.path().join("msmarco");
    std::fs::rename(folder.path().join("fever"), &root).unwrap();
    std::fs::write(root.join("qrels/dev.tsv"), "query-id\tcorpus-id\tscore\n3\tfever-b\t1\n").unwrap();
    let read = || {
        let published = open(Suite::Beir, &folder, Protocol::Rzen);
        let ids: Vec<String> =
            load(&published, "msmarco").queries.into_iter().map(|query| query.id).collect();
        (ids, published.check(Some(&["msmarco".to_owned()])).unwrap().to_string())
    };
    let (ids, notes) = read();
    assert_eq!(ids, ["3"]);
    assert!(notes.contains("judged by its dev split"), "{notes}");
    std::fs::remove_file(root.join("qrels/dev.tsv")).unwrap();
    assert_eq!(read().0, ["1", "2"]);
}

#[test]
fn every_set_is_read_as_it_was_meant() {
    for (suite, sets) in
        [(Suite::MmebV2, 78), (Suite::Vidore, 14), (Suite::VidoreV2English, 4), (Suite::Beir, 2)]
    {
        let folder = Folder::new();
        let mut expected = write(suite, folder.path());
        assert_eq!(expected.len(), sets);
        for protocol in [Protocol::Vlm2vec, Protocol::Rzen] {
            let published = open(suite, &folder, protocol);
            let problems = published.check(None).unwrap();
            assert_eq!(problems.faults, [], "{problems}");
            assert_eq!((problems.looked_at, published.tasks().len()), (sets, sets));
            for task in published.tasks() {
                let meant = expected.iter().find(|expected| expected.task == task.name).unwrap();
                check_set(&published.load(task).unwrap(), meant, folder.path(), protocol);
            }
        }
        expected.dedup_by_key(|expected| expected.task.clone());
        assert_eq!(expected.len(), sets);
    }
}

#[test]
fn mmeb_v1_is_its_image_sets() {
    let folder = Folder::new();
    let expected = write(Suite::MmebV1, folder.path());
    let published = open(Suite::MmebV1, &folder, Protocol::Vlm2vec);
    let names: Vec<_> = published.tasks().iter().map(|task| task.name.clone()).collect();
    assert_eq!(names, expected.iter().map(|expected| expected.task.clone()).collect::<Vec<_>>());
    assert!(published.check(None).unwrap().faults.is_empty());
}

#[test]
fn the_older_annotations_have_instructions_inside() {
    let folder = Folder::new();
    let root = folder.path();
    for file in ["q.jpg", "a.jpg", "b.jpg"] {
        draw(root, &format!("image-tasks/{file}"));
    }
    let columns = "qry_text qry_img_path tgt_text[] tgt_img_path[]";
    let search = json!({
        "qry_text": "Find a Wikipedia image that answers this question: how tall?\n", "qry_img_path": "",
        "tgt_text": ["<|image_1|>\nRepresent the given Wikipedia image with related text information: A.\n",
            "<|image_1|>\nRepresent the given Wikipedia image with related text information: B.\n"],
        "tgt_img_path": ["a.jpg", "b.jpg"],
    });
    annotate(root, "TIGER-Lab/MMEB-eval/WebQA/test-00000-of-00001.parquet", columns, &[search]);
    let class = json!({
        "qry_text": "<|image_1|>\nIdentify the object shown in the image\n", "qry_img_path": "q.jpg",
        "tgt_text": ["cat", "dog"], "tgt_img_path": ["", ""],
    });
    annotate(root, "TIGER-Lab/MMEB-eval/VOC2007/test-00000-of-00001.parquet", columns, &[class]);

    let texts = |protocol, name: &str| {
        let set = load(&open(Suite::MmebV1, &folder, protocol), name);
        let items = set.queries.iter().map(|query| &query.item).chain(set.pool.iter().map(|row| &row.item));
        items
            .map(|item| shown(item, root))
            .map(|(media, text)| format!("{}|{text}", media.join(",")))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        texts(Protocol::Vlm2vec, "WebQA"),
        [
            "|Find a Wikipedia image that answers this question: how tall?\n",
            "image-tasks/a.jpg|\nRepresent the given Wikipedia image with related text information: A.\n",
            "image-tasks/b.jpg|\nRepresent the given Wikipedia image with related text information: B.\n",
        ]
    );
    assert_eq!(
        texts(Protocol::Vlm2vec, "VOC2007"),
        ["image-tasks/q.jpg|\nIdentify the object shown in the image\n", "|cat", "|dog"]
    );
    assert_eq!(
        texts(Protocol::Rzen, "VOC2007"),
        ["image-tasks/q.jpg|Identify the object shown in the image", "|cat", "|dog"]
    );
}

#[test]
fn pages_are_written_once_and_to_where_they_are_wanted() {
    let (folder, other) = (Folder::new(), Folder::new());
    write(Suite::Vidore, folder.path());
    let name = "ViDoRe_arxivqa";
    let published =
        Published::open(Suite::Vidore, folder.path(), Protocol::Rzen, Some(other.path())).unwrap();
    let task = published.named(Some(&[name.to_owned()])).unwrap()[0].clone();
    // One page is there already, and stays what it is.
    let there = folder.path().join("visdoc-tasks/ViDoRe_arxivqa/2.png");
    draw(folder.path(), "visdoc-tasks/ViDoRe_arxivqa/2.png");
    let before = std::fs::read(&there).unwrap();
    let (count, into) = published.write_pages(&task).unwrap();
    assert_eq!((count, into), (3, other.path().join("visdoc-tasks/ViDoRe_arxivqa")));
    assert_eq!(published.write_pages(&task).unwrap().0, 0);
    assert_eq!(std::fs::read(&there).unwrap(), before);
    let set = published.load(&task).unwrap();
    let file = |id: &str| {
        set.pool.iter().find(|row| row.id == id).unwrap().item.content[0].files(Path::new("")).remove(0)
    };
    assert_eq!(file("2"), there);
    assert_eq!(file("1"), other.path().join("visdoc-tasks/ViDoRe_arxivqa/1.png"));
    // Nothing but pages is left.
    assert_eq!(std::fs::read_dir(other.path().join("visdoc-tasks/ViDoRe_arxivqa")).unwrap().count(), 3);
}

#[test]
fn only_the_first_rows_of_smth_smth_are_used() {
    let folder = Folder::new();
    draw(folder.path(), "video-tasks/frames/video_cls/SSv2/1/frame_0001.jpg");
    let row = json!({ "video_id": "1", "pos_text": "a", "neg_text": ["b", "a"] });
    annotate(folder.path(), "VLM2Vec/SmthSmthV2/test.jsonl", "", &vec![row; 1001]);
    let published = open(Suite::MmebV2, &folder, Protocol::Rzen);
    assert_eq!(load(&published, "SmthSmthV2").queries.len(), 1000);
    let problems = published.check(Some(&["SmthSmthV2".to_owned()])).unwrap();
    assert!(problems.is_fine(), "{problems}");
    assert!(
        problems.to_string().contains("2 candidates for each query, 174 as others count them"),
        "{problems}"
    );
}
