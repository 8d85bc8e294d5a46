//! Hard negatives: what a model ranks high for a query and is no answer to it.
//!
//! ```text
//! manifests, pools ─Source─► items ─Contents─► keys ─embed_missing─► VectorStore
//!                    └─units─► Unit ─search─► ranks ─NegativeChoice─► MinedRow ─write─► corpus, mine.json, report.html
//! ```

mod evaluation;
mod output;
mod page;
mod source;
mod tell;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Result, ensure};
use rzen_core::Item;
use rzen_data::{BadRow, NegativeChoice, NegativesLost};
use rzen_eval::{Rows, search};

pub use output::{Record, check_output, write};
pub use source::{Source, Unit, UnitRow};
pub use tell::{example, examples, table};

use crate::progress::Progress;
use crate::vectors::{Contents, Key, Model, VectorStore, embed_missing};

/// How negatives are mined.
pub struct MineOptions {
    /// Which candidates are taken.
    pub choice: NegativeChoice,
    /// Whether rows keep the hard negatives that they have; they stand first then.
    pub keep: bool,
    /// Rows and candidates that may be unreadable.
    pub bad_row_limit: usize,
}

/// A row with its new hard negatives.
pub struct MinedRow {
    /// Candidates of the unit, in the order in which they are written.
    pub taken: Vec<Taken>,
    /// The score of each answer, the first one first; a teacher's where there is one.
    pub positive_scores: Vec<f64>,
    /// The scores of the hard negatives that the row had.
    pub present_scores: Vec<f64>,
    /// The rank of the answer that the model ranks first, among it and the candidates that may be negatives, ties before it;
    /// `None` beyond [`RANKS`] and beyond the window.
    pub positive_rank: Option<usize>,
    /// What the rules left out.
    pub lost: NegativesLost,
}

/// A candidate that became a negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Taken {
    /// Its place in the unit.
    pub candidate: usize,
    /// Its rank, counted from 1.
    pub rank: usize,
    /// Its score; a teacher's where there is one.
    pub score: f64,
}

/// Ranks that are told apart at least, so that it is seen where answers are.
pub const RANKS: usize = 100;

/// What came of a mining.
pub struct Mined<'a> {
    /// The rows by dataset and name, each with what was taken for its rows.
    pub units: Vec<(Unit<'a>, Vec<MinedRow>)>,
    /// Negatives asked for, of each row.
    pub asked: usize,
    /// Whether rows keep the hard negatives that they had.
    pub keep: bool,
    /// Rows and candidates that can't be read.
    pub bad_rows: Vec<BadRow>,
    /// The different items among those that can be read, and how many of them were embedded by earlier runs.
    pub items: usize,
    /// See above.
    pub found: usize,
}

/// Mines negatives for the rows of `source`: `model` ranks the candidates, `teacher`, else the model, scores them. Vectors are
/// looked for and kept in the folder `vectors`.
///
/// The same for any number of threads and size of batches, up to the rounding of the vectors.
///
/// # Errors
/// If more rows can't be read than allowed, a model can't be used, the teacher is the model, or vectors can't be kept.
pub fn mine<'a>(
    source: &'a Source,
    model: &Model,
    teacher: Option<&Model>,
    vectors: &Path,
    options: &MineOptions,
) -> Result<Mined<'a>> {
    ensure!(
        teacher.is_none_or(|teacher| teacher.key != model.key),
        "--teacher-model holds the model that --model names, with the same settings; leave it out"
    );
    let mut contents = Contents::default();
    contents.read(source.items());
    // What isn't there, or in use, is found before hours of embedding.
    let (_, missing) = source::units(source, &contents, &HashMap::new(), options.keep);
    check_limit(&missing, options.bad_row_limit)?;
    let mut store = VectorStore::open(vectors, &model.key)?;
    let mut teacher_store = teacher.map(|teacher| VectorStore::open(vectors, &teacher.key)).transpose()?;
    let items: Vec<(Key, &Item)> =
        source.items().filter_map(|item| Some((contents.vector_key(item).ok()?, item))).collect();
    let different: HashSet<Key> = items.iter().map(|(key, _)| *key).collect();
    let found = different.iter().filter(|key| store.contains(key)).count();
    let mut refused = embed_missing(&mut store, model, &items, "embed", &|item| contents.unchanged(item))?;
    if let (Some(teacher), Some(store)) = (teacher, &mut teacher_store) {
        refused.extend(embed_missing(store, teacher, &items, "embed with the teacher", &|item| {
            contents.unchanged(item)
        })?);
    }
    let (units, bad_rows) = source::units(source, &contents, &refused, options.keep);
    check_limit(&bad_rows, options.bad_row_limit)?;
    let mut mined = Vec::new();
    let progress = Progress::tasks("search", units.len());
    for unit in units {
        progress.message(unit.name);
        let rows = mine_unit(&unit, &mut store, teacher_store.as_mut(), options, &progress)?;
        mined.push((unit, rows));
        progress.advance();
    }
    progress.finish();
    let asked = options.choice.count;
    Ok(Mined { units: mined, asked, keep: options.keep, bad_rows, items: different.len(), found })
}

