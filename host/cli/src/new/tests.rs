//! What `tovuk new` writes, in folders of their own. That the templates build is for the tests that have a toolchain.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;

use tovuk_kernel::project::Kind;

use super::*;
use crate::project_file::{self, Style};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Writes a template and reads its project file as `tovuk dev` would.
fn created(template: Option<&str>) -> (tempfile::TempDir, Created, project_file::Loaded) {
    let outer = folder();
    let directory = outer.path().join("My Shop_2");
    let created = create(&directory, template).unwrap_or_else(|error| panic!("{error}"));
    let loaded = project_file::load(&directory).unwrap_or_else(|error| panic!("{}", error.render(Style::Plain)));
    assert!(loaded.warnings.is_empty(), "{}", loaded.render_warnings(Style::Plain));
    (outer, created, loaded)
}

#[test]
fn every_template_gives_a_project_that_can_be_read() {
    let kinds = [Kind::RustWorker, Kind::RustWorker, Kind::Fullstack, Kind::RustWorker, Kind::StaticFrontend];
    for (name, kind) in NAMES.into_iter().zip(kinds) {
        let (_outer, created, loaded) = created(Some(name));
        assert_eq!(created.service, "my-shop-2");
        let service = &loaded.project.services["my-shop-2"];
        assert_eq!(service.kind(), kind, "{name}");
        assert!(service.is_public(), "{name}");
        for file in &created.files {
            let text = fs::read_to_string(created.directory.join(file)).unwrap();
            assert!(!text.contains("{{"), "{name}: {} has a placeholder left", file.display());
        }
        for file in [".gitignore", "README.md", "tovuk.toml"] {
            assert!(created.files.contains(&PathBuf::from(file)), "{name} has no {file}");
        }
    }
}

#[test]
fn every_file_of_the_templates_is_written() {
    let on_disk = walkdir::WalkDir::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("templates"))
        .into_iter()
        .flatten()
        .filter(|entry| entry.file_type().is_file());
    let written: usize = NAMES.iter().map(|name| Template::named(name).unwrap().files.len()).sum();
    assert_eq!(on_disk.count(), written);
}

#[test]
fn manifests_of_rust_templates_name_a_crate_that_is_there() {
    let (_outer, created, _) = created(Some("rust"));
    let manifest: serde_json::Value = toml::from_str(&fs::read_to_string(created.directory.join("Cargo.toml")).unwrap()).unwrap();
    assert_eq!(manifest["package"]["name"], "my-shop-2");
    let sdk = manifest["dependencies"]["tovuk"]["path"].as_str().unwrap();
    assert!(Path::new(sdk).join("Cargo.toml").is_file());
    assert_eq!(manifest["profile"]["release"]["strip"], "debuginfo");
}

#[test]
fn aliases_stand_for_templates() {
    for (alias, name) in [
        ("rust-worker", "rust"),
        ("fullstack-rust-tanstack", "fullstack"),
        ("tanstack-static-frontend", "static"),
        ("next-static-frontend", "static"),
    ] {
        assert_eq!(Template::named(alias).unwrap().name, name);
    }
}

#[test]
fn nothing_is_overwritten_and_nothing_is_half_written() {
    let outer = folder();
    fs::write(outer.path().join("README.md"), "mine").unwrap();
    let error = create(outer.path(), Some("rust")).unwrap_err();
    assert_eq!(error.code(), "file_exists");
    assert!(error.to_string().contains("`README.md`"), "{error}");
    assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(outer.path().join("README.md")).unwrap(), "mine");
}

#[test]
fn an_unknown_template_is_told_with_the_nearest() {
    let outer = folder();
    let error = create(&outer.path().join("x"), Some("fulstack")).unwrap_err();
    assert_eq!(error.code(), "invalid_template");
    assert!(error.to_string().contains("did you mean `fullstack`?"), "{error}");
    assert!(!outer.path().join("x").exists());
}

#[test]
fn a_program_is_told_what_was_made_and_why_nothing_was() {
    let (_outer, created, _) = created(Some("static"));
    let told = serde_json::to_value(&created).unwrap();
    assert_eq!((&told["template"], &told["service"]), (&"static".into(), &"my-shop-2".into()));
    assert!(
        told["files"].as_array().unwrap().contains(&"tovuk.toml".into()) && told["next"].as_array().unwrap().contains(&"tovuk dev".into()),
        "{told}"
    );
    for (error, code) in [
        (create(&created.directory, Some("static")).unwrap_err(), "file_exists"),
        (create(&created.directory, Some("fulstack")).unwrap_err(), "invalid_template"),
        (NewError::HalfMissing { directory: PathBuf::new(), found: "`api`".to_owned(), missing: "frontend" }, "fullstack_roots_missing"),
    ] {
        let failure = Failure::from(&anyhow::Error::from(error));
        assert_eq!(failure.code, code);
        assert!(failure.agent_instruction.is_some_and(|instruction| !instruction.is_empty()), "{code}");
    }
}

#[test]
fn a_wrong_sdk_path_is_told_and_templates_without_it_do_not_care() {
    let outer = folder();
    let nowhere = outer.path().join("nowhere");
    let error = create_with(&outer.path().join("a"), Some("rust"), Some(&nowhere)).unwrap_err();
    assert!(error.to_string().contains(SDK_PATH_VARIABLE), "{error}");
    create_with(&outer.path().join("b"), Some("rust-wasi-http"), Some(&nowhere)).unwrap();
}

#[test]
fn the_next_commands_can_be_copied() {
    let (_outer, created, _) = created(None);
    assert_eq!(created.template, Some("rust"));
    let shown = created.to_string();
    assert!(shown.contains("cd '") && shown.contains("\n  tovuk dev\n  curl http://my-shop-2.localhost:8787/hello/you\n"), "{shown}");
}

#[test]
fn a_folder_with_sources_gets_a_project_file_only() {
    let cases: [(&[&str], Kind); 5] = [
        (&["Cargo.toml"], Kind::RustWorker),
        (&["package.json"], Kind::StaticFrontend),
        (&["index.html"], Kind::StaticFrontend),
        (&["api/Cargo.toml", "web/index.html"], Kind::Fullstack),
        (&["server/Cargo.toml", "app/package.json"], Kind::Fullstack),
    ];
    for (sources, kind) in cases {
        let outer = folder();
        let directory = outer.path().join("shop");
        for source in sources {
            let path = directory.join(source);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let created = create(&directory, None).unwrap();
        assert_eq!((created.template, created.files.len()), (None, 1), "{sources:?}");
        let loaded = project_file::load(&directory).unwrap_or_else(|error| panic!("{sources:?}: {}", error.render(Style::Plain)));
        assert_eq!(loaded.project.services["shop"].kind(), kind, "{sources:?}");
    }
    let outer = folder();
    fs::create_dir(outer.path().join("api")).unwrap();
    fs::write(outer.path().join("api/Cargo.toml"), "").unwrap();
    assert_eq!(create(outer.path(), None).unwrap_err().code(), "fullstack_roots_missing");
}

#[test]
fn names_are_made_to_fit() {
    for (folder, name) in
        [("My Shop", "my-shop"), ("--x--", "x"), ("ünïcode", "n-code"), ("...", "app"), ("databases", "app"), (&"y".repeat(60), &"y".repeat(48))]
    {
        assert_eq!(service_name(&Path::new("/nowhere").join(folder)), name);
    }
    assert_eq!(package_name("2048"), "worker-2048");
    assert_eq!(package_name("match"), "worker-match");
    assert_eq!(package_name("shop"), "shop");
}
