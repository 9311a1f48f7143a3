//! The `[[method]]` table of a config, with its short forms.
//!
//! `logn`, `window` and `sinks` are older than the axes that they belong to. A method that has a
//! short form is always written in it, so that the keys of its records do not change.

use longspan_rope::{Choice, FrequencyMethod, Options, PerLayer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::patterns::window::{Alpha, Params as WindowParams, Sizes};
use crate::scales::logn::Params as LogNParams;
use crate::{AttentionPattern, Method, QueryScale};

/// The keys of `[[method]]`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MethodTable {
    /// Name in tables, figures and records; unique. A label: no part of a record's key.
    name: String,
    /// Frequency method, `{ kind = "...", ... }`, or runs of layers that repeat over the model,
    /// `{ layers = [[3, { ... }], [1, { ... }]] }`; default: `none`.
    #[serde(default)]
    rope: PerLayer<dyn FrequencyMethod>,
    /// Short form of `scale`: `false`, `true`, or `{ length = "position" | "visible" }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    logn: Option<LogN>,
    /// Short form of `attention`: `SIZE`, or `{ layers = SIZE, alpha = "global" | "per_layer" }`,
    /// where `SIZE` is the option `size` of `window`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    window: Option<Window>,
    /// Short form of the option `sinks` of `window`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sinks: Option<usize>,
    /// Attention pattern, in the forms of `rope`; default: `full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attention: Option<PerLayer<dyn AttentionPattern>>,
    /// Query scale, in the forms of `rope`; default: `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scale: Option<PerLayer<dyn QueryScale>>,
}

/// `logn = false | true | { length = "position" | "visible" }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
struct LogN(Option<LogNParams>);

impl TryFrom<Value> for LogN {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::Bool(on) => Ok(LogN(on.then(LogNParams::default))),
            Value::Object(_) => {
                let params = serde_json::from_value(value).map_err(|e| format!("logn: {e}"))?;
                Ok(LogN(Some(params)))
            }
            other => Err(format!(
                "logn: {other} is not one of true, false, {{ length = \"position\" }}, \
                 {{ length = \"visible\" }}"
            )),
        }
    }
}

impl From<LogN> for Value {
    fn from(LogN(params): LogN) -> Value {
        params.map_or(json!(false), |params| json!(params))
    }
}

/// `window = SIZE` or `window = { layers = SIZE, alpha = "global" | "per_layer" }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value")]
struct Window {
    layers: Sizes,
    alpha: Alpha,
}

impl TryFrom<Value> for Window {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            layers: Sizes,
            #[serde(default)]
            alpha: Alpha,
        }
        let read = match value {
            Value::Object(_) => serde_json::from_value(value)
                .map_err(|e| e.to_string())
                .map(|Table { layers, alpha }| Window { layers, alpha }),
            short => Sizes::try_from(short).map(|layers| Window {
                layers,
                alpha: Alpha::Global,
            }),
        };
        read.map_err(|e| format!("window: {e}"))
    }
}

impl TryFrom<MethodTable> for Method {
    type Error = String;

    fn try_from(table: MethodTable) -> Result<Self, String> {
        let both = |short: &str, long: &str| {
            Err(format!(
                "method {:?}: {short} is a short form of {long}, and both are given; remove one",
                table.name
            ))
        };
        let attention = match (table.window, table.sinks, table.attention) {
            (None, None, attention) => attention.unwrap_or_default(),
            (Some(_), _, Some(_)) => return both("window", "attention"),
            (_, Some(_), Some(_)) => return both("sinks", "attention"),
            (window, sinks, None) => PerLayer::all(pattern(window, sinks.unwrap_or(0))),
        };
        let scale = match (table.logn, table.scale) {
            (None, scale) => scale.unwrap_or_default(),
            (Some(_), Some(_)) => return both("logn", "scale"),
            (Some(LogN(None)), None) => PerLayer::default(),
            (Some(LogN(Some(params))), None) => {
                PerLayer::all(Choice::named("logn", options(&params)))
            }
        };
        Ok(Method {
            name: table.name,
            rope: table.rope,
            attention,
            scale,
        })
    }
}

/// The pattern that a window and sinks stand for.
fn pattern(window: Option<Window>, sinks: usize) -> Choice<dyn AttentionPattern> {
    let Window { layers, alpha } = window.unwrap_or(FULL);
    match (&layers, alpha, sinks) {
        (Sizes::All(None), Alpha::Global, 0) => Choice::default(),
        _ => Choice::named(
            "window",
            options(&WindowParams {
                size: layers,
                sinks,
                alpha,
            }),
        ),
    }
}

const FULL: Window = Window {
    layers: Sizes::All(None),
    alpha: Alpha::Global,
};

fn options(params: &impl Serialize) -> Options {
    match serde_json::to_value(params) {
        Ok(Value::Object(options)) => options,
        _ => unreachable!("options are a table"),
    }
}

