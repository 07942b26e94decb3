//! What a component can do beyond computing, in words that its author recognises: what it imports, as far as its service declares what that leads to.

use tovuk_kernel::project::Service;

/// The powers of a component that imports these interfaces, declared as this service, in order and each once. A power that is declared and not imported
/// is none, and neither is one that toolchains import unasked and that leads nowhere.
pub fn of(imports: &[String], service: &Service) -> Vec<String> {
    let imports_any = |names: &[&str]| imports.iter().any(|import| names.contains(&import.split('@').next().unwrap_or_default()));
    let urls = imports_any(&["tovuk:http/client", "wasi:http/outgoing-handler"]);
    let mut powers = Vec::new();
    if urls || imports_any(&["tovuk:bindings/service"]) {
        powers.extend(service.bindings.iter().map(|binding| format!("calls of the service {}", binding.service)));
    }
    if urls {
        powers.extend(service.outbound.iter().map(|pattern| format!("outgoing HTTP to {pattern}")));
    }
    if imports_any(&["tovuk:kv/store", "wasi:keyvalue/store"]) {
        powers.extend(service.kv.iter().map(|namespace| format!("the KV namespace {namespace}")));
    }
    if imports_any(&["tovuk:sqlite/database"]) {
        powers.extend(service.sqlite.keys().map(|database| format!("the SQLite database {database}")));
    }
    if imports_any(&["tovuk:queue/producer"]) {
        powers.extend(service.queues.keys().map(|queue| format!("sending to the queue {queue}")));
    }
    if imports_any(&["tovuk:state/store", "tovuk:state/calls"]) {
        powers.extend(service.state.iter().map(|class| format!("the State class {class}")));
    }
    if imports_any(&["wasi:cli/environment", "wasi:config/store"]) {
        powers.extend(service.secrets.iter().map(|secret| format!("the secret {secret}")));
    }
    if imports_any(&["tovuk:objects/store"]) {
        powers.push("objects of the service".to_owned());
    }
    powers.sort();
    powers.dedup();
    powers
}

#[cfg(test)]
mod tests {
    use super::of;
    use tovuk_kernel::project::Service;

    #[test]
    fn a_power_needs_an_import_and_a_declaration() {
        let service = Service { outbound: vec!["https://api.stripe.com".to_owned()], secrets: vec!["KEY".to_owned()], ..Service::default() };
        let imports = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(of(&imports(&["tovuk:http/client@0.1.0"]), &service), ["outgoing HTTP to https://api.stripe.com"]);
        assert_eq!(of(&imports(&["wasi:cli/environment@0.2.6"]), &service), ["the secret KEY"]);
        let service = Service { kv: vec!["CACHE".to_owned()], ..service };
        for import in ["tovuk:kv/store@0.1.0", "wasi:keyvalue/store@0.2.0-draft2"] {
            assert_eq!(of(&imports(&[import]), &service), ["the KV namespace CACHE"]);
        }
        assert!(of(&imports(&["tovuk:http/client@0.1.0", "wasi:cli/environment@0.2.6"]), &Service::default()).is_empty());
        assert_eq!(of(&imports(&["tovuk:objects/store@0.1.0"]), &Service::default()), ["objects of the service"]);
        let classes = Service { state: vec!["Room".to_owned()], ..Service::default() };
        assert_eq!(of(&imports(&["tovuk:state/calls@0.1.0"]), &classes), ["the State class Room"]);
        let databases = [("DB".to_owned(), Default::default())].into();
        assert_eq!(of(&imports(&["tovuk:sqlite/database@0.1.0"]), &Service { sqlite: databases, ..Service::default() }), ["the SQLite database DB"]);
        let queues = [("jobs".to_owned(), Default::default())].into();
        assert_eq!(of(&imports(&["tovuk:queue/producer@0.1.0"]), &Service { queues, ..Service::default() }), ["sending to the queue jobs"]);
        assert!(of(&imports(&["wasi:io/streams@0.2.6"]), &service).is_empty());
    }
}
