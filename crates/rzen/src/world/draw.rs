//! Scenes as pixels.

use image::RgbImage;
use tiny_skia::{Color, FillRule, Paint, Path, PathBuilder, Pixmap, Rect, Stroke, Transform};

use super::dice::Dice;
use super::outline::{Segment, outline};
use super::scene::{Scene, Spot};
use super::words::{Background, Colour, Shape};

/// Draws a scene; `seed` decides the jitter in place, size, tilt and tint.
pub(super) fn draw_scene(scene: &Scene, seed: u64) -> RgbImage {
    let (width, height) = scene.layout.canvas();
    let mut canvas = Pixmap::new(width, height).expect("a layout has a size");
    let mut dice = Dice::seeded(seed);
    paint_background(&mut canvas, scene.background, &mut dice);
    let spots = jittered_spots(scene, seed);
    for (thing, spot) in scene.things.iter().zip(spots) {
        let tint = tinted(thing.colour, &mut dice);
        let tilt = dice.uniform(-9.0, 9.0);
        paint_shape(&mut canvas, thing.shape, tint, spot, tilt, scene.background == Background::Black);
    }
    to_rgb(&canvas)
}

/// Cuts the shape in place `at` out of the picture that [`draw_scene`] makes of the same seed.
pub(super) fn draw_crop(scene: &Scene, seed: u64, at: usize) -> RgbImage {
    let picture = draw_scene(scene, seed);
    let spot = jittered_spots(scene, seed)[at];
    let half = spot.radius * 1.25;
    let left = (spot.x - half).max(0.0) as u32;
    let top = (spot.y - half).max(0.0) as u32;
    let right = ((spot.x + half).ceil() as u32).min(picture.width());
    let bottom = ((spot.y + half).ceil() as u32).min(picture.height());
    image::imageops::crop_imm(&picture, left, top, right - left, bottom - top).to_image()
}

fn jittered_spots(scene: &Scene, seed: u64) -> Vec<Spot> {
    let mut dice = Dice::named(seed, "spots");
    let jitter = |spot: Spot| Spot {
        x: spot.x + dice.uniform(-2.0, 2.0),
        y: spot.y + dice.uniform(-2.0, 2.0),
        radius: spot.radius * dice.uniform(0.94, 1.04),
    };
    scene.spots().into_iter().map(jitter).collect()
}

/// The colour, a little lighter, darker or warmer than usual.
pub(super) fn tinted(colour: Colour, dice: &mut Dice) -> [u8; 3] {
    colour.rgb().map(|channel| (f32::from(channel) + dice.uniform(-9.0, 9.0)).clamp(0.0, 255.0) as u8)
}

/// Fills the canvas.
pub(super) fn paint_background(canvas: &mut Pixmap, background: Background, dice: &mut Dice) {
    let (width, height) = (canvas.width() as f32, canvas.height() as f32);
    let shift = dice.uniform(0.0, 14.0);
    let (ground, figure) = match background {
        Background::White => ([253, 253, 251], [0; 3]),
        Background::Grey => ([186, 190, 196], [0; 3]),
        Background::Black => ([26, 28, 40], [0; 3]),
        Background::Stripes => ([252, 246, 232], [206, 190, 160]),
        Background::Checks => ([246, 248, 252], [190, 208, 226]),
        Background::Dots => ([250, 252, 248], [150, 170, 160]),
    };
    canvas.fill(color(ground));
    let cells = |pitch: f32| {
        let (columns, rows) = ((width / pitch) as i32 + 2, (height / pitch) as i32 + 2);
        (-1..rows).flat_map(move |row| (-1..columns).map(move |column| (column, row)))
    };
    match background {
        Background::White | Background::Grey | Background::Black => {}
        Background::Stripes => {
            let (pitch, slant) = (14.0, Transform::from_rotate_at(35.0, width / 2.0, height / 2.0));
            let reach = width.max(height);
            for at in -6..=((2.0 * reach / pitch) as i32) {
                let x = at as f32 * pitch - reach / 2.0 + shift;
                fill_rect(canvas, (x, -reach, pitch / 2.0, 3.0 * reach), figure, slant);
            }
        }
        Background::Checks => {
            for (column, row) in cells(14.0).filter(|(column, row)| (column + row).rem_euclid(2) == 0) {
                let (x, y) = (column as f32 * 14.0 + shift, row as f32 * 14.0 + shift);
                fill_rect(canvas, (x, y, 14.0, 14.0), figure, Transform::identity());
            }
        }
        Background::Dots => {
            for (column, row) in cells(14.0) {
                let (x, y) = (column as f32 * 14.0 + shift, row as f32 * 14.0 + shift);
                let dot = PathBuilder::from_circle(x, y, 2.6).expect("a dot has a size");
                canvas.fill_path(&dot, &paint(figure), FillRule::Winding, Transform::identity(), None);
            }
        }
    }
}

