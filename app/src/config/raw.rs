//! A recipe as it was typed: TOML in sections or flat, plus `--set key=value`. Names are resolved here (aliases, keys
//! without effect, refused keys, typing errors); values are typed when they are asked for.

use toml::{Table, Value};

use super::keys::{KEYS, Section, Use, lookup};
use halfbyte_core::error::{Error, Result, nearest};

/// The keys of a recipe with their values.
pub struct Raw {
    /// Where it was read; for messages.
    file: String,
    /// By the key's own name, never by an alias.
    values: Vec<Entry>,
    /// One line for each key that is accepted and has no effect.
    pub notes: Vec<String>,
}

struct Entry {
    key: &'static str,
    /// The name and place that the user wrote: `lr` in recipe.toml, or `--set lr=…`.
    given: String,
    value: Value,
}

impl Raw {
    /// Parses the recipe `text`, read from `file`, and lays the `overrides` (`key=value`) over it.
    pub fn parse(text: &str, file: &str, overrides: &[String]) -> Result<Self> {
        let table: Table = toml::from_str(text).map_err(|e| {
            let line = e.span().map_or(1, |s| 1 + text[..s.start.min(text.len())].matches('\n').count());
            Error::usage(format!("{file}: line {line}: {}", e.message().replace('\n', ", ")))
                .hint("a recipe is a TOML file")
        })?;
        let mut raw = Self { file: file.into(), values: Vec::new(), notes: Vec::new() };
        for (key, value) in table {
            match value {
                Value::Table(inner) if is_section(&key) => {
                    for (key, value) in inner {
                        raw.add(&key, value, file)?;
                    }
                }
                value => raw.add(&key, value, file)?,
            }
        }
        for setting in overrides {
            raw.set(setting)?;
        }
        Ok(raw)
    }

    /// `key=value`, where value is TOML, or text if it is no TOML.
    fn set(&mut self, setting: &str) -> Result<()> {
        let Some((key, text)) = setting.split_once('=') else {
            return Err(Error::usage(format!("--set {setting}: expected key=value"))
                .hint("for instance --set learning_rate=2e-4"));
        };
        let key = key.trim();
        // `training.learning_rate` is the same key as `learning_rate`.
        let key = key.split_once('.').filter(|(section, _)| is_section(section)).map_or(key, |(_, key)| key);
        let parsed = toml::from_str::<Table>(&format!("value = {text}")).ok();
        let value = parsed.and_then(|mut t| t.remove("value")).unwrap_or_else(|| Value::String(text.trim().into()));
        if let Some((name, _)) = lookup(key).and_then(|(name, used)| used_name(name, used)) {
            self.values.retain(|e| e.key != name);
        }
        self.add(key, value, "--set")
    }

    fn add(&mut self, given: &str, value: Value, place: &str) -> Result<()> {
        let Some((name, used)) = lookup(given) else { return Err(unknown(given, &value, place)) };
        match used {
            Use::NoEffect(why) => self.notes.push(format!("`{name}` has no effect here: {why}")),
            Use::Only(values, why) if !values.iter().any(|v| same(&value, v)) => {
                let fix = match values {
                    [] => format!("remove `{name}`"),
                    [value, ..] => format!("remove `{name}`, or write {name} = {value}"),
                };
                return Err(Error::usage(format!("{place}: `{given}` is {}: {why}", brief(&value))).hint(fix));
            }
            Use::Only(..) => {}
            Use::Used(..) | Use::Alias(_) => {
                let key = if let Use::Alias(of) = used { of } else { name };
                if let Some(other) = self.values.iter().find(|e| e.key == key) {
                    let what = format!("{place}: `{given}` and `{}` are the same key", other.given);
                    return Err(Error::usage(what).hint("keep one of them"));
                }
                self.values.push(Entry { key, given: given.into(), value });
            }
        }
        Ok(())
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        debug_assert!(matches!(lookup(key), Some((_, Use::Used(..)))), "{key} is not in the table of keys");
        self.values.iter().find(|e| e.key == key)
    }

