//! What a component's imports let it do, in words that an author recognises.

use tovuk_kernel::project::Service;

/// The powers of a component that imports these interfaces, declared as this service, in order and each once.
pub(crate) fn of(imports: &[String], service: &Service) -> Vec<String> {
    let mut powers: Vec<String> = imports.iter().filter_map(|import| of_import(import)).map(str::to_owned).collect();
    powers.extend(service.outbound.iter().map(|pattern| format!("outgoing HTTP to {pattern}")));
    powers.extend(service.bindings.iter().map(|binding| format!("calls of the service {}", binding.service)));
    powers.extend(service.secrets.iter().map(|secret| format!("the secret {secret}")));
    powers.sort();
    powers.dedup();
    powers
}

/// What one import lets a worker do here; nothing for what toolchains import unasked and the host answers with nothing.
pub fn of_import(import: &str) -> Option<&'static str> {
    match import.split('@').next().unwrap_or_default() {
        "tovuk:bindings/service" => Some("calls of bound services"),
        "tovuk:http/client" | "wasi:http/outgoing-handler" => Some("outgoing HTTP"),
        "wasi:config/store" => Some("reading its configuration"),
        _ => None,
    }
}
