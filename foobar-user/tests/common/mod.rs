//! A good site file, and edits of it.

/// Every part of a site, nothing wrong with it.
pub(crate) const GOOD: &str = include_str!("site.toml");

/// The good file with one piece of text replaced; the piece must be there, and the first one is taken.
pub(crate) fn edited(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "the good file holds no `{from}`");
    GOOD.replacen(from, to, 1)
}
