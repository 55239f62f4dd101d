//! Files that cloud-init left: what Heat put into the user data at boot.

use std::path::Path;

use serde_json::Value;

use super::{Collectors, Found, Missing, read_json};
use crate::compat::occ::items::Item;

/// All files in one, later ones over earlier ones. Deployments are not taken apart.
pub(super) fn collect(all: &mut Collectors<'_>) -> Found {
    let mut content = Value::Null;
    for path in all.config.heat_local_paths.iter().map(Path::new).filter(|path| path.exists()) {
        match (read_json(path), &mut content) {
            (Ok(Value::Object(more)), Value::Object(content)) => content.extend(more),
            (Ok(value), held) if is_nothing(held) => *held = value,
            (Ok(_), _) => {
                all.warnings.push(format!("{} holds no object; passed over", path.display()));
            }
            (Err(error), _) => all.warnings.push(error),
        }
    }
    if is_nothing(&content) {
        let paths = &all.config.heat_local_paths;
        return Err(Missing::Unavailable(format!("Local metadata not found ({paths:?})")));
    }
    Ok(vec![Item::main("heat_local", content)])
}

/// What Python takes for false.
pub(super) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
    }
}
