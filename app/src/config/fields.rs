//! Reads fields of a JSON object (config.json, adapter_config.json). Every error names the file, the field and its
//! value. `null` counts as absent, as in the Hugging Face readers.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use halfbyte_core::error::{Error, Result};

/// A JSON object and the file that it came from.
pub struct JsonFields {
    /// The file, for messages.
    pub file: PathBuf,
    /// The fields by name.
    pub map: Map<String, Value>,
}

impl JsonFields {
    /// Parses `text`, the contents of `file`. Errors if it is not a JSON object.
    pub fn parse(text: &str, file: &Path) -> Result<Self> {
        // Some editors put a byte-order mark at the beginning of a file.
        let value: Value = serde_json::from_str(text.strip_prefix('\u{FEFF}').unwrap_or(text)).map_err(|e| {
            Error::input(format!("{}: not valid JSON: {e}", file.display()))
                .hint(format!("download {} again", file.display()))
        })?;
        match value {
            Value::Object(map) => Ok(Self { file: file.to_path_buf(), map }),
            other => Err(Error::input(format!("{}: expected a JSON object, found {}", file.display(), brief(&other)))),
        }
    }

    /// Reads and parses `file`.
    pub fn open(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).map_err(|e| Error::io("read", file, e))?;
        Self::parse(&text, file)
    }

    /// The value of a field; None if it is absent or null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// An error about the value of a field.
    pub fn wrong(&self, key: &str, why: &str) -> Error {
        let found = self.map.get(key).map_or("absent".into(), brief);
        Error::input(format!("{}: `{key}` is {found}: {why}", self.file.display()))
    }

    /// A count of at least 1 (and below 2³¹, so that products of two fit a 64-bit size).
    pub fn count(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64() {
            Some(n) if (1..1 << 31).contains(&n) => Ok(Some(n as usize)),
            _ => Err(self.wrong(key, "expected a whole number of at least 1")),
        }
    }

    /// [`Self::count`] of a field that must be there.
    pub fn required_count(&self, key: &str) -> Result<usize> {
        self.count(key)?.ok_or_else(|| {
            Error::input(format!("{}: the field `{key}` is missing", self.file.display()))
                .hint("is this the folder of a Hugging Face causal language model?")
        })
    }

    /// A finite number.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64() {
            Some(x) if x.is_finite() => Ok(Some(x)),
            _ => Err(self.wrong(key, "expected a number")),
        }
    }

    /// A number above zero.
    pub fn positive(&self, key: &str) -> Result<Option<f64>> {
        match self.number(key)? {
            Some(x) if x <= 0.0 => Err(self.wrong(key, "expected a number above 0")),
            x => Ok(x),
        }
    }

    /// A boolean.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(key, "expected true or false"))
    }

    /// A string.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, "expected a string"))
    }

    /// A list of strings.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<String>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_array().and_then(|a| a.iter().map(|v| v.as_str().map(String::from)).collect());
        list.map(Some).ok_or_else(|| self.wrong(key, "expected a list of strings"))
    }

    /// A token id or a list of them; empty when absent.
    pub fn token_ids(&self, key: &str) -> Result<Vec<u32>> {
        let one = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        let ids = match self.get(key) {
            None => Some(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(one).collect(),
            Some(value) => one(value).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.wrong(key, "expected a whole number from 0 or a list of them"))
    }

    /// A nested object.
    pub fn object(&self, key: &str) -> Result<Option<JsonFields>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(JsonFields { file: self.file.join(key), map: map.clone() })),
            Some(_) => Err(self.wrong(key, "expected an object")),
        }
    }
}

/// `value` as JSON, shortened so that an error stays one line.
pub fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> JsonFields {
        JsonFields::parse(text, Path::new("c.json")).expect("valid JSON")
    }

    #[test]
    fn errors_name_file_field_and_value() {
        let f = fields(r#"{"a": 0, "b": "x", "n": null, "ids": [1, -2]}"#);
        assert_eq!(f.count("a").unwrap_err().what(), "c.json: `a` is 0: expected a whole number of at least 1");
        assert_eq!(f.number("b").unwrap_err().what(), "c.json: `b` is \"x\": expected a number");
        assert!(f.token_ids("ids").is_err());
        assert_eq!(f.count("n").expect("null is absent"), None);
        assert_eq!(f.required_count("hidden").unwrap_err().what(), "c.json: the field `hidden` is missing");
    }

    #[test]
    fn only_objects_are_read() {
        assert!(JsonFields::parse("[1]", Path::new("c.json")).is_err());
        assert!(JsonFields::parse("{\"a\": ", Path::new("c.json")).is_err());
    }
}
