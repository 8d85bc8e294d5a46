//! The token table.

use super::{GATE_LOGIT, Made, RESERVED, TEMPLATE, WEIGHT, WEIGHT_LOGIT, WordStatistics};
use crate::config::TextConfig;
use crate::weights::{name_hash, normals};

/// A token as frequent as this keeps half its weight (SIF's `a`).
const RARE: f64 = 1e-3;
/// Characters of the pieces that a token's row is made of.
const PIECES: [usize; 2] = [3, 4];
/// The share of the pieces in a row's variance; the rest is the word's own.
const PIECE_SHARE: f64 = 0.5;

pub(super) fn make(made: &mut Made, config: &TextConfig, words: &WordStatistics) {
    let (size, count) = (config.hidden_size, config.vocab_size);
    let unit = (size as f64).sqrt();
    // Every token counts as seen once more.
    let seen = |id: usize| words.counts.get(id).map_or(1.0, |count| *count as f64 + 1.0);
    let all: f64 = (0..count).map(seen).sum();
    let mut table = made.normals("model.embed_tokens.weight", count * size, 1.0);
    for (id, row) in table.chunks_exact_mut(size).enumerate() {
        if words.control.contains(&(id as u32)) {
            row.fill(0.0);
            row[TEMPLATE] = unit as f32;
            continue;
        }
        if let Some(text) = words.texts.get(id).filter(|text| !text.is_empty()) {
            row[RESERVED..].copy_from_slice(&spelled(made.seed, text, size - RESERVED));
        }
        // Words and parts of words that stand around every item as well keep what they spell.
        row[TEMPLATE] = if words.template.contains(&(id as u32)) { unit as f32 } else { 0.0 };
        row[WEIGHT] = ((RARE / (RARE + seen(id) / all)).ln() / WEIGHT_LOGIT * unit) as f32;
    }
    made.put("model.embed_tokens.weight", table);
}

/// What the last block makes of words, up to its length: the weighted mean of their rows' content, of unit length. None
/// where no row has content.
pub(super) fn mean(ids: &[u32], table: &[f32], size: usize) -> Option<Vec<f64>> {
    let unit = (size as f64).sqrt();
    let mut sum = vec![0.0; size - RESERVED];
    for row in ids.iter().map(|id| &table[*id as usize * size..][..size]) {
        let length = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let logit = |place: usize| f64::from(row[place]) / length;
        let weight = (WEIGHT_LOGIT * logit(WEIGHT) - GATE_LOGIT * logit(TEMPLATE)).exp();
        sum.iter_mut()
            .zip(&row[RESERVED..])
            .for_each(|(sum, x)| *sum += weight * unit / length * f64::from(*x));
    }
    let length = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
    (length > 0.0).then(|| sum.into_iter().map(|x| x / length).collect())
}

/// A vector of mean square 1 that is near those of words spelled alike.
fn spelled(seed: u64, text: &str, size: usize) -> Vec<f32> {
    let marked: Vec<char> = format!("^{text}$").chars().collect();
    let pieces: Vec<String> = PIECES
        .iter()
        .flat_map(|length| marked.windows(*length).map(|piece| piece.iter().collect()))
        .collect();
    let mut sum = vec![0.0; size];
    let mut add = |name: &str, share: f64| {
        let numbers = normals(seed ^ name_hash(name), size, share.sqrt());
        sum.iter_mut().zip(numbers).for_each(|(sum, x)| *sum += f64::from(x));
    };
    add(&format!("word {text}"), 1.0 - PIECE_SHARE);
    for piece in &pieces {
        add(&format!("piece {piece}"), PIECE_SHARE / pieces.len() as f64);
    }
    let length = (sum.iter().map(|x| x * x).sum::<f64>() / size as f64).sqrt();
    sum.into_iter().map(|x| (x / length) as f32).collect()
}
