//! `y = x Wᵀ` with what stands before and after it in a network.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
mod plain;
#[cfg(target_arch = "x86_64")]
mod words;

use half::bf16;

#[cfg(target_arch = "x86_64")]
pub(crate) use amx::permitted as amx_permitted;

/// Input rows of a packed panel: two registers.
#[cfg(target_arch = "x86_64")]
pub(crate) const PANEL: usize = 32;

/// Numbers of 8 bits that make one of 24: an f32 is the sum of three bf16, but for those that bf16 has no room for
/// (3.39e38 and more), which become NaN, and for parts below 1.2e-38, which count as zero.
#[cfg(target_arch = "x86_64")]
pub(crate) const PARTS: usize = 3;

/// Weights as they are stored, `[outputs, inputs]`, row after row.
#[derive(Clone, Copy, Debug)]
pub enum Matrix<'a> {
    /// 32 bits.
    F32(&'a [f32]),
    /// 16 bits; inputs are rounded to as many where the processor multiplies such numbers, otherwise weights are
    /// widened.
    Bf16(&'a [bf16]),
    /// 16 bits, of which every number is computed with as f32: as exact, up to a factor of two, as with weights that
    /// were widened before.
    WidenedBf16(&'a [bf16]),
}

impl Matrix<'_> {
    fn len(&self) -> usize {
        match self {
            Matrix::F32(x) => x.len(),
            Matrix::Bf16(x) | Matrix::WidenedBf16(x) => x.len(),
        }
    }
}

/// A linear layer, `y = x Wᵀ + b`, plus `scale · (x Aᵀ) Bᵀ` where an adapter is attached.
#[derive(Clone, Copy, Debug)]
pub struct Linear<'a> {
    /// `[outputs, inputs]`.
    pub weight: Matrix<'a>,
    /// Numbers in an input row.
    pub inputs: usize,
    /// Numbers in an output row.
    pub outputs: usize,
    /// `[outputs]`.
    pub bias: Option<&'a [f32]>,
    /// The adapter.
    pub lora: Option<Lora<'a>>,
}

/// The two factors of a low-rank update.
#[derive(Clone, Copy, Debug)]
pub struct Lora<'a> {
    /// `A`: `[rank, inputs]`.
    pub a: Matrix<'a>,
    /// `B`: `[outputs, rank]`.
    pub b: Matrix<'a>,
    /// Numbers between the two.
    pub rank: usize,
    /// What the update is multiplied by.
    pub scale: f32,
}

/// What is done to the outputs of a layer while they are at hand.
#[derive(Clone, Copy, Debug)]
pub enum Then<'a> {
    /// Nothing.
    Nothing,
    /// `y · sigmoid(1.702 y)`.
    QuickGelu,
    /// `silu(gate) · y`; the gate is laid out as the outputs.
    Gate(&'a [f32]),
}

/// What sums begin with.
#[derive(Clone, Copy)]
enum Start<'a> {
    Zero,
    Bias(&'a [f32]),
    /// What stands in the outputs.
    Add,
    AddBias(&'a [f32]),
}

impl Linear<'_> {
    /// Computes `y`, or adds to it where `add` is set.
    ///
    /// `x`: `[rows, inputs]`; `y`: `[rows, outputs]`. With AVX-512 an output row is a function of its input row
    /// alone, however many rows there are and wherever it stands among them, for as long as there are more than
    /// [`FEW_ROWS`] or not more: between the two the way of summing differs. Elsewhere it may differ with the number
    /// of rows.
    ///
    /// # Panics
    /// If a slice has not the size that the layer says.
    pub fn forward(&self, x: &[f32], y: &mut [f32], add: bool, then: Then<'_>) {
        let (rows, rest) = (x.len() / self.inputs, x.len() % self.inputs);
        assert_eq!((rest, y.len()), (0, rows * self.outputs), "sizes of inputs and outputs");
        assert_eq!(self.weight.len(), self.inputs * self.outputs, "size of the weights");
        assert!(self.bias.is_none_or(|bias| bias.len() == self.outputs), "size of the bias");
        if let Then::Gate(gate) = then {
            assert_eq!(gate.len(), y.len(), "size of the gate");
        }
        if y.is_empty() {
            return;
        }
        if let Some(lora) = &self.lora {
            lora.forward(x, self.inputs, y, add);
        }
        let add = add || self.lora.is_some();
        let start = match (self.bias, add) {
            (None, false) => Start::Zero,
            (None, true) => Start::Add,
            (Some(bias), false) => Start::Bias(bias),
            (Some(bias), true) => Start::AddBias(bias),
        };
        let product = Product { x, y, inputs: self.inputs, outputs: self.outputs, start, then };
        #[cfg(target_arch = "x86_64")]
        if let Some(words) = words::Words::of(self.weight, self.inputs, rows) {
            return words.run(product);
        }
        plain::run(self.weight, product);
    }
}

