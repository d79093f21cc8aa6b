//! Rows as a table for people.

use super::row::Row;

const HEAD: [&str; 8] = ["case", "unit", "ours (min)", "peer", "ratio", "target", "met", "spread"];

/// The table's text: a line a row, columns aligned.
pub(super) fn text(rows: &[Row]) -> String {
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default())
        .collect();
    let mut text = String::new();
    for line in lines {
        let padded: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += &format!("\n  {}", padded.join("  ").trim_end());
    }
    text + "\n"
}

fn cells(row: &Row) -> [String; HEAD.len()] {
    let number = |value: f64| match value {
        value if value.is_nan() => "none".to_owned(),
        value if value < 1000.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    };
    // Nothing to compare with, or nothing on both sides.
    let ratio = |text: String| if row.ratio.is_finite() { text } else { "–".to_owned() };
    let sign = |met| if met { "yes" } else { "no" };
    [
        row.case.clone(),
        row.unit.to_owned(),
        format!("{} ({})", number(row.ours), number(row.min)),
        format!("{} {}", row.peer, number(row.peer_value)),
        ratio(format!("{:.2}", row.ratio)),
        row.target.map_or_else(|| "–".to_owned(), |target| format!("{target}")),
        row.met.map_or_else(|| "–".to_owned(), |met| sign(met).to_owned()),
        ratio(format!("±{:.0} % of {}", row.spread * 50.0, row.runs)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::row::Measured;
    use super::super::samples::Samples;
    use super::*;

    #[test]
    fn what_a_peer_has_not_is_compared_with_nothing() {
        let mut ours = Samples::default();
        ours.add(1_500.0);
        let peer = Measured { name: "peer", samples: &Samples::default() };
        let row = Row::new(("failover", "ms"), "fence", &ours, peer, None);
        assert_eq!(cells(&row), ["fence", "ms", "1500 (1500)", "peer none", "–", "–", "–", "–"]);
    }
}
