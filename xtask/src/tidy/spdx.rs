//! SPDX licence expressions: `AND`, `OR`, `WITH`, parentheses, and the older `/` for `OR`.

/// Whether `expression` can be fulfilled with licences for which `accepted` holds.
///
/// `accepted` gets single licences, exceptions included: `MIT`, `Apache-2.0 WITH LLVM-exception`.
///
/// # Errors
/// A sentence, if the expression does not parse.
pub fn is_satisfied(expression: &str, accepted: impl Fn(&str) -> bool) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { tokens: &tokens, accepted: &accepted };
    let value = parser.any_of()?;
    match parser.tokens.first() {
        None => Ok(value),
        Some(token) => Err(format!("`{token}` is left over")),
    }
}

/// `OR` binds weakest, then `AND`, then `WITH`.
struct Parser<'a> {
    tokens: &'a [&'a str],
    accepted: &'a dyn Fn(&str) -> bool,
}

impl<'a> Parser<'a> {
    fn any_of(&mut self) -> Result<bool, String> {
        let mut value = self.all_of()?;
        while self.take("OR") {
            value |= self.all_of()?;
        }
        Ok(value)
    }

    fn all_of(&mut self) -> Result<bool, String> {
        let mut value = self.licence()?;
        while self.take("AND") {
            value &= self.licence()?;
        }
        Ok(value)
    }

    fn licence(&mut self) -> Result<bool, String> {
        if self.take("(") {
            let value = self.any_of()?;
            return if self.take(")") { Ok(value) } else { Err("a `)` is missing".to_owned()) };
        }
        let id = self.name("a licence")?;
        if self.take("WITH") {
            let exception = self.name("an exception")?;
            return Ok((self.accepted)(&format!("{id} WITH {exception}")));
        }
        Ok((self.accepted)(id))
    }

    fn name(&mut self, what: &str) -> Result<&'a str, String> {
        match self.tokens.split_first() {
            Some((&token, rest)) if !["AND", "OR", "WITH", "(", ")"].contains(&token) => {
                self.tokens = rest;
                Ok(token)
            }
            Some((token, _)) => Err(format!("{what} should stand where `{token}` is")),
            None => Err(format!("{what} is missing at the end")),
        }
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.tokens.first() == Some(&word);
        if found {
            self.tokens = &self.tokens[1..];
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expression: &str) -> Result<bool, String> {
        is_satisfied(expression, |id| ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].contains(&id))
    }

    #[test]
    fn expressions_that_are_satisfied() {
        for expression in [
            "MIT",
            "GPL-2.0-only OR MIT",
            "MIT AND ISC",
            "(GPL-2.0-only OR MIT) AND ISC",
            "Apache-2.0 WITH LLVM-exception",
            "Apache-2.0 WITH LLVM-exception OR GPL-3.0-only",
            "GPL-2.0-only / MIT",
            "GPL-2.0-only/MIT",
            "GPL-2.0-only AND ISC OR MIT",
        ] {
            assert_eq!(check(expression), Ok(true), "{expression}");
        }
    }

    #[test]
    fn expressions_that_are_not() {
        for expression in [
            "GPL-3.0-only",
            "MIT AND GPL-3.0-only",
            "(MIT OR ISC) AND GPL-3.0-only",
            "MIT WITH LLVM-exception",
            "Apache-2.0",
            "GPL-3.0-only OR MIT AND GPL-2.0-only",
        ] {
            assert_eq!(check(expression), Ok(false), "{expression}");
        }
    }

    #[test]
    fn what_does_not_parse_is_an_error() {
        for expression in ["", "MIT OR", "(MIT", "MIT)", "MIT ISC", "OR MIT", "MIT WITH", "()"] {
            assert!(check(expression).is_err(), "{expression}");
        }
    }
}
