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
    let count = |path: &Path| Loader::new(LoadOptions::default()).count_pages(path);
    assert_eq!(count(&path).unwrap(), 2);
    check_message(&count(&folder.write("no.pdf", "no pdf at all")).unwrap_err(), &["no.pdf"]);
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
    check_message(&load("cut.pdf", &whole[..40]), &["cut.pdf", "truncated PDF", "40", "`%%EOF`", "again"]);
    check_message(&load("no.pdf", b"%PDF-1.4 and no more %%EOF"), &["no.pdf", "`%PDF-1.4", "again"]);
    check_message(&load("page.pdf", b"<html>not a document</html>"), &["page.pdf", "`<html>not", "again"]);
    check_message(&load("empty.pdf", b""), &["empty.pdf", "0 bytes"]);
    let gone = load_page(&folder.path().join("gone.pdf"), 1, &LoadOptions::default()).unwrap_err();
    check_message(&gone, &["gone.pdf", "path"]);
}

#[test]
fn every_cut_of_a_document_is_noticed() {
    let folder = Folder::new();
    let whole = pdf(50.0, &["1 0 0"]);
    // The line break after the mark is not missed.
    for length in 1..whole.len() - 1 {
        let error = load_page(&folder.write("cut.pdf", &whole[..length]), 1, &LoadOptions::default());
        assert!(error.is_err(), "{length} of {} bytes were taken for a whole document", whole.len());
    }
    let tail = [&whole[..], &[0; 1500]].concat();
    load_page(&folder.write("tail.pdf", tail), 1, &LoadOptions::default()).unwrap();
}

#[test]
fn pictures_that_cannot_be_drawn_are_not_passed_over() {
    let folder = Folder::new();
    let page = |data: &str, filter: &str| {
        let objects = [
            "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
            "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 20 10] /Contents 4 0 R \
             /Resources << /XObject << /P 5 0 R >> >> >>"
                .to_owned(),
            "<< /Length 23 >>\nstream\n20 0 0 10 0 0 cm /P Do \nendstream".to_owned(),
            format!(
                "<< /Type /XObject /Subtype /Image /Width 1 /Height 1 /BitsPerComponent 8 \
                 /ColorSpace /DeviceGray {filter} /Length {} >>\nstream\n{data}\nendstream",
                data.len()
            ),
        ];
        load_page(&folder.write("picture.pdf", pdf_file(&objects, "")), 1, &LoadOptions::default())
    };
    // A grey of 0x40.
    assert!(page("@", "").unwrap().rgb().iter().all(|channel| *channel == 0x40));
    check_message(&page("no JPEG", "/Filter /DCTDecode").unwrap_err(), &["picture.pdf", "page 1", "decoded"]);
}

#[test]
fn pages_have_no_time_beyond_the_limit() {
    let folder = Folder::new();
    let path = folder.write("slow.pdf", pdf(50.0, &["1 0 0"]));
    let error = load_page(&path, 1, &LoadOptions { pdf_timeout_ms: 0, ..Default::default() }).unwrap_err();
    assert!(matches!(error, LoadError::Timeout { .. }), "{error}");
    check_message(&error, &["slow.pdf", "0 ms", "`pdf_timeout_ms`"]);
    load_page(&path, 1, &LoadOptions { pdf_timeout_ms: u64::MAX, ..Default::default() }).unwrap();
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