impl From<Method> for MethodTable {
    fn from(method: Method) -> Self {
        let window = method.attention.uniform().and_then(window_of);
        let logn = method.scale.uniform().and_then(logn_of);
        MethodTable {
            name: method.name,
            rope: method.rope,
            attention: window.is_none().then_some(method.attention),
            scale: logn.is_none().then_some(method.scale),
            logn,
            sinks: window.as_ref().map(|window| window.1),
            window: window.map(|window| window.0),
        }
    }
}

/// The window and the sinks that a pattern can be written as.
fn window_of(pattern: &Choice<dyn AttentionPattern>) -> Option<(Window, usize)> {
    let options = Value::Object(pattern.options().clone());
    match pattern.kind() {
        "full" if pattern.options().is_empty() => Some((FULL, 0)),
        "window" => {
            let WindowParams { size, sinks, alpha } = serde_json::from_value(options).ok()?;
            let layers = size;
            Some((Window { layers, alpha }, sinks))
        }
        _ => None,
    }
}

/// The `logn` that a scale can be written as.
fn logn_of(scale: &Choice<dyn QueryScale>) -> Option<LogN> {
    let options = Value::Object(scale.options().clone());
    match scale.kind() {
        "none" if scale.options().is_empty() => Some(LogN(None)),
        "logn" => Some(LogN(Some(serde_json::from_value(options).ok()?))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(table: Value) -> Result<Method, serde_json::Error> {
        serde_json::from_value(table)
    }

    /// Records made before the axes existed have these settings in their keys.
    #[test]
    fn settings_are_those_of_older_records() {
        for (table, settings) in [
            (
                json!({"name": "plain"}),
                json!({"rope": {"kind": "none"}, "logn": false,
                    "window": {"layers": "full", "alpha": "global"}, "sinks": 0}),
            ),
            (
                json!({"name": "all", "rope": {"kind": "yarn", "factor": 4.0}, "logn": true,
                    "window": {"layers": [[4, 64], [2, "full"]], "alpha": "per_layer"}, "sinks": 4}),
                json!({"rope": {"kind": "yarn", "factor": 4.0}, "logn": {"length": "position"},
                    "window": {"layers": [[4, 64], [2, "full"]], "alpha": "per_layer"}, "sinks": 4}),
            ),
        ] {
            assert_eq!(method(table).unwrap().settings(), settings);
        }
    }

    #[test]
    fn a_short_form_is_its_long_form() {
        for (short, long) in [
            (json!({"logn": true}), json!({"scale": {"kind": "logn"}})),
            (
                json!({"logn": {"length": "visible"}}),
                json!({"scale": {"kind": "logn", "length": "visible"}}),
            ),
            (json!({"logn": false}), json!({"scale": {"kind": "none"}})),
            (
                json!({"window": 64, "sinks": 2}),
                json!({"attention": {"kind": "window", "size": 64, "sinks": 2}}),
            ),
            (
                json!({"window": {"layers": [8, "full"], "alpha": "per_layer"}}),
                json!({"attention": {"kind": "window", "size": [8, "full"], "alpha": "per_layer"}}),
            ),
            (
                json!({"window": "full"}),
                json!({"attention": {"kind": "full"}}),
            ),
        ] {
            let named = |mut table: Value| {
                table["name"] = json!("m");
                method(table).unwrap()
            };
            let (short, long) = (named(short), named(long));
            assert_eq!(short.settings(), long.settings());
            // What was written can be read.
            let again: Method = method(serde_json::to_value(&long).unwrap()).unwrap();
            assert_eq!(again.settings(), long.settings());
        }
    }

    #[test]
    fn both_forms_at_once_and_unknown_keys_are_refused() {
        for (table, words) in [
            (
                json!({"window": 8, "attention": {"kind": "full"}}),
                "window is a short form",
            ),
            (
                json!({"sinks": 0, "attention": {"kind": "full"}}),
                "sinks is a short form",
            ),
            (
                json!({"logn": false, "scale": {"kind": "logn"}}),
                "logn is a short form",
            ),
            (json!({"windw": 8}), "windw"),
            (json!({"window": 0}), "window: 0 is not a size"),
            (json!({"window": {"layers": 4, "alhpa": "global"}}), "alhpa"),
            (
                json!({"window": {"layers": 4, "alpha": "layer"}}),
                "per_layer",
            ),
            (json!({"logn": "yes"}), "\"yes\""),
            (json!({"logn": {"length": "seen"}}), "seen"),
        ] {
            let mut named = table;
            named["name"] = json!("m");
            let error = method(named).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn what_has_no_short_form_is_written_long() {
        let table = json!({"name": "m",
            "attention": {"layers": [[3, {"kind": "window", "size": 8}], [1, {"kind": "full"}]]},
            "scale": {"layers": [[1, {"kind": "logn"}], [1, {"kind": "none"}]]}});
        let mut settings = table.clone();
        settings["rope"] = json!({"kind": "none"});
        settings.as_object_mut().unwrap().remove("name");
        assert_eq!(method(table).unwrap().settings(), settings);
    }
}
