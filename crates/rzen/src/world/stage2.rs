//! Rows with instructions, for fine-tuning.

use rzen_core::Part;

use super::album::Album;
use super::caption::{Voice, kind_words, paraphrases, short_caption, short_clip_caption};
use super::edit::Change;
use super::held_out::{HeldOut, Side};
use super::lesson::{
    CAPTIONS, CLIP_CAPTIONS, CLIP_QUESTIONS, CLIPS, COLOURS, COUNTS, EDITS, GROUNDING, IMAGE_QUESTIONS,
    Lesson, PAGE_LISTS, PAGE_TITLES, PARAPHRASES, PICTURES, SHAPES, TEXT_ANSWERS, THINGS,
};
use super::question::{Wanted, about_clip, about_pair, about_sentence, phrase, text, title_query};
use super::rows::TrainRow;
use super::scene::{Layout, Scene, Studio};
use super::spread::spread;
use super::words::NUMBERS;
use super::{Dataset, WorldConfig};

const SIDE: Side = Side::Training;

/// The datasets of stage 2; those of classification are meant to share batches (paper §4.1).
pub(super) fn datasets(config: &WorldConfig, held: &HeldOut, album: &mut Album) -> Vec<Dataset> {
    type Rows = fn(&mut Studio, &mut Album, usize) -> Vec<TrainRow>;
    let (rows, labels) = (config.instructed, config.labels);
    let plan: [(Lesson, Rows, usize); 16] = [
        (THINGS, things, labels),
        (SHAPES, shapes, labels),
        (COLOURS, colours, labels),
        (COUNTS, counts, labels),
        (IMAGE_QUESTIONS, image_questions, rows),
        (PICTURES, pictures, rows),
        (CAPTIONS, captions, rows),
        (EDITS, edits, rows),
        (GROUNDING, grounding, rows),
        (PAGE_TITLES, page_titles, rows),
        (PAGE_LISTS, page_lists, rows),
        (CLIPS, clips, rows),
        (CLIP_CAPTIONS, clip_captions, rows),
        (CLIP_QUESTIONS, clip_questions, rows),
        (PARAPHRASES, paraphrase_rows, rows),
        (TEXT_ANSWERS, text_answers, rows),
    ];
    let dataset = |(lesson, rows, count): (Lesson, Rows, usize)| {
        let mut studio = Studio::new(held, SIDE, config.seed, lesson.dataset);
        Dataset { name: lesson.dataset, stage: 2, rows: rows(&mut studio, album, count) }
    };
    plan.into_iter().map(dataset).collect()
}

fn labels(
    lesson: Lesson,
    scenes: Vec<Scene>,
    album: &mut Album,
    label: impl Fn(&Scene) -> String,
) -> Vec<TrainRow> {
    let row = |scene: Scene| {
        let label = text(label(&scene));
        lesson.row(vec![album.scene(lesson.dataset, SIDE, &scene)], label)
    };
    scenes.into_iter().map(row).collect()
}

fn things(studio: &mut Studio, album: &mut Album, count: usize) -> Vec<TrainRow> {
    let scenes = spread(count, || studio.alone(), Clone::clone);
    labels(THINGS, scenes, album, |scene| kind_words(scene.things[0].kind(), &mut Voice::Plain))
}

fn shapes(studio: &mut Studio, album: &mut Album, count: usize) -> Vec<TrainRow> {
    let scenes = spread(count, || studio.alone(), Clone::clone);
    labels(SHAPES, scenes, album, |scene| scene.things[0].shape.word().to_owned())
}

fn colours(studio: &mut Studio, album: &mut Album, count: usize) -> Vec<TrainRow> {
    let scenes = spread(count, || studio.alone(), Clone::clone);
    labels(COLOURS, scenes, album, |scene| scene.things[0].colour.word().to_owned())
}

