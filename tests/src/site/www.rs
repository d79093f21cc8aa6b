//! The static pages of the bed's site.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::host::DOMAIN;

/// Size of `/small.txt`.
pub const SMALL_BYTES: usize = 128;
/// Size of `/large.bin`.
pub const LARGE_BYTES: usize = 64 << 10;

/// Writes the pages into `folder`.
pub fn write(folder: &Path) -> Result<()> {
    let large: Vec<u8> = (0..LARGE_BYTES).map(|at| (at * 31 % 251) as u8).collect();
    let small = format!("{:.<width$}\n", "A small file for measurements", width = SMALL_BYTES - 1);
    let files: [(&str, &[u8]); 4] = [
        ("index.html", &index().into_bytes()),
        ("site.css", CSS.as_bytes()),
        ("small.txt", small.as_bytes()),
        ("large.bin", &large),
    ];
    for (name, content) in files {
        fs::write(folder.join(name), content).with_context(|| format!("cannot write the page {name}"))?;
    }
    Ok(())
}

fn index() -> String {
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{DOMAIN}</title>
<link rel="stylesheet" href="/site.css">
</head>
<body>
<main>
<h1>{DOMAIN}</h1>
<p>This page is a static file from one of two nginx servers. The balancer's kernel chose which, round robin; the way from
the balancer to it was encrypted, with certificates on both sides; its own firewall let the balancer in and nobody else.</p>
<p>The <a href="/guestbook">guest book</a> goes further: through an app server to PostgreSQL. Please sign it.</p>
</main>
</body>
</html>
"#
    )
}

const CSS: &str = "\
:root { color-scheme: light dark; }
body { font: 1.05rem/1.6 system-ui, sans-serif; margin: 0; background: Canvas; color: CanvasText; }
main { max-width: 40rem; margin: 4rem auto; padding: 0 1.5rem; }
h1 { font-weight: 600; letter-spacing: -0.02em; }
a { color: LinkText; }
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_the_sizes_that_benches_name() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path()).expect("pages");
        let size = |name: &str| fs::metadata(folder.path().join(name)).expect("a page").len();
        assert_eq!((size("small.txt"), size("large.bin")), (SMALL_BYTES as u64, LARGE_BYTES as u64));
    }
}
