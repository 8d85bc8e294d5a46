//! Findings about texts.

use rzen_core::Part;

use super::CheckOptions;
use super::finding::{Finding, FindingKind, FoundContent};
use super::maker::{Maker, num_rows};
use super::texts::{TextIndex, letters};
use super::uses::{Text, Use, Uses};

/// Texts that say the same in training, and what training and evaluation share.
pub(super) fn same(maker: &Maker, uses: &Uses, options: &CheckOptions) -> Vec<Finding> {
    let texts = &uses.texts;
    let text = |number: usize| texts[number].text.as_str();
    let (mut clusters, mut index) = (Vec::<Vec<usize>>::new(), TextIndex::default());
    let mut trained = TextIndex::default();
    for (number, here) in texts.iter().enumerate() {
        if may_leak(here, options) && maker.learned(&here.uses).next().is_some() && !is_label(maker, here) {
            trained.add(number, &here.text);
        }
        let sides = maker.sides(&here.uses);
        if sides.is_empty() {
            continue;
        }
        let near = index.near(&here.text, options.near_words, |place| text(clusters[place][0]));
        let together = |place: &usize| !maker.sides(&texts[clusters[*place][0]].uses).is_disjoint(&sides);
        match near.into_iter().find(together) {
            Some(place) => clusters[place].push(number),
            None => {
                index.add(clusters.len(), &here.text);
                clusters.push(vec![number]);
            }
        }
    }
    let shown =
        |number: usize, uses: &[Use]| maker.content(vec![Part::Text(texts[number].text.clone())], uses);
    let mut findings = Vec::new();
    for cluster in clusters.iter().filter(|cluster| cluster.len() > 1) {
        let of = |number: &usize| maker.trained(&texts[*number].uses).collect::<Vec<Use>>();
        let rest: Vec<Use> = cluster[1..].iter().flat_map(of).collect();
        let contents = cluster.iter().map(|number| shown(*number, &of(number))).collect();
        let message = format!("{} say the same", cluster.len());
        findings.push(maker.finding(FindingKind::NearText, message, contents, &rest));
    }
    for (number, here) in texts.iter().enumerate() {
        let measured: Vec<Use> = maker.measured(&here.uses).collect();
        if measured.is_empty() || !may_leak(here, options) {
            continue;
        }
        let exact: Vec<Use> = maker.learned(&here.uses).collect();
        if !exact.is_empty() {
            if !is_label(maker, here) {
                let message = format!("evaluated, and in {} of training", num_rows(&exact));
                let all: Vec<Use> = exact.iter().chain(&measured).copied().collect();
                findings.push(maker.finding(FindingKind::Leak, message, vec![shown(number, &all)], &exact));
            }
            continue;
        }
        let near = trained.near(&here.text, options.near_words, text);
        if near.is_empty() {
            continue;
        }
        let learned = |other: &usize| maker.learned(&texts[*other].uses).collect::<Vec<Use>>();
        let rows: Vec<Use> = near.iter().flat_map(learned).collect();
        let others = near.iter().map(|other| shown(*other, &learned(other)));
        let contents: Vec<FoundContent> = std::iter::once(shown(number, &measured)).chain(others).collect();
        let message = format!("evaluated, and says what {} of training say", num_rows(&rows));
        findings.push(maker.finding(FindingKind::NearLeak, message, contents, &rows));
    }
    findings
}

fn may_leak(text: &Text, options: &CheckOptions) -> bool {
    letters(&text.text) >= options.leak_letters
}

/// Whether a text names a class rather than one thing.
fn is_label(maker: &Maker, text: &Text) -> bool {
    maker.answers_several(&text.uses) || maker.asks_several(&text.uses)
}
