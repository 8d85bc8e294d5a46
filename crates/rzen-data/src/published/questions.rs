//! Questions about clips, with options of which one is right.
//!
//! The five sets write question and options in five ways, and all of these are kept.

use std::path::PathBuf;

use rzen_core::Item;

use super::annotations::Hub;
use super::draft::{Draft, Query, Reading};
use super::error::PublishedError;
use super::rows::{Annotation, annotations};
use super::texts::{Words, query};
use super::videos::FRAMES;

/// How a set writes its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// `candidates`, and the text of the right one; one config for each kind of question.
    MvBench,
    /// Options with letters, and the letter of the right one.
    VideoMme,
    /// Columns `a0` to `a4`, and the place of the right one.
    NextQa,
    /// Options with letters, and the place of the right one.
    EgoSchema,
    /// Yes or no.
    ActivityNetQa,
}

/// The reference ends it in a space, and puts another before the question.
const INSTRUCTION: &str = "Given a video and a question, select the most accurate answer from the provided candidates. \
                           Return only the exact text of your chosen answer. Question: ";

/// The configs of MVBench.
pub(crate) const MVBENCH: [&str; 20] = [
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

impl Choice {
    fn columns(self) -> &'static [&'static str] {
        match self {
            Choice::MvBench => &["question", "candidates", "answer", "video"],
            Choice::VideoMme => &["question", "options", "answer", "videoID"],
            Choice::NextQa => &["question", "a0", "a1", "a2", "a3", "a4", "answer", "video"],
            Choice::EgoSchema => &["question", "option", "answer", "video_idx"],
            Choice::ActivityNetQa => &["question", "answer", "video_name"],
        }
    }

    fn read(self, row: &mut Annotation) -> Result<Question, String> {
        let question = row.needed("question")?;
        match self {
            Choice::MvBench => {
                let (bare, answer) = (row.texts("candidates")?, row.needed("answer")?);
                let right = bare.iter().position(|option| *option == answer);
                let options = lettered(&bare);
                Ok(Question {
                    text: format!("{question}\nOptions:\n{}", options.join("\n")).trim_end().to_owned(),
                    shown: options.clone(),
                    options,
                    right: right.ok_or_else(|| format!("the answer `{answer}` is none of the candidates"))?,
                    clip: row.needed("video")?,
                })
            }
            Choice::VideoMme => {
                let options = row.texts("options")?;
                let answer = row.needed("answer")?;
                let right = ["A", "B", "C", "D"].iter().position(|letter| *letter == answer);
                Ok(Question {
                    text: format!("{question}\n{}", options.join("\n")),
                    shown: options.iter().map(|option| without_letter(option)).collect(),
                    options,
                    right: right
                        .ok_or_else(|| format!("the answer is `{answer}`, expected a letter from A to D"))?,
                    clip: row.needed("videoID")?,
                })
            }
            Choice::NextQa => {
                let columns = ["a0", "a1", "a2", "a3", "a4"];
                let options: Vec<String> =
                    columns.iter().map(|column| row.needed(column)).collect::<Result<_, _>>()?;
                Ok(Question {
                    text: format!("{question}\nOptions:\n{}", lettered(&options).join("\n"))
                        .trim_end()
                        .to_owned(),
                    shown: options.clone(),
                    options,
                    right: place(&row.needed("answer")?)?,
                    clip: row.needed("video")?,
                })
            }
            Choice::EgoSchema => {
                let options = row.texts("option")?;
                Ok(Question {
                    // No space between question and options.
                    text: format!("{question}{}", options.join(" ")),
                    shown: options.iter().map(|option| without_letter(option)).collect(),
                    options,
                    right: place(&row.needed("answer")?)?,
                    clip: row.needed("video_idx")?,
                })
            }
            Choice::ActivityNetQa => {
                let options = ["yes", "no"].map(str::to_owned).to_vec();
                let answer = row.needed("answer")?;
                let right = options.iter().position(|option| *option == answer);
                Ok(Question {
                    text: format!("{question}? (A) yes; (B) no."),
                    shown: options.clone(),
                    options,
                    right: right.ok_or_else(|| format!("the answer is `{answer}`, expected yes or no"))?,
                    clip: format!("v_{}", row.needed("video_name")?),
                })
            }
        }
    }
}

/// A row.
struct Question {
    /// The question, with its options.
    text: String,
    /// The options as they stand in the row: their ids.
    options: Vec<String>,
    /// The options as they are embedded.
    shown: Vec<String>,
    right: usize,
    /// The folder of frames.
    clip: String,
}

/// Reads a set.
pub(crate) fn read(set: Reading, hub: Hub, folder: &str, choice: Choice) -> Result<Draft, PublishedError> {
    let mut draft = set.draft();
    let root = set.data.join(FRAMES).join(folder);
    let parts: Vec<(Hub, PathBuf)> = match choice {
        Choice::MvBench => MVBENCH.iter().map(|config| (hub.config(config), root.join(config))).collect(),
        _ => vec![(hub, root)],
    };
    for (hub, root) in parts {
        annotations(&hub.files(set.data)?, choice.columns(), |row| {
            let Question { text, options, shown, right, clip } = choice.read(row)?;
            let Some(answer) = options.get(right) else {
                return Err(format!("the answer is option {}, and there are {}", right + 1, options.len()));
            };
            let clip = draft.clip(root.join(clip));
            for (option, shown) in options.iter().zip(shown) {
                draft.candidate(option, &row.origin, |_| Item::text(shown));
            }
            let item = query(set.protocol, Words { instruction: INSTRUCTION, text: &text }, Some(clip));
            let (id, relevant) = (draft.next_id(), vec![(answer.clone(), 1.0)]);
            let origin = row.origin.clone();
            draft.query(
                set.name,
                Query { id, item, candidates: Some(options), excluded: None, relevant, origin },
            )
        })?;
    }
    Ok(draft)
}

fn lettered(options: &[String]) -> Vec<String> {
    ('A'..).zip(options).map(|(letter, option)| format!("({letter}) {option}")).collect()
}

/// An option without the letter before it: what follows the first full stop and space, without dots and spaces around it.
fn without_letter(option: &str) -> String {
    let from = option.find(". ").unwrap_or(0);
    option[from..].trim_matches(['.', ' ']).to_owned()
}

fn place(answer: &str) -> Result<usize, String> {
    answer
        .parse()
        .map_err(|_| format!("the answer is `{answer}`, expected the place of an option, counted from 0"))
}
