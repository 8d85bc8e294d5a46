//! Pages of PDF files.

use std::path::Path;
use std::time::Duration;

use hayro::hayro_interpret::InterpreterSettings;
use hayro::hayro_syntax::{DecryptionError, LoadPdfError, Pdf};
use hayro::vello_cpu::color::palette::css::WHITE;
use hayro::{PixmapSettings, RenderCache, RenderSettings, render};
use rzen_core::Picture;

use crate::convert::without_alpha;
use crate::isolate::{Lost, isolate};
use crate::picture::{first_bytes, read_file};
use crate::{LoadError, LoadOptions};

const POINTS_PER_INCH: f32 = 72.0;

/// Draws a page, counted from 1, on white.
pub(crate) fn load_page(path: &Path, page: u32, options: &LoadOptions) -> Result<Picture, LoadError> {
    let bytes = read_file(path, options)?;
    let timeout_ms = options.pdf_timeout_ms;
    let (owned_path, owned_options) = (path.to_owned(), options.clone());
    let work = move || draw_page(&owned_path, bytes, page, &owned_options);
    isolate(Duration::from_millis(timeout_ms), work).unwrap_or_else(|lost| {
        let path = path.to_owned();
        Err(match lost {
            Lost::Panic(found) => LoadError::Decoder { path, decoder: "PDF", found },
            Lost::Timeout => LoadError::Timeout { path, timeout_ms, option: "pdf_timeout_ms" },
        })
    })
}

fn draw_page(path: &Path, bytes: Vec<u8>, page: u32, options: &LoadOptions) -> Result<Picture, LoadError> {
    let head = first_bytes(&bytes);
    let pdf = Pdf::new(bytes).map_err(|error| open_error(path, &head, error))?;
    let pages = pdf.pages();
    let index = (page as usize).checked_sub(1);
    let Some(found) = index.and_then(|index| pages.get(index)) else {
        return Err(LoadError::NoSuchPage { path: path.to_owned(), page, pages: pages.len() });
    };
    let scale = options.pdf_dpi / POINTS_PER_INCH;
    let (width, height) = found.render_dimensions();
    check_page(path, page, width * scale, height * scale, options)?;
    let pixmap = render(
        found,
        &RenderCache::new(),
        &InterpreterSettings::default(),
        &RenderSettings::default(),
        &PixmapSettings { x_scale: scale, y_scale: scale, bg_color: WHITE },
    );
    let (width, height) = (u32::from(pixmap.width()), u32::from(pixmap.height()));
    // White lies under everything, so premultiplied colours are plain ones.
    Ok(Picture::new(width, height, without_alpha(pixmap.data_as_u8_slice())))
}

/// Refuses pages that round to nothing, and those too large to draw, before anything is drawn.
fn check_page(
    path: &Path,
    page: u32,
    width: f32,
    height: f32,
    options: &LoadOptions,
) -> Result<(), LoadError> {
    // hayro counts pixels in 16 bits.
    let max_side = options.max_side.min(u32::from(u16::MAX)) as f32;
    let drawable = (1.0..=max_side).contains(&width) && (1.0..=max_side).contains(&height);
    if drawable && f64::from(width) * f64::from(height) <= options.max_pixels as f64 {
        return Ok(());
    }
    let expected = format!(
        "expected 1 to {max_side} along each side and at most {} in all; change `pdf_dpi`, `max_side` or `max_pixels`",
        options.max_pixels
    );
    Err(LoadError::PageSize { path: path.to_owned(), page, width, height, dpi: options.pdf_dpi, expected })
}

fn open_error(path: &Path, head: &str, error: LoadPdfError) -> LoadError {
    let path = path.to_owned();
    match error {
        LoadPdfError::Decryption(DecryptionError::PasswordProtected) => {
            LoadError::Encrypted { path, found: "it asks for a password".into() }
        }
        LoadPdfError::Decryption(error) => LoadError::Encrypted { path, found: format!("{error:?}") },
        LoadPdfError::Invalid => LoadError::Document {
            path,
            found: format!("it begins with {head} and holds no readable page tree"),
        },
    }
}
