//! The 36 image sets.

use std::path::Path;

use serde_json::json;

use super::{Expected, Meant, annotate, draw, local};

/// A set: the instruction and words of its queries, how they are shown, and the same of its targets.
///
/// `{}` is the words, `#` in them a number; `<>` the picture.
struct Set {
    name: &'static str,
    instruction: &'static str,
    /// None where there are no words.
    words: Option<&'static str>,
    shown: &'static str,
    targets: Targets,
}

enum Targets {
    Texts(&'static [&'static str]),
    /// Instruction, words if any, how they are shown.
    Pictures(&'static str, Option<&'static str>, &'static str),
}

use Targets::{Pictures, Texts};

const fn set(
    name: &'static str,
    instruction: &'static str,
    words: Option<&'static str>,
    shown: &'static str,
    targets: Targets,
) -> Set {
    Set { name, instruction, words, shown, targets }
}

const CLASS: &str = "Represent the given image for classification";
const CLASS_SHOWN: &str = "<>\nRepresent the given image for classification\n";
const OBJECT: &str = "Identify the object shown in the image";
const OBJECT_SHOWN: &str = "<>\nIdentify the object shown in the image\n";
const SCENE: &str = "Identify the scene shown in the image";
const SCENE_SHOWN: &str = "<>\nIdentify the scene shown in the image\n";
const QUESTION: &str = "Represent the given image with the following question:";
const QUESTION_SHOWN: &str = "<>\nRepresent the given image with the following question: {}\n";
const ANSWERS: Targets = Texts(&["a red bus", "42", "left of the house", "no"]);
const LABELS: Targets = Texts(&["tench", "goldfish", "great white shark", "hen"]);
const CAPTIONS: Targets =
    Texts(&["A man rides a horse.", "Two dogs sleep.", "A bowl of fruit.", "Rain over a city."]);
const PLAIN: &str = "Represent the given image.";
const WIKIPEDIA: Targets = Pictures(
    "Represent the given Wikipedia image with related text information:",
    Some("Tower # in Paris."),
    "<>\nRepresent the given Wikipedia image with related text information: {}\n",
);
const CROP: Targets = Pictures(
    "Represent the given cropped image of the object",
    None,
    "<>\nRepresent the given cropped image of the object",
);
const EDITED: Targets = Pictures(PLAIN, None, "<>\nRepresent the given image.");

