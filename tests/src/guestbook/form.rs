//! The form of a new entry: `application/x-www-form-urlencoded`, decoded and checked.

/// A new entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) author: String,
    pub(super) message: String,
}

impl Form {
    /// Reads a request's body. The error is a sentence for whoever sent it.
    pub(super) fn parse(body: &[u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(body).map_err(|_| "The form is not UTF-8.")?;
        let (mut author, mut message) = (None, None);
        for pair in text.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let field = match key {
                "author" => &mut author,
                "message" => &mut message,
                _ => continue,
            };
            if field.replace(decode(value).ok_or("The form is not encoded as forms are.")?).is_some() {
                return Err("A field of the form occurs twice.");
            }
        }
        Ok(Self {
            author: checked(author, MAX_AUTHOR_CHARS, "Your name must have 1 to 80 characters.")?,
            message: checked(message, MAX_MESSAGE_CHARS, "Your message must have 1 to 2000 characters.")?,
        })
    }
}

fn checked(field: Option<String>, most: usize, fault: &'static str) -> Result<String, &'static str> {
    let text = field.unwrap_or_default().trim().to_owned();
    // PostgreSQL's text holds every character but this one.
    if text.is_empty() || text.chars().count() > most || text.contains('\0') { Err(fault) } else { Ok(text) }
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => hexadecimal(rest.next()?)? << 4 | hexadecimal(rest.next()?)?,
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16)?.try_into().ok()
}

const MAX_AUTHOR_CHARS: usize = 80;
const MAX_MESSAGE_CHARS: usize = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_decoded() {
        let form = Form::parse(b"author=Ada+L%2e&message=%e2%9c%93+1%26+2&button=").expect("a form");
        assert_eq!((form.author.as_str(), form.message.as_str()), ("Ada L.", "✓ 1& 2"));
    }

    #[test]
    fn bad_forms_are_refused() {
        let long = format!("author=a&message={}", "x".repeat(MAX_MESSAGE_CHARS + 1));
        let cases: [&[u8]; 9] = [
            b"",
            b"author=a",
            b"author=+&message=b",
            b"author=a&message=%",
            b"author=a&message=%4",
            b"author=a&message=%ff",
            b"author=a&message=%00",
            b"author=a&author=b&message=c",
            long.as_bytes(),
        ];
        for body in cases {
            assert!(Form::parse(body).is_err(), "{:?}", String::from_utf8_lossy(body));
        }
    }
}
