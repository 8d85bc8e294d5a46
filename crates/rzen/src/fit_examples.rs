//! What the first weights of a model from scratch are fitted to.

use std::collections::HashSet;

use rzen_core::{Item, Part, Sample};
use rzen_data::BadRow;
use rzen_model::{Encoded, FitExample};

use crate::reader::{Reader, read_samples};

/// Rows that are read at once.
const PIECE: usize = 32;

/// Items with pictures, unchanged and without instructions, of at most `most` rows of each dataset, spread over it; and
/// the rows among them that can't be read. Where one side of a row has nothing but pictures and the other nothing but
/// words, these are the caption; where both have nothing but pictures, they are two views. The rows of a dataset weigh
/// together as the root of their number.
///
/// Files are read piece by piece, as the pieces are asked for.
pub fn fit_examples(
    datasets: &[&[Sample]],
    reader: Reader,
    most: usize,
) -> impl Iterator<Item = (Vec<FitExample>, Vec<BadRow>)> {
    let mut known = HashSet::new();
    let mut rows: Vec<(Sample, f64)> = Vec::new();
    for samples in datasets {
        let mut new: Vec<&Sample> = Vec::new();
        for sample in *samples {
            let (query, positive) = (&sample.query.content, &sample.positive.content);
            let has_picture = [query, positive].into_iter().flatten().any(is_picture);
            // A pair is often there in both directions.
            if has_picture && !known.contains(&(positive, query)) && known.insert((query, positive)) {
                new.push(sample);
            }
        }
        let step = new.len().div_ceil(most).max(1);
        let taken: Vec<&Sample> = new.into_iter().step_by(step).collect();
        let weight = (taken.len() as f64).sqrt().recip();
        rows.extend(taken.into_iter().map(|sample| (plain(sample), weight)));
    }
    let mut rows = rows.into_iter();
    let pieces = std::iter::from_fn(move || Some(rows.by_ref().take(PIECE).collect::<Vec<_>>()));
    pieces.take_while(|rows| !rows.is_empty()).map(move |rows| {
        let samples: Vec<&Sample> = rows.iter().map(|(sample, _)| sample).collect();
        let (read, bad) = read_samples(&reader, &samples, |_| {});
        let examples = read.into_iter().flat_map(|(place, (query, positive, _))| {
            let (sample, weight) = &rows[place];
            examples_of([(&sample.query, query), (&sample.positive, positive)], *weight)
        });
        (examples.collect(), bad)
    })
}

/// The row without instructions and hard negatives.
fn plain(sample: &Sample) -> Sample {
    let plain = |item: &Item| Item { instruction: None, ..item.clone() };
    Sample {
        query: plain(&sample.query),
        positive: plain(&sample.positive),
        hard_negatives: Vec::new(),
        ..sample.clone()
    }
}

fn examples_of([first, second]: [(&Item, Encoded); 2], weight: f64) -> Vec<FitExample> {
    let only_pictures = |item: &Item| item.content.iter().all(is_picture);
    let only_words = |item: &Item| !item.content.iter().any(is_picture);
    let (first, second) = match only_words(first.0) {
        true => (second, first),
        false => (first, second),
    };
    if only_pictures(first.0) && only_words(second.0) {
        return vec![FitExample { views: vec![first.1], caption: Some(second.1.input_ids), weight }];
    }
    if only_pictures(first.0) && only_pictures(second.0) {
        return vec![FitExample { views: vec![first.1, second.1], caption: None, weight }];
    }
    let items = [first.1, second.1].into_iter().filter(|item| !item.pictures.is_empty());
    items.map(|item| FitExample { views: vec![item], caption: None, weight }).collect()
}

fn is_picture(part: &Part) -> bool {
    !matches!(part, Part::Text(_))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rzen_core::{Origin, Task};
    use rzen_data::Loader;
    use rzen_model::{Processor, ProcessorConfig, train_tokenizer};

    use super::*;

    fn sample(query: Vec<Part>, positive: Vec<Part>) -> Sample {
        let item = |content| Item { content, instruction: Some("Find it.".to_owned()) };
        let origin = Origin { file: Path::new("train.jsonl").into(), line: 1 };
        let sample = Sample::new("d", Task("t".to_owned()), item(query), item(positive), origin);
        Sample { hard_negatives: vec![Item::text("none")], ..sample }
    }

    #[test]
    fn rows_become_captions_views_or_lone_pictures_once_each() {
        let folder = tempfile::tempdir().unwrap();
        let picture = |name: &str| {
            let path = folder.path().join(name);
            image::RgbImage::from_pixel(20, 20, image::Rgb([9, 9, 9])).save(&path).unwrap();
            Part::Image(path)
        };
        let (a, b) = (picture("a.png"), picture("b.png"));
        let words = |text: &str| vec![Part::Text(text.to_owned())];
        let missing = Part::Image(Path::new("/no/such.png").to_owned());
        let named = sample(words("a square"), vec![a.clone()]);
        let first = [
            named.clone(),
            sample(vec![a.clone()], words("a square")),
            sample(vec![missing], words("nothing")),
            sample(words("only"), words("text")),
        ];
        let second =
            [sample(vec![a.clone()], vec![b.clone()]), sample([words("left of"), vec![a]].concat(), vec![b])];
        let texts = ["a square", "nothing", "left of", "Find it."].map(str::to_owned);
        let tokenizer = train_tokenizer(texts.into_iter().cycle().take(40), 400).unwrap();
        let config = ProcessorConfig { image_tokens: [1, 1], load_tokens: [1, 64], ..Default::default() };
        let processor = Processor::new(config, &tokenizer).unwrap();
        let reader = Reader { loader: Loader::default().into(), processor: processor.clone().into() };
        let (mut examples, mut lost) = (Vec::new(), Vec::new());
        for (read, bad) in fit_examples(&[&first, &second], reader, 10) {
            examples.extend(read);
            lost.extend(bad);
        }
        assert_eq!(lost.len(), 1, "{lost:?}");
        let kinds: Vec<_> = examples.iter().map(|one| (one.views.len(), one.caption.is_some())).collect();
        assert_eq!(kinds, [(1, true), (2, false), (1, false), (1, false)]);
        // Without the instruction, and not what the hard negatives say.
        let caption = processor.process(&rzen_core::LoadedItem {
            parts: vec![rzen_core::Media::Text("a square".to_owned())],
            instruction: None,
        });
        assert_eq!(examples[0].caption, Some(caption.unwrap().input_ids));
        // Two rows of each are left: the same pair in the other direction, and words alone, are not.
        assert!(examples.iter().all(|one| (one.weight - 0.5f64.sqrt()).abs() < 1e-12));
    }
}
