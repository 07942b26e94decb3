# A chain of 32 workers, each bound to the next one: a worker of its own for every hop, as separate services would be. The address is replaced by
# `bench http`.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "s0", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s1") ])),
    (name = "s1", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s2") ])),
    (name = "s2", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s3") ])),
    (name = "s3", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s4") ])),
    (name = "s4", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s5") ])),
    (name = "s5", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s6") ])),
    (name = "s6", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s7") ])),
    (name = "s7", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s8") ])),
    (name = "s8", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s9") ])),
    (name = "s9", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s10") ])),
    (name = "s10", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s11") ])),
    (name = "s11", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s12") ])),
    (name = "s12", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s13") ])),
    (name = "s13", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s14") ])),
    (name = "s14", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s15") ])),
    (name = "s15", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s16") ])),
    (name = "s16", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s17") ])),
    (name = "s17", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s18") ])),
    (name = "s18", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s19") ])),
    (name = "s19", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s20") ])),
    (name = "s20", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s21") ])),
    (name = "s21", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s22") ])),
    (name = "s22", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s23") ])),
    (name = "s23", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s24") ])),
    (name = "s24", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s25") ])),
    (name = "s25", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s26") ])),
    (name = "s26", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s27") ])),
    (name = "s27", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s28") ])),
    (name = "s28", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s29") ])),
    (name = "s29", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s30") ])),
    (name = "s30", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01", bindings = [ (name = "NEXT", service = "s31") ])),
    (name = "s31", worker = (modules = [ (name = "chain.js", esModule = embed "chain.js") ], compatibilityDate = "2026-11-01")),
  ],
  sockets = [ (name = "http", address = "127.0.0.1:0", http = (), service = "s0") ]
);
