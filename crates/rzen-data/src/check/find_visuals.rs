//! Findings about pictures, pages and clips.

use std::collections::BTreeSet;

use super::CheckOptions;
use super::finding::{Finding, FindingKind, FoundContent};
use super::gather::Role;
use super::maker::{Maker, num_rows};
use super::near::HashIndex;
use super::picture_facts::{Nearness, Print};
use super::scan::Scanned;
use super::uses::{Facts, Use, Uses};

/// Pictures that show nothing, little, or too much on one side.
pub(super) fn looks(maker: &Maker, uses: &Uses, scanned: &[Scanned], options: &CheckOptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    for visual in &uses.visuals {
        let Some(facts) = visual.facts(scanned).filter(|facts| !facts.frames.is_empty()) else { continue };
        let [width, height] = [facts.frames[0].width, facts.frames[0].height];
        let mut find = |kind, message: String| {
            findings.push(maker.finding(
                kind,
                message,
                vec![maker.visual(visual, &visual.uses)],
                &visual.uses,
            ));
        };
        let contrast = facts.most(|frame| frame.contrast);
        let sharpness = facts.most(|frame| frame.sharpness);
        if contrast < options.contrast {
            let least = options.contrast;
            find(
                FindingKind::BlankPicture,
                format!("varies by {contrast:.1} of 255 levels, less than {least}"),
            );
        } else if sharpness < options.sharpness {
            let least = options.sharpness;
            find(FindingKind::BlurryPicture, format!("sharpness {sharpness:.1}, less than {least}"));
        }
        if width.min(height) < options.min_side {
            let least = options.min_side;
            find(
                FindingKind::TinyPicture,
                format!("{width} x {height} pixels, shorter than {least} on a side"),
            );
        }
        if width.max(height) as f32 > options.max_ratio * width.min(height) as f32 {
            let most = options.max_ratio;
            find(FindingKind::ExtremeShape, format!("{width} x {height} pixels, a ratio above {most}"));
        }
    }
    findings
}

/// What looks the same in training, and what training and evaluation share.
pub(super) fn same(maker: &Maker, uses: &Uses, scanned: &[Scanned], options: &CheckOptions) -> Vec<Finding> {
    let visuals = &uses.visuals;
    let facts: Vec<Option<Facts>> = visuals
        .iter()
        .map(|visual| visual.facts(scanned).filter(|facts| facts.most(|f| f.contrast) >= options.contrast))
        .collect();
    let mut findings = Vec::new();
    let (mut clusters, mut index) = (Vec::<Vec<usize>>::new(), NearIndex::default());
    let mut trained = NearIndex::default();
    for (number, visual) in visuals.iter().enumerate() {
        let Some(facts_here) = &facts[number] else { continue };
        if maker.learned(&visual.uses).next().is_some() {
            trained.add(number, facts_here);
        }
        let sides = maker.sides(&visual.uses);
        if sides.is_empty() {
            continue;
        }
        let near = index.near(facts_here, options, |place| facts[clusters[place][0]].as_ref());
        let together = |place: &usize| !maker.sides(&visuals[clusters[*place][0]].uses).is_disjoint(&sides);
        match near.into_iter().find(together) {
            Some(place) => clusters[place].push(number),
            None => {
                index.add(clusters.len(), facts_here);
                clusters.push(vec![number]);
            }
        }
    }
    for cluster in clusters.iter().filter(|cluster| cluster.len() > 1) {
        let kind = match facts[cluster[0]].as_ref().is_some_and(|facts| facts.is_clip) {
            true => FindingKind::NearClip,
            false => FindingKind::NearPicture,
        };
        let shown = |number: &usize| {
            let uses: Vec<Use> = maker.trained(&visuals[*number].uses).collect();
            maker.visual(&visuals[*number], &uses)
        };
        let rest: Vec<Use> = cluster[1..].iter().flat_map(|n| maker.trained(&visuals[*n].uses)).collect();
        let message = format!("{} look the same", cluster.len());
        findings.push(maker.finding(kind, message, cluster.iter().map(shown).collect(), &rest));
    }
    for (number, visual) in visuals.iter().enumerate() {
        let measured: Vec<Use> = maker.measured(&visual.uses).collect();
        let asked = measured.iter().any(|(_, role)| *role == Role::Query);
        if measured.is_empty() || !asked && maker.answers_several(&visual.uses) {
            continue;
        }
        let exact: Vec<Use> = maker.learned(&visual.uses).collect();
        if !exact.is_empty() {
            let message = format!("evaluated, and in {} of training", num_rows(&exact));
            let all: Vec<Use> = exact.iter().chain(&measured).copied().collect();
            findings.push(maker.finding(
                FindingKind::Leak,
                message,
                vec![maker.visual(visual, &all)],
                &exact,
            ));
            continue;
        }
        let Some(facts_here) = &facts[number] else { continue };
        let near = trained.near(facts_here, options, |other| facts[other].as_ref());
        if near.is_empty() {
            continue;
        }
        let learned = |other: &usize| maker.learned(&visuals[*other].uses).collect::<Vec<Use>>();
        let rows: Vec<Use> = near.iter().flat_map(learned).collect();
        let others = near.iter().map(|other| maker.visual(&visuals[*other], &learned(other)));
        let contents: Vec<FoundContent> =
            std::iter::once(maker.visual(visual, &measured)).chain(others).collect();
        let message = format!("evaluated, and looks like what {} of training hold", num_rows(&rows));
        findings.push(maker.finding(FindingKind::NearLeak, message, contents, &rows));
    }
    findings
}

