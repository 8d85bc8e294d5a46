//! PDF pages.

use std::path::Path;

use rzen_core::{Media, Part, Picture};
use rzen_data::{LoadError, LoadOptions, Loader};

use crate::made::{Folder, check_message, pdf, pdf_file};

fn load_page(path: &Path, page: u32, options: &LoadOptions) -> Result<Picture, LoadError> {
    match Loader::new(options.clone()).load_part(&Part::Document { path: path.into(), page })? {
        Media::Image(picture) => Ok(picture),
        other => panic!("{other:?} is no page"),
    }
}

#[test]
fn pages_are_counted_from_one_and_drawn_at_the_resolution() {
    let folder = Folder::new();
    let path = folder.write("two.pdf", pdf(50.0, &["1 0 0", "0 0 1"]));
    let at = |page, pdf_dpi| load_page(&path, page, &LoadOptions { pdf_dpi, ..Default::default() }).unwrap();
    let page = at(1, 144.0);
    assert_eq!((page.width(), page.height()), (100, 100));
    assert!(page.rgb().as_chunks().0.iter().all(|pixel| *pixel == [255, 0, 0]));
    let page = at(2, 36.0);
    assert_eq!((page.width(), page.height()), (25, 25));
    assert!(page.rgb().as_chunks().0.iter().all(|pixel| *pixel == [0, 0, 255]));
    let error = load_page(&path, 3, &LoadOptions::default()).unwrap_err();
    check_message(&error, &["two.pdf", "has 2 pages", "page 3", "counted from 1"]);
    let error = load_page(&path, 0, &LoadOptions::default()).unwrap_err();
    check_message(&error, &["two.pdf", "has 2 pages", "page 0"]);
}

#[test]
fn paper_is_white() {
    let folder = Folder::new();
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 20 10] >>",
    ];
    let path = folder.write("blank.pdf", pdf_file(&objects.map(str::to_owned), ""));
    let page = load_page(&path, 1, &LoadOptions::default()).unwrap();
    assert_eq!((page.width(), page.height()), (40, 20));
    assert!(page.rgb().iter().all(|channel| *channel == 255));
}

#[test]
fn sizes_are_checked_before_drawing() {
    let folder = Folder::new();
    let path = folder.write("poster.pdf", pdf(14_400.0, &["1 0 0"]));
    let check = |options: LoadOptions, expected: &[&str]| {
        let error = load_page(&path, 1, &options).unwrap_err();
        assert!(matches!(error, LoadError::PageSize { .. }), "{error}");
        check_message(&error, &[&["poster.pdf", "page 1", "pdf_dpi"], expected].concat());
    };
    check(LoadOptions::default(), &["28800 x 28800", "144 dpi", "178956970"]);
    check(LoadOptions { pdf_dpi: 0.001, ..Default::default() }, &["expected 1 to"]);
    check(LoadOptions { pdf_dpi: f32::NAN, ..Default::default() }, &["NaN"]);
    check(
        LoadOptions { pdf_dpi: 1e9, max_side: u32::MAX, max_pixels: u64::MAX, ..Default::default() },
        &["65535"],
    );
}

#[test]
fn files_that_are_no_documents_are_named() {
    let folder = Folder::new();
    let whole = pdf(50.0, &["1 0 0"]);
    let load =
        |name, bytes: &[u8]| load_page(&folder.write(name, bytes), 1, &LoadOptions::default()).unwrap_err();
    check_message(&load("cut.pdf", &whole[..40]), &["cut.pdf", "`%PDF-1.4", "again"]);
    check_message(&load("page.pdf", b"<html>not a document</html>"), &["page.pdf", "`<html>not", "again"]);
    check_message(&load("empty.pdf", b""), &["empty.pdf", "0 bytes"]);
    let gone = load_page(&folder.path().join("gone.pdf"), 1, &LoadOptions::default()).unwrap_err();
    check_message(&gone, &["gone.pdf", "path"]);
}

#[test]
fn locked_documents_say_so() {
    let folder = Folder::new();
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 20 10] >>",
        // The check value is of no password at all, so the empty one fails.
        "<< /Filter /Standard /V 1 /R 2 /P -4 /O <0101010101010101010101010101010101010101010101010101010101010101> \
         /U <0202020202020202020202020202020202020202020202020202020202020202> >>",
    ];
    let trailer =
        "/Encrypt 4 0 R /ID [<00112233445566778899aabbccddeeff> <00112233445566778899aabbccddeeff>]";
    let path = folder.write("locked.pdf", pdf_file(&objects.map(str::to_owned), trailer));
    let error = load_page(&path, 1, &LoadOptions::default()).unwrap_err();
    assert!(matches!(error, LoadError::Encrypted { .. }), "{error}");
    check_message(&error, &["locked.pdf", "encrypted", "password"]);
}

#[test]
fn damaged_documents_never_break_the_program() {
    let folder = Folder::new();
    let whole = pdf(50.0, &["1 0 0"]);
    for at in (0..whole.len()).step_by(3) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x15;
        let options = LoadOptions { max_pixels: 1_000_000, ..Default::default() };
        // Either a page or an error; an abort would fail the test.
        let _ = load_page(&folder.write("damaged.pdf", bytes), 1, &options);
    }
}