    /// Whether the recipe has the key.
    pub fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// The value as typed.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.entry(key).map(|e| &e.value)
    }

    /// An error about the value of `key`, or about its absence.
    pub fn wrong(&self, key: &str, why: impl std::fmt::Display) -> Error {
        match self.entry(key) {
            Some(e) => Error::usage(format!("{}: `{}` is {}: {why}", self.file, e.given, brief(&e.value))),
            None => Error::usage(format!("{}: `{key}` is missing: {why}", self.file)),
        }
    }

    fn read<'a, T>(&'a self, key: &str, what: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        read(&entry.value).map(Some).ok_or_else(|| self.wrong(key, format!("expected {what}")))
    }

    /// true or false.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.read(key, "true or false", Value::as_bool)
    }

    /// A finite number.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.read(key, "a number", |v| number(v).filter(|x| x.is_finite()))
    }

    /// A number of at least `low`.
    pub fn at_least(&self, key: &str, low: f64) -> Result<Option<f64>> {
        self.read(key, &format!("a number of at least {low}"), |v| number(v).filter(|x| x.is_finite() && *x >= low))
    }

    /// A whole number of at least `low` (and below 2³², as seeds are).
    pub fn count(&self, key: &str, low: usize) -> Result<Option<usize>> {
        let read = |v: &Value| v.as_integer().and_then(|n| usize::try_from(n).ok());
        let range = low..1 << 32;
        self.read(key, &format!("a whole number of at least {low}"), |v| read(v).filter(|n| range.contains(n)))
    }

    /// A size from `low` to 2²⁰, so that products of several fit 64 bits.
    pub fn size(&self, key: &str, low: usize) -> Result<Option<usize>> {
        match self.count(key, low)? {
            Some(n) if n > 1 << 20 => Err(self.wrong(key, "expected at most 1048576")),
            n => Ok(n),
        }
    }

    /// Text.
    pub fn text(&self, key: &str) -> Result<Option<String>> {
        self.read(key, "a text in quotes", |v| v.as_str().map(String::from))
    }

    /// One of `names`.
    pub fn choice<T: Copy>(&self, key: &str, names: &[(&str, T)]) -> Result<Option<T>> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        let found = entry.value.as_str().and_then(|text| names.iter().find(|(name, _)| *name == text));
        found.map(|(_, value)| Some(*value)).ok_or_else(|| {
            let list: Vec<String> = names.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            let error = self.wrong(key, format!("expected one of {}", list.join(", ")));
            match entry.value.as_str().and_then(|text| nearest(text, names.iter().map(|(name, _)| *name))) {
                Some(near) => error.hint(format!("did you mean \"{near}\"?")),
                None => error,
            }
        })
    }

    /// One text or a list of texts.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<String>>> {
        self.read(key, "a text or a list of texts", |v| match v {
            Value::String(one) => Some(vec![one.clone()]),
            Value::Array(list) => list.iter().map(|v| v.as_str().map(String::from)).collect(),
            _ => None,
        })
    }

    /// A whole number or a list of them.
    pub fn counts(&self, key: &str) -> Result<Option<Vec<usize>>> {
        let one = |v: &Value| v.as_integer().and_then(|n| usize::try_from(n).ok());
        self.read(key, "a whole number or a list of them", |v| match v {
            Value::Array(list) => list.iter().map(one).collect(),
            v => one(v).map(|n| vec![n]),
        })
    }

    /// A table of numbers, in the order in which it was written.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<(String, f64)>>> {
        self.read(key, "a table of numbers", |v| {
            v.as_table()?.iter().map(|(key, v)| Some((key.clone(), number(v)?))).collect()
        })
    }
}

fn is_section(name: &str) -> bool {
    Section::ALL.iter().any(|s| s.name() == name)
}

fn used_name(name: &'static str, used: Use) -> Option<(&'static str, Use)> {
    match used {
        Use::Used(..) => Some((name, used)),
        Use::Alias(of) => lookup(of),
        _ => None,
    }
}

fn unknown(given: &str, value: &Value, place: &str) -> Error {
    let (kind, sections) = match value {
        Value::Table(_) => ("section or key", true),
        _ => ("key", false),
    };
    let error = Error::usage(format!("{place}: unknown {kind} `{given}`"));
    let names = KEYS.iter().map(|(name, _)| *name);
    let names: Vec<&str> = names.chain(Section::ALL.iter().map(|s| s.name()).filter(|_| sections)).collect();
    match nearest(given, names) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint("keys are named as in TrainingArguments, LoraConfig and BitsAndBytesConfig"),
    }
}

fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|n| n as f64))
}

/// Whether `value` is what the TOML `text` says; 0 and 0.0 are the same.
fn same(value: &Value, text: &str) -> bool {
    let wanted = toml::from_str::<Table>(&format!("value = {text}")).ok().and_then(|mut t| t.remove("value"));
    wanted.is_some_and(|wanted| wanted == *value || number(&wanted).is_some_and(|n| number(value) == Some(n)))
}

/// `value` as TOML on one line, shortened.
fn brief(value: &Value) -> String {
    let text = value.to_string().replace('\n', " ");
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