fn counts(studio: &mut Studio, album: &mut Album, count: usize) -> Vec<TrainRow> {
    let draw = || match studio.dice.below(4) {
        0 => studio.alone(),
        1 => studio.pair(),
        2 => studio.trio(),
        _ => studio.scene(Layout::Grid),
    };
    let scenes = spread(count, draw, Clone::clone);
    labels(COUNTS, scenes, album, |scene| NUMBERS[scene.things.len()].to_owned())
}

/// The hard negative is the answer that fits the other shape of the picture.
fn image_questions(studio: &mut Studio, album: &mut Album, count: usize) -> Vec<TrainRow> {
    let lesson = IMAGE_QUESTIONS;
    let scenes = spread(count, || studio.pair(), Clone::clone);
    let row = |scene| {
        let at = studio.focus(&scene);
        let (question, right, wrong) = about_pair(&scene, at, &mut studio.dice);
        let query = vec![album.scene(lesson.dataset, SIDE, &scene), text(question)];
        lesson.row_against(query, text(right), vec![text(wrong)])
    };
    scenes.into_iter().map(row).collect()
}

/// The hard negative differs from the caption in one word.
fn pictures(studio: &mut Studio, album: &mut Album, count: usize) -> Vec<TrainRow> {
    let lesson = PICTURES;
    let scenes = spread(count, || studio.any(), Scene::without_background);
    let row = |scene| {
        let query = text(short_caption(&scene, Voice::Varied(&mut studio.dice)));
        let miss = studio.near_miss(&scene);
        let negative = album.scene(lesson.dataset, SIDE, &miss);
        lesson.row_against(vec![query], album.scene(lesson.dataset, SIDE, &scene), vec![negative])
    };
    scenes.into_iter().map(row).collect()
}

fn captions(studio: &mut Studio, album: &mut Album, count: usize) -> Vec<TrainRow> {
    let lesson = CAPTIONS;
    let scenes = spread(count, || studio.any(), Scene::without_background);
    let row = |scene| {
        let positive = text(short_caption(&scene, Voice::Varied(&mut studio.dice)));
        lesson.row(vec![album.scene(lesson.dataset, SIDE, &scene)], positive)
    };
    scenes.into_iter().map(row).collect()
}

/// The hard negative is the picture before the change.
fn edits(studio: &mut Studio, album: &mut Album, count: usize) -> Vec<TrainRow> {
    let lesson = EDITS;
    let draw = || {
        let source = studio.any();
        let (edited, words) = studio.edit(&source, Change::ALL);
        (source, edited, words)
    };
    let drawn = spread(count, draw, |(_, edited, _)| edited.clone());
    let row = |(source, edited, words)| {
        let before = album.scene(lesson.dataset, SIDE, &source);
        let after = album.scene(lesson.dataset, SIDE, &edited);
        lesson.row_against(vec![before.clone(), text(words)], after, vec![before])
    };
    drawn.into_iter().map(row).collect()
}

/// The hard negatives are the other shapes of the picture.
fn grounding(studio: &mut Studio, album: &mut Album, count: usize) -> Vec<TrainRow> {
    let lesson = GROUNDING;
    let scenes = spread(count, || studio.scene(Layout::Grid), Clone::clone);
    let row = |scene| {
        let at = studio.focus(&scene);
        let (picture, mut crops) = album.scene_with_crops(lesson.dataset, SIDE, &scene);
        let query = vec![picture, text(phrase(&scene, at, &mut studio.dice))];
        lesson.row_against(query, crops.remove(at), crops)
    };
    scenes.into_iter().map(row).collect()
}

/// One row for each title: two pages of one title would be false negatives of one another.
fn page_titles(studio: &mut Studio, album: &mut Album, count: usize) -> Vec<TrainRow> {
    let lesson = PAGE_TITLES;
    let mut titles = studio.dice.shuffled(&studio.held.titles_of(SIDE));
    titles.truncate(count);
    let pages: Vec<_> = titles.into_iter().map(|title| studio.page(title)).collect();
    let parts = album.pages(lesson.dataset, SIDE, &pages);
    let row = |(page, part)| lesson.row(vec![text(title_query(page, &mut studio.dice))], part);
    pages.iter().zip(parts).map(row).collect()
}

