//! The 18 video sets.

use std::path::Path;

use serde_json::{Value, json};

use super::{Expected, ExpectedQuery, Meant, annotate, draw, global, local};

const FRAMES: &str = "video-tasks/frames";

pub fn write(dir: &Path) -> Vec<Expected> {
    let mut all = vec![
        classes(
            dir,
            "K700",
            "Kinetics-700/data/test-00000-of-00001.parquet",
            "video_cls/K700",
            700,
            ["archery", "luge", "dining"],
            "<> Recognize the category of the video content.",
        ),
        smth_smth(dir),
        classes(
            dir,
            "HMDB51",
            "HMDB51/test.jsonl",
            "video_cls/HMDB51",
            51,
            ["ride_bike", "wave", "dive"],
            "<> What actions or objects interactions are the person in the video doing?",
        ),
        classes(
            dir,
            "UCF101",
            "UCF101/data/test-00000-of-00001.parquet",
            "video_cls/UCF101",
            101,
            ["Diving", "Biking", "Haircut"],
            "<> What activities or sports are being performed by the person in the video?",
        ),
        classes(
            dir,
            "Breakfast",
            "Breakfast/test.json",
            "video_cls/Breakfast",
            10,
            ["tea", "milk", "salad"],
            "<> Recognize the breakfast type that the person is cooking in the video. ",
        ),
        mvbench(dir),
        video_mme(dir),
        next_qa(dir),
        ego_schema(dir),
        activity_net(dir),
    ];
    let search = [
        (
            "DiDeMo",
            "VLM2Vec/DiDeMo/data/test-00000-of-00001.parquet",
            "video caption",
            "Find a video that includes the following described scenes: {}",
        ),
        (
            "MSR-VTT",
            "VLM2Vec/MSR-VTT/test_1k/test-00000-of-00001.parquet",
            "video_id video caption",
            "Find a video that contains the following visual content: {}",
        ),
        (
            "MSVD",
            "VLM2Vec/MSVD/test.jsonl",
            "",
            "Find the video snippet that corresponds to the given summary: {}",
        ),
        (
            "VATEX",
            "VLM2Vec/VATEX/data/test-00000-of-00001.parquet",
            "videoID enCap[]",
            "Select a video that fits the description provided: {}",
        ),
        (
            "YouCook2",
            "lmms-lab/YouCook2/data/val-00000-of-00001.parquet",
            "id video_path sentence",
            "Find a video that demonstrates the following action while making a recipe: {}",
        ),
    ];
    all.extend(search.map(|(name, file, columns, shown)| video_search(dir, name, file, columns, shown)));
    all.push(moments(dir, "QVHighlight", "QVHighlight"));
    all.push(moments(dir, "Charades-STA", "Charades_STA"));
    all.push(seeker(dir));
    all
}

/// Draws the frames of a clip, named `frame_1.jpg` and so on, and a file that is no frame; returns those that are taken.
fn clip(dir: &Path, folder: &str, frames: usize) -> Vec<String> {
    let folder = format!("{FRAMES}/{folder}");
    let names: Vec<String> =
        (1..=frames).map(|frame| draw(dir, &format!("{folder}/frame_{frame}.jpg"))).collect();
    std::fs::write(dir.join(&folder).join("notes.txt"), "no frame").unwrap();
    match frames {
        // linspace(0, 9, 8): 0, 1.29, 2.57, 3.86, 5.14, 6.43, 7.71, 9.
        10 => [0, 1, 2, 3, 5, 6, 7, 9].map(|frame: usize| names[frame].clone()).to_vec(),
        few if few <= 8 => names,
        other => panic!("nobody has counted which of {other} frames are taken"),
    }
}

fn text(text: &str) -> Meant {
    Meant { media: Vec::new(), vlm2vec: text.to_owned(), rzen: text.to_owned() }
}

fn expected(task: &str) -> Expected {
    Expected { task: task.to_owned(), queries: Vec::new(), candidates: Default::default(), pool: 0 }
}

#[rustfmt::skip]
fn classes(dir: &Path, name: &str, file: &str, folder: &str, pool: usize, labels: [&str; 3], shown: &str) -> Expected {
    let mut expected = Expected { pool, ..expected(name) };
    let mut rows = Vec::new();
    for (row, label) in labels.iter().enumerate() {
        let id = format!("clip_{row}");
        let media = clip(dir, &format!("{folder}/{id}"), if name == "K700" && row == 0 { 10 } else { 2 });
        expected.queries.push(global(row + 1, Meant::new(&media, shown), label));
        expected.candidates.insert((*label).to_owned(), text(label));
        rows.push(json!({ "video_id": id, "pos_text": label }));
    }
    annotate(dir, &format!("VLM2Vec/{file}"), "video_id pos_text", &rows);
    expected
}

