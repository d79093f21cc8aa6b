//! The binary `foobar`.

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).init();
    match std::env::args().nth(1).as_deref() {
        Some("edge") => foobar_user::edge::serve(foobar_user::edge::CONFIG_FD),
        _ => anyhow::bail!("usage: foobar edge"),
    }
}
