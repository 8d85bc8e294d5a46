//! Candidates in the order of their scores.

use std::cmp::Ordering;

use crate::QueryProblem;

/// The candidates of one query from best to worst, with their grades.
///
/// The order is by falling score, then rising grade, then index: what has the same score as
/// something better is ranked before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    ranked: Vec<(usize, f32)>,
    grades: Vec<f64>,
    ties: usize,
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
        let mut relevant = sorted_grades(relevant)?;
        relevant.retain(|(_, grade)| *grade > 0.0);
        let mut rows = Vec::with_capacity(scores.len());
        let mut graded = 0;
        for (candidate, score) in scores {
            if score.is_nan() {
                return Err(QueryProblem::ScoreIsNan { candidate });
            }
            let grade = relevant.binary_search_by_key(&candidate, |(index, _)| *index);
            graded += usize::from(grade.is_ok());
            rows.push((candidate, score, grade.map_or(0.0, |at| relevant[at].1)));
        }
        rows.sort_unstable_by(before);
        if graded != relevant.len() {
            return Err(misplaced(&rows, &relevant));
        }
        let ties = count_ties(&rows);
        let grades = rows.iter().map(|(_, _, grade)| *grade).collect();
        Ok(Ranking {
            ranked: rows.into_iter().map(|(index, score, _)| (index, score)).collect(),
            grades,
            ties,
        })
    }

    /// `(index, score)` from best to worst.
    pub fn ranked(&self) -> &[(usize, f32)] {
        &self.ranked
    }

    /// The grades in the same order.
    pub fn grades(&self) -> &[f64] {
        &self.grades
    }

    /// The candidates ranked before a better one only because their scores are the same.
    pub fn ties(&self) -> usize {
        self.ties
    }

    /// The rank of the first relevant candidate, counted from 1.
    pub fn first_relevant_rank(&self) -> usize {
        1 + self.grades.iter().position(|grade| *grade > 0.0).expect("`new` wants a grade above 0")
    }

    /// `(index, score)` of the first relevant candidate.
    pub fn first_relevant(&self) -> (usize, f32) {
        self.ranked[self.first_relevant_rank() - 1]
    }
}

/// A candidate with its score and its grade.
type Row = (usize, f32, f64);

fn before(a: &Row, b: &Row) -> Ordering {
    let by_score = b.1.partial_cmp(&a.1).expect("NaN was refused");
    by_score.then(a.2.total_cmp(&b.2)).then(a.0.cmp(&b.0))
}

/// The grades by index, checked.
fn sorted_grades(relevant: &[(usize, f64)]) -> Result<Vec<(usize, f64)>, QueryProblem> {
    if let Some(&(candidate, grade)) = relevant.iter().find(|(_, grade)| !(0.0..=1000.0).contains(grade)) {
        return Err(QueryProblem::Grade { candidate, grade });
    }
    if relevant.iter().all(|(_, grade)| *grade == 0.0) {
        return Err(QueryProblem::NothingRelevant);
    }
    // -0.0 + 0.0 is 0.0: one zero only, so that `total_cmp` never orders by its sign.
    let mut sorted: Vec<_> = relevant.iter().map(|(index, grade)| (*index, grade + 0.0)).collect();
    sorted.sort_unstable_by_key(|(index, _)| *index);
    match sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(QueryProblem::Repeated { candidate: pair[0].0 }),
        None => Ok(sorted),
    }
}

/// Why not exactly the relevant candidates were found among the ranked ones.
fn misplaced(rows: &[Row], relevant: &[(usize, f64)]) -> QueryProblem {
    for (candidate, _) in relevant {
        match rows.iter().filter(|row| row.0 == *candidate).count() {
            0 => return QueryProblem::NotRanked { candidate: *candidate },
            1 => {}
            _ => return QueryProblem::Repeated { candidate: *candidate },
        }
    }
    unreachable!("each relevant candidate was found once")
}

fn count_ties(rows: &[Row]) -> usize {
    rows.chunk_by(|a, b| a.1 == b.1)
        .map(|group| {
            let best = group[group.len() - 1].2;
            group.iter().filter(|row| row.2 < best).count()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indices(ranking: &Ranking) -> Vec<usize> {
        ranking.ranked().iter().map(|(index, _)| *index).collect()
    }

    #[test]
    fn ties_go_against_the_model() {
        let scores = vec![(0, 0.5), (1, 0.5), (2, 0.9), (3, 0.5), (4, 0.5), (5, 0.1)];
        let ranking = Ranking::new(scores, &[(0, 2.0), (1, 1.0), (5, 1.0)]).unwrap();
        assert_eq!(indices(&ranking), [2, 3, 4, 1, 0, 5]);
        assert_eq!((ranking.first_relevant_rank(), ranking.first_relevant()), (4, (1, 0.5)));
        // Candidates 3 and 4 stand before 1, and 1 before 0, by the rule alone.
        assert_eq!(ranking.ties(), 3);
        assert_eq!(Ranking::new(vec![(0, 0.0), (1, -0.0)], &[(0, 1.0)]).unwrap().first_relevant_rank(), 2);
        // Equal scores among equals cost nothing.
        assert_eq!(Ranking::new(vec![(0, 1.0), (1, 0.5), (2, 0.5)], &[(0, 1.0)]).unwrap().ties(), 0);
    }

    #[test]
    fn a_minus_zero_is_no_grade_of_its_own() {
        let ranking = Ranking::new(vec![(0, 0.5), (1, 0.5), (2, 0.1)], &[(1, -0.0), (2, 1.0)]).unwrap();
        assert_eq!((indices(&ranking), ranking.ties()), (vec![0, 1, 2], 0));
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
