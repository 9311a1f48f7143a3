//! The `[[method]]` table of a config.

use longspan_rope::RopeConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::PlanError;

/// One row of the table: a name and what it switches on.
///
/// ```toml
/// [[method]]
/// name = "dynamic_ntk + logn + window_attn"
/// rope = { kind = "dynamic_ntk" }
/// logn = true
/// window = { layers = [[4, 2048], [4, 4096], [24, "full"]], alpha = "per_layer" }
/// sinks = 4
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Method {
    /// Name in tables, figures and records; unique in a config.
    pub name: String,
    /// Frequency method and its options; default `none`.
    #[serde(default)]
    pub rope: RopeConfig,
    /// LogN scaling of queries; default off.
    #[serde(default)]
    pub logn: LogN,
    /// Tokens a query sees, by layer; default all.
    #[serde(default)]
    pub window: Window,
    /// First tokens of the sequence that stay visible outside the window; default 0.
    #[serde(default)]
    pub sinks: usize,
}

impl Method {
    /// Plain RoPE with full attention.
    pub fn named(name: &str) -> Self {
        Method {
            name: name.to_owned(),
            rope: RopeConfig::default(),
            logn: LogN::Off,
            window: Window::default(),
            sinks: 0,
        }
    }
}

/// LogN attention scaling: query `i` (1-based) times `max(1, ln m / ln L)`, `L` the trained length
/// (kexue 8823, 9706; Qwen's code).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum LogN {
    /// Queries are left as they are.
    #[default]
    Off,
    /// `m` is what the length names.
    On(LogNLength),
}

/// The `m` of LogN's `ln m / ln L`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogNLength {
    /// The query's 1-based position (Qwen's code).
    #[default]
    Position,
    /// The number of tokens the query sees in its layer.
    Visible,
}

/// Layer-wise window attention (idea: QwenLM/Qwen issues 206 and 422).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct Window {
    /// Window of each layer.
    pub layers: WindowLayers,
    /// Which length the frequency method of a windowed layer is given.
    pub alpha: Alpha,
}

/// Windows of the layers, first layer first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WindowLayers {
    /// One window for all layers.
    All(WindowSize),
    /// Runs of layers: `[[4, 2048], [4, 4096], [24, "full"]]`.
    Schedule(Vec<(usize, WindowSize)>),
    /// One entry a layer: `[64, 64, 128, "full"]`.
    List(Vec<WindowSize>),
}

impl Default for WindowLayers {
    fn default() -> Self {
        WindowLayers::All(WindowSize::Full)
    }
}

/// Tokens a query sees, itself included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowSize {
    /// All tokens up to the query.
    Full,
    /// The last so many.
    Tokens(usize),
}

/// The length from which a windowed layer's frequencies are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alpha {
    /// The length of the pass, in every layer.
    #[default]
    Global,
    /// `min(length, window)` of the layer.
    PerLayer,
}

impl WindowLayers {
    /// The window of each of `layers` layers; `None` sees everything.
    ///
    /// # Errors
    /// When the list or the schedule does not cover exactly that many layers.
    pub fn sizes(&self, layers: usize) -> Result<Vec<Option<usize>>, PlanError> {
        let runs: Vec<(usize, WindowSize)> = match self {
            WindowLayers::All(size) => vec![(layers, *size)],
            WindowLayers::Schedule(runs) => runs.clone(),
            WindowLayers::List(sizes) => sizes.iter().map(|&size| (1, size)).collect(),
        };
        let given = runs
            .iter()
            .fold(0, |sum: usize, run| sum.saturating_add(run.0));
        if given != layers {
            return Err(PlanError::WindowLayers { given, layers });
        }
        Ok(runs
            .into_iter()
            .flat_map(|(count, size)| std::iter::repeat_n(size, count))
            .map(|size| match size {
                WindowSize::Full => None,
                WindowSize::Tokens(tokens) => Some(tokens),
            })
            .collect())
    }
}

// TOML's short forms (`logn = true`, `window = 2048`) are read from a `Value` by hand: serde's
// untagged enums can only say that nothing matched.

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogNTable {
    #[serde(default)]
    length: LogNLength,
}

impl TryFrom<Value> for LogN {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::Bool(false) => Ok(LogN::Off),
            Value::Bool(true) => Ok(LogN::On(LogNLength::Position)),
            Value::Object(_) => {
                let table: LogNTable =
                    serde_json::from_value(value).map_err(|e| format!("logn: {e}"))?;
                Ok(LogN::On(table.length))
            }
            other => Err(format!(
                "logn: {other} is not one of true, false, {{ length = \"position\" }}, {{ length = \"visible\" }}"
            )),
        }
    }
}

