//! Where the relevant candidates of a query stand among all of them.

use std::cmp::Ordering;

use crate::QueryProblem;
use crate::best::Best;
use crate::search::LANES;

/// The places of the relevant candidates of one query, best first.
///
/// The order of all candidates is by falling score, then rising grade, then index: what has the same score as
/// something better is ranked before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    candidates: usize,
    relevant: Vec<Placed>,
    ties: usize,
}

/// What becomes of candidates with the same score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ties {
    /// The less relevant one is ranked first: a model that tells nothing apart scores worst.
    #[default]
    Against,
    /// The more relevant one is ranked first, as a stable sort does where the answer stands first in a list: a model that tells
    /// nothing apart scores best.
    For,
}

/// A ranking, and the best candidates `(index, score)` in their order.
pub(crate) struct Ranked {
    pub ranking: Ranking,
    pub top: Vec<(usize, f32)>,
}

/// A relevant candidate and its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placed {
    /// The place, counted from 0.
    pub place: usize,
    /// The candidate.
    pub index: usize,
    /// Its score.
    pub score: f32,
    /// Its grade, above 0.
    pub grade: f64,
}

impl Ranking {
    /// Ranks candidates `(index, score)`, each index once, by `relevant` `(index, grade)`.
    ///
    /// Candidates that `relevant` doesn't name have grade 0.
    ///
    /// # Errors
    /// A score that is NaN; a grade that is negative, not finite or above 1000; an index that
    /// stands twice or is relevant without being ranked; no grade above 0.
    pub fn new(scores: Vec<(usize, f32)>, relevant: &[(usize, f64)]) -> Result<Self, QueryProblem> {
        let relevant = graded(relevant)?;
        if let Some((candidate, _)) = scores.iter().find(|(_, score)| score.is_nan()) {
            return Err(QueryProblem::ScoreIsNan { candidate: *candidate });
        }
        let found = relevant.iter().map(|(index, grade)| {
            let mut with_index = scores.iter().filter(|(candidate, _)| candidate == index);
            match (with_index.next(), with_index.next()) {
                (None, _) => Err(QueryProblem::NotRanked { candidate: *index }),
                (Some((_, score)), None) => Ok((*index, *score, *grade)),
                _ => Err(QueryProblem::Repeated { candidate: *index }),
            }
        });
        let mut standing = Standing::new(found.collect::<Result<_, _>>()?, 0, Ties::Against);
        scores.into_iter().for_each(|(index, score)| standing.offer(index, score));
        Ok(standing.finish().ranking)
    }

    /// Candidates that were ranked.
    pub fn candidates(&self) -> usize {
        self.candidates
    }

    /// The relevant candidates in the order of their places, at least one.
    pub fn relevant(&self) -> &[Placed] {
        &self.relevant
    }

    /// The candidates whose scores are the same as that of a better one, and whose place beside it a rule decides.
    pub fn ties(&self) -> usize {
        self.ties
    }

    /// The rank of the first relevant candidate, counted from 1.
    pub fn first_relevant_rank(&self) -> usize {
        self.relevant[0].place + 1
    }

    /// `(index, score)` of the first relevant candidate.
    pub fn first_relevant(&self) -> (usize, f32) {
        (self.relevant[0].index, self.relevant[0].score)
    }
}

/// A candidate with its score and its grade.
type Row = (usize, f32, f64);

impl Ties {
    /// The order of two candidates.
    fn order(self) -> fn(&Row, &Row) -> Ordering {
        match self {
            Ties::Against => |a, b| by_score(a, b).then(a.2.total_cmp(&b.2)).then(a.0.cmp(&b.0)),
            Ties::For => |a, b| by_score(a, b).then(b.2.total_cmp(&a.2)).then(a.0.cmp(&b.0)),
        }
    }
}

fn by_score(a: &Row, b: &Row) -> Ordering {
    b.1.partial_cmp(&a.1).expect("NaN was refused")
}

