//! A page through every tier: balancer, web, app, database.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::{Bed, eventually};

/// What is posted over HTTPS is written on the primary, replicated, and read back from the replica.
pub(crate) fn written_and_read(bed: &Bed) -> Result<()> {
    let https = bed.https()?;
    let message = format!("greetings <from> run {}", bed.id());
    let posted = post(bed, &message)?;
    ensure!(posted == "/guestbook", "redirected to {posted:?}");
    let escaped = message.replace('<', "&lt;").replace('>', "&gt;");
    eventually(DEADLINE, "the entry is on the page", || {
        let page = bed.get(&https, "/guestbook")?;
        ensure!(page.status == 200, "{}", page.status);
        let text = page.text();
        ensure!(text.contains("<b id=\"database\">10.0.1.32</b>"), "not read from the replica db2:\n{text}");
        Ok(text.contains(&escaped))
    })?;
    let json: serde_json::Value = serde_json::from_slice(&bed.get(&https, "/guestbook.json")?.body)?;
    let entries = json["entries"].as_array().context("entries")?;
    ensure!(entries.iter().any(|entry| entry["message"] == message.as_str()), "{json}");
    let page = bed.get(&https, "/")?;
    ensure!(page.status == 200 && page.text().contains("guest book"), "the static page: {}", page.status);
    Ok(())
}

/// Over new connections each web server and each app server answers.
pub(crate) fn servers_vary(bed: &Bed) -> Result<()> {
    let https = bed.https()?;
    let (mut web, mut app) = (BTreeSet::new(), BTreeSet::new());
    eventually(DEADLINE, "both web and both app servers answer", || {
        let page = bed.get(&https, "/guestbook")?;
        web.insert(page.header("x-served-by").to_owned());
        app.insert(page.header("x-app-server").to_owned());
        Ok(web.len() >= 2 && app.len() >= 2)
    })
    .with_context(|| format!("seen: {web:?} and {app:?}"))?;
    ensure!(web.iter().eq(["web1", "web2"]) && app.iter().eq(["app1", "app2"]), "{web:?} and {app:?}");
    Ok(())
}

/// Posts an entry; returns where the answer leads.
fn post(bed: &Bed, message: &str) -> Result<String> {
    let https = bed.https()?;
    let response = bed.post(&https, "/guestbook", &[("author", "Ada"), ("message", message)])?;
    ensure!(response.status == 303, "{}: {}", response.status, response.text());
    Ok(response.header("location").to_owned())
}

const DEADLINE: Duration = Duration::from_secs(25);