/// Paints a shape with a rim that sets it off from the background; `tilt` is in degrees, clockwise.
pub(super) fn paint_shape(
    canvas: &mut Pixmap,
    shape: Shape,
    tint: [u8; 3],
    spot: Spot,
    tilt: f32,
    dark: bool,
) {
    let place =
        Transform::from_scale(spot.radius, spot.radius).post_rotate(tilt).post_translate(spot.x, spot.y);
    let path = to_path(&outline(shape)).transform(place).expect("a shape stays finite");
    let rim = tint.map(|channel| if dark { channel / 2 + 120 } else { (f32::from(channel) * 0.62) as u8 });
    canvas.fill_path(&path, &paint(tint), FillRule::EvenOdd, Transform::identity(), None);
    let stroke = Stroke { width: 1.4, ..Stroke::default() };
    canvas.stroke_path(&path, &paint(rim), &stroke, Transform::identity(), None);
}

/// The pixels without transparency.
pub(super) fn to_rgb(canvas: &Pixmap) -> RgbImage {
    let pixels =
        canvas.pixels().iter().flat_map(|pixel| [pixel.red(), pixel.green(), pixel.blue()]).collect();
    RgbImage::from_raw(canvas.width(), canvas.height(), pixels).expect("three bytes a pixel")
}

fn to_path(segments: &[Segment]) -> Path {
    let mut builder = PathBuilder::new();
    for segment in segments {
        match *segment {
            Segment::Move(x, y) => builder.move_to(x, y),
            Segment::Line(x, y) => builder.line_to(x, y),
            Segment::Cubic(x1, y1, x2, y2, x, y) => builder.cubic_to(x1, y1, x2, y2, x, y),
            Segment::Close => builder.close(),
        }
    }
    builder.finish().expect("an outline has a size")
}

fn fill_rect(
    canvas: &mut Pixmap,
    (x, y, width, height): (f32, f32, f32, f32),
    rgb: [u8; 3],
    place: Transform,
) {
    let rect = Rect::from_xywh(x, y, width, height).expect("a tile has a size");
    canvas.fill_rect(rect, &paint(rgb), place, None);
}

fn paint(rgb: [u8; 3]) -> Paint<'static> {
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color(color(rgb));
    paint
}

fn color([red, green, blue]: [u8; 3]) -> Color {
    Color::from_rgba8(red, green, blue, 255)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::held_out::{HeldOut, Side};
    use crate::world::scene::Layout;
    use crate::world::scene::Studio;
    use crate::world::words::Place;

    #[test]
    fn the_middle_of_a_shape_has_its_colour() {
        let held = HeldOut::draw(2);
        let mut studio = Studio::new(&held, Side::Training, 2, "test");
        for seed in 0..100 {
            let scene = studio.any();
            let picture = draw_scene(&scene, seed);
            for (thing, spot) in scene.things.iter().zip(jittered_spots(&scene, seed)) {
                // The hole of a ring shows the background.
                let x = if thing.shape == Shape::Ring { spot.x + 0.72 * spot.radius } else { spot.x };
                let pixel = picture.get_pixel(x as u32, spot.y as u32).0;
                let off = pixel.iter().zip(thing.colour.rgb()).map(|(a, b)| a.abs_diff(b)).max();
                assert!(off < Some(14), "{scene:?}: {pixel:?} in the middle of {thing:?}");
            }
        }
    }

    #[test]
    fn a_crop_is_a_part_of_its_picture() {
        let held = HeldOut::draw(2);
        let mut studio = Studio::new(&held, Side::Training, 2, "test");
        let scene = studio.scene(Layout::Grid);
        let (picture, crop) = (draw_scene(&scene, 9), draw_crop(&scene, 9, 3));
        assert!(crop.width() < picture.width() / 2 + 8 && crop.width() > 40);
        let middle = crop.get_pixel(crop.width() / 2, crop.height() / 2);
        assert!(picture.pixels().any(|pixel| pixel == middle));
        let alone = studio.scene(Layout::Alone(Place::Left));
        assert!(draw_crop(&alone, 1, 0).width() < 84);
    }
}