impl Lora<'_> {
    fn forward(&self, x: &[f32], inputs: usize, y: &mut [f32], add: bool) {
        let rows = x.len() / inputs;
        let mut narrow = crate::scratch::Scratch::new(rows * self.rank);
        let layer = |weight, inputs, outputs| Linear { weight, inputs, outputs, bias: None, lora: None };
        layer(self.a, inputs, self.rank).forward(x, &mut narrow, false, Then::Nothing);
        narrow.iter_mut().for_each(|x| *x *= self.scale);
        layer(self.b, self.rank, y.len() / rows).forward(&narrow, y, add, Then::Nothing);
    }
}

/// Up to so many rows inputs are read as they are; above, they are packed first.
pub const FEW_ROWS: usize = 4;

/// One product with what stands before and after it; sizes were checked.
struct Product<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    inputs: usize,
    outputs: usize,
    start: Start<'a>,
    then: Then<'a>,
}

impl Product<'_> {
    fn rows(&self) -> usize {
        self.x.len() / self.inputs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exp;

    fn wave(count: usize, pace: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * pace).sin()).collect()
    }

    fn narrow(x: &[f32]) -> Vec<bf16> {
        x.iter().map(|x| bf16::from_f32(*x)).collect()
    }

    fn widen(x: &[bf16]) -> Vec<f32> {
        x.iter().map(|x| x.to_f32()).collect()
    }

    /// `x Wᵀ` in f64.
    fn exact(x: &[f32], w: &[f32], inputs: usize) -> Vec<f64> {
        let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
        x.chunks(inputs).flat_map(|x| w.chunks(inputs).map(move |w| dot(x, w))).collect()
    }

    const SHAPES: [(usize, usize, usize); 15] = [
        (1, 1, 1),
        (3, 7, 5),
        (4, 64, 33),
        (31, 96, 31),
        (33, 96, 32),
        (40, 30, 14),
        (47, 100, 15),
        (64, 512, 64),
        (65, 768, 45),
        (130, 1600, 70),
        (700, 34, 20),
        (70, 34, 900),
        // Tiles that are copied, a tile of 16 rows, words that are left; several blocks; many.
        (160, 1034, 112),
        (40, 340, 64),
        (16, 8960, 48),
    ];

    #[test]
    fn agrees_with_the_definition() {
        for (rows, inputs, outputs) in SHAPES {
            let (x, w) = (wave(rows * inputs, 0.71), wave(outputs * inputs, 0.37));
            let (bias, gate) = (wave(outputs, 0.9), wave(rows * outputs, 0.23));
            let begun = wave(rows * outputs, 0.11);
            let narrow_w = narrow(&w);
            for (weight, w, x_seen, tolerance) in [
                (Matrix::F32(&w), w.clone(), x.clone(), 1e-6),
                // Where inputs are not rounded, the difference is that of the rounding.
                (Matrix::Bf16(&narrow_w), widen(&narrow_w), widen(&narrow(&x)), 5e-3),
                (Matrix::WidenedBf16(&narrow_w), widen(&narrow_w), x.clone(), 1e-6),
            ] {
                let exact = exact(&x_seen, &w, inputs);
                let tolerance = tolerance * (inputs as f64).sqrt() + 1e-6;
                for (bias, add, then) in [
                    (None, false, Then::Nothing),
                    (Some(&bias[..]), false, Then::QuickGelu),
                    (None, true, Then::Gate(&gate)),
                    (Some(&bias[..]), true, Then::Nothing),
                ] {
                    let layer = Linear { weight, inputs, outputs, bias, lora: None };
                    let mut y = begun.clone();
                    layer.forward(&x, &mut y, add, then);
                    for (i, y) in y.iter().enumerate() {
                        let mut sum = exact[i] as f32;
                        sum += if add { begun[i] } else { 0.0 };
                        sum += bias.map_or(0.0, |bias| bias[i % outputs]);
                        let expected = match then {
                            Then::Nothing => sum,
                            Then::QuickGelu => exp::quick_gelu(sum),
                            Then::Gate(gate) => exp::silu(gate[i]) * sum,
                        };
                        let off = f64::from((y - expected).abs());
                        assert!(off < tolerance, "{rows}×{inputs}×{outputs} {then:?}: {y} for {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn products_without_wide_registers_agree() {
        for (rows, inputs, outputs) in SHAPES {
            let (x, w) = (wave(rows * inputs, 0.71), narrow(&wave(outputs * inputs, 0.37)));
            let (wide, bias, gate) = (widen(&w), wave(outputs, 0.9), wave(rows * outputs, 0.23));
            let exact = exact(&x, &wide, inputs);
            for weight in [Matrix::F32(&wide), Matrix::Bf16(&w), Matrix::WidenedBf16(&w)] {
                let mut y = vec![0.25; rows * outputs];
                let (start, then) = (Start::AddBias(&bias[..]), super::Then::Gate(&gate));
                plain::run(weight, Product { x: &x, y: &mut y, inputs, outputs, start, then });
                for (i, y) in y.iter().enumerate() {
                    let expected = exp::silu(gate[i]) * (exact[i] as f32 + 0.25 + bias[i % outputs]);
                    assert!((y - expected).abs() < 1e-4, "{rows}×{inputs}×{outputs}: {y} for {expected}");
                }
            }
        }
    }

    /// As near to the exact product as products of wide weights are.
    #[test]
    fn widened_weights_are_as_exact_as_wide_ones() {
        for (rows, inputs, outputs) in SHAPES {
            let (x, w) = (wave(rows * inputs, 0.71), narrow(&wave(outputs * inputs, 0.37)));
            let wide = widen(&w);
            let exact = exact(&x, &wide, inputs);
            let [one, other] = [Matrix::F32(&wide), Matrix::WidenedBf16(&w)].map(|weight| {
                let mut y = vec![0.0; rows * outputs];
                let layer = Linear { weight, inputs, outputs, bias: None, lora: None };
                layer.forward(&x, &mut y, false, Then::Nothing);
                y
            });
            let is_split = crate::features().amx && rows > super::FEW_ROWS && inputs % 2 == 0;
            if crate::features().avx512 && !is_split {
                assert!(one == other, "{rows}×{inputs}×{outputs}: not to the last bit");
            }
            let off = |y: &f32, exact: &f64| (f64::from(*y) - exact).abs();
            let limit =
                one.iter().zip(&exact).map(|(y, exact)| off(y, exact)).fold(0.0, f64::max) * 2.0 + 1e-6;
            for (y, exact) in other.iter().zip(&exact) {
                assert!(
                    off(y, exact) <= limit,
                    "{rows}×{inputs}×{outputs}: {y} for {exact}, limit {limit:e}"
                );
            }
        }
    }

    #[test]
    fn adapters_are_added() {
        let (rows, inputs, outputs, rank) = (40, 24, 18, 4);
        let (x, w) = (wave(rows * inputs, 0.71), wave(outputs * inputs, 0.37));
        let (a, b) = (wave(rank * inputs, 0.53), wave(outputs * rank, 0.29));
        let mut folded = w.clone();
        for o in 0..outputs {
            for i in 0..inputs {
                let update: f32 = (0..rank).map(|r| b[o * rank + r] * a[r * inputs + i]).sum();
                folded[o * inputs + i] += 1.5 * update;
            }
        }
        let lora = Lora { a: Matrix::F32(&a), b: Matrix::F32(&b), rank, scale: 1.5 };
        let layer = |w, lora| Linear { weight: Matrix::F32(w), inputs, outputs, bias: None, lora };
        let (mut apart, mut together) = (vec![0.0; rows * outputs], vec![0.0; rows * outputs]);
        layer(&w, Some(lora)).forward(&x, &mut apart, false, Then::Nothing);
        layer(&folded, None).forward(&x, &mut together, false, Then::Nothing);
        assert!(apart.iter().zip(&together).all(|(a, b)| (a - b).abs() < 1e-4));
    }

    #[test]
    fn a_row_is_the_same_in_any_company() {
        if !crate::features().avx512 {
            return println!("skipped: this processor has no AVX-512");
        }
        let (inputs, outputs) = (800, 50);
        let (x, w) = (wave(1000 * inputs, 0.71), wave(outputs * inputs, 0.37));
        let narrow = narrow(&w);
        for weight in [Matrix::F32(&w), Matrix::Bf16(&narrow), Matrix::WidenedBf16(&narrow)] {
            let layer = Linear { weight, inputs, outputs, bias: None, lora: None };
            let run = |rows: std::ops::Range<usize>| {
                let mut y = vec![0.0; rows.len() * outputs];
                layer.forward(&x[rows.start * inputs..rows.end * inputs], &mut y, false, Then::Nothing);
                y
            };
            let all = run(0..1000);
            for rows in [0..33, 1..40, 300..700, 967..1000] {
                assert!(run(rows.clone()) == all[rows.start * outputs..rows.end * outputs], "{rows:?}");
            }
            assert!(run(5..6) == run(3..7)[2 * outputs..3 * outputs]);
        }
    }
}
