//! The processes that train one model together.

use std::fmt::Display;
use std::time::Duration;

/// The processes that train one model together, seen from one of them: rank `r` of `size`, counted from 0.
///
/// But for [`rank`](Ranks::rank), [`size`](Ranks::size), [`local_rank`](Ranks::local_rank) and [`abort`](Ranks::abort) all
/// methods are collective: every rank calls them, in the same order, and gets its answer when all have called.
///
/// None of them fails: where a rank is lost or the network breaks, an implementation ends the processes that are left.
/// What one rank alone finds wrong is made known to all by [`agree`] or [`on_first`], so that none waits for it in vain.
pub trait Ranks {
    /// Which of the processes this is.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Which this is of the processes on its machine: the accelerator to compute on.
    fn local_rank(&self) -> usize;

    /// The numbers of all ranks, one after another; each gives as many as it likes.
    fn all_gather(&self, mine: &[f32]) -> Vec<f32>;

    /// The bytes of each rank.
    fn all_gather_bytes(&self, mine: &[u8]) -> Vec<Vec<u8>>;

    /// Puts the sum over all ranks in the place of each number, the same bits on every rank.
    fn all_reduce_sum(&self, values: &mut [f32]);

    /// The bytes that rank 0 gives; what others give is ignored. The others may wait for hours, without work.
    fn broadcast(&self, bytes: Vec<u8>) -> Vec<u8>;

    /// Whether all ranks call this within `patience`; to be called once, as the last of all.
    fn all_end(&self, patience: Duration) -> bool;

    /// Ends all processes, this one with exit status 1.
    fn abort(&self) -> !;
}

/// A process of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Solo;

impl Ranks for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn local_rank(&self) -> usize {
        0
    }

    fn all_gather(&self, mine: &[f32]) -> Vec<f32> {
        mine.to_vec()
    }

    fn all_gather_bytes(&self, mine: &[u8]) -> Vec<Vec<u8>> {
        vec![mine.to_vec()]
    }

    fn all_reduce_sum(&self, _values: &mut [f32]) {}

    fn broadcast(&self, bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }

    fn all_end(&self, _patience: Duration) -> bool {
        true
    }

    fn abort(&self) -> ! {
        std::process::exit(1)
    }
}

/// Goes on when all ranks can: an error on any of them is one on all.
///
/// A rank that has no error of its own gets `elsewhere(rank, message)` of the lowest rank that has one.
///
/// # Errors
/// See above.
pub fn agree<T, E: Display>(
    ranks: &dyn Ranks,
    mine: Result<T, E>,
    elsewhere: impl FnOnce(usize, String) -> E,
) -> Result<T, E> {
    let told = ranks.all_gather_bytes(&tell(&mine));
    let first = told.iter().enumerate().find_map(|(rank, bytes)| Some((rank, problem(bytes)?)));
    match (mine, first) {
        (Ok(_), Some((rank, message))) => Err(elsewhere(rank, message)),
        (mine, _) => mine,
    }
}

/// Does `work` on rank 0, while the others wait for it; `None` on those.
///
/// # Errors
/// That of `work` on rank 0, `elsewhere(0, message)` on the others.
pub fn on_first<T, E: Display>(
    ranks: &dyn Ranks,
    work: impl FnOnce() -> Result<T, E>,
    elsewhere: impl FnOnce(usize, String) -> E,
) -> Result<Option<T>, E> {
    if ranks.rank() == 0 {
        let done = work();
        ranks.broadcast(tell(&done));
        return done.map(Some);
    }
    match problem(&ranks.broadcast(Vec::new())) {
        Some(message) => Err(elsewhere(0, message)),
        None => Ok(None),
    }
}

/// Nothing, or a 1 and the message.
fn tell<T, E: Display>(outcome: &Result<T, E>) -> Vec<u8> {
    match outcome {
        Ok(_) => Vec::new(),
        // With its causes, where it is one that has them.
        Err(error) => format!("\u{1}{error:#}").into_bytes(),
    }
}

fn problem(told: &[u8]) -> Option<String> {
    told.split_first().map(|(_, message)| String::from_utf8_lossy(message).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_agrees_with_itself() {
        let other = |rank, message| format!("rank {rank}: {message}");
        assert_eq!(agree(&Solo, Ok::<_, String>(7), other), Ok(7));
        assert_eq!(agree(&Solo, Err::<u8, _>("mine".to_owned()), other), Err("mine".to_owned()));
        assert_eq!(on_first(&Solo, || Ok::<_, String>(7), other), Ok(Some(7)));
        assert_eq!(on_first(&Solo, || Err::<u8, _>("mine".to_owned()), other), Err("mine".to_owned()));
    }

    /// Rank 1 of 3, in whose world rank 2 has a problem, and rank 0 has one where it is asked alone.
    struct Second;

    impl Ranks for Second {
        fn rank(&self) -> usize {
            1
        }
        fn size(&self) -> usize {
            3
        }
        fn local_rank(&self) -> usize {
            1
        }
        fn all_gather(&self, mine: &[f32]) -> Vec<f32> {
            mine.to_vec()
        }
        fn all_gather_bytes(&self, mine: &[u8]) -> Vec<Vec<u8>> {
            vec![Vec::new(), mine.to_vec(), tell(&Err::<(), _>("no disk"))]
        }
        fn all_reduce_sum(&self, _values: &mut [f32]) {}
        fn broadcast(&self, _bytes: Vec<u8>) -> Vec<u8> {
            tell(&Err::<(), _>(""))
        }
        fn all_end(&self, _patience: Duration) -> bool {
            false
        }
        fn abort(&self) -> ! {
            panic!("aborted")
        }
    }

    #[test]
    fn a_problem_elsewhere_is_one_here() {
        let other = |rank, message| format!("rank {rank}: {message}");
        assert_eq!(agree(&Second, Ok::<_, String>(7), other), Err("rank 2: no disk".to_owned()));
        assert_eq!(agree(&Second, Err::<u8, _>("mine".to_owned()), other), Err("mine".to_owned()));
        // A message may be empty; and only rank 0 does the work.
        let work = || -> Result<(), String> { panic!("not here") };
        assert_eq!(on_first(&Second, work, other), Err("rank 0: ".to_owned()));
    }
}
