//! TOML files with overrides, and how two configs differ.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// Reads a TOML file with `KEY=VALUE` overrides.
///
/// # Errors
/// The file cannot be read, is not TOML, or is refused by `T`; an override of a key
/// that cannot exist.
pub fn read<T: serde::de::DeserializeOwned>(path: &Path, set: &[String]) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut table: toml::Table =
        toml::from_str(&text).with_context(|| path.display().to_string())?;
    for assignment in set {
        apply(&mut table, assignment).with_context(|| format!("override {assignment}"))?;
    }
    // Parsed from text again, so that errors name a line.
    let text = if set.is_empty() {
        text
    } else {
        toml::to_string(&table)?
    };
    toml::from_str(&text).with_context(|| match set {
        [] => path.display().to_string(),
        _ => format!("{} with {}", path.display(), set.join(", ")),
    })
}

/// Sets `a.b.0.c=value` in a table.
///
/// # Errors
/// No `=`; a key below a value that is neither a table nor a list.
pub fn apply(table: &mut toml::Table, assignment: &str) -> Result<()> {
    let Some((path, value)) = assignment.split_once('=') else {
        bail!("no '='; write key=value, such as perplexity.max_tokens=65536");
    };
    // A value that is not TOML is a string: a path then needs no quotes besides the shell's.
    let value = match toml::from_str::<toml::Table>(&format!("value = {value}")) {
        Ok(mut parsed) => parsed.remove("value"),
        Err(_) => None,
    }
    .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let mut keys = path.trim().split('.').peekable();
    let first = keys.next().unwrap_or_default();
    if keys.peek().is_none() {
        table.insert(first.to_owned(), value);
        return Ok(());
    }
    let mut place = table
        .entry(first)
        .or_insert_with(|| toml::Value::Table(toml::Table::new()));
    while let Some(key) = keys.next() {
        let last = keys.peek().is_none();
        place = match place {
            toml::Value::Table(table) if last => {
                table.insert(key.to_owned(), value);
                return Ok(());
            }
            toml::Value::Table(table) => table
                .entry(key)
                .or_insert_with(|| toml::Value::Table(toml::Table::new())),
            toml::Value::Array(list) => {
                let len = list.len();
                let entry = key.parse::<usize>().ok().and_then(|i| list.get_mut(i));
                let Some(entry) = entry else {
                    bail!("{key} is not an entry of a list of {len} (the first is 0)");
                };
                entry
            }
            other => bail!("{key}: {other} has no keys"),
        };
        if last {
            *place = value;
            return Ok(());
        }
    }
    Ok(())
}

/// The first key in which two configs differ, with both values.
pub fn difference(at: &str, found: &toml::Value, asked: &toml::Value) -> Option<String> {
    let name = |key: &str| match at {
        "" => key.to_owned(),
        _ => format!("{at}.{key}"),
    };
    match (found, asked) {
        (toml::Value::Table(a), toml::Value::Table(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            keys.filter_map(|key| match (a.get(key), b.get(key)) {
                (Some(a), Some(b)) => difference(&name(key), a, b),
                (Some(a), None) => Some(format!("{} is {a} there, not given now", name(key))),
                (_, Some(b)) => Some(format!("{} is not given there, {b} now", name(key))),
                (None, None) => None,
            })
            .next()
        }
        (toml::Value::Array(a), toml::Value::Array(b))
            if a.len() == b.len() && a.iter().any(toml::Value::is_table) =>
        {
            let pairs = a.iter().zip(b).enumerate();
            pairs
                .filter_map(|(i, (a, b))| difference(&name(&i.to_string()), a, b))
                .next()
        }
        (toml::Value::Array(a), toml::Value::Array(b))
            if a != b && a.iter().chain(b).any(toml::Value::is_table) =>
        {
            Some(format!(
                "{at} has {} entries there, {} now",
                a.len(),
                b.len()
            ))
        }
        _ if found == asked => None,
        _ => Some(format!("{at} is {found} there, {asked} now")),
    }
}