fn smth_smth(dir: &Path) -> Expected {
    let labels = ["Closing something", "Folding something", "Holding something", "Opening something"]
        .map(str::to_owned);
    let mut expected = Expected { pool: 4, ..expected("SmthSmthV2") };
    let mut rows = Vec::new();
    for row in 0..3 {
        let media = clip(dir, &format!("video_cls/SSv2/{}", 100 + row), 2);
        let shown = "<> What actions or object interactions are being performed by the person in the video?";
        let mut own = labels.to_vec();
        own.rotate_left(row);
        expected.queries.push(local(row + 1, Meant::new(&media, shown), &own));
        rows.push(json!({ "video_id": 100 + row, "pos_text": labels[row], "neg_text": labels }));
    }
    expected.candidates = labels.iter().map(|label| (label.clone(), text(label))).collect();
    annotate(
        dir,
        "VLM2Vec/SmthSmthV2/data/test-00000-of-00001.parquet",
        "video_id:int pos_text neg_text[]",
        &rows,
    );
    expected
}

/// The reference has two spaces before the question, and RzenEmbed's form one.
fn question(media: &[String], text: &str) -> Meant {
    let prompt = "Given a video and a question, select the most accurate answer from the provided candidates. \
                  Return only the exact text of your chosen answer. Question:";
    Meant::new(media, &format!("<> {prompt}  {text}")).with_rzen(&format!("{prompt} {text}"))
}

const CONFIGS: [&str; 20] = [
    "episodic_reasoning",
    "action_sequence",
    "action_prediction",
    "action_antonym",
    "fine_grained_action",
    "unexpected_action",
    "object_existence",
    "object_interaction",
    "object_shuffle",
    "moving_direction",
    "action_localization",
    "scene_transition",
    "action_count",
    "moving_count",
    "moving_attribute",
    "state_change",
    "fine_grained_pose",
    "character_order",
    "egocentric_navigation",
    "counterfactual_inference",
];

fn mvbench(dir: &Path) -> Expected {
    let mut expected = expected("MVBench");
    for (place, config) in CONFIGS.iter().enumerate() {
        let video = format!("{config}.mp4");
        let media = clip(dir, &format!("video_qa/MVBench/{config}/{video}"), 1);
        let shown = question(
            &media,
            &format!("What does {config} show?\nOptions:\n(A) one {place}\n(B) two\n(C) three"),
        );
        let ids = [format!("(A) one {place}"), "(B) two".to_owned(), "(C) three".to_owned()];
        let mut own = ids.to_vec();
        own.rotate_left(place % 3);
        expected.queries.push(local(place + 1, shown, &own));
        expected.candidates.extend(ids.iter().map(|id| (id.clone(), text(id))));
        let candidates = [format!("one {place}"), "two".to_owned(), "three".to_owned()];
        let row = json!({
            "video": video, "question": format!("What does {config} show?"), "candidates": candidates,
            "answer": candidates[place % 3],
        });
        annotate(dir, &format!("VLM2Vec/MVBench/json/{config}.json"), "", &[row]);
    }
    expected.pool = expected.candidates.len();
    expected
}

fn video_mme(dir: &Path) -> Expected {
    let mut expected = Expected { pool: 12, ..expected("Video-MME") };
    let mut rows = Vec::new();
    for row in 0..3 {
        let media = clip(dir, &format!("video_qa/Video-MME/v{row}"), 2);
        let options = [
            format!("A. Apples {row}."),
            format!("B. Pears {row}."),
            format!("C. U.S. {row}."),
            format!("D. None {row}"),
        ];
        let shown =
            [format!("Apples {row}"), format!("Pears {row}"), format!("U.S. {row}"), format!("None {row}")];
        let mut own = options.to_vec();
        own.rotate_left(row);
        expected.queries.push(local(
            row + 1,
            question(&media, &format!("What {row}?\n{}", options.join("\n"))),
            &own,
        ));
        expected.candidates.extend(options.iter().zip(&shown).map(|(id, shown)| (id.clone(), text(shown))));
        let answer = ["A", "B", "C"][row];
        rows.push(json!({ "videoID": format!("v{row}"), "question": format!("What {row}?"), "options": options, "answer": answer }));
    }
    annotate(
        dir,
        "VLM2Vec/Video-MME/videomme/test-00000-of-00001.parquet",
        "videoID question options[] answer",
        &rows,
    );
    expected
}

