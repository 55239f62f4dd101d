//! JSON as Python's `json.dumps` writes it.

pub(crate) use openstack_client::json_text::{json_text, json_text_indented};
