//! `config show`: each setting, its value in force, and where that comes from.

use serde_json::{Value, json};

use super::cli::{print, print_value};
use super::words::line;
use crate::config::Origin;
use crate::control::message::SCHEMA;
use crate::exit::{Abort, Exit};

/// Shows them.
pub fn show(origins: &[Origin], json: bool) -> Result<Exit, Abort> {
    if json {
        let entry = |origin: &Origin| -> (String, Value) {
            let (value, from) = (&origin.value, &origin.from);
            (origin.name.to_owned(), json!({"value": value, "from": from}))
        };
        let settings: serde_json::Map<String, Value> = origins.iter().map(entry).collect();
        print_value(&json!({"schema": SCHEMA, "settings": settings}))?;
    } else {
        print(&render(origins))?;
    }
    Ok(Exit::Ok)
}

fn render(origins: &[Origin]) -> String {
    let shown = |origin: &Origin| match origin.value.as_str() {
        "" => "(none)".to_owned(),
        value => line(value),
    };
    let names = origins.iter().map(|origin| origin.name.len()).max().unwrap_or(0);
    let values = origins.iter().map(|origin| shown(origin).chars().count()).max().unwrap_or(0);
    let row = |origin: &Origin| {
        let (name, value, from) = (origin.name, shown(origin), line(&origin.from));
        format!("{name:<names$}  {value:<values$}  {from}")
    };
    origins.iter().map(row).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_aligned_with_their_origins() {
        let origin =
            |name, value: &str, from: &str| Origin { name, value: value.into(), from: from.into() };
        let origins = [
            origin("state_dir", "/var/lib/agent-client", "default"),
            origin("servers", "", "default"),
            origin("keep_alive", "3s", "/etc/agent-client/conf.d/10.toml:1"),
        ];
        insta::assert_snapshot!(render(&origins));
    }
}
