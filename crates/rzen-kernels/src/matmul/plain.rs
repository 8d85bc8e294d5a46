//! Products where there is no AVX-512: the crate `gemm` with passes before and after it.

use half::bf16;
use rayon::prelude::*;

use super::{Matrix, Product, Start, Then};
use crate::rows;
use crate::scratch::Scratch;

/// Outputs whose weights are widened at once.
const WIDENED: usize = 256;

pub(super) fn run(weight: Matrix<'_>, mut product: Product<'_>) {
    begin(&mut product);
    match weight {
        Matrix::F32(weight) => add_product(&mut product, weight, 0),
        Matrix::Bf16(weight) | Matrix::WidenedBf16(weight) => {
            let inputs = product.inputs;
            let mut wide = Scratch::new(WIDENED.min(product.outputs) * inputs);
            for (i, block) in weight.chunks(WIDENED * inputs).enumerate() {
                let wide = &mut wide[..block.len()];
                wide.par_iter_mut().zip(block).with_min_len(4096).for_each(|(w, x)| *w = bf16::to_f32(*x));
                add_product(&mut product, wide, i * WIDENED);
            }
        }
    }
    end(&mut product);
}

/// Fills the outputs with what sums begin with.
fn begin(product: &mut Product<'_>) {
    let bias = match product.start {
        Start::Add => return,
        Start::Zero => return product.y.fill(0.0),
        Start::Bias(bias) | Start::AddBias(bias) => bias,
    };
    let add = matches!(product.start, Start::AddBias(_));
    product.y.par_chunks_exact_mut(product.outputs).for_each(|row| match add {
        true => row.iter_mut().zip(bias).for_each(|(y, b)| *y += b),
        false => row.copy_from_slice(bias),
    });
}

/// Adds the product with the weights of some outputs, the first of them `at`.
fn add_product(product: &mut Product<'_>, weight: &[f32], at: usize) {
    let (rows, inputs, outputs) = (product.rows(), product.inputs, weight.len() / product.inputs);
    let threads = match rows * outputs * inputs {
        small if small < 1 << 16 => gemm::Parallelism::None,
        _ => gemm::Parallelism::Rayon(0),
    };
    // SAFETY: rows, inputs and outputs are those of the slices, and the columns from `at` on are there.
    unsafe {
        gemm::gemm(
            rows,
            outputs,
            inputs,
            product.y[at..].as_mut_ptr(),
            1,
            product.outputs as isize,
            true,
            product.x.as_ptr(),
            1,
            inputs as isize,
            weight.as_ptr(),
            inputs as isize,
            1,
            1.0,
            1.0,
            false,
            false,
            false,
            threads,
        );
    }
}

fn end(product: &mut Product<'_>) {
    let width = product.outputs;
    match product.then {
        Then::Nothing => {}
        Then::QuickGelu => product.y.par_chunks_mut(width).for_each(rows::quick_gelu),
        Then::Gate(gate) => product
            .y
            .par_chunks_mut(width)
            .zip(gate.par_chunks(width))
            .for_each(|(y, gate)| rows::gate(gate, y)),
    }
}
