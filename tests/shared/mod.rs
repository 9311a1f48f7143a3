//! Running the program, and the fixtures that several tests use.
#![allow(dead_code, unused_imports)] // each test target uses a part

mod checkpoint;
mod golden;
mod training;
mod workspace;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub use checkpoint::{Stored, find, read_tensors, write_tensors};
pub use golden::{Expected, cases, family, golden, method};
pub use training::{training_workspace, write_training};
pub use workspace::{
    json_lines, micro, needles, records, timeless, tiny_folder, workspace, write_config,
    write_model, write_text, write_vocabulary,
};

/// `../shared/<name>`, beyond the repository: the published vocabulary and LaTeX text. `None`, with
/// a line `skipped: ...`, if it does not exist.
pub fn external(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared")
        .join(name);
    if !path.exists() {
        skipped(&format!("../shared/{name} does not exist"));
        return None;
    }
    Some(path)
}

/// The first wgpu device; `None`, with a line `skipped: ...`, if there is none. With
/// `LONGSPAN_GPU_TESTS=strict` that fails the test.
#[cfg(feature = "wgpu")]
pub fn wgpu(test: &str) -> Option<burn::tensor::Device> {
    let devices = burn::tensor::Device::enumerate(burn::tensor::DeviceType::Wgpu);
    let device = devices.into_vec().into_iter().next();
    if device.is_none() {
        let strict = std::env::var("LONGSPAN_GPU_TESTS").is_ok_and(|value| value == "strict");
        assert!(!strict, "{test}: wgpu finds no device");
        skipped(&format!("{test}: wgpu finds no device"));
    }
    device
}

/// Reports a skipped check. The test runner captures `println` in tests that pass, so this writes
/// to stderr directly.
pub fn skipped(reason: &str) {
    let line = format!("skipped: {reason} (1 check)\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// The program.
pub fn longspan() -> Command {
    Command::new(env!("CARGO_BIN_EXE_longspan"))
}

/// Runs the program in a folder.
pub fn run_in(dir: &Path, args: &[&str]) -> Output {
    longspan().current_dir(dir).args(args).output().unwrap()
}

/// Runs the program, which must succeed, and returns its standard output.
#[track_caller]
pub fn succeed(dir: &Path, args: &[&str]) -> String {
    let output = run_in(dir, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the program, which must end with exit code 2 and a message that contains all `words`.
#[track_caller]
pub fn fail(dir: &Path, args: &[&str], words: &[&str]) {
    let output = run_in(dir, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    for word in words {
        assert!(
            stderr.contains(word),
            "{args:?}: no \"{word}\" in: {stderr}"
        );
    }
}