fn next_qa(dir: &Path) -> Expected {
    let mut expected = Expected { pool: 15, ..expected("NExTQA") };
    let mut rows = Vec::new();
    for row in 0..3 {
        let media = clip(dir, &format!("video_qa/NExTQA/{}", 400 + row), 2);
        let options: Vec<String> =
            ["sit", "run", "eat", "play", "sing"].map(|verb| format!("{verb} {row}")).to_vec();
        let listed = format!(
            "(A) {}\n(B) {}\n(C) {}\n(D) {}\n(E) {}",
            options[0], options[1], options[2], options[3], options[4]
        );
        let mut own = options.clone();
        own.rotate_left(row + 1);
        expected.queries.push(local(
            row + 1,
            question(&media, &format!("why {row}\nOptions:\n{listed}")),
            &own,
        ));
        expected.candidates.extend(options.iter().map(|id| (id.clone(), text(id))));
        rows.push(json!({
            "video": 400 + row, "question": format!("why {row}"), "answer": row + 1, "a0": options[0], "a1": options[1],
            "a2": options[2], "a3": options[3], "a4": options[4],
        }));
    }
    annotate(
        dir,
        "VLM2Vec/NExTQA/MC/test-00000-of-00001.parquet",
        "video:int question answer:int a0 a1 a2 a3 a4",
        &rows,
    );
    expected
}

fn ego_schema(dir: &Path) -> Expected {
    let mut expected = Expected { pool: 15, ..expected("EgoSchema") };
    let mut rows = Vec::new();
    for row in 0..3 {
        let media = clip(dir, &format!("video_qa/EgoSchema/uuid-{row}"), 2);
        let options: Vec<String> = ["A. Cook", "B. Wash", "C. Sew", "D. Read", "E. Dig"]
            .map(|option| format!("{option} {row}."))
            .to_vec();
        let mut own = options.clone();
        own.rotate_left(row + 2);
        let shown = question(&media, &format!("What {row}?{}", options.join(" ")));
        expected.queries.push(local(row + 1, shown, &own));
        expected
            .candidates
            .extend(options.iter().map(|id| (id.clone(), text(id[3..].trim_end_matches('.')))));
        rows.push(json!({
            "video_idx": format!("uuid-{row}"), "question": format!("What {row}?"), "option": options,
            "answer": (row + 2).to_string(),
        }));
    }
    annotate(
        dir,
        "VLM2Vec/EgoSchema/Subset/test-00000-of-00001.parquet",
        "video_idx question option[] answer",
        &rows,
    );
    expected
}

fn activity_net(dir: &Path) -> Expected {
    let mut expected = Expected { pool: 2, ..expected("ActivityNetQA") };
    let mut rows = Vec::new();
    for (row, answer) in ["yes", "no", "yes"].into_iter().enumerate() {
        let media = clip(dir, &format!("video_qa/ActivityNetQA/v_a{row}"), 2);
        let other = if answer == "yes" { "no" } else { "yes" };
        let shown = question(&media, &format!("is it {row}? (A) yes; (B) no."));
        expected.queries.push(local(row + 1, shown, &[answer.to_owned(), other.to_owned()]));
        rows.push(
            json!({ "video_name": format!("a{row}"), "question": format!("is it {row}"), "answer": answer }),
        );
    }
    expected.candidates = ["yes", "no"].map(|answer| (answer.to_owned(), text(answer))).into();
    annotate(
        dir,
        "VLM2Vec/ActivityNetQA/data/test-00000-of-00001.parquet",
        "video_name question answer",
        &rows,
    );
    expected
}

fn video_search(dir: &Path, name: &str, file: &str, columns: &str, shown: &str) -> Expected {
    let mut expected = Expected { pool: 3, ..expected(name) };
    let mut rows = Vec::new();
    for row in 0..3 {
        let (id, caption) = (format!("clip_{row}"), format!("{row} dogs run"));
        let media = clip(dir, &format!("video_ret/{name}/{id}"), 3);
        let clip = Meant::new(&media, "<> Understand the content of the provided video.");
        expected.candidates.insert(id.clone(), clip);
        let rzen = format!("Find the video snippet that corresponds to the given caption: {caption}");
        let query = Meant::new(&[], &shown.replace("{}", &caption)).with_rzen(&rzen);
        expected.queries.push(global(row + 1, query, &id));
        let two = json!([caption, "another caption"]);
        rows.push(match name {
            "DiDeMo" => json!({ "video": format!("test/{id}.mp4"), "caption": caption }),
            "MSR-VTT" => json!({ "video_id": id, "video": format!("{id}.mp4"), "caption": caption }),
            "MSVD" => json!({ "video_id": id, "video": format!("{id}.avi"), "caption": two }),
            "VATEX" => json!({ "videoID": id, "enCap": two }),
            _ => json!({ "id": id, "video_path": format!("val/{id}.mp4"), "sentence": caption }),
        });
    }
    annotate(dir, file, columns, &rows);
    expected
}

