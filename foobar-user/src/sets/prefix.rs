//! Prefixes as operators type them: an address alone is the prefix of that address.

use std::net::IpAddr;

use ipnet::IpNet;

/// Reads a prefix or an address.
///
/// # Errors
/// Neither, or bits beyond the prefix length: then the two things that may have been meant.
pub fn parse(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let prefix: IpNet =
        text.parse().map_err(|_| format!("`{text}` is neither an address nor a prefix such as 198.51.100.0/24"))?;
    if prefix.trunc() != prefix {
        return Err(format!(
            "`{text}` has bits beyond its length: is {} meant, or {} alone?",
            prefix.trunc(),
            prefix.addr()
        ));
    }
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_prefixes_are_read() {
        assert_eq!(parse("198.51.100.7").unwrap().to_string(), "198.51.100.7/32");
        assert_eq!(parse("2001:db8::1").unwrap().to_string(), "2001:db8::1/128");
        assert_eq!(parse("198.51.100.0/24").unwrap().to_string(), "198.51.100.0/24");
        assert!(parse("198.51.100.7/24").unwrap_err().contains("198.51.100.0/24 meant, or 198.51.100.7 alone"));
        assert!(parse("example.org").unwrap_err().contains("neither"));
        assert!(parse("10.0.0.0/33").is_err());
    }
}
