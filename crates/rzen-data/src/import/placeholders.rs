//! Marks in a text where pictures and clips belong.

/// Takes the marks `mark` out of a text; returns what is left and how many there were.
pub(crate) fn take_marks(text: &str, mark: &str) -> (String, usize) {
    let pieces: Vec<&str> = text.split(mark).map(str::trim).collect();
    let count = pieces.len() - 1;
    let left: Vec<&str> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
    match count {
        0 => (text.trim().to_owned(), 0),
        _ => (left.join("\n"), count),
    }
}

/// Takes the marks out that stand for the pictures of MMEB: `<|image_1|>` and `<|image_pad|>`.
pub(crate) fn take_image_marks(text: &str) -> (String, usize) {
    let (mut text, mut count) = take_marks(text, "<|image_pad|>");
    // MMEB has no more than one picture in an item.
    for number in 1..=9 {
        let (left, found) = take_marks(&text, &format!("<|image_{number}|>"));
        (text, count) = (left, count + found);
    }
    (text, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_taken_out_wherever_they_stand() {
        let left = |text| take_image_marks(text);
        assert_eq!(left("<|image_1|>\nFind it: a cat\n"), ("Find it: a cat".into(), 1));
        assert_eq!(left("a cat \n<|image_1|>"), ("a cat".into(), 1));
        assert_eq!(left("this <|image_1|> and <|image_2|> that"), ("this\nand\nthat".into(), 2));
        assert_eq!(left(" plain\ntext "), ("plain\ntext".into(), 0));
        assert_eq!(take_marks("<image>", "<image>"), (String::new(), 1));
    }
}
