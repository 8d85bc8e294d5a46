//! What there is to learn: datasets, their tasks and their instructions.

use rzen_core::Part;

use super::rows::TrainRow;

/// A dataset, the task that it trains and the instruction of its queries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lesson {
    /// The dataset, and its folder.
    pub dataset: &'static str,
    /// Decides the temperature.
    pub task: &'static str,
    /// The evaluation task that the rows train for.
    pub name: &'static str,
    /// Stands before the query; empty in stage 1 (paper §3.4.1).
    pub instruction: &'static str,
}

impl Lesson {
    const fn stage1(dataset: &'static str, task: &'static str, name: &'static str) -> Self {
        Lesson { dataset, task, name, instruction: "" }
    }

    const fn stage2(name: &'static str, task: &'static str, instruction: &'static str) -> Self {
        Lesson { dataset: name, task, name, instruction }
    }

    /// A row without hard negatives.
    pub fn row(&self, query: Vec<Part>, positive: Part) -> TrainRow {
        self.row_against(query, positive, Vec::new())
    }

    /// A row with hard negatives.
    pub fn row_against(&self, query: Vec<Part>, positive: Part, negatives: Vec<Part>) -> TrainRow {
        TrainRow {
            dataset: self.dataset,
            task: self.task,
            name: self.name,
            instruction: self.instruction,
            query,
            positive: vec![positive],
            negatives: negatives.into_iter().map(|part| vec![part]).collect(),
        }
    }
}

pub(super) const STAGE1_PICTURES: Lesson = Lesson::stage1("stage1_pictures", "image_retrieval", "pictures");
pub(super) const STAGE1_CAPTIONS: Lesson = Lesson::stage1("stage1_captions", "image_retrieval", "captions");
pub(super) const STAGE1_EDITS: Lesson = Lesson::stage1("stage1_edits", "image_retrieval", "edits");
pub(super) const STAGE1_PAGES: Lesson = Lesson::stage1("stage1_pages", "document_retrieval", "page_lists");
pub(super) const STAGE1_CLIPS: Lesson = Lesson::stage1("stage1_clips", "video_retrieval", "clips");
pub(super) const STAGE1_TEXTS: Lesson = Lesson::stage1("stage1_texts", "text_retrieval", "paraphrases");

pub(super) const THINGS: Lesson =
    Lesson::stage2("things", "image_classification", "Name the colour and the shape in the picture.");
pub(super) const SHAPES: Lesson =
    Lesson::stage2("shapes", "image_classification", "Name the shape in the picture.");
pub(super) const COLOURS: Lesson =
    Lesson::stage2("colours", "image_classification", "Name the colour of the shape in the picture.");
pub(super) const COUNTS: Lesson =
    Lesson::stage2("counts", "image_classification", "Count the shapes in the picture.");
pub(super) const IMAGE_QUESTIONS: Lesson =
    Lesson::stage2("image_questions", "image_qa", "Answer the question about the picture: ");
pub(super) const PICTURES: Lesson =
    Lesson::stage2("pictures", "image_retrieval", "Find the picture that matches the caption: ");
pub(super) const CAPTIONS: Lesson =
    Lesson::stage2("captions", "image_retrieval", "Find the caption of the picture.");
pub(super) const EDITS: Lesson =
    Lesson::stage2("edits", "image_retrieval", "Find the picture after this change: ");
pub(super) const GROUNDING: Lesson =
    Lesson::stage2("grounding", "image_grounding", "Select the part of the picture that is meant: ");
pub(super) const PAGE_TITLES: Lesson =
    Lesson::stage2("page_titles", "document_retrieval", "Find the page with this title: ");
pub(super) const PAGE_LISTS: Lesson =
    Lesson::stage2("page_lists", "document_retrieval", "Find the page that answers the question: ");
pub(super) const CLIPS: Lesson =
    Lesson::stage2("clips", "video_retrieval", "Find the clip that matches the caption: ");
pub(super) const CLIP_CAPTIONS: Lesson =
    Lesson::stage2("clip_captions", "video_retrieval", "Find the caption of the clip.");
pub(super) const CLIP_QUESTIONS: Lesson =
    Lesson::stage2("clip_questions", "video_qa", "Answer the question about the clip: ");
pub(super) const PARAPHRASES: Lesson =
    Lesson::stage2("paraphrases", "text_retrieval", "Find the sentence that says the same: ");
pub(super) const TEXT_ANSWERS: Lesson =
    Lesson::stage2("text_answers", "text_retrieval", "Answer the question about the sentence: ");
