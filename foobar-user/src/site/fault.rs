//! What is wrong with a site file: every fault with its place and what to do about it, printed as a compiler would.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::at::Span;

/// Whether a fault refuses the site file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is taken; a person should look.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whether it refuses the file.
    pub severity: Severity,
    /// The bytes of the file that it is about.
    pub span: Span,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Fault {
    /// A fault that refuses the file.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, span, message: message.into() }
    }

    /// A fault that is only told.
    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, span, message: message.into() }
    }
}

/// A site file's text and where it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its path, as people typed it.
    pub path: PathBuf,
    /// Its text.
    pub text: Arc<str>,
}

impl Source {
    /// Line and column, both from 1, of a byte; columns count characters.
    #[must_use]
    pub fn position(&self, byte: usize) -> (usize, usize) {
        let byte = self.text.floor_char_boundary(byte.min(self.text.len()));
        let before = &self.text[..byte];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// The text of a line, counted from 1.
    fn line(&self, line: usize) -> &str {
        self.text.lines().nth(line - 1).unwrap_or("")
    }
}

/// The faults of one site file, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    source: Source,
    list: Vec<Fault>,
}

impl Faults {
    /// Sorts faults by their place; the same fault found twice is told once.
    #[must_use]
    pub fn new(source: Source, mut list: Vec<Fault>) -> Self {
        list.sort_by(|a, b| (a.span.start, &a.message).cmp(&(b.span.start, &b.message)));
        list.dedup();
        Self { source, list }
    }

    /// The file could not be read at all.
    pub(super) fn unreadable(path: &Path, message: String) -> Self {
        let source = Source { path: path.to_owned(), text: Arc::from("") };
        Self { source, list: vec![Fault::error(Span::default(), message)] }
    }

    /// Every fault, in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.list.iter()
    }

    /// Line, column and fault, in the file's order.
    pub fn positions(&self) -> impl Iterator<Item = (usize, usize, &Fault)> {
        self.list.iter().map(|fault| {
            let (line, column) = self.source.position(fault.span.start);
            (line, column, fault)
        })
    }

    /// Whether nothing at all was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many faults refuse the file.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.list.iter().filter(|fault| fault.severity == Severity::Error).count()
    }

    /// `Err` when any fault refuses the file.
    ///
    /// # Errors
    /// These very faults.
    pub fn refuse_errors(self) -> Result<Self, Self> {
        if self.errors() == 0 { Ok(self) } else { Err(self) }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.source.path.display();
        for (index, (line, column, fault)) in self.positions().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            let warning = if fault.severity == Severity::Warning { "warning: " } else { "" };
            if self.source.text.is_empty() {
                write!(f, "{path}: {warning}{}", fault.message)?;
                continue;
            }
            let text = self.source.line(line);
            let width = text.chars().count().saturating_sub(column - 1).max(1);
            let length = self.source.text.get(fault.span.start..fault.span.end).map_or(1, |s| s.chars().count());
            writeln!(f, "{path}:{line}:{column}: {warning}{}", fault.message)?;
            writeln!(f, "{line:>5} | {text}")?;
            // Tabs stay tabs, so that the caret stands under its character.
            let lead: String = text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            write!(f, "      | {lead}{}", "^".repeat(length.clamp(1, width)))?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
