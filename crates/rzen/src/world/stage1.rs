//! Rows without instructions, for training from scratch.

use super::album::Album;
use super::caption::{Voice, caption, clip_caption, paraphrases};
use super::edit::Change;
use super::held_out::{HeldOut, Side};
use super::lesson::{
    Lesson, STAGE1_CAPTIONS, STAGE1_CLIPS, STAGE1_EDITS, STAGE1_PAGES, STAGE1_PICTURES, STAGE1_TEXTS,
};
use super::page::page_caption;
use super::question::{about_sentence, text};
use super::rows::TrainRow;
use super::scene::Studio;
use super::spread::spread;
use super::{Dataset, WorldConfig};

const SIDE: Side = Side::Training;

/// The datasets of stage 1, in the order of the paper's list.
pub(super) fn datasets(config: &WorldConfig, held: &HeldOut, album: &mut Album) -> Vec<Dataset> {
    let mut sets = Vec::new();
    let mut add = |lesson: Lesson, rows: &dyn Fn(&mut Studio, &mut Album) -> Vec<TrainRow>| {
        let mut studio = Studio::new(held, SIDE, config.seed, lesson.dataset);
        sets.push(Dataset { name: lesson.dataset, stage: 1, rows: rows(&mut studio, album) });
    };
    add(STAGE1_TEXTS, &|studio, _| texts(studio, config.texts));
    add(STAGE1_PICTURES, &|studio, album| pictures(studio, album, config.captions));
    add(STAGE1_CAPTIONS, &|studio, album| captions(studio, album, config.captions));
    add(STAGE1_EDITS, &|studio, album| edits(studio, album, config.edits));
    add(STAGE1_PAGES, &|studio, album| pages(studio, album, config.pages));
    add(STAGE1_CLIPS, &|studio, album| clips(studio, album, config.clips));
    sets
}

fn pictures(studio: &mut Studio, album: &mut Album, count: usize) -> Vec<TrainRow> {
    let lesson = STAGE1_PICTURES;
    let scenes = spread(count, || studio.any(), Clone::clone);
    let row = |scene| {
        let query = text(caption(&scene, Voice::Varied(&mut studio.dice)));
        lesson.row(vec![query], album.scene(lesson.dataset, SIDE, &scene))
    };
    scenes.into_iter().map(row).collect()
}

fn captions(studio: &mut Studio, album: &mut Album, count: usize) -> Vec<TrainRow> {
    let lesson = STAGE1_CAPTIONS;
    let scenes = spread(count, || studio.any(), Clone::clone);
    let row = |scene| {
        let positive = text(caption(&scene, Voice::Varied(&mut studio.dice)));
        lesson.row(vec![album.scene(lesson.dataset, SIDE, &scene)], positive)
    };
    scenes.into_iter().map(row).collect()
}

fn edits(studio: &mut Studio, album: &mut Album, count: usize) -> Vec<TrainRow> {
    let lesson = STAGE1_EDITS;
    let draw = || {
        let source = studio.any();
        let (edited, words) = studio.edit(&source, Change::ALL);
        (source, edited, words)
    };
    // Keyed by the result, so that one picture does not answer two rows.
    let drawn = spread(count, draw, |(_, edited, _)| edited.clone());
    let row = |(source, edited, words)| {
        let query = vec![album.scene(lesson.dataset, SIDE, &source), text(words)];
        lesson.row(query, album.scene(lesson.dataset, SIDE, &edited))
    };
    drawn.into_iter().map(row).collect()
}

fn pages(studio: &mut Studio, album: &mut Album, count: usize) -> Vec<TrainRow> {
    let lesson = STAGE1_PAGES;
    let titles = studio.held.titles_of(SIDE);
    let draw = || {
        let title = studio.dice.pick(&titles);
        studio.page(title)
    };
    let pages = spread(count, draw, Clone::clone);
    let parts = album.pages(lesson.dataset, SIDE, &pages);
    let row = |(page, part)| {
        let query = page_caption(&page, Voice::Varied(&mut studio.dice));
        lesson.row(vec![text(query)], part)
    };
    pages.into_iter().zip(parts).map(row).collect()
}

fn clips(studio: &mut Studio, album: &mut Album, count: usize) -> Vec<TrainRow> {
    let lesson = STAGE1_CLIPS;
    let clips = spread(count, || studio.clip(), Clone::clone);
    let row = |clip| {
        let query = text(clip_caption(&clip, Voice::Varied(&mut studio.dice)));
        lesson.row(vec![query], album.clip(lesson.dataset, SIDE, &clip))
    };
    clips.into_iter().map(row).collect()
}

/// Paraphrases, and now and then a question with its answer.
fn texts(studio: &mut Studio, count: usize) -> Vec<TrainRow> {
    let lesson = STAGE1_TEXTS;
    let scenes = spread(count, || studio.any(), Clone::clone);
    let row = |scene: super::scene::Scene| {
        let (query, positive) = if scene.things.len() == 2 && studio.dice.percent(40) {
            let (question, answer, _) = about_sentence(&scene, &mut studio.dice);
            (question, answer)
        } else {
            paraphrases(&scene, &mut studio.dice)
        };
        lesson.row(vec![text(query)], text(positive))
    };
    scenes.into_iter().map(row).collect()
}