/// The hard negative has one number that is not asked for.
fn page_lists(studio: &mut Studio, album: &mut Album, count: usize) -> Vec<TrainRow> {
    let lesson = PAGE_LISTS;
    let titles = studio.held.titles_of(SIDE);
    let mut pages = Vec::new();
    let mut questions = Vec::new();
    for _ in 0..count {
        let title = studio.dice.pick(&titles);
        let page = studio.page(title);
        let wanted = Wanted::of(&page, &mut studio.dice);
        let miss = loop {
            let miss = studio.other_number(&page);
            if !wanted.fits(&miss) {
                break miss;
            }
        };
        pages.extend([page, miss]);
        questions.push(wanted.words(&mut studio.dice));
    }
    let parts = album.pages(lesson.dataset, SIDE, &pages);
    let row = |(question, pair): (String, &[Part])| {
        lesson.row_against(vec![text(question)], pair[0].clone(), vec![pair[1].clone()])
    };
    questions.into_iter().zip(parts.chunks(2)).map(row).collect()
}

/// The hard negative does something else.
fn clips(studio: &mut Studio, album: &mut Album, count: usize) -> Vec<TrainRow> {
    let lesson = CLIPS;
    let clips = spread(count, || studio.clip(), |clip| (clip.kind, clip.motion));
    let row = |clip| {
        let query = text(short_clip_caption(&clip, Voice::Varied(&mut studio.dice)));
        let miss = studio.other_motion(&clip);
        let negative = album.clip(lesson.dataset, SIDE, &miss);
        lesson.row_against(vec![query], album.clip(lesson.dataset, SIDE, &clip), vec![negative])
    };
    clips.into_iter().map(row).collect()
}

fn clip_captions(studio: &mut Studio, album: &mut Album, count: usize) -> Vec<TrainRow> {
    let lesson = CLIP_CAPTIONS;
    let clips = spread(count, || studio.clip(), |clip| (clip.kind, clip.motion));
    let row = |clip| {
        let positive = text(short_clip_caption(&clip, Voice::Varied(&mut studio.dice)));
        lesson.row(vec![album.clip(lesson.dataset, SIDE, &clip)], positive)
    };
    clips.into_iter().map(row).collect()
}

fn clip_questions(studio: &mut Studio, album: &mut Album, count: usize) -> Vec<TrainRow> {
    let lesson = CLIP_QUESTIONS;
    let clips = spread(count, || studio.clip(), Clone::clone);
    let row = |clip| {
        let (question, answer) = about_clip(&clip, &mut studio.dice);
        lesson.row(vec![album.clip(lesson.dataset, SIDE, &clip), text(question)], text(answer))
    };
    clips.into_iter().map(row).collect()
}

/// The hard negative differs in one word, or turns the relation round.
fn paraphrase_rows(studio: &mut Studio, _: &mut Album, count: usize) -> Vec<TrainRow> {
    let scenes = spread(count, || studio.any(), Scene::without_background);
    let row = |scene| {
        let (query, positive) = paraphrases(&scene, &mut studio.dice);
        let miss = studio.near_miss(&scene);
        let negative = short_caption(&miss, Voice::Varied(&mut studio.dice));
        PARAPHRASES.row_against(vec![text(query)], text(positive), vec![text(negative)])
    };
    scenes.into_iter().map(row).collect()
}

fn text_answers(studio: &mut Studio, _: &mut Album, count: usize) -> Vec<TrainRow> {
    let scenes = spread(count, || studio.pair(), Scene::without_background);
    let row = |scene| {
        let (question, answer, wrong) = about_sentence(&scene, &mut studio.dice);
        TEXT_ANSWERS.row_against(vec![text(question)], text(answer), vec![text(wrong)])
    };
    scenes.into_iter().map(row).collect()
}
