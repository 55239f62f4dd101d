//! Where a redirect leads, and what goes along.

use ureq::http::Uri;

use super::{Method, Request, Response};

/// The `Location` of a response that asks to go elsewhere.
pub(super) fn location(response: &Response) -> Option<&str> {
    matches!(response.status, 301 | 302 | 303 | 307 | 308).then(|| response.header("location"))?
}

/// The request to send next; `None` if the location is no URL.
pub(super) fn follow(request: &Request, response: &Response, location: &str) -> Option<Request> {
    let from: Uri = request.url.parse().ok()?;
    let url = join(&from, location)?;
    let to: Uri = url.parse().ok()?;
    let mut next = Request { url, ..request.clone() };
    let asks_to_read = match response.status {
        301 | 302 => {
            matches!(request.method, Method::Post | Method::Put) && !request.redirects_keep_method
        }
        303 => request.method != Method::Head,
        _ => false,
    };
    if asks_to_read {
        next.method = Method::Get;
        next.body.clear();
        next.headers.retain(|(name, _)| !name.to_ascii_lowercase().starts_with("content-"));
    }
    // To another host, or from HTTPS to HTTP, only what says nothing of us.
    if (from.scheme(), from.authority()) != (to.scheme(), to.authority()) {
        let harmless = ["accept", "content-type"];
        next.headers.retain(|(name, _)| harmless.contains(&name.to_ascii_lowercase().as_str()));
    }
    Some(next)
}

/// Resolves a reference, as RFC 3986, section 5.2, has it.
fn join(base: &Uri, location: &str) -> Option<String> {
    let location = location.split('#').next().unwrap_or_default();
    let (scheme, authority) = (base.scheme_str()?, base.authority()?.as_str());
    let has_scheme = location.split_once("://").is_some_and(|(scheme, _)| {
        scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    if has_scheme {
        return Some(location.to_owned());
    }
    if location.starts_with("//") {
        return Some(format!("{scheme}:{location}"));
    }
    let (path, query) = match location.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (location, String::new()),
    };
    let path = if path.starts_with('/') {
        path.to_owned()
    } else if path.is_empty() {
        base.path().to_owned()
    } else {
        let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{directory}/{path}")
    };
    Some(format!("{scheme}://{authority}{}{query}", without_dots(&path)))
}

fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for (at, segment) in segments.iter().enumerate() {
        match *segment {
            ".." => drop(kept.pop()),
            "." => {}
            other => {
                kept.push(other);
                continue;
            }
        }
        if at + 1 == segments.len() {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_resolved_as_the_rfc_says() {
        let base: Uri = "http://a:8/b/c/d?q".parse().unwrap();
        for (location, expected) in [
            ("https://x/y?z", "https://x/y?z"),
            ("//x/y", "http://x/y"),
            ("/y", "http://a:8/y"),
            ("/y?to=http://z", "http://a:8/y?to=http://z"),
            ("y", "http://a:8/b/c/y"),
            ("./y/", "http://a:8/b/c/y/"),
            ("../y", "http://a:8/b/y"),
            ("../../../y", "http://a:8/y"),
            ("..", "http://a:8/b/"),
            (".", "http://a:8/b/c/"),
            ("?y", "http://a:8/b/c/d?y"),
            ("", "http://a:8/b/c/d"),
            ("y#z", "http://a:8/b/c/y"),
        ] {
            assert_eq!(join(&base, location).as_deref(), Some(expected), "{location:?}");
        }
        let root: Uri = "http://a".parse().unwrap();
        assert_eq!(join(&root, "y").as_deref(), Some("http://a/y"));
    }
}
