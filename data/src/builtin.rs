//! The built-in model; `model/tiny/README.md` is its card.

/// A checkpoint folder that is part of the program.
pub struct BuiltinModel {
    /// `config.json`.
    pub config: &'static [u8],
    /// `model.safetensors`.
    pub weights: &'static [u8],
    /// The vocabulary, a `.tiktoken` file.
    pub vocabulary: &'static [u8],
}

/// 3.4 million parameters in the architecture of the first Qwen family, trained on 256 tokens.
pub const TINY: BuiltinModel = BuiltinModel {
    config: include_bytes!("../../model/tiny/config.json"),
    weights: include_bytes!("../../model/tiny/model.safetensors"),
    vocabulary: include_bytes!("../../model/tiny/qwen.tiktoken"),
};
