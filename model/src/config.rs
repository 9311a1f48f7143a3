//! `config.json` to and from the sizes of a model.

use std::path::Path;

use serde_json::Value;

use crate::families::{FAMILIES, QkvNames};
use crate::{Architecture, ConfigFields, ModelError, Quantization};

impl Architecture {
    /// Reads `config.json`; the second value lists fields that are not known and were ignored.
    ///
    /// # Errors
    /// The `model_type` is not known; a field that shapes the model is missing, is out of range,
    /// contradicts another, or asks for arithmetic that is not implemented.
    pub fn from_file(path: &Path) -> Result<(Self, Vec<String>), ModelError> {
        let mut fields = ConfigFields::from_file(path)?;
        let model_type = fields.value("model_type")?.as_str().unwrap_or_default();
        let known = FAMILIES.iter().find(|family| family.name() == model_type);
        let Some(family) = known else {
            let names: Vec<&str> = FAMILIES.iter().map(|family| family.name()).collect();
            let expected = format!("the supported families are {}", names.join(", "));
            return Err(fields.error("model_type", expected));
        };
        let mut architecture = family.read(&mut fields)?;
        let mut unknown = Vec::new();
        if let Some(table) = fields.optional("quantization_config") {
            let table = table.clone();
            let (quantization, ignored) = Quantization::read(path, &table)?;
            architecture.quantization = Some(quantization);
            unknown = ignored;
        }
        architecture.check_packing(path)?;
        Ok((architecture, [fields.unknown(), unknown].concat()))
    }

    /// The fields as `config.json` has them.
    pub fn to_json(&self) -> Value {
        let mut json = self.family.to_json(self);
        if let Some(quantization) = self.quantization {
            json["quantization_config"] = quantization.to_json();
        }
        json
    }

    /// Checks that the matrices can be packed as [`quantization`](Architecture::quantization) says.
    ///
    /// # Errors
    /// A width does not fill whole words, or the family has no packed form; `path` is named as the
    /// file at fault.
    pub fn check_packing(&self, path: &Path) -> Result<(), ModelError> {
        let Some(Quantization { bits, .. }) = self.quantization else {
            return Ok(());
        };
        let error = |expected: String| ModelError::ConfigValue {
            path: path.to_owned(),
            key: "quantization_config.bits",
            value: bits.to_string(),
            expected,
        };
        if let QkvNames::Separate(_) = self.family.layout(self).qkv {
            return Err(error(format!(
                "the family {} is supported without quantisation only",
                self.family.name()
            )));
        }
        let values = 32 / bits;
        let sizes = [
            ("the width of the residual stream", self.hidden_size),
            ("the width of the feed-forward layer", self.ffn),
        ];
        let uneven = sizes
            .into_iter()
            .find(|size| !size.1.is_multiple_of(values));
        uneven.map_or(Ok(()), |(what, size)| {
            Err(error(format!(
                "{what} is {size}, which is not a multiple of the {values} values of a word"
            )))
        })
    }
}
