//! The repository's own registry file.

use std::path::Path;

use pensieve::config::registry_file::RegistryFile;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn registry() -> RegistryFile {
    let path = Path::new(ROOT).join("model-registry.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    RegistryFile::parse(&text, &path).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn it_parses_and_names_files_that_are_whole() {
    let registry = registry();
    assert!(!registry.models.is_empty());
    for (id, model) in &registry.models {
        let source = &model.value.source.as_ref().unwrap_or_else(|| panic!("{id} has no source")).value;
        let summary = pensieve::config::catalog::header_of(&Path::new(ROOT).join(source));
        assert!(summary.is_ok(), "{id}: {summary:?}");
    }
}

#[test]
fn it_shows_the_default_features() {
    let registry = registry();
    assert!(registry.models.values().any(|model| model.value.preload), "a server has something to start with");
    assert!(registry.models.values().any(|model| !model.value.preload), "and something that is loaded on demand");
    assert!(registry.models.values().any(|model| !model.value.aliases.is_empty()));
    assert!(registry.models.values().all(|model| model.value.description.is_some()));
}

#[test]
#[cfg(feature = "mistralrs")]
fn it_makes_a_catalog_in_which_every_model_fits() {
    let path = Path::new(ROOT).join("model-registry.yaml");
    let catalog = pensieve::config::Catalog::read(&path, &crate::support::real_engines(&path));
    let catalog = catalog.unwrap_or_else(|problems| panic!("{problems}"));
    let together: u64 = catalog.models.values().map(|model| model.estimate.total()).sum();
    assert!((1..=catalog.budget).contains(&together), "{together} of {}", catalog.budget);
}
