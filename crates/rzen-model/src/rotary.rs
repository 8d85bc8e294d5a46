//! Rotary positions: cosine and sine tables made on the host, and their application.
//!
//! Both halves of a head turn by the same angles, so a table holds `head_dim / 2` of them.

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};

use crate::encoder::beside;

/// Cosines and sines, each `[rows, head_dim / 2]`.
#[derive(Clone, Debug)]
pub struct Rotary {
    pub(crate) cos: Tensor<2>,
    pub(crate) sin: Tensor<2>,
}

impl Rotary {
    fn from_angles(angles: &[f32], half: usize, device: &Device) -> Self {
        let table = |f: fn(f32) -> f32| {
            let data =
                TensorData::new(angles.iter().map(|a| f(*a)).collect(), vec![angles.len() / half, half]);
            Tensor::from_data(data, (device, DType::F32))
        };
        Rotary { cos: table(f32::cos), sin: table(f32::sin) }
    }

    /// The decoder's table: a row for each token, `positions` being its time, height and width.
    ///
    /// Frequency `i` of `head_dim / 2` follows time, height or width as `section` shares them out
    /// (M-RoPE); three equal positions make it ordinary rotary embedding.
    pub fn decoder(
        positions: &[[i64; 3]],
        head_dim: usize,
        theta: f64,
        section: [usize; 3],
        device: &Device,
    ) -> Self {
        let frequencies = frequencies(head_dim / 2, theta);
        let axis = |i: usize| usize::from(i >= section[0]) + usize::from(i >= section[0] + section[1]);
        let angles: Vec<f32> = positions
            .iter()
            .flat_map(|row| frequencies.iter().enumerate().map(move |(i, f)| row[axis(i)] as f32 * f))
            .collect();
        Self::from_angles(&angles, head_dim / 2, device)
    }

    /// The vision tower's table: a row for each patch, in the order in which 4 patches make a token.
    ///
    /// The first half of the frequencies follows the patch's row, the second its column.
    pub fn vision(grids: &[[usize; 3]], merge: usize, head_dim: usize, device: &Device) -> Self {
        let frequencies = frequencies(head_dim / 4, 10_000.0);
        let mut angles = Vec::new();
        for &[time, height, width] in grids {
            for (row, column) in
                std::iter::repeat_n((), time).flat_map(|()| merge_order(height, width, merge))
            {
                angles.extend(frequencies.iter().map(|f| row as f32 * f));
                angles.extend(frequencies.iter().map(|f| column as f32 * f));
            }
        }
        Self::from_angles(&angles, head_dim / 2, device)
    }

    /// Turns `x` `[rows, heads, head_dim]`, one table row for each row, in the dtype of `x`.
    pub fn apply(&self, x: Tensor<3>) -> Tensor<3> {
        let [rows, heads, size] = x.dims();
        let dtype = FloatDType::from(x.dtype());
        let table = |t: &Tensor<2>| beside(t, &x).cast(dtype).unsqueeze_dim::<3>(1);
        let (cos, sin) = (table(&self.cos), table(&self.sin));
        let first = x.clone().slice([0..rows, 0..heads, 0..size / 2]);
        let second = x.slice([0..rows, 0..heads, size / 2..size]);
        Tensor::cat(
            vec![first.clone() * cos.clone() - second.clone() * sin.clone(), second * cos + first * sin],
            2,
        )
    }
}

/// `1 / theta^(i / count)` for `i < count`, rounded to f32 at each step as the reference does.
fn frequencies(count: usize, theta: f64) -> Vec<f32> {
    (0..count).map(|i| 1.0 / (theta as f32).powf(2.0 * i as f32 / (2 * count) as f32)).collect()
}

/// Row and column of each patch of one frame, block by block.
fn merge_order(height: usize, width: usize, merge: usize) -> impl Iterator<Item = (usize, usize)> {
    let blocks =
        (0..height / merge).flat_map(move |i| (0..width / merge).map(move |j| (i * merge, j * merge)));
    blocks.flat_map(move |(i, j)| (0..merge).flat_map(move |y| (0..merge).map(move |x| (i + y, j + x))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_of_a_token_are_neighbours() {
        let order: Vec<_> = merge_order(2, 4, 2).collect();
        assert_eq!(order, [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3)]);
    }

    #[test]
    fn turning_keeps_lengths_and_position_zero_changes_nothing() {
        let device = Device::flex();
        let x = Tensor::<3>::from_data([[[1.0, 2.0, 3.0, 4.0]], [[1.0, 2.0, 3.0, 4.0]]], &device);
        let table = Rotary::decoder(&[[0; 3], [5; 3]], 4, 1e6, [1, 1, 0], &device);
        let y: Vec<f32> = table.apply(x).into_data().try_to_vec().unwrap();
        assert_eq!(y[..4], [1.0, 2.0, 3.0, 4.0]);
        let length: f32 = y[4..].iter().map(|x| x * x).sum();
        assert!((length - 30.0).abs() < 1e-4 && (y[4] - 1.0).abs() > 0.1);
    }
}