/// The grades above 0 by index, checked.
///
/// # Errors
/// A grade that is negative, not finite or above 1000; an index that stands twice; no grade above 0.
pub(crate) fn graded(relevant: &[(usize, f64)]) -> Result<Vec<(usize, f64)>, QueryProblem> {
    if let Some(&(candidate, grade)) = relevant.iter().find(|(_, grade)| !(0.0..=1000.0).contains(grade)) {
        return Err(QueryProblem::Grade { candidate, grade });
    }
    let mut sorted = relevant.to_vec();
    sorted.sort_unstable_by_key(|(index, _)| *index);
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(QueryProblem::Repeated { candidate: pair[0].0 });
    }
    sorted.retain(|(_, grade)| *grade > 0.0);
    if sorted.is_empty() {
        return Err(QueryProblem::NothingRelevant);
    }
    Ok(sorted)
}

/// Counts how many candidates are ahead of the relevant ones while all pass by, in any order.
pub(crate) struct Standing {
    /// In the order of their places.
    relevant: Vec<Row>,
    /// Their different scores, falling.
    levels: Vec<f32>,
    /// Candidates with scores between a level and the one before it.
    above: Vec<usize>,
    /// Candidates with the score of a level.
    equal: Vec<usize>,
    /// Candidates below all levels.
    below: usize,
    ties: Ties,
    /// The grades above 0 by index.
    grades: Vec<(usize, f64)>,
    top: Best<Row>,
}

impl Standing {
    /// `relevant`: each with its score and grade; the `top_k` best of all candidates are kept.
    pub(crate) fn new(mut relevant: Vec<Row>, top_k: usize, ties: Ties) -> Self {
        relevant.sort_unstable_by(ties.order());
        let mut levels: Vec<f32> = relevant.iter().map(|row| row.1).collect();
        levels.dedup();
        let mut grades: Vec<(usize, f64)> = relevant.iter().map(|row| (row.0, row.2)).collect();
        grades.sort_unstable_by_key(|(index, _)| *index);
        Standing {
            above: vec![0; levels.len()],
            equal: vec![0; levels.len()],
            below: 0,
            top: Best::new(top_k, |row| row.1, ties.order()),
            ties,
            grades,
            relevant,
            levels,
        }
    }

    /// Takes a candidate, relevant ones too, each once. Scores of relevant ones are those given to `new`.
    pub(crate) fn offer(&mut self, index: usize, score: f32) {
        if score >= self.top.least() {
            let grade = self.grades.binary_search_by_key(&index, |(index, _)| *index);
            self.top.push((index, score, grade.map_or(0.0, |at| self.grades[at].1)));
        }
        let level = self.levels.partition_point(|level| *level > score);
        match self.levels.get(level) {
            None => self.below += 1,
            Some(found) if *found == score => self.equal[level] += 1,
            Some(_) => self.above[level] += 1,
        }
    }

    /// Takes the candidates from `start` on, of which `scores` are known up to `margin`; `exact` gives the score of one. The
    /// result is that of [`offer`](Self::offer) with the exact ones.
    pub(crate) fn offer_all(
        &mut self,
        start: usize,
        scores: &[f32],
        margin: f32,
        exact: impl Fn(usize) -> f32,
    ) {
        let (first, last) = (self.levels[0] + margin, self.levels[self.levels.len() - 1] - margin);
        for (chunk, scores) in scores.chunks(LANES).enumerate() {
            let highest = scores.iter().fold(f32::NEG_INFINITY, |most, score| most.max(*score));
            if highest < self.top.least() - margin {
                // Without branches, since most are like that.
                let above = scores.iter().filter(|score| **score > first).count();
                let below = scores.iter().filter(|score| **score < last).count();
                if above + below == scores.len() {
                    self.above[0] += above;
                    self.below += below;
                    continue;
                }
            }
            for (lane, score) in scores.iter().enumerate() {
                let at = chunk * LANES + lane;
                if *score >= self.top.least() - margin {
                    self.offer(start + at, exact(at));
                } else if *score < last {
                    self.below += 1;
                } else if *score > first {
                    self.above[0] += 1;
                } else {
                    self.offer_between(start + at, *score, margin, || exact(at));
                }
            }
        }
    }

