//! What is asked of OpenStack.

use std::fmt::Write;

pub mod cfn;
pub mod keystone;

/// Text for one segment of a path or one value of a query: percent-encoded but for the unreserved
/// characters of RFC 3986, section 2.3.
pub(crate) fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            // Writing into a string has no way to fail.
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
    out
}
