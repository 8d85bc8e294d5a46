//! Pages of PDF files.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hayro::hayro_interpret::{InterpreterSettings, InterpreterWarning};
use hayro::hayro_syntax::{DecryptionError, LoadPdfError, Pdf};
use hayro::vello_cpu::color::palette::css::WHITE;
use hayro::{PixmapSettings, RenderCache, RenderSettings, render};
use rzen_core::Picture;

use crate::convert::flatten;
use crate::isolate::{Lost, isolate};
use crate::picture::{first_bytes, read_file};
use crate::{LoadError, LoadOptions};

const POINTS_PER_INCH: f32 = 72.0;

/// Draws a page, counted from 1, on white.
pub(crate) fn load_page(path: &Path, page: u32, options: &LoadOptions) -> Result<Picture, LoadError> {
    let owned = options.clone();
    isolated(path, options, move |path, bytes| draw_page(path, bytes, page, &owned))
}

/// The pages of a file.
pub(crate) fn count_pages(path: &Path, options: &LoadOptions) -> Result<usize, LoadError> {
    isolated(path, options, |path, bytes| Ok(open_pdf(path, bytes)?.pages().len()))
}

/// Reads a file and lets `work` have its bytes, for a limited time.
fn isolated<T: Send + 'static>(
    path: &Path,
    options: &LoadOptions,
    work: impl FnOnce(&Path, Vec<u8>) -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    let bytes = read_file(path, options)?;
    let timeout_ms = options.pdf_timeout_ms;
    let owned = path.to_owned();
    isolate(Duration::from_millis(timeout_ms), move || work(&owned, bytes)).unwrap_or_else(|lost| {
        let path = path.to_owned();
        Err(match lost {
            Lost::Panic(found) => LoadError::Decoder { path, decoder: "PDF", found },
            Lost::Timeout => LoadError::Timeout { path, timeout_ms, option: "pdf_timeout_ms" },
        })
    })
}

fn open_pdf(path: &Path, bytes: Vec<u8>) -> Result<Pdf, LoadError> {
    let head = first_bytes(&bytes);
    // Without its end the parser guesses at the rest and draws pages without their content.
    if is_pdf(&bytes) && !has_end_mark(&bytes) {
        let found = format!("its last bytes (of {}) hold no `%%EOF`", bytes.len());
        return Err(LoadError::Truncated { path: path.to_owned(), format: "PDF", found });
    }
    Pdf::new(bytes).map_err(|error| open_error(path, &head, error))
}

fn draw_page(path: &Path, bytes: Vec<u8>, page: u32, options: &LoadOptions) -> Result<Picture, LoadError> {
    let pdf = open_pdf(path, bytes)?;
    let pages = pdf.pages();
    let index = (page as usize).checked_sub(1);
    let Some(found) = index.and_then(|index| pages.get(index)) else {
        return Err(LoadError::NoSuchPage { path: path.to_owned(), page, pages: pages.len() });
    };
    let scale = options.pdf_dpi / POINTS_PER_INCH;
    let (width, height) = found.render_dimensions();
    check_page(path, page, width * scale, height * scale, options)?;
    let broken_picture = Arc::new(AtomicBool::new(false));
    let pixmap = render(
        found,
        &RenderCache::new(),
        &settings(broken_picture.clone()),
        &RenderSettings::default(),
        &PixmapSettings { x_scale: scale, y_scale: scale, bg_color: WHITE },
    );
    if broken_picture.load(Ordering::SeqCst) {
        let found = format!("page {page} holds a picture that can't be decoded");
        return Err(LoadError::Document { path: path.to_owned(), found });
    }
    let (width, height) = (u32::from(pixmap.width()), u32::from(pixmap.height()));
    // White lies under everything, so premultiplied colours are plain ones.
    Ok(Picture::new(width, height, flatten(pixmap.data_as_u8_slice(), None)))
}

/// How a page is read; notes when a picture on it can't be. Fonts that can't are left out as documented.
fn settings(broken_picture: Arc<AtomicBool>) -> InterpreterSettings {
    let warning_sink = Arc::new(move |warning| {
        if matches!(warning, InterpreterWarning::ImageDecodeFailure) {
            broken_picture.store(true, Ordering::SeqCst);
        }
    });
    InterpreterSettings { warning_sink, ..Default::default() }
}

/// Whether a file begins as PDF; something else may stand before it.
fn is_pdf(bytes: &[u8]) -> bool {
    const REACH: usize = 1024;
    holds(&bytes[..bytes.len().min(REACH)], b"%PDF")
}

/// Whether the end of a file says that it is the end; other programs may have put something behind it.
fn has_end_mark(bytes: &[u8]) -> bool {
    const REACH: usize = 2048;
    holds(&bytes[bytes.len().saturating_sub(REACH)..], b"%%EOF")
}

fn holds(bytes: &[u8], mark: &[u8]) -> bool {
    bytes.windows(mark.len()).any(|window| window == mark)
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
