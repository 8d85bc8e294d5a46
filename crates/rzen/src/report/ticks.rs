//! Places for the marks of an axis.

/// A range of numbers laid out on a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    log: bool,
}

impl Axis {
    /// Covers `values` with a little room; logarithmic if `log` and all are above 0.
    pub(super) fn around(values: impl Iterator<Item = f64> + Clone, log: bool) -> Self {
        let log = log && values.clone().all(|value| value > 0.0);
        let (low, high) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return Axis { low: 0.0, high: 1.0, log: false };
        }
        if log {
            return Axis { low: low / 1.15, high: high * 1.15, log };
        }
        let room = if high > low { (high - low) * 0.05 } else { high.abs().max(1e-9) * 0.1 };
        // Numbers that are never negative don't get an axis that is.
        let bottom = if low >= 0.0 { (low - room).max(0.0) } else { low - room };
        Axis { low: bottom, high: high + room, log }
    }

    /// From `low` to `high` exactly.
    pub(super) fn exactly(low: f64, high: f64) -> Self {
        Axis { low, high: if high > low { high } else { low + 1.0 }, log: false }
    }

    /// Where a value lies, 0 at the low end and 1 at the high end.
    pub(super) fn share(&self, value: f64) -> f64 {
        if self.log {
            (value.ln() - self.low.ln()) / (self.high.ln() - self.low.ln())
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    /// About `count` round values with their labels.
    pub(super) fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        let values = if self.log { self.log_ticks(count) } else { self.linear_ticks(count) };
        values.into_iter().map(|value| (value, label(value))).collect()
    }

    fn linear_ticks(&self, count: usize) -> Vec<f64> {
        let rough = (self.high - self.low) / count as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 5.0].iter().map(|m| m * power).find(|step| *step >= rough).unwrap_or(10.0 * power);
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last).map(|i| i as f64 * step).collect()
    }

    fn log_ticks(&self, count: usize) -> Vec<f64> {
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let inside = |multiples: &[f64]| -> Vec<f64> {
            let all =
                decades.clone().flat_map(|decade| multiples.iter().map(move |m| m * 10f64.powi(decade)));
            all.filter(|value| (self.low..=self.high).contains(value)).collect()
        };
        let coarse = inside(&[1.0]);
        if coarse.len() >= 3 {
            let every = coarse.len().div_ceil(count.max(1) + 1);
            return coarse.into_iter().step_by(every).collect();
        }
        let fine = inside(&[1.0, 2.0, 5.0]);
        if fine.len() >= 2 { fine } else { self.linear_ticks(count) }
    }
}

/// A short number: `0.02`, `1.5`, `20k`, `1e-4`.
pub(super) fn label(value: f64) -> String {
    // Multiples of a step carry rounding noise past the 9th digit.
    let size = value.abs();
    let trimmed = |value: f64, decimals: usize| {
        let text = format!("{value:.decimals$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
    };
    match size {
        0.0 => "0".to_string(),
        _ if size >= 1e6 => trimmed(value / 1e6, 2) + "M",
        _ if size >= 1e4 => trimmed(value / 1e3, 2) + "k",
        _ if size < 1e-3 => {
            let text = format!("{value:.3e}");
            let (digits, power) = text.split_once('e').expect("scientific notation has an exponent");
            format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => trimmed(value, 6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short() {
        for (value, expected) in [
            (0.0, "0"),
            (0.1 + 0.2, "0.3"),
            (20.0, "20"),
            (1500.0, "1500"),
            (20_000.0, "20k"),
            (2.5e6, "2.5M"),
            (1e-4, "1e-4"),
            (2.5e-5, "2.5e-5"),
            (-0.5, "-0.5"),
            (100.0, "100"),
        ] {
            assert_eq!(label(value), expected);
        }
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let check = |axis: Axis, expected: &[&str]| {
            let labels: Vec<String> = axis.ticks(5).into_iter().map(|(_, label)| label).collect();
            assert_eq!(labels, expected, "{axis:?}");
            assert!(
                axis.ticks(5).iter().all(|(value, _)| (-1e-9..=1.0 + 1e-9).contains(&axis.share(*value)))
            );
        };
        check(Axis::exactly(0.0, 1.0), &["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        check(Axis::exactly(1.0, 400.0), &["100", "200", "300", "400"]);
        check(Axis::around([0.02, 0.07].into_iter(), false), &["0.02", "0.04", "0.06"]);
        check(Axis::around([1e-5, 1e-2].into_iter(), true), &["1e-5", "1e-4", "0.001", "0.01"]);
        check(Axis::around([0.03, 0.3].into_iter(), true), &["0.05", "0.1", "0.2"]);
    }

    #[test]
    fn odd_ranges_have_an_axis() {
        for values in [&[][..], &[0.0], &[3.0, 3.0], &[-1.0, 1.0], &[1e-12, 2e-12], &[1e300, 2e300]] {
            for log in [false, true] {
                let axis = Axis::around(values.iter().copied(), log);
                assert!(values.iter().all(|value| (0.0..=1.0).contains(&axis.share(*value))), "{values:?}");
                assert!(axis.ticks(5).len() < 20, "{values:?}");
            }
        }
    }
}
