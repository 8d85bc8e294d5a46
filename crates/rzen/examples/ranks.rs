//! How long what ranks tell each other in a step takes here:
//!
//! ```console
//! cargo build --release -p rzen --features mpi --example ranks
//! mpirun -n 2 target/release/examples/ranks
//! ```
//!
//! Prints the median, over repetitions, of the slowest rank's time; the first repetition is left out.

use std::time::Instant;

use rzen::ranks::{Company, join};
use rzen_core::Ranks;

/// Queries and candidates of the paper's batch, without hard negatives.
const ROWS: usize = 2 * 768;

/// Trained parameters of an adapter of rank 64 on every linear layer, and the size of an embedding.
const MODELS: [(&str, usize, usize); 2] = [("2B", 116_900_000, 1536), ("7B", 204_600_000, 3584)];

const REPETITIONS: usize = 5;

fn main() -> anyhow::Result<()> {
    let ranks = join(Company::Auto)?;
    let own_rows = ROWS / ranks.size();
    report(&*ranks, "agreement", 0, &mut || drop(ranks.all_gather_bytes(&[1])));
    for (model, parameters, dim) in MODELS {
        let rows = vec![1.0; own_rows * dim];
        report(&*ranks, &format!("all-gather of embeddings, {model}"), 4 * ROWS * dim, &mut || {
            drop(ranks.all_gather(&rows));
        });
        let mut gradients = vec![1.0; parameters];
        report(&*ranks, &format!("all-reduce of gradients, {model}"), 4 * parameters, &mut || {
            ranks.all_reduce_sum(&mut gradients);
        });
    }
    Ok(())
}

fn report(ranks: &dyn Ranks, name: &str, bytes: usize, work: &mut dyn FnMut()) {
    work();
    let mut times: Vec<f32> = (0..REPETITIONS).map(|_| slowest(ranks, work)).collect();
    times.sort_by(f32::total_cmp);
    if ranks.rank() == 0 {
        let milliseconds = 1e3 * times[REPETITIONS / 2];
        println!("{} ranks, {name}: {:.1} MB, {milliseconds:.2} ms", ranks.size(), bytes as f64 / 1e6);
    }
}

/// Seconds, from a moment at which all ranks are there.
fn slowest(ranks: &dyn Ranks, work: &mut dyn FnMut()) -> f32 {
    ranks.all_gather_bytes(&[]);
    let started = Instant::now();
    work();
    ranks.all_gather(&[started.elapsed().as_secs_f32()]).into_iter().fold(0.0, f32::max)
}