    /// One that is not among the best, with a score between two levels or near one.
    fn offer_between(&mut self, index: usize, score: f32, margin: f32, exact: impl Fn() -> f32) {
        let level = self.levels.partition_point(|level| *level > score + margin);
        match self.levels.get(level) {
            Some(next) if *next < score - margin => self.above[level] += 1,
            _ => self.offer(index, exact()),
        }
    }

    /// The places, and the best candidates.
    pub(crate) fn finish(self) -> Ranked {
        let candidates = self.below + self.above.iter().chain(&self.equal).sum::<usize>();
        let (mut ahead, mut ties) = (0, 0);
        let mut relevant = Vec::with_capacity(self.relevant.len());
        for (level, group) in self.relevant.chunk_by(|a, b| a.1 == b.1).enumerate() {
            ahead += self.above[level];
            let others =
                self.equal[level].checked_sub(group.len()).expect("every relevant candidate was offered");
            let best = group.iter().map(|row| row.2).fold(0.0, f64::max);
            ties += others + group.iter().filter(|row| row.2 < best).count();
            let first = ahead + if self.ties == Ties::Against { others } else { 0 };
            let placed = group.iter().enumerate().map(|(at, (index, score, grade))| Placed {
                place: first + at,
                index: *index,
                score: *score,
                grade: *grade,
            });
            relevant.extend(placed);
            ahead += self.equal[level];
        }
        let top = self.top.ranked().into_iter().map(|(index, score, _)| (index, score)).collect();
        Ranked { ranking: Ranking { candidates, relevant, ties }, top }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(place, index)` of the relevant ones.
    fn places(ranking: &Ranking) -> Vec<(usize, usize)> {
        ranking.relevant().iter().map(|found| (found.place, found.index)).collect()
    }

    fn top(scores: &[(usize, f32)], relevant: &[(usize, f64)], k: usize) -> Vec<usize> {
        let relevant = relevant.iter().map(|(index, grade)| {
            (*index, scores.iter().find(|(candidate, _)| candidate == index).unwrap().1, *grade)
        });
        let mut standing = Standing::new(relevant.collect(), k, Ties::Against);
        scores.iter().for_each(|(index, score)| standing.offer(*index, *score));
        standing.finish().top.iter().map(|(index, _)| *index).collect()
    }

    #[test]
    fn ties_go_against_the_model() {
        let scores = vec![(0, 0.5), (1, 0.5), (2, 0.9), (3, 0.5), (4, 0.5), (5, 0.1)];
        let relevant = [(0, 2.0), (1, 1.0), (5, 1.0)];
        for k in 0..8 {
            assert_eq!(top(&scores, &relevant, k), [2, 3, 4, 1, 0, 5][..k.min(6)]);
        }
        let ranking = Ranking::new(scores, &relevant).unwrap();
        assert_eq!((places(&ranking), ranking.candidates()), (vec![(3, 1), (4, 0), (5, 5)], 6));
        assert_eq!((ranking.first_relevant_rank(), ranking.first_relevant()), (4, (1, 0.5)));
        // Candidates 3 and 4 stand before 1, and 1 before 0, by the rule alone.
        assert_eq!(ranking.ties(), 3);
        assert_eq!(Ranking::new(vec![(0, 0.0), (1, -0.0)], &[(0, 1.0)]).unwrap().first_relevant_rank(), 2);
        // Equal scores among equals cost nothing.
        assert_eq!(Ranking::new(vec![(0, 1.0), (1, 0.5), (2, 0.5)], &[(0, 1.0)]).unwrap().ties(), 0);
    }

    #[test]
    fn ties_may_go_for_the_model() {
        let relevant = vec![(0, 0.5, 2.0), (1, 0.5, 1.0), (5, 0.1, 1.0)];
        let scores = [(0, 0.5), (1, 0.5), (2, 0.9), (3, 0.5), (4, 0.5), (5, 0.1)];
        let mut standing = Standing::new(relevant, 6, Ties::For);
        scores.iter().for_each(|(index, score)| standing.offer(*index, *score));
        let Ranked { ranking, top } = standing.finish();
        assert_eq!(places(&ranking), [(1, 0), (2, 1), (5, 5)]);
        assert_eq!(top.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [2, 0, 1, 3, 4, 5]);
        assert_eq!(ranking.ties(), 3);
    }

    #[test]
    fn a_minus_zero_is_no_grade_of_its_own() {
        let ranking = Ranking::new(vec![(0, 0.5), (1, 0.5), (2, 0.1)], &[(1, -0.0), (2, 1.0)]).unwrap();
        assert_eq!((places(&ranking), ranking.ties()), (vec![(2, 2)], 0));
    }

    #[test]
    fn a_grade_of_zero_asks_for_no_place() {
        let ranking = Ranking::new(vec![(0, 0.5), (1, 0.4)], &[(1, 1.0), (7, 0.0)]).unwrap();
        assert_eq!(ranking.first_relevant(), (1, 0.4));
    }

    #[test]
    fn the_order_of_the_candidates_does_not_matter() {
        let scores = vec![(3, 0.2), (1, 0.7), (4, 0.2), (2, 0.7), (0, 0.1)];
        let relevant = [(2, 1.0), (4, 3.0)];
        let expected = Ranking::new(scores.clone(), &relevant).unwrap();
        for shift in 1..scores.len() {
            let mut turned = scores.clone();
            turned.rotate_left(shift);
            turned.swap(0, 2);
            assert_eq!(Ranking::new(turned, &relevant).unwrap(), expected);
        }
    }

    #[test]
    fn scores_known_up_to_a_margin_rank_as_exact_ones() {
        let mut state = 5u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        for round in 0..200 {
            let count = 1 + random(150) as usize;
            // Few different scores, so that many are equal or near.
            let exact: Vec<f32> = (0..count).map(|_| random(40) as f32 / 100.0).collect();
            let relevant: Vec<(usize, f32, f64)> = (0..count)
                .step_by(1 + random(30) as usize)
                .map(|i| (i, exact[i], 1.0 + random(3) as f64))
                .collect();
            let margin = [0.0, 0.004, 0.013, 1.0][round % 4];
            let near: Vec<f32> =
                exact.iter().map(|score| score + margin * (random(1999) as f32 / 1000.0 - 0.999)).collect();
            let (k, ties) = (random(7) as usize, [Ties::Against, Ties::For][round % 3 % 2]);
            let (mut plain, mut fast) =
                (Standing::new(relevant.clone(), k, ties), Standing::new(relevant.clone(), k, ties));
            exact.iter().enumerate().for_each(|(index, score)| plain.offer(index, *score));
            let half = count / 2;
            fast.offer_all(0, &near[..half], margin, |at| exact[at]);
            fast.offer_all(half, &near[half..], margin, |at| exact[half + at]);
            let (fast, plain) = (fast.finish(), plain.finish());
            assert_eq!((fast.ranking, fast.top), (plain.ranking, plain.top), "round {round}");
        }
    }

    #[test]
    fn wrong_data_is_refused() {
        let check = |scores: &[(usize, f32)], relevant: &[(usize, f64)], expected: QueryProblem| {
            // Debug text, because NaN differs from itself.
            let found = Ranking::new(scores.to_vec(), relevant).unwrap_err();
            assert_eq!(format!("{found:?}"), format!("{expected:?}"));
        };
        let two = [(0, 0.1), (1, 0.2)];
        check(&two, &[], QueryProblem::NothingRelevant);
        check(&two, &[(1, 0.0)], QueryProblem::NothingRelevant);
        check(&two, &[(7, 1.0)], QueryProblem::NotRanked { candidate: 7 });
        check(&two, &[(1, 1.0), (1, 1.0)], QueryProblem::Repeated { candidate: 1 });
        check(&[(1, 0.1), (1, 0.2)], &[(1, 1.0)], QueryProblem::Repeated { candidate: 1 });
        check(&two, &[(1, -1.0)], QueryProblem::Grade { candidate: 1, grade: -1.0 });
        check(&two, &[(1, f64::NAN)], QueryProblem::Grade { candidate: 1, grade: f64::NAN });
        check(&two, &[(1, f64::INFINITY)], QueryProblem::Grade { candidate: 1, grade: f64::INFINITY });
        check(&[(0, f32::NAN), (1, 0.2)], &[(1, 1.0)], QueryProblem::ScoreIsNan { candidate: 0 });
    }
}