impl From<LogN> for Value {
    fn from(logn: LogN) -> Value {
        match logn {
            LogN::Off => json!(false),
            LogN::On(length) => json!(LogNTable { length }),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowTable {
    layers: Value,
    #[serde(default)]
    alpha: Alpha,
}

impl TryFrom<Value> for Window {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let (layers, alpha) = match value {
            Value::Object(_) => {
                let table: WindowTable =
                    serde_json::from_value(value).map_err(|e| format!("window: {e}"))?;
                (table.layers, table.alpha)
            }
            short => (short, Alpha::Global),
        };
        let layers = match &layers {
            Value::Array(entries) if entries.iter().all(Value::is_array) => {
                WindowLayers::Schedule(entries.iter().map(run).collect::<Result<_, _>>()?)
            }
            Value::Array(entries) => {
                WindowLayers::List(entries.iter().map(size).collect::<Result<_, _>>()?)
            }
            one => WindowLayers::All(size(one)?),
        };
        Ok(Window { layers, alpha })
    }
}

fn size(value: &Value) -> Result<WindowSize, String> {
    match (value.as_u64(), value.as_str()) {
        (Some(tokens), _) if tokens > 0 => Ok(WindowSize::Tokens(tokens as usize)),
        (_, Some("full")) => Ok(WindowSize::Full),
        _ => Err(format!(
            "window: {value} is not a size; give a number of tokens from 1 (the query itself) or \"full\", \
             for all layers or in a list with one a layer, or runs of layers such as [[4, 2048], [24, \"full\"]]"
        )),
    }
}

fn run(value: &Value) -> Result<(usize, WindowSize), String> {
    match value.as_array().map(Vec::as_slice) {
        Some([count, window]) if count.is_u64() => {
            Ok((count.as_u64().unwrap_or(0) as usize, size(window)?))
        }
        _ => Err(format!(
            "window: {value} is not a run of layers; a run is [layers, size], such as [4, 2048]"
        )),
    }
}

impl From<WindowSize> for Value {
    fn from(size: WindowSize) -> Value {
        match size {
            WindowSize::Full => json!("full"),
            WindowSize::Tokens(tokens) => json!(tokens),
        }
    }
}

impl From<Window> for Value {
    fn from(window: Window) -> Value {
        let list = |sizes: Vec<WindowSize>| sizes.into_iter().map(Value::from).collect();
        let layers = match window.layers {
            WindowLayers::All(size) => size.into(),
            WindowLayers::List(sizes) => Value::Array(list(sizes)),
            WindowLayers::Schedule(runs) => runs
                .into_iter()
                .map(|(count, size)| json!([count, Value::from(size)]))
                .collect(),
        };
        json!(WindowTable {
            layers,
            alpha: window.alpha
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(value: Value) -> Result<Window, String> {
        Window::try_from(value)
    }

    #[test]
    fn every_form_of_a_window_reads_and_writes_back() {
        for (form, layers, sizes) in [
            (json!("full"), 3, vec![None; 3]),
            (json!(2048), 2, vec![Some(2048); 2]),
            (json!([64, "full"]), 2, vec![Some(64), None]),
            (
                json!([[2, 64], [1, "full"]]),
                3,
                vec![Some(64), Some(64), None],
            ),
            (
                json!({"layers": [[2, 64]], "alpha": "per_layer"}),
                2,
                vec![Some(64); 2],
            ),
        ] {
            let read = window(form.clone()).unwrap();
            assert_eq!(read.layers.sizes(layers).unwrap(), sizes, "{form}");
            assert_eq!(window(Value::from(read.clone())).unwrap(), read, "{form}");
        }
    }

    #[test]
    fn a_bad_window_is_refused_with_what_was_read() {
        for (form, words) in [
            (json!(0), "0 is not a size"),
            (json!("ful"), "\"ful\""),
            (json!([[4, 2048, 1]]), "[4,2048,1]"),
            (json!([[4, 2048], 64]), "[4,2048] is not a size"),
            (json!({"layers": 4, "alhpa": "global"}), "alhpa"),
            (json!({"layers": 4, "alpha": "layer"}), "per_layer"),
        ] {
            let error = window(form).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_window_list_must_cover_the_layers() {
        let list = window(json!([[usize::MAX, 8], [3, 8]])).unwrap();
        assert!(matches!(
            list.layers.sizes(4),
            Err(PlanError::WindowLayers { layers: 4, .. })
        ));
        let list = window(json!([8, 8])).unwrap();
        assert!(list.layers.sizes(3).is_err());
    }

    #[test]
    fn logn_reads_and_writes_back() {
        for (form, logn) in [
            (json!(false), LogN::Off),
            (json!(true), LogN::On(LogNLength::Position)),
            (json!({"length": "visible"}), LogN::On(LogNLength::Visible)),
        ] {
            assert_eq!(LogN::try_from(form).unwrap(), logn);
            assert_eq!(LogN::try_from(Value::from(logn)).unwrap(), logn);
        }
        assert!(
            LogN::try_from(json!("yes"))
                .unwrap_err()
                .contains("\"yes\"")
        );
        assert!(LogN::try_from(json!({"length": "seen"})).is_err());
    }
}
