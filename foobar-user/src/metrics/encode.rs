//! Writing the samples of one family of a snapshot.
//!
//! Samples with the same labels become one, because a repeated series makes Prometheus refuse it: counters are
//! summed (one rule of the site file may be two in the kernel, one a family), of gauges the last is kept.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::family::Family;

/// Writes a counter; without samples the family is left out.
pub(super) fn counter<'a, V, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    family: &Family,
    samples: impl IntoIterator<Item = ([&'a str; N], V)>,
) -> fmt::Result
where
    V: EncodeCounterValue + AddAssign,
{
    let mut sums = BTreeMap::new();
    for (labels, value) in samples {
        match sums.get_mut(&labels) {
            Some(sum) => *sum += value,
            None => {
                sums.insert(labels, value);
            }
        }
    }
    if sums.is_empty() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(family.name, family.help, None, MetricType::Counter)?;
    for (values, value) in sums {
        let labels = labels(family, &values);
        if labels.is_empty() {
            metric.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        } else {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
    }
    Ok(())
}

/// Writes a gauge; without samples the family is left out.
pub(super) fn gauge<'a, V, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    family: &Family,
    samples: impl IntoIterator<Item = ([&'a str; N], V)>,
) -> fmt::Result
where
    V: EncodeGaugeValue,
{
    let last: BTreeMap<_, _> = samples.into_iter().collect();
    if last.is_empty() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(family.name, family.help, None, MetricType::Gauge)?;
    for (values, value) in last {
        let labels = labels(family, &values);
        if labels.is_empty() {
            metric.encode_gauge(&value)?;
        } else {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
    }
    Ok(())
}

/// Writes an info.
pub(super) fn info<const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    family: &Family,
    values: [&str; N],
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(family.name, family.help, None, MetricType::Info)?;
    metric.encode_info(&labels(family, &values))
}

fn labels<'a>(family: &Family, values: &[&'a str]) -> Vec<(&'static str, &'a str)> {
    debug_assert_eq!(family.labels.len(), values.len(), "{} has other labels", family.name);
    family.labels.iter().copied().zip(values.iter().copied()).collect()
}
