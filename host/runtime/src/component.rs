//! What a component is to this host: which HTTP world it exports, what it imports, and the names by which it is found.

use std::io::Write;

use serde::{Deserialize, Serialize};
use tovuk_kernel::limits::{Plan, component_gzip_bytes};
use wasmtime::Engine;
use wasmtime::component::Component;

/// The export of the lean world.
pub const LEAN_HANDLER: &str = "tovuk:http/handler@0.1.0";
/// The export of a worker whose State objects have a handler.
pub const OBJECT_HANDLER: &str = "tovuk:state/handler@0.1.0";
/// The export of a worker that takes alarms of State objects without a path.
pub const ALARM_HANDLER: &str = "tovuk:state/alarm-handler@0.1.0";
/// The export of the streaming world, without its patch version.
const WASI_HANDLER: &str = "wasi:http/incoming-handler@0.2";

/// Which HTTP handler a component exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum World {
    /// `tovuk:http/handler`: buffered, and cheaper.
    Lean,
    /// `wasi:http/incoming-handler`: streaming.
    WasiHttp,
}

impl World {
    /// The interface's name, for people.
    pub fn interface(self) -> &'static str {
        match self {
            Self::Lean => "tovuk:http/handler",
            Self::WasiHttp => "wasi:http/incoming-handler",
        }
    }
}

/// A component that this host can run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The handler that will be called. The lean one, when a component exports both.
    pub world: World,
    /// The interfaces that it imports, by full name, in order.
    pub imports: Vec<String>,
}

/// Why a component cannot run here. The texts are for its author.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Refusal {
    /// The bytes are no component.
    #[error("{text}")]
    NotAComponent {
        /// What they are, and what to do.
        text: String,
    },
    /// It exports no HTTP handler.
    #[error(
        "the component exports neither `tovuk:http/handler` nor `wasi:http/incoming-handler`{exports}: use #[tovuk::handler] of the SDK, or export wasi:http/incoming-handler@0.2"
    )]
    NoHandler {
        /// What it exports instead, as the end of a clause.
        exports: String,
    },
    /// It imports something that this host does not have.
    #[error("the component imports {names}, which this host does not provide{detail}")]
    UnknownImports {
        /// The names, quoted, separated by commas.
        names: String,
        /// What is wrong with an import that exists under this name but does not fit.
        detail: String,
    },
    /// The compiler refused it, or took more time or memory than it may.
    #[error("the component cannot be compiled: {text}")]
    Compile {
        /// Why.
        text: String,
    },
    /// It compiles, and cannot be run.
    #[error("the component cannot be loaded: {text}")]
    Unloadable {
        /// Why.
        text: String,
    },
    /// It is larger than the plan allows.
    #[error(
        "the component has {gzip_bytes} bytes when compressed with gzip, and the plan allows {limit_bytes}: build with `opt-level = \"s\"`, `lto = true` and `strip = true`, or drop dependencies"
    )]
    TooLarge {
        /// Its size.
        gzip_bytes: u64,
        /// The most that is allowed.
        limit_bytes: u64,
    },
}

