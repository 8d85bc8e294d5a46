//! Smaller forms of a vector, to see what they cost.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use rayon::prelude::*;

use crate::Rows;
use crate::similarity::dot;

/// What is done to a vector before it is stored, and so to its scores.
///
/// Written as `full`, `256`, `int8`, `256+int8`, `binary`, `256+binary`.
///
/// ```
/// use rzen_eval::Compression;
/// let both: Compression = "256+int8".parse().unwrap();
/// assert_eq!((both.dims, both.to_string()), (Some(256), "256+int8".to_owned()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Compression {
    /// The first numbers are kept and scaled to unit length
    /// ([Matryoshka](https://arxiv.org/abs/2205.13147)); `None` keeps all.
    pub dims: Option<usize>,
    /// How a number is stored.
    pub quantization: Quantization,
}

/// How a number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quantization {
    /// As it is, in 32 bits.
    None,
    /// In 8 bits: a vector's numbers are scaled so that the largest becomes ±127, rounded (halves away from 0), and scaled
    /// back in the score.
    Int8,
    /// In one bit: its sign. A score is the numbers that agree minus those that don't, that is
    /// `dims − 2 · Hamming distance`.
    Binary,
}

impl Compression {
    /// The vector as it is.
    pub const NONE: Compression = Compression { dims: None, quantization: Quantization::None };

    /// Bytes that a vector of `dim` numbers takes.
    pub fn bytes(self, dim: usize) -> usize {
        let dim = self.dims.unwrap_or(dim);
        match self.quantization {
            Quantization::None => 4 * dim,
            // The scale.
            Quantization::Int8 => dim + 4,
            Quantization::Binary => dim.div_ceil(8),
        }
    }

    /// The rows whose dot products are the scores, and their size.
    ///
    /// # Panics
    /// If more numbers are kept than there are, or none.
    pub(crate) fn apply(self, rows: Rows<'_>) -> (Cow<'_, [f32]>, usize) {
        if self == Compression::NONE {
            return (Cow::Borrowed(rows.data()), rows.dim());
        }
        let dim = self.dims.unwrap_or(rows.dim());
        assert!((1..=rows.dim()).contains(&dim), "{dim} of {} numbers", rows.dim());
        let mut kept: Vec<f32> =
            rows.data().chunks(rows.dim()).flat_map(|row| &row[..dim]).copied().collect();
        kept.par_chunks_mut(dim).for_each(|row| self.compress(row));
        (Cow::Owned(kept), dim)
    }

    fn compress(self, row: &mut [f32]) {
        if self.dims.is_some() {
            // A row of zeros stays one: it is like nothing.
            let norm = dot(row, row).sqrt().max(f32::MIN_POSITIVE);
            row.iter_mut().for_each(|x| *x /= norm);
        }
        match self.quantization {
            Quantization::None => {}
            Quantization::Int8 => {
                let largest = row.iter().fold(f32::MIN_POSITIVE, |most, x| most.max(x.abs()));
                let scale = largest / 127.0;
                row.iter_mut().for_each(|x| *x = (*x / scale).round() * scale);
            }
            Quantization::Binary => row.iter_mut().for_each(|x| *x = if *x > 0.0 { 1.0 } else { -1.0 }),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stored = match self.quantization {
            Quantization::None => None,
            Quantization::Int8 => Some("int8"),
            Quantization::Binary => Some("binary"),
        };
        match (self.dims, stored) {
            (None, None) => f.pad("full"),
            (None, Some(stored)) => f.pad(stored),
            (Some(dims), None) => f.pad(&dims.to_string()),
            (Some(dims), Some(stored)) => f.pad(&format!("{dims}+{stored}")),
        }
    }
}

/// A name that is no compression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` is no form of a vector; write full, a number of dimensions, int8, binary, or as in 256+int8"
)]
pub struct UnknownCompression {
    /// What was given.
    pub name: String,
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Self, UnknownCompression> {
        let unknown = || UnknownCompression { name: name.to_owned() };
        let (dims, stored) = match name.split_once('+') {
            Some((dims, stored)) => (Some(dims), stored),
            None if name.starts_with(|c: char| c.is_ascii_digit()) => (Some(name), "full"),
            None => (None, name),
        };
        let dims = dims.map(|dims| dims.parse().ok().filter(|dims| *dims > 0).ok_or_else(unknown));
        let quantization = match stored {
            "full" => Quantization::None,
            "int8" => Quantization::Int8,
            "binary" => Quantization::Binary,
            _ => return Err(unknown()),
        };
        Ok(Compression { dims: dims.transpose()?, quantization })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(name: &str, rows: &[f32], dim: usize) -> (Vec<f32>, usize) {
        let (rows, dim) = name.parse::<Compression>().unwrap().apply(Rows::new(rows, dim));
        (rows.into_owned(), dim)
    }

    #[test]
    fn vectors_become_what_is_stored() {
        let rows = [0.6, -0.8, 0.0, 0.0, 3.0, 4.0];
        assert_eq!(apply("full", &rows, 3), (rows.to_vec(), 3));
        assert_eq!(apply("2", &rows, 3), (vec![0.6, -0.8, 0.0, 1.0], 2));
        assert_eq!(apply("binary", &rows, 3).0, [1.0, -1.0, -1.0, -1.0, 1.0, 1.0]);
        assert_eq!(apply("1+binary", &rows, 3), (vec![1.0, -1.0], 1));
        let (int8, _) = apply("int8", &rows, 3);
        for (found, (level, largest)) in int8.iter().zip([95.0f32, -127.0, 0.0].map(|level| (level, 0.8))) {
            assert!((found - level * largest / 127.0).abs() < 1e-6, "{int8:?}");
        }
        // Nothing is no direction, and divides nothing.
        assert_eq!(apply("2+int8", &[0.0, 0.0, 1.0], 3).0, [0.0, 0.0]);
    }

    #[test]
    fn sizes_are_those_on_disk() {
        let bytes = |name: &str| name.parse::<Compression>().unwrap().bytes(1536);
        assert_eq!(
            ["full", "256", "int8", "256+int8", "binary", "20+binary"].map(bytes),
            [6144, 1024, 1540, 260, 192, 3]
        );
    }

    #[test]
    fn names_come_back_and_unknown_ones_are_refused() {
        for name in ["full", "256", "int8", "binary", "512+int8", "512+binary"] {
            assert_eq!(name.parse::<Compression>().unwrap().to_string(), name);
        }
        for name in ["", "0", "int4", "256+", "256+int4", "+int8", "-3", "1.5"] {
            assert!(name.parse::<Compression>().unwrap_err().to_string().contains(&format!("`{name}`")));
        }
    }
}
