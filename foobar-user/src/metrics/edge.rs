//! Metrics of `foobar edge`, which is another process: its text is fetched from its unix socket and appended.
//!
//! The edge faces the internet and is not believed: a line is passed on only when it belongs to a family of
//! [`names`] that is the edge's, so that a captured edge cannot speak for the firewall.

use std::path::Path;

use super::family::Family;
use super::{names, unix};

const TEXT_MAX_BYTES: u64 = 1 << 20;
const LINES_MAX: usize = 10_000;

const FAMILIES: &[Family] = &[
    names::EDGE_REQUESTS,
    names::EDGE_REQUEST_DURATION,
    names::EDGE_HANDSHAKES,
    names::EDGE_CONNECTIONS,
    names::EDGE_UPSTREAM_ERRORS,
    names::EDGE_CERTIFICATE_EXPIRY,
];

/// The edge's metrics, without what is not its own.
///
/// # Errors
/// When the edge does not answer in time, or answers with too much or with no UTF-8.
pub async fn read(socket: &Path) -> anyhow::Result<String> {
    let text = unix::in_time(unix::read_all(socket, TEXT_MAX_BYTES)).await?;
    Ok(own_lines(&text))
}

fn own_lines(text: &str) -> String {
    let complete = text.rfind('\n').map_or("", |end| &text[..=end]);
    complete.split_inclusive('\n').take(LINES_MAX).filter(|line| is_own(line)).collect()
}

fn is_own(line: &str) -> bool {
    let comment = ["# HELP ", "# TYPE ", "# UNIT "].iter().find_map(|start| line.strip_prefix(start));
    let name_of = |text: &'_ str| text.split(['{', ' ', '\n']).next().unwrap_or_default().to_owned();
    match comment {
        Some(rest) => FAMILIES.iter().any(|family| family.name == name_of(rest)),
        None => {
            let name = name_of(line);
            FAMILIES.iter().any(|family| family.series().contains(&name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_lines_pass_and_others_do_not() {
        let own = "# HELP foobar_edge_requests Requests.\n# TYPE foobar_edge_requests counter\n\
                   foobar_edge_requests_total{service=\"www\",code=\"200\"} 5\nfoobar_edge_connections 1\n\
                   foobar_edge_request_duration_seconds_bucket{service=\"www\",le=\"+Inf\"} 5\n";
        let forged = "foobar_verdict_packets_total{verdict=\"drop\",reason=\"x\"} 0\n# TYPE foobar_verdict_packets gauge\n\
                      foobar_edge_other 1\n\n# a remark\nfoobar_edge_requests 1\n# EOF\nfoobar_edge_connections 7";
        assert_eq!(own_lines(&format!("{own}{forged}")), own);
    }
}
