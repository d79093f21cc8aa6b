//! `limit` of a `[[rule]]`: what each source may do, how often, and which sources share it.

use foobar_common::rules::{Limit, Limited, Protocol, Rate};

use crate::site::section::{Section, nearest};

/// Highest number in a rate, a burst, or of open connections.
const COUNT_MAX: u64 = 10_000_000;
/// Longest time in which an emptied bucket fills up again.
const REFILL_MS_MAX: u64 = 24 * 3_600_000;
/// Units of rates and their milliseconds.
const UNITS: [(&str, u32); 3] = [("second", 1_000), ("minute", 60_000), ("hour", 3_600_000)];
/// What is limited; exactly one.
const KINDS: [&str; 3] = ["packets", "connections", "open"];
/// How a limit is written.
const EXAMPLE: &str = "{ connections = \"10/minute\", burst = 20, per = 32, per6 = 64 }";

/// The rule's `limit`; `None` when it is absent or was refused.
pub(super) fn read(section: &mut Section<'_>, protocol: Option<&Protocol>) -> Option<Limit> {
    let mut table = section.table("limit", EXAMPLE)?;
    let given: Vec<&'static str> = KINDS.into_iter().filter(|kind| table.has(kind)).collect();
    if let [first, second, ..] = given[..] {
        let message =
            format!("{} limits `{first}` and `{second}`; a rule has one limit: write a second rule", table.title);
        table.faults.error(table.place(second), message);
    }
    let packets = table.parse("packets", "a rate", rate);
    let connections = table.parse("connections", "a rate", rate);
    let open = table.integer("open", 1..=COUNT_MAX).and_then(|open| u32::try_from(open.value).ok());
    let rate = packets.or(connections);
    let burst = burst(&mut table, given.first() == Some(&"open"), rate.as_deref().copied());
    let per4 = table.integer("per", 1..=32).map_or(Some(32), |per| u8::try_from(per.value).ok());
    let per6 = table.integer("per6", 1..=128).map_or(Some(64), |per| u8::try_from(per.value).ok());
    if let Some(kind) = given.iter().find(|kind| **kind != "packets")
        && protocol.is_some_and(|protocol| !matches!(protocol, Protocol::Tcp(_)))
    {
        let message = format!(
            "`{kind}` in {}: only tcp has connections; set `protocol = \"tcp\"`, or limit `packets`",
            table.title
        );
        table.faults.error(table.place(kind), message);
    }
    let (title, span, faults, before) = (table.title.clone(), table.span, table.faults, table.faults.len());
    table.finish();
    let Some(kind) = given.first() else {
        // A misspelt key has been told, and is probably what is missing.
        if faults.len() == before {
            let message =
                format!("{title} limits nothing; name `packets`, `connections` or `open`, such as `{EXAMPLE}`");
            faults.error(span, message);
        }
        return None;
    };
    let with_burst = |rate: Rate| Some(Rate { burst: burst?, ..rate });
    let what = match *kind {
        "packets" => Limited::Packets(with_burst(rate?.value)?),
        "connections" => Limited::Connections(with_burst(rate?.value)?),
        _ => Limited::Open(open?),
    };
    Some(Limit { what, per4: per4?, per6: per6? })
}

/// The given burst, or one second's worth; a bucket that takes days to fill is a mistake.
fn burst(table: &mut Section<'_>, open: bool, rate: Option<Rate>) -> Option<u32> {
    if open {
        table.refuse("burst", "open connections are counted, not paced; leave it out");
        return None;
    }
    let given = table.integer("burst", 1..=COUNT_MAX);
    if given.is_none() && table.has("burst") {
        return None;
    }
    let rate = rate?;
    let burst = given.map_or_else(|| u64::from(rate.burst), |burst| burst.value);
    let refill_ms = burst * u64::from(rate.period_ms) / u64::from(rate.count);
    if refill_ms > REFILL_MS_MAX {
        let message = format!(
            "a `burst` of {burst} at this rate takes {} hours to fill again, and 24 are the most; make it smaller",
            refill_ms / 3_600_000
        );
        table.faults.error(table.place("burst"), message);
        return None;
    }
    u32::try_from(burst).ok()
}

/// `N/second`, `N/minute`, `N/hour`; the burst is what comes in a second, at least 1.
fn rate(text: &str) -> Result<Rate, String> {
    let (count, unit) = text
        .split_once('/')
        .ok_or_else(|| format!("`{text}` is no rate; write `1000/second`, `10/minute` or `5/hour`"))?;
    let (count, unit) = (count.trim(), unit.trim());
    let Some((_, period_ms)) = UNITS.into_iter().find(|(name, _)| *name == unit) else {
        let names = UNITS.map(|(name, _)| name);
        let hint = nearest(unit, &names)
            .map_or_else(|| format!("write {}", names.join(", ")), |near| format!("did you mean `{near}`?"));
        return Err(format!("`{unit}` in `{text}` is no unit of time; {hint}"));
    };
    match count.parse::<u64>() {
        Ok(0) => Err(format!("`{text}` lets nothing by; write `action = \"deny\"`, or a limit above zero")),
        Ok(number) if number <= COUNT_MAX => {
            let count = u32::try_from(number).map_err(|error| error.to_string())?;
            let burst = count.div_ceil(period_ms / 1_000);
            Ok(Rate { count, period_ms, burst })
        }
        _ => Err(format!("`{count}` in `{text}` is no number from 1 to {COUNT_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_a_burst_of_a_second() {
        let of = |count, period_ms, burst| Ok(Rate { count, period_ms, burst });
        assert_eq!(rate("1000/second"), of(1000, 1_000, 1000));
        assert_eq!(rate("10/minute"), of(10, 60_000, 1));
        assert_eq!(rate("61/minute"), of(61, 60_000, 2));
        assert_eq!(rate("1 / hour"), of(1, 3_600_000, 1));
        for bad in ["10", "/second", "-1/second", "0/second", "1/day", "1e3/second", "10000001/second", "1/second/2"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
