//! `etcd` of `[database]`: the cluster that keeps the lease, and what servers and it prove themselves with.

use super::Reader;
use crate::site::model::Etcd;
use crate::site::section::Section;
use crate::site::text;

/// Members of a cluster at the most.
const ENDPOINTS_MAX: usize = 9;

pub(super) fn read(reader: &Reader<'_>, mut table: Section<'_>) -> Option<Etcd> {
    let endpoints = table.list("endpoints", "a list of its members' addresses", text::endpoint);
    let endpoints = table.need("endpoints", endpoints, "endpoints = [\"https://10.0.1.51:2379\"]");
    let ca = reader.path(&mut table, "ca");
    let certificate = reader.path(&mut table, "certificate");
    let key = reader.path(&mut table, "key");
    let faults = table.faults;
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (Some(alone), None) if !table.has("key") => {
            faults.error(alone.span, "a certificate is of no use without its `key`; name both or none");
            None
        }
        (None, Some(alone)) if !table.has("certificate") => {
            faults.error(alone.span, "a key is of no use without its `certificate`; name both or none");
            None
        }
        _ => None,
    };
    table.finish();
    let endpoints = endpoints?;
    if endpoints.is_empty() || endpoints.len() > ENDPOINTS_MAX {
        faults.error(endpoints.span, format!("name 1 to {ENDPOINTS_MAX} members of the etcd cluster"));
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        if endpoints[..index].iter().any(|before| before.value == endpoint.value) {
            faults.error(endpoint.span, format!("`{}` is named twice", endpoint.value));
        } else if endpoint.tls != endpoints[0].tls {
            faults
                .error(endpoint.span, "some members speak TLS and some do not: write `https://` or `http://` for all");
        }
    }
    if let Some(first) = endpoints.first().filter(|first| !first.tls) {
        let file = ca.as_ref().or(identity.as_ref().map(|(certificate, _)| certificate));
        match file {
            Some(file) => {
                faults.error(file.span, "`http` looks at no certificate: write `https://`, or leave this out");
            }
            None => {
                faults.warning(first.span, "by `http` whoever reaches etcd says who leads the database; use `https`");
            }
        }
    }
    Some(Etcd { endpoints: endpoints.value, ca, identity })
}
