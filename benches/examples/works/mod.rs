//! Works, as the programs beside and `benches/speed` name them.

use anyhow::{Context, Result, ensure};
use rzen_model::{Encoded, ItemShape};

/// The kind of a work, and its sizes.
pub fn split(work: &str) -> Result<(&str, Vec<u32>)> {
    let (kind, sizes) = work.split_once(':').context("a work is a kind, a colon and sizes")?;
    let sizes = sizes.split('x').map(str::parse).collect::<Result<Vec<u32>, _>>();
    let sizes = sizes.with_context(|| format!("`{work}`: sizes are numbers with an x between"))?;
    ensure!(sizes.iter().all(|size| *size > 0), "`{work}` has a size of 0");
    Ok((kind, sizes))
}

/// Different tokens from the first on, so that the texts share no beginning.
pub fn words(text: u32, length: u32) -> Encoded {
    let input_ids = (0..length).map(|i| (i * 7 + text * 13) % 256).collect();
    Encoded { input_ids, pictures: Vec::new() }
}

/// What an item counts as, where operations are predicted.
pub fn shape(item: &Encoded) -> ItemShape {
    let pictures: Vec<usize> =
        item.pictures.iter().map(|picture| picture.grid_thw.iter().product::<usize>() / 4).collect();
    ItemShape { words: item.input_ids.len() - pictures.iter().sum::<usize>(), pictures }
}
