//! No library crate chooses a backend: programs and tests do.

use super::arrows::is_library;
use super::workspace::{Crate, Kind, Workspace};

/// burn's features that bring a backend, and the switches that belong to one.
const BACKENDS: &[&str] = &[
    "flex", "simd", "rayon", "x86-v4", "wgpu", "vulkan", "metal", "webgpu", "cuda", "rocm", "cpu", "ndarray",
    "tch", "remote", "autotune", "fusion",
];

/// Backend features on normal dependencies, and on Cargo features of library crates.
pub fn check(workspace: &Workspace) -> Vec<String> {
    workspace.crates.iter().flat_map(check_crate).collect()
}

fn check_crate(krate: &Crate) -> Vec<String> {
    let mut findings = Vec::new();
    for dependency in krate.dependencies.iter().filter(|dependency| dependency.kind != Kind::Dev) {
        let name = &dependency.name;
        if name == "burn" {
            for feature in dependency.features.iter().filter(|feature| is_backend(feature)) {
                findings.push(format!(
                    "{}: [dependencies] burn has the backend feature `{feature}`; {}",
                    krate.name,
                    remedy(krate)
                ));
            }
        } else if name.strip_prefix("burn-").is_some_and(is_backend) || name.starts_with("cubecl") {
            findings.push(format!(
                "{}: depends on the backend crate `{name}`; {}",
                krate.name,
                remedy(krate)
            ));
        }
    }
    if is_library(&krate.name) {
        // Whoever extends a backend has to name it; nobody gets it unasked.
        let extends = |feature: &str, enables: &[String]| {
            feature != "default" && enables.iter().any(|enabled| enabled == "burn/extension")
        };
        for (feature, enables) in krate.features.iter().filter(|(name, enables)| !extends(name, enables)) {
            let backend =
                enables.iter().find(|enabled| enabled.strip_prefix("burn/").is_some_and(is_backend));
            findings.extend(backend.map(|backend| {
                format!("{}: feature `{feature}` turns on `{backend}`; {}", krate.name, remedy(krate))
            }));
        }
    }
    findings
}

fn is_backend(feature: &str) -> bool {
    BACKENDS.contains(&feature)
}

fn remedy(krate: &Crate) -> &'static str {
    match krate.name.as_str() {
        "rzen" => "make it a feature of `rzen`, so that builds without it remain possible",
        _ => "only `rzen` has backends, and tests through [dev-dependencies]",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(name: &str, dependency: &str, features: &str) -> Vec<String> {
        let json = format!(
            r#"{{"workspace_root": "/w", "packages": [{{"name": "{name}", "manifest_path": "/w/c/Cargo.toml",
                "dependencies": [{dependency}], "features": {features}}}]}}"#
        );
        check(&Workspace::parse(&json).unwrap())
    }

    #[test]
    fn tests_and_the_program_may_choose_a_backend() {
        let dev = r#"{"name": "burn", "kind": "dev", "features": ["flex"]}"#;
        assert_eq!(findings("rzen-loss", dev, "{}"), Vec::<String>::new());
        let plain = r#"{"name": "burn", "kind": null, "features": ["std", "autodiff"]}"#;
        assert_eq!(findings("rzen", plain, r#"{"cuda": ["burn/cuda"]}"#), Vec::<String>::new());
    }

    #[test]
    fn a_library_may_extend_a_backend_on_demand() {
        let plain = r#"{"name": "burn", "kind": null, "features": []}"#;
        let extends = r#"{"default": [], "cpu": ["burn/flex", "burn/extension"]}"#;
        assert_eq!(findings("rzen-model", plain, extends), Vec::<String>::new());
    }

    #[test]
    fn library_crates_may_not() {
        let burn = r#"{"name": "burn", "kind": null, "features": ["std", "wgpu"]}"#;
        assert_eq!(findings("rzen-loss", burn, "{}").len(), 1);
        let plain = r#"{"name": "burn", "kind": null, "features": []}"#;
        assert_eq!(findings("rzen-loss", plain, r#"{"gpu": ["burn/cuda"]}"#).len(), 1);
        let default = r#"{"default": ["burn/flex", "burn/extension"]}"#;
        assert_eq!(findings("rzen-model", plain, default).len(), 1);
        let direct = r#"{"name": "burn-flex", "kind": null, "features": []}"#;
        assert_eq!(findings("rzen-model", direct, "{}").len(), 1);
    }
}
