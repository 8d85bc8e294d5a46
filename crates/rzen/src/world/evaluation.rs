//! Evaluation tasks on combinations that training never shows.

use rzen_core::Part;
use serde_json::{Map, Value};

use super::album::Album;
use super::caption::{Voice, kind_words, paraphrases, short_caption, short_clip_caption};
use super::clip::Clip;
use super::edit::Change;
use super::held_out::{HeldOut, Side, all_kinds};
use super::lesson::{
    CAPTIONS, CLIP_CAPTIONS, CLIP_QUESTIONS, CLIPS, EDITS, GROUNDING, IMAGE_QUESTIONS, Lesson, PAGE_LISTS,
    PAGE_TITLES, PARAPHRASES, PICTURES, THINGS,
};
use super::page::Page;
use super::question::{Wanted, about_clip, about_pair, phrase, text, title_query};
use super::rows::{CandidateRow, QueryRow, TaskRow};
use super::scene::{Layout, Scene, Studio};
use super::spread::spread;
use super::words::{Colour, Motion, Shape};

const SIDE: Side = Side::Evaluation;

/// Pictures that are made from one source in the composed task.
const EDITS_OF_ONE: usize = 4;

/// A task with its queries and candidates.
pub(super) struct Exam {
    lesson: Lesson,
    metric: &'static str,
    about: &'static str,
    pool: &'static str,
    pub candidates: Vec<CandidateRow>,
    pub queries: Vec<QueryRow>,
}

impl Exam {
    fn new(lesson: Lesson, metric: &'static str, about: &'static str, pool: &'static str) -> Self {
        Exam { lesson, metric, about, pool, candidates: Vec::new(), queries: Vec::new() }
    }

    /// Fills the pool with parts; the ids count through.
    fn pool_of(mut self, parts: impl IntoIterator<Item = Part>) -> Self {
        for part in parts {
            let id = format!("{}-{:03}", self.pool, self.candidates.len());
            self.candidates.push(CandidateRow { id, content: vec![part] });
        }
        self
    }

    /// Fills the pool with words, which are their own ids.
    fn pool_of_labels(mut self, labels: impl IntoIterator<Item = String>) -> Self {
        let row = |label: String| CandidateRow { id: label.clone(), content: vec![text(label)] };
        self.candidates.extend(labels.into_iter().map(row));
        self
    }

    /// Asks for the candidates `right`, among `among` or the whole pool (places in the pool).
    fn ask(&mut self, query: Vec<Part>, right: &[usize], among: Option<&[usize]>) {
        let id = |at: &usize| self.candidates[*at].id.clone();
        let relevant: Map<String, Value> = right.iter().map(|at| (id(at), Value::from(1))).collect();
        assert!(!relevant.is_empty(), "a query of {} has an answer", self.lesson.name);
        let row = QueryRow {
            id: format!("{}-{:05}", self.lesson.name, self.queries.len()),
            query,
            instruction: self.lesson.instruction,
            pool: self.pool,
            candidates: among.map(|among| among.iter().map(id).collect()),
            relevant,
        };
        self.queries.push(row);
    }

    fn ask_label(&mut self, query: Vec<Part>, label: &str) {
        let at = self.candidates.iter().position(|row| row.id == label).expect("every label is in its pool");
        self.ask(query, &[at], None);
    }

    /// The path of the queries.
    pub fn query_file(&self) -> String {
        format!("{}/eval_{}.jsonl", self.lesson.dataset, self.lesson.name)
    }

    /// The path of the candidates.
    pub fn pool_file(&self) -> String {
        format!("{}/pool_{}.jsonl", self.lesson.dataset, self.pool)
    }

    /// The task's line in `tasks.jsonl`.
    pub fn task_row(&self) -> TaskRow {
        let among =
            |query: &QueryRow| query.candidates.as_ref().map_or(self.candidates.len(), Vec::len) as f64;
        let mean = |value: &dyn Fn(&QueryRow) -> f64| {
            let sum: f64 = self.queries.iter().map(value).sum();
            (sum / self.queries.len() as f64 * 1e4).round() / 1e4
        };
        TaskRow {
            dataset: self.lesson.dataset,
            name: self.lesson.name,
            task: self.lesson.task,
            metric: self.metric,
            instruction: self.lesson.instruction,
            about: self.about,
            queries: self.query_file(),
            pool: self.pool_file(),
            query_count: self.queries.len(),
            pool_size: self.candidates.len(),
            candidates_per_query: mean(&among),
            chance_hit_at_1: mean(&|query| query.relevant.len() as f64 / among(query)),
        }
    }
}