fn moments(dir: &Path, name: &str, folder: &str) -> Expected {
    let mut expected = expected(name);
    let mut rows = Vec::new();
    for row in 0..3 {
        let video = format!("film_{row}");
        let frames =
            |clip_name: &str, count| clip(dir, &format!("video_mret/{folder}/{video}/{clip_name}"), count);
        let shown = format!(
            "<> Find the clip that corresponds to the described scene in the given video: a door {row}"
        );
        let query = Meant::new(&frames("query", if row == 0 { 10 } else { 2 }), &shown);
        // One film has two answers.
        let positives = if row == 1 { vec!["positive_0", "positive_1"] } else { vec!["positive"] };
        let clips = [positives.clone(), vec!["negative_0", "negative_1", "negative_2"]].concat();
        let id = |clip: &&str| format!("{video}/{clip}");
        for clip in &clips {
            let meant = Meant::new(&frames(clip, 2), "<> Understand the content of the provided video.");
            expected.candidates.insert(id(clip), meant);
        }
        let mut candidates: Vec<String> = clips.iter().map(id).collect();
        candidates.sort();
        let relevant = positives.iter().map(|clip| (id(clip), 1.0)).collect();
        expected.queries.push(ExpectedQuery {
            id: (row + 1).to_string(),
            meant: query,
            candidates: Some(candidates),
            relevant,
        });
        rows.push(json!({ "query": format!("a door {row}"), "video_path": format!("videos/{video}.mp4") }));
    }
    expected.pool = expected.candidates.len();
    annotate(dir, &format!("VLM2Vec/{name}/data/test-00000-of-00001.parquet"), "query video_path", &rows);
    expected
}

fn seeker(dir: &Path) -> Expected {
    let mut expected = expected("MomentSeeker");
    let root = "video_mret/MomentSeeker";
    let inputs = ["", "cat.jpg", "ego/part_1.mp4"];
    let mut rows = Vec::new();
    for (row, input) in inputs.into_iter().enumerate() {
        let (media, shown) = match row {
            0 => (Vec::new(), "Find the clip that corresponds to the given text: {}"),
            1 => (
                vec![draw(dir, &format!("{FRAMES}/{root}/query_cat.jpg"))],
                "<> Select the video clip that aligns with the given text and image: {}",
            ),
            _ => (
                clip(dir, &format!("{root}/video_frames/ego_part_1"), 2),
                "<> Find the clip that corresponds to the given sentence and video segment: {}",
            ),
        };
        let names = ["a", "b", "c", "d"].map(|letter| format!("film/{row}/{letter}.mp4"));
        for name in &names {
            let folder = name.trim_end_matches(".mp4").replace('/', "_");
            let media = clip(dir, &format!("{root}/video_frames/{folder}"), 2);
            let meant = Meant::new(&media, "<> Understand the content of the provided video clip.");
            expected.candidates.insert(folder, meant);
        }
        // The first two answer.
        let ids: Vec<String> = ["a", "b", "c", "d"].map(|letter| format!("film_{row}_{letter}")).to_vec();
        let text = format!("the moment {row}");
        expected.queries.push(ExpectedQuery {
            id: (row + 1).to_string(),
            meant: Meant::new(&media, &shown.replace("{}", &text)),
            relevant: ids[..2].iter().map(|id| (id.clone(), 1.0)).collect(),
            candidates: Some(ids),
        });
        let paths = |names: &[String]| -> Vec<Value> {
            names.iter().map(|name| json!({ "output_path": name })).collect()
        };
        rows.push(json!({
            "query": text, "input_frames": input, "positive_frames": paths(&names[..2]),
            "negative_frames": paths(&names[2..]),
        }));
    }
    expected.pool = expected.candidates.len();
    let columns = "query input_frames positive_frames:clips negative_frames:clips";
    annotate(dir, "VLM2Vec/MomentSeeker/data/test-00000-of-00001.parquet", columns, &rows);
    expected
}
