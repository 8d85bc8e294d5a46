//! A line chart as SVG.

use std::fmt::Write;

use super::html::escape;
use super::ticks::{Axis, label};

/// Lines over a common range of steps.
pub(super) struct Chart {
    /// Stands above the chart.
    pub title: String,
    /// What the upward axis shows, for those who can't see the chart.
    pub unit: &'static str,
    /// At most a few.
    pub lines: Vec<Line>,
    /// The number beside each name.
    pub legend: Legend,
    /// The upward axis, where several charts share one.
    pub vertical: Option<Axis>,
}

/// What the legend says about a line.
#[derive(Clone, Copy)]
pub(super) enum Legend {
    /// The end of the drawn line.
    Last,
    /// The highest point.
    Highest,
}

/// A curve.
pub(super) struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Its colour, as a number.
    pub colour: usize,
    /// `(step, value)`, finite, in order.
    pub points: Vec<(f64, f64)>,
    /// The share of the points that a trend is fitted to; 0 draws the points alone.
    pub smoothing: f64,
}

/// Colours that the style sheet has; further lines use them again, dashed.
pub(super) const COLOURS: usize = 8;

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 34.0;

/// Points that a line keeps; more can't be seen.
const MOST_POINTS: usize = 400;

impl Chart {
    /// A figure with title, chart and legend; nothing if no line has a point.
    pub(super) fn render(&self) -> String {
        if self.lines.iter().all(|line| line.points.is_empty()) {
            return String::new();
        }
        let frame = Frame::new(self);
        let mut svg = frame.grid();
        for line in &self.lines {
            svg.push_str(&frame.line(line));
        }
        let title = escape(&self.title);
        let unit = escape(self.unit);
        format!(
            "<figure class=\"chart\">\n<figcaption>{title}</figcaption>\n\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}: {unit} over steps\">\n{svg}</svg>\n\
             {}</figure>\n",
            self.legend()
        )
    }

    fn legend(&self) -> String {
        let entries = self.lines.iter().filter_map(|line| {
            let values = || smooth(&line.points, line.smoothing).into_iter().map(|(_, value)| value);
            let value = match self.legend {
                Legend::Last => values().next_back()?,
                Legend::Highest => values().max_by(f64::total_cmp)?,
            };
            Some(format!(
                "<li><span class=\"key {}\"></span>{} <b>{}</b></li>\n",
                class(line.colour),
                escape(&line.name),
                label_of_value(value)
            ))
        });
        format!("<ul class=\"legend\">\n{}</ul>\n", entries.collect::<String>())
    }
}

/// Three significant digits.
fn label_of_value(value: f64) -> String {
    let digits = if value == 0.0 { 0 } else { 2 - value.abs().log10().floor() as i32 };
    let scale = 10f64.powi(digits);
    // Rounding is for numbers of ordinary size; the rest goes through as it is.
    label(if (-9..=12).contains(&digits) { (value * scale).round() / scale } else { value })
}

fn class(colour: usize) -> String {
    let dashed = if colour >= COLOURS { " again" } else { "" };
    format!("c{}{dashed}", colour % COLOURS)
}

/// Axes and the room between them.
struct Frame {
    horizontal: Axis,
    vertical: Axis,
}

impl Frame {
    fn new(chart: &Chart) -> Self {
        let points = || chart.lines.iter().flat_map(|line| line.points.iter());
        let first = points().map(|(step, _)| *step).fold(f64::INFINITY, f64::min);
        let last = points().map(|(step, _)| *step).fold(f64::NEG_INFINITY, f64::max);
        let own = || Axis::around(points().map(|(_, value)| *value), false);
        // Steps are counted from 1, but an axis looks odd without its 0.
        let start = if first < last * 0.2 { 0.0 } else { first };
        Frame { horizontal: Axis::exactly(start, last), vertical: chart.vertical.unwrap_or_else(own) }
    }

    fn x(&self, step: f64) -> f64 {
        LEFT + self.horizontal.share(step) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.vertical.share(value) * (HEIGHT - TOP - BOTTOM)
    }

