//! Where the running kernel keeps what the packet path wants to know of a TCP socket.

use anyhow::Result;

use super::kernel_types::KernelTypes;

/// `SOCK_RCVBUF_LOCK`, counted in bits from the first of `sk_userlocks`.
const RECEIVE_LOCK: u32 = 1;

/// Constants of the programs that look at sockets, by their names in the object.
///
/// # Errors
/// The kernel does not describe its types: then its own cookies are all there is.
pub(super) fn constants() -> Result<[(&'static str, u32); 6]> {
    let types = KernelTypes::running()?;
    let bits = |path: &str| types.bits("tcp_sock", path);
    let locks = bits("inet_conn.icsk_inet.sk.sk_userlocks")?;
    Ok([
        ("SOCK_HALF_OPEN", bits("inet_conn.icsk_accept_queue.qlen")? / 8),
        ("SOCK_BACKLOG", bits("inet_conn.icsk_inet.sk.sk_max_ack_backlog")? / 8),
        ("SOCK_WINDOW_CLAMP", bits("window_clamp")? / 8),
        ("SOCK_LOCKS", (locks + RECEIVE_LOCK) / 8),
        ("SOCK_ERROR", bits("inet_conn.icsk_inet.sk.sk_err")? / 8),
        ("SOCK_LOCKS_RECEIVE", 1 << ((locks + RECEIVE_LOCK) % 8)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_describes_its_listeners() {
        let Ok(constants) = constants() else { return };
        for (name, value) in constants {
            assert!(value > 0 && value < 8192, "{name} {value}");
        }
    }
}
