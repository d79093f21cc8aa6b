//! The two text formats: OpenMetrics, which the registry writes, and Prometheus' own older one, made from it.
//!
//! A server speaks OpenMetrics only to a client that asks for it. `curl`, `promtool check metrics` and old scrapers
//! expect the older format, in which a counter's family bears its `_total`.

/// Which text format is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Prometheus,
}

impl Format {
    /// The format that fits an `Accept` header.
    pub fn accepted(accept: &str) -> Self {
        let wanted = accept.split(',').any(|kind| kind.trim_start().starts_with("application/openmetrics-text"));
        if wanted { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The same metrics in Prometheus' text format.
pub fn to_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // Its name depends on the type, which comes next.
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                _ => ("", kind),
            };
            if let Some((_, help)) = help.take().filter(|(helped, _)| *helped == name) {
                text.push_str(&format!("# HELP {name}{suffix} {help}\n"));
            }
            text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            // An exemplar follows the value behind " # ", which no label of ours contains.
            text.push_str(line.split(" # {").next().unwrap_or(line));
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_older_format() {
        let open = "# HELP a_bytes Bytes.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\na_bytes_total{x=\"y\"} 1\n\
                    # HELP b Version.\n# TYPE b info\nb_info{version=\"1\"} 1\n\
                    # TYPE c histogram\nc_bucket{le=\"+Inf\"} 1 # {trace=\"t\"} 0.5\nc_sum 1.0\nc_count 1\n# EOF\n";
        let expected = "# HELP a_bytes_total Bytes.\n# TYPE a_bytes_total counter\na_bytes_total{x=\"y\"} 1\n\
                        # HELP b_info Version.\n# TYPE b_info gauge\nb_info{version=\"1\"} 1\n\
                        # TYPE c histogram\nc_bucket{le=\"+Inf\"} 1\nc_sum 1.0\nc_count 1\n";
        assert_eq!(to_prometheus(open), expected);
    }

    #[test]
    fn open_metrics_only_for_those_who_ask() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        assert_eq!(Format::accepted("*/*"), Format::Prometheus);
        assert_eq!(Format::accepted(""), Format::Prometheus);
    }
}