fn check_limit(bad: &[BadRow], limit: usize) -> Result<()> {
    ensure!(
        bad.len() <= limit,
        "{} rows can't be read, more than the {limit} allowed: {}; mend their files, take the rows out of the \
         manifest, or raise --bad-row-limit to leave them out",
        bad.len(),
        tell::bad_rows(bad)
    );
    Ok(())
}

/// Queries that are searched for between two lines of progress.
const PIECE: usize = 1024;

fn mine_unit(
    unit: &Unit,
    store: &mut VectorStore,
    teacher: Option<&mut VectorStore>,
    options: &MineOptions,
    progress: &Progress,
) -> Result<Vec<MinedRow>> {
    let choice = &options.choice;
    let keys: Vec<Key> = unit.candidates.iter().map(|candidate| candidate.key).collect();
    let mut model = Scorer::new(store, &keys)?;
    let mut teacher = teacher.map(|store| Scorer::new(store, &keys)).transpose()?;
    let depth = choice.rank[1].max(RANKS);
    let mut mined = Vec::with_capacity(unit.rows.len());
    for piece in unit.rows.chunks(PIECE) {
        let first = mined.len();
        let keys: Vec<Key> = piece.iter().map(|row| row.query).collect();
        let queries = model.store.rows(&keys)?;
        let queries = Rows::new(&queries, model.dim);
        let found = search(queries, model.candidates(), depth, |row, at| unit.allows(first + row, at));
        for (place, (row, ranked)) in piece.iter().zip(&found).enumerate() {
            let query = queries.row(place);
            let of_model = model.scores(query, &row.positives)?;
            let scored = match &mut teacher {
                Some(teacher) => Scored::by(teacher, row, ranked)?,
                None => Scored {
                    ranked: ranked.iter().map(|(_, score)| f64::from(*score)).collect(),
                    positives: of_model.clone(),
                    present: model.scores(query, &row.negatives)?,
                },
            };
            let best = of_model.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let before = ranked.iter().take_while(|(_, score)| f64::from(*score) >= best).count();
            let lowest = scored.positives.iter().copied().fold(f64::INFINITY, f64::min);
            let purpose = format!("negatives {} {}", unit.name, row.sample.origin.line);
            let (places, lost) = choice.choose(&scored.ranked, lowest, &purpose);
            let take = |at: usize| Taken { candidate: ranked[at].0, rank: at + 1, score: scored.ranked[at] };
            mined.push(MinedRow {
                taken: places.into_iter().map(take).collect(),
                positive_scores: scored.positives,
                present_scores: scored.present,
                positive_rank: (before < depth).then_some(before + 1),
                lost,
            });
        }
        progress.part(mined.len(), unit.rows.len());
    }
    Ok(mined)
}

/// Vectors of one model for a unit.
struct Scorer<'s> {
    store: &'s mut VectorStore,
    dim: usize,
    candidates: Vec<f32>,
}

impl<'s> Scorer<'s> {
    fn new(store: &'s mut VectorStore, candidates: &[Key]) -> Result<Self> {
        let candidates = store.rows(candidates)?;
        let dim = store.dim().expect("what can be read has been embedded");
        Ok(Scorer { store, dim, candidates })
    }

    fn candidates(&self) -> Rows<'_> {
        Rows::new(&self.candidates, self.dim)
    }

    /// Scores of a query with items.
    fn scores(&mut self, query: &[f32], items: &[Key]) -> Result<Vec<f64>> {
        let vectors = self.store.rows(items)?;
        let rows = Rows::new(&vectors, self.dim);
        Ok((0..items.len()).map(|at| f64::from(rows.score(at, query))).collect())
    }
}

/// The scores that the filters look at.
struct Scored {
    ranked: Vec<f64>,
    positives: Vec<f64>,
    present: Vec<f64>,
}

impl Scored {
    fn by(teacher: &mut Scorer, row: &UnitRow, ranked: &[(usize, f32)]) -> Result<Self> {
        let query = teacher.store.rows(&[row.query])?;
        let candidates = teacher.candidates();
        Ok(Scored {
            ranked: ranked.iter().map(|(at, _)| f64::from(candidates.score(*at, &query))).collect(),
            positives: teacher.scores(&query, &row.positives)?,
            present: teacher.scores(&query, &row.negatives)?,
        })
    }
}
