//! The shapes as curves, for pictures and pages alike.

use super::words::Shape;

/// A piece of an outline; x runs to the right and y downwards, within the unit circle or a little beyond.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Segment {
    Move(f32, f32),
    Line(f32, f32),
    Cubic(f32, f32, f32, f32, f32, f32),
    Close,
}

/// The curves around a shape, to be filled by the even-odd rule.
pub(super) fn outline(shape: Shape) -> Vec<Segment> {
    match shape {
        Shape::Circle => circle(0.95),
        Shape::Square => polygon(&[(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]),
        Shape::Triangle => polygon(&[(0.0, -0.95), (0.95, 0.75), (-0.95, 0.75)]),
        Shape::Star => polygon(&star()),
        Shape::Cross => polygon(&cross(0.92, 0.3)),
        Shape::Ring => [circle(0.95), circle(0.5)].concat(),
        Shape::Diamond => polygon(&[(0.0, -1.08), (0.64, 0.0), (0.0, 1.08), (-0.64, 0.0)]),
        Shape::Heart => heart(),
    }
}

fn polygon(points: &[(f32, f32)]) -> Vec<Segment> {
    let mut segments: Vec<Segment> = points.iter().map(|&(x, y)| Segment::Line(x, y)).collect();
    segments[0] = Segment::Move(points[0].0, points[0].1);
    segments.push(Segment::Close);
    segments
}

/// Four curves that miss the true circle by less than a thousandth.
fn circle(radius: f32) -> Vec<Segment> {
    let (r, k) = (radius, radius * 0.552_285);
    vec![
        Segment::Move(r, 0.0),
        Segment::Cubic(r, k, k, r, 0.0, r),
        Segment::Cubic(-k, r, -r, k, -r, 0.0),
        Segment::Cubic(-r, -k, -k, -r, 0.0, -r),
        Segment::Cubic(k, -r, r, -k, r, 0.0),
        Segment::Close,
    ]
}

fn star() -> Vec<(f32, f32)> {
    let corner = |at: usize| {
        let radius = if at.is_multiple_of(2) { 1.08 } else { 0.45 };
        let angle = std::f32::consts::PI * (at as f32 / 5.0 - 0.5);
        (radius * angle.cos(), radius * angle.sin() + 0.06)
    };
    (0..10).map(corner).collect()
}

fn cross(arm: f32, half: f32) -> Vec<(f32, f32)> {
    let quarter = [(half, -arm), (half, -half), (arm, -half)];
    let turn = |(x, y): (f32, f32), times: usize| (0..times).fold((x, y), |(x, y), _| (-y, x));
    (0..4).flat_map(|times| quarter.map(|point| turn(point, times))).collect()
}

fn heart() -> Vec<Segment> {
    vec![
        Segment::Move(0.0, 0.95),
        Segment::Cubic(-0.35, 0.6, -1.02, 0.2, -1.0, -0.32),
        Segment::Cubic(-0.98, -0.95, -0.22, -1.08, 0.0, -0.45),
        Segment::Cubic(0.22, -1.08, 0.98, -0.95, 1.0, -0.32),
        Segment::Cubic(1.02, 0.2, 0.35, 0.6, 0.0, 0.95),
        Segment::Close,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outlines_are_closed_and_of_like_size() {
        for &shape in Shape::ALL {
            let segments = outline(shape);
            assert!(matches!(segments[0], Segment::Move(..)) && segments.last() == Some(&Segment::Close));
            let ends = segments.iter().filter_map(|segment| match *segment {
                Segment::Move(x, y) | Segment::Line(x, y) | Segment::Cubic(_, _, _, _, x, y) => Some((x, y)),
                Segment::Close => None,
            });
            let reach = ends.map(|(x, y)| x.hypot(y)).fold(0.0, f32::max);
            assert!((0.9..1.25).contains(&reach), "{shape:?} reaches {reach}");
        }
    }
}