/// Looks at what the bytes are before the compiler sees them, so that common mistakes get a plain answer.
pub fn sniff(bytes: &[u8]) -> Result<(), Refusal> {
    let text = match bytes {
        [b'\0', b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => return Ok(()),
        [b'\0', b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            "this is a core wasm module, not a component: build for the target wasm32-wasip2 (`cargo build --release --target wasm32-wasip2`), whose output is a component"
        }
        [] => "the file is empty: build the worker first",
        _ => "this is not WebAssembly: name the .wasm file that the build produces under `component`",
    };
    Err(Refusal::NotAComponent { text: text.to_owned() })
}

/// Refuses a component that is larger, compressed with gzip, than the plan allows.
pub fn check_size(wasm: &[u8], plan: Plan) -> Result<(), Refusal> {
    let limit_bytes = component_gzip_bytes(plan);
    // Compressing can only make it smaller, so most need not be.
    if wasm.len() as u64 <= limit_bytes {
        return Ok(());
    }
    let mut encoder = flate2::write::GzEncoder::new(Counter(0), flate2::Compression::default());
    let compressed = encoder.write_all(wasm).and_then(|()| encoder.finish());
    match compressed {
        Ok(Counter(gzip_bytes)) if gzip_bytes > limit_bytes => Err(Refusal::TooLarge { gzip_bytes, limit_bytes }),
        // Counting cannot fail.
        _ => Ok(()),
    }
}

/// Counts what is written to it.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Describes a compiled component, or says why it cannot be a worker. `satisfied` tells whether an import is provided by this host.
pub fn describe(engine: &Engine, component: &Component, satisfied: impl FnOnce() -> Result<(), String>) -> Result<Description, Refusal> {
    let ty = component.component_type();
    let imports: Vec<String> = ty.imports(engine).map(|(name, _)| name.to_owned()).collect();
    let exports: Vec<String> = ty.exports(engine).map(|(name, _)| name.to_owned()).collect();
    if let Err(detail) = satisfied() {
        let unknown: Vec<_> = imports.iter().filter(|name| !is_known(name)).map(|name| format!("`{name}`")).collect();
        return Err(if unknown.is_empty() {
            let named: Vec<_> = imports.iter().filter(|name| detail.contains(name.as_str())).map(|name| format!("`{name}`")).collect();
            Refusal::UnknownImports {
                names: if named.is_empty() { "an interface in a form".to_owned() } else { named.join(", ") },
                detail: format!(" in this form ({detail})"),
            }
        } else {
            Refusal::UnknownImports { names: unknown.join(", "), detail: String::new() }
        });
    }
    let world = if exports.iter().any(|name| name == LEAN_HANDLER) {
        World::Lean
    } else if exports.iter().any(|name| name.starts_with(WASI_HANDLER)) {
        World::WasiHttp
    } else {
        let exports = if exports.is_empty() { String::new() } else { format!(" (it exports {})", exports.join(", ")) };
        return Err(Refusal::NoHandler { exports });
    };
    Ok(Description { world, imports })
}

/// Whether an import belongs to a package that this host has. Whether the very interface exists is the linker's to say.
fn is_known(import: &str) -> bool {
    const KNOWN: [&str; 15] = [
        "wasi:cli/",
        "wasi:io/",
        "wasi:clocks/",
        "wasi:random/",
        "wasi:filesystem/",
        "wasi:sockets/",
        "wasi:http/types@0.2",
        "wasi:http/outgoing-handler@0.2",
        "wasi:config/store@",
        "wasi:keyvalue/",
        "tovuk:http/",
        "tovuk:bindings/",
        "tovuk:data/",
        "tovuk:kv/",
        "tovuk:state/",
    ];
    KNOWN.iter().any(|known| import.starts_with(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_counts_as_compressed() {
        let zeros = vec![0; 80 << 20];
        assert_eq!(check_size(&zeros, Plan::Free), Ok(()));
        let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(11 << 20).collect();
        assert!(matches!(check_size(&noise, Plan::Free), Err(Refusal::TooLarge { .. })));
        assert_eq!(check_size(&noise, Plan::Pro), Ok(()));
    }

    #[test]
    fn what_is_no_component_is_refused_in_words_of_its_own() {
        let text = |bytes: &[u8]| sniff(bytes).map_err(|refusal| refusal.to_string());
        assert!(text(b"\0asm\x01\0\0\0").is_err_and(|text| text.contains("core wasm module")));
        assert!(text(b"").is_err_and(|text| text.contains("empty")));
        assert!(text(b"#!/bin/sh").is_err_and(|text| text.contains("not WebAssembly")));
        assert_eq!(text(b"\0asm\x0d\0\x01\0"), Ok(()));
    }
}
