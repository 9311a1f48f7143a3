//! Files that the crate writes get the permissions of the user's umask.
#![cfg(unix)]

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use burn::tensor::Device;
use longspan_model::{Initial, Optimizer, Trainer, WeightType, shape, write_random_checkpoint};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode()
}

#[test]
fn checkpoints_get_the_permissions_of_new_files() {
    let folder = tempfile::tempdir().unwrap();
    let new = folder.path().join("new");
    File::create(&new).unwrap();
    let mut config = shape("micro").unwrap();
    config.layers = 1;

    let random = folder.path().join("random");
    write_random_checkpoint(&random, &config, WeightType::F32, 0, 1 << 18).unwrap();
    let trained = folder.path().join("trained");
    let (initial, optimizer) = (Initial::default(), Optimizer::default());
    let trainer = Trainer::new(config, &initial, &optimizer, 0, &Device::flex());
    trainer.save(&trained).unwrap();

    let mut names = Vec::new();
    for entry in [&random, &trained]
        .map(|dir| fs::read_dir(dir).unwrap())
        .into_iter()
        .flatten()
    {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), mode(&new), "{}", path.display());
        names.push(path.file_name().unwrap().to_string_lossy().into_owned());
    }
    names.sort();
    names.dedup();
    assert!(
        names.iter().all(|name| !name.contains("partial")),
        "{names:?}"
    );
    for name in ["config.json", "model.safetensors", "optimizer.bpk"] {
        assert!(names.iter().any(|found| found == name), "{names:?}");
    }
    assert!(
        names.iter().any(|name| name.ends_with("index.json")),
        "{names:?}"
    );
}
