//! What operators have said of backends; it outlives agents and reboots.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::health::{Order, Orders};
use crate::sets::replace_file;

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    service: String,
    server: String,
    #[serde(flatten)]
    order: Order,
}

/// Reads them; none where there is no file.
///
/// # Errors
/// The file is no list of orders.
pub(super) fn read(state: &Path) -> Result<Orders> {
    let path = path(state);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Orders::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let entries: Vec<Entry> = serde_json::from_str(&text).with_context(|| {
        format!("{} is damaged: it holds which backends are drained; remove it, and all are enabled", path.display())
    })?;
    Ok(entries.into_iter().map(|entry| ((entry.service, entry.server), entry.order)).collect())
}

/// Writes them, whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub(super) fn write(state: &Path, orders: &Orders) -> Result<()> {
    let entries: Vec<Entry> = orders
        .iter()
        .map(|((service, server), order)| Entry { service: service.clone(), server: server.clone(), order: *order })
        .collect();
    replace_file(&path(state), serde_json::to_string_pretty(&entries)?.as_bytes())
}

fn path(state: &Path) -> PathBuf {
    state.join("backends.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Duty;

    #[test]
    fn orders_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), Orders::new());
        let of = |server: &str| ("www".to_owned(), server.to_owned());
        let orders = Orders::from([
            (of("web1"), Order { duty: Duty::Draining, weight: None }),
            (of("web2"), Order { duty: Duty::Enabled, weight: Some(3) }),
        ]);
        write(folder.path(), &orders).unwrap();
        assert_eq!(read(folder.path()).unwrap(), orders);
        fs::write(path(folder.path()), "[").unwrap();
        assert!(format!("{:#}", read(folder.path()).unwrap_err()).contains("is damaged"));
    }
}
