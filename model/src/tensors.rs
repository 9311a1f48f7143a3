//! Which parameters a model has, and which tensors of a checkpoint hold them.

use crate::Architecture;
use crate::families::QkvNames;
use crate::quantization::Quantization;

/// What a parameter does in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Embedding,
    AttentionNorm,
    Qkv,
    QkvBias,
    Output,
    MlpNorm,
    Up,
    Gate,
    Down,
    FinalNorm,
    Head,
}

/// A parameter of a model.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub role: Role,
    /// `None` outside the layers.
    pub layer: Option<usize>,
    /// Names and shapes of the tensors that hold it: one, or several whose rows follow each other.
    pub tensors: Vec<(String, Vec<usize>)>,
}

impl Parameter {
    /// Shape of the whole parameter.
    pub fn shape(&self) -> Vec<usize> {
        let mut shape = self.tensors[0].1.clone();
        shape[0] = self.tensors.iter().map(|tensor| tensor.1[0]).sum();
        shape
    }

    /// True for the matrices of the layers, which GPTQ packs.
    pub fn is_packable(&self) -> bool {
        use Role::*;
        matches!(self.role, Qkv | Output | Up | Gate | Down)
    }
}

/// A tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoredTensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub content: Content,
    /// True if the model can be made without it.
    pub optional: bool,
}

/// What a tensor of a checkpoint holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A parameter, or some of its rows.
    Values(Role),
    /// `qweight` of a packed matrix.
    PackedValues,
    /// `qzeros` of a packed matrix.
    PackedZeros,
    /// `scales` of a packed matrix.
    Scales {
        /// Inputs of the matrix.
        inputs: usize,
    },
    /// `g_idx` of a packed matrix: the group of each input.
    InputGroups,
    /// `bias` of a packed matrix that has none in the model.
    PackingBias,
}

impl Content {
    /// True for i32, false for a float type.
    pub fn is_integer(self) -> bool {
        use Content::*;
        matches!(self, PackedValues | PackedZeros | InputGroups)
    }
}

impl Architecture {
    /// Every parameter, packed or not, in the order of the forward pass.
    pub(crate) fn parameters(&self) -> Vec<Parameter> {
        let layout = self.family.layout(self);
        let (v, h, ffn) = (self.vocab_size, self.hidden_size, self.ffn);
        let outside = |role, name: &str, shape| Parameter {
            role,
            layer: None,
            tensors: vec![(format!("{name}.weight"), shape)],
        };
        let mut parameters = vec![outside(Role::Embedding, layout.embedding, vec![v, h])];
        for layer in 0..self.layers {
            let tensor = |name: &str, part: &str, shape| {
                (format!("{}.{layer}.{name}.{part}", layout.layers), shape)
            };
            let parameter = |role, tensors| Parameter {
                role,
                layer: Some(layer),
                tensors,
            };
            let weight = |role, name, shape| parameter(role, vec![tensor(name, "weight", shape)]);
            let projections: Vec<(&str, usize)> = match layout.qkv {
                QkvNames::Fused(name) => vec![(name, 3 * h)],
                QkvNames::Separate(names) => names.map(|name| (name, h)).to_vec(),
            };
            let weights = projections.iter();
            let weights = weights.map(|&(name, rows)| tensor(name, "weight", vec![rows, h]));
            let biases = projections.iter();
            let biases = biases.map(|&(name, rows)| tensor(name, "bias", vec![rows]));

            parameters.push(weight(Role::AttentionNorm, layout.attention_norm, vec![h]));
            parameters.push(parameter(Role::Qkv, weights.collect()));
            if layout.qkv_bias {
                parameters.push(parameter(Role::QkvBias, biases.collect()));
            }
            parameters.extend([
                weight(Role::Output, layout.output, vec![h, h]),
                weight(Role::MlpNorm, layout.mlp_norm, vec![h]),
                weight(Role::Up, layout.up, vec![ffn, h]),
                weight(Role::Gate, layout.gate, vec![ffn, h]),
                weight(Role::Down, layout.down, vec![h, ffn]),
            ]);
        }
        parameters.push(outside(Role::FinalNorm, layout.norm, vec![h]));
        parameters.extend(
            layout
                .head
                .map(|name| outside(Role::Head, name, vec![v, h])),
        );
        parameters
    }

    /// Every tensor that a checkpoint holds, in the order of the forward pass.
    pub(crate) fn stored_tensors(&self) -> Vec<StoredTensor> {
        let qkv_bias = self.family.layout(self).qkv_bias;
        let mut stored = Vec::new();
        for parameter in self.parameters() {
            let role = parameter.role;
            let packing = self.quantization.filter(|_| parameter.is_packable());
            for (name, shape) in parameter.tensors {
                match packing {
                    Some(packing) => {
                        let matrix = name.trim_end_matches(".weight");
                        let has_bias = role == Role::Qkv && qkv_bias;
                        stored.extend(packed_tensors(matrix, &shape, packing, has_bias));
                    }
                    None => stored.push(StoredTensor {
                        name,
                        shape,
                        content: Content::Values(role),
                        optional: false,
                    }),
                }
            }
        }
        stored
    }
}

/// The tensors of a packed matrix `[o, i]`. AutoGPTQ writes `qweight` `[i * bits / 32, o]`,
/// `qzeros` `[groups, o * bits / 32]`, `scales` `[groups, o]` and `g_idx` `[i]`, and gives every
/// matrix a `bias` `[o]`; that of a matrix which has a bias in the model (`has_bias`) is a
/// parameter of its own.
fn packed_tensors(
    matrix: &str,
    shape: &[usize],
    packing: Quantization,
    has_bias: bool,
) -> Vec<StoredTensor> {
    let (o, i) = (shape[0], shape[1]);
    let (bits, groups) = (packing.bits, packing.groups(i));
    let tensor = |part: &str, shape, content| StoredTensor {
        name: format!("{matrix}.{part}"),
        shape,
        content,
        optional: match content {
            Content::InputGroups => !packing.desc_act,
            content => content == Content::PackingBias,
        },
    };
    let mut tensors = vec![
        tensor("qweight", vec![i * bits / 32, o], Content::PackedValues),
        tensor("qzeros", vec![groups, o * bits / 32], Content::PackedZeros),
        tensor("scales", vec![groups, o], Content::Scales { inputs: i }),
        tensor("g_idx", vec![i], Content::InputGroups),
    ];
    if !has_bias {
        tensors.push(tensor("bias", vec![o], Content::PackingBias));
    }
    tensors
}
