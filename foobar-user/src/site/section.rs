//! A table of the site file, read key by key: what is missing, unknown or of a wrong type becomes a fault, and reading goes on.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::at::{At, Span};
use super::fault::Fault;

/// Faults found so far.
#[derive(Debug, Default)]
pub(super) struct Collector(RefCell<Vec<Fault>>);

impl Collector {
    pub(super) fn error(&self, span: Span, message: impl Into<String>) {
        self.0.borrow_mut().push(Fault::error(span, message));
    }

    pub(super) fn warning(&self, span: Span, message: impl Into<String>) {
        self.0.borrow_mut().push(Fault::warning(span, message));
    }

    pub(super) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.0.into_inner()
    }
}

/// A table being read.
pub(super) struct Section<'a> {
    /// How people name it: `[[server]]`, `[service.www]`.
    pub(super) title: String,
    /// Where it stands.
    pub(super) span: Span,
    /// Where faults go.
    pub(super) faults: &'a Collector,
    table: &'a DeTable<'a>,
    known: Vec<&'static str>,
    missing: Vec<(&'static str, &'static str)>,
}

/// The text form of a string or integer.
fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        _ => None,
    }
}

/// How people name what they wrote.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

impl<'a> Section<'a> {
    pub(super) fn new(title: String, span: Span, table: &'a DeTable<'a>, faults: &'a Collector) -> Self {
        Self { title, span, faults, table, known: Vec::new(), missing: Vec::new() }
    }

    /// The value of a key, and that the key is known.
    fn take(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.table.get(key)
    }

    fn wrong(&self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str) {
        let found = kind(value.get_ref());
        self.faults
            .error(value.span().into(), format!("`{key}` in {} must be {expected}, but this is {found}", self.title));
    }

    /// Where a key's value stands, or the section's head when it is absent.
    pub(super) fn place(&self, key: &str) -> Span {
        self.table.get(key).map_or(self.span, |value| value.span().into())
    }

    /// Whether the key is there, without asking for its value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Says that the key is known, without reading it: for keys of a section whose kind is in doubt.
    pub(super) fn know(&mut self, key: &'static str) {
        self.known.push(key);
    }

    /// Refuses the key where it has no meaning.
    pub(super) fn refuse(&mut self, key: &'static str, why: &str) {
        if let Some(value) = self.take(key) {
            self.faults.error(value.span().into(), format!("`{key}` in {}: {why}", self.title));
        }
    }

    /// Says that a key is needed; told at `finish`, unless a misspelt key is probably it.
    pub(super) fn need<T>(&mut self, key: &'static str, value: Option<T>, example: &'static str) -> Option<T> {
        if value.is_none() && !self.has(key) {
            self.missing.push((key, example));
        }
        value
    }

    /// A string that `parse` turns into a value; its error says what was expected.
    pub(super) fn parse<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<At<T>> {
        let value = self.take(key)?;
        let DeValue::String(text) = value.get_ref() else {
            self.wrong(key, value, expected);
            return None;
        };
        self.parsed(key, value, parse(text))
    }

    fn parsed<T>(&self, key: &str, value: &Spanned<DeValue<'_>>, result: Result<T, String>) -> Option<At<T>> {
        match result {
            Ok(parsed) => Some(At::new(parsed, value.span())),
            Err(why) => {
                self.faults.error(value.span().into(), format!("`{key}` in {}: {why}", self.title));
                None
            }
        }
    }