/// All tasks, with `count` queries each.
pub(super) fn exams(seed: u64, count: usize, held: &HeldOut, album: &mut Album) -> Vec<Exam> {
    let studio = |name: &str| Studio::new(held, SIDE, seed, name);
    let mut exams = vec![
        things(&mut studio("things"), album, count),
        image_questions(&mut studio("image questions"), album, count),
    ];
    exams.extend(pictures_and_captions(&mut studio("pictures"), album, count));
    exams.push(edits(&mut studio("edits"), album, count));
    exams.push(grounding(&mut studio("grounding"), album, count));
    exams.extend(pages(&mut studio("pages"), album, count));
    exams.extend(clips(&mut studio("clips"), album, count));
    exams.push(sentences(&mut studio("paraphrases"), count));
    exams
}

fn things(studio: &mut Studio, album: &mut Album, count: usize) -> Exam {
    let labels = all_kinds().map(|kind| kind_words(kind, &mut Voice::Plain));
    let about = "picture -> colour and shape, in combinations never seen";
    let mut exam = Exam::new(THINGS, "hit_rate@1", about, "things").pool_of_labels(labels);
    for scene in spread(count, || studio.alone(), Clone::clone) {
        let label = kind_words(scene.things[0].kind(), &mut Voice::Plain);
        exam.ask_label(vec![album.scene(THINGS.dataset, SIDE, &scene)], &label);
    }
    exam
}

fn image_questions(studio: &mut Studio, album: &mut Album, count: usize) -> Exam {
    let about = "picture of two shapes + question about one -> colour or shape";
    let answers = Colour::ALL.iter().map(|c| c.word()).chain(Shape::ALL.iter().map(|s| s.word()));
    let mut exam =
        Exam::new(IMAGE_QUESTIONS, "hit_rate@1", about, "answers").pool_of_labels(answers.map(str::to_owned));
    for scene in spread(count, || studio.pair(), Clone::clone) {
        let at = studio.focus(&scene);
        let (question, answer, _) = about_pair(&scene, at, &mut studio.dice);
        exam.ask_label(vec![album.scene(IMAGE_QUESTIONS.dataset, SIDE, &scene), text(question)], answer);
    }
    exam
}

/// Caption to picture and picture to caption, over the same pairs.
fn pictures_and_captions(studio: &mut Studio, album: &mut Album, count: usize) -> [Exam; 2] {
    let scenes = spread(count, || studio.any(), Scene::without_background);
    let parts: Vec<Part> = scenes.iter().map(|scene| album.scene(PICTURES.dataset, SIDE, scene)).collect();
    let words: Vec<Part> =
        scenes.iter().map(|scene| text(short_caption(scene, Voice::Varied(&mut studio.dice)))).collect();
    let mut pictures =
        Exam::new(PICTURES, "hit_rate@1", "caption -> picture", "pictures").pool_of(parts.iter().cloned());
    let mut captions =
        Exam::new(CAPTIONS, "hit_rate@1", "picture -> caption", "captions").pool_of(words.iter().cloned());
    for (scene, (part, words)) in scenes.iter().zip(parts.into_iter().zip(words)) {
        let right = matching(&scenes, |other| other.without_background() == scene.without_background());
        pictures.ask(vec![words], &right, None);
        captions.ask(vec![part], &right, None);
    }
    [pictures, captions]
}

/// Several changes of one picture compete, so that the words decide.
fn edits(studio: &mut Studio, album: &mut Album, count: usize) -> Exam {
    let (mut source, mut used) = (studio.pair(), 0);
    let draw = || {
        if used == EDITS_OF_ONE {
            source = if studio.dice.percent(50) { studio.alone() } else { studio.pair() };
            used = 0;
        }
        used += 1;
        let (edited, words) = studio.edit(&source, Change::ALL);
        (source.clone(), edited, words)
    };
    let drawn = spread(count, draw, |(_, edited, _)| edited.clone());
    let results: Vec<Scene> = drawn.iter().map(|(_, edited, _)| edited.clone()).collect();
    let parts: Vec<Part> = results.iter().map(|scene| album.scene(EDITS.dataset, SIDE, scene)).collect();
    let about = "composed: picture + change -> picture, among several changes of it";
    let mut exam = Exam::new(EDITS, "hit_rate@1", about, "changed").pool_of(parts);
    for (source, edited, words) in drawn {
        let query = vec![album.scene(EDITS.dataset, SIDE, &source), text(words)];
        exam.ask(query, &matching(&results, |other| *other == edited), None);
    }
    exam
}

