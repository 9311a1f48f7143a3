//! The shipped model: see `data/tiny/README.md` for how it was made.

/// A checkpoint folder that is part of the program.
pub struct BuiltinModel {
    /// `config.json`.
    pub config: &'static [u8],
    /// `model.safetensors`.
    pub weights: &'static [u8],
    /// The vocabulary, a `.tiktoken` file.
    pub vocabulary: &'static [u8],
}

/// A model of 3.4 million parameters in the architecture of the first Qwen family, trained at 256 tokens.
pub const TINY: BuiltinModel = BuiltinModel {
    config: include_bytes!("../tiny/config.json"),
    weights: include_bytes!("../tiny/model.safetensors"),
    vocabulary: include_bytes!("../tiny/qwen.tiktoken"),
};
