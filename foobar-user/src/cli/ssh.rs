//! The ssh connection by which somebody is here: of this process, or of an ancestor, because sudo clears the environment.

use std::fs;

use foobar_user::agent::Connection;

/// sshd sets it.
const VARIABLE: &str = "SSH_CONNECTION";
/// Ancestors that are looked at; a process of the machine's first one is nobody's.
const GENERATIONS_MAX: usize = 64;

/// The connection; `None`: not by ssh, or nobody can tell.
pub(super) fn connection() -> Option<Connection> {
    let own = std::env::var(VARIABLE).ok().and_then(|text| Connection::from_ssh(&text));
    own.or_else(|| {
        let mut pid = parent("self")?;
        for _ in 0..GENERATIONS_MAX {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            if let Some(connection) = find(&environment) {
                return Some(connection);
            }
            pid = parent(&pid.to_string()).filter(|parent| *parent > 1)?;
        }
        None
    })
}

/// The connection in an environment as the kernel shows it.
fn find(environment: &[u8]) -> Option<Connection> {
    let variables = environment.split(|byte| *byte == 0).filter_map(|variable| std::str::from_utf8(variable).ok());
    let mut values = variables.filter_map(|variable| variable.strip_prefix(VARIABLE)?.strip_prefix('='));
    values.find_map(Connection::from_ssh)
}

fn parent(process: &str) -> Option<u32> {
    parent_in(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// The fourth field of `/proc/PID/stat`; the second, the program's name, may hold spaces and parentheses.
fn parent_in(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_found_in_an_environment() {
        let found = find(b"PATH=/bin\0SSH_CONNECTION=192.0.2.7 50123 10.0.1.41 22\0TERM=xterm\0").unwrap();
        assert_eq!(found.client.to_string(), "192.0.2.7:50123");
        assert_eq!(find(b"PATH=/bin\0SSH_CONNECTION_X=1\0SSH_CONNECTION=nonsense\0"), None);
        assert_eq!(find(b""), None);
    }

    #[test]
    fn a_parent_is_found_whatever_the_program_is_called() {
        assert_eq!(parent_in("42 (a) b) S 7 42 42 0"), Some(7));
        assert_eq!(parent_in("42"), None);
        assert_eq!(parent("self"), Some(std::os::unix::process::parent_id()));
    }
}
