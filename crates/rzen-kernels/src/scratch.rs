//! Working memory that outlives a call: large blocks fresh from the system cost a page fault each 4 KiB.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

/// Blocks that wait for their next use.
static FREE: Mutex<Vec<Vec<u32>>> = Mutex::new(Vec::new());

/// Words that are kept waiting at most, 256 MiB of them.
const KEPT_WORDS: usize = 1 << 26;
/// Words of a cache line.
const LINE: usize = 16;

/// A block of `u32` or `f32` words of any content, given back when it is dropped.
pub struct Scratch {
    block: Vec<u32>,
    /// Where the first cache line begins.
    offset: usize,
    words: usize,
}

impl Scratch {
    /// So many words, beginning on a cache line.
    pub fn new(words: usize) -> Self {
        let needed = words + LINE;
        let block = take(needed).unwrap_or_else(|| vec![0; needed]);
        let offset = block.as_ptr().align_offset(64);
        Scratch { block, offset, words }
    }

    pub(crate) fn as_words(&self) -> &[u32] {
        &self.block[self.offset..][..self.words]
    }

    pub(crate) fn as_mut_words(&mut self) -> &mut [u32] {
        &mut self.block[self.offset..][..self.words]
    }
}

/// The smallest block that is large enough and not far larger.
fn take(needed: usize) -> Option<Vec<u32>> {
    if needed == LINE {
        return None;
    }
    let mut free = FREE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let fits = |i: &usize| (needed..=2 * needed).contains(&free[*i].len());
    let best = (0..free.len()).filter(fits).min_by_key(|&i| free[i].len())?;
    Some(free.remove(best))
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        let words = self.as_words();
        // SAFETY: every pattern of 32 bits is an f32.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len()) }
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        let words = self.as_mut_words();
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len()) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.words == 0 || self.block.len() > KEPT_WORDS {
            return;
        }
        let mut free = FREE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        free.push(std::mem::take(&mut self.block));
        // The oldest go: sizes that are no longer asked for are not kept for ever.
        let mut kept: usize = free.iter().map(Vec::len).sum();
        let old = free.iter().take_while(|block| {
            let drop = kept > KEPT_WORDS;
            kept -= block.len();
            drop
        });
        let old = old.count();
        let old: Vec<_> = free.drain(..old).collect();
        // Nobody waits while they go back to the system.
        drop(free);
        drop(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_begin_on_a_cache_line_and_have_the_size_asked_for() {
        for words in [0, 1, 15, 16, 17, 1000] {
            let mut block = Scratch::new(words);
            assert_eq!((block.len(), block.as_ptr() as usize % 64), (words, 0));
            block.fill(1.5);
            assert!(block.as_mut_words().iter().all(|word| *word == 1.5_f32.to_bits()));
        }
    }

    #[test]
    fn what_waits_is_bounded() {
        for _ in 0..3 {
            drop([Scratch::new(KEPT_WORDS / 2), Scratch::new(KEPT_WORDS / 3), Scratch::new(KEPT_WORDS + 1)]);
        }
        let free = FREE.lock().unwrap();
        assert!(free.iter().map(Vec::len).sum::<usize>() <= KEPT_WORDS);
    }
}
