//! Where the guest book listens and which databases it uses: from the command line and the environment, checked once.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio_postgres::Config;

/// Validated settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// This server's name, shown on the page.
    pub server: String,
    /// Where writes go.
    pub write: Config,
    /// Where reads go.
    pub read: Config,
}

impl Settings {
    /// Settings from the command line's values and the process' environment.
    pub fn from_environment(listen: SocketAddr, server: String) -> Result<Self> {
        let password = match std::env::var_os("DATABASE_PASSWORD_FILE") {
            None => None,
            Some(path) => {
                let text = fs::read_to_string(&path)
                    .with_context(|| format!("cannot read the password in {}", path.display()))?;
                ensure!(!text.trim_end().is_empty(), "the password file {} is empty", path.display());
                Some(text.trim_end().to_owned())
            }
        };
        let database = |variable: &str| {
            let text = std::env::var(variable).with_context(|| format!("{variable} is not set"))?;
            config(&text, password.as_deref()).with_context(|| format!("{variable} is no connection string"))
        };
        Ok(Self { listen, server, write: database("DATABASE_WRITE")?, read: database("DATABASE_READ")? })
    }
}

/// A connection string in libpq's form, with what makes a dead server a quick error.
fn config(text: &str, password: Option<&str>) -> Result<Config> {
    let mut config: Config = text.parse()?;
    ensure!(!config.get_hosts().is_empty(), "it names no host");
    if let Some(password) = password {
        config.password(password);
    }
    config.application_name("guestbook").connect_timeout(CONNECT_TIMEOUT).tcp_user_timeout(TCP_USER_TIMEOUT);
    config.options("-c statement_timeout=2000 -c idle_in_transaction_session_timeout=5000");
    Ok(config)
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings_are_checked() {
        let config = config("host=10.0.9.20 dbname=guestbook user=guestbook", Some("secret")).expect("a configuration");
        assert_eq!(config.get_password(), Some(b"secret".as_slice()));
        assert!(super::config("dbname=guestbook", None).is_err());
        assert!(super::config("host=a nonsense", None).is_err());
    }
}
