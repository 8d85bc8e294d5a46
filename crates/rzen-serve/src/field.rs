//! A JSON body, read field by field so that an error names the field.

use serde_json::{Map, Value};

use crate::refusal::Refusal;

/// A value and where it stands, as in `input[3].content[0].image`.
#[derive(Clone, Debug)]
pub(crate) struct Field<'a> {
    pub name: String,
    pub value: &'a Value,
}

/// An object whose keys are all known.
pub(crate) struct Object<'a> {
    name: String,
    map: &'a Map<String, Value>,
}

impl<'a> Field<'a> {
    /// The body of a request.
    pub fn body(value: &'a Value) -> Self {
        Field { name: String::new(), value }
    }

    /// A refusal of what stands here; `problem` completes "`field` …".
    pub fn refuse(&self, problem: &str) -> Refusal {
        match self.name.as_str() {
            "" => Refusal::field("body", problem),
            name => Refusal::field(name, problem),
        }
    }

    fn expected(&self, what: &str) -> Refusal {
        self.refuse(&format!("is {}, expected {what}", kind(self.value)))
    }

    pub fn text(&self) -> Result<&'a str, Refusal> {
        self.value.as_str().ok_or_else(|| self.expected("a text"))
    }

    /// A whole number from `least` on.
    pub fn number(&self, least: u32) -> Result<u32, Refusal> {
        let number = self.value.as_u64().and_then(|number| u32::try_from(number).ok());
        number
            .filter(|number| *number >= least)
            .ok_or_else(|| self.expected(&format!("a whole number from {least} on")))
    }

    /// The entries of a list that isn't empty and has no more than `most` of them, which are called `what`.
    pub fn list(&self, most: usize, what: &str) -> Result<Vec<Field<'a>>, Refusal> {
        let list = self.value.as_array().ok_or_else(|| self.expected("a list"))?;
        if list.is_empty() {
            return Err(self.refuse("is an empty list"));
        }
        if list.len() > most {
            return Err(self.refuse(&format!("has {} {what}, at most {most} are taken", list.len())));
        }
        let field = |(at, value)| Field { name: format!("{}[{at}]", self.name), value };
        Ok(list.iter().enumerate().map(field).collect())
    }

    /// An object that has no other keys than `allowed`.
    pub fn object(&self, allowed: &[&str]) -> Result<Object<'a>, Refusal> {
        let map = self.value.as_object().ok_or_else(|| self.expected("an object"))?;
        let object = Object { name: self.name.clone(), map };
        match map.iter().find(|(key, value)| !value.is_null() && !allowed.contains(&key.as_str())) {
            None => Ok(object),
            Some((key, _)) => {
                let problem = format!("is not known here; known are {}", allowed.join(", "));
                Err(Refusal::field(&object.name_of(key), &problem))
            }
        }
    }

    pub fn is_object(&self) -> bool {
        self.value.is_object()
    }

    pub fn is_list(&self) -> bool {
        self.value.is_array()
    }
}

impl<'a> Object<'a> {
    fn name_of(&self, key: &str) -> String {
        match self.name.as_str() {
            "" => key.to_owned(),
            name => format!("{name}.{key}"),
        }
    }

    /// A field; `null` counts as missing.
    pub fn get(&self, key: &str) -> Option<Field<'a>> {
        let value = self.map.get(key).filter(|value| !value.is_null())?;
        Some(Field { name: self.name_of(key), value })
    }

    /// A field that must be there.
    pub fn required(&self, key: &str) -> Result<Field<'a>, Refusal> {
        self.get(key).ok_or_else(|| Refusal::field(&self.name_of(key), "is missing"))
    }

    /// Refuses a field that says something else than `value`.
    pub fn only(&self, key: &str, value: &Value) -> Result<(), Refusal> {
        match self.get(key).filter(|field| field.value != value) {
            None => Ok(()),
            Some(field) => Err(field.refuse(&format!("must be {value}"))),
        }
    }

    /// A text that may be missing.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, Refusal> {
        self.get(key).map(|field| field.text()).transpose()
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_names_the_field() {
        let body = json!({ "input": ["a", { "content": [{ "text": 7, "colour": null }] }], "top": 0 });
        let object = Field::body(&body).object(&["input", "top"]).unwrap();
        let items = object.required("input").unwrap().list(2, "items").unwrap();
        assert_eq!((items[0].name.as_str(), items[0].text().unwrap()), ("input[0]", "a"));
        let content =
            items[1].object(&["content"]).unwrap().required("content").unwrap().list(2, "parts").unwrap();
        let part = content[0].object(&["text"]).unwrap();
        let refusal = part.text("text").unwrap_err();
        assert_eq!(refusal.field.as_deref(), Some("input[1].content[0].text"));
        assert_eq!(refusal.message, "`input[1].content[0].text` is a number, expected a text");
        let refusals = [
            object.required("top").unwrap().number(1).map(drop).unwrap_err(),
            object.required("model").map(drop).unwrap_err(),
            Field::body(&body).object(&["input"]).map(drop).unwrap_err(),
            items[0].list(1, "items").map(drop).unwrap_err(),
            Field::body(&json!([])).list(1, "items").map(drop).unwrap_err(),
            Field::body(&json!([0, 0])).list(1, "items").map(drop).unwrap_err(),
        ];
        let messages = refusals.map(|refusal| refusal.message);
        assert_eq!(
            messages,
            [
                "`top` is a number, expected a whole number from 1 on",
                "`model` is missing",
                "`top` is not known here; known are input",
                "`input[0]` is a text, expected a list",
                "`body` is an empty list",
                "`body` has 2 items, at most 1 are taken",
            ]
        );
    }
}
