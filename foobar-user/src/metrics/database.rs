//! Metrics of the lease of the database, as one of its servers sees it.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::{encode, names};

/// The cluster as this server's keeper knows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Database {
    /// Epoch of the lease; 0: there was none yet.
    pub epoch: u64,
    /// Whether this server holds the lease.
    pub leads: bool,
    /// Servers, beside the leader, that have every acknowledged commit.
    pub in_sync: u64,
    /// Seconds since the store of the lease was last read; `None`: it never was.
    pub store_age_seconds: Option<f64>,
    /// Transactions that only this server had committed, and that are kept beside its data.
    pub diverged_transactions: u64,
    /// Times that this server began to lead.
    pub promotions: u64,
    /// Seconds from the lease to the first client, the last time that it did.
    pub promotion_seconds: Option<f64>,
}

impl Collector for Database {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        encode::gauge(encoder, &names::DATABASE_EPOCH, [([], self.epoch)])?;
        encode::gauge(encoder, &names::DATABASE_LEADS, [([], u64::from(self.leads))])?;
        encode::gauge(encoder, &names::DATABASE_IN_SYNC, [([], self.in_sync)])?;
        encode::gauge(encoder, &names::DATABASE_STORE_AGE, self.store_age_seconds.map(|age| ([], age)))?;
        encode::gauge(encoder, &names::DATABASE_DIVERGED, [([], self.diverged_transactions)])?;
        encode::counter(encoder, &names::DATABASE_PROMOTIONS, [([], self.promotions)])?;
        encode::gauge(encoder, &names::DATABASE_PROMOTION_SECONDS, self.promotion_seconds.map(|took| ([], took)))
    }
}
