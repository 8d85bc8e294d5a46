//! Lists of texts as Python prints them.

/// Reads `['a', "it's", None]`; `None` is the empty text.
///
/// # Errors
/// What is wrong, and where.
pub(super) fn parse(text: &str) -> Result<Vec<String>, String> {
    let inside = text.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let Some(inside) = inside else { return Err("a Python list stands between [ and ]".to_owned()) };
    let mut items = Vec::new();
    let mut rest = inside.trim_start();
    while !rest.is_empty() {
        let (item, after) = item(rest)?;
        items.push(item);
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.is_empty() => {}
            None => return Err(format!("expected a comma before `{}`", start_of(rest))),
        }
    }
    Ok(items)
}

/// The first item, and what stands after it.
fn item(text: &str) -> Result<(String, &str), String> {
    if let Some(rest) = text.strip_prefix("None") {
        return Ok((String::new(), rest));
    }
    let quote = text.chars().next().filter(|c| "'\"".contains(*c));
    let quote = quote.ok_or_else(|| format!("expected a text in quotes at `{}`", start_of(text)))?;
    let mut item = String::new();
    let mut chars = text[1..].char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => escape(&mut chars, &mut item)?,
            c if c == quote => return Ok((item, &text[1 + at + c.len_utf8()..])),
            c => item.push(c),
        }
    }
    Err(format!("the text that begins with `{}` has no end", start_of(text)))
}

fn escape(chars: &mut std::str::CharIndices, item: &mut String) -> Result<(), String> {
    let cut = || "a text ends in the middle of an escape".to_owned();
    let (_, c) = chars.next().ok_or_else(cut)?;
    let digits = match c {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        c => {
            match c {
                'n' => item.push('\n'),
                't' => item.push('\t'),
                'r' => item.push('\r'),
                '\\' | '\'' | '"' => item.push(c),
                // Python keeps the backslash where nothing is escaped.
                c => item.extend(['\\', c]),
            }
            return Ok(());
        }
    };
    let code: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
    let number = u32::from_str_radix(&code, 16).ok().and_then(char::from_u32);
    item.push(number.ok_or_else(|| format!("`\\{c}{code}` is no character"))?);
    Ok(())
}

fn start_of(text: &str) -> String {
    text.chars().take(20).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_as_python_prints_them() {
        let check = |text: &str, expected: &[&str]| assert_eq!(parse(text).unwrap(), expected, "{text}");
        check("[]", &[]);
        check("['a', \"it's\", 'say \"it\"', '']", &["a", "it's", "say \"it\"", ""]);
        check(
            r#"['two\nlines', 'a\\b', 'it\'s \"so\"', '\d']"#,
            &["two\nlines", "a\\b", "it's \"so\"", "\\d"],
        );
        check(r"['\xe9\u00fc\U0001f600', 'é, ]']", &["éü😀", "é, ]"]);
        check(" [ 'a' , None , ] ", &["a", ""]);
    }

    #[test]
    fn what_is_no_list_is_named() {
        for (text, named) in [
            ("'a'", "between [ and ]"),
            ("['a' 'b']", "a comma before `'b'`"),
            ("[3]", "quotes at `3`"),
            ("['a]", "has no end"),
            (r"['\u12']", "no character"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(named), "{text}: {message}");
        }
    }
}
