//! The files of a world: what each will show, before anything is drawn.

use rzen_core::{Part, VideoSource};

use super::caption::{Voice, a_thing, caption, clip_caption};
use super::clip::Clip;
use super::dice::Dice;
use super::held_out::Side;
use super::page::{Page, page_caption};
use super::rows::MediaRow;
use super::scene::Scene;

/// What to draw into a file.
#[derive(Clone, Debug)]
pub(super) enum Drawing {
    Scene { scene: Scene, seed: u64 },
    Crop { scene: Scene, seed: u64, at: usize },
    Clip { clip: Clip, seed: u64 },
    Pages(Vec<Page>),
}

/// The files of a world, in the order in which they were asked for.
pub(super) struct Album {
    dice: Dice,
    /// Paths within the world's folder, with `/`, and what to draw there.
    pub files: Vec<(String, Drawing)>,
    /// What each file, or page of a file, shows.
    pub shows: Vec<MediaRow>,
}

impl Album {
    /// An empty album whose jitter depends on `seed`.
    pub fn new(seed: u64) -> Self {
        Album { dice: Dice::named(seed, "album"), files: Vec::new(), shows: Vec::new() }
    }

    /// A picture of the scene, as PNG or JPEG.
    pub fn scene(&mut self, dataset: &str, side: Side, scene: &Scene) -> Part {
        let seed = self.dice.seed();
        let ending = self.dice.pick(&["png", "jpg"]);
        let path = format!("{dataset}/images/{}.{ending}", self.stem(side));
        let shows = caption(scene, Voice::Plain);
        self.add(path.clone(), side, None, shows);
        self.files.push((path.clone(), Drawing::Scene { scene: scene.clone(), seed }));
        Part::Image(path.into())
    }

    /// A picture of the scene and crops of it, one for each shape.
    pub fn scene_with_crops(&mut self, dataset: &str, side: Side, scene: &Scene) -> (Part, Vec<Part>) {
        let seed = self.dice.seed();
        let stem = self.stem(side);
        let path = format!("{dataset}/images/{stem}.png");
        self.add(path.clone(), side, None, caption(scene, Voice::Plain));
        self.files.push((path.clone(), Drawing::Scene { scene: scene.clone(), seed }));
        let crops = (0..scene.things.len()).map(|at| {
            let path = format!("{dataset}/crops/{stem}.{at}.png");
            let shows = a_thing(scene.layout, scene.things[at], &mut Voice::Plain);
            self.add(path.clone(), side, None, shows);
            self.files.push((path.clone(), Drawing::Crop { scene: scene.clone(), seed, at }));
            Part::Image(path.into())
        });
        let crops = crops.collect();
        (Part::Image(path.into()), crops)
    }

    /// An animated GIF of the clip.
    pub fn clip(&mut self, dataset: &str, side: Side, clip: &Clip) -> Part {
        let seed = self.dice.seed();
        let path = format!("{dataset}/clips/{}.gif", self.stem(side));
        self.add(path.clone(), side, None, clip_caption(clip, Voice::Plain));
        self.files.push((path.clone(), Drawing::Clip { clip: *clip, seed }));
        Part::Video(VideoSource::File(path.into()))
    }

    /// The pages, in PDF files of one or two.
    pub fn pages(&mut self, dataset: &str, side: Side, pages: &[Page]) -> Vec<Part> {
        let mut parts = Vec::with_capacity(pages.len());
        let mut rest = pages;
        while !rest.is_empty() {
            let count = if self.dice.percent(25) { rest.len().min(2) } else { 1 };
            let (document, later) = rest.split_at(count);
            parts.extend(self.document(dataset, side, document));
            rest = later;
        }
        parts
    }

    fn document(&mut self, dataset: &str, side: Side, pages: &[Page]) -> Vec<Part> {
        let path = format!("{dataset}/pdf/{}.pdf", self.stem(side));
        let mut parts = Vec::new();
        for (page, number) in pages.iter().zip(1..) {
            self.add(path.clone(), side, Some(number), page_caption(page, Voice::Plain));
            parts.push(Part::Document { path: path.clone().into(), page: number });
        }
        self.files.push((path, Drawing::Pages(pages.to_vec())));
        parts
    }

    fn add(&mut self, file: String, side: Side, page: Option<u32>, shows: String) {
        self.shows.push(MediaRow { file, page, split: split(side), shows });
    }

    fn stem(&self, side: Side) -> String {
        format!("{}-{:05}", split(side), self.files.len())
    }
}

fn split(side: Side) -> &'static str {
    match side {
        Side::Training => "train",
        Side::Evaluation => "eval",
    }
}