    fn grid(&self) -> String {
        let mut svg = String::new();
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, label) in self.vertical.ticks(5) {
            let y = self.y(value);
            let _ = writeln!(svg, r#"<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1}" y2="{y:.1}"/>"#);
            let (x, y) = (LEFT - 6.0, y + 4.0);
            let _ =
                writeln!(svg, r#"<text class="tick" x="{x}" y="{y:.1}" text-anchor="end">{label}</text>"#);
        }
        for (step, label) in self.horizontal.ticks(6) {
            let (x, end, y) = (self.x(step), bottom + 4.0, bottom + 17.0);
            let _ = writeln!(svg, r#"<line class="axis" x1="{x:.1}" x2="{x:.1}" y1="{bottom}" y2="{end}"/>"#);
            let _ =
                writeln!(svg, r#"<text class="tick" x="{x:.1}" y="{y}" text-anchor="middle">{label}</text>"#);
        }
        let _ = writeln!(svg, r#"<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>"#);
        let (x, y) = (LEFT + (right - LEFT) / 2.0, HEIGHT - 3.0);
        let _ = writeln!(svg, r#"<text class="tick" x="{x}" y="{y}" text-anchor="middle">step</text>"#);
        svg
    }

    /// The measured points, faint if a trend is drawn over them.
    fn line(&self, line: &Line) -> String {
        let mut svg = String::new();
        let smoothed = smooth(&line.points, line.smoothing);
        let class = class(line.colour);
        if smoothed != line.points {
            svg.push_str(&self.path(&line.points, &format!("raw {class}"), ""));
        }
        svg.push_str(&self.path(&smoothed, &format!("line {class}"), &line.name));
        svg
    }

    fn path(&self, points: &[(f64, f64)], class: &str, name: &str) -> String {
        let at = |(step, value): (f64, f64)| format!("{:.1},{:.1}", self.x(step), self.y(value));
        let title = if name.is_empty() { String::new() } else { format!("<title>{}</title>", escape(name)) };
        match thin(points)[..] {
            [] => String::new(),
            [(step, value)] => format!(
                "<circle class=\"dot {class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\">{title}</circle>\n",
                self.x(step),
                self.y(value)
            ),
            ref kept => {
                let points: Vec<String> = kept.iter().map(|point| at(*point)).collect();
                format!("<polyline class=\"{class}\" points=\"{}\">{title}</polyline>\n", points.join(" "))
            }
        }
    }
}

/// The local trend: at each point the value of a straight line fitted to the `share` of all points around it.
fn smooth(points: &[(f64, f64)], share: f64) -> Vec<(f64, f64)> {
    let reach = (points.len() as f64 * share / 2.0) as usize;
    if reach == 0 {
        return points.to_vec();
    }
    (0..points.len())
        .map(|at| {
            let around = &points[at.saturating_sub(reach)..(at + reach + 1).min(points.len())];
            (points[at].0, fitted(around, points[at].0))
        })
        .collect()
}

/// The value at `step` of the straight line with the least squared error.
fn fitted(points: &[(f64, f64)], step: f64) -> f64 {
    let count = points.len() as f64;
    let middle = points.iter().map(|(step, _)| step).sum::<f64>() / count;
    let mean = points.iter().map(|(_, value)| value).sum::<f64>() / count;
    let spread: f64 = points.iter().map(|(step, _)| (step - middle).powi(2)).sum();
    let slope: f64 = points.iter().map(|(step, value)| (step - middle) * (value - mean)).sum::<f64>();
    if spread > 0.0 { mean + slope / spread * (step - middle) } else { mean }
}

/// The lowest and the highest point of each stretch, so that no spike is lost.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= MOST_POINTS {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(MOST_POINTS / 2);
    let ends = |stretch: &[(f64, f64)]| {
        let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let low = *stretch.iter().min_by(by_value).expect("stretches are not empty");
        let high = *stretch.iter().max_by(by_value).expect("stretches are not empty");
        if low.0 < high.0 { [low, high] } else { [high, low] }
    };
    points.chunks(stretch).flat_map(ends).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_keeps_lines_straight_and_ends_in_place() {
        let line: Vec<(f64, f64)> = (0..50).map(|i| (f64::from(i), f64::from(i) * 2.0)).collect();
        for (found, expected) in smooth(&line, 0.2).iter().zip(&line) {
            assert!((found.1 - expected.1).abs() < 1e-9);
        }
        let jagged: Vec<(f64, f64)> = (0..40).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        assert!(smooth(&jagged, 0.5)[15..25].iter().all(|(_, value)| (value - 0.5).abs() < 0.1));
        assert_eq!(smooth(&jagged, 0.0), jagged);
    }

    #[test]
    fn thinning_keeps_spikes() {
        let mut points: Vec<(f64, f64)> = (0..10_001).map(|i| (f64::from(i), 1.0)).collect();
        points[5432].1 = 99.0;
        let thinned = thin(&points);
        assert!(thinned.len() <= MOST_POINTS && thinned.contains(&(5432.0, 99.0)));
        assert!(thinned.is_sorted_by(|a, b| a.0 <= b.0));
    }

    #[test]
    fn values_in_legends_have_three_digits() {
        for (value, expected) in
            [(0.0, "0"), (1.23456, "1.23"), (0.0351234, "0.0351"), (123.456, "123"), (1e-4, "1e-4")]
        {
            assert_eq!(label_of_value(value), expected);
        }
    }
}