const SETS: [Set; 36] = [
    set("ImageNet-1K", CLASS, None, CLASS_SHOWN, LABELS),
    set(
        "N24News",
        "Represent the given news image with the following caption for domain classification:",
        Some("The mayor at opening #."),
        "<>\nRepresent the given news image with the following caption for domain classification: {}\n",
        Texts(&["Sports", "Health", "Science", "Travel"]),
    ),
    set(
        "HatefulMemes",
        "Represent the given image for binary classification to determine whether it constitutes hateful speech or not",
        None,
        "<>\nRepresent the given image for binary classification to determine whether it constitutes hateful speech or not\n",
        Texts(&["Yes", "No"]),
    ),
    set("VOC2007", OBJECT, None, OBJECT_SHOWN, LABELS),
    set("SUN397", SCENE, None, SCENE_SHOWN, LABELS),
    set("Place365", SCENE, None, SCENE_SHOWN, LABELS),
    set("ImageNet-A", CLASS, None, CLASS_SHOWN, LABELS),
    set("ImageNet-R", CLASS, None, CLASS_SHOWN, LABELS),
    set("ObjectNet", OBJECT, None, OBJECT_SHOWN, LABELS),
    set(
        "Country211",
        "Identify the country depicted in the image",
        None,
        "<>\nIdentify the country depicted in the image\n",
        LABELS,
    ),
    set("OK-VQA", QUESTION, Some("What is in place #?"), QUESTION_SHOWN, ANSWERS),
    set("A-OKVQA", QUESTION, Some("What is in place #?"), QUESTION_SHOWN, ANSWERS),
    set("DocVQA", QUESTION, Some("What is in place #?"), QUESTION_SHOWN, ANSWERS),
    set("InfographicsVQA", QUESTION, Some("What is in place #?"), QUESTION_SHOWN, ANSWERS),
    set("ChartQA", QUESTION, Some("What is in place #?"), QUESTION_SHOWN, ANSWERS),
    set("Visual7W", QUESTION, Some("What is in place #?"), QUESTION_SHOWN, ANSWERS),
    set("ScienceQA", QUESTION, Some("What is in place #?"), QUESTION_SHOWN, ANSWERS),
    set("VizWiz", QUESTION, Some("What is in place #?"), QUESTION_SHOWN, ANSWERS),
    set("GQA", QUESTION, Some("What is in place #?"), QUESTION_SHOWN, ANSWERS),
    set("TextVQA", QUESTION, Some("What is in place #?"), QUESTION_SHOWN, ANSWERS),
    set(
        "VisDial",
        "Represent the given dialogue about an image, which is used for image retrieval:",
        Some("Q:is it day #?\nA:yes"),
        "Represent the given dialogue about an image, which is used for image retrieval: {}\n\n",
        Pictures("Represent the given image", None, "<>\nRepresent the given image\n"),
    ),
    set(
        "CIRR",
        "Given an image, find a similar everyday image with the described changes:",
        Some("make it night #"),
        "<>\nGiven an image, find a similar everyday image with the described changes: {}\n",
        EDITED,
    ),
    set(
        "VisualNews_t2i",
        "Retrieve an image of this news caption.",
        Some("The mayor speaks to # people."),
        "Retrieve an image of this news caption. {}\n",
        Pictures(PLAIN, None, "<>\nRepresent the given image.\n"),
    ),
    set(
        "VisualNews_i2t",
        "Find a caption for the news in the given photo.",
        None,
        "<>\nFind a caption for the news in the given photo.\n",
        CAPTIONS,
    ),
    set(
        "MSCOCO_t2i",
        "Find me an everyday image that matches the given caption:",
        Some("# men ride a horse."),
        "Find me an everyday image that matches the given caption: {}\n",
        Pictures(PLAIN, None, "<>\nRepresent the given image.\n"),
    ),
    set(
        "MSCOCO_i2t",
        "Find an image caption describing the given everyday image.",
        None,
        "<>\nFind an image caption describing the given everyday image.\n",
        CAPTIONS,
    ),
    set(
        "NIGHTS",
        "Find a day-to-day image that looks similar to the provided image.",
        None,
        "<>\nFind a day-to-day image that looks similar to the provided image.\n",
        EDITED,
    ),
    set(
        "WebQA",
        "Find a Wikipedia image that answers this question:",
        Some("How tall is tower #?"),
        "Find a Wikipedia image that answers this question: {}\n",
        WIKIPEDIA,
    ),
    set(
        "FashionIQ",
        "Find an image to match the fashion image and style note:",
        Some("is red and # inches shorter"),
        "<>\nFind an image to match the fashion image and style note: {}\n",
        EDITED,
    ),
    set(
        "Wiki-SS-NQ",
        "Find the document image that can answer the given query:",
        Some("who wrote part #"),
        "Find the document image that can answer the given query: {}\n",
        Pictures("Represent the given image", None, "<>\nRepresent the given image\n"),
    ),
    set(
        "OVEN",
        "Retrieve a Wikipedia image-description pair that provides evidence for the question of this image:",
        Some("what is number #?"),
        "<>\nRetrieve a Wikipedia image-description pair that provides evidence for the question of this image: {}\n",
        WIKIPEDIA,
    ),
    set(
        "EDIS",
        "Find a news image that matches the provided caption:",
        Some("The mayor speaks to # people."),
        "Find a news image that matches the provided caption: {}\n",
        Pictures(
            "Represent the given image with related text information:",
            Some("At town hall #."),
            "<>\nRepresent the given image with related text information: {}\n",
        ),
    ),
    set(
        "MSCOCO",
        "Crop the image to to isolate the object labeled as",
        Some("\"dog #\""),
        "<>\nCrop the image to to isolate the object labeled as {}\n",
        CROP,
    ),
    set(
        "RefCOCO",
        "Select the portion of the image that follows the language expressions.",
        Some("\"man # on the left\""),
        "<>\nSelect the portion of the image that follows the language expressions. {}\n",
        CROP,
    ),
    set(
        "RefCOCO-Matching",
        "Select the portion of the image that follows the language expressions:",
        Some("\"man # on the left\""),
        "<>\nSelect the portion of the image that follows the language expressions: {}\n",
        Pictures(
            "Select the portion of the image that follows the language expressions:",
            Some("\"woman #\""),
            "<>\nSelect the portion of the image that follows the language expressions: {}\n",
        ),
    ),
    set(
        "Visual7W-Pointing",
        "Select the portion of the image that answers the question",
        Some("\"Which # is hot?\""),
        "<>\nSelect the portion of the image that answers the question {}\n",
        CROP,
    ),
];

