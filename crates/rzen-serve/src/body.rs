//! The body of a request as JSON.

use serde_json::Value;

use crate::refusal::Refusal;

/// Most values in a body. Each takes some dozens of bytes of memory, but may be two bytes of the body.
const MOST_VALUES: usize = 100_000;

/// The value that a body holds.
///
/// # Errors
/// If it is no JSON, or has more values than are taken.
pub(crate) fn parse(body: &[u8]) -> Result<Value, Refusal> {
    let values = most_values(body);
    if values > MOST_VALUES {
        let problem = format!("has {values} values, at most {MOST_VALUES} are taken");
        return Err(Refusal::field("body", &problem));
    }
    serde_json::from_slice(body).map_err(|error| Refusal::no_json(&error.to_string()))
}

/// No fewer values than JSON holds: one for each comma and each opening bracket outside of texts, and one more.
fn most_values(json: &[u8]) -> usize {
    let (mut values, mut in_text, mut escaped) = (1, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' if !in_text => values += 1,
            _ => {}
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_texts() {
        for (json, values) in [
            (r#""a""#, 1),
            ("[0,0,0]", 4),
            (r#"{"a": "[,\",{", "b": {"c": [1]}}"#, 5),
            (r#""\\",0"#, 2),
            ("", 1),
        ] {
            assert_eq!(most_values(json.as_bytes()), values, "{json}");
        }
        let zeros = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
        let refusal = parse(zeros(MOST_VALUES).as_bytes()).unwrap_err();
        assert!(refusal.message.contains("100001 values"), "{}", refusal.message);
        assert!(parse(zeros(MOST_VALUES - 1).as_bytes()).is_ok());
    }
}