    /// A string, or a list of strings (integers are taken as their text), each turned into a value.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<At<Vec<At<T>>>> {
        let value = self.take(key)?;
        let one = std::slice::from_ref(value);
        let items: &[Spanned<DeValue<'_>>] = match value.get_ref() {
            DeValue::String(_) => one,
            DeValue::Array(array) => array,
            _ => {
                self.wrong(key, value, expected);
                return None;
            }
        };
        let mut list = Vec::with_capacity(items.len());
        let mut whole = true;
        for item in items {
            let Some(text) = text_of(item.get_ref()) else {
                self.wrong(key, item, expected);
                whole = false;
                continue;
            };
            match self.parsed(key, item, parse(&text)) {
                Some(parsed) => list.push(parsed),
                None => whole = false,
            }
        }
        whole.then(|| At::new(list, value.span()))
    }

    /// An integer of a range.
    pub(super) fn integer(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<At<u64>> {
        let value = self.take(key)?;
        self.number(key, value, &range)
    }

    /// Every key with its integer, in the order of the file.
    pub(super) fn integers(self, range: RangeInclusive<u64>) -> Vec<(At<String>, u64)> {
        let mut list = Vec::new();
        for (key, value) in self.table {
            if let Some(number) = self.number(key.get_ref(), value, &range) {
                list.push((At::new(key.get_ref().to_string(), key.span()), number.value));
            }
        }
        list.sort_by_key(|(key, _)| key.span.start);
        list
    }

    fn number(&self, key: &str, value: &Spanned<DeValue<'_>>, range: &RangeInclusive<u64>) -> Option<At<u64>> {
        let (low, high) = (range.start(), range.end());
        let DeValue::Integer(number) = value.get_ref() else {
            self.wrong(key, value, &format!("an integer from {low} to {high}"));
            return None;
        };
        match i128::from_str_radix(number.as_str(), number.radix()).ok().and_then(|n| u64::try_from(n).ok()) {
            Some(n) if range.contains(&n) => Some(At::new(n, value.span())),
            _ => {
                let message = format!("`{key}` in {} must be from {low} to {high}, but this is {number}", self.title);
                self.faults.error(value.span().into(), message);
                None
            }
        }
    }

    /// A number with or without a fraction, in thousandths, of a range.
    pub(super) fn thousandths(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<At<u64>> {
        let value = self.take(key)?;
        let number = match value.get_ref() {
            DeValue::Integer(number) => number.as_str().parse::<f64>().ok().filter(|_| number.radix() == 10),
            DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
            _ => None,
        };
        let least =
            |n: u64| format!("{}.{:03}", n / 1000, n % 1000).trim_end_matches('0').trim_end_matches('.').to_owned();
        let (low, high) = (least(*range.start()), least(*range.end()));
        let Some(number) = number else {
            self.wrong(key, value, &format!("a number from {low} to {high}"));
            return None;
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float cast saturates, and the range is checked next"
        )]
        let thousandths = (number * 1000.0).round() as u64;
        if number.is_finite() && number > 0.0 && range.contains(&thousandths) {
            return Some(At::new(thousandths, value.span()));
        }
        let message = format!("`{key}` in {} must be from {low} to {high}, but this is {number}", self.title);
        self.faults.error(value.span().into(), message);
        None
    }

    /// An integer of a range, or `true` for a default and `false` for 0; 0 when absent.
    pub(super) fn integer_or_flag(&mut self, key: &'static str, range: RangeInclusive<u64>, default: u64) -> u64 {
        match self.table.get(key).map(Spanned::get_ref) {
            Some(DeValue::Boolean(_)) => self.flag(key).filter(|flag| flag.value).map_or(0, |_| default),
            _ => self.integer(key, range).map_or(0, |number| number.value),
        }
    }

    /// A port; 0 only where the range says so.
    pub(super) fn port(&mut self, key: &'static str, lowest: u16) -> Option<At<u16>> {
        let number = self.integer(key, u64::from(lowest)..=u64::from(u16::MAX))?;
        u16::try_from(number.value).ok().map(|port| At { value: port, span: number.span })
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<At<bool>> {
        let value = self.take(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.wrong(key, value, "true or false");
        }
        flag.map(|flag| At::new(flag, value.span()))
    }

    /// A table, as a section of its own.
    pub(super) fn table(&mut self, key: &'static str, example: &str) -> Option<Section<'a>> {
        let value = self.take(key)?;
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong(key, value, &format!("a table such as `{example}`"));
            return None;
        };
        let title =
            if self.title == "the site file" { format!("[{key}]") } else { format!("`{key}` of {}", self.title) };
        Some(Section::new(title, value.span().into(), table, self.faults))
    }

    /// Tables named by their keys: `[service.www]`, in the order of the file.
    pub(super) fn named(&mut self, key: &'static str) -> Vec<(At<String>, Section<'a>)> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong(key, value, &format!("tables such as `[{key}.name]`"));
            return Vec::new();
        };
        let mut list = Vec::new();
        for (name, value) in table {
            let title = format!("[{key}.{}]", name.get_ref());
            match value.get_ref() {
                DeValue::Table(table) => {
                    let name = At::new(name.get_ref().to_string(), name.span());
                    let section = Section::new(title, name.span, table, self.faults);
                    list.push((name, section));
                }
                _ => self.wrong(name.get_ref(), value, &format!("a table `{title}`")),
            }
        }
        // The table is sorted by key; people think in the file's order.
        list.sort_by_key(|(name, _)| name.span.start);
        list
    }

    /// Tables of a list: `[[server]]`.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong(key, value, &format!("tables, each under `[[{key}]]`"));
            return Vec::new();
        };
        let mut list = Vec::new();
        for item in array {
            match item.get_ref() {
                DeValue::Table(table) => {
                    list.push(Section::new(format!("[[{key}]]"), item.span().into(), table, self.faults));
                }
                _ => self.wrong(key, item, &format!("tables, each under `[[{key}]]`")),
            }
        }
        list
    }

    /// Every key with its string, in the order of the file: a free map such as `environment`.
    pub(super) fn strings(self) -> Vec<(At<String>, At<String>)> {
        let mut list = Vec::new();
        for (key, value) in self.table {
            match value.get_ref() {
                DeValue::String(text) => {
                    list.push((
                        At::new(key.get_ref().to_string(), key.span()),
                        At::new(text.to_string(), value.span()),
                    ));
                }
                _ => self.wrong(key.get_ref(), value, "a string"),
            }
        }
        list.sort_by_key(|(key, _)| key.span.start);
        list
    }

    /// Tells keys that nobody asked for, and keys that are missing.
    pub(super) fn finish(self) {
        let mut meant = Vec::new();
        for (key, _) in self.table {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let hint = match nearest(name, &self.known) {
                Some(near) => {
                    meant.push(near);
                    format!("; did you mean `{near}`?")
                }
                None => format!("; known keys are {}", self.known.join(", ")),
            };
            self.faults.error(key.span().into(), format!("unknown key `{name}` in {}{hint}", self.title));
        }
        for (key, example) in &self.missing {
            if !meant.contains(key) {
                self.faults.error(self.span, format!("{} lacks `{key}`; write `{example}`", self.title));
            }
        }
    }
}

/// The candidate that a misspelt word most likely means.
pub(super) fn nearest<'n>(word: &str, candidates: &[&'n str]) -> Option<&'n str> {
    let limit = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
