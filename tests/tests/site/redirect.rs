//! Plain HTTP leads to HTTPS.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use foobar_tests::Bed;
use foobar_tests::client::Target;
use foobar_tests::host::{DOMAIN, VIP};

/// Port 80 answers every path with its HTTPS address.
pub(crate) fn port_80(bed: &Bed) -> Result<()> {
    let target = Target { address: SocketAddr::from((VIP, 80)), host: DOMAIN.to_owned(), tls: None };
    for path in ["/", "/guestbook?page=2"] {
        let response = bed.get(&target, path)?;
        ensure!(response.status.is_redirection(), "{path}: {}", response.status);
        let location = response.header("location");
        ensure!(location == format!("https://{DOMAIN}{path}"), "{path}: {location:?}");
    }
    Ok(())
}
