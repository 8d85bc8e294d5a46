//! Document pages as PDF files.

use pdf_writer::{Content, Finish, Name, Pdf, Rect, Ref, Str};

use super::outline::{Segment, outline};
use super::page::{Entry, Page};
use super::words::{Colour, Shape, Style, Town};

/// Width and height of a page in points. At 72 dpi a point is a pixel, and 28 of them a visual
/// token: the lines of a page stand on that grid.
const SIZE: (f32, f32) = (224.0, 168.0);
/// One line of text.
const LINE: f32 = 28.0;
/// Where the second word of a title begins, whatever the first.
const TAB: f32 = 118.0;
const REGULAR: Name = Name(b"F1");
const BOLD: Name = Name(b"F2");
const INK: [u8; 3] = [28, 30, 38];

/// Typesets a file of these pages; no date and no random identifier goes into it.
pub(super) fn typeset(pages: &[Page]) -> Vec<u8> {
    let (catalog, tree, regular, bold) = (Ref::new(1), Ref::new(2), Ref::new(3), Ref::new(4));
    let page_ref = |at: usize| Ref::new(5 + 2 * at as i32);
    let mut pdf = Pdf::new();
    pdf.catalog(catalog).pages(tree);
    pdf.pages(tree).kids((0..pages.len()).map(page_ref)).count(pages.len() as i32);
    for (at, page) in pages.iter().enumerate() {
        let content = Ref::new(page_ref(at).get() + 1);
        let mut leaf = pdf.page(page_ref(at));
        leaf.media_box(Rect::new(0.0, 0.0, SIZE.0, SIZE.1)).parent(tree).contents(content);
        leaf.resources().fonts().pair(REGULAR, regular).pair(BOLD, bold);
        leaf.finish();
        pdf.stream(content, &Sheet::draw(page));
    }
    pdf.type1_font(regular).base_font(Name(b"Helvetica"));
    pdf.type1_font(bold).base_font(Name(b"Helvetica-Bold"));
    pdf.finish()
}

/// A page's drawing, with y counted downwards from the top edge.
struct Sheet(Content);

impl Sheet {
    fn draw(page: &Page) -> Vec<u8> {
        let mut sheet = Sheet(Content::new());
        sheet.header(page);
        match page.style {
            Style::Table => sheet.table(page),
            Style::Chart => sheet.chart(page),
        }
        sheet.0.finish().to_vec()
    }

    fn header(&mut self, page: &Page) {
        let (town, firm) = page.title;
        self.bar((0.0, 0.0), (SIZE.0, LINE), [226, 230, 238]);
        self.bar((0.0, LINE - 1.5), (SIZE.0, 1.5), [90, 98, 120]);
        self.text(&capital(town), (8.0, 21.0), BOLD, 21.0);
        self.text(firm.word(), (TAB, 21.0), BOLD, 21.0);
    }

    fn table(&mut self, page: &Page) {
        for (at, entry) in page.entries.iter().enumerate() {
            self.table_row(*entry, LINE * (at + 1) as f32);
        }
        let top = LINE * (page.entries.len() + 1) as f32;
        self.bar((8.0, top), (SIZE.0 - 16.0, 1.2), [90, 98, 120]);
        self.text("total", (34.0, top + 20.5), BOLD, 18.0);
        self.number(page.total(), SIZE.0 - 12.0, top + 20.5, BOLD);
    }

    fn table_row(&mut self, ((colour, shape), count): Entry, top: f32) {
        self.icon((colour, shape), (17.0, top + LINE / 2.0), 9.5);
        let words = format!("{} {}", colour.word(), shape.plural());
        self.text(&words, (34.0, top + 20.0), REGULAR, 18.0);
        self.number(u32::from(count), SIZE.0 - 12.0, top + 20.0, BOLD);
        self.bar((8.0, top + LINE - 0.3), (SIZE.0 - 16.0, 0.6), [200, 204, 212]);
    }

    fn chart(&mut self, page: &Page) {
        let (ground, step) = (SIZE.1 - LINE, 9.4);
        self.bar((12.0, ground), (SIZE.0 - 24.0, 1.2), [90, 98, 120]);
        for (at, &((colour, shape), count)) in page.entries.iter().enumerate() {
            let middle = SIZE.0 * (at as f32 + 0.5) / page.entries.len() as f32;
            let height = step * f32::from(count);
            self.bar((middle - 15.0, ground - height), (30.0, height), colour.rgb());
            self.number(u32::from(count), middle + 5.0, ground - height - 3.0, BOLD);
            self.icon((colour, shape), (middle, ground + LINE / 2.0 + 0.5), 10.5);
        }
    }

