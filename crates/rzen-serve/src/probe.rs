//! Whether a model embeds at all, and different things differently.

use std::sync::Arc;

use crate::asked::{Asked, AskedPart};
use crate::engine::{Embedded, Engine};
use crate::media::Media;
use crate::model::ServedModel;

/// Side of a picture in pixels.
const SIDE: usize = 64;

/// A cosine from which on two vectors are the same.
const SAME: f32 = 0.99999;

/// Embeds two pictures and a text; gives the vector of the text.
///
/// # Errors
/// Why one of them has no vector, or that two have the same.
pub(crate) async fn probe<M: ServedModel>(engine: &Arc<Engine<M>>) -> Result<Vec<f32>, String> {
    let halves = picture(|x, _| if x < SIDE / 2 { [255, 255, 255] } else { [0, 0, 200] });
    let squares = picture(|x, y| if (x / 8 + y / 8) % 2 == 0 { [200, 0, 0] } else { [0, 90, 0] });
    let items = vec![text(), halves, squares];
    let embedded = engine.embed(items).await.map_err(|refusal| refusal.message)?;
    for (name, one, other) in [("two pictures", 1, 2), ("a text and a picture", 0, 1)] {
        if cosine(&embedded[one], &embedded[other].vector) > SAME {
            return Err(format!("it gives {name} the same vector; are its weights whole?"));
        }
    }
    Ok(embedded.into_iter().next().map_or(Vec::new(), |embedded| embedded.vector))
}

/// Embeds the text once more; true if its vector is as it was.
pub(crate) async fn is_as_before<M: ServedModel>(engine: &Arc<Engine<M>>, before: &[f32]) -> bool {
    engine.embed_at_once(&text()).await.is_ok_and(|embedded| cosine(&embedded, before) > SAME)
}

fn text() -> Asked {
    Asked::text("probe", "a small boat on a lake")
}

fn cosine(one: &Embedded, other: &[f32]) -> f32 {
    one.vector.iter().zip(other).map(|(a, b)| a * b).sum()
}

/// A picture as BMP: two headers, then rows of blue, green and red, the lowest first.
fn picture(color: impl Fn(usize, usize) -> [u8; 3]) -> Asked {
    let mut bytes = b"BM".to_vec();
    let (head, size) = (54, SIDE * SIDE * 3);
    let numbers = [(head + size) as u32, 0, head as u32, 40, SIDE as u32, SIDE as u32];
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    // One plane of 24 bits; not packed.
    bytes.extend([1, 0, 24, 0]);
    bytes.resize(head, 0);
    bytes.extend((0..SIDE * SIDE).flat_map(|at| color(at % SIDE, at / SIDE)));
    let media = Media { field: "probe".to_owned(), bytes };
    Asked { field: "probe".to_owned(), content: vec![AskedPart::Image(media)], instruction: None }
}
