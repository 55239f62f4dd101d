//! A small blocking HTTP client, and what is asked of OpenStack with it.
//!
//! # Goals
//!
//! - What the Python programs asked of Keystone and Heat, on the wire as they did.
//! - Every wait and every answer is bounded.
//! - No secret in errors and `Debug`: URLs lose their query, passwords and tokens are not shown.
//!
//! # Non-goals
//!
//! - Asynchronous calls: who has a loop to keep alive calls from a thread of its own.
//!
//! # Code map
//!
//! | module | what |
//! |---|---|
//! | [`http`] | requests, responses, redirects, trust |
//! | [`keystone`] | a token for a user's id and password, and the catalogue that comes with it |
//! | [`cfn`] | a resource's metadata from Heat's CloudFormation API, signed |
//! | [`signal`] | a result to Heat, by each transport |
//! | [`json_text`] | JSON as Python writes it |
//! | `testing` | an HTTP server on loopback (feature `testing`) |

use std::fmt::Write;

pub mod cfn;
pub mod http;
pub mod json_text;
pub mod keystone;
pub mod signal;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

/// Text for one segment of a path or one value of a query: percent-encoded but for the unreserved
/// characters of RFC 3986, section 2.3.
#[must_use]
pub fn percent_encoded(text: &str) -> String {
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