/// Pictures and clips by their looks.
#[derive(Default)]
struct NearIndex {
    pictures: HashIndex,
    clips: HashIndex,
}

impl NearIndex {
    fn add(&mut self, number: usize, facts: &Facts) {
        let index = if facts.is_clip { &mut self.clips } else { &mut self.pictures };
        keys(facts).for_each(|print| index.add(print.hash, number));
    }

    /// The numbers under which something was added that looks like this, in order; `of` gives back what was added.
    fn near<'a>(
        &self,
        facts: &Facts,
        options: &CheckOptions,
        of: impl Fn(usize) -> Option<&'a Facts<'a>>,
    ) -> Vec<usize> {
        let index = if facts.is_clip { &self.clips } else { &self.pictures };
        let candidates: BTreeSet<usize> =
            keys(facts).flat_map(|print| index.within(print.hash, options.near_bits)).collect();
        let is_near = |number: &usize| of(*number).is_some_and(|other| are_near(facts, other, options));
        candidates.into_iter().filter(is_near).collect()
    }
}

/// The prints by which something is found: a picture and its middle; the first, the middle and the last frame.
fn keys<'a>(facts: &Facts<'a>) -> impl Iterator<Item = &'a Print> + use<'a> {
    let frames = &facts.frames;
    let keys: Vec<&Print> = match facts.is_clip {
        false => frames[0].prints.iter().collect(),
        true => [0, frames.len() / 2, frames.len() - 1].map(|frame| &frames[frame].prints[0]).to_vec(),
    };
    keys.into_iter()
}

/// Pictures are near if they look alike or one looks like the middle of the other, clips if three quarters of their
/// frames do.
fn are_near(one: &Facts, other: &Facts, options: &CheckOptions) -> bool {
    let nearness =
        Nearness { bits: options.near_bits, levels: options.near_levels, detail: options.near_detail };
    let near = |a: &Print, b: &Print| a.is_near(b, nearness);
    if !one.is_clip {
        let (a, b) = (&one.frames[0].prints, &other.frames[0].prints);
        return b.iter().any(|print| near(&a[0], print)) || a.iter().any(|print| near(&b[0], print));
    }
    let count = one.frames.len().min(other.frames.len());
    let frame = |facts: &Facts, place: usize| place * (facts.frames.len() - 1) / (count - 1).max(1);
    let alike = (0..count).filter(|place| {
        let (a, b) = (one.frames[frame(one, *place)], other.frames[frame(other, *place)]);
        near(&a.prints[0], &b.prints[0])
    });
    alike.count() * 4 >= count * 3
}
