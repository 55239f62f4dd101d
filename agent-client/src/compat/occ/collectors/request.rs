//! A URL that holds the metadata, such as a Swift object's.

use super::{Collectors, Found, fetch, needed, object};
use openstack_client::http::{Method, Request};

pub(super) fn collect(all: &mut Collectors<'_>) -> Found {
    let (url, timeout) = {
        let settings = &all.config.request;
        (needed(&settings.metadata_url, "metadata_url")?, settings.timeout)
    };
    // Nothing follows from its answer, but servers were always asked so.
    let head = Request::new(Method::Head, url).timeout(timeout);
    all.client.send(&head).map_err(|error| error.to_string())?;
    let response = fetch(&all.client, &Request::get(url).timeout(timeout))?;
    let content = object(&response.body)?;
    Ok(all.exploded("request", content, &all.config.deployment_keys))
}