    fn bar(&mut self, (x, y): (f32, f32), (width, height): (f32, f32), rgb: [u8; 3]) {
        self.fill(rgb);
        self.0.rect(x, SIZE.1 - y - height, width, height).fill_nonzero();
    }

    /// `at` is the left end of the base line.
    fn text(&mut self, text: &str, at: (f32, f32), font: Name, size: f32) {
        self.fill(INK);
        self.0.begin_text().set_font(font, size).next_line(at.0, SIZE.1 - at.1);
        self.0.show(Str(text.as_bytes())).end_text();
    }

    /// Sets a number so that it ends at `right`.
    fn number(&mut self, number: u32, right: f32, base: f32, font: Name) {
        let (text, size) = (number.to_string(), 18.0);
        // Every digit of Helvetica, bold or not, is 0.556 of its size wide.
        let width = 0.556 * size * text.len() as f32;
        self.text(&text, (right - width, base), font, size);
    }

    fn icon(&mut self, (colour, shape): (Colour, Shape), (x, y): (f32, f32), radius: f32) {
        self.fill(colour.rgb());
        let place = |dx: f32, dy: f32| (x + radius * dx, SIZE.1 - y - radius * dy);
        for segment in outline(shape) {
            match segment {
                Segment::Move(x, y) => {
                    let (x, y) = place(x, y);
                    self.0.move_to(x, y);
                }
                Segment::Line(x, y) => {
                    let (x, y) = place(x, y);
                    self.0.line_to(x, y);
                }
                Segment::Cubic(x1, y1, x2, y2, x, y) => {
                    let ((x1, y1), (x2, y2), (x, y)) = (place(x1, y1), place(x2, y2), place(x, y));
                    self.0.cubic_to(x1, y1, x2, y2, x, y);
                }
                Segment::Close => {
                    self.0.close_path();
                }
            }
        }
        self.0.fill_even_odd();
    }

    fn fill(&mut self, rgb: [u8; 3]) {
        let [red, green, blue] = rgb.map(|channel| f32::from(channel) / 255.0);
        self.0.set_fill_rgb(red, green, blue);
    }
}

fn capital(town: Town) -> String {
    let word = town.word();
    word[..1].to_uppercase() + &word[1..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::words::Firm;

    fn page(style: Style) -> Page {
        let entries = vec![((Colour::Red, Shape::Star), 4), ((Colour::Blue, Shape::Ring), 9)];
        Page { style, title: (Town::Harbour, Firm::Shop), entries }
    }

    fn render(file: Vec<u8>) -> Vec<hayro::vello_cpu::Pixmap> {
        let pdf = hayro::hayro_syntax::Pdf::new(file).expect("a PDF file");
        let cache = hayro::RenderCache::new();
        let settings = hayro::hayro_interpret::InterpreterSettings::default();
        let pages = pdf.pages().iter();
        pages
            .map(|page| hayro::render(page, &cache, &settings, &Default::default(), &Default::default()))
            .collect()
    }

    #[test]
    fn files_hold_their_pages_in_colour_and_ink() {
        let rendered = render(typeset(&[page(Style::Table), page(Style::Chart)]));
        assert_eq!(rendered.len(), 2);
        for pixmap in rendered {
            assert_eq!((pixmap.width(), pixmap.height()), (224, 168));
            let count = |rgb: [u8; 3]| {
                let near = |pixel: [u8; 4]| pixel.iter().zip(rgb).all(|(a, b)| a.abs_diff(b) < 3);
                pixmap.data_as_u8_slice().chunks(4).filter(|p| near([p[0], p[1], p[2], p[3]])).count()
            };
            assert!(count(Colour::Red.rgb()) > 80 && count(Colour::Blue.rgb()) > 80);
            assert!(count(INK) > 100, "the text is there");
            assert_eq!(count(Colour::Green.rgb()), 0);
        }
    }

    #[test]
    fn the_same_pages_make_the_same_file() {
        assert_eq!(typeset(&[page(Style::Table)]), typeset(&[page(Style::Table)]));
        assert_ne!(typeset(&[page(Style::Table)]), typeset(&[page(Style::Chart)]));
    }
}
