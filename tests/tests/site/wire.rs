//! Between balancer and web servers nothing of a request over HTTPS is readable.

use anyhow::{Context, Result, ensure};
use foobar_tests::Bed;
use foobar_tests::capture::{Capture, Frame};
use foobar_tests::client::Target;
use foobar_tests::host::Host;

/// A marker in path, form and answer is on the wire in the plain path (the capture sees it) and never in the TLS path.
pub(crate) fn encrypted(bed: &Bed) -> Result<()> {
    let plain = capture(bed, &bed.plain(), "marker-over-plain")?;
    ensure!(seen(&plain, "marker-over-plain") > 0, "the capture is blind: it does not see the plain path");
    let tls = capture(bed, &bed.https()?, "marker-over-tls")?;
    ensure!(tls.iter().any(at_web), "no frame at all between balancer and web servers");
    let readable = seen(&tls, "marker-over-tls");
    ensure!(readable == 0, "{readable} frames between balancer and web servers are readable");
    Ok(())
}

/// Frames on the switch while `marker` is sent and comes back.
fn capture(bed: &Bed, target: &Target, marker: &str) -> Result<Vec<Frame>> {
    let capture = Capture::start(bed.host("switch")?)?;
    let page = bed.get(target, &format!("/?{marker}"))?;
    ensure!(page.status == 200, "{}", page.status);
    let posted = bed.post(target, "/guestbook", &[("author", "Eve"), ("message", marker)])?;
    ensure!(posted.status == 303, "{}: {}", posted.status, posted.text());
    bed.get(target, "/guestbook").context("reading back")?;
    capture.stop()
}

/// Frames with `marker` that arrive at a web server from the balancer's side, or leave it to there.
fn seen(frames: &[Frame], marker: &str) -> usize {
    frames.iter().filter(|frame| at_web(frame) && frame.contains(marker.as_bytes())).count()
}

/// The ports that nginx serves; what a web server asks of the app tier is not meant.
fn at_web(frame: &Frame) -> bool {
    let web = ["web1", "web2"].into_iter().filter_map(Host::named);
    let served =
        |end: std::net::SocketAddr| web.clone().any(|host| host.has(end.ip())) && [8080, 8443].contains(&end.port());
    frame.endpoints().is_some_and(|(from, to)| served(from) || served(to))
}
