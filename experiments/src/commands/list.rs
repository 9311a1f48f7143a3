//! `longspan list`.

use std::fmt::Write;

use anyhow::Result;
use clap::ValueEnum;
use longspan_data::NeedleTask;

/// What can be listed.
#[derive(Clone, Copy, ValueEnum)]
pub enum What {
    /// Frequency methods: the `kind` of `rope = { kind = "..." }`
    Methods,
    /// Needle tasks: the names for `tasks = ["..."]` in `[needle]`
    Tasks,
}

/// Prints what there is.
pub fn list(what: What) -> Result<()> {
    crate::print(&match what {
        What::Methods => methods()?,
        What::Tasks => tasks()?,
    })
}

/// Every needle task with its templates, as it would stand in a config.
fn tasks() -> Result<String> {
    let mut out =
        String::from("tasks = [\"...\"] in [needle]; a task of your own is such a table\n\n");
    for task in NeedleTask::presets() {
        writeln!(out, "[[needle.task]]")?;
        // A JSON string or number is one of TOML too, and stays on its line.
        let task = serde_json::to_value(&task)?;
        for (key, value) in task.as_object().into_iter().flatten() {
            writeln!(out, "{key} = {value}")?;
        }
        writeln!(out)?;
    }
    Ok(out)
}

/// Every frequency method with its source and options, and the switches beside them.
fn methods() -> Result<String> {
    let mut out = String::new();
    writeln!(out, "rope = {{ kind = \"...\" }}\n")?;
    for method in longspan_rope::METHODS {
        writeln!(out, "{:<15} {}", method.name(), method.summary())?;
        writeln!(out, "{:<15} {}", "", method.source())?;
        for option in method.options() {
            writeln!(
                out,
                "{:<15}   {} = {}: {}",
                "", option.name, option.default, option.meaning
            )?;
        }
        writeln!(out)?;
    }
    writeln!(
        out,
        "beside rope, in any [[method]]:

logn            queries scaled by max(1, ln m / ln L), L the trained length
                arXiv 2202.12172; kexue.fm 8823; Qwen's modeling_qwen.py
                  logn = false | true | {{ length = \"position\" | \"visible\" }}

window          tokens a query sees, itself included, by layer
                QwenLM/Qwen issues 206 and 422
                  window = \"full\" | 2048 | [64, 64, \"full\", ...] | [[4, 2048], [24, \"full\"]]
                  window = {{ layers = (one of these), alpha = \"global\" | \"per_layer\" }}

sinks           first tokens that stay visible outside the windows
                arXiv 2309.17453
                  sinks = 0"
    )?;
    Ok(out)
}
