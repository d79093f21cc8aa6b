//! The text of a cluster's `site.toml`.

use anyhow::Result;

use super::{Keeping, Shape, VIP, etcd};
use crate::cluster::server;

pub(super) fn text(shape: &Shape<'_>) -> Result<String> {
    let (member, etcd) = match shape.keeping {
        Keeping::Witness => (String::new(), String::new()),
        Keeping::Etcd => {
            let members: Vec<String> = etcd::members().iter().map(ToString::to_string).collect();
            (server(etcd::HOST, "monitor", &["eth0"])?, format!("etcd = {{ endpoints = {members:?} }}"))
        }
    };
    let check = "check = { kind = \"postgres\", interval_ms = 200, timeout_ms = 200, rise = 1, fall = 2 }";
    Ok([
        "[site]\ndomain = \"www.foobar.com\"\nadmin = [\"10.0.1.41/32\"]\npki = \"pki\"\n\n".to_owned(),
        server("lb1", "balancer", &["eth0", "eth1"])?,
        server("app1", "app", &["eth0"])?,
        shape.databases.iter().map(|name| database(shape, name)).collect::<Result<_>>()?,
        member,
        format!(
            "[service.db-write]\nlisten = \"{VIP}:5432\"\nto = \"database:5432\"\nselect = \"primary\"\nfrom = [\"app\"]\n\
             {check}\n\n[service.db-read]\nlisten = \"10.0.9.21:5432\"\nto = \"database:5432\"\nselect = \"replica\"\n\
             from = [\"app\"]\n{check}\n\n"
        ),
        format!(
            "[database]\nname = \"guestbook\"\nuser = \"guestbook\"\npassword_file = \"secrets/guestbook.password\"\n\
             replication_password_file = \"secrets/replication.password\"\nprimary = \"db1\"\n{}\n{etcd}\n\n\
             [process.postgres]\non = [\"database\"]\nkind = \"postgres\"\n",
            shape.settings
        ),
    ]
    .concat())
}

fn database(shape: &Shape<'_>, name: &str) -> Result<String> {
    let section = server(name, "database", &["eth0"])?;
    let follows = shape.follows.iter().find(|(server, _)| *server == name);
    Ok(match follows {
        Some((_, other)) => format!("{}\nfollows = \"{other}\"\n\n", section.trim_end()),
        None => section,
    })
}