const ROWS: usize = 3;

pub fn write(dir: &Path) -> Vec<Expected> {
    SETS.iter().map(|set| write_set(dir, set)).collect()
}

fn write_set(dir: &Path, set: &Set) -> Expected {
    let Set { name, instruction, words, shown, targets } = set;
    let mut expected =
        Expected { task: (*name).into(), queries: Vec::new(), candidates: Default::default(), pool: 0 };
    let mut rows = Vec::new();
    for row in 0..ROWS {
        let words = words.unwrap_or_default().replace('#', &row.to_string());
        let has_picture = shown.contains("<>");
        let picture = if has_picture { format!("{name}/q{row}.jpg") } else { String::new() };
        let media: Vec<String> =
            has_picture.then(|| draw(dir, &format!("image-tasks/{picture}"))).into_iter().collect();
        let meant = Meant::new(&media, &shown.replace("{}", &words));
        let (inst, texts, paths, ids) = write_targets(dir, name, row, targets, &mut expected);
        expected.queries.push(local(row + 1, meant, &ids));
        let mark = if has_picture { "<|image_1|>\n" } else { "" };
        rows.push(json!({
            "qry_inst": format!("{mark}{instruction}"), "qry_text": words, "qry_img_path": picture,
            "tgt_inst": inst, "tgt_text": texts, "tgt_img_path": paths,
        }));
    }
    expected.pool = expected.candidates.len();
    // One set lies in two files.
    let shards = if *name == "GQA" { 2 } else { 1 };
    for (shard, rows) in rows.chunks(ROWS.div_ceil(shards)).enumerate() {
        let file = format!("ziyjiang/MMEB_Test_Instruct/{name}/test-{shard:05}-of-{shards:05}.parquet");
        annotate(dir, &file, "qry_inst qry_text qry_img_path tgt_inst tgt_text[] tgt_img_path[]", rows);
    }
    expected
}

type Written = (String, Vec<String>, Vec<String>, Vec<String>);

/// Instruction, texts, paths and ids of a row's targets, the answer first, one of the others twice.
fn write_targets(dir: &Path, name: &str, row: usize, targets: &Targets, expected: &mut Expected) -> Written {
    match targets {
        Texts(texts) => {
            let mut texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            let places = row % texts.len();
            texts.rotate_left(places);
            texts.push(texts[1].clone());
            for text in &texts {
                let meant = Meant { media: Vec::new(), vlm2vec: text.clone(), rzen: text.clone() };
                expected.candidates.insert(text.clone(), meant);
            }
            (String::new(), texts.clone(), vec![String::new(); texts.len()], texts)
        }
        Pictures(instruction, words, shown) => {
            let (mut texts, mut paths, mut ids) = (Vec::new(), Vec::new(), Vec::new());
            // Two pictures have two texts each.
            for place in [0, 1, 2, 3, 1].map(|place| (place + row) % 4) {
                let path = format!("{name}/t{}.jpg", place / 2);
                let by_path = !matches!(name, "WebQA" | "EDIS") && words.is_some();
                let path = if by_path { path } else { format!("{name}/t{place}.jpg") };
                // A text that changes from row to row: where the path is the id, the first one stays.
                let number = if by_path { place } else { place + 10 * row };
                let text = words.unwrap_or_default().replace('#', &number.to_string());
                let is_edit = !matches!(
                    name,
                    "WebQA" | "EDIS" | "VisDial" | "VisualNews_t2i" | "MSCOCO_t2i" | "Wiki-SS-NQ"
                );
                let id = if is_edit { format!("{path}:{}", text.replace('"', "")) } else { path.clone() };
                let media = [draw(dir, &format!("image-tasks/{path}"))];
                let meant = Meant::new(&media, &shown.replace("{}", &text));
                expected.candidates.entry(id.clone()).or_insert(meant);
                texts.push(text);
                paths.push(path);
                ids.push(id);
            }
            (format!("<|image_1|>\n{instruction}"), texts, paths, ids)
        }
    }
}
