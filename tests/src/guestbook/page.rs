//! The guest book's pages as HTML. Whatever a visitor wrote is escaped.

use std::fmt::Write;

use super::entries::Listing;

/// The page of entries with the form.
pub(super) fn entries(listing: &Listing, server: &str) -> String {
    let mut list = String::new();
    for entry in &listing.entries {
        let (author, message, written) = (escaped(&entry.author), escaped(&entry.message), escaped(&entry.written));
        // Writing to a String cannot fail.
        let _ = writeln!(
            list,
            "<li><p class=\"message\">{message}</p>\
             <p class=\"by\">{author}, <time datetime=\"{written}\">{written}</time></p></li>"
        );
    }
    if list.is_empty() {
        list.push_str("<li><p class=\"message\">Nobody has written yet. Be the first.</p></li>\n");
    }
    let (total, server, database) = (listing.total, escaped(server), escaped(&listing.database));
    let entries = if total == 1 { "entry" } else { "entries" };
    document(&format!(
        r#"<h1>Guest book</h1>
<form method="post" action="/guestbook">
<label>Your name <input name="author" maxlength="80" required autocomplete="name"></label>
<label>Your message <textarea name="message" maxlength="2000" rows="3" required></textarea></label>
<button>Sign</button>
</form>
<ol class="entries" reversed start="{total}">
{list}</ol>
<footer>{total} {entries}, read from the database server <b id="database">{database}</b>,
rendered by the app server <b id="server">{server}</b>. <a href="/">Home</a></footer>"#
    ))
}

/// A page with one message.
pub(super) fn message(title: &str, text: &str) -> String {
    document(&format!(
        "<h1>{}</h1>\n<p>{}</p>\n<footer><a href=\"/guestbook\">Guest book</a></footer>",
        escaped(title),
        escaped(text)
    ))
}

fn document(main: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Guest book</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n<main>\n{main}\n</main>\n</body>\n</html>\n"
    )
}

fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut safe, character| {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
        safe
    })
}

const CSS: &str = "\
:root { color-scheme: light dark; }
body { font: 1.05rem/1.6 system-ui, sans-serif; margin: 0; background: Canvas; color: CanvasText; }
main { max-width: 40rem; margin: 3rem auto; padding: 0 1.5rem; }
label { display: block; margin: 0 0 .8rem; }
input, textarea { box-sizing: border-box; width: 100%; font: inherit; padding: .4rem .6rem; }
button { font: inherit; padding: .4rem 1.4rem; }
.entries { list-style: none; padding: 0; margin: 2rem 0; }
.entries li { border-top: 1px solid color-mix(in srgb, CanvasText 20%, Canvas); padding: .8rem 0; }
.message { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.by, footer { margin: 0; font-size: .85rem; opacity: .75; }
";

#[cfg(test)]
mod tests {
    use super::super::entries::Entry;
    use super::*;

    #[test]
    fn what_visitors_write_is_escaped() {
        let entry = Entry { id: 1, author: "\"A'".into(), message: "<script>&".into(), written: "now".into() };
        let page = entries(&Listing { database: "::1".into(), total: 1, entries: vec![entry] }, "app1");
        assert!(page.contains("&lt;script&gt;&amp;") && page.contains("&quot;A&#39;"), "{page}");
        assert!(!page.contains("<script>"), "{page}");
        assert!(page.contains("<b id=\"server\">app1</b>"), "{page}");
    }
}