fn grounding(studio: &mut Studio, album: &mut Album, count: usize) -> Exam {
    let scenes = spread(count, || studio.scene(Layout::Grid), Clone::clone);
    let drawn: Vec<(Part, Vec<Part>)> =
        scenes.iter().map(|scene| album.scene_with_crops(GROUNDING.dataset, SIDE, scene)).collect();
    let crops = drawn.iter().flat_map(|(_, crops)| crops.clone());
    let about = "picture + phrase -> crop, among the crops of the same picture";
    let mut exam = Exam::new(GROUNDING, "hit_rate@1", about, "crops").pool_of(crops);
    for (place, (scene, (picture, crops))) in scenes.iter().zip(drawn).enumerate() {
        let at = studio.focus(scene);
        let first = place * crops.len();
        let among: Vec<usize> = (first..first + crops.len()).collect();
        let query = vec![picture, text(phrase(scene, at, &mut studio.dice))];
        exam.ask(query, &[first + at], Some(&among));
    }
    exam
}

/// Title to page and question to page, over the same pages.
fn pages(studio: &mut Studio, album: &mut Album, count: usize) -> [Exam; 2] {
    let mut titles = studio.dice.shuffled(&studio.held.titles_of(SIDE));
    titles.truncate(count);
    let pages: Vec<Page> = titles.into_iter().map(|title| studio.page(title)).collect();
    let parts = album.pages(PAGE_TITLES.dataset, SIDE, &pages);
    let mut by_title =
        Exam::new(PAGE_TITLES, "ndcg@5", "title -> PDF page", "pages").pool_of(parts.iter().cloned());
    let about = "question on the numbers of a list or a chart -> PDF page";
    let mut by_list = Exam::new(PAGE_LISTS, "ndcg@5", about, "pages").pool_of(parts);
    for page in &pages {
        let query = text(title_query(page, &mut studio.dice));
        by_title.ask(vec![query], &matching(&pages, |other| other.title == page.title), None);
        let wanted = Wanted::of(page, &mut studio.dice);
        let query = text(wanted.words(&mut studio.dice));
        by_list.ask(vec![query], &matching(&pages, |other| wanted.fits(other)), None);
    }
    [by_title, by_list]
}

/// Caption to clip, clip to caption and questions, over the same clips.
fn clips(studio: &mut Studio, album: &mut Album, count: usize) -> [Exam; 3] {
    let clips = spread(count, || studio.clip(), |clip| (clip.kind, clip.motion));
    let parts: Vec<Part> = clips.iter().map(|clip| album.clip(CLIPS.dataset, SIDE, clip)).collect();
    let words: Vec<Part> =
        clips.iter().map(|clip| text(short_clip_caption(clip, Voice::Varied(&mut studio.dice)))).collect();
    let mut by_words =
        Exam::new(CLIPS, "hit_rate@1", "caption -> clip; unseen motion of a known shape", "clips")
            .pool_of(parts.iter().cloned());
    let mut captions = Exam::new(CLIP_CAPTIONS, "hit_rate@1", "clip -> caption", "clip_captions")
        .pool_of(words.iter().cloned());
    let answers = Colour::ALL.iter().map(|c| c.word()).chain(Shape::ALL.iter().map(|s| s.word()));
    let answers = answers.chain(Motion::ALL.iter().map(|m| m.word())).map(str::to_owned);
    let about = "clip + question -> colour, shape or motion";
    let mut questions =
        Exam::new(CLIP_QUESTIONS, "hit_rate@1", about, "clip_answers").pool_of_labels(answers);
    for (clip, (part, words)) in clips.iter().zip(parts.into_iter().zip(words)) {
        let same = |other: &Clip| (other.kind, other.motion) == (clip.kind, clip.motion);
        let right = matching(&clips, same);
        by_words.ask(vec![words], &right, None);
        captions.ask(vec![part.clone()], &right, None);
        let (question, answer) = about_clip(clip, &mut studio.dice);
        questions.ask_label(vec![part, text(question)], answer);
    }
    [by_words, captions, questions]
}

/// Sentences that differ in one word compete with one another.
fn sentences(studio: &mut Studio, count: usize) -> Exam {
    let mut last = None;
    let draw = || {
        let scene = match last.take() {
            Some(scene) => studio.near_miss(&scene),
            None => studio.any(),
        };
        last = studio.dice.percent(50).then(|| scene.clone());
        scene
    };
    let scenes = spread(count, draw, Scene::without_background);
    let (asked, told): (Vec<String>, Vec<String>) =
        scenes.iter().map(|scene| paraphrases(scene, &mut studio.dice)).unzip();
    let about = "sentence -> the same in other words";
    let mut exam = Exam::new(PARAPHRASES, "ndcg@10", about, "sentences").pool_of(told.into_iter().map(text));
    for (scene, asked) in scenes.iter().zip(asked) {
        let right = matching(&scenes, |other| other.without_background() == scene.without_background());
        exam.ask(vec![text(asked)], &right, None);
    }
    exam
}

/// The places of the values that fit.
fn matching<T>(values: &[T], fits: impl Fn(&T) -> bool) -> Vec<usize> {
    values.iter().enumerate().filter(|(_, value)| fits(value)).map(|(at, _)| at).collect()
}
